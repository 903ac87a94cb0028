package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"connectrpc.com/connect"

	"millrace/master/state"
	"millrace/pkg/api/apiconnect"
	"millrace/pkg/security"
)

// identityHeader carries the caller of a forwarded request, from master to master only. Its value is the
// identity's URI, or nobody.
const (
	identityHeader = "Millrace-Identity"
	nobody         = "nobody"
)

// HealthPath answers anybody, with nothing secret.
const HealthPath = "/healthz"

// call is what is known of a request beside its message.
type call struct {
	caller security.Identity
	known  bool // false: without a certificate
	leader *Leader
}

type callKey struct{}

func callOf(ctx context.Context) call {
	c, _ := ctx.Value(callKey{}).(call)
	return c
}

// ServeHTTP decides who may pass, then whether this master answers or the leader does.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == HealthPath {
		s.health(w)
		return
	}
	c, forwarded, err := s.identify(r)
	if err == nil {
		err = s.authorise(r.URL.Path, c)
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if c.leader = s.lead.Load(); c.leader == nil {
		s.notLeading(w, r, c, forwarded)
		return
	}
	s.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callKey{}, c)))
}

func (s *Server) health(w http.ResponseWriter) {
	role := "follower"
	if s.lead.Load() != nil {
		role = "leader"
	} else if s.cfg.Cluster.Leader() == "" {
		role = "no leader"
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]string{"status": "ok", "raft": role}) // the reader is gone if it fails
}

// identify says who calls. Another master's word on whom it forwards for is taken; nobody else's is.
func (s *Server) identify(r *http.Request) (c call, forwarded bool, err error) {
	c.caller, c.known = security.PeerIdentity(r.TLS)
	stated := r.Header.Get(identityHeader)
	r.Header.Del(identityHeader)
	if site, ok := s.cfg.View().Site(); c.known && ok && c.caller.Site != site.ID {
		return call{}, false, deny(connect.CodeUnauthenticated, "the certificate is of another site")
	}
	if stated == "" || !c.known || c.caller.Role != security.RoleMaster {
		return c, false, s.checkNode(c)
	}
	if err := s.checkNode(c); err != nil {
		return call{}, false, err
	}
	if stated == nobody {
		return call{}, true, nil
	}
	c.caller, err = security.ParseIdentity(stated)
	if err != nil {
		return call{}, false, deny(connect.CodeUnauthenticated, "the forwarded identity is malformed")
	}
	return c, true, s.checkNode(c)
}

// checkNode refuses nodes that have left the site for good: their certificates are revoked.
func (s *Server) checkNode(c call) error {
	if !c.known || c.caller.Role == security.RoleUser {
		return nil
	}
	if n, ok := s.cfg.View().Node(c.caller.ID); ok && n.State == state.NodeTerminated {
		return deny(connect.CodeUnauthenticated, "node "+c.caller.ID+" was removed from the site: its certificate is revoked")
	}
	return nil
}

// authorise is the whole table of who may call what.
func (s *Server) authorise(path string, c call) error {
	service := strings.TrimPrefix(path, "/")
	if i := strings.IndexByte(service, '/'); i >= 0 {
		service = service[:i]
	}
	if service == apiconnect.JoinServiceName {
		return nil // the token is the credential
	}
	if !c.known {
		return deny(connect.CodeUnauthenticated, "a client certificate of this site is needed")
	}
	allowed := false
	switch service {
	case apiconnect.MillraceServiceName:
		allowed = c.caller.Role == security.RoleUser || c.caller.Role == security.RoleMaster
	case apiconnect.WorkerServiceName:
		allowed = c.caller.Role == security.RoleWorker
	case apiconnect.MasterServiceName:
		allowed = c.caller.Role == security.RoleMaster
	default:
		return deny(connect.CodeNotFound, "no such path")
	}
	if !allowed {
		return deny(connect.CodePermissionDenied, "a "+string(c.caller.Role)+"'s certificate may not do this")
	}
	return nil
}

func deny(code connect.Code, message string) error {
	return connect.NewError(code, errors.New(message))
}

// refuse answers a request before any handler, in the protocol it speaks.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	err = toConnect(err)
	if writer := connect.NewErrorWriter(); writer.IsSupported(r) {
		writer.Write(w, r, err) // the caller is gone if it fails
		return
	}
	status := http.StatusServiceUnavailable
	switch connect.CodeOf(err) {
	case connect.CodeUnauthenticated:
		status = http.StatusUnauthorized
	case connect.CodePermissionDenied:
		status = http.StatusForbidden
	case connect.CodeNotFound:
		status = http.StatusNotFound
	}
	http.Error(w, connectMessage(err), status)
}

package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	"millrace/master/state"
	"millrace/pkg/client"
	"millrace/pkg/protocol"
	"millrace/pkg/security"
)

// What a master says of the caller whose request it forwards, to another master only.
const (
	identityHeader = "Millrace-Identity" // the identity's URI, or nobody
	issuedHeader   = "Millrace-Issued"   // when its certificate was made, Unix seconds
	peerHeader     = "Millrace-Peer"     // host:port that it calls from
	nobody         = "nobody"
)

// HealthPath says how this master is, to who has a certificate of the site. That it is up at all strangers see
// from their being refused.
const HealthPath = "/healthz"

// TrustHeader is in each answer to a member of the site: security.TrustID of what the site trusts.
const TrustHeader = client.TrustHeader

// call is what is known of a request beside its message.
type call struct {
	caller security.Identity
	known  bool      // false: without a certificate
	issued time.Time // when its certificate was made
	peer   string    // host:port
	who    who       // what the log says of the caller; set on the leader alone
	leader *Leader
	binary protocol.Speaker // that calls
}

type callKey struct{}

func callOf(ctx context.Context) call {
	c, _ := ctx.Value(callKey{}).(call)
	return c
}

// ServeHTTP decides who may pass, then whether this master answers or the leader does.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, forwarded, err := s.identify(r)
	c.leader = s.lead.Load()
	if err == nil {
		err = s.authorise(r.Context(), r.URL.Path, &c)
	}
	switch {
	case err == nil:
		c.binary, err = s.meet(r)
		s.skewed.note(c, err)
	case !errors.Is(err, ErrNotLeader): // which leaves it to another to say who may pass
		s.auditRefused(r, c, err)
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	switch path := r.URL.Path; { // of this master itself, whoever leads
	case path == HealthPath:
		s.health(w)
		return
	case path == NodeLogPath:
		s.ownLog(w, r)
		return
	case strings.HasPrefix(path, BinariesPath):
		s.serveBinary(w, r)
		return
	case c.leader == nil && path != reachPath: // which any master can answer
		s.notLeading(w, r, c, forwarded)
		return
	}
	w.Header().Set(protocol.Header, s.binary.String())
	if site, ok := s.cfg.View().Site(); ok && c.known {
		w.Header().Set(TrustHeader, security.TrustID([]byte(site.CAPEM)))
	}
	s.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callKey{}, c)))
}

// Health is what a master says at HealthPath, in JSON.
type Health struct {
	Status string   `json:"status"`           // ok
	Raft   string   `json:"raft"`             // RaftLeader and so on
	Voters []string `json:"voters,omitempty"` // ids of the masters that vote, as this one knows it
}

// What a master is to the others.
const (
	RaftLeader   = "leader"
	RaftFollower = "follower"
	RaftNoLeader = "no leader" // that it knows of
)

func (s *Server) health(w http.ResponseWriter) {
	h := Health{Status: "ok", Raft: RaftFollower, Voters: s.cfg.Cluster.Voters()}
	if s.lead.Load() != nil {
		h.Raft = RaftLeader
	} else if s.cfg.Cluster.Leader() == "" {
		h.Raft = RaftNoLeader
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(h) // the reader is gone if it fails
}

// identify says who calls. Another master's word on whom it forwards for is taken; nobody else's is.
func (s *Server) identify(r *http.Request) (c call, forwarded bool, err error) {
	c.caller, c.known = security.PeerIdentity(r.TLS)
	c.issued, c.peer = security.PeerIssued(r.TLS), r.RemoteAddr
	stated, issued, peer := r.Header.Get(identityHeader), r.Header.Get(issuedHeader), r.Header.Get(peerHeader)
	for _, h := range []string{identityHeader, issuedHeader, peerHeader} {
		r.Header.Del(h)
	}
	if site, ok := s.cfg.View().Site(); c.known && ok && c.caller.Site != site.ID {
		return c, false, deny(connect.CodeUnauthenticated, "the certificate is of another site")
	}
	if err := s.checkNode(c); err != nil || stated == "" || !c.known || c.caller.Role != security.RoleMaster {
		return c, false, err
	}
	c.peer = peer
	if stated == nobody {
		c.caller, c.known, c.issued = security.Identity{}, false, time.Time{}
		return c, true, nil
	}
	seconds, err := strconv.ParseInt(issued, 10, 64)
	if err != nil {
		return c, false, deny(connect.CodeUnauthenticated, "the forwarded identity is malformed")
	}
	c.issued = time.Unix(seconds, 0)
	if c.caller, err = security.ParseIdentity(stated); err != nil {
		return c, false, deny(connect.CodeUnauthenticated, "the forwarded identity is malformed")
	}
	return c, true, s.checkNode(c)
}

// checkNode refuses nodes that have left the site for good: their certificates are revoked.
func (s *Server) checkNode(c call) error {
	if !c.known || c.caller.Role == security.RoleUser {
		return nil
	}
	if n, ok := s.cfg.View().Node(c.caller.ID); ok && n.State == state.NodeTerminated {
		err := connect.NewError(connect.CodeUnauthenticated, errors.New("node "+c.caller.ID+" was removed from the site: its certificate is revoked"))
		err.Meta().Set(client.RemovedHeader, "yes")
		return err
	}
	return nil
}

// authorise holds a call against the table. A follower lets through what the leader will look at itself: it may not have heard
// yet of who is new. Nor may a leader that was away for a while: it makes sure that it leads before it refuses anybody.
func (s *Server) authorise(ctx context.Context, path string, c *call) error {
	a, known := accessTo(path)
	switch {
	case !c.known && (!known || a.may&stranger == 0):
		return deny(connect.CodeUnauthenticated, "a client certificate of this site is needed")
	case !known:
		return deny(connect.CodeNotFound, "no such path")
	case !c.known:
		c.who = stranger
		return nil
	case c.leader == nil && procedures[path].may != 0: // it is the leader's to answer, and to look at who asks
		return nil
	}
	err := s.permit(a, c)
	if err == nil || c.leader == nil {
		return err
	}
	if err := c.leader.Verify(ctx); err != nil {
		return err
	}
	return s.permit(a, c)
}

// permit looks up who a caller is in the log, and holds that against what a path takes.
func (s *Server) permit(a access, c *call) (err error) {
	if c.who, err = s.standing(*c); err != nil {
		return err
	}
	if a.may&c.who == 0 {
		return &problem{code: connect.CodePermissionDenied, exit: client.ExitUnreachable, next: c.who.next(),
			errs: []string{c.title() + " may not do this" + a.may.needs()}}
	}
	return nil
}

// standing is what the log says of a caller that has a certificate of the site.
func (s *Server) standing(c call) (who, error) {
	v := s.cfg.View()
	if c.caller.Role == security.RoleUser {
		return s.userStanding(v, c)
	}
	n, ok := v.Node(c.caller.ID)
	isMaster := c.caller.Role == security.RoleMaster
	switch {
	case !ok, isMaster != (n.Role == state.RoleMaster):
		return 0, deny(connect.CodeUnauthenticated, "node "+c.caller.ID+" is not admitted to this site: join with a token")
	case isMaster:
		return fellow, nil
	case n.Role == state.RolePool:
		return pooled, nil
	}
	return worker, nil
}

// userStanding is the role of a person. The site's first administrator has no record, and cannot be removed.
func (s *Server) userStanding(v *state.View, c call) (who, error) {
	if c.caller.ID == Admin {
		return admin, nil
	}
	u, ok := v.User(c.caller.ID)
	if !ok || c.issued.Before(u.CreatedAt.Truncate(time.Second)) {
		return 0, &problem{code: connect.CodeUnauthenticated, exit: client.ExitUnreachable, next: "ask an administrator for a login: millrace user create NAME",
			errs: []string{"user " + c.caller.ID + " was removed from this site: the certificate is revoked"}}
	}
	return userRoles[u.Role], nil
}

// userRoles are the roles that a person can have. What is not in it is nothing.
var userRoles = map[string]who{state.UserAdmin: admin, state.UserSubmit: submitter, state.UserRead: reader}

// names of what callers are, for people and the audit log.
var whoNames = map[who]string{reader: state.UserRead, submitter: state.UserSubmit, admin: state.UserAdmin, worker: "worker", pooled: "pool", fellow: "master"}

// title says who calls, for people.
func (c call) title() string {
	if c.caller.Role == security.RoleUser {
		return fmt.Sprintf("user %s, of the role %s,", c.caller.ID, whoNames[c.who])
	}
	return fmt.Sprintf("node %s, of the role %s,", c.caller.ID, whoNames[c.who])
}

// next is what who may not do something can do about it.
func (w who) next() string {
	if w&readers != 0 {
		return "ask an administrator"
	}
	return ""
}

// needs says which role a person would have to be of.
func (w who) needs() string {
	switch {
	case w&submitter != 0:
		return ": it takes the role submit"
	case w&admin != 0:
		return ": it takes the role admin"
	}
	return ""
}

// isAdmin says whether the caller is a person who sees the site's secrets.
func (c call) isAdmin() bool { return c.who == admin }

func deny(code connect.Code, message string) error {
	return connect.NewError(code, errors.New(message))
}

// refuse answers a request before any handler, in the protocol it speaks.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	w.Header().Set(protocol.Header, s.binary.String())
	err = toConnect(err)
	if writer := connect.NewErrorWriter(); writer.IsSupported(r) {
		writer.Write(w, r, err) // the caller is gone if it fails
		return
	}
	var e *connect.Error
	if errors.As(err, &e) && e.Meta().Get(client.RemovedHeader) != "" {
		w.Header().Set(client.RemovedHeader, e.Meta().Get(client.RemovedHeader))
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

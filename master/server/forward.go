package server

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect"

	"millrace/pkg/api/apiconnect"
	"millrace/pkg/client"
	"millrace/pkg/security"
)

// errNoLeader says that there is nobody to forward to, for now.
var errNoLeader = fmt.Errorf("%w, and none is elected yet", ErrNotLeader)

// forwarder takes requests to the leader, over HTTP/2 and mutual TLS as this master.
type forwarder struct{ transport *http.Transport }

func newForwarder(c security.Credential) (*forwarder, error) {
	config, err := c.ClientTLS(security.MasterName)
	if err != nil {
		return nil, fmt.Errorf("server: forwarding: %w", err)
	}
	return &forwarder{transport: &http.Transport{
		TLSClientConfig:     config,
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: 5 * time.Second,
		IdleConnTimeout:     90 * time.Second,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 2 * time.Second, PingTimeout: 3 * time.Second},
	}}, nil
}

func (f *forwarder) close() { f.transport.CloseIdleConnections() }

// notLeading answers on a follower: sessions are sent to the leader, the rest is forwarded once.
func (s *Server) notLeading(w http.ResponseWriter, r *http.Request, c call, forwarded bool) {
	leader := s.cfg.Cluster.Leader()
	if strings.HasPrefix(r.URL.Path, "/"+apiconnect.WorkerServiceName+"/") && leader != "" {
		err := connect.NewError(connect.CodeFailedPrecondition, ErrNotLeader)
		err.Meta().Set(client.LeaderHeader, leader)
		s.refuse(w, r, err)
		return
	}
	if leader == "" || forwarded { // a second hop could go round in circles
		s.refuse(w, r, errNoLeader)
		return
	}
	target, err := url.Parse(leader)
	if err != nil {
		s.refuse(w, r, fmt.Errorf("leader's address %q: %w", leader, err))
		return
	}
	identity := nobody
	if c.known {
		identity = c.caller.String()
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Header.Set(identityHeader, identity)
		},
		Transport:     s.forward.transport,
		FlushInterval: -1, // streams
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				err = r.Context().Err()
			}
			s.refuse(w, r, errors.Join(errNoLeader, fmt.Errorf("forward to %s: %w", leader, err)))
		},
	}
	proxy.ServeHTTP(w, r)
}

package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"time"

	"connectrpc.com/connect"

	"millrace/pkg/api/apiconnect"
	"millrace/pkg/client"
	"millrace/pkg/security"
)

// errNoLeader says that there is nobody to forward to, for now.
var errNoLeader = fmt.Errorf("%w, and none is elected yet", ErrNotLeader)

const forwardDial = 5 * time.Second // for a connection with the leader, handshake included

// forwarder takes requests to the leader, over HTTP/2 and mutual TLS as this master.
type forwarder struct{ transport *http.Transport }

func newForwarder(c *security.Live) *forwarder {
	dial := c.Dialer(security.MasterName, nil, "h2", "http/1.1")
	return &forwarder{transport: &http.Transport{
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, forwardDial)
			defer cancel()
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, unconnected{err}
			}
			return conn, nil
		},
		ForceAttemptHTTP2: true,
		IdleConnTimeout:   90 * time.Second,
		HTTP2:             &http.HTTP2Config{SendPingTimeout: 2 * time.Second, PingTimeout: 3 * time.Second},
	}}
}

// unconnected is why there is no connection with the leader: it has got nothing of the request that waits for one.
type unconnected struct{ error }

func (u unconnected) Unwrap() error { return u.error }

func (f *forwarder) close() { f.transport.CloseIdleConnections() }

// notLeading answers on a follower: sessions are sent to the leader, the rest is forwarded once.
func (s *Server) notLeading(w http.ResponseWriter, r *http.Request, c call, forwarded bool) {
	leader := s.cfg.Cluster.Leader()
	if r.URL.Path == apiconnect.WorkerServiceSessionProcedure && leader != "" {
		err := connect.NewError(connect.CodeFailedPrecondition, ErrNotLeader)
		err.Meta().Set(client.LeaderHeader, leader)
		s.refuse(w, r, err)
		return
	}
	switch {
	case leader == "":
		s.notDone(w, r, s.noLeader(r.Context()))
		return
	case forwarded: // a second hop could go round in circles
		s.notDone(w, r, errNoLeader)
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
			p.Out.Header.Set(issuedHeader, strconv.FormatInt(c.issued.Unix(), 10))
			p.Out.Header.Set(peerHeader, c.peer)
		},
		Transport:     s.forward.transport,
		FlushInterval: -1, // streams
		// A leader that refuses does so before it has read the request, and a client that sees an answer like that sends no more of
		// it: who waits for the rest waits for ever.
		ModifyResponse: func(resp *http.Response) error {
			if resp.StatusCode >= http.StatusMultipleChoices {
				return r.Body.Close()
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				err = r.Context().Err()
			}
			refuse := s.refuse
			if errors.As(err, new(unconnected)) {
				refuse = s.notDone
			}
			refuse(w, r, errors.Join(errNoLeader, fmt.Errorf("forward to %s: %w", leader, err)))
		},
	}
	proxy.ServeHTTP(w, r)
}

// notDone refuses a call of which nothing was done: even what may not be done twice can be repeated.
func (s *Server) notDone(w http.ResponseWriter, r *http.Request, err error) {
	w.Header().Set(client.NotDoneHeader, "yes")
	s.refuse(w, r, err)
}

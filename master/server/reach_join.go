package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
	"millrace/pkg/membership"
	"millrace/pkg/security"
)

const (
	// reachPath is answered by every master, leader or not: what it says depends on who was called, and from where.
	reachPath   = apiconnect.JoinServiceReachProcedure
	reachWithin = 4 * time.Second // one port
	reachPorts  = 8               // of one call
	reachAtOnce = 16              // calls
)

// Reach connects back to ports of the caller's own address, and no other, for who holds a token that is still good.
func (s *joinService) Reach(ctx context.Context, req *connect.Request[api.ReachRequest]) (*connect.Response[api.ReachResponse], error) {
	select {
	case s.reaching <- struct{}{}:
		defer func() { <-s.reaching }()
	default:
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("too many machines ask at once: repeat it"))
	}
	m := req.Msg
	v := s.cfg.View()
	site, ok := v.Site()
	if !ok {
		return nil, errNoLeader
	}
	record, err := s.goodToken(v, m.Token)
	if err != nil {
		return nil, err
	}
	caller, err := netip.ParseAddrPort(req.Peer().Addr)
	if err != nil {
		return nil, fmt.Errorf("reach: caller's address %q: %w", req.Peer().Addr, err)
	}
	if n := len(m.Tcp) + len(m.Udp); n > reachPorts {
		return nil, usage("", fmt.Sprintf("%d ports to connect to: at most %d", n, reachPorts))
	}
	_, gossip, err := s.secrets(site)
	if err != nil {
		return nil, err
	}
	from := caller.Addr().Unmap()
	resp := &api.ReachResponse{
		Role: record.Role, Site: site.ID, NowMs: s.cfg.Now().UnixMilli(), Version: s.cfg.Version, Name: nameOf(v, s.cfg.NodeID),
		Udp: s.cfg.Cluster.GossipPeers(), Taken: s.taken(v, m.Address, m.NodeId),
	}
	if resp.Knock, err = membership.NewKnock(gossip, from, s.cfg.Now()); err != nil {
		return nil, err
	}
	if c, ok := v.Cluster(record.Cluster); ok && record.Cluster != "" {
		resp.Cluster = c.Name
	}
	resp.Tcp = append(resp.Tcp, resp.Udp...) // gossip takes both
	for _, n := range v.Nodes("") {
		if !n.InSet() || n.Address == "" {
			continue
		}
		if n.ID != s.cfg.NodeID && !s.cfg.Cluster.Alive(n.ID) { // one may be down without keeping everybody out
			resp.Lost = append(resp.Lost, fmt.Sprintf("%s (%s)", n.Name, n.Address))
			continue
		}
		resp.Masters = append(resp.Masters, n.Address)
		resp.Tcp = append(resp.Tcp, strings.TrimPrefix(n.Address, "https://"))
		if record.Role == state.RoleMaster && n.Raft != "" {
			resp.Tcp = append(resp.Tcp, n.Raft)
		}
	}
	resp.Unreachable = connectBack(ctx, from, m.Tcp, m.Udp)
	return connect.NewResponse(resp), nil
}

func nameOf(v *state.View, id string) string {
	if n, ok := v.Node(id); ok {
		return n.Name
	}
	return id
}

// goodToken is the record of a token with which a node can join now. It is not used up by that.
func (s *Server) goodToken(v *state.View, text string) (*state.Token, error) {
	token, err := security.ParseToken(text)
	if err != nil {
		return nil, err
	}
	record := findToken(v, token)
	switch {
	case record == nil && s.lead.Load() == nil: // it may be so new that only the leader knows it
		return nil, connect.NewError(connect.CodeUnavailable, fmt.Errorf("%w: it is not known here yet", state.ErrToken))
	case record == nil:
		return nil, fmt.Errorf("%w: it is not known here", state.ErrToken)
	}
	return record, tokenFault(record, s.cfg.Now())
}

// tokenFault says why no further node can join with a token, nil if one can.
func tokenFault(t *state.Token, now time.Time) error {
	switch {
	case !now.Before(t.ExpiresAt):
		return fmt.Errorf("%w: it has expired", state.ErrToken)
	case t.UsesLeft == 0:
		return fmt.Errorf("%w: it is used up", state.ErrToken)
	}
	return nil
}

// taken says who has an address already, if that node is up: two nodes cannot have one. Of workers only the leader knows.
func (s *Server) taken(v *state.View, address, self string) string {
	if address == "" {
		return ""
	}
	for _, n := range v.Nodes("") {
		if n.Role == state.RoleMaster && n.State == state.NodeAdmitted && n.ID != self && n.Address == address && (n.ID == s.cfg.NodeID || s.cfg.Cluster.Alive(n.ID)) {
			return fmt.Sprintf("master %s (%s)", n.Name, n.ID)
		}
	}
	if l := s.lead.Load(); l != nil {
		for _, n := range l.Sessions.Nodes() {
			if n.ID != self && n.Address == address {
				return fmt.Sprintf("node %s (%s)", nameOf(v, n.ID), n.ID)
			}
		}
	}
	return ""
}

// connectBack tries ports of one address, all at once, and has a line for each that it did not reach.
func connectBack(ctx context.Context, from netip.Addr, tcp, udp []string) (lines []string) {
	var tries sync.WaitGroup
	said := make([]string, len(tcp)+len(udp))
	try := func(i int, network, address string, knock func(context.Context, string) error) {
		tries.Go(func() {
			if err := own(from, address); err != nil {
				said[i] = fmt.Sprintf("%s/%s: %s", address, network, err)
				return
			}
			ctx, cancel := context.WithTimeout(ctx, reachWithin)
			defer cancel()
			if err := knock(ctx, address); err != nil {
				said[i] = fmt.Sprintf("%s/%s: %s", address, network, plainNetError(err))
			}
		})
	}
	for i, a := range tcp {
		try(i, "tcp", a, knockTCP)
	}
	for i, a := range udp {
		try(len(tcp)+i, "udp", a, knockUDP)
	}
	tries.Wait()
	for _, line := range said {
		if line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// own refuses every address but the caller's: nobody has this master knock at others' doors.
func own(from netip.Addr, address string) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return errors.New("not of the form IP:PORT")
	}
	if to.Addr().Unmap() != from {
		return fmt.Errorf("not tried: the machine calls from %s", from)
	}
	return nil
}

func knockTCP(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func knockUDP(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "udp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	nonce := make([]byte, 16)
	if _, err := rand.Read(nonce); err != nil {
		return err
	}
	return membership.Knock(conn, nonce, reachWithin)
}

// plainNetError is a network error without what the line names anyhow.
func plainNetError(err error) string {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, membership.ErrNoEcho) {
		return fmt.Sprintf("no answer within %s", reachWithin)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	text := err.Error()
	for _, call := range []string{"connect: ", "read: ", "write: "} {
		text = strings.TrimPrefix(text, call)
	}
	return text
}

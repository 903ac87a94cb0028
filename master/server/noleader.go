package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"millrace/pkg/client"
)

// answerWithin is how long another master has to say that it is there. Gossip takes several seconds longer to miss one.
const answerWithin = time.Second

// noLeader says why there is nobody to forward to, as far as this master can tell: who is out, or that one has
// to wait for an election.
func (s *Server) noLeader(ctx context.Context) error {
	p := &problem{code: connect.CodeUnavailable, next: "it is safe to repeat the command", exit: client.ExitUnreachable}
	if own := s.cfg.Cluster.LastHeard(s.cfg.NodeID); own.CannotLog {
		p.errs = append(p.errs, "the master that answers has no part in anything: "+own.Problem)
	}
	if lost := s.majorityLost(ctx); lost != "" {
		p.errs, p.next = append(p.errs, lost), startThem
	}
	if len(p.errs) == 0 {
		p.errs = []string{errNoLeader.Error()}
	}
	return p
}

const startThem = "start those masters again, it is then safe to repeat the command; if they are gone for good: millrace master recover, on what is left"

// majorityLost names the masters that are out if there are too few for a leader; "" if there are enough.
func (s *Server) majorityLost(ctx context.Context) string {
	voters := s.cfg.Cluster.Voters()
	out := s.silent(ctx, voters)
	need := len(voters)/2 + 1
	if len(voters) == 0 || len(voters)-len(out) >= need {
		return ""
	}
	return fmt.Sprintf("no leader can be elected: %d of %d masters are out (%s), and it takes %d; nothing new is acknowledged until then, what runs goes on",
		len(out), len(voters), strings.Join(out, "; "), need)
}

// deposed says of a call that the leadership ended under it what it ended for, if that can be told.
func (s *Server) deposed(ctx context.Context, err error) error {
	var p *problem
	if !errors.Is(err, ErrNotLeader) || errors.As(err, &p) {
		return err
	}
	lost := s.majorityLost(ctx)
	if lost == "" {
		return err
	}
	return &problem{code: connect.CodeUnavailable, errs: []string{lost, err.Error()}, next: startThem, exit: client.ExitUnreachable}
}

// silent asks each of some masters whether it is there, and names those that do not say so.
func (s *Server) silent(ctx context.Context, ids []string) (names []string) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	view, there := s.cfg.View(), make([]bool, len(ids))
	var asked sync.WaitGroup
	for i, id := range ids {
		n, known := view.Node(id)
		switch {
		case id == s.cfg.NodeID:
			there[i] = true
		case known && n.Address != "":
			asked.Go(func() { there[i] = s.forward.answers(ctx, n.Address) })
		default: // entries are applied when a leader says how far: this one has not heard of the other yet
			there[i] = s.cfg.Cluster.Alive(id)
		}
	}
	asked.Wait()
	for i, id := range ids {
		if there[i] {
			continue
		}
		name := "master " + id
		if n, ok := view.Node(id); ok {
			name = fmt.Sprintf("%s (%s, %s)", n.Name, id, n.Address)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// answers says whether a master answers anything at all.
func (f *forwarder) answers(ctx context.Context, address string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+HealthPath, nil)
	if err != nil {
		return false
	}
	resp, err := f.transport.RoundTrip(req)
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil
}

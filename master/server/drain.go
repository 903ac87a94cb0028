package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"millrace/master/files"
	"millrace/master/leaving"
	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/bytesize"
)

// drainGrace is how long attempts may go on on a node that drains, if nobody says otherwise.
const drainGrace = 5 * time.Minute

// DrainNode has a worker get nothing new and its blocks copied to others, or says what that would take.
func (s *millraceService) DrainNode(ctx context.Context, req *connect.Request[api.DrainNodeRequest]) (*connect.Response[api.NodeDrain], error) {
	if req.Msg.GetGraceMs() < 0 {
		return nil, usage("millrace node drain --help", "a grace cannot be negative")
	}
	s.moves.Lock() // another one's drain counts for this one's plan
	defer s.moves.Unlock()
	v, l, n, err := s.leaving(ctx, req.Msg.Node)
	if err != nil {
		return nil, err
	}
	if n.State == state.NodeTerminated {
		return nil, failure("millrace node list", "node %s was removed", called(n))
	}
	if _, up := sessionOf(l, n.ID); !up {
		return nil, failure("start its worker again, or take it out as it is: millrace node remove "+called(n), "node %s is lost: what it has cannot be copied from it", called(n))
	}
	plan := &api.NodeDrain{}
	drains := n.Draining() && n.Bye == "" // for good: what a node drains for by itself is over when it is started again
	if !drains {                          // else it was found to be possible
		if plan, err = canDrain(v, l, n); err != nil {
			return nil, err
		}
	}
	if req.Msg.DryRun {
		if drains {
			plan = drainOf(n, l)
		}
		return s.drainView(n, l, plan), nil
	}
	grace := drainGrace
	if req.Msg.GraceMs != nil {
		grace = time.Duration(*req.Msg.GraceMs) * time.Millisecond
	}
	if !drains || req.Msg.GraceMs != nil {
		by := s.cfg.Now().Add(grace).UTC()
		if n, err = s.change(ctx, l, state.DrainNode{ID: n.ID, By: by}); err != nil {
			return nil, err
		}
		s.log.Info("node drains", zap.String("node", n.ID), zap.Int64("blocks", plan.Blocks), zap.Int64("bytes", plan.Bytes), zap.Time("by", by))
	}
	return s.drainView(n, l, drainOf(n, l)), nil
}

// GetDrain is how far a drain has come.
func (s *millraceService) GetDrain(ctx context.Context, req *connect.Request[api.GetDrainRequest]) (*connect.Response[api.NodeDrain], error) {
	_, l, n, err := s.leaving(ctx, req.Msg.Node)
	if err != nil {
		return nil, err
	}
	return s.drainView(n, l, drainOf(n, l)), nil
}

// ResumeNode has a worker that drains get tasks and blocks again; for one that does not it changes nothing. One that drains because it is
// about to end does so until it is started again.
func (s *millraceService) ResumeNode(ctx context.Context, req *connect.Request[api.ResumeNodeRequest]) (*connect.Response[api.Node], error) {
	s.moves.Lock()
	defer s.moves.Unlock()
	_, l, n, err := s.leaving(ctx, req.Msg.Node)
	if err != nil {
		return nil, err
	}
	if n.Bye != "" {
		return nil, failure("start its worker again: then it stays", "node %s said that it is about to end, and drains for that", called(n))
	}
	if n.Draining() || n.State == state.NodeTerminated {
		if n, err = s.change(ctx, l, state.DrainNode{ID: n.ID}); err != nil {
			return nil, err
		}
		s.log.Info("node drains no more", zap.String("node", n.ID))
	}
	return connect.NewResponse(s.leavingView(n, l)), nil
}

// RemoveNode takes a worker out of the site for good. One that is up has to be drained before; of one that is lost no
// block may be missed, unless the caller says so.
func (s *millraceService) RemoveNode(ctx context.Context, req *connect.Request[api.RemoveNodeRequest]) (*connect.Response[api.Node], error) {
	s.moves.Lock()
	defer s.moves.Unlock()
	_, l, n, err := s.leaving(ctx, req.Msg.Node)
	if err != nil {
		return nil, err
	}
	if n.State != state.NodeTerminated {
		if err := mayGo(n, l, s.cfg.Now(), req.Msg.Force); err != nil {
			return nil, err
		}
		if n, err = s.change(ctx, l, state.RemoveNode{ID: n.ID, Shrink: true}); err != nil {
			return nil, err
		}
		s.log.Info("node removed", zap.String("node", n.ID))
	}
	return connect.NewResponse(s.leavingView(n, l)), nil
}

// leaving finds a worker by its id, the beginning of that, or its name, once this leader has heard of those that are up. One that
// was removed is found only if no other is meant.
func (s *Server) leaving(ctx context.Context, ref string) (*state.View, *Leader, *state.Node, error) {
	v, l, err := s.read(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	n, err := findNode(v, ref)
	switch {
	case err != nil:
		return nil, nil, nil, err
	case n.Role == state.RoleMaster:
		return nil, nil, nil, usage("millrace master remove "+called(n), fmt.Sprintf("node %s is a master: it holds neither tasks nor blocks", called(n)))
	}
	s.awaitNodes(ctx, v, l, n.Cluster)
	return v, l, n, nil
}

func findNode(v *state.View, ref string) (*state.Node, error) {
	if n, ok := v.Node(ref); ok {
		return n, nil
	}
	var found, gone []*state.Node
	for _, n := range v.Nodes("") {
		switch {
		case ref == "" || n.Name != ref && !strings.HasPrefix(n.ID, ref):
		case n.State == state.NodeTerminated:
			gone = append(gone, n)
		default:
			found = append(found, n)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
	case len(gone) == 1:
		return gone[0], nil
	case len(gone) > 1:
		return nil, notFound("millrace node list", "no such node: %s: the %d that were called so were removed", ref, len(gone))
	default:
		return nil, notFound("millrace node list", "no such node: %s", ref)
	}
	return nil, usage("give an id: millrace node list", fmt.Sprintf("%s means %d nodes", ref, len(found)))
}

// change logs something of a node and has the leader's parts take it up.
func (s *Server) change(ctx context.Context, l *Leader, c state.Command) (*state.Node, error) {
	result, err := s.cfg.Log.Apply(ctx, c)
	if err != nil {
		return nil, err
	}
	n, ok := result.(*state.Node)
	if !ok {
		return nil, fmt.Errorf("the log answered %s with %T", c.CommandName(), result)
	}
	l.Tracker.NodeChanged(n.ID)
	if l.Files != nil {
		l.Files.NodeChanged(n.ID)
	}
	return n, nil
}

// judge judges about nodes that are to leave, by what the leader knows.
func (l *Leader) judge(v *state.View) leaving.Judge {
	return leaving.Judge{View: func() *state.View { return v }, Sessions: l.Sessions, Jobs: l.Tracker, Blocks: l.Files}
}

// canDrain is what it takes to drain a node, or why that cannot be.
func canDrain(v *state.View, l *Leader, n *state.Node) (*api.NodeDrain, error) {
	plan, err := l.judge(v).Can(n)
	c, _ := v.Cluster(n.Cluster)
	switch {
	case errors.Is(err, leaving.ErrNoCore):
		return nil, failure("let another core node join first: "+oneMore(c, state.RoleCore), "drain %s: %s", called(n), err)
	case errors.Is(err, files.ErrCannotDrain):
		return nil, failure("let more core nodes join ("+oneMore(c, state.RoleCore)+"), or want fewer replicas (millrace fs setrep), then drain it", "drain %s: %s", called(n), err)
	}
	if err != nil {
		return nil, filesError(fmt.Errorf("drain %s: %w", called(n), err))
	}
	return plan, nil
}

// mayGo says why a node cannot be removed.
func mayGo(n *state.Node, l *Leader, now time.Time, force bool) error {
	if _, up := sessionOf(l, n.ID); up {
		if !n.Draining() {
			return failure("millrace node drain "+called(n)+" --wait", "node %s is up and has not been drained", called(n))
		}
		if d := drainOf(n, l); !d.Drained {
			return failure("millrace node drain "+called(n)+" --wait", "node %s is not drained yet: %s", called(n), drainReason(n, d, now))
		}
		return nil
	}
	if force {
		return nil
	}
	alone, err := l.judge(nil).Alone(n)
	switch {
	case err != nil:
		return filesError(fmt.Errorf("remove %s: %w", called(n), err))
	case len(alone) == 0:
		return nil
	}
	bytes, paths := int64(0), []string{}
	for _, b := range alone {
		bytes += b.Block.Size
		if !slices.Contains(paths, b.Path) {
			paths = append(paths, b.Path)
		}
	}
	const named = 3
	more := ""
	if len(paths) > named {
		paths, more = paths[:named], fmt.Sprintf(" and %d more", len(paths)-named)
	}
	return failure("start its worker again; or give them up: millrace node remove "+called(n)+" --force",
		"no other node has %s (%s) of %s%s: without node %s they are lost", countOf(len(alone), "block"), bytesize.Format(bytes), strings.Join(paths, ", "), more, called(n))
}

func sessionOf(l *Leader, id string) (session.Node, bool) { return l.judge(nil).Session(id) }

// drainOf is what is left on a node, as far as this leader knows.
func drainOf(n *state.Node, l *Leader) *api.NodeDrain { return l.judge(nil).Left(n) }

// drainReason says for people what a drain still waits for.
func drainReason(n *state.Node, d *api.NodeDrain, now time.Time) string {
	if d.Drained && (n.Leaving || n.Bye != "") {
		return "drained: nothing is left on it; it is being let go"
	}
	if d.Drained {
		return "drained: nothing is left on it; millrace node remove " + called(n) + " takes it out of the site"
	}
	var left []string
	add := func(format string, args ...any) { left = append(left, fmt.Sprintf(format, args...)) }
	if d.Blocks > 0 {
		about := ""
		if d.EstimateMs > 0 {
			about = fmt.Sprintf(", about %s", max(time.Second, (time.Duration(d.EstimateMs)*time.Millisecond).Round(time.Second)))
		}
		add("%s (%s) still to be copied%s", countOf(int(d.Blocks), "block"), bytesize.Format(d.Bytes), about)
	}
	if d.WaitingTotal > 0 {
		add("%d of them wait (%s: %s)", d.WaitingTotal, d.Waiting[0].Path, d.Waiting[0].Reason)
	}
	if d.Writing > 0 {
		add("%s being written there", isAre(int(d.Writing), "block"))
	}
	if d.Attempts > 0 {
		grace := ""
		if over := n.DrainBy.Sub(now).Round(time.Second); over > 0 {
			grace = fmt.Sprintf(" for %s at most", over)
		}
		add("%s running%s", countOf(int(d.Attempts), "attempt"), grace)
	}
	if len(d.Jobs) > 0 {
		add("map output lies there that %s still to read (%s)", isAre(len(d.Jobs), "job"), strings.Join(d.Jobs, ", "))
	}
	if len(left) == 0 {
		return "what lies there is being looked at"
	}
	return strings.Join(left, "; ")
}

func (s *Server) drainView(n *state.Node, l *Leader, d *api.NodeDrain) *connect.Response[api.NodeDrain] {
	d.Node = s.leavingView(n, l)
	if d.Node.State == nodeLost {
		d.Drained = false
	}
	return connect.NewResponse(d)
}

// leavingView is a worker as people see it, also one that was removed.
func (s *Server) leavingView(n *state.Node, l *Leader) *api.Node {
	if n.State == state.NodeTerminated {
		v := nodeView(n)
		v.State, v.Reason = state.NodeTerminated, "it was removed from the site"
		return v
	}
	sess, up := sessionOf(l, n.ID)
	return s.workerView(n, sess, up, l)
}

// called is what people call a node.
func called(n *state.Node) string { return cmp.Or(n.Name, n.ID) }

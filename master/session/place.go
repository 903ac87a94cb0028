package session

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/api"
)

// placedSince is the protocol from which on workers say which cluster they are of.
const placedSince = 4

// misplaced says whether a worker takes itself to be somewhere else than the log has it: it was away while its place changed. What it
// holds and runs there counts for nothing, and nobody hears of it.
func misplaced(n *state.Node, hello *api.WorkerHello) bool {
	return hello.Protocol >= placedSince && hello.Cluster != n.Cluster || hello.Role != "" && hello.Role != n.Role
}

// find has the log take over where a node says it is that may have been put there after the log's end: it would delete what it holds
// there, perhaps the last of it, if it were told another place. Until that is logged it hears nothing.
func (r *Registry) find(ctx context.Context, n *state.Node, hello *api.WorkerHello) (*state.Node, error) {
	if !n.Unsure {
		return n, nil
	}
	if err := r.cfg.Find(ctx, state.FindNode{ID: n.ID, Cluster: hello.Cluster, Role: hello.Role}); err != nil {
		return nil, fmt.Errorf("log where node %s is: %w", n.ID, err)
	}
	found, err := r.admitted(n.ID)
	if err != nil {
		return nil, err
	}
	r.log.Info("a node has said where it is, as this site goes on from a backup", zap.String("node", n.ID),
		zap.String("said", hello.Role+" "+hello.Cluster), zap.String("was", n.Role+" "+n.Cluster), zap.String("is", found.Role+" "+found.Cluster))
	return found, nil
}

// assignment tells a worker its place.
func assignment(n *state.Node) *api.MasterMessage {
	return &api.MasterMessage{Message: &api.MasterMessage_Assignment{Assignment: &api.Assignment{Cluster: n.Cluster, Role: n.Role}}}
}

// unready is why a node is to get no tasks yet, as the log has it; "" = it may have some. A worker says so itself, too, but not
// before it has heard of its cluster's bootstrap actions.
func (r *Registry) unready(n *state.Node) string {
	if n.Bootstrap == state.BootstrapDone {
		return ""
	}
	if c, ok := r.cfg.View().Cluster(n.Cluster); !ok || len(c.Bootstrap) == 0 {
		return ""
	}
	return "its bootstrap actions are not done"
}

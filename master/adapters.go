package master

import (
	"context"
	"errors"
	"fmt"

	"millrace/master/fsm"
	"millrace/master/server"
	"millrace/master/state"
)

// logged is the log as the server knows it: everything that may be mended by
// another leader is server.ErrNotLeader.
type logged struct{ log *fsm.Log }

func (l logged) Apply(ctx context.Context, c state.Command) (any, error) {
	result, err := l.log.Apply(ctx, c)
	return result, l.translate(ctx, err)
}

func (l logged) verify(ctx context.Context) error {
	return l.translate(ctx, l.log.VerifyLeader(ctx))
}

func (l logged) translate(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	for _, gone := range []error{fsm.ErrNotLeader, fsm.ErrClosed, fsm.ErrBusy, fsm.ErrUnclear} {
		if errors.Is(err, gone) {
			return fmt.Errorf("%w: %w", server.ErrNotLeader, err)
		}
	}
	return err
}

// masters is what the server asks about the other masters.
type masters struct{ m *Master }

// Leader is the leader's API address, or "".
func (c *masters) Leader() string {
	_, id := c.m.raft.LeaderWithID()
	if id == "" {
		return ""
	}
	if string(id) == c.m.id.ID {
		return c.m.address
	}
	if n, ok := c.m.store.View().Node(string(id)); ok {
		return n.Address
	}
	return ""
}

// Alive is what gossip says.
func (c *masters) Alive(nodeID string) bool {
	for _, member := range c.m.gossip.Members() {
		if member.ID == nodeID {
			return member.Alive
		}
	}
	return false
}

// GossipPeers are the masters' gossip addresses.
func (c *masters) GossipPeers() []string {
	out := []string{c.m.gossip.Addr()}
	for _, member := range c.m.gossip.Members() {
		if member.Role == "master" && member.ID != c.m.id.ID && member.Gossip != "" {
			out = append(out, member.Gossip)
		}
	}
	return out
}

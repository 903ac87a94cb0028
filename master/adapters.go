package master

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

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
	if errors.Is(err, fsm.ErrTooNew) {
		return fmt.Errorf("%w: %w", server.ErrUpgrading, err)
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

// Voters are the masters that vote.
func (c *masters) Voters() (ids []string) {
	servers, err := c.m.raft.servers()
	if err != nil { // Raft has been shut down
		return nil
	}
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}

// GossipPeers are the gossip addresses of the masters of the set that are up, this one's first.
func (c *masters) GossipPeers() []string {
	out, view := []string{c.m.gossip.Addr()}, c.m.store.View()
	for _, member := range c.m.gossip.Members() {
		n, known := view.Node(member.ID)
		if known && n.InSet() && member.Alive && member.ID != c.m.id.ID && member.Gossip != "" {
			out = append(out, member.Gossip)
		}
	}
	return out
}

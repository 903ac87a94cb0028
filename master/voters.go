package master

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"millrace/master/server"
	"millrace/master/state"
	"millrace/pkg/api"
)

const (
	// A learner that is at most so many entries behind gets its vote: it has the rest within a moment.
	voteWithin = 256
	// settleWithin bounds how long a change of the set waits for a master to be what it is to be.
	settleWithin = 20 * time.Second
	settlePoll   = 50 * time.Millisecond
)

// Member says what a master is in the set, as this one knows it.
func (c *masters) Member(nodeID string) string {
	s, known, err := c.m.raft.member(raft.ServerID(nodeID))
	switch {
	case err != nil || !known:
		return server.MemberNone
	case s.Suffrage == raft.Voter:
		return server.MemberVoter
	}
	return server.MemberLearner
}

type announcement struct {
	at  time.Time
	pid int64
}

// LastHeard is when a master announced itself to this one, and its process id.
func (c *masters) LastHeard(nodeID string) (time.Time, int64) {
	a, ok := c.m.heard.Load(nodeID)
	if !ok {
		return time.Time{}, 0
	}
	return a.(announcement).at, a.(announcement).pid
}

// Announced brings the set up to date about one master, by one step: it becomes a learner, then a
// voter; its new address is taken up. Only one that is there to announce itself is ever added, so that the set
// does not wait for a majority that cannot be.
func (c *masters) Announced(ctx context.Context, nodeID string, a *api.AnnounceRequest) (bool, error) {
	m := c.m
	m.heard.Store(nodeID, announcement{time.Now(), a.Pid})
	m.changes.Lock()
	defer m.changes.Unlock()
	node, ok := m.store.View().Node(nodeID)
	if !ok || node.Role != state.RoleMaster || node.State != state.NodeAdmitted {
		return false, fmt.Errorf("master %s: %w", nodeID, state.ErrNotFound)
	}
	if a.Address == "" || a.RaftAddress == "" {
		return false, fmt.Errorf("%w: a master announces where it serves", state.ErrInvalid)
	}
	if node.Address != a.Address || node.Raft != a.RaftAddress || node.Version != a.Version {
		now := *node
		now.Address, now.Raft, now.Version = a.Address, a.RaftAddress, a.Version
		if _, err := c.apply(ctx, state.PutNode{Node: now}); err != nil {
			return false, err
		}
	}
	if site, ok := m.store.View().Site(); ok && (a.Store != nil || a.SystemPrefix != "") {
		if err := m.settleStore(ctx, site, a.Store, a.SystemPrefix); err != nil {
			return false, logged{m.entries}.translate(ctx, err)
		}
	}
	id, address := raft.ServerID(nodeID), raft.ServerAddress(a.RaftAddress)
	present, known, err := m.raft.member(id)
	switch {
	case err != nil:
	case node.Spare && known:
		err = m.raft.expel(id)
	case node.Spare:
		return true, nil
	case !known, present.Suffrage != raft.Voter && present.Address != address:
		err = m.raft.learn(id, address)
	case present.Suffrage != raft.Voter && (a.Applied == 0 || a.Applied+voteWithin < m.raft.CommitIndex()):
		return false, nil // it still gets the log
	case present.Suffrage != raft.Voter || present.Address != address:
		if err = m.raft.vote(id, address); err == nil {
			m.log.Info("master votes", zap.String("master", nodeID), zap.String("raft", a.RaftAddress))
			return true, nil
		}
	default:
		return true, nil
	}
	return false, c.lost(err)
}

// Admit lets a master back into the set, and waits until it votes.
func (c *masters) Admit(ctx context.Context, nodeID string) error {
	if err := c.spare(ctx, nodeID, false); err != nil {
		return err
	}
	late := time.Now().Add(settleWithin)
	for c.Member(nodeID) != server.MemberVoter {
		if time.Now().After(late) {
			return fmt.Errorf("%w: master %s is to vote as soon as it announces itself; it has not within %s: is it up?", server.ErrUnsettled, nodeID, settleWithin)
		}
		select {
		case <-time.After(settlePoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Expel takes a master out of the set, unless those that are left would have no majority.
func (c *masters) Expel(ctx context.Context, nodeID string) error {
	if err := c.leaves(nodeID); err != nil {
		return err
	}
	if nodeID == c.m.id.ID {
		if err := c.m.raft.LeadershipTransfer().Error(); err != nil {
			return fmt.Errorf("%w: hand over the leadership: %w", server.ErrUnsettled, err)
		}
		return server.ErrNotLeader // the next leader is asked again, and takes this one out
	}
	if err := c.spare(ctx, nodeID, true); err != nil {
		return err
	}
	c.m.changes.Lock()
	defer c.m.changes.Unlock()
	_, known, err := c.m.raft.member(raft.ServerID(nodeID))
	if err != nil || !known {
		return c.lost(err)
	}
	return c.lost(c.m.raft.expel(raft.ServerID(nodeID)))
}

// leaves holds the masters that would be left against the majority that they would need.
func (c *masters) leaves(nodeID string) error {
	servers, err := c.m.raft.servers()
	if err != nil {
		return err
	}
	voters, up := 0, 0
	for _, s := range servers {
		if s.Suffrage != raft.Voter || string(s.ID) == nodeID {
			continue
		}
		voters++
		if string(s.ID) == c.m.id.ID || c.Alive(string(s.ID)) {
			up++
		}
	}
	switch need := voters/2 + 1; {
	case voters == 0:
		return fmt.Errorf("%w: master %s is the only one that votes: add another first", server.ErrUnsettled, nodeID)
	case up < need:
		return fmt.Errorf("%w: of the %d masters that would be left %d are up, and %d are needed: remove those that are lost first", server.ErrUnsettled, voters, up, need)
	}
	return nil
}

// spare logs whether a master is to stay out of the set.
func (c *masters) spare(ctx context.Context, nodeID string, out bool) error {
	c.m.changes.Lock()
	defer c.m.changes.Unlock()
	node, ok := c.m.store.View().Node(nodeID)
	if !ok {
		return fmt.Errorf("master %s: %w", nodeID, state.ErrNotFound)
	}
	if node.Spare == out {
		return nil
	}
	now := *node
	now.Spare = out
	_, err := c.apply(ctx, state.PutNode{Node: now})
	return err
}

func (c *masters) apply(ctx context.Context, cmd state.Command) (any, error) {
	return logged{c.m.entries}.Apply(ctx, cmd)
}

// lost makes an error of Raft's that another leader may mend server.ErrNotLeader.
func (c *masters) lost(err error) error {
	for _, gone := range []error{raft.ErrNotLeader, raft.ErrLeadershipLost, raft.ErrLeadershipTransferInProgress, raft.ErrRaftShutdown, raft.ErrEnqueueTimeout} {
		if errors.Is(err, gone) {
			return fmt.Errorf("%w: %w", server.ErrNotLeader, err)
		}
	}
	return err
}

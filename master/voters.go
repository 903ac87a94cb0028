package master

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	// handOverWithin bounds how long the leader tries to have another lead, and handOverPause is between the tries, each of which holds the log
	// up: in sum less than commands wait for a leader.
	handOverWithin = 8 * time.Second
	handOverPause  = 500 * time.Millisecond
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

// LastHeard is what a master said of itself last, or what this one has to say.
func (c *masters) LastHeard(nodeID string) (h server.Heard) {
	if nodeID == c.m.id.ID {
		h = server.Heard{At: time.Now(), PID: int64(os.Getpid()), Protocol: c.m.cfg.binary.Speaks, Trust: c.m.credential.Credential().InUse()}
		h.Problem, h.CannotLog = c.m.raft.disk.problem()
		return h
	}
	if a, ok := c.m.heard.Load(nodeID); ok {
		h = a.(server.Heard)
	}
	return h
}

// Announced brings the set up to date about one master, by one step: it becomes a learner, then a
// voter; its new address is taken up. Only one that is there to announce itself is ever added, so that the set
// does not wait for a majority that cannot be.
func (c *masters) Announced(ctx context.Context, nodeID string, a *api.AnnounceRequest) (bool, error) {
	m := c.m
	said := server.Heard{At: time.Now(), PID: a.Pid, Protocol: max(1, int(a.Protocol)), Problem: a.Problem, CannotLog: a.CannotLog, Trust: a.Trust}
	m.heard.Store(nodeID, said)
	m.changes.Lock()
	defer m.changes.Unlock()
	if err := c.fits(a); err != nil {
		said.Problem = err.Error()
		m.heard.Store(nodeID, said)
		return false, err
	}
	node, ok := m.store.View().Node(nodeID)
	if !ok || node.Role != state.RoleMaster || node.State != state.NodeAdmitted {
		return false, fmt.Errorf("master %s: %w", nodeID, state.ErrNotFound)
	}
	if a.Address == "" || a.RaftAddress == "" {
		return false, fmt.Errorf("%w: a master announces where it serves", state.ErrInvalid)
	}
	if err := m.rise(ctx); err != nil {
		return false, logged{m.entries}.translate(ctx, err)
	}
	now := *node
	now.Address, now.Raft, now.Version = a.Address, a.RaftAddress, a.Version
	m.noteProtocol(&now, said.Protocol)
	if now != *node {
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

// Admit lets a master back into the set, and waits until it votes. One that this leader does not hear of is left as it is.
func (c *masters) Admit(ctx context.Context, nodeID string) error {
	if c.Member(nodeID) != server.MemberVoter {
		if err := c.hears(ctx, nodeID); err != nil {
			return err
		}
	}
	if err := c.spare(ctx, nodeID, false); err != nil {
		return err
	}
	late := time.Now().Add(settleWithin)
	for c.Member(nodeID) != server.MemberVoter {
		if time.Now().After(late) {
			if c.Member(nodeID) == server.MemberNone {
				return errors.Join(fmt.Errorf("%w: master %s has not announced itself within %s: is it up?", server.ErrUnsettled, nodeID, settleWithin), c.spare(ctx, nodeID, true))
			}
			return fmt.Errorf("%w: master %s is to vote as soon as it has the log; it has not within %s: is it up?", server.ErrUnsettled, nodeID, settleWithin)
		}
		select {
		case <-time.After(settlePoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// hears waits until a master has announced itself to this leader just now, if it is up at all.
func (c *masters) hears(ctx context.Context, nodeID string) error {
	late := time.Now().Add(believedFor)
	for {
		switch {
		case !c.Alive(nodeID):
			return fmt.Errorf("%w: master %s is lost: start it, then repeat the command", server.ErrUnsettled, nodeID)
		case time.Since(c.LastHeard(nodeID).At) < believedFor:
			return nil
		case time.Now().After(late):
			return fmt.Errorf("%w: master %s is up and has not announced itself within %s: its own log says why; one that is trusted no more has to join anew, with an empty folder", server.ErrUnsettled, nodeID, believedFor)
		}
		select {
		case <-time.After(settlePoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Expel takes a master out of the set, unless those that are left would have no majority. One that is up is still known then, and
// Admit takes it back; one that is lost is ended.
func (c *masters) Expel(ctx context.Context, nodeID string) error {
	if err := c.leaves(nodeID); err != nil {
		return err
	}
	if nodeID == c.m.id.ID {
		if err := c.handOver(ctx); err != nil {
			return err
		}
		return server.ErrNotLeader // the next leader is asked again, and takes this one out
	}
	lost, err := c.gone(ctx, nodeID)
	if err != nil {
		return err
	}
	c.m.changes.Lock()
	defer c.m.changes.Unlock()
	if err := c.leaves(nodeID); err != nil { // others may have gone meanwhile
		return err
	}
	if err := c.logSpare(ctx, nodeID, true); err != nil {
		return err
	}
	_, known, err := c.m.raft.member(raft.ServerID(nodeID))
	if err == nil && known {
		err = c.m.raft.expel(raft.ServerID(nodeID))
	}
	if err == nil { // it may have been the last old one
		err = logged{c.m.entries}.translate(ctx, c.m.rise(ctx))
	}
	if err == nil && lost {
		_, err = c.apply(ctx, state.RemoveNode{ID: nodeID})
	}
	return c.lost(err)
}

// handOver has this master lead no longer. Raft gives up after one election's time-out, which is too short for the next leader where
// machines are busy: it is asked again.
func (c *masters) handOver(ctx context.Context) error {
	late := time.Now().Add(handOverWithin)
	for {
		err := c.m.raft.LeadershipTransfer().Error()
		switch {
		case err == nil || c.m.raft.State() != raft.Leader:
			return nil
		case time.Now().After(late):
			return fmt.Errorf("%w: hand over the leadership: %w", server.ErrUnsettled, err)
		}
		select {
		case <-time.After(handOverPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// gone says whether a master is lost. One that gossip does not see and that was heard of just now may be too new for gossip: whether it
// is up shows when it would announce itself again. So it does of one that was never heard of by this leader, if it is the leader who is new.
func (c *masters) gone(ctx context.Context, nodeID string) (bool, error) {
	began := time.Now()
	leads := began
	if l := c.m.leads.Load(); l != nil {
		leads = l.began
	}
	for {
		heard := c.LastHeard(nodeID).At
		switch {
		case c.Alive(nodeID) || heard.After(began):
			return false, nil
		case time.Since(heard) > 2*reannounce && (!heard.IsZero() || time.Since(leads) > 2*reannounce):
			return true, nil
		}
		select {
		case <-time.After(settlePoll):
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// leaves holds the masters that would be left against the majority that they would need.
func (c *masters) leaves(nodeID string) error {
	servers, err := c.m.raft.servers()
	if err != nil {
		return err
	}
	voters, up, votes := 0, 0, false
	for _, s := range servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		if string(s.ID) == nodeID {
			votes = true
			continue
		}
		voters++
		if string(s.ID) == c.m.id.ID || c.Alive(string(s.ID)) {
			up++
		}
	}
	switch need := voters/2 + 1; {
	case !votes:
		return nil
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
	return c.logSpare(ctx, nodeID, out)
}

// logSpare is spare with m.changes held.
func (c *masters) logSpare(ctx context.Context, nodeID string, out bool) error {
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

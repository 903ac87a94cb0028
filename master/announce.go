package master

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/membership"
	"millrace/pkg/shortage"
)

const (
	announceEvery  = 200 * time.Millisecond // until the leader has nothing left to do about it
	reannounce     = 3 * time.Second        // after that: the address may have changed in the log, or the set
	announceWithin = 3 * time.Second        // one announcement to one master
)

// ErrRemoved says that this master was taken out of its site for good: there is nothing more to do.
var ErrRemoved = errors.New("the master was removed from its site")

// announce tells the leader of this master while it is a follower, until ctx ends: which is how it
// comes into the set, gets its vote, and is found at another address.
func (m *Master) announce(ctx context.Context) {
	said := ""
	for wait := time.Duration(0); ; {
		select {
		case <-time.After(wait):
		case <-m.gossip.Changes():
		case <-ctx.Done():
			return
		}
		m.keepPeers()
		wait = reannounce
		others := m.others()
		if m.server.Leads() || len(others) == 0 {
			continue
		}
		settled, err := m.announceTo(ctx, others)
		switch {
		case client.Removed(err):
			m.fail(fmt.Errorf("%w: %w", ErrRemoved, err))
			return
		case err != nil && ctx.Err() == nil && err.Error() != said:
			said = err.Error()
			m.unheard(others, err)
		case err == nil:
			said = ""
		}
		if !settled {
			wait = announceEvery
		}
	}
}

// unheard says why the leader has not heard of this master, and what to do where waiting does not help.
func (m *Master) unheard(others []string, err error) {
	if client.Untrusted(err) {
		p := client.Problems(err)
		m.log.Error("this master and the others do not trust each other", zap.Strings("why", p.GetErrors()), zap.String("next", p.GetNext()))
		return
	}
	level := zap.InfoLevel
	if connect.CodeOf(err) == connect.CodeFailedPrecondition {
		level = zap.ErrorLevel // it was refused
	}
	m.log.Log(level, "the leader has not heard of this master yet", zap.Strings("masters", others), zap.Error(err))
}

func (m *Master) announceTo(ctx context.Context, others []string) (bool, error) {
	applied := m.raft.AppliedIndex()
	notKept := m.keepBegun()
	if notKept != nil && !diskFails(notKept) {
		return false, notKept
	}
	if m.id.Joined && !m.begun {
		applied = 0
	}
	req := &api.AnnounceRequest{
		Address: m.address, RaftAddress: string(m.raft.address), Version: m.cfg.Version, Applied: applied, Pid: int64(os.Getpid()),
		Protocol: int32(m.cfg.binary.Speaks), OldestProtocol: int32(m.cfg.binary.Oldest),
		Trust: m.credential.Credential().InUse(),
	}
	if req.Problem, req.CannotLog = m.raft.disk.problem(); req.Problem == "" && notKept != nil {
		req.Problem = "its folder cannot be written: " + shortage.Explained(causeOf(notKept)).Error()
	}
	news := m.storeIsNews()
	if news {
		req.Store, req.SystemPrefix = m.cfg.Store, m.cfg.SystemPrefix
	}
	resp, err := m.announceAt(ctx, others, req)
	if err == nil && (news || !m.storeSaid.Load()) {
		if err = m.storeIsKnown(); diskFails(err) {
			err = fmt.Errorf("what was told of the object store is not kept: %w", causeOf(err))
		}
	}
	return resp.GetSettled(), err
}

// announceAt asks the other masters in turn until one hands the announcement to the leader: some of them may be out of the set
// as this one is, and know of no leader.
func (m *Master) announceAt(ctx context.Context, others []string, req *api.AnnounceRequest) (*api.AnnounceResponse, error) {
	var errs []error
	for _, server := range others {
		resp, err := m.announceOnce(ctx, server, req)
		if err == nil || connect.CodeOf(err) == connect.CodeFailedPrecondition || client.Removed(err) || ctx.Err() != nil { // it was heard, or refused
			return resp, err
		}
		errs = append(errs, err)
	}
	return nil, errs[0] // of the likeliest leader
}

func (m *Master) announceOnce(ctx context.Context, server string, req *api.AnnounceRequest) (*api.AnnounceResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, announceWithin)
	defer cancel()
	c, err := client.New(client.Config{Servers: []string{server}, Credential: m.credential.Credential(), UserAgent: "millrace-master/" + m.cfg.Version, RetryFor: -1})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Announce(ctx, req)
}

// causeOf is what the system said of a file: the rest has a name in it that is another each time.
func causeOf(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// keepBegun writes down that the log has begun, once there is something in it: before it is announced that there is, and so
// before this master may vote. One that was stopped earlier begins again.
func (m *Master) keepBegun() error {
	if m.begun || m.raft.LastIndex() == 0 {
		return nil
	}
	if err := m.dir.Write([]byte(m.id.ID+"\n"), "raft", begunFile); err != nil {
		return err
	}
	m.begun = true
	return nil
}

// others are the addresses of the other masters, the leader's first, as far as this one knows.
func (m *Master) others() (list []string) {
	add := func(addresses ...string) {
		for _, a := range addresses {
			if a != "" && a != m.address && !slices.Contains(list, a) {
				list = append(list, a)
			}
		}
	}
	add((&masters{m}).Leader())
	for _, n := range m.store.View().Nodes("") {
		if n.Role == state.RoleMaster && n.State == state.NodeAdmitted && n.ID != m.id.ID {
			add(n.Address)
		}
	}
	add(m.peers.Masters...)
	add(m.id.Masters...)
	return list
}

// peers are the other masters' addresses as gossip has them: until it hears of a leader a restarted master has
// nothing of its log to find them by.
type peers struct {
	Masters []string `json:"masters"` // https://host:port
	Gossip  []string `json:"gossip"`  // host:port
}

const peersFile = "peers.json"

// keepPeers writes down where other masters are, for the next start.
func (m *Master) keepPeers() {
	var now peers
	for _, alive := range []bool{true, false} { // those alive first
		for _, p := range m.gossip.Members() {
			if p.Role == membership.RoleMaster && p.ID != m.id.ID && p.Alive == alive && p.Address != "" && p.Gossip != "" {
				now.Masters, now.Gossip = append(now.Masters, p.Address), append(now.Gossip, p.Gossip)
			}
		}
	}
	if len(now.Masters) == 0 || slices.Equal(now.Masters, m.peers.Masters) && slices.Equal(now.Gossip, m.peers.Gossip) {
		return
	}
	if err := m.dir.WriteJSON(now, peersFile); err != nil {
		m.log.Warn("other masters' addresses are not kept", zap.Error(err))
		return
	}
	m.peers = now
}

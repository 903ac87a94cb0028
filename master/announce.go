package master

import (
	"context"
	"os"
	"slices"
	"time"

	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/membership"
)

const (
	announceEvery  = 200 * time.Millisecond // until the leader has nothing left to do about it
	reannounce     = 3 * time.Second        // after that: the address may have changed in the log, or the set
	announceWithin = 5 * time.Second        // one announcement
)

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
		case err != nil && ctx.Err() == nil && err.Error() != said:
			said = err.Error()
			m.log.Info("the leader has not heard of this master yet", zap.Strings("masters", others), zap.Error(err))
		case err == nil:
			said = ""
		}
		if !settled {
			wait = announceEvery
		}
	}
}

func (m *Master) announceTo(ctx context.Context, others []string) (bool, error) {
	applied := m.raft.AppliedIndex()
	if err := m.keepBegun(); err != nil {
		return false, err
	}
	if m.id.Joined && !m.begun {
		applied = 0
	}
	ctx, cancel := context.WithTimeout(ctx, announceWithin)
	defer cancel()
	c, err := client.New(client.Config{Servers: others, Credential: m.id.credential, RetryFor: -1})
	if err != nil {
		return false, err
	}
	defer c.Close()
	req := &api.AnnounceRequest{
		Address: m.address, RaftAddress: string(m.raft.address), Version: m.cfg.Version, Applied: applied, Pid: int64(os.Getpid()),
	}
	news := m.storeIsNews()
	if news {
		req.Store, req.SystemPrefix = m.cfg.Store, m.cfg.SystemPrefix
	}
	resp, err := c.Announce(ctx, req)
	if err == nil && (news || !m.storeSaid.Load()) {
		err = m.storeIsKnown()
	}
	return resp.GetSettled(), err
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

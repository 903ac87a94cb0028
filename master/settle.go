package master

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"millrace/master/state"
	"millrace/pkg/api"
)

// settle logs what is not in the log yet: the site, this master, the store's settings.
func (m *Master) settle(ctx context.Context) error {
	if g := m.id.genesis; g != nil {
		if _, ok := m.store.View().Site(); !ok {
			if _, err := m.entries.Apply(ctx, *g); err != nil {
				return fmt.Errorf("make the site: %w", err)
			}
			m.log.Info("site made", zap.String("site", g.Site.ID))
		}
		if err := m.dir.Remove("genesis.json"); err != nil {
			return err
		}
		m.id.genesis = nil
	}
	view := m.store.View()
	site, ok := view.Site()
	if !ok {
		return errors.New("the log holds no site, and this master has none to make: its directory is damaged")
	}
	if site.ID != m.id.Site {
		return fmt.Errorf("the log is of site %s, the directory of site %s", site.ID, m.id.Site)
	}
	m.changes.Lock()
	err := m.rise(ctx)
	m.changes.Unlock()
	if err != nil {
		return err
	}
	if err := m.settleSelf(ctx); err != nil {
		return err
	}
	if err := m.settleAlone(ctx); err != nil {
		return err
	}
	if !m.storeIsNews() {
		return nil
	}
	if err := m.settleStore(ctx, site, m.cfg.Store, m.cfg.SystemPrefix); err != nil {
		return err
	}
	if err = m.storeIsKnown(); !diskFails(err) {
		return err
	}
	m.log.Warn("what was told of the object store is not kept", zap.Error(err))
	return nil
}

// settleSelf brings this master's record up to date.
func (m *Master) settleSelf(ctx context.Context) error {
	self := state.Node{ID: m.id.ID, Name: m.id.Name, Role: state.RoleMaster, State: state.NodeAdmitted, JoinedAt: m.id.JoinedAt}
	old, known := m.store.View().Node(m.id.ID)
	if known {
		self = *old
	}
	self.Version, self.Address, self.Raft = m.cfg.Version, m.address, string(m.raft.address)
	m.noteProtocol(&self, m.cfg.binary.Speaks)
	if known && *old == self {
		return nil
	}
	if _, err := m.entries.Apply(ctx, state.PutNode{Node: self}); err != nil {
		return fmt.Errorf("admit this master: %w", err)
	}
	return nil
}

// settleAlone ends the masters that were there before this one began alone: what it goes on with is not what they have, and
// none of them may ever have a part in it again.
func (m *Master) settleAlone(ctx context.Context) error {
	alone, err := m.dir.Read(aloneFile)
	if err != nil || alone == nil {
		return err
	}
	for _, n := range m.store.View().Nodes("") {
		if n.Role != state.RoleMaster || n.ID == m.id.ID || n.State != state.NodeAdmitted {
			continue
		}
		if _, err := m.entries.Apply(ctx, state.RemoveNode{ID: n.ID}); err != nil {
			return fmt.Errorf("begin alone: %w", err)
		}
	}
	return m.dir.Remove(aloneFile)
}

// storeFile says what a start of this master was told of the site's object store last. Masters that are told
// different things must not change it each time that another one leads: what counts is a change of what one is told.
const storeFile = "store.sha256"

func (m *Master) storeDigest() string {
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(m.cfg.Store)
	if err != nil { // it is a flat message of strings
		return ""
	}
	sum := sha256.Sum256(append(text, m.cfg.SystemPrefix...))
	return hex.EncodeToString(sum[:])
}

// storeIsNews says whether this start was told something of the store that the one before was not. What a further
// master is told when it joins is not news: the site has its store.
func (m *Master) storeIsNews() bool {
	if m.cfg.Store == nil && m.cfg.SystemPrefix == "" || m.storeSaid.Load() {
		return false
	}
	before, err := m.dir.Read(storeFile)
	return err == nil && (before != nil || !m.id.Joined) && strings.TrimSpace(string(before)) != m.storeDigest()
}

// storeIsKnown notes what was said.
func (m *Master) storeIsKnown() error {
	m.storeSaid.Store(true)
	return m.dir.Write([]byte(m.storeDigest()+"\n"), storeFile)
}

// settleStore logs another object store or system prefix; nil and "" leave them as they are.
func (m *Master) settleStore(ctx context.Context, site *state.Site, store *api.ObjectStore, systemPrefix string) error {
	prefix := cmp.Or(systemPrefix, site.SystemPrefix)
	settings, err := m.stores.settings(site.SealedStore)
	if err != nil {
		return err
	}
	same := store == nil || proto.Equal(settings, store)
	if same && prefix == site.SystemPrefix {
		return nil
	}
	c := state.PutStore{SealedStore: site.SealedStore, SystemPrefix: prefix}
	if !same {
		plain, err := proto.Marshal(store)
		if err != nil {
			return fmt.Errorf("encode object store: %w", err)
		}
		if c.SealedStore, err = m.id.seal.Seal(plain); err != nil {
			return err
		}
	}
	if _, err := m.entries.Apply(ctx, c); err != nil {
		return fmt.Errorf("change the object store: %w", err)
	}
	m.log.Info("object store changed", zap.String("systemPrefix", prefix))
	return nil
}

package master

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"millrace/master/fsm"
	"millrace/master/server"
	"millrace/master/session"
	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// sameTermPatience is how long a leader whose tracker gave up waits to hear that it leads no longer.
const sameTermPatience = 10 * time.Second

// errDeposed says that the leadership ended, which is nobody's fault.
var errDeposed = errors.New("leadership lost")

// lead follows Raft's word on who leads, until ctx ends.
func (m *Master) lead(ctx context.Context) {
	changes := m.raft.LeaderCh()
	leading := false
	for {
		if leading {
			err := m.leadTerm(ctx, changes)
			if ctx.Err() != nil {
				return
			}
			if err != nil && !errors.Is(err, errDeposed) {
				m.fail(err)
				return
			}
			leading = m.raft.State() == raft.Leader
			if leading {
				continue
			}
		}
		select {
		case leading = <-changes:
		case <-ctx.Done():
			return
		}
	}
}

// leadTerm leads for one term of Raft. Attempt ids carry the term and count from one, so
// a term is led once: if it can be led no longer though Raft goes on with it, the process must end.
func (m *Master) leadTerm(parent context.Context, changes <-chan bool) error {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	term, err := m.takeOver(ctx)
	if err != nil {
		if errors.Is(err, fsm.ErrNotLeader) || ctx.Err() != nil {
			return errDeposed
		}
		return fmt.Errorf("take over as leader: %w", err)
	}
	l, err := m.openLeader(ctx, term)
	if err != nil {
		return fmt.Errorf("lead term %d: %w", term, err)
	}
	m.server.Lead(l.face)
	m.log.Info("leading", zap.Uint64("term", term))
	m.leading.Go(func() { m.prepare(ctx) })

	err = l.until(ctx, m, changes)
	m.server.Lead(nil)
	cancel()
	l.close()
	m.log.Info("leading no longer", zap.Uint64("term", term), zap.String("reason", err.Error()))
	return err
}

// takeOver waits until all that earlier leaders logged is applied here, brings the log up to date about
// this master and the site, and gives the term.
func (m *Master) takeOver(ctx context.Context) (uint64, error) {
	for {
		term := m.raft.CurrentTerm()
		if err := m.entries.Barrier(ctx); err != nil {
			return 0, err
		}
		if m.raft.CurrentTerm() != term { // elected again meanwhile: the barrier may be the newer term's
			continue
		}
		if err := m.raft.claimAddress(); err != nil {
			if m.raft.State() != raft.Leader {
				err = fmt.Errorf("%w: %w", fsm.ErrNotLeader, err)
			}
			return 0, err
		}
		return term, m.settle(ctx)
	}
}

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
	self := state.Node{ID: m.id.ID, Name: m.id.Name, Role: state.RoleMaster, State: state.NodeAdmitted, JoinedAt: m.id.JoinedAt}
	old, known := view.Node(m.id.ID)
	if known {
		self = *old
	}
	self.Version, self.Address, self.Raft = m.cfg.Version, m.address, string(m.raft.address)
	if !known || *old != self {
		if _, err := m.entries.Apply(ctx, state.PutNode{Node: self}); err != nil {
			return fmt.Errorf("admit this master: %w", err)
		}
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
	return m.storeIsKnown()
}

// settleAlone takes the masters out of the set that were in it before this one began alone.
func (m *Master) settleAlone(ctx context.Context) error {
	alone, err := m.dir.Read(aloneFile)
	if err != nil || alone == nil {
		return err
	}
	for _, n := range m.store.View().Nodes("") {
		if n.Role != state.RoleMaster || n.ID == m.id.ID || n.Spare || n.State != state.NodeAdmitted {
			continue
		}
		out := *n
		out.Spare = true
		if _, err := m.entries.Apply(ctx, state.PutNode{Node: out}); err != nil {
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

// prepare does what a site needs before its first job and must not hold up the leader: the admin's context and
// the system bucket.
func (m *Master) prepare(ctx context.Context) {
	for _, step := range []func() error{m.renewSelf, m.writeAdmin} {
		if err := step(); err != nil {
			m.fail(err)
			return
		}
	}
	if m.makeSystemBucket(ctx) {
		m.readyOnce.Do(func() { close(m.ready) })
	}
}

// makeSystemBucket asks until the store answers; false if ctx ended first.
func (m *Master) makeSystemBucket(ctx context.Context) bool {
	wait := 100 * time.Millisecond
	said := ""
	for {
		err := m.trySystemBucket(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if err.Error() != said {
			m.log.Warn("system bucket cannot be made yet: no job can run", zap.Error(err))
			said = err.Error()
		}
		select {
		case <-time.After(wait):
			wait = min(2*wait, 5*time.Second)
		case <-ctx.Done():
			return false
		}
	}
}

func (m *Master) trySystemBucket(ctx context.Context) error {
	store, bucket, _, err := m.stores.System()
	if err != nil {
		return err
	}
	// Looked for first: a key may be allowed to use the bucket but not to make it.
	if there, err := store.BucketExists(ctx, bucket); err != nil || there {
		return err
	}
	if err := store.MakeBucket(ctx, bucket); err != nil && !errors.Is(err, objectstore.ErrExists) {
		return err
	}
	return nil
}

// leader is what runs on the leader alone, for one term.
type leader struct {
	term     uint64
	registry *session.Registry
	stop     context.CancelFunc
	wait     sync.WaitGroup
	ended    chan error // the tracker's; capacity 1
	done     chan struct{}
	face     *server.Leader
}

func (m *Master) openLeader(ctx context.Context, term uint64) (*leader, error) {
	l := &leader{term: term, ended: make(chan error, 1), done: make(chan struct{})}
	l.registry = session.New(session.Config{
		Term: term, View: m.store.View, Log: m.cfg.Log,
		Welcome: func(n *state.Node) *api.SessionWelcome { return m.welcome(term, n) },
	})
	jobs, err := tracker.New(tracker.Config{
		Term: term, View: m.store.View, Apply: m.entries.Apply, Workers: l.registry, Stores: m.stores, Log: m.cfg.Log, Retries: m.retries,
	})
	if err != nil {
		return nil, err
	}
	l.registry.Handle(jobs)
	ctx, l.stop = context.WithCancel(ctx)
	l.wait.Go(func() { l.ended <- jobs.Run(ctx) })
	l.face = &server.Leader{Term: term, Sessions: l.registry, Tracker: jobs, Verify: logged{m.entries}.verify, Done: l.done}
	return l, nil
}

// until waits for the end of the leadership and says why it came.
func (l *leader) until(ctx context.Context, m *Master, changes <-chan bool) error {
	var (
		gaveUp   error
		patience <-chan time.Time
	)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changes:
			// Lost; or lost and won again, of which only the second may have been heard.
			if m.raft.State() != raft.Leader || m.raft.CurrentTerm() != l.term {
				return errDeposed
			}
		case gaveUp = <-l.ended:
			if m.raft.State() != raft.Leader || m.raft.CurrentTerm() != l.term {
				return errDeposed
			}
			patience = time.After(sameTermPatience)
			m.server.Lead(nil)
		case <-patience:
			return fmt.Errorf("term %d can be led no longer: %w", l.term, gaveUp)
		}
	}
}

// close ends the sessions, then the tracker, and waits for both.
func (l *leader) close() {
	close(l.done)
	l.stop()
	l.registry.Close()
	l.wait.Wait()
}

// welcome tells a worker where it is.
func (m *Master) welcome(term uint64, n *state.Node) *api.SessionWelcome {
	w := &api.SessionWelcome{Term: term, Cluster: n.Cluster, Role: n.Role, LeaseMs: session.DefaultLease.Milliseconds()}
	settings, prefix, err := m.stores.site()
	if err != nil { // the seal key does not fit: nothing at all works then, and the log says so
		m.log.Error("site's object store cannot be read", zap.Error(err))
		return w
	}
	w.Store, w.SystemPrefix = settings, prefix
	return w
}

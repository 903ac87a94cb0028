package master

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"millrace/master/files"
	"millrace/master/fsm"
	"millrace/master/history"
	"millrace/master/server"
	"millrace/master/session"
	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
)

// leader is what runs on the leader alone, for one term.
type leader struct {
	term     uint64
	began    time.Time
	registry *session.Registry
	stop     context.CancelFunc
	wait     sync.WaitGroup
	ended    chan error // the tracker's; capacity 1
	unshare  func()     // closes the block stores
	done     chan struct{}
	settled  chan struct{} // closed when nodes have had the time to find this leader
	face     *server.Leader
	jobs     *tracker.Tracker
}

func (m *Master) openLeader(ctx context.Context, term uint64) (*leader, error) {
	l := &leader{term: term, began: time.Now(), ended: make(chan error, 1), done: make(chan struct{}), settled: make(chan struct{})}
	l.registry = session.New(session.Config{
		Term: term, View: m.store.View, Log: m.cfg.Log,
		Welcome: func(n *state.Node) *api.SessionWelcome { return m.welcome(term, n) },
		Pong:    m.server.Pong,
		Find: func(ctx context.Context, c state.FindNode) error {
			_, err := m.entries.Apply(ctx, c)
			return err
		},
	})
	stored := files.New(files.Config{
		Term: term, View: m.store.View, Apply: m.logFiles, Send: l.registry.Send, TrashAge: m.cfg.TrashAge, Log: m.cfg.Log,
	})
	jobs, err := tracker.New(tracker.Config{
		Term: term, View: m.store.View, Apply: m.entries.Insist, Workers: l.registry, Stores: m.stores, Locator: locator{stored, m.store.View}, Log: m.cfg.Log, Retries: m.retries,
		Alive: (&masters{m}).Alive,
	})
	if err != nil {
		return nil, err
	}
	past, err := history.New(history.Config{
		View: m.store.View, Apply: m.entries.Apply, System: m.stores.System, Known: func() bool { return fsm.MayRetire(m.store.View().Protocol()) },
		Keep: m.cfg.KeepJobs, Retention: max(0, m.cfg.KeepHistory), Log: m.cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	nodes, err := m.newFleet(l, stored, jobs)
	if err != nil {
		return nil, err
	}
	l.unshare = m.openBlockStores(stored)
	l.registry.Handle(hearers{view: m.store.View, blocks: stored, jobs: jobs, fleet: nodes})
	ctx, l.stop = context.WithCancel(ctx)
	l.jobs = jobs
	m.leads.Store(l) // before it looks at the state: what is logged afterwards it hears of
	l.wait.Go(func() { l.ended <- jobs.Run(ctx) })
	l.wait.Go(func() { past.Run(ctx) })
	l.wait.Go(func() { m.server.KeepCA(ctx) })
	l.wait.Go(func() { stored.Run(ctx) })
	l.wait.Go(func() { nodes.Run(ctx) })
	l.wait.Go(func() {
		defer close(l.settled)
		select {
		case <-time.After(session.ReturnWithin):
		case <-ctx.Done():
		}
	})
	l.face = &server.Leader{Term: term, Sessions: l.registry, Tracker: jobs, Files: stored, Fleet: nodes, Verify: m.stillLeads(term), Done: l.done, Settled: l.settled}
	return l, nil
}

// applied has the leader take up jobs that come to the log or are to end, whoever logged that: a request that began in a term before may
// come to the log in this one, and whose caller has gone away nobody waits for its answer.
func (m *Master) applied(value any) {
	if l := m.leads.Load(); l != nil {
		go l.takeUp(value) // the log goes on
	}
}

func (l *leader) takeUp(value any) {
	switch v := value.(type) {
	case *state.Job:
		if v.State == state.JobPending || v.Ending != "" {
			l.jobs.Submitted(v.ID)
		}
	case *state.Cluster:
		if v.Ending() {
			l.jobs.ClusterChanged(v.ID)
		}
	}
}

// logFiles logs what becomes of files, once all masters can read that.
func (m *Master) logFiles(ctx context.Context, c state.Command) (any, error) {
	result, err := m.entries.Apply(ctx, c)
	if errors.Is(err, fsm.ErrTooNew) {
		err = fmt.Errorf("%w: %w", files.ErrTooSoon, logged{m.entries}.translate(ctx, err))
	}
	return result, err
}

// stillLeads asks a majority, as reads do, whether this master leads a term. Leading is not enough: one that lost the leadership and
// has it again may not have applied yet what others logged in between.
func (m *Master) stillLeads(term uint64) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		if err := (logged{m.entries}).verify(ctx); err != nil {
			return err
		}
		if now := m.raft.CurrentTerm(); now != term {
			return fmt.Errorf("%w: its term %d is over, it is %d", server.ErrNotLeader, term, now)
		}
		return nil
	}
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
		case <-m.raft.disk.changed:
			// Raft says that it is no leader any more when it comes back from the disk, which can take its time.
			if m.raft.State() != raft.Leader {
				return errDeposed
			}
		}
	}
}

// close ends the sessions, then the tracker, and waits for both.
func (l *leader) close() {
	close(l.done)
	l.stop()
	l.registry.Close()
	l.wait.Wait()
	l.unshare()
}

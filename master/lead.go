package master

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"millrace/master/fsm"
	"millrace/pkg/objectstore"
	"millrace/pkg/shortage"
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
	m.heard.Clear() // it is of an earlier term, if there is any
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
	m.leads.Store(nil)
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

// prepare does what a site needs before its first job and must not hold up the leader: the admin's context and
// the system bucket.
func (m *Master) prepare(ctx context.Context) {
	for _, step := range []func() error{m.renewSelf, m.writeAdmin} {
		err := step()
		for said := false; diskFails(err); err = step() { // not a reason to end: it leads nevertheless
			if !said {
				m.log.Warn("this master's own files cannot be written yet", zap.Error(shortage.Explained(err)))
				said = true
			}
			select {
			case <-time.After(diskRetry):
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			m.fail(err)
			return
		}
	}
	if m.makeSystemBucket(ctx) {
		m.readyOnce.Do(func() { close(m.ready) })
	}
}

// diskFails says whether an error is that of a disk that is full or broken.
func diskFails(err error) bool {
	kind := shortage.Of(err)
	return kind == shortage.Disk || kind == shortage.Broken
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

// Package fsm stands between the Raft log and the replicated state: it reads
// entries, hands their commands to state, and snapshots and restores it. It owns
// the form of an entry, not the meaning of a command.
package fsm

import (
	"fmt"
	"io"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/protocol"
)

// Result is what applying an entry gives (raft.ApplyFuture.Response).
type Result struct {
	Value any
	Err   error
}

// FSM is the raft.FSM of a master.
type FSM struct {
	store  *state.Store
	log    *zap.Logger
	failed func(error)
	seen   func(value any)
	stuck  error // what could not be read: nothing after it is applied
}

var _ raft.FSM = (*FSM)(nil)

// New returns the FSM over a store, which nobody else may write. It tells failed, once, of an entry that cannot be read:
// the state stays as it was before it, for good, and no snapshot is taken any more, so that a later version can go on from there.
func New(store *state.Store, log *zap.Logger, failed func(error)) *FSM {
	return &FSM{store: store, log: log, failed: failed, seen: func(any) {}}
}

// Observe has seen told what each entry gives that is carried out, whoever has logged it. It must not block, and is set before Raft starts.
func (f *FSM) Observe(seen func(value any)) { f.seen = seen }

// Apply carries out one entry and returns a Result. An entry that cannot be read
// changes nothing, nor does any that follows: this master's state would differ from that of those who could read it.
func (f *FSM) Apply(entry *raft.Log) any {
	if f.stuck != nil {
		return Result{Err: f.stuck}
	}
	c, err := Decode(entry.Data)
	if err != nil {
		f.stuck = fmt.Errorf("log index %d: %w", entry.Index, err)
		f.log.Error("cannot apply a log entry: is this master older than the others?", zap.Error(f.stuck))
		f.failed(f.stuck)
		return Result{Err: f.stuck}
	}
	value, err := f.store.Apply(entry.Index, c)
	if err == nil {
		f.seen(value)
	}
	return Result{value, err}
}

// Snapshot captures the state; it costs next to nothing.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) {
	if f.stuck != nil {
		return nil, f.stuck
	}
	return snapshot{f.store.View()}, nil
}

// Restore replaces the state by a snapshot, or leaves it as it is on an error.
func (f *FSM) Restore(r io.ReadCloser) error {
	defer r.Close() // read to its end or given up: nothing to learn from closing it
	return Restore(f.store, r)
}

// Restore replaces a store's state by a snapshot, if this binary reads it.
func Restore(store *state.Store, snapshot io.Reader) error {
	return store.Restore(snapshot, func(written int) error { return protocol.Readable("snapshot", written) })
}

// Alone is an FSM for a log of which the end may be lost: its snapshot is that of a state which goes on by itself.
func Alone(f *FSM) raft.FSM { return alone{f} }

type alone struct{ *FSM }

// Snapshot is FSM's.
func (a alone) Snapshot() (raft.FSMSnapshot, error) {
	if a.stuck == nil {
		if err := GoOnAlone(a.store); err != nil {
			return nil, err
		}
	}
	return a.FSM.Snapshot()
}

// GoOnAlone prepares the state of a backup, or of a log of which the end may be lost, for going on from there: nothing gets a name
// that something in the world outside may have got after it, and no node is told off where it may have been put.
func GoOnAlone(store *state.Store) error {
	if MayHoldFiles(store.View().Protocol()) {
		store.SkipFileIDs()
	}
	if MayHoldFleets(store.View().Protocol()) {
		return store.DoubtPlaces()
	}
	return nil
}

type snapshot struct{ view *state.View }

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.view.Persist(sink); err != nil {
		if cancelErr := sink.Cancel(); cancelErr != nil {
			return fmt.Errorf("%w (and cancel: %w)", err, cancelErr)
		}
		return err
	}
	if err := sink.Close(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

func (s snapshot) Release() {}

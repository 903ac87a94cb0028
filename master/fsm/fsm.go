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
)

// Result is what applying an entry gives (raft.ApplyFuture.Response).
type Result struct {
	Value any
	Err   error
}

// FSM is the raft.FSM of a master.
type FSM struct {
	store *state.Store
	log   *zap.Logger
}

var _ raft.FSM = (*FSM)(nil)

// New returns the FSM over a store, which nobody else may write.
func New(store *state.Store, log *zap.Logger) *FSM { return &FSM{store, log} }

// Apply carries out one entry and returns a Result. An entry that cannot be read
// changes nothing.
func (f *FSM) Apply(entry *raft.Log) any {
	c, err := Decode(entry.Data)
	if err != nil {
		err = fmt.Errorf("log index %d: %w", entry.Index, err)
		// On a follower nobody reads the result, and the site must hear of it: this
		// master's state now differs from that of those who could read the entry.
		f.log.Error("cannot apply a log entry: is this master older than the others?", zap.Error(err))
		return Result{Err: err}
	}
	value, err := f.store.Apply(entry.Index, c)
	return Result{value, err}
}

// Snapshot captures the state; it costs next to nothing.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) { return snapshot{f.store.View()}, nil }

// Restore replaces the state by a snapshot, or leaves it as it is on an error.
func (f *FSM) Restore(r io.ReadCloser) error {
	defer r.Close() // read to its end or given up: nothing to learn from closing it
	return f.store.Restore(r)
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

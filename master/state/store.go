// Package state owns the replicated records and their legal transitions. It is
// pure: no clock, no randomness, no I/O; applying the same commands gives the same state.
//
// Records lie in immutable radix trees: a view is a pointer to their roots, and a
// record, once stored, is never changed but replaced by a changed copy.
package state

import (
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"
)

// Store holds the state. Apply and Restore are called by one goroutine at a time;
// views may be taken by any.
type Store struct {
	db   *memdb.MemDB
	view atomic.Pointer[View]
}

// New returns an empty store.
func New() *Store {
	db, _ := memdb.NewMemDB(schema()) // fails on a schema that is not valid; this one is a constant, and tested
	s := &Store{db: db}
	s.publish(0)
	return s
}

// View is an immutable state; taking one costs next to nothing. The records it
// returns must not be changed.
func (s *Store) View() *View { return s.view.Load() }

// publish makes what is committed the current view, as of the given log index.
func (s *Store) publish(index uint64) {
	s.view.Store(&View{txn: s.db.Txn(false), index: index})
}

// Apply carries out one command, logged at index. The result is what the command's
// comment says; an error means that no record changed.
func (s *Store) Apply(index uint64, c Command) (any, error) {
	t := &txn{Txn: s.db.Txn(true), index: index}
	result, err := t.apply(c)
	if err != nil {
		t.Abort()
	} else {
		t.Commit()
	}
	s.publish(index) // a refused command was applied too: whoever waits for its index must see it
	return result, err
}

// txn is the writable state while one command is applied.
type txn struct {
	*memdb.Txn
	index uint64
}

func (t *txn) apply(c Command) (any, error) {
	switch c := c.(type) {
	case CreateSite:
		return result(t.createSite(c))
	case PutStore:
		return result(t.putStore(c))
	case PutNode:
		return result(t.putNode(c))
	case AdmitNode:
		return result(t.admitNode(c))
	case RemoveNode:
		return result(t.removeNode(c))
	case CreateToken:
		return result(t.createToken(c))
	case RevokeToken:
		return result(t.revokeToken(c))
	case SubmitJob:
		return result(t.submitJob(c))
	case PlanJob:
		return result(t.planJob(c))
	case AddUploads:
		return nil, t.addUploads(c)
	case DropUploads:
		return result(t.dropUploads(c))
	case EndTasks:
		return result(t.endTasks(c))
	case LoseMaps:
		return result(t.loseMaps(c))
	case BeginCommit:
		return result(t.beginCommit(c))
	case RedoParts:
		return result(t.redoParts(c))
	case CompleteJob:
		return result(t.completeJob(c))
	case FailJob:
		return result(t.failJob(c))
	case CancelJob:
		return result(t.cancelJob(c))
	case EndJob:
		return result(t.endJob(c))
	}
	return nil, fmt.Errorf("%w: %T", ErrInvalid, c)
}

// result keeps a typed nil out of the interface when there is an error.
func result[T any](v T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

// first finds one record. Look-ups fail only on a table, index or argument that the
// schema does not have, which is a mistake in this package: the record is then not found.
func first[T any](t *memdb.Txn, table, index string, args ...any) (*T, bool) {
	raw, err := t.First(table, index, args...)
	if err != nil || raw == nil {
		return nil, false
	}
	r, ok := raw.(*T)
	return r, ok
}

// each calls yield for the records of an index in its order, until it returns false.
func each[T any](t *memdb.Txn, table, index string, args ...any) func(yield func(*T) bool) {
	return func(yield func(*T) bool) {
		it, err := t.Get(table, index, args...)
		if err != nil {
			return
		}
		for raw := it.Next(); raw != nil; raw = it.Next() {
			if !yield(raw.(*T)) {
				return
			}
		}
	}
}

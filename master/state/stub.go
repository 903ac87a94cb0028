// Package state owns the replicated records and their legal transitions. It is
// pure: no clock, no randomness, no I/O; applying the same commands gives the same state.
package state

import (
	"errors"
	"io"
)

// What a caller may decide on.
var (
	ErrNotFound       = errors.New("not found")
	ErrExists         = errors.New("already exists")
	ErrToken          = errors.New("join token refused")
	ErrOutputReserved = errors.New("output is reserved by another job")
	ErrTooLate        = errors.New("too late")
	ErrNotReady       = errors.New("not ready")
	ErrLedger         = errors.New("ledger does not balance")
)

// OutputReservedError names the job that has the output; it is ErrOutputReserved.
type OutputReservedError struct{ Job, Output string }

func (e *OutputReservedError) Error() string {
	return "output " + e.Output + " is reserved by job " + e.Job
}
func (e *OutputReservedError) Unwrap() error { return ErrOutputReserved }

// LedgerError is ErrLedger with both sides.
type LedgerError struct{ Written, Fetched Ledger }

func (e *LedgerError) Error() string { panic("unwritten") }
func (e *LedgerError) Unwrap() error { return ErrLedger }

// Store holds the state. Apply is called by one goroutine at a time; views may be
// taken by any.
type Store struct{}

func New() *Store { panic("unwritten") }

// Apply carries out one command, logged at index. The result is what the command's
// comment says; an error means that nothing changed.
func (s *Store) Apply(index uint64, c Command) (any, error) { panic("unwritten") }

// View is an immutable state; taking one costs next to nothing. The records it
// returns must not be changed.
func (s *Store) View() *View { panic("unwritten") }

// Restore replaces everything by what Persist wrote.
func (s *Store) Restore(r io.Reader) error { panic("unwritten") }

// View is the state at one moment.
type View struct{}

func (v *View) Index() uint64                               { panic("unwritten") }
func (v *View) Persist(w io.Writer) error                   { panic("unwritten") }
func (v *View) Site() (*Site, bool)                         { panic("unwritten") }
func (v *View) Clusters() []*Cluster                        { panic("unwritten") }
func (v *View) Cluster(idOrName string) (*Cluster, bool)    { panic("unwritten") } // "" = default
func (v *View) Nodes(cluster string) []*Node                { panic("unwritten") } // "" = all
func (v *View) Node(id string) (*Node, bool)                { panic("unwritten") }
func (v *View) Tokens() []*Token                            { panic("unwritten") }
func (v *View) Jobs(cluster string) []*Job                  { panic("unwritten") } // newest first; "" = all
func (v *View) OpenJobs() []*Job                            { panic("unwritten") } // not Ended, oldest first
func (v *View) Job(id string) (*Job, bool)                  { panic("unwritten") }
func (v *View) FindJob(cluster, ref string) ([]*Job, error) { panic("unwritten") } // id, unique prefix, name (the newest of it), "last"; ErrNotFound; more than one = ambiguous prefix
func (v *View) Task(job string, id TaskID) (*Task, bool)    { panic("unwritten") }
func (v *View) Tasks(job, kind string) []*Task              { panic("unwritten") } // in order of index; only those with a record
func (v *View) Uploads(job string) []*Upload                { panic("unwritten") }
func (v *View) Watch(job string) <-chan struct{}            { panic("unwritten") } // closed when the job, its tasks or uploads change after this view

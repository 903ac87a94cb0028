// Package task runs one map or reduce task of a program, and owns the child's
// end of the attempt protocol. It reads splits, feeds the program, and turns what
// the program emits into a segment or into the parts of one multipart upload.
//
// It knows no node, no cluster and no other task; whoever runs it brings a lease,
// an object store and, for reduces, the segments.
package task

import "millrace/jobs/engine"

// Program is the user's code as a task sees it: a job's functions with the job's
// arguments already applied. Its New… functions are called once per task, so
// that no state of one task reaches another.
type Program struct {
	Name string

	// NewMapper makes the map side of one task.
	NewMapper func(*Context) (Mapper, error)
	// NewReducer makes the reduce side of one task; nil means identity.
	NewReducer func(*Context) (Reducer, error)
	// MapOnly says that the maps write the output: there is nothing to reduce.
	MapOnly bool
	// CopiesFiles says that the maps copy whole files, and nothing else is asked of the program.
	CopiesFiles bool

	// Fold combines in place on the map side; see engine.FoldFunc.
	Fold engine.FoldFunc
	// NewCombiner makes the general combiner of one map task; Fold goes first.
	NewCombiner func(*Context) (engine.CombineFunc, error)

	// Partition picks the reduce of a key, in [0, partitions); nil is a hash of the key.
	Partition func(key []byte, partitions int) int
	// Compare orders keys; nil is bytes.Compare.
	Compare func(a, b []byte) int
	// Group says whether two adjacent keys belong to one call of Reduce; nil is equality under Compare.
	Group func(a, b []byte) bool
}

// Mapper takes the records of one split. It emits through the Context it was
// made with, from one goroutine at a time, and no longer than until Close returns.
type Mapper interface {
	// Map takes one record; it keeps neither slice. A text record has a nil key.
	Map(key, value []byte) error
	// Close follows the last record; it may emit.
	Close() error
	// Abort takes the place of Close after a failure: it stops what the mapper
	// started and waits for it.
	Abort()
}

// Reducer takes the groups of one partition, in key order; for the rest it is as a Mapper.
type Reducer interface {
	Reduce(key []byte, values *engine.Values) error
	Close() error
	Abort()
}

// identity is the reducer of a program without one. After a shuffle an empty
// value is no value: it gives the key alone.
type identity struct{ t *Context }

func (r identity) Reduce(_ []byte, values *engine.Values) error {
	for {
		v, ok := values.Next()
		if !ok {
			return values.Err()
		}
		if len(v) == 0 {
			v = nil
		}
		r.t.Emit(values.Key(), v)
	}
}

func (identity) Close() error { return nil }
func (identity) Abort()       {}

// Package engine is the hot path between a map function and a reduce function:
// collect, combine, sort, spill, merge, group; in bounded memory, without
// allocation per record. It knows no network, no task and no program.
package engine

import (
	"context"
	"io"

	"millrace/pkg/record"
)

// FoldFunc merges value into acc, in place where it fits, and returns acc. It
// must be associative and commutative.
type FoldFunc func(acc, value []byte) []byte

// EmitFunc takes a record; it keeps neither slice.
type EmitFunc func(key, value []byte) error

// CombineFunc reduces one key's values to fewer records, of the same key.
type CombineFunc func(key []byte, values *Values, emit EmitFunc) error

// Config sets up a Collector. Zero values mean defaults.
type Config struct {
	Partitions int                   // at least 1
	Memory     int64                 // bytes for records and their index; default 64 MiB
	Dir        string                // for spills; made when needed
	Compare    func(a, b []byte) int // of keys; nil = bytes.Compare (fast path)
	Fold       FoldFunc              // if set: a hash table combines in place
	Combine    CombineFunc           // else if set: runs at each spill and merge
	Codec      record.Codec
}

// Stats is what a Collector or a merge has done.
type Stats struct {
	SpilledRecords                            int64
	CombineInputRecords, CombineOutputRecords int64
}

// Collector takes a map task's output and makes one segment of it. Not for
// concurrent use.
type Collector struct{}

func NewCollector(c Config) (*Collector, error) { panic("unwritten") }

// Collect adds a record; it keeps neither slice.
func (c *Collector) Collect(partition int, key, value []byte) error { panic("unwritten") }

// Finish sorts and merges everything into one segment on w. The Collector is
// empty afterwards and can be used again.
func (c *Collector) Finish(ctx context.Context, w io.Writer) (record.Index, error) {
	panic("unwritten")
}
func (c *Collector) Stats() Stats { panic("unwritten") }

// Close removes spills. Idempotent.
func (c *Collector) Close() error { panic("unwritten") }

// Run is a sorted sequence of records. record.Reader is one.
type Run interface {
	Next() (key, value []byte, err error) // io.EOF at the end; slices valid until the next call
	Close() error
}

// MergeConfig sets up a merge.
type MergeConfig struct {
	Compare func(a, b []byte) int // nil = bytes.Compare
	FanIn   int                   // runs merged at once; default 64; more go through disk
	Dir     string
	Codec   record.Codec
}

// Opener opens a run when the merge comes to it, so that ten thousand runs need not be open at once.
type Opener func() (Run, error)

// Merge merges sorted runs into one, with a loser tree; equal keys come in the order of the runs.
// It takes the runs over and closes them.
func Merge(ctx context.Context, runs []Opener, c MergeConfig) (Run, error) { panic("unwritten") }

// Groups walks a sorted run key by key.
type Groups struct{}

// NewGroups groups equal keys (nil = bytes.Equal).
func NewGroups(r Run, same func(a, b []byte) bool) *Groups { panic("unwritten") }

// Next goes to the next key, passing over values not read, or returns io.EOF. The
// key is valid until the next call.
func (g *Groups) Next() (key []byte, values *Values, err error) { panic("unwritten") }

// Values streams the values of one key.
type Values struct{}

// Next returns the next value, valid until the next call; false at the end or
// at an error, which Err then gives (Groups.Next gives it, too).
func (v *Values) Next() ([]byte, bool) { panic("unwritten") }
func (v *Values) Err() error           { panic("unwritten") }

// Key is the key of the value last returned (it differs from the group's under a grouping of its own).
func (v *Values) Key() []byte { panic("unwritten") }

// HashPartition is the default partitioner: xxh3 of the key.
func HashPartition(key []byte, partitions int) int { panic("unwritten") }

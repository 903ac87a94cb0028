// Package engine is the hot path between a map function and a reduce function:
// collect, combine, sort, spill, merge, group; in bounded memory, without
// allocation per record. It knows no network, no task and no program.
//
// A Collector turns a map task's output into one segment. Records lie in one
// buffer, in order of arrival or, with a Fold, under a hash table; when the
// buffer is full they are sorted and spilled. Finish merges what was spilled
// with what is still in memory, once. A reduce task merges sorted runs with
// Merge and walks the result with Groups.
package engine

import (
	"fmt"

	"github.com/zeebo/xxh3"

	"millrace/pkg/record"
)

// FoldFunc merges value into acc, in place where it fits, and returns acc. It
// must be associative and commutative. It may append to acc, or return another
// slice (value, say), which is copied; it keeps neither.
type FoldFunc func(acc, value []byte) []byte

// EmitFunc takes a record; it keeps neither slice.
type EmitFunc func(key, value []byte) error

// CombineFunc reduces one key's values to fewer records, of the same key. It may
// run any number of times on what it made before, or not at all. Emitting
// another key is an error: it would lie in the wrong place of the order.
type CombineFunc func(key []byte, values *Values, emit EmitFunc) error

const (
	defaultMemory = 64 << 20
	minMemory     = 1 << 10
	maxMemory     = 1<<32 - 1<<10 // offsets have 32 bits
	defaultFanIn  = 64

	// readerMemory is about what a run being merged holds: a block and its compressed form.
	readerMemory = 512 << 10
)

// Config sets up a Collector. Zero values mean defaults.
type Config struct {
	Partitions int // at least 1

	// Memory is the bytes for records, their index, the hash table and what
	// sorting and growing need: default 64 MiB, at least 1 KiB, at most 4 GiB
	// (more is not used). Blocks being written and read come on top: under 1 MiB
	// while collecting, at most a quarter of Memory (or 2 MiB) while merging.
	Memory int64

	Dir     string                // for spills; made when needed
	Compare func(a, b []byte) int // of keys; nil = bytes.Compare (fast path)
	Fold    FoldFunc              // if set: a hash table combines in place
	Combine CombineFunc           // else if set: runs at each spill and merge
	Codec   record.Codec

	disk disk
}

func (c *Config) setDefaults() error {
	switch {
	case c.Partitions < 1 || c.Partitions >= dead:
		return fmt.Errorf("engine: %d partitions, at least 1 is needed", c.Partitions)
	case c.Memory < 0:
		return fmt.Errorf("engine: %d bytes of memory", c.Memory)
	case c.Codec > record.LZ4:
		return fmt.Errorf("engine: unknown codec %d", c.Codec)
	}
	if c.Memory == 0 {
		c.Memory = defaultMemory
	}
	c.Memory = min(max(c.Memory, minMemory), maxMemory)
	if c.disk == nil {
		c.disk = osDisk{}
	}
	return nil
}

// Stats is what a Collector or a merge has done.
type Stats struct {
	// SpilledRecords is how many records were written to spills, each time they were.
	SpilledRecords int64
	// CombineInputRecords and CombineOutputRecords count what went into Fold or
	// Combine and what came out, at spills and merges alike.
	CombineInputRecords, CombineOutputRecords int64
}

// Run is a sorted sequence of records. record.Reader is one.
type Run interface {
	Next() (key, value []byte, err error) // io.EOF at the end; slices valid until the next call
	Close() error
}

// Opener opens a run when the merge comes to it, so that ten thousand runs need not be open at once.
type Opener func() (Run, error)

// HashPartition is the default partitioner: xxh3 of the key.
func HashPartition(key []byte, partitions int) int {
	return partitionOf(xxh3.Hash(key), partitions)
}

// partitionOf scales the hash's upper half: no division, and independent of the
// lower half, which the hash table of a Fold uses.
func partitionOf(hash uint64, partitions int) int {
	return int(hash >> 32 * uint64(partitions) >> 32)
}

package datanode

import (
	"context"
	"iter"
	"time"

	"millrace/hdfs"
	"millrace/hdfs/blockstore"
)

// Store keeps this node's replicas; package blockstore's, by way of Blocks. Errors wrap those of package hdfs.
type Store interface {
	// Create begins a replica, in place of any of an older stamp. The size says how much room it may need.
	Create(b hdfs.Block) (Writer, error)
	// Recover goes on at length with a replica whose stamp is from or later, under stamp to.
	Recover(id hdfs.BlockID, from, to hdfs.Stamp, length int64) (Writer, error)
	Open(id hdfs.BlockID, stamp hdfs.Stamp) (Replica, error)
	Delete(id hdfs.BlockID, stamp hdfs.Stamp) error
	// Blocks lists what is there; true: it is unfinished.
	Blocks() iter.Seq2[hdfs.Block, bool]
	// Verify reads a final replica and compares its checksums; before so many bytes are read it calls wait.
	Verify(ctx context.Context, id hdfs.BlockID, stamp hdfs.Stamp, wait func(ctx context.Context, n int) error) error
	// Scrub lists the final replicas last verified before then, the least recently verified first.
	Scrub(before time.Time) iter.Seq2[hdfs.Block, time.Time]
	// DropUnfinished deletes unfinished replicas that nobody comes back to.
	DropUnfinished() int
	Disks() []blockstore.Disk
}

// Writer is a replica being written.
type Writer interface {
	Write(data []byte, sums []uint32) error
	Size() int64
	Finalize() (hdfs.Block, error)
	Close() error // leaves it unfinished
}

// Replica is a final one.
type Replica interface {
	Size() int64
	// ReadChunks reads n chunks from the first on into buf, with their checksums as they were stored.
	ReadChunks(first, n int, buf []byte) (data []byte, sums []uint32, err error)
	Close() error
}

// Blocks makes a block store a Store.
func Blocks(s *blockstore.Store) Store { return blocks{s} }

type blocks struct{ *blockstore.Store }

// A nil pointer in an interface is no nil: hence all the words.

func (b blocks) Create(block hdfs.Block) (Writer, error) {
	w, err := b.Store.Create(block)
	if err != nil {
		return nil, err
	}
	return w, nil
}

func (b blocks) Recover(id hdfs.BlockID, from, to hdfs.Stamp, length int64) (Writer, error) {
	w, err := b.Store.Recover(id, from, to, length)
	if err != nil {
		return nil, err
	}
	return w, nil
}

func (b blocks) Open(id hdfs.BlockID, stamp hdfs.Stamp) (Replica, error) {
	r, err := b.Store.Open(id, stamp)
	if err != nil {
		return nil, err
	}
	return r, nil
}

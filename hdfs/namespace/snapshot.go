package namespace

import (
	"encoding/binary"
	"hash/crc32"
	"iter"

	"millrace/hdfs"
)

// A snapshot is a sequence of pieces, so that neither who writes nor who reads one has more than a piece of it in
// memory beside the tree. A piece is the format's version (a byte), its number (from 0 on), records, and the CRC32C of all
// before it (little-endian). Numbers are varints; a text is its length and its bytes. Each record begins with a byte that says what it is:
//
//	C  the counters: file, block, stamp, deed; the first record of all
//	D  a folder: id, parent, name, modified; in the order of parents and names, files too
//	F  a file: the same, then replication, block size
//	H  a hidden file: id, path, lease, group, task, replication, block size, stamp before, flags; in the order of ids
//	B  blocks of the file before, in order: how many, and for each id and stamp (as what is added to the one before) and size
//	R  a request that is remembered: name, number; the oldest first
//	P  a group that was published: the same
//	E  the end: how many folders and files, hidden files, blocks, requests, published groups
//
// The size of a block is 0 for a full one, 1 for one that is being written, else 1 more than its bytes.
const (
	formatVersion = 1

	pieceSize  = 64 << 10 // bytes, about
	blocksEach = 1024     // at most, in a record
)

const (
	recordCounters byte = 'C'
	recordFolder   byte = 'D'
	recordFile     byte = 'F'
	recordHidden   byte = 'H'
	recordBlocks   byte = 'B'
	recordRequest  byte = 'R'
	recordGroup    byte = 'P'
	recordEnd      byte = 'E'
)

const (
	flagOverwrite = 1 << iota
	flagSealed
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Pieces goes through a snapshot of the tree; a Loader makes a tree of them again. A piece is only good until the next one. Equal
// trees give equal pieces.
func (t *Tree) Pieces() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		w := &pieces{yield: yield, on: true}
		w.begin()
		w.record(recordCounters, uint64(t.last.file), uint64(t.last.block), uint64(t.last.stamp), t.last.deed)
		t.names.Scan(func(n *inode) bool { return w.inode(t, n) })
		t.drafts.Scan(func(d *draft) bool { return w.draft(t, d) })
		w.memory(recordRequest, t.requests)
		w.memory(recordGroup, t.published)
		w.record(recordEnd, t.counts()...)
		w.flush()
	}
}

// counts are how many there are of what a snapshot counts.
func (t *Tree) counts() []uint64 {
	return []uint64{uint64(t.names.Len()), uint64(t.drafts.Len()), uint64(t.blocks.Len()), uint64(t.requests.byAge.Len()), uint64(t.published.byAge.Len())}
}

// pieces writes records, and gives away each piece that is full.
type pieces struct {
	buf   []byte
	n     uint64
	yield func([]byte) bool
	on    bool // somebody still wants them
}

func (w *pieces) begin() {
	w.buf = binary.AppendUvarint(append(w.buf[:0], formatVersion), w.n)
	w.n++
}

func (w *pieces) flush() {
	if w.on {
		w.on = w.yield(binary.LittleEndian.AppendUint32(w.buf, crc32.Checksum(w.buf, castagnoli)))
	}
	w.begin()
}

// kind begins a record.
func (w *pieces) kind(k byte) {
	if len(w.buf) >= pieceSize {
		w.flush()
	}
	w.buf = append(w.buf, k)
}

func (w *pieces) number(n uint64) { w.buf = binary.AppendUvarint(w.buf, n) }
func (w *pieces) text(s string)   { w.number(uint64(len(s))); w.buf = append(w.buf, s...) }

func (w *pieces) record(k byte, numbers ...uint64) {
	w.kind(k)
	for _, n := range numbers {
		w.number(n)
	}
}

func (w *pieces) memory(k byte, m memory) {
	m.byAge.Scan(func(d deed) bool {
		w.kind(k)
		w.text(d.name)
		w.number(d.seq)
		return w.on
	})
}

func (w *pieces) inode(t *Tree, n *inode) bool {
	k := recordFile
	if n.folder() {
		k = recordFolder
	}
	w.record(k, uint64(n.id), uint64(n.parent))
	w.text(n.name)
	w.buf = binary.AppendVarint(w.buf, n.modified)
	if !n.folder() {
		w.number(uint64(n.replication))
		w.number(uint64(n.blockSize))
		w.blocks(t, n.blocks, n.blockSize)
	}
	return w.on
}

func (w *pieces) draft(t *Tree, d *draft) bool {
	flags := uint64(0)
	if d.overwrite {
		flags |= flagOverwrite
	}
	if d.sealed {
		flags |= flagSealed
	}
	w.record(recordHidden, uint64(d.id))
	for _, s := range []string{d.path, d.lease, d.group, d.task} {
		w.text(s)
	}
	for _, n := range []uint64{uint64(d.replication), uint64(d.blockSize), uint64(d.before), flags} {
		w.number(n)
	}
	w.blocks(t, d.blocks, d.blockSize)
	return w.on
}

func (w *pieces) blocks(t *Tree, ids []hdfs.BlockID, full int64) {
	for len(ids) > 0 {
		some := ids[:min(len(ids), blocksEach)]
		ids = ids[len(some):]
		w.record(recordBlocks, uint64(len(some)))
		var last block
		for _, id := range some {
			b, _ := t.blocks.Get(block{id: id})
			w.buf = binary.AppendVarint(w.buf, int64(b.id-last.id))
			w.buf = binary.AppendVarint(w.buf, int64(b.stamp-last.stamp))
			switch b.size {
			case full:
				w.number(0)
			case writing:
				w.number(1)
			default:
				w.number(uint64(b.size) + 1)
			}
			last = b
		}
	}
}

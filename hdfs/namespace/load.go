package namespace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"millrace/hdfs"
)

// Loader makes a tree of the pieces of a snapshot. It refuses what Pieces cannot have given: damage, a piece that is
// missing or comes twice, and whatever no commands lead to that would lead others astray.
type Loader struct {
	t     *Tree
	n     uint64 // pieces so far
	owner owner
	ended bool
	err   error // of a piece: there is no tree then
}

// owner is the file whose blocks come next.
type owner struct {
	inode  *inode
	draft  *draft
	blocks *[]hdfs.BlockID
	full   int64
	open   bool // the last block so far is not full, so it is the last of all
	last   block
}

// Add reads the next piece.
func (l *Loader) Add(piece []byte) error {
	if l.err == nil {
		l.err = l.add(piece)
	}
	return l.err
}

func (l *Loader) add(piece []byte) error {
	n := len(piece) - crc32.Size
	if n < 1 || binary.LittleEndian.Uint32(piece[n:]) != crc32.Checksum(piece[:n], castagnoli) {
		return fmt.Errorf("piece %d of a name space is damaged: its checksum does not match", l.n)
	}
	if piece[0] != formatVersion {
		return fmt.Errorf("piece %d of a name space has format %d, and this program reads %d", l.n, piece[0], formatVersion)
	}
	r := &reader{rest: piece[1:n]}
	if number := r.number(); r.err != nil || number != l.n {
		return fmt.Errorf("piece %d of a name space comes where piece %d should", number, l.n)
	}
	if l.t == nil {
		l.t = New()
		if k := r.byte(); k != recordCounters {
			return fmt.Errorf("a name space begins with a record of type %q", k)
		}
		l.t.last = counters{hdfs.FileID(r.number()), hdfs.BlockID(r.number()), hdfs.Stamp(r.number()), r.number()}
	}
	l.n++
	for len(r.rest) > 0 && r.err == nil {
		if l.ended {
			return errors.New("a name space goes on behind its end")
		}
		if err := l.record(r); err != nil {
			return fmt.Errorf("piece %d of a name space: %w", l.n-1, err)
		}
	}
	if r.err != nil {
		return fmt.Errorf("piece %d of a name space: %w", l.n-1, r.err)
	}
	return nil
}

// Tree is what all pieces make.
func (l *Loader) Tree() (*Tree, error) {
	if l.err == nil && !l.ended {
		l.err = fmt.Errorf("a name space ends after %d pieces: %w", l.n, io.ErrUnexpectedEOF)
	}
	if l.err != nil {
		return nil, l.err
	}
	return l.t, nil
}

func (l *Loader) record(r *reader) error {
	k := r.byte()
	if k == recordBlocks {
		return l.blocks(r)
	}
	if err := l.closeOwner(); err != nil {
		return err
	}
	switch k {
	case recordFolder, recordFile:
		return l.inode(r, k == recordFile)
	case recordHidden:
		return l.draft(r)
	case recordRequest:
		return l.deed(r, l.t.requests)
	case recordGroup:
		return l.deed(r, l.t.published)
	case recordEnd:
		return l.end(r)
	}
	return fmt.Errorf("a record of type %q", k)
}

func (l *Loader) inode(r *reader, file bool) error {
	n := &inode{id: hdfs.FileID(r.number()), parent: hdfs.FileID(r.number()), name: r.text(), modified: r.signed()}
	if file {
		n.replication, n.blockSize = r.replication(), r.blockSize()
	}
	if r.err != nil {
		return r.err
	}
	if clean, err := hdfs.CleanPath("/" + n.name); err != nil || clean != "/"+n.name || clean == "/" || strings.Contains(n.name, "/") {
		return fmt.Errorf("file %d is called %q", n.id, n.name)
	}
	if _, twice := l.t.ids.Set(n); twice || n.id == 0 || n.id > l.t.last.file {
		return fmt.Errorf("file %d is there twice, or comes from nowhere", n.id)
	}
	if _, taken := l.t.names.Load(n); taken {
		return fmt.Errorf("folder %d has two entries %q", n.parent, n.name)
	}
	if file {
		l.owner = owner{inode: n, blocks: &n.blocks, full: n.blockSize}
		return nil
	}
	l.t.count(n, 1)
	return nil
}

func (l *Loader) draft(r *reader) error {
	d := &draft{id: hdfs.FileID(r.number()), path: r.text(), lease: r.text(), group: r.text(), task: r.text()}
	d.replication, d.blockSize, d.before = r.replication(), r.blockSize(), hdfs.Stamp(r.number())
	flags := r.number()
	d.overwrite, d.sealed = flags&flagOverwrite != 0, flags&flagSealed != 0
	if r.err != nil {
		return r.err
	}
	same, err := newDraft(CreateFile{
		Path: d.path, Lease: d.lease, Replication: int(d.replication), BlockSize: d.blockSize, Overwrite: d.overwrite, Group: d.group, Task: d.task,
	})
	switch {
	case err != nil:
		return fmt.Errorf("hidden file %d: %w", d.id, err)
	case same.path != d.path || flags >= flagSealed<<1 || d.before > l.t.last.stamp || d.sealed && d.group == "":
		return fmt.Errorf("hidden file %d is as none can be", d.id)
	case d.group == "" && len(l.t.draftsBy(byPath, d.path)) > 0:
		return fmt.Errorf("hidden file %d: %s has two writers", d.id, d.path)
	}
	_, visible := l.t.inode(d.id)
	if _, twice := l.t.draft(d.id); visible || twice || d.id == 0 || d.id > l.t.last.file {
		return fmt.Errorf("file %d is there twice, or comes from nowhere", d.id)
	}
	l.t.addDraft(d)
	l.owner = owner{draft: d, blocks: &d.blocks, full: d.blockSize}
	return nil
}

func (l *Loader) blocks(r *reader) error {
	if l.owner.blocks == nil {
		return errors.New("blocks of no file")
	}
	n := r.number()
	if n == 0 || n > blocksEach {
		return fmt.Errorf("%d blocks in a record", n)
	}
	var last block
	for range n {
		b := block{id: last.id + hdfs.BlockID(r.signed()), file: l.owner.id(), stamp: last.stamp + hdfs.Stamp(r.signed())}
		switch size := r.number(); size {
		case 0:
			b.size = l.owner.full
		case 1:
			b.size = writing
		default:
			b.size = int64(size - 1)
		}
		if r.err != nil {
			return r.err
		}
		if err := l.block(b); err != nil {
			return err
		}
		last = b
	}
	return nil
}

// block adds the next block of the owner.
func (l *Loader) block(b block) error {
	o := &l.owner
	if o.open || b.id == 0 || b.id > l.t.last.block || b.stamp == 0 || b.stamp > l.t.last.stamp || b.final() && (b.size < 1 || b.size > o.full) {
		return fmt.Errorf("block %s of file %d is as none can be", b.id, b.file)
	}
	if _, twice := l.t.blocks.Load(b); twice {
		return fmt.Errorf("block %s is there twice", b.id)
	}
	*o.blocks = append(*o.blocks, b.id)
	o.open, o.last = b.size != o.full, b
	return nil
}

func (o *owner) id() hdfs.FileID {
	if o.inode != nil {
		return o.inode.id
	}
	return o.draft.id
}

// closeOwner sees to it that the file whose blocks came last is whole.
func (l *Loader) closeOwner() error {
	o := l.owner
	l.owner = owner{}
	if o.blocks == nil {
		return nil
	}
	n := len(*o.blocks)
	done := o.draft == nil || o.draft.sealed // all its blocks are final, else all but the last
	if n > 0 && o.last.final() != done || o.draft != nil && o.draft.before != 0 && o.draft.before >= o.last.stamp {
		return fmt.Errorf("the last block of file %d is as none can be", o.id())
	}
	*o.blocks = append(make([]hdfs.BlockID, 0, n), *o.blocks...) // without room to grow
	if o.inode != nil {
		if n > 0 {
			o.inode.size = int64(n-1)*o.full + o.last.size
		}
		l.t.count(o.inode, 1)
	}
	return nil
}

// deed reads one that is remembered.
func (l *Loader) deed(r *reader, m memory) error {
	d := deed{r.text(), r.number()}
	if r.err != nil {
		return r.err
	}
	newest, _ := m.byAge.Max()
	if d.name == "" || d.seq <= newest.seq || d.seq > l.t.last.deed || m.has(d.name) || m.byAge.Len() == remembered {
		return fmt.Errorf("%q was done twice, or comes from nowhere", d.name)
	}
	m.add(d)
	return nil
}

func (l *Loader) end(r *reader) error {
	for _, have := range l.t.counts() {
		if want := r.number(); r.err == nil && want != have {
			return fmt.Errorf("%d records of %d", have, want)
		}
	}
	l.ended = true
	return l.rooted()
}

// rooted sees to it that a way leads from the root to each folder and file, and one only.
func (l *Loader) rooted() error {
	good := map[hdfs.FileID]bool{rootID: true}
	var err error
	l.t.names.Scan(func(n *inode) bool {
		if !l.reaches(n.parent, good) {
			err = fmt.Errorf("file %d lies in no folder", n.id)
		}
		return err == nil
	})
	return err
}

// reaches says whether it is a folder from which the way up leads to the root; good are those known to be.
func (l *Loader) reaches(id hdfs.FileID, good map[hdfs.FileID]bool) bool {
	var way []hdfs.FileID
	for !good[id] {
		n, ok := l.t.inode(id)
		if !ok || !n.folder() || len(way) > l.t.ids.Len() {
			return false
		}
		way = append(way, id)
		id = n.parent
	}
	for _, id := range way {
		good[id] = true
	}
	return true
}

// reader reads the parts of records; after an error all are zero.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail() { r.failAs("%w", io.ErrUnexpectedEOF) }

func (r *reader) byte() byte {
	if len(r.rest) == 0 {
		r.fail()
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) signed() int64 {
	n, size := binary.Varint(r.rest)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) text() string {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.fail()
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

func (r *reader) replication() uint8 {
	n := r.number()
	if n < 1 || n > hdfs.MaxReplication {
		r.failAs("replication %d", n)
		return 0
	}
	return uint8(n)
}

func (r *reader) blockSize() int64 {
	n := r.number()
	if n > hdfs.MaxBlockSize || !validBlockSize(int64(n)) {
		r.failAs("blocks of %d bytes", n)
		return 0
	}
	return int64(n)
}

// failAs keeps the first error.
func (r *reader) failAs(format string, args ...any) {
	if r.err == nil {
		r.rest, r.err = nil, fmt.Errorf(format, args...)
	}
}

package namespace

import (
	"cmp"
	"fmt"
	"strings"

	"millrace/hdfs"
)

// maxWord is how many bytes the name of a lease, group, task or request may have.
const maxWord = 255

func (t *Tree) createFile(c CreateFile) (hdfs.FileID, error) {
	d, err := newDraft(c)
	if err != nil {
		return 0, about("create", c.Path, err)
	}
	if d.group != "" {
		err = t.checkUpload(d)
	} else {
		err = t.checkCreate(d)
	}
	if err != nil {
		return 0, about("create", d.path, err)
	}
	if same, ok := t.begun(d); ok {
		return same, nil
	}
	t.last.file++
	d.id = t.last.file
	t.addDraft(d)
	return d.id, nil
}

// newDraft is what a CreateFile asks for, without an id.
func newDraft(c CreateFile) (*draft, error) {
	path, err := hdfs.CleanPath(c.Path)
	if err != nil {
		return nil, err
	}
	if path == "/" {
		return nil, hdfs.ErrIsDir
	}
	if c.Lease == "" || len(c.Lease) > maxWord || len(c.Group) > maxWord || len(c.Task) > maxWord {
		return nil, fmt.Errorf("%w: a file needs a lease, and no name may have more than %d bytes", hdfs.ErrInvalid, maxWord)
	}
	if c.Task != "" && c.Group == "" {
		return nil, fmt.Errorf("%w: task %q of no group", hdfs.ErrInvalid, c.Task)
	}
	d := &draft{path: strings.Clone(path), lease: c.Lease, group: c.Group, task: c.Task, overwrite: c.Overwrite}
	if d.replication, err = replication(cmp.Or(c.Replication, hdfs.DefaultReplication)); err != nil {
		return nil, err
	}
	if d.blockSize = cmp.Or(c.BlockSize, hdfs.DefaultBlockSize); !validBlockSize(d.blockSize) {
		return nil, fmt.Errorf("%w: blocks of %d bytes: they have %d to %d, in whole %d", hdfs.ErrInvalid, d.blockSize, hdfs.MinBlockSize, int64(hdfs.MaxBlockSize), hdfs.ChunkSize)
	}
	return d, nil
}

// checkCreate says whether a file may be begun: nobody else writes it, and it could be completed now.
func (t *Tree) checkCreate(d *draft) error {
	for _, other := range t.draftsBy(byPath, d.target()) {
		if !d.sameWriter(other) {
			return hdfs.ErrBusy
		}
	}
	_, err := t.place(d)
	return err
}

func (t *Tree) checkUpload(d *draft) error {
	if t.published.has(d.group) {
		return fmt.Errorf("group %q is published: %w", d.group, hdfs.ErrLease)
	}
	return nil
}

// begun finds the draft that the same writer has begun and put nothing into.
func (t *Tree) begun(d *draft) (hdfs.FileID, bool) {
	for _, other := range t.draftsBy(byPath, d.target()) {
		if d.sameWriter(other) {
			return other.id, true
		}
	}
	return 0, false
}

func (d *draft) sameWriter(other *draft) bool {
	return d.path == other.path && d.lease == other.lease && d.group == other.group && d.task == other.task && d.blockSize == other.blockSize &&
		d.replication == other.replication && d.overwrite == other.overwrite && len(other.blocks) == 0 && !other.sealed
}

// place finds the file that a draft will replace; nil if its path is free.
func (t *Tree) place(d *draft) (*inode, error) {
	n, rest, err := t.deepest(d.path)
	switch {
	case err != nil:
		return nil, err
	case rest != "":
		return nil, nil
	case n.folder():
		return nil, hdfs.ErrIsDir
	case !d.overwrite:
		return nil, hdfs.ErrExist
	}
	return n, nil
}

// held finds the draft that a writer may write to.
func (t *Tree) held(op string, id hdfs.FileID, lease string) (*draft, error) {
	d, ok := t.draft(id)
	if !ok || d.lease != lease || d.sealed {
		return nil, ofFile(op, id, hdfs.ErrLease)
	}
	return d, nil
}

func (t *Tree) addBlock(c AddBlock) (at hdfs.Located, err error) {
	const op = "add block"
	d, err := t.held(op, c.File, c.Lease)
	if err != nil {
		return at, err
	}
	if again, ok := t.added(d, c.Prev); ok {
		return again, nil
	}
	if c.Prev != nil || len(d.blocks) > 0 {
		if err := t.end(d, c.Prev); err != nil {
			return at, ofFile(op, c.File, err)
		}
		if c.Prev.Size != d.blockSize {
			return at, ofFile(op, c.File, fmt.Errorf("%w: %v is followed by another, and is not full: it needs %d bytes", hdfs.ErrInvalid, *c.Prev, d.blockSize))
		}
	}
	t.last.block++
	t.last.stamp++
	b := block{t.last.block, d.id, t.last.stamp, writing}
	t.blocks.Set(b)
	changed := d.grown(b.id)
	changed.before = 0
	t.drafts.Set(changed)
	return changed.written(b), nil
}

// added finds the block that was added behind this one before, when nothing else has happened since.
func (t *Tree) added(d *draft, prev *hdfs.Block) (hdfs.Located, bool) {
	n := len(d.blocks)
	if n == 0 || prev == nil && n != 1 {
		return hdfs.Located{}, false
	}
	if prev != nil {
		if n < 2 || d.blocks[n-2] != prev.ID {
			return hdfs.Located{}, false
		}
		if b, ok := t.blocks.Get(block{id: prev.ID}); !ok || b.wire() != *prev {
			return hdfs.Located{}, false
		}
	}
	b, ok := t.blocks.Get(block{id: d.blocks[n-1]})
	return d.written(b), ok
}

// written is where the block that is being written lies in its file.
func (d *draft) written(b block) hdfs.Located {
	return hdfs.Located{Block: b.wire(), Offset: int64(len(d.blocks)-1) * d.blockSize}
}

// wire is a block as others see it: nothing is known of the size of one that is being written.
func (b block) wire() hdfs.Block { return hdfs.Block{ID: b.id, Stamp: b.stamp, Size: max(b.size, 0)} }

// end makes a draft's last block final.
func (t *Tree) end(d *draft, last *hdfs.Block) error {
	switch {
	case len(d.blocks) == 0 && last == nil:
		return nil
	case last == nil:
		return fmt.Errorf("%w: it has %d blocks, and none is named", hdfs.ErrInvalid, len(d.blocks))
	case len(d.blocks) == 0 || d.blocks[len(d.blocks)-1] != last.ID:
		return fmt.Errorf("%w: %v is not its last block", hdfs.ErrInvalid, *last)
	}
	b, _ := t.blocks.Get(block{id: last.ID})
	if b.stamp != last.Stamp {
		return fmt.Errorf("%w: %v has stamp %d now", hdfs.ErrStale, *last, b.stamp)
	}
	if last.Size < 1 || last.Size > d.blockSize {
		return fmt.Errorf("%w: %v, and blocks of this file have up to %d bytes", hdfs.ErrInvalid, *last, d.blockSize)
	}
	b.size = last.Size
	t.blocks.Set(b)
	return nil
}

func (t *Tree) restamp(c Restamp) (at hdfs.Located, err error) {
	const op = "restamp block"
	d, err := t.held(op, c.File, c.Lease)
	if err != nil {
		return at, err
	}
	n := len(d.blocks)
	if n == 0 || d.blocks[n-1] != c.Block.ID {
		return at, ofFile(op, c.File, fmt.Errorf("%w: %v is not the one that is being written", hdfs.ErrInvalid, c.Block))
	}
	b, _ := t.blocks.Get(block{id: c.Block.ID})
	switch stamp := c.Block.Stamp; {
	case stamp == b.stamp:
	case stamp == d.before && stamp != 0:
		return d.written(b), nil
	default:
		return at, ofFile(op, c.File, fmt.Errorf("%w: %v has stamp %d now", hdfs.ErrStale, c.Block, b.stamp))
	}
	t.last.stamp++
	changed := *d
	changed.before, b.stamp = b.stamp, t.last.stamp
	t.drafts.Set(&changed)
	t.blocks.Set(b)
	return changed.written(b), nil
}

func (t *Tree) completeFile(c CompleteFile) (info hdfs.Info, err error) {
	const op = "complete"
	if info, ok := t.completed(c); ok {
		return info, nil
	}
	d, err := t.held(op, c.File, c.Lease)
	if err != nil {
		return info, err
	}
	if err := t.end(d, c.Last); err != nil {
		return info, ofFile(op, c.File, err)
	}
	if d.group != "" {
		sealed := *d
		sealed.sealed = true
		t.drafts.Set(&sealed)
		return t.draftInfo(&sealed), nil
	}
	old, err := t.place(d)
	if err != nil {
		return info, about(op, d.path, err)
	}
	if old != nil {
		t.drop(old)
	}
	t.cutDraft(d)
	n, err := t.appear(d, c.At.UnixMicro())
	if err != nil {
		return info, about(op, d.path, err)
	}
	return n.info(d.path), nil
}

// completed finds what a CompleteFile that is repeated has made.
func (t *Tree) completed(c CompleteFile) (info hdfs.Info, ok bool) {
	var blocks []hdfs.BlockID
	if d, found := t.draft(c.File); found && d.sealed && d.lease == c.Lease {
		blocks, info = d.blocks, t.draftInfo(d)
	} else if n, found := t.inode(c.File); found && !n.folder() {
		blocks, info = n.blocks, n.info(t.path(n))
	} else {
		return info, false
	}
	if len(blocks) == 0 || c.Last == nil {
		return info, len(blocks) == 0 && c.Last == nil
	}
	b, _ := t.blocks.Get(block{id: blocks[len(blocks)-1]})
	return info, b.wire() == *c.Last
}

// appear puts a draft's file into the tree, at its path, which is free.
func (t *Tree) appear(d *draft, modified int64) (*inode, error) {
	folder, name := split(d.path)
	parent, err := t.folder(folder, modified)
	if err != nil {
		return nil, err
	}
	n := &inode{
		id: d.id, parent: parent.id, name: strings.Clone(name), modified: modified, size: t.draftSize(d),
		blockSize: d.blockSize, blocks: append(make([]hdfs.BlockID, 0, len(d.blocks)), d.blocks...), replication: d.replication,
	}
	t.put(n)
	return n, nil
}

// draftSize is the sum of a draft's final blocks, of which all but the last are full.
func (t *Tree) draftSize(d *draft) int64 {
	if len(d.blocks) == 0 {
		return 0
	}
	last, _ := t.blocks.Get(block{id: d.blocks[len(d.blocks)-1]})
	return int64(len(d.blocks)-1)*d.blockSize + max(last.size, 0)
}

func (t *Tree) abandonFile(c AbandonFile) error {
	d, ok := t.draft(c.File)
	if !ok {
		if _, visible := t.inode(c.File); visible {
			return ofFile("abandon", c.File, hdfs.ErrLease)
		}
		return nil
	}
	if d.lease != c.Lease || d.sealed { // a sealed one is its group's
		return ofFile("abandon", c.File, hdfs.ErrLease)
	}
	t.dropDraft(d)
	return nil
}

func (t *Tree) expireLeases(c ExpireLeases) []hdfs.FileID {
	var ended []hdfs.FileID
	for _, lease := range c.Leases {
		for _, d := range t.draftsBy(byLease, lease) {
			t.dropDraft(d)
			ended = append(ended, d.id)
		}
	}
	return ended
}

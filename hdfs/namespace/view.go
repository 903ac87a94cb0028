package namespace

import (
	"iter"
	"slices"
	"strings"
	"time"

	"millrace/hdfs"
)

// Totals are how much a name space has.
type Totals struct {
	hdfs.Usage     // of what is visible, the root not counted
	Blocks     int // of visible and hidden files
	Hidden     int // files that are being written, and uploads
}

// Totals costs next to nothing.
func (t *Tree) Totals() Totals { return Totals{t.totals, t.blocks.Len(), t.drafts.Len()} }

// Stat describes a file or folder.
func (t *Tree) Stat(path string) (hdfs.Info, error) {
	path, n, err := t.at("stat", path)
	if err != nil {
		return hdfs.Info{}, err
	}
	return n.info(path), nil
}

// StatID describes a visible file or folder by its id; hdfs.ErrNotExist.
func (t *Tree) StatID(id hdfs.FileID) (hdfs.Info, error) {
	n, ok := t.inode(id)
	if !ok {
		return hdfs.Info{}, ofFile("stat", id, hdfs.ErrNotExist)
	}
	return n.info(t.path(n)), nil
}

// List gives up to limit entries of a folder in the order of their names' bytes, those after a name ("" = from the first on).
func (t *Tree) List(path, after string, limit int) ([]hdfs.Info, error) {
	path, n, err := t.at("list", path)
	if err != nil {
		return nil, err
	}
	if !n.folder() {
		return nil, about("list", path, hdfs.ErrNotDir)
	}
	var found []hdfs.Info
	if limit < 1 {
		return nil, nil
	}
	t.children(n.id, after, func(c *inode) bool {
		found = append(found, c.info(join(path, c.name)))
		return len(found) < limit
	})
	return found, nil
}

// Walk goes through all below a path, itself included: each folder before what is in it, and that in the order of names' bytes.
func (t *Tree) Walk(path string) (iter.Seq[hdfs.Info], error) {
	path, n, err := t.at("walk", path)
	if err != nil {
		return nil, err
	}
	return func(yield func(hdfs.Info) bool) { t.walk(path, n, yield) }, nil
}

func (t *Tree) walk(path string, n *inode, yield func(hdfs.Info) bool) bool {
	if !yield(n.info(path)) {
		return false
	}
	on := true
	if n.folder() {
		t.children(n.id, "", func(c *inode) bool {
			on = t.walk(join(path, c.name), c, yield)
			return on
		})
	}
	return on
}

// Usage sums up all below a path, itself included unless it is the root.
func (t *Tree) Usage(path string) (hdfs.Usage, error) {
	_, n, err := t.at("usage", path)
	if err != nil {
		return hdfs.Usage{}, err
	}
	if n.id == rootID {
		return t.totals, nil
	}
	var sum Tree
	sum.count(n, 1)
	for _, one := range t.below(n) {
		sum.count(one, 1)
	}
	return sum.totals, nil
}

// Locate gives the blocks of a visible file that hold some of [offset, offset+length), without nodes.
func (t *Tree) Locate(id hdfs.FileID, offset, length int64) (hdfs.Info, []hdfs.Located, error) {
	n, ok := t.inode(id)
	switch {
	case !ok:
		return hdfs.Info{}, nil, ofFile("locate", id, hdfs.ErrNotExist)
	case n.folder():
		return hdfs.Info{}, nil, about("locate", t.path(n), hdfs.ErrIsDir)
	case offset < 0 || length < 0:
		return hdfs.Info{}, nil, about("locate", t.path(n), hdfs.ErrInvalid)
	}
	info := n.info(t.path(n))
	length = min(length, n.size-min(offset, n.size))
	if length == 0 {
		return info, nil, nil
	}
	first, last := offset/n.blockSize, (offset+length-1)/n.blockSize
	found := make([]hdfs.Located, 0, last-first+1)
	for i := first; i <= last; i++ {
		b, _ := t.blocks.Get(block{id: n.blocks[i]})
		found = append(found, hdfs.Located{Block: b.wire(), Offset: i * n.blockSize})
	}
	return info, found, nil
}

// Block is a block of a visible or hidden file.
type Block struct {
	hdfs.Block              // its size is 0 until it is final
	File        hdfs.FileID // that it is of
	Replication int         // wanted
	Final       bool
}

// Block finds a block. One that is not there is of no file any more: its replicas are garbage.
func (t *Tree) Block(id hdfs.BlockID) (Block, bool) {
	b, ok := t.blocks.Get(block{id: id})
	if !ok {
		return Block{}, false
	}
	return t.describe(b), true
}

func (t *Tree) describe(b block) Block {
	d := Block{Block: b.wire(), File: b.file, Final: b.final()}
	if n, ok := t.inode(b.file); ok {
		d.Replication = int(n.replication)
	} else if n, ok := t.draft(b.file); ok {
		d.Replication = int(n.replication)
	}
	return d
}

// Blocks goes through all blocks with ids after one (0 = all), in the order of their ids.
func (t *Tree) Blocks(after hdfs.BlockID) iter.Seq[Block] {
	return func(yield func(Block) bool) {
		t.blocks.Ascend(block{id: after}, func(b block) bool { return b.id == after || yield(t.describe(b)) })
	}
}

// FileBlocks lists the ids of a file's blocks in order, of a hidden one too; none if there is no such file.
func (t *Tree) FileBlocks(id hdfs.FileID) []hdfs.BlockID {
	if n, ok := t.inode(id); ok {
		return slices.Clone(n.blocks)
	}
	if d, ok := t.draft(id); ok {
		return slices.Clone(d.blocks)
	}
	return nil
}

// Hidden is a file that is being written, or a sealed upload.
type Hidden struct {
	hdfs.Info        // Path is where it will be, Size that of its final blocks
	Lease     string // who has it may write
	Group     string // of an upload
	Task      string
	Overwrite bool
	Sealed    bool
}

// Hidden finds a hidden file by its id.
func (t *Tree) Hidden(id hdfs.FileID) (Hidden, bool) {
	d, ok := t.draft(id)
	if !ok {
		return Hidden{}, false
	}
	return t.hidden(d), true
}

func (t *Tree) hidden(d *draft) Hidden {
	return Hidden{t.draftInfo(d), d.lease, d.group, d.task, d.overwrite, d.sealed}
}

// HiddenFiles goes through all of them, in the order of their ids.
func (t *Tree) HiddenFiles() iter.Seq[Hidden] {
	return func(yield func(Hidden) bool) {
		t.drafts.Scan(func(d *draft) bool { return yield(t.hidden(d)) })
	}
}

// Leases goes through the leases of all files that are being written, uploads not, each once.
func (t *Tree) Leases() iter.Seq[string] { return t.namesOf(byLease) }

// HasLease says whether a file is being written under a lease.
func (t *Tree) HasLease(lease string) bool { return len(t.draftsBy(byLease, lease)) > 0 }

// Writer is the lease under which a file is being written that shall get a path; false if there is none. Uploads are none.
func (t *Tree) Writer(path string) (lease string, ok bool) {
	for _, d := range t.draftsBy(byPath, path) {
		return d.lease, true
	}
	return "", false
}

// Groups goes through the groups that have uploads, each once.
func (t *Tree) Groups() iter.Seq[string] { return t.namesOf(byGroup) }

func (t *Tree) namesOf(kind refKind) iter.Seq[string] {
	return func(yield func(string) bool) {
		last, first := "", true
		t.refs.Ascend(ref{kind: kind}, func(r ref) bool {
			if r.kind != kind {
				return false
			}
			if !first && r.name == last {
				return true
			}
			first, last = false, r.name
			return yield(r.name)
		})
	}
}

// Uploads lists a group's uploads, in the order of their ids.
func (t *Tree) Uploads(group string) []hdfs.Upload {
	var all []hdfs.Upload
	for _, d := range t.draftsBy(byGroup, group) {
		all = append(all, hdfs.Upload{ID: d.id, Path: d.path, Lease: d.lease, Group: d.group, Task: d.task, Size: t.draftSize(d), Sealed: d.sealed})
	}
	return all
}

// Published says whether a group was published, and not so long ago that it is forgotten.
func (t *Tree) Published(group string) bool { return t.published.has(group) }

// at finds what lies at a path, which it makes canonical.
func (t *Tree) at(op, path string) (string, *inode, error) {
	clean, err := hdfs.CleanPath(path)
	if err != nil {
		return path, nil, about(op, path, err)
	}
	n, err := t.find(clean)
	return clean, n, about(op, clean, err)
}

// path goes up from an inode.
func (t *Tree) path(n *inode) string {
	var names []string
	for n.id != rootID {
		names = append(names, n.name)
		n, _ = t.inode(n.parent)
	}
	slices.Reverse(names)
	return "/" + strings.Join(names, "/")
}

func join(folder, name string) string {
	if folder == "/" {
		return "/" + name
	}
	return folder + "/" + name
}

func (n *inode) info(path string) hdfs.Info {
	return hdfs.Info{
		Path: path, ID: n.id, Directory: n.folder(), Size: n.size, Replication: int(n.replication), BlockSize: n.blockSize,
		ModifiedAt: time.UnixMicro(n.modified).UTC(),
	}
}

func (t *Tree) draftInfo(d *draft) hdfs.Info {
	return hdfs.Info{Path: d.path, ID: d.id, Size: t.draftSize(d), Replication: int(d.replication), BlockSize: d.blockSize}
}

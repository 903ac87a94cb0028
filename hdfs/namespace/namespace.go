// Package namespace owns the names of one cluster's block store: the tree of folders and files, the files that
// are being written, which blocks each consists of, and their generation stamps. It is pure: no clock, no
// randomness, no I/O; the same commands give the same tree. Where replicas lie it does not know.
//
// A Tree never changes: Apply gives the next one, which shares all with it that the command left alone
// (copy-on-write B-trees). So every tree is a view of its moment that any number of goroutines may read, and a
// command that is refused has changed nothing.
//
// A file that is being written is no part of the tree: it has the path it shall get, and comes there in one
// step, when it is complete. What happens to folders in between does not touch it; those that it lacks then are
// made. So is an upload, a hidden file of a group, whose files all come in one step.
package namespace

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tidwall/btree"

	"millrace/hdfs"
)

// rootID is the root folder's.
const rootID hdfs.FileID = 1

// Tree is one cluster's name space at one moment.
type Tree struct {
	ids    *btree.BTreeG[*inode] // by id
	names  *btree.BTreeG[*inode] // by folder and name; the root is not in it
	drafts *btree.BTreeG[*draft] // by id
	refs   *btree.BTreeG[ref]    // drafts by what else they are looked up by
	blocks *btree.BTreeG[block]  // of files and of drafts, by id

	requests  memory // that were done
	published memory // groups

	last   counters
	totals hdfs.Usage // of the files and folders, without the root
}

// counters are the latest of each kind that was given out.
type counters struct {
	file  hdfs.FileID
	block hdfs.BlockID
	stamp hdfs.Stamp
	deed  uint64
}

// inode is a file or folder in the tree. It is never changed but replaced by a changed copy.
type inode struct {
	id          hdfs.FileID
	parent      hdfs.FileID
	name        string
	modified    int64 // microseconds since 1970
	size        int64
	blockSize   int64 // 0: it is a folder
	blocks      []hdfs.BlockID
	replication uint8
}

func (n *inode) folder() bool { return n.blockSize == 0 }

// draft is a file that is being written, or a sealed upload. It is never changed but replaced.
type draft struct {
	id          hdfs.FileID
	path        string
	lease       string
	group, task string // of an upload
	blocks      []hdfs.BlockID
	used        *int // how much of the array under blocks the longest list over it takes: see grown
	blockSize   int64
	before      hdfs.Stamp // of the last block, before its latest Restamp
	replication uint8
	overwrite   bool
	sealed      bool
}

// grown is a draft with one block more. Its list lies over the same array as that of the draft before, which does not see what is
// behind its end; only where another draft has gone on from there, as in a tree that was not the latest, it is copied.
func (d *draft) grown(id hdfs.BlockID) *draft {
	n := *d
	if n.used == nil || *n.used != len(n.blocks) {
		n.blocks, n.used = slices.Clip(n.blocks), new(int)
	}
	n.blocks = append(n.blocks, id)
	*n.used = len(n.blocks)
	return &n
}

// block is one block of a file or draft.
type block struct {
	id    hdfs.BlockID
	file  hdfs.FileID
	stamp hdfs.Stamp
	size  int64 // bytes; writing until it is final
}

const writing int64 = -1

func (b block) final() bool { return b.size != writing }

// ref leads from what kind says to a draft.
type ref struct {
	kind refKind
	name string
	id   hdfs.FileID
}

type refKind uint8

const (
	byPath  refKind = iota // by target
	byLease                // drafts that are no uploads
	byGroup                // uploads
)

// New returns an empty tree: the root folder.
func New() *Tree {
	o := btree.Options{NoLocks: true}
	t := &Tree{
		ids: btree.NewBTreeGOptions(func(a, b *inode) bool { return a.id < b.id }, o),
		names: btree.NewBTreeGOptions(func(a, b *inode) bool {
			return a.parent < b.parent || a.parent == b.parent && a.name < b.name
		}, o),
		drafts: btree.NewBTreeGOptions(func(a, b *draft) bool { return a.id < b.id }, o),
		refs:   btree.NewBTreeGOptions(ref.less, o),
		blocks: btree.NewBTreeGOptions(func(a, b block) bool { return a.id < b.id }, o),

		requests: newMemory(o), published: newMemory(o), last: counters{file: rootID},
	}
	t.ids.Set(&inode{id: rootID})
	return t
}

func (a ref) less(b ref) bool {
	return cmp.Or(cmp.Compare(a.kind, b.kind), strings.Compare(a.name, b.name), cmp.Compare(a.id, b.id)) < 0
}

// next is a copy to write to; t stays as it is. Nobody else may make one of t at the same time.
func (t *Tree) next() *Tree {
	n := *t
	n.ids, n.names, n.drafts, n.refs = t.ids.Copy(), t.names.Copy(), t.drafts.Copy(), t.refs.Copy()
	n.blocks, n.requests, n.published = t.blocks.Copy(), t.requests.next(), t.published.next()
	return &n
}

// skipped is more ids than are given out between a backup and the loss of what came after it.
const skipped = 1 << 32

// Skip is the tree with no id in it that may have been given out by one that is lost: for a site that goes on from a backup, or
// without the end of its log. A block must not get the id and stamp of another one that still lies on the nodes.
func (t *Tree) Skip() *Tree {
	n := t.next()
	n.last.file += skipped
	n.last.block += skipped
	n.last.stamp += skipped
	return n
}

// Below are the steps that commands are made of. Those that write are for a tree that next has made.

func (t *Tree) inode(id hdfs.FileID) (*inode, bool) { return t.ids.Get(&inode{id: id}) }

func (t *Tree) draft(id hdfs.FileID) (*draft, bool) { return t.drafts.Get(&draft{id: id}) }

// find goes down a canonical path: hdfs.ErrNotExist, or ErrNotDir if a file is in the way.
func (t *Tree) find(path string) (*inode, error) {
	n, rest, err := t.deepest(path)
	if err != nil {
		return nil, err
	}
	if rest != "" {
		return nil, hdfs.ErrNotExist
	}
	return n, nil
}

// deepest goes down a canonical path as far as it is there, and says what is left of it, without a slash before it.
func (t *Tree) deepest(path string) (n *inode, rest string, err error) {
	n, _ = t.inode(rootID)
	key := &inode{}
	for rest = path[1:]; rest != ""; {
		if !n.folder() {
			return nil, rest, hdfs.ErrNotDir
		}
		name, below, _ := strings.Cut(rest, "/")
		key.parent, key.name = n.id, name
		child, ok := t.names.Get(key)
		if !ok {
			return n, rest, nil
		}
		n, rest = child, below
	}
	return n, "", nil
}

// folder makes the folders of a canonical path that are not there yet.
func (t *Tree) folder(path string, modified int64) (*inode, error) {
	n, rest, err := t.deepest(path)
	if err != nil {
		return nil, err
	}
	if !n.folder() {
		return nil, hdfs.ErrNotDir
	}
	for rest != "" {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		t.last.file++
		n = &inode{id: t.last.file, parent: n.id, name: strings.Clone(name), modified: modified}
		t.put(n)
	}
	return n, nil
}

// split divides a canonical path that is not the root.
func split(path string) (folder, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 1)], path[i+1:]
}

// children calls yield for those of a folder with names after one, in their order.
func (t *Tree) children(of hdfs.FileID, after string, yield func(*inode) bool) {
	t.names.Ascend(&inode{parent: of, name: after}, func(n *inode) bool {
		if n.parent != of {
			return false
		}
		if n.name == after { // which "" is of no child
			return true
		}
		return yield(n)
	})
}

func (t *Tree) empty(folder hdfs.FileID) bool {
	empty := true
	t.children(folder, "", func(*inode) bool { empty = false; return false })
	return empty
}

// put adds an inode, or replaces the one with its id, folder and name.
func (t *Tree) put(n *inode) {
	if old, ok := t.ids.Set(n); ok {
		t.count(old, -1)
	}
	t.names.Set(n)
	t.count(n, 1)
}

// cut takes an inode out of the tree, and none below it.
func (t *Tree) cut(n *inode) {
	t.ids.Delete(n)
	t.names.Delete(n)
	t.count(n, -1)
}

func (t *Tree) count(n *inode, by int64) {
	if n.folder() {
		t.totals.Folders += by
		return
	}
	t.totals.Files += by
	t.totals.Bytes += by * n.size
	t.totals.Stored += by * n.size * int64(n.replication)
}

// drop deletes a file, or a folder with all below it.
func (t *Tree) drop(n *inode) {
	for _, one := range t.below(n) {
		t.cut(one)
		t.forget(one.blocks)
	}
	t.cut(n)
	t.forget(n.blocks)
}

// below lists all below a folder, each folder before what is in it.
func (t *Tree) below(n *inode) (all []*inode) {
	if !n.folder() {
		return nil
	}
	t.children(n.id, "", func(c *inode) bool { all = append(all, c); return true })
	for i := 0; i < len(all); i++ {
		if all[i].folder() {
			t.children(all[i].id, "", func(c *inode) bool { all = append(all, c); return true })
		}
	}
	return all
}

func (t *Tree) forget(blocks []hdfs.BlockID) {
	for _, id := range blocks {
		t.blocks.Delete(block{id: id})
	}
}

// target is what a draft is for: of uploads each group has its own paths.
func (d *draft) target() string {
	if d.group != "" {
		return d.group + "\x00" + d.path
	}
	return d.path
}

// refsOf is what a draft is looked up by.
func (d *draft) refsOf() [2]ref {
	kept := ref{byLease, d.lease, d.id}
	if d.group != "" {
		kept = ref{byGroup, d.group, d.id}
	}
	return [2]ref{{byPath, d.target(), d.id}, kept}
}

func (t *Tree) addDraft(d *draft) {
	t.drafts.Set(d)
	for _, r := range d.refsOf() {
		t.refs.Set(r)
	}
}

// cutDraft takes a draft out; its blocks stay.
func (t *Tree) cutDraft(d *draft) {
	t.drafts.Delete(d)
	for _, r := range d.refsOf() {
		t.refs.Delete(r)
	}
}

// dropDraft deletes a draft and its blocks.
func (t *Tree) dropDraft(d *draft) {
	t.cutDraft(d)
	t.forget(d.blocks)
}

// draftsBy lists the drafts that a kind of ref leads to, in the order of their ids.
func (t *Tree) draftsBy(kind refKind, name string) (all []*draft) {
	t.refs.Ascend(ref{kind: kind, name: name}, func(r ref) bool {
		if r.kind != kind || r.name != name {
			return false
		}
		if d, ok := t.draft(r.id); ok {
			all = append(all, d)
		}
		return true
	})
	return all
}

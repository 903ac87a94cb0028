// Package faultyfs is a file system in memory for tests of the block store: any operation fails when the test says
// so, disks are as small as it likes, and a crash forgets what a disk may forget: bytes and names that were not
// synced, each on its own, in any combination.
package faultyfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"millrace/hdfs/blockstore"
	"millrace/pkg/nodedir"
)

// ErrCrash is what every operation says from a crash until Restart.
var ErrCrash = errors.New("the machine has crashed")

// Op is an operation that is about to be done: mkdir, open, rename, remove, readdir, stat, touch, syncdir, room, lock;
// of files read, write, truncate, size, sync.
type Op struct {
	Name string
	Path string
}

// FS is the file system. Its methods may be called by many at once.
type FS struct {
	now  func() time.Time
	seed uint64

	mu      sync.Mutex
	rnd     *rand.Rand
	root    *node
	disks   map[string]int64 // capacity by folder
	locks   map[string]bool
	journal []change
	life    int // counts restarts: handles of an earlier life are dead
	crashed bool
	fail    func(Op) error
}

// node is a file or folder.
type node struct {
	folder  bool
	changed time.Time
	// What programs see, and what the disk has.
	entries, synced map[string]*node
	content, kept   []byte
	unsynced        []edit // of the content, since the last sync
}

// New makes an empty one. The seed decides what a crash forgets.
func New(seed uint64, now func() time.Time) *FS {
	return &FS{
		now:   now,
		seed:  seed,
		rnd:   rand.New(rand.NewPCG(seed, 0)),
		root:  newFolder(),
		disks: map[string]int64{},
		locks: map[string]bool{},
		fail:  func(Op) error { return nil },
	}
}

func newFolder() *node {
	return &node{folder: true, entries: map[string]*node{}, synced: map[string]*node{}}
}

// Disk makes a folder that is a disk of so many bytes; it may be called again with another size.
func (f *FS) Disk(dir string, capacity int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.disks[dir] = capacity
	at := f.root
	for name := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		if at.entries[name] == nil {
			at.entries[name] = newFolder()
			at.synced[name] = at.entries[name]
		}
		at = at.entries[name]
	}
}

// Fail has every operation ask first. An error is the operation's: a write or a sync is then done in part, all others
// not at all. ErrCrash is a crash at that moment. The function must not call the file system.
func (f *FS) Fail(fail func(Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

// Crashed says whether it waits for Restart.
func (f *FS) Crashed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.crashed
}

// begin asks whether an operation may be done. The caller has mu.
func (f *FS) begin(op, path string) error {
	if f.crashed {
		return &fs.PathError{Op: op, Path: path, Err: ErrCrash}
	}
	err := f.fail(Op{op, path})
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrCrash) {
		f.crashed = true
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// at finds a node; errors are those of a real file system.
func (f *FS) at(op, p string) (*node, error) {
	n := f.root
	for name := range strings.SplitSeq(strings.Trim(path.Clean(p), "/"), "/") {
		if name == "" {
			continue
		}
		if !n.folder {
			return nil, &fs.PathError{Op: op, Path: p, Err: syscall.ENOTDIR}
		}
		if n = n.entries[name]; n == nil {
			return nil, &fs.PathError{Op: op, Path: p, Err: syscall.ENOENT}
		}
	}
	return n, nil
}

// parent finds the folder of an entry.
func (f *FS) parent(op, p string) (*node, string, error) {
	dir, name := path.Split(path.Clean(p))
	n, err := f.at(op, dir)
	if err == nil && !n.folder {
		err = &fs.PathError{Op: op, Path: p, Err: syscall.ENOTDIR}
	}
	return n, name, err
}

func (f *FS) Mkdir(p string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("mkdir", p); err != nil {
		return err
	}
	dir, name, err := f.parent("mkdir", p)
	if err != nil {
		return err
	}
	if dir.entries[name] != nil {
		return &fs.PathError{Op: "mkdir", Path: p, Err: syscall.EEXIST}
	}
	f.change(p, named{entry{dir, name}, newFolder()})
	return nil
}

func (f *FS) OpenFile(p string, flag int) (blockstore.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("open", p); err != nil {
		return nil, err
	}
	dir, name, err := f.parent("open", p)
	if err != nil {
		return nil, err
	}
	n := dir.entries[name]
	switch {
	case n == nil && flag&os.O_CREATE == 0:
		return nil, &fs.PathError{Op: "open", Path: p, Err: syscall.ENOENT}
	case n == nil:
		n = &node{changed: f.now()}
		f.change(p, named{entry{dir, name}, n})
	case n.folder:
		return nil, &fs.PathError{Op: "open", Path: p, Err: syscall.EISDIR}
	case flag&os.O_TRUNC != 0:
		n.edit(edit{truncate: true})
	}
	return &file{fs: f, node: n, path: p, life: f.life, writable: flag&os.O_RDWR != 0}, nil
}

func (f *FS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("rename", from); err != nil {
		return err
	}
	src, old, err := f.parent("rename", from)
	if err != nil {
		return err
	}
	dst, name, err := f.parent("rename", to)
	if err != nil {
		return err
	}
	n, was := src.entries[old], dst.entries[name]
	if n == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: syscall.ENOENT}
	}
	if was != nil && len(was.entries) > 0 {
		return &fs.PathError{Op: "rename", Path: to, Err: syscall.ENOTEMPTY}
	}
	f.change(from, named{entry{src, old}, nil}, named{entry{dst, name}, n})
	return nil
}

func (f *FS) Remove(p string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("remove", p); err != nil {
		return err
	}
	dir, name, err := f.parent("remove", p)
	if err != nil {
		return err
	}
	n := dir.entries[name]
	if n == nil {
		return &fs.PathError{Op: "remove", Path: p, Err: syscall.ENOENT}
	}
	if len(n.entries) > 0 {
		return &fs.PathError{Op: "remove", Path: p, Err: syscall.ENOTEMPTY}
	}
	f.change(p, named{entry{dir, name}, nil})
	return nil
}

func (f *FS) ReadDir(p string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("readdir", p); err != nil {
		return nil, err
	}
	n, err := f.at("readdir", p)
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range n.entries {
		names = append(names, name)
	}
	return names, nil
}

func (f *FS) Stat(p string) (blockstore.Stat, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("stat", p); err != nil {
		return blockstore.Stat{}, err
	}
	n, err := f.at("stat", p)
	if err != nil {
		return blockstore.Stat{}, err
	}
	return blockstore.Stat{Size: int64(len(n.content)), Changed: n.changed}, nil
}

func (f *FS) Touch(p string, at time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("touch", p); err != nil {
		return err
	}
	n, err := f.at("touch", p)
	if err == nil {
		n.changed = at
	}
	return err
}

func (f *FS) SyncDir(p string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("syncdir", p); err != nil {
		return err
	}
	n, err := f.at("syncdir", p)
	if err == nil {
		f.commit(n)
	}
	return err
}

func (f *FS) Room(p string) (capacity, free int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("room", p); err != nil {
		return 0, 0, err
	}
	if _, err := f.at("statfs", p); err != nil {
		return 0, 0, err
	}
	capacity, free = f.room(p)
	return capacity, free, nil
}

// room is that of the disk that a path is on.
func (f *FS) room(p string) (capacity, free int64) {
	dir := f.disk(p)
	if dir == "" {
		return 1 << 40, 1 << 40
	}
	capacity = f.disks[dir]
	n, err := f.at("statfs", dir)
	if err != nil { // it has vanished
		return capacity, capacity
	}
	return capacity, max(0, capacity-n.size())
}

// disk is the folder of the disk that a path is on, "" if it is on none.
func (f *FS) disk(p string) string {
	for dir := range f.disks {
		if p == dir || strings.HasPrefix(p, dir+"/") {
			return dir
		}
	}
	return ""
}

func (n *node) size() int64 {
	all := int64(len(n.content))
	for _, e := range n.entries {
		all += e.size()
	}
	return all
}

func (f *FS) Lock(p string) (io.Closer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("lock", p); err != nil {
		return nil, err
	}
	if f.locks[p] {
		return nil, fmt.Errorf("lock %s: %w", p, nodedir.ErrInUse)
	}
	f.locks[p] = true
	return &lock{f, p, f.life}, nil
}

type lock struct {
	fs   *FS
	path string
	life int
}

func (l *lock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	if l.life == l.fs.life {
		delete(l.fs.locks, l.path)
	}
	return nil
}

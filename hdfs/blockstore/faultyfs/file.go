package faultyfs

import (
	"io"
	"io/fs"
	"slices"
	"syscall"
)

// edit is a write, or a truncation to a length.
type edit struct {
	truncate bool
	offset   int64 // or length
	data     []byte
}

func (e edit) apply(to []byte) []byte {
	end := e.offset + int64(len(e.data))
	if int64(len(to)) < end {
		to = append(to, make([]byte, end-int64(len(to)))...)
	}
	if e.truncate {
		return to[:e.offset]
	}
	copy(to[e.offset:], e.data)
	return to
}

// edit changes what programs see; the disk hears of it at a sync, or of a part of it.
func (n *node) edit(e edit) {
	n.content = e.apply(n.content)
	n.unsynced = append(n.unsynced, e)
}

// file is an open file.
type file struct {
	fs       *FS
	node     *node
	path     string
	life     int
	writable bool
	closed   bool
}

// begin has the caller hold the file system's lock until the function that it gives is called.
func (f *file) begin(op string) (func(), error) {
	f.fs.mu.Lock()
	err := f.fs.begin(op, f.path)
	switch {
	case err != nil:
	case f.life != f.fs.life:
		err = &fs.PathError{Op: op, Path: f.path, Err: ErrCrash}
	case f.closed:
		err = &fs.PathError{Op: op, Path: f.path, Err: fs.ErrClosed}
	}
	return f.fs.mu.Unlock, err
}

func (f *file) ReadAt(p []byte, offset int64) (int, error) {
	unlock, err := f.begin("read")
	defer unlock()
	if err != nil {
		return 0, err
	}
	if offset >= int64(len(f.node.content)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.content[offset:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, offset int64) (int, error) {
	unlock, err := f.begin("write")
	defer unlock()
	if !f.writable && err == nil {
		err = &fs.PathError{Op: "write", Path: f.path, Err: syscall.EBADF}
	}
	n := len(p)
	_, free := f.fs.room(f.path)
	if more := offset + int64(n) - int64(len(f.node.content)); err == nil && more > free {
		err = &fs.PathError{Op: "write", Path: f.path, Err: syscall.ENOSPC}
		n -= int(more - free)
	} else if err != nil {
		n = f.fs.rnd.IntN(n + 1)
	}
	if n > 0 && f.life == f.fs.life {
		f.node.edit(edit{offset: offset, data: slices.Clone(p[:n])})
		f.node.changed = f.fs.now()
	}
	return max(0, n), err
}

func (f *file) Truncate(size int64) error {
	unlock, err := f.begin("truncate")
	defer unlock()
	if err == nil {
		f.node.edit(edit{truncate: true, offset: size})
		f.node.changed = f.fs.now()
	}
	return err
}

func (f *file) Size() (int64, error) {
	unlock, err := f.begin("size")
	defer unlock()
	return int64(len(f.node.content)), err
}

// Sync gives the disk what is not there yet. One that fails has given it a part; the rest is never given to it again,
// though programs go on seeing it: so do real systems.
func (f *file) Sync() error {
	unlock, err := f.begin("sync")
	defer unlock()
	if f.life != f.fs.life || f.closed || (err != nil && f.fs.crashed) {
		return err
	}
	if err != nil {
		f.fs.settle(f.node)
		return err
	}
	for _, e := range f.node.unsynced {
		f.node.kept = e.apply(f.node.kept)
	}
	f.node.unsynced = nil
	return nil
}

func (f *file) Written(offset, length int64) {}

func (f *file) Forget() {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.life != f.fs.life {
		return
	}
	f.node.content = slices.Clone(f.node.kept)
	for _, e := range f.node.unsynced {
		f.node.content = e.apply(f.node.content)
	}
}

func (f *file) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return &fs.PathError{Op: "close", Path: f.path, Err: fs.ErrClosed}
	}
	f.closed = true
	return nil
}

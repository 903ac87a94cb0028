package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"

	"millrace/pkg/objectstore"
)

// Task is one file to copy, or an empty folder to make.
type Task struct {
	From, To Place
	Size     int64
	Folder   bool
}

// Plan says what copying sources to a target means. A single folder's content
// goes straight below the target (so that put -r and get -r are each other's
// inverse); with several sources each goes below the target under its own name.
// A single file goes to exactly the target, unless that is a folder.
func (f *Files) Plan(ctx context.Context, from []Place, to Place, recursive bool) ([]Task, error) {
	many := len(from) > 1
	var sources []Entry
	for _, p := range from {
		e, err := f.Stat(ctx, p)
		if err != nil {
			return nil, err
		}
		if e.Dir && !recursive {
			return nil, &FolderError{p.String()}
		}
		sources = append(sources, e)
	}
	intoFolder := many || to.folderish()
	if !intoFolder && (to.Bucket == "" || to.HDFS()) {
		e, err := f.Stat(ctx, to)
		if missing := new(NotFoundError); err != nil && !errors.As(err, &missing) {
			return nil, err
		}
		intoFolder = err == nil && e.Dir
	}
	var tasks []Task
	for i, e := range sources {
		target, err := to, error(nil)
		if e.Dir && many || !e.Dir && intoFolder {
			if target, err = to.join(from[i].base()); err != nil {
				return nil, err
			}
		}
		if e.Dir && target.within(e.Place) || !e.Dir && same(e.Place, target) {
			return nil, &OntoItselfError{From: from[i].String(), To: to.String()}
		}
		if !e.Dir {
			tasks = append(tasks, Task{From: e.Place, To: target, Size: e.Size})
			continue
		}
		if tasks, err = f.planFolder(ctx, e, target, tasks); err != nil {
			return nil, err
		}
	}
	return tasks, nil
}

// planFolder adds what copying a folder's content takes: its files, and the folders that hold nothing, itself if it is one.
func (f *Files) planFolder(ctx context.Context, folder Entry, target Place, tasks []Task) ([]Task, error) {
	empty := true
	for e, err := range f.List(ctx, folder.Place, true) {
		if err != nil {
			return nil, err
		}
		empty = false
		rel := strings.TrimSuffix(e.rel, "/")
		if !e.Dir && rel != e.rel || rel == "" {
			continue // an object store's marker of a folder
		}
		at, err := target.join(rel)
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, Task{From: e.Place, To: at, Size: e.Size, Folder: e.Dir})
	}
	if empty {
		tasks = append(tasks, Task{From: folder.Place, To: target, Folder: true})
	}
	return tasks, nil
}

// Copy carries out a plan, several files at once. done, if not nil, counts bytes. The first error stops the rest.
func (f *Files) Copy(ctx context.Context, tasks []Task, done *atomic.Int64) error {
	outer := ctx
	g, ctx := errgroup.WithContext(ctx)
	parallel := f.Parallel
	if parallel == 0 {
		parallel = 8
	}
	g.SetLimit(parallel)
	for _, t := range tasks {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if err := f.copyOne(ctx, t, done); err != nil {
				return t.about(err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return outer.Err()
}

func (f *Files) copyOne(ctx context.Context, t Task, done *atomic.Int64) error {
	if t.Folder {
		return f.makeFolder(ctx, t.To)
	}
	if same(t.From, t.To) {
		return &OntoItselfError{From: t.From.String(), To: t.To.String()}
	}
	r, err := f.Open(ctx, t.From)
	if err != nil {
		return err
	}
	defer r.Close()
	return f.Write(ctx, t.To, &counting{r, done}, t.Size)
}

func same(a, b Place) bool {
	if a.Remote() || b.Remote() {
		return a == b
	}
	x, errX := os.Stat(a.Path)
	y, errY := os.Stat(b.Path)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

type counting struct {
	io.Reader
	n *atomic.Int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if c.n != nil {
		c.n.Add(int64(n))
	}
	return n, err
}

// Open reads a file or object whole. An object that is replaced meanwhile gives an error.
func (f *Files) Open(ctx context.Context, p Place) (io.ReadCloser, error) {
	if !p.Remote() {
		r, err := os.Open(p.Path)
		if err != nil {
			return nil, localError(p, err)
		}
		return r, nil
	}
	if p.HDFS() {
		return f.openHDFS(ctx, p)
	}
	s, err := f.Store()
	if err != nil {
		return nil, err
	}
	r, err := s.Get(ctx, p.Bucket, p.Path, 0, -1, "")
	if errors.Is(err, objectstore.ErrNotExist) {
		return nil, &NotFoundError{p.String()}
	}
	if err != nil {
		return nil, f.bucketError(p, err)
	}
	return r, nil
}

// Write writes a file or object whole or not at all. size < 0 means unknown.
func (f *Files) Write(ctx context.Context, p Place, r io.Reader, size int64) error {
	if !p.Remote() {
		err := writeLocal(p.Path, r)
		if errors.Is(err, syscall.ENOTDIR) {
			return localError(p, err)
		}
		return err
	}
	if p.Path == "" {
		return fmt.Errorf("%s names no object", p)
	}
	if p.HDFS() {
		return f.writeHDFS(ctx, p, r, size)
	}
	s, err := f.Store()
	if err != nil {
		return err
	}
	return f.bucketError(p, upload(ctx, s, p.Bucket, p.Path, r, size))
}

// writeThrough writes into a device or a pipe, which must stay what it is.
func writeThrough(name string, r io.Reader) error {
	w, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}

// writeLocal writes beside the file and renames, so that a half-written one is never seen.
func writeLocal(name string, r io.Reader) (err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if at, err := filepath.EvalSymlinks(name); err == nil {
		name = at // what a link points to is written, not the link
	}
	if st, err := os.Stat(name); err == nil && !st.Mode().IsRegular() && !st.IsDir() {
		return writeThrough(name, r)
	}
	w, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			w.Close()
			os.Remove(w.Name())
		}
	}()
	if _, err = io.Copy(w, r); err != nil {
		return err
	}
	if err = w.Chmod(0o644); err != nil {
		return err
	}
	if err = w.Close(); err != nil {
		return err
	}
	return os.Rename(w.Name(), name)
}

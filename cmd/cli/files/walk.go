package files

import (
	"context"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"millrace/pkg/objectstore"
)

// List yields what a place holds: the entries of a folder (with recursive all files below it, and the folders
// that hold nothing), or the file itself.
func (f *Files) List(ctx context.Context, p Place, recursive bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if p.all {
			f.listBuckets(ctx, recursive, yield)
			return
		}
		e, err := f.Stat(ctx, p)
		if err != nil || !e.Dir {
			yield(e, err)
			return
		}
		if !p.Remote() {
			listLocal(p, recursive, yield)
			return
		}
		if p.HDFS() {
			f.listHDFS(ctx, e.Place, recursive, yield)
			return
		}
		f.listPrefix(ctx, e.Place, recursive, yield)
	}
}

func (f *Files) listBuckets(ctx context.Context, recursive bool, yield func(Entry, error) bool) {
	s, err := f.Store()
	if err != nil {
		yield(Entry{}, err)
		return
	}
	buckets, err := s.ListBuckets(ctx)
	if err != nil {
		yield(Entry{}, err)
		return
	}
	for _, b := range buckets {
		place := Place{Bucket: b.Name}
		if recursive {
			ok := true
			f.listPrefix(ctx, place, true, func(e Entry, err error) bool { ok = yield(e, err) && err == nil; return ok })
			if !ok {
				return
			}
		} else if !yield(Entry{Place: place, Dir: true, Object: objectstore.Object{ModifiedAt: b.CreatedAt}}, nil) {
			return
		}
	}
}

func (f *Files) listPrefix(ctx context.Context, p Place, recursive bool, yield func(Entry, error) bool) {
	s, err := f.Store()
	if err != nil {
		yield(Entry{}, err)
		return
	}
	for o, err := range s.List(ctx, p.Bucket, p.Path, objectstore.ListOptions{Delimiter: !recursive}) {
		if err != nil {
			yield(Entry{}, f.bucketError(p, err))
			return
		}
		if o.Key == p.Path && strings.HasSuffix(o.Key, "/") && !recursive {
			continue // the marker of the folder itself
		}
		e := Entry{Place: Place{Bucket: p.Bucket, Path: o.Key}, Object: o, Dir: o.Prefix, rel: strings.TrimPrefix(o.Key, p.Path)}
		if !yield(e, nil) {
			return
		}
	}
}

func listLocal(p Place, recursive bool, yield func(Entry, error) bool) {
	if !recursive {
		entries, err := os.ReadDir(p.Path)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for _, d := range entries {
			place := Place{Path: filepath.Join(p.Path, d.Name())}
			st, err := os.Stat(place.Path)
			if err != nil {
				if st, err = d.Info(); err != nil {
					continue // gone since it was listed
				}
			}
			if !yield(localEntry(place, st), nil) {
				return
			}
		}
		return
	}
	err := filepath.WalkDir(p.Path, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Stat(name) // through links
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() && !emptyFolder(p.Path, name, d) {
			return nil
		}
		rel, err := filepath.Rel(p.Path, name)
		if err != nil {
			return err
		}
		e := localEntry(Place{Path: name}, st)
		e.rel = filepath.ToSlash(rel)
		if !yield(e, nil) {
			return filepath.SkipAll
		}
		return nil
	})
	if err != nil {
		yield(Entry{}, err)
	}
}

// emptyFolder says whether a folder below a root is one that holds nothing.
func emptyFolder(root, name string, d fs.DirEntry) bool {
	if !d.IsDir() || name == root {
		return false
	}
	held, err := os.ReadDir(name)
	return err == nil && len(held) == 0
}

// Usage sums what lies at and below a place. Of a bucket, many listings at once.
func (f *Files) Usage(ctx context.Context, p Place) (bytes, files int64, err error) {
	if p.HDFS() {
		c, err := f.cluster(p)
		if err != nil {
			return 0, 0, err
		}
		if _, err := f.statHDFS(ctx, p); err != nil {
			return 0, 0, err
		}
		u, err := c.Usage(ctx, p.path())
		return u.Bytes, u.Files, hdfsError(ctx, c, p, err)
	}
	if p.Bucket != "" {
		e, err := f.Stat(ctx, p)
		if err != nil {
			return 0, 0, err
		}
		if !e.Dir {
			return e.Size, 1, nil
		}
		s, err := f.Store()
		if err != nil {
			return 0, 0, err
		}
		var n, sum atomic.Int64
		_, err = objectstore.ListAll(ctx, s, p.Bucket, e.Place.Path, func(o objectstore.Object) (struct{}, bool) {
			n.Add(1)
			sum.Add(o.Size)
			return struct{}{}, false
		})
		return sum.Load(), n.Load(), f.bucketError(p, err)
	}
	for e, err := range f.List(ctx, p, true) {
		if err != nil {
			return bytes, files, err
		}
		if !e.Dir {
			bytes, files = bytes+e.Size, files+1
		}
	}
	return bytes, files, nil
}

// Remove deletes a file or object, or with recursive all below a folder. It returns how many.
func (f *Files) Remove(ctx context.Context, p Place, recursive bool) (int, error) {
	n, _, err := f.Discard(ctx, p, recursive)
	return n, err
}

// Discard is Remove, and says where in a block store's trash it lies then; "" if it is gone.
func (f *Files) Discard(ctx context.Context, p Place, recursive bool) (n int, trash string, err error) {
	e, err := f.Stat(ctx, p)
	if err != nil {
		return 0, "", err
	}
	if e.Dir && !recursive {
		return 0, "", &FolderError{p.String()}
	}
	if p.HDFS() {
		return f.discard(ctx, e, recursive)
	}
	n, err = f.remove(ctx, e)
	return n, "", err
}

func (f *Files) remove(ctx context.Context, e Entry) (int, error) {
	p := e.Place
	if !p.Remote() {
		if e.Dir {
			n := 0
			for below := range f.List(ctx, p, true) {
				if !below.Dir {
					n++
				}
			}
			return n, os.RemoveAll(p.Path)
		}
		return 1, os.Remove(p.Path)
	}
	s, err := f.Store()
	if err != nil {
		return 0, err
	}
	if !e.Dir {
		return 1, s.Delete(ctx, p.Bucket, p.Path)
	}
	return removeAll(ctx, s, p.Bucket, e.Place.Path)
}

const (
	deletesAtOnce = 8
	deleteBatch   = 1000 // S3's limit
)

// removeAll deletes all below a prefix while it is being listed, and says how many.
func removeAll(ctx context.Context, s objectstore.Store, bucket, prefix string) (int, error) {
	g, ctx := errgroup.WithContext(ctx)
	keys := make(chan string, deleteBatch)
	var n atomic.Int64
	for range deletesAtOnce {
		g.Go(func() error {
			batch := make([]string, 0, deleteBatch)
			for key := range keys {
				if batch = append(batch, key); len(batch) == deleteBatch {
					if err := s.Delete(ctx, bucket, batch...); err != nil {
						return err
					}
					n.Add(int64(len(batch)))
					batch = batch[:0]
				}
			}
			err := s.Delete(ctx, bucket, batch...)
			if err == nil {
				n.Add(int64(len(batch)))
			}
			return err
		})
	}
	g.Go(func() error {
		defer close(keys)
		_, err := objectstore.ListAll(ctx, s, bucket, prefix, func(o objectstore.Object) (struct{}, bool) {
			select {
			case keys <- o.Key:
			case <-ctx.Done():
			}
			return struct{}{}, false
		})
		return err
	})
	err := g.Wait()
	return int(n.Load()), err
}

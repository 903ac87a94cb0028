package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"millrace/hdfs"
	"millrace/pkg/objectstore"
)

// Cluster is the block store of a cluster. Its paths begin with a slash, and its folders are there in their own right.
type Cluster interface {
	Stat(ctx context.Context, path string) (hdfs.Info, error)
	List(ctx context.Context, path, after string, limit int) ([]hdfs.Info, error)
	Usage(ctx context.Context, path string) (hdfs.Usage, error)
	Locate(ctx context.Context, path string, id hdfs.FileID, offset, length int64) (hdfs.Info, []hdfs.Located, error)
	Mkdir(ctx context.Context, path string) error
	Rename(ctx context.Context, from, to string) error
	// Discard removes, and says under which path in the trash it lies then; "" if it is gone.
	Discard(ctx context.Context, path string, recursive, skipTrash bool) (trash string, err error)
	SetReplication(ctx context.Context, path string, n int) error
	Create(ctx context.Context, c hdfs.Create) (Writer, error)
	Open(ctx context.Context, path string) (io.ReadCloser, error)
}

// Writer writes a file that is there when Close has said so. Abort gives it up.
type Writer interface {
	io.WriteCloser
	Abort() error
}

// listPage is how many entries of a folder are asked for at once.
const listPage = 1000

// HDFS says whether a place is in a cluster's block store.
func (p Place) HDFS() bool { return objectstore.IsHDFS(p.Bucket) }

// path is a place's path in the block store.
func (p Place) path() string { return "/" + strings.Trim(p.Path, "/") }

func (p Place) at(path string) Place {
	return Place{Bucket: p.Bucket, Path: strings.TrimPrefix(path, "/")}
}

func (f *Files) cluster(p Place) (Cluster, error) {
	if f.Cluster == nil {
		return nil, fmt.Errorf("%s: %w", p, ErrNoHDFS)
	}
	return f.Cluster(p.Bucket)
}

func (f *Files) statHDFS(ctx context.Context, p Place) (Entry, error) {
	c, err := f.cluster(p)
	if err != nil {
		return Entry{}, err
	}
	info, err := c.Stat(ctx, p.path())
	if err != nil {
		return Entry{}, hdfsError(ctx, c, p, err)
	}
	if !info.Directory && strings.HasSuffix(p.Path, "/") {
		return Entry{}, &NotFolderError{p.String(), p.at(info.Path).String()}
	}
	return hdfsEntry(p, info), nil
}

func (f *Files) openHDFS(ctx context.Context, p Place) (io.ReadCloser, error) {
	c, err := f.cluster(p)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(p.Path, "/") { // a folder, or nothing that can be read
		if _, err := f.statHDFS(ctx, p); err != nil {
			return nil, err
		}
		return nil, &FolderError{p.String()}
	}
	r, err := c.Open(ctx, p.path())
	if errors.Is(err, hdfs.ErrIsDir) {
		return nil, &FolderError{p.String()}
	}
	if err != nil {
		return nil, hdfsError(ctx, c, p, err)
	}
	return r, nil
}

func hdfsEntry(p Place, info hdfs.Info) Entry {
	at := p.at(info.Path)
	if info.Directory {
		at.Path = folderKey(at.Path)
	}
	if info.ModifiedAt.UnixMicro() == 0 { // the root, which nobody has made
		info.ModifiedAt = time.Time{}
	}
	return Entry{Place: at, Dir: info.Directory, Replication: info.Replication,
		Object: objectstore.Object{Key: at.Path, Size: info.Size, ModifiedAt: info.ModifiedAt}}
}

// listHDFS yields a folder's entries, or with recursive all files below it and the folders that hold nothing.
func (f *Files) listHDFS(ctx context.Context, root Place, recursive bool, yield func(Entry, error) bool) {
	c, err := f.cluster(root)
	if err != nil {
		yield(Entry{}, err)
		return
	}
	rel := func(e Entry) Entry {
		e.rel = strings.TrimPrefix(e.Place.Path, folderKey(strings.Trim(root.Path, "/")))
		return e
	}
	var walk func(folder hdfs.Info) bool
	walk = func(folder hdfs.Info) bool {
		path, empty := folder.Path, true
		for info, err := range entries(ctx, c, path) {
			if err != nil {
				return yield(Entry{}, hdfsError(ctx, c, root.at(path), err)) && false
			}
			empty = false
			if recursive && info.Directory {
				if !walk(info) {
					return false
				}
				continue
			}
			if !yield(rel(hdfsEntry(root, info)), nil) {
				return false
			}
		}
		if recursive && empty && path != root.path() {
			return yield(rel(hdfsEntry(root, folder)), nil)
		}
		return true
	}
	walk(hdfs.Info{Path: root.path(), Directory: true})
}

// entries yields all of a folder, page by page.
func entries(ctx context.Context, c Cluster, path string) iter.Seq2[hdfs.Info, error] {
	return func(yield func(hdfs.Info, error) bool) {
		after := ""
		for {
			page, err := c.List(ctx, path, after, listPage)
			if err != nil {
				yield(hdfs.Info{}, err)
				return
			}
			for _, info := range page {
				if !yield(info, nil) {
					return
				}
				after = info.Path[strings.LastIndexByte(info.Path, '/')+1:]
			}
			if len(page) < listPage {
				return
			}
		}
	}
}

// hiddenFrom says whether the last part of a name begins with a dot, as the trash does, where the pattern's does not: as in a shell,
// * is not meant to find that.
func hiddenFrom(pattern, name string) bool {
	parts := strings.Split(name, "/")
	last := len(parts) - 1
	if !strings.HasPrefix(parts[last], ".") {
		return false
	}
	wanted := strings.Split(pattern, "/")
	return last >= len(wanted) || !strings.HasPrefix(wanted[last], ".")
}

// expandHDFS finds the files and folders that a glob, whose first character that means something is at meta, matches.
func (f *Files) expandHDFS(ctx context.Context, p Place, meta int) ([]Place, error) {
	c, err := f.cluster(p)
	if err != nil {
		return nil, err
	}
	if _, err := c.Stat(ctx, p.path()); err == nil {
		return []Place{p}, nil
	}
	pattern := strings.TrimSuffix(p.Path, "/")
	depth := strings.Count(pattern, "/")
	deep := strings.Contains(pattern, "**")
	var found []Place
	var walk func(path string) error
	walk = func(path string) error {
		for info, err := range entries(ctx, c, path) {
			if err != nil {
				return err
			}
			at := hdfsEntry(p, info)
			name := strings.TrimSuffix(at.Place.Path, "/")
			if hiddenFrom(pattern, name) {
				continue
			}
			if doublestar.MatchUnvalidated(pattern, name) {
				found = append(found, at.Place)
				continue // with all below it
			}
			if at.Dir && (deep || strings.Count(name, "/") < depth) {
				if err := walk(info.Path); err != nil {
					return err
				}
			}
		}
		return nil
	}
	root := p.at(p.Path[:strings.LastIndexByte(p.Path[:meta], '/')+1])
	if err := walk(root.path()); err != nil && !errors.Is(err, hdfs.ErrNotExist) {
		return nil, err
	}
	if len(found) == 0 {
		return nil, &NotFoundError{p.String()}
	}
	return found, nil
}

// writeHDFS writes a file whole or not at all, over one that is there.
func (f *Files) writeHDFS(ctx context.Context, p Place, r io.Reader, size int64) error {
	c, err := f.cluster(p)
	if err != nil {
		return err
	}
	w, err := c.Create(ctx, hdfs.Create{Path: p.path(), Replication: f.Replication, BlockSize: hdfs.BlockSizeFor(size, f.BlockSize), Overwrite: true})
	if err != nil {
		return hdfsError(ctx, c, p, err)
	}
	n, err := io.Copy(w, r)
	if err == nil && size >= 0 && n != size {
		err = fmt.Errorf("it has %d bytes, %d were expected: it changed while it was read", n, size)
	}
	if err != nil {
		return errors.Join(err, w.Abort())
	}
	return w.Close()
}

// Mkdir makes a folder and those above it.
func (f *Files) Mkdir(ctx context.Context, p Place) error {
	c, err := f.cluster(p)
	if err != nil {
		return err
	}
	return hdfsError(ctx, c, p, c.Mkdir(ctx, p.path()))
}

// Rename moves within one block store, in one step: into the target if that is a folder.
func (f *Files) Rename(ctx context.Context, from, to Place) (Place, error) {
	c, err := f.cluster(from)
	if err != nil {
		return to, err
	}
	source, err := f.Stat(ctx, from)
	if err != nil {
		return to, err
	}
	if what := stays(from.path()); what != "" {
		return to, &StaysError{from.String(), what}
	}
	if at, statErr := c.Stat(ctx, to.path()); statErr == nil && at.Directory {
		if to, err = to.join(from.base()); err != nil {
			return to, err
		}
	} else if to.folderish() && !source.Dir {
		if to, err = to.join(from.base()); err != nil {
			return to, err
		}
	}
	if source.Dir && to.within(source.Place) || !source.Dir && from.path() == to.path() {
		return to, &OntoItselfError{From: from.String(), To: to.String(), Move: true}
	}
	switch err := c.Rename(ctx, from.path(), to.path()); {
	case errors.Is(err, hdfs.ErrExist):
		return to, &ExistsError{to.String()}
	case errors.Is(err, hdfs.ErrNotDir): // the source was found
		return to, hdfsError(ctx, c, to, err)
	default:
		return to, hdfsError(ctx, c, from, err)
	}
}

// discard removes from a block store. It says how many files, and under which place in the trash they lie; ""
// if they are gone.
func (f *Files) discard(ctx context.Context, e Entry, recursive bool) (n int, trash string, err error) {
	c, err := f.cluster(e.Place)
	if err != nil {
		return 0, "", err
	}
	if what := stays(e.Place.path()); what != "" && e.Place.path() != hdfs.Trash { // that is how the trash is emptied
		return 0, "", &StaysError{e.Place.String(), what}
	}
	u, err := c.Usage(ctx, e.Place.path())
	if err != nil {
		return 0, "", hdfsError(ctx, c, e.Place, err)
	}
	at, err := c.Discard(ctx, e.Place.path(), recursive, f.SkipTrash)
	if err != nil {
		return 0, "", hdfsError(ctx, c, e.Place, err)
	}
	if at != "" {
		trash = e.Place.at(at).String()
	}
	return int(u.Files), trash, nil
}

// Locate describes a file of a block store with its blocks.
func (f *Files) Locate(ctx context.Context, p Place) (hdfs.Info, []hdfs.Located, error) {
	c, err := f.cluster(p)
	if err != nil {
		return hdfs.Info{}, nil, err
	}
	var blocks []hdfs.Located
	for offset := int64(0); ; {
		info, page, err := c.Locate(ctx, p.path(), 0, offset, -1)
		if err != nil {
			return hdfs.Info{}, nil, hdfsError(ctx, c, p, err)
		}
		blocks = append(blocks, page...)
		if len(page) == 0 {
			return info, blocks, nil
		}
		last := page[len(page)-1]
		if offset = last.Offset + last.Size; offset >= info.Size {
			return info, blocks, nil
		}
	}
}

// SetReplication sets on how many nodes a file's blocks, or those of all files below a folder, shall lie.
func (f *Files) SetReplication(ctx context.Context, p Place, n int, recursive bool) (files int, err error) {
	e, err := f.Stat(ctx, p)
	if err != nil {
		return 0, err
	}
	if e.Dir && !recursive {
		return 0, &FolderError{p.String()}
	}
	c, err := f.cluster(p)
	if err != nil {
		return 0, err
	}
	for file, err := range f.List(ctx, p, recursive) {
		if err != nil {
			return files, err
		}
		if file.Dir {
			continue
		}
		if err := c.SetReplication(ctx, file.Place.path(), n); err != nil {
			return files, hdfsError(ctx, c, file.Place, err)
		}
		files++
	}
	return files, nil
}

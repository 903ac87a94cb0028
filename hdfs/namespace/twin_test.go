package namespace

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"millrace/hdfs"
)

// twin is a name space as one would write it down naively: a map of paths, another of hidden files, and a walk through
// all of them for whatever is asked.
type twin struct {
	paths  map[string]*twinFile
	hidden map[hdfs.FileID]*twinFile
	done   map[string]bool

	file  hdfs.FileID
	block hdfs.BlockID
	stamp hdfs.Stamp
}

type twinFile struct {
	Create hdfs.Create // with what is not said filled in
	id     hdfs.FileID
	folder bool
	blocks []hdfs.Block // of size -1: being written
	before hdfs.Stamp   // of the last block, before it was restamped
	sealed bool
	at     time.Time
}

func newTwin() *twin {
	return &twin{
		paths:  map[string]*twinFile{"/": {id: 1, folder: true, at: time.UnixMicro(0).UTC()}},
		hidden: map[hdfs.FileID]*twinFile{}, done: map[string]bool{}, file: 1,
	}
}

func (f *twinFile) size() (sum int64) {
	for _, b := range f.blocks {
		sum += max(0, b.Size)
	}
	return sum
}

func (f *twinFile) last() *hdfs.Block {
	if len(f.blocks) == 0 {
		return nil
	}
	return &f.blocks[len(f.blocks)-1]
}

func (f *twinFile) info(path string) hdfs.Info {
	return hdfs.Info{Path: path, ID: f.id, Directory: f.folder, Size: f.size(), Replication: f.Create.Replication, BlockSize: f.Create.BlockSize, ModifiedAt: f.at}
}

// above are the folders that a path lies in, from the root on.
func above(path string) []string {
	all := []string{"/"}
	for i := 1; i < len(path); i++ {
		if path[i] == '/' {
			all = append(all, path[:i])
		}
	}
	return all
}

func inside(path, folder string) bool {
	return path != folder && strings.HasPrefix(path, strings.TrimSuffix(folder, "/")+"/")
}

// below lists what lies below a path.
func (w *twin) below(path string) (all []string) {
	for p := range w.paths {
		if inside(p, path) {
			all = append(all, p)
		}
	}
	return all
}

func (w *twin) visible(id hdfs.FileID) (string, *twinFile) {
	for p, f := range w.paths {
		if f.id == id {
			return p, f
		}
	}
	return "", nil
}

// find looks for what is at a path.
func (w *twin) find(path string) (*twinFile, error) {
	if err := w.noFileAbove(path); err != nil {
		return nil, err
	}
	if f := w.paths[path]; f != nil {
		return f, nil
	}
	return nil, hdfs.ErrNotExist
}

func (w *twin) noFileAbove(path string) error {
	for _, p := range above(path) {
		if f := w.paths[p]; f != nil && !f.folder && p != path {
			return hdfs.ErrNotDir
		}
	}
	return nil
}

// free says whether a file may come to a path.
func (w *twin) free(path string, overwrite bool) error {
	f, err := w.find(path)
	switch {
	case err == hdfs.ErrNotExist:
		return nil
	case err != nil:
		return err
	case f.folder:
		return hdfs.ErrIsDir
	case !overwrite:
		return hdfs.ErrExist
	}
	return nil
}

func (w *twin) mkdirs(path string, at time.Time) error {
	for _, p := range append(above(path), path) {
		if f := w.paths[p]; f != nil && !f.folder {
			return hdfs.ErrNotDir
		}
	}
	for _, p := range append(above(path), path) {
		if w.paths[p] == nil {
			w.file++
			w.paths[p] = &twinFile{id: w.file, folder: true, at: at}
		}
	}
	return nil
}

func (w *twin) delete(path string) {
	for _, p := range w.below(path) {
		delete(w.paths, p)
	}
	delete(w.paths, path)
}

// appear makes a hidden file visible.
func (w *twin) appear(f *twinFile, at time.Time) {
	path := f.Create.Path
	folders := above(path)
	_ = w.mkdirs(folders[len(folders)-1], at)
	delete(w.hidden, f.id)
	f.at = at
	w.paths[path] = f
}

func (w *twin) hiddenByID() []*twinFile {
	return slices.SortedFunc(maps.Values(w.hidden), func(a, b *twinFile) int { return cmp.Compare(a.id, b.id) })
}

func (w *twin) uploads(group string) (all []*twinFile) {
	for _, f := range w.hiddenByID() {
		if f.Create.Group == group && group != "" {
			all = append(all, f)
		}
	}
	return all
}

func (w *twin) usage(path string) (u hdfs.Usage) {
	for p, f := range w.paths {
		if p != path && !inside(p, path) || p == "/" {
			continue
		}
		if f.folder {
			u.Folders++
			continue
		}
		u.Files++
		u.Bytes += f.size()
		u.Stored += f.size() * int64(f.Create.Replication)
	}
	return u
}

// inOrder lists paths as a walk goes: by the names of their parts.
func inOrder(paths []string) []string {
	return slices.SortedFunc(slices.Values(paths), func(a, b string) int {
		return slices.Compare(strings.Split(a[1:], "/"), strings.Split(b[1:], "/"))
	})
}

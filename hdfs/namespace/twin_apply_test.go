package namespace

import (
	"cmp"
	"fmt"
	"strings"

	"millrace/hdfs"
)

// apply says what a command must give.
func (w *twin) apply(c Command) (any, error) {
	switch c := c.(type) {
	case CreateFile:
		return result(w.create(c))
	case AddBlock:
		return result(w.addBlock(c))
	case Restamp:
		return result(w.restamp(c))
	case CompleteFile:
		return result(w.complete(c))
	case AbandonFile:
		f := w.hidden[c.File]
		if _, seen := w.visible(c.File); seen != nil || f != nil && (f.Create.Lease != c.Lease || f.sealed) {
			return nil, hdfs.ErrLease
		}
		delete(w.hidden, c.File)
		return nil, nil
	case ExpireLeases:
		var ended []hdfs.FileID
		for _, lease := range c.Leases {
			for _, f := range w.hiddenByID() {
				if f.Create.Group == "" && f.Create.Lease == lease {
					ended = append(ended, f.id)
					delete(w.hidden, f.id)
				}
			}
		}
		return ended, nil
	case Mkdir:
		path, err := hdfs.CleanPath(c.Path)
		if err != nil {
			return nil, err
		}
		return nil, w.mkdirs(path, c.At)
	case Rename:
		return nil, w.rename(c)
	case Remove:
		return result(w.remove(c))
	case SetReplication:
		path, err := hdfs.CleanPath(c.Path)
		if err != nil {
			return nil, err
		}
		f, err := w.find(path)
		switch {
		case err != nil:
			return nil, err
		case f.folder:
			return nil, hdfs.ErrIsDir
		case c.Replication < 1 || c.Replication > 64:
			return nil, hdfs.ErrInvalid
		}
		f.Create.Replication = c.Replication
		return nil, nil
	case Publish:
		return nil, w.publish(c)
	case AbortUploads:
		if c.Group == "" {
			return nil, hdfs.ErrInvalid
		}
		for _, f := range w.uploads(c.Group) {
			named := len(c.Files) == 0
			for _, id := range c.Files {
				named = named || id == f.id
			}
			if named {
				delete(w.hidden, f.id)
			}
		}
		return nil, nil
	}
	return nil, hdfs.ErrInvalid
}

func (w *twin) create(c CreateFile) (hdfs.FileID, error) {
	path, err := hdfs.CleanPath(c.Path)
	switch {
	case err != nil:
		return 0, err
	case path == "/":
		return 0, hdfs.ErrIsDir
	}
	want := hdfs.Create{
		Path: path, Lease: c.Lease, Replication: cmp.Or(c.Replication, 3), BlockSize: cmp.Or(c.BlockSize, 128<<20),
		Overwrite: c.Overwrite, Group: c.Group, Task: c.Task,
	}
	if c.Lease == "" || c.Task != "" && c.Group == "" || want.Replication < 1 || want.Replication > 64 || want.BlockSize < 64<<10 || want.BlockSize > 4<<30 || want.BlockSize%(64<<10) != 0 {
		return 0, hdfs.ErrInvalid
	}
	if c.Group != "" && w.done["group "+c.Group] {
		return 0, hdfs.ErrLease
	}
	var same hdfs.FileID
	for _, f := range w.hiddenByID() {
		if f.Create.Path != path || f.Create.Group != c.Group {
			continue
		}
		if f.Create == want && len(f.blocks) == 0 && !f.sealed {
			same = cmp.Or(same, f.id)
		} else if c.Group == "" {
			return 0, hdfs.ErrBusy
		}
	}
	if c.Group == "" {
		if err := w.free(path, c.Overwrite); err != nil {
			return 0, err
		}
	}
	if same != 0 {
		return same, nil
	}
	w.file++
	w.hidden[w.file] = &twinFile{Create: want, id: w.file}
	return w.file, nil
}

// writable finds the file that a lease may write to.
func (w *twin) writable(id hdfs.FileID, lease string) (*twinFile, error) {
	f := w.hidden[id]
	if f == nil || f.sealed || f.Create.Lease != lease {
		return nil, hdfs.ErrLease
	}
	return f, nil
}

// fits says whether a block may be the last one of a file that is being written.
func (f *twinFile) fits(b *hdfs.Block) error {
	last := f.last()
	switch {
	case last == nil && b == nil:
		return nil
	case last == nil || b == nil || last.ID != b.ID:
		return hdfs.ErrInvalid
	case last.Stamp != b.Stamp:
		return hdfs.ErrStale
	case b.Size < 1 || b.Size > f.Create.BlockSize:
		return hdfs.ErrInvalid
	}
	return nil
}

func (f *twinFile) located() hdfs.Located {
	b := *f.last()
	b.Size = 0
	return hdfs.Located{Block: b, Offset: int64(len(f.blocks)-1) * f.Create.BlockSize}
}

func (w *twin) addBlock(c AddBlock) (hdfs.Located, error) {
	f, err := w.writable(c.File, c.Lease)
	if err != nil {
		return hdfs.Located{}, err
	}
	n := len(f.blocks)
	again := n == 1 && c.Prev == nil || n > 1 && c.Prev != nil && f.blocks[n-2] == *c.Prev
	if again {
		return f.located(), nil
	}
	if err := f.fits(c.Prev); err != nil {
		return hdfs.Located{}, err
	}
	if c.Prev != nil {
		if c.Prev.Size != f.Create.BlockSize {
			return hdfs.Located{}, hdfs.ErrInvalid
		}
		f.last().Size = c.Prev.Size
	}
	w.block++
	w.stamp++
	f.blocks, f.before = append(f.blocks, hdfs.Block{ID: w.block, Stamp: w.stamp, Size: -1}), 0
	return f.located(), nil
}

func (w *twin) restamp(c Restamp) (hdfs.Located, error) {
	f, err := w.writable(c.File, c.Lease)
	if err != nil {
		return hdfs.Located{}, err
	}
	switch last := f.last(); {
	case last == nil || last.ID != c.Block.ID:
		return hdfs.Located{}, hdfs.ErrInvalid
	case f.before != 0 && f.before == c.Block.Stamp:
	case last.Stamp != c.Block.Stamp:
		return hdfs.Located{}, hdfs.ErrStale
	default:
		w.stamp++
		f.before, last.Stamp = last.Stamp, w.stamp
	}
	return f.located(), nil
}

func (w *twin) complete(c CompleteFile) (hdfs.Info, error) {
	path, was := w.visible(c.File)
	if f := w.hidden[c.File]; f != nil && f.sealed && f.Create.Lease == c.Lease {
		path, was = f.Create.Path, f
	}
	if was != nil && !was.folder && fmt.Sprint(was.last()) == fmt.Sprint(c.Last) {
		return was.info(path), nil
	}
	f, err := w.writable(c.File, c.Lease)
	if err != nil {
		return hdfs.Info{}, err
	}
	if err := f.fits(c.Last); err != nil {
		return hdfs.Info{}, err
	}
	if f.Create.Group == "" {
		if err := w.free(f.Create.Path, f.Create.Overwrite); err != nil {
			return hdfs.Info{}, err
		}
	}
	if c.Last != nil {
		f.last().Size = c.Last.Size
	}
	if f.Create.Group != "" {
		f.sealed = true
		return f.info(f.Create.Path), nil
	}
	w.appear(f, c.At)
	return f.info(f.Create.Path), nil
}

func (w *twin) once(request string) bool {
	if request == "" {
		return false
	}
	return w.done["request "+request]
}

func (w *twin) rename(c Rename) error {
	from, err := hdfs.CleanPath(c.From)
	if err != nil {
		return err
	}
	to, err := hdfs.CleanPath(c.To)
	if err != nil {
		return err
	}
	if w.once(c.Request) {
		return nil
	}
	if _, err := w.find(from); err != nil {
		return err
	}
	if from == "/" || inside(to, from) {
		return hdfs.ErrInvalid
	}
	if _, err := w.find(to); err != hdfs.ErrNotExist {
		return cmp.Or(err, hdfs.ErrExist)
	}
	folders := above(to)
	_ = w.mkdirs(folders[len(folders)-1], c.At)
	for _, p := range append(w.below(from), from) {
		w.paths[to+strings.TrimPrefix(p, from)] = w.paths[p]
		delete(w.paths, p)
	}
	w.done["request "+c.Request] = true
	return nil
}

func (w *twin) remove(c Remove) (hdfs.Usage, error) {
	path, err := hdfs.CleanPath(c.Path)
	switch {
	case err != nil:
		return hdfs.Usage{}, err
	case path == "/":
		return hdfs.Usage{}, hdfs.ErrInvalid
	case w.once(c.Request):
		return hdfs.Usage{}, nil
	}
	f, err := w.find(path)
	switch {
	case err != nil:
		return hdfs.Usage{}, err
	case c.File != 0 && c.File != f.id:
		return hdfs.Usage{}, hdfs.ErrChanged
	}
	if !c.Recursive && len(w.below(path)) > 0 {
		return hdfs.Usage{}, hdfs.ErrNotEmpty
	}
	gone := w.usage(path)
	w.delete(path)
	w.done["request "+c.Request] = true
	return gone, nil
}

func (w *twin) publish(c Publish) error {
	prefix, err := hdfs.CleanPath(c.Prefix)
	switch {
	case err != nil:
		return err
	case w.done["group "+c.Group]:
		return nil
	case c.Group == "" || prefix == "/" || len(w.uploads(c.Group)) != c.Count:
		return hdfs.ErrInvalid
	}
	uploads := w.uploads(c.Group)
	var clash error // told of after what is wrong with the folder
	for i, f := range uploads {
		if !f.sealed || !inside(f.Create.Path, prefix) {
			return hdfs.ErrInvalid
		}
		for _, other := range uploads[:i] {
			if a, b := f.Create.Path, other.Create.Path; a == b || inside(a, b) || inside(b, a) {
				clash = hdfs.ErrInvalid
			}
		}
	}
	if err := cmp.Or(w.clearable(prefix, c.Replace), clash); err != nil {
		return err
	}
	for _, p := range w.below(prefix) {
		delete(w.paths, p)
	}
	_ = w.mkdirs(prefix, c.At)
	for _, f := range uploads {
		w.appear(f, c.At)
	}
	w.done["group "+c.Group] = true
	return nil
}

// clearable says whether there may be nothing else below a prefix.
func (w *twin) clearable(prefix string, replace bool) error {
	if err := w.noFileAbove(prefix); err != nil {
		return err
	}
	if f := w.paths[prefix]; f != nil && !f.folder {
		return hdfs.ErrNotDir
	}
	if len(w.below(prefix)) > 0 && !replace {
		return hdfs.ErrNotEmpty
	}
	return nil
}

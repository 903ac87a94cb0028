package client

import (
	"context"
	"io"
	"io/fs"
	"path"
	"time"

	"millrace/hdfs"
)

// FS is the files below a folder as an fs.FS, to read. The context is that of all requests.
func (f *Files) FS(ctx context.Context, root string) (fs.FS, error) {
	info, err := f.Stat(ctx, root)
	if err != nil {
		return nil, err
	}
	if !info.Directory {
		return nil, f.named("open", info.Path, hdfs.ErrNotDir)
	}
	return &fsys{ctx, f, info.Path}, nil
}

type fsys struct {
	ctx   context.Context
	files *Files
	root  string
}

var (
	_ fs.ReadDirFS  = (*fsys)(nil)
	_ fs.StatFS     = (*fsys)(nil)
	_ fs.ReadFileFS = (*fsys)(nil)
	_ fs.SubFS      = (*fsys)(nil)
)

// path is that of a name in the file system.
func (s *fsys) path(op, name string) (string, error) {
	if !fs.ValidPath(name) {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	p, err := hdfs.CleanPath(path.Join(s.root, name))
	if err != nil {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist} // no file can have such a name
	}
	return p, nil
}

// failed has an error name what it is about as fs does.
func failed(op, name string, err error) error {
	if known, ok := err.(*hdfs.PathError); ok {
		err = known.Err
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func (s *fsys) Open(name string) (fs.File, error) {
	info, err := s.stat("open", name)
	if err != nil {
		return nil, err
	}
	if info.Directory {
		return &fsFolder{fsys: s, name: name, info: info}, nil
	}
	r, err := s.files.Open(s.ctx, info.Path)
	if err != nil {
		return nil, failed("open", name, err)
	}
	return &fsFile{r, name}, nil
}

func (s *fsys) stat(op, name string) (hdfs.Info, error) {
	p, err := s.path(op, name)
	if err != nil {
		return hdfs.Info{}, err
	}
	info, err := s.files.Stat(s.ctx, p)
	if gone(err) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return info, failed(op, name, err)
	}
	return info, nil
}

func (s *fsys) Stat(name string) (fs.FileInfo, error) {
	info, err := s.stat("stat", name)
	if err != nil {
		return nil, err
	}
	return fileInfo{info, path.Base(name)}, nil
}

func (s *fsys) ReadDir(name string) ([]fs.DirEntry, error) {
	info, err := s.stat("readdir", name)
	if err != nil {
		return nil, err
	}
	if !info.Directory {
		return nil, failed("readdir", name, hdfs.ErrNotDir)
	}
	return s.entries(info.Path, name, "", 0)
}

// entries lists a folder after a name, up to n entries if n > 0.
func (s *fsys) entries(p, name, after string, n int) ([]fs.DirEntry, error) {
	out := []fs.DirEntry{}
	size := page
	if n > 0 {
		size = min(n, page)
	}
	for info, err := range s.files.list(s.ctx, p, after, size) {
		if err != nil {
			return out, failed("readdir", name, err)
		}
		out = append(out, fs.FileInfoToDirEntry(fileInfo{info, base(info.Path)}))
		if len(out) == n {
			break
		}
	}
	return out, nil
}

func (s *fsys) ReadFile(name string) ([]byte, error) {
	p, err := s.path("read", name)
	if err != nil {
		return nil, err
	}
	r, err := s.files.Open(s.ctx, p)
	if gone(err) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, failed("read", name, err)
	}
	defer r.Close()
	data := make([]byte, r.size())
	if _, err := io.ReadFull(r, data); err != nil && err != io.EOF {
		return nil, failed("read", name, err)
	}
	return data, nil
}

func (s *fsys) Sub(dir string) (fs.FS, error) {
	p, err := s.path("sub", dir)
	if err != nil {
		return nil, err
	}
	return &fsys{s.ctx, s.files, p}, nil
}

// fsFile is an open one.
type fsFile struct {
	*Reader
	name string
}

func (f *fsFile) Stat() (fs.FileInfo, error) { return fileInfo{f.Info(), path.Base(f.name)}, nil }

// fsFolder is an open one.
type fsFolder struct {
	fsys  *fsys
	name  string
	info  hdfs.Info
	after string // the last name that was given
	over  bool
}

func (f *fsFolder) Stat() (fs.FileInfo, error) { return fileInfo{f.info, path.Base(f.name)}, nil }
func (f *fsFolder) Close() error               { f.over = true; return nil }
func (f *fsFolder) Read([]byte) (int, error)   { return 0, failed("read", f.name, hdfs.ErrIsDir) }

// ReadDir is fs.ReadDirFile's.
func (f *fsFolder) ReadDir(n int) ([]fs.DirEntry, error) {
	if f.over {
		return nil, failed("readdir", f.name, fs.ErrClosed)
	}
	entries, err := f.fsys.entries(f.info.Path, f.name, f.after, n)
	if len(entries) > 0 {
		f.after = entries[len(entries)-1].Name()
	}
	if err == nil && n > 0 && len(entries) == 0 {
		err = io.EOF
	}
	return entries, err
}

// fileInfo is an hdfs.Info for package fs; Sys gives it.
type fileInfo struct {
	info hdfs.Info
	name string
}

func (i fileInfo) Name() string       { return i.name }
func (i fileInfo) Size() int64        { return i.info.Size }
func (i fileInfo) ModTime() time.Time { return i.info.ModifiedAt }
func (i fileInfo) IsDir() bool        { return i.info.Directory }
func (i fileInfo) Sys() any           { return i.info }

func (i fileInfo) Mode() fs.FileMode {
	if i.info.Directory {
		return fs.ModeDir | 0o555
	}
	return 0o444
}

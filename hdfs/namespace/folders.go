package namespace

import (
	"fmt"
	"strings"

	"millrace/hdfs"
)

func (t *Tree) mkdir(c Mkdir) error {
	path, err := hdfs.CleanPath(c.Path)
	if err != nil {
		return about("mkdir", c.Path, err)
	}
	_, err = t.folder(path, c.At.UnixMicro())
	return about("mkdir", path, err)
}

// once says whether what a request asks for was done before; it remembers it, if it gets done.
func (t *Tree) once(request string) (done bool, err error) {
	if len(request) > maxWord {
		return false, fmt.Errorf("%w: the name of a request has %d bytes, more than %d", hdfs.ErrInvalid, len(request), maxWord)
	}
	if request == "" {
		return false, nil
	}
	if t.requests.has(request) {
		return true, nil
	}
	t.remember(t.requests, request)
	return false, nil
}

func (t *Tree) rename(c Rename) error {
	from, err := hdfs.CleanPath(c.From)
	if err != nil {
		return about("rename", c.From, err)
	}
	to, err := hdfs.CleanPath(c.To)
	if err != nil {
		return about("rename", c.To, err)
	}
	if done, err := t.once(c.Request); done || err != nil {
		return about("rename", from, err)
	}
	n, err := t.find(from)
	if err != nil {
		return about("rename", from, err)
	}
	if err := t.mayMove(n, from, to); err != nil {
		return about("rename", from, err)
	}
	folder, name := split(to)
	parent, err := t.folder(folder, c.At.UnixMicro())
	if err != nil {
		return about("rename", to, err)
	}
	moved := *n
	moved.parent, moved.name = parent.id, strings.Clone(name)
	t.cut(n)
	t.put(&moved)
	return nil
}

// mayMove says whether an inode may come to another path.
func (t *Tree) mayMove(n *inode, from, to string) error {
	switch {
	case n.id == rootID:
		return fmt.Errorf("%w: the root stays where it is", hdfs.ErrInvalid)
	case to == from:
		return hdfs.ErrExist
	case strings.HasPrefix(to, from+"/"):
		return fmt.Errorf("%w: %s lies below it", hdfs.ErrInvalid, to)
	}
	_, rest, err := t.deepest(to)
	if err == nil && rest == "" {
		err = hdfs.ErrExist
	}
	return about("rename", to, err)
}

func (t *Tree) remove(c Remove) (gone hdfs.Usage, err error) {
	path, err := hdfs.CleanPath(c.Path)
	if err != nil {
		return gone, about("remove", c.Path, err)
	}
	if path == "/" {
		return gone, about("remove", path, fmt.Errorf("%w: the root cannot go", hdfs.ErrInvalid))
	}
	if done, err := t.once(c.Request); done || err != nil {
		return gone, about("remove", path, err)
	}
	n, err := t.find(path)
	if err != nil {
		return gone, about("remove", path, err)
	}
	if c.File != 0 && c.File != n.id {
		return gone, about("remove", path, hdfs.ErrChanged)
	}
	if n.folder() && !c.Recursive && !t.empty(n.id) {
		return gone, about("remove", path, hdfs.ErrNotEmpty)
	}
	before := t.totals
	t.drop(n)
	return less(before, t.totals), nil
}

func less(a, b hdfs.Usage) hdfs.Usage {
	return hdfs.Usage{Bytes: a.Bytes - b.Bytes, Files: a.Files - b.Files, Folders: a.Folders - b.Folders, Stored: a.Stored - b.Stored}
}

func (t *Tree) setReplication(c SetReplication) error {
	const op = "set replication"
	path, err := hdfs.CleanPath(c.Path)
	if err != nil {
		return about(op, c.Path, err)
	}
	n, err := t.find(path)
	if err != nil {
		return about(op, path, err)
	}
	if n.folder() {
		return about(op, path, hdfs.ErrIsDir)
	}
	changed := *n
	if changed.replication, err = replication(c.Replication); err != nil {
		return about(op, path, err)
	}
	t.put(&changed)
	return nil
}

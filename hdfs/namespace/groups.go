package namespace

import (
	"fmt"
	"strings"

	"millrace/hdfs"
)

func (t *Tree) publish(c Publish) error {
	const op = "publish"
	prefix, err := hdfs.CleanPath(c.Prefix)
	if err != nil {
		return about(op, c.Prefix, err)
	}
	if t.published.has(c.Group) {
		return nil
	}
	uploads := t.draftsBy(byGroup, c.Group)
	if err := publishable(c, prefix, uploads); err != nil {
		return about(op, prefix, err)
	}
	if err := t.clear(prefix, c.Replace); err != nil {
		return about(op, prefix, err)
	}
	at := c.At.UnixMicro()
	if _, err := t.folder(prefix, at); err != nil {
		return about(op, prefix, err)
	}
	for _, d := range uploads {
		if _, err := t.place(&draft{path: d.path}); err != nil {
			return about(op, d.path, fmt.Errorf("%w: upload %d and another of its group: %v", hdfs.ErrInvalid, d.id, err)) // it is the command that is wrong
		}
		t.cutDraft(d)
		if _, err := t.appear(d, at); err != nil {
			return about(op, d.path, err)
		}
	}
	t.remember(t.published, c.Group)
	return nil
}

// publishable says whether a group's uploads are what is to be published.
func publishable(c Publish, prefix string, uploads []*draft) error {
	if c.Group == "" || len(c.Group) > maxWord || prefix == "/" {
		return fmt.Errorf("%w: it needs a group, and a folder that is not the root", hdfs.ErrInvalid)
	}
	if len(uploads) != c.Count {
		return fmt.Errorf("%w: group %q has %d uploads, not %d", hdfs.ErrInvalid, c.Group, len(uploads), c.Count)
	}
	for _, d := range uploads {
		if !d.sealed {
			return fmt.Errorf("%w: upload %d of task %q is not sealed", hdfs.ErrInvalid, d.id, d.task)
		}
		if !strings.HasPrefix(d.path, prefix+"/") {
			return fmt.Errorf("%w: upload %d of task %q is for %s", hdfs.ErrInvalid, d.id, d.task, d.path)
		}
	}
	return nil
}

// clear sees to it that there is nothing below a path.
func (t *Tree) clear(path string, replace bool) error {
	n, rest, err := t.deepest(path)
	switch {
	case err != nil:
		return err
	case !n.folder():
		return hdfs.ErrNotDir
	case rest != "" || t.empty(n.id):
		return nil
	case !replace:
		return hdfs.ErrNotEmpty
	}
	var inside []*inode
	t.children(n.id, "", func(c *inode) bool { inside = append(inside, c); return true })
	for _, c := range inside {
		t.drop(c)
	}
	return nil
}

func (t *Tree) abortUploads(c AbortUploads) error {
	if c.Group == "" {
		return fmt.Errorf("abort uploads: %w: it needs a group", hdfs.ErrInvalid)
	}
	if len(c.Files) == 0 {
		for _, d := range t.draftsBy(byGroup, c.Group) {
			t.dropDraft(d)
		}
		return nil
	}
	for _, id := range c.Files {
		if d, ok := t.draft(id); ok && d.group == c.Group {
			t.dropDraft(d)
		}
	}
	return nil
}

package clienttest

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"millrace/hdfs"
)

// Stat is client.Names'.
func (c *Cluster) Stat(_ context.Context, p string) (info hdfs.Info, err error) {
	err = c.do("Stat", func() error {
		e, err := c.entry("stat", p)
		if err == nil {
			info = e.Info
		}
		return err
	})
	return info, err
}

// entry finds what is at a path; ErrNotDir if a file lies above it.
func (c *Cluster) entry(op, p string) (*entry, error) {
	if e := c.entries[p]; e != nil {
		return e, nil
	}
	return nil, about(op, p, cmp.Or(c.fileAbove(p), hdfs.ErrNotExist))
}

func (c *Cluster) fileAbove(p string) error {
	for p != "/" {
		p = path.Dir(p)
		if e := c.entries[p]; e != nil && !e.Directory {
			return hdfs.ErrNotDir
		}
	}
	return nil
}

// List is client.Names'.
func (c *Cluster) List(_ context.Context, p, after string, limit int) (out []hdfs.Info, err error) {
	err = c.do("List", func() error {
		e, err := c.entry("list", p)
		if err == nil && !e.Directory {
			err = about("list", p, hdfs.ErrNotDir)
		}
		if err != nil {
			return err
		}
		for at, e := range c.entries {
			if at != "/" && path.Dir(at) == p && path.Base(at) > after {
				out = append(out, e.Info)
			}
		}
		slices.SortFunc(out, func(a, b hdfs.Info) int { return strings.Compare(a.Path, b.Path) })
		out = out[:min(len(out), limit)]
		return nil
	})
	return out, err
}

// below lists the paths of an entry and all in it.
func (c *Cluster) below(p string) (all []string) {
	for at := range c.entries {
		if at == p || strings.HasPrefix(at, strings.TrimSuffix(p, "/")+"/") {
			all = append(all, at)
		}
	}
	return all
}

// Usage is client.Names'.
func (c *Cluster) Usage(_ context.Context, p string) (u hdfs.Usage, err error) {
	err = c.do("Usage", func() error {
		if _, err := c.entry("usage", p); err != nil {
			return err
		}
		for _, at := range c.below(p) {
			switch e := c.entries[at]; {
			case !e.Directory:
				u.Files++
				u.Bytes += e.Size
				u.Stored += e.Size * int64(e.Replication)
			case at != p:
				u.Folders++
			}
		}
		return nil
	})
	return u, err
}

// Locate is client.Names'.
func (c *Cluster) Locate(_ context.Context, p string, id hdfs.FileID, offset, length int64) (info hdfs.Info, out []hdfs.Located, err error) {
	err = c.do("Locate", func() error {
		e, err := c.named(p, id)
		if err != nil {
			return err
		}
		info = e.Info
		at := int64(0)
		for _, b := range e.blocks {
			x := c.blocks[b]
			if at < offset+length && at+x.Size > offset {
				out = append(out, c.located(x, at))
			}
			at += x.Size
		}
		return nil
	})
	return info, out, err
}

func (c *Cluster) named(p string, id hdfs.FileID) (*entry, error) {
	if id == 0 {
		return c.entry("open", p)
	}
	for _, e := range c.entries {
		if e.ID == id {
			return e, nil
		}
	}
	return nil, ofFile(id, hdfs.ErrNotExist)
}

func (c *Cluster) located(b *block, offset int64) hdfs.Located {
	l := hdfs.Located{Block: b.Block, Offset: offset, Settled: c.Settled, Away: c.Away}
	for _, n := range b.nodes {
		address := "https://" + n
		if c.Address != nil {
			address = c.Address(n)
		}
		l.Nodes = append(l.Nodes, hdfs.Node{ID: n, Address: address})
	}
	return l
}

// Mkdir is client.Names'.
func (c *Cluster) Mkdir(_ context.Context, p string) error {
	return c.do("Mkdir", func() error {
		return c.folders("mkdir", p)
	})
}

// folders makes a folder and those above it.
func (c *Cluster) folders(op, p string) error {
	if err := c.fileAbove(p); err != nil {
		return about(op, p, err)
	}
	if e := c.entries[p]; e != nil && !e.Directory {
		return about(op, p, hdfs.ErrNotDir)
	}
	for ; c.entries[p] == nil; p = path.Dir(p) {
		c.lastFile++
		c.entries[p] = &entry{Info: hdfs.Info{Path: p, ID: c.lastFile, Directory: true, ModifiedAt: time.Now()}}
	}
	return nil
}

// Rename is client.Names'.
func (c *Cluster) Rename(_ context.Context, from, to string) error {
	return c.do("Rename", func() error { return c.rename(from, to) })
}

func (c *Cluster) rename(from, to string) error {
	const op = "rename"
	if _, err := c.entry(op, from); err != nil {
		return err
	}
	switch {
	case from == "/" || to == from || strings.HasPrefix(to, from+"/"):
		return about(op, from, fmt.Errorf("%w: onto or below itself: %s", hdfs.ErrInvalid, to))
	case c.entries[to] != nil:
		return about(op, to, hdfs.ErrExist)
	}
	if err := c.folders(op, path.Dir(to)); err != nil {
		return err
	}
	for _, at := range c.below(from) {
		e := c.entries[at]
		delete(c.entries, at)
		e.Path = to + strings.TrimPrefix(at, from)
		c.entries[e.Path] = e
	}
	return nil
}

// Remove is client.Names'.
func (c *Cluster) Remove(_ context.Context, p string, recursive, skipTrash bool) error {
	return c.do("Remove", func() error {
		_, err := c.entry("remove", p)
		all := c.below(p)
		switch {
		case err != nil:
			return err
		case p == "/":
			return about("remove", p, hdfs.ErrInvalid)
		case len(all) > 1 && !recursive:
			return about("remove", p, hdfs.ErrNotEmpty)
		case !skipTrash:
			c.trashed++
			return c.rename(p, fmt.Sprintf("/.trash/%d%s", c.trashed, p))
		}
		for _, at := range all {
			delete(c.entries, at)
		}
		return nil
	})
}

// RemoveIf is client.Names'.
func (c *Cluster) RemoveIf(_ context.Context, p string, id hdfs.FileID) error {
	return c.do("RemoveIf", func() error {
		e, err := c.entry("remove", p)
		switch {
		case err != nil:
			return err
		case e.ID != id:
			return about("remove", p, hdfs.ErrChanged)
		}
		delete(c.entries, p)
		return nil
	})
}

// SetReplication is client.Names'.
func (c *Cluster) SetReplication(_ context.Context, p string, n int) error {
	return c.do("SetReplication", func() error {
		e, err := c.entry("set replication", p)
		switch {
		case err != nil:
			return err
		case e.Directory:
			return about("set replication", p, hdfs.ErrIsDir)
		case n < 1 || n > hdfs.MaxReplication:
			return about("set replication", p, hdfs.ErrInvalid)
		}
		e.Replication = n
		return nil
	})
}

// BadReplica is client.Names'.
func (c *Cluster) BadReplica(_ context.Context, b hdfs.Block, node, reason string) error {
	return c.do("BadReplica", func() error {
		c.reports = append(c.reports, Report{b, node, reason})
		return nil
	})
}

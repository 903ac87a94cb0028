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

// Create is client.Names'.
func (c *Cluster) Create(_ context.Context, want hdfs.Create) (id hdfs.FileID, err error) {
	err = c.do("Create", func() error {
		for _, d := range c.drafts {
			switch {
			case d.Path == want.Path && d.Lease == want.Lease && d.Group == want.Group && len(d.blocks) == 0 && !d.sealed:
				id = d.id
				return nil
			case d.Path == want.Path && d.Group == "" && want.Group == "":
				return about("create", want.Path, hdfs.ErrBusy)
			}
		}
		if want.Group == "" {
			if err := c.free(want); err != nil {
				return err
			}
		} else if c.published[want.Group] {
			return about("create", want.Path, hdfs.ErrLease)
		}
		c.lastFile++
		id = c.lastFile
		want.BlockSize = cmp.Or(want.BlockSize, hdfs.DefaultBlockSize)
		want.Replication = cmp.Or(want.Replication, hdfs.DefaultReplication)
		c.drafts[id] = &draft{Create: want, id: id}
		return nil
	})
	return id, err
}

// free says why a file cannot appear at its path.
func (c *Cluster) free(want hdfs.Create) error {
	err := c.fileAbove(want.Path)
	switch e := c.entries[want.Path]; {
	case err != nil || e == nil:
	case e.Directory:
		err = hdfs.ErrIsDir
	case !want.Overwrite:
		err = hdfs.ErrExist
	}
	if err != nil {
		return about("create", want.Path, err)
	}
	return nil
}

func (c *Cluster) held(id hdfs.FileID, lease string) (*draft, error) {
	if d := c.drafts[id]; d != nil && d.Lease == lease && !d.sealed {
		return d, nil
	}
	return nil, ofFile(id, hdfs.ErrLease)
}

// AddBlock is client.Names'.
func (c *Cluster) AddBlock(_ context.Context, id hdfs.FileID, lease string, prev *hdfs.Block, avoid []string) (at hdfs.Located, err error) {
	err = c.do("AddBlock", func() error {
		d, err := c.held(id, lease)
		if err != nil {
			return err
		}
		if err := c.end(d, prev); err != nil {
			return err
		}
		c.lastBlock++
		b := &block{Block: hdfs.Block{ID: c.lastBlock, Stamp: 1}}
		for _, n := range c.nodes {
			if !slices.Contains(avoid, n) && len(b.nodes) < d.Replication {
				b.nodes = append(b.nodes, n)
			}
		}
		if len(b.nodes) == 0 {
			return ofFile(id, hdfs.ErrNoNodes)
		}
		c.blocks[b.ID] = b
		at = c.located(b, int64(len(d.blocks))*d.BlockSize)
		d.blocks = append(d.blocks, b.ID)
		return nil
	})
	return at, err
}

// end makes a draft's last block final.
func (c *Cluster) end(d *draft, last *hdfs.Block) error {
	n := len(d.blocks)
	if last == nil != (n == 0) || n > 0 && d.blocks[n-1] != last.ID {
		return ofFile(d.id, fmt.Errorf("%w: not its last block", hdfs.ErrInvalid))
	}
	if last != nil {
		c.blocks[last.ID].Block = *last
	}
	return nil
}

// Restamp is client.Names'.
func (c *Cluster) Restamp(_ context.Context, id hdfs.FileID, lease string, b hdfs.Block, nodes []string) (at hdfs.Located, err error) {
	err = c.do("Restamp", func() error {
		d, err := c.held(id, lease)
		if err != nil {
			return err
		}
		x := c.blocks[b.ID]
		x.Stamp++
		x.nodes = nodes
		at = c.located(x, int64(len(d.blocks)-1)*d.BlockSize)
		return nil
	})
	return at, err
}

// Complete is client.Names'.
func (c *Cluster) Complete(_ context.Context, id hdfs.FileID, lease string, last *hdfs.Block) (info hdfs.Info, err error) {
	err = c.do("Complete", func() error {
		if d := c.drafts[id]; d != nil && d.sealed && d.Lease == lease {
			info = c.info(d)
			return nil
		}
		if e, err := c.named("", id); err == nil {
			info = e.Info
			return nil
		}
		d, err := c.held(id, lease)
		if err != nil {
			return err
		}
		if err := c.end(d, last); err != nil {
			return err
		}
		info = c.info(d)
		if d.Group != "" {
			d.sealed = true
			return nil
		}
		if err := c.free(d.Create); err != nil {
			return err
		}
		return c.appear(d)
	})
	return info, err
}

func (c *Cluster) info(d *draft) hdfs.Info {
	info := hdfs.Info{Path: d.Path, ID: d.id, Replication: d.Replication, BlockSize: d.BlockSize, ModifiedAt: time.Now()}
	for _, b := range d.blocks {
		info.Size += c.blocks[b].Size
	}
	return info
}

func (c *Cluster) appear(d *draft) error {
	if err := c.folders("complete", path.Dir(d.Path)); err != nil {
		return err
	}
	delete(c.drafts, d.id)
	c.entries[d.Path] = &entry{c.info(d), d.blocks}
	return nil
}

// Abandon is client.Names'.
func (c *Cluster) Abandon(_ context.Context, id hdfs.FileID, lease string) error {
	return c.do("Abandon", func() error {
		if d := c.drafts[id]; d != nil && d.Lease == lease && !d.sealed {
			delete(c.drafts, id)
		}
		return nil
	})
}

// Renew is client.Names'.
func (c *Cluster) Renew(_ context.Context, leases []string) (over []string, err error) {
	err = c.do("Renew", func() error {
		for _, l := range leases {
			there := false
			for _, d := range c.drafts {
				there = there || d.Lease == l
			}
			if !there {
				over = append(over, l)
			}
		}
		return nil
	})
	return over, err
}

// Publish is client.Names'.
func (c *Cluster) Publish(_ context.Context, group, prefix string, count int, replace bool, _ time.Time) error {
	return c.do("Publish", func() error {
		if c.published[group] {
			return nil
		}
		uploads := c.uploads(group)
		whole := len(uploads) == count
		for _, d := range uploads {
			whole = whole && d.sealed && strings.HasPrefix(d.Path, prefix+"/")
		}
		there := c.below(prefix)
		switch {
		case !whole:
			return about("publish", prefix, fmt.Errorf("%w: not %d sealed uploads below it", hdfs.ErrInvalid, count))
		case len(there) > 1 && !replace:
			return about("publish", prefix, hdfs.ErrNotEmpty)
		}
		for _, at := range there {
			delete(c.entries, at)
		}
		if err := c.folders("publish", prefix); err != nil {
			return err
		}
		for _, d := range uploads {
			if err := c.appear(d); err != nil {
				return err
			}
		}
		c.published[group] = true
		return nil
	})
}

// uploads are a group's, or those of all groups.
func (c *Cluster) uploads(group string) (all []*draft) {
	for _, d := range c.drafts {
		if d.Group != "" && (group == "" || d.Group == group) {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b *draft) int { return cmp.Compare(a.id, b.id) })
	return all
}

// Uploads is client.Names'.
func (c *Cluster) Uploads(_ context.Context, group string) (out []hdfs.Upload, err error) {
	err = c.do("Uploads", func() error {
		for _, d := range c.uploads(group) {
			out = append(out, hdfs.Upload{ID: d.id, Path: d.Path, Group: d.Group, Task: d.Task, Lease: d.Lease, Size: c.info(d).Size, Sealed: d.sealed})
		}
		return nil
	})
	return out, err
}

// AbortUploads is client.Names'.
func (c *Cluster) AbortUploads(_ context.Context, group string, ids []hdfs.FileID) error {
	return c.do("AbortUploads", func() error {
		for _, d := range c.uploads(group) {
			if len(ids) == 0 || slices.Contains(ids, d.id) {
				delete(c.drafts, d.id)
			}
		}
		return nil
	})
}

package clienttest

import (
	"bytes"
	"context"
	"io"
	"slices"
	"sync"

	"millrace/hdfs"
	"millrace/hdfs/client"
)

// Open is client.Blocks'.
func (c *Cluster) Open(ctx context.Context, node hdfs.Node, b hdfs.Block, offset, length int64) (io.ReadCloser, error) {
	var fault *Fault
	if c.Reads != nil {
		fault = c.Reads(node.ID, b, offset)
	}
	if fault != nil && fault.After == 0 {
		if fault.Err == nil {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, fault.Err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.blocks[b.ID]
	switch {
	case x == nil || !slices.Contains(x.nodes, node.ID):
		return nil, hdfs.ErrNoBlock
	case x.Stamp != b.Stamp:
		return nil, hdfs.ErrStale
	}
	data := bytes.NewReader(x.data[offset : offset+length])
	if fault == nil || fault.After >= length {
		return io.NopCloser(data), nil
	}
	return io.NopCloser(io.MultiReader(io.LimitReader(data, fault.After), failing{ctx, fault.Err})), nil
}

type failing struct {
	ctx context.Context
	err error
}

func (f failing) Read([]byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	<-f.ctx.Done()
	return 0, f.ctx.Err()
}

// Append is client.Blocks'.
func (c *Cluster) Append(ctx context.Context, id hdfs.FileID, want hdfs.Create) (client.FileWriter, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := int64(hdfs.DefaultBlockSize)
	if d := c.drafts[id]; d != nil {
		size = d.BlockSize
	}
	return &writer{c: c, ctx: ctx, id: id, lease: want.Lease, size: size}, nil
}

type writer struct {
	c     *Cluster
	ctx   context.Context
	id    hdfs.FileID
	lease string
	size  int64 // of blocks

	mu   sync.Mutex
	last *hdfs.Block
	err  error
	done bool
	info hdfs.Info
}

func (w *writer) Write(p []byte) (n int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(p) > 0 && w.err == nil {
		if w.err = w.ctx.Err(); w.err != nil {
			break
		}
		if w.last == nil || w.last.Size == w.size {
			var at hdfs.Located
			if at, w.err = w.c.AddBlock(w.ctx, w.id, w.lease, w.last, nil); w.err != nil {
				break
			}
			b := at.Block
			w.last = &b
		}
		if w.c.Writes != nil {
			if w.err = w.c.Writes(*w.last); w.err != nil {
				break
			}
		}
		k := int(min(int64(len(p)), w.size-w.last.Size))
		w.c.add(w.last.ID, p[:k])
		w.last.Size += int64(k)
		n, p = n+k, p[k:]
	}
	return n, w.err
}

func (c *Cluster) add(id hdfs.BlockID, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.blocks[id]
	b.data = append(b.data, data...)
}

func (w *writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done || w.err != nil {
		return w.err
	}
	if w.err = w.ctx.Err(); w.err == nil {
		w.info, w.err = w.c.Complete(w.ctx, w.id, w.lease, w.last)
	}
	w.done = w.err == nil
	return w.err
}

func (w *writer) Abort() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return nil
	}
	if w.err == nil {
		w.err = context.Canceled
	}
	return w.c.Abandon(context.WithoutCancel(w.ctx), w.id, w.lease)
}

func (w *writer) Info() hdfs.Info {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.info
}

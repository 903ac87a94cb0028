package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"millrace/hdfs"
	"millrace/hdfs/wire"
)

// blockWriter writes one block, down as many pipelines as it takes.
type blockWriter struct {
	w     *Writer
	prev  *hdfs.Block
	at    hdfs.Located // the pipeline now, and the block's stamp
	first hdfs.Stamp   // its first stamp
	tried []hdfs.Node  // all that were in a pipeline which may have got on
	out   map[string]bool

	pending []*wire.Packet // not yet acknowledged by all, in order
	size    int64          // of what was kept so far
	whole   bool           // no packet of the block comes after those
	acked   int64          // what all have: pending begins there

	failing time.Time // since when it has not got on; zero: it does
	pause   time.Duration
}

// block writes the block that begins with a packet, after prev.
func (w *Writer) block(first *wire.Packet, prev *hdfs.Block) (hdfs.Block, error) {
	b := &blockWriter{w: w, prev: prev, out: map[string]bool{}}
	b.keep(first)
	err := b.place(w.ctx)
	for err == nil {
		fault := b.attempt(w.ctx)
		switch {
		case fault == nil:
			for _, p := range b.pending {
				w.free <- p
			}
			return hdfs.Block{ID: b.at.ID, Stamp: b.at.Stamp, Size: b.size}, nil
		case w.ctx.Err() != nil:
			err = context.Cause(w.ctx)
		default:
			err = b.mend(w.ctx, fault)
		}
	}
	return hdfs.Block{}, err
}

// mend finds the pipeline that comes after one which broke.
func (b *blockWriter) mend(ctx context.Context, fault *wire.Fault) error {
	blamed := b.judge(ctx, fault)
	b.w.log.Info("a pipeline broke", zap.Stringer("block", b.at.ID), zap.Uint64("stamp", uint64(b.at.Stamp)), zap.Int64("acknowledged", b.acked),
		zap.String("node", blamed), zap.Error(fault))
	b.out[blamed] = true
	if !slices.Contains(b.w.avoid, blamed) {
		b.w.avoid = append(b.w.avoid, blamed)
	}
	if b.failing.IsZero() {
		b.failing, b.pause = time.Now(), firstPause
	}
	for {
		err := b.another(ctx)
		if err == nil || ctx.Err() != nil || !errors.Is(err, hdfs.ErrNoNodes) {
			return err
		}
		if time.Since(b.failing) > b.w.cfg.Recovery {
			return fmt.Errorf("%s at offset %d: no pipeline for %v: node %s: %w", b.at.ID, b.acked, b.w.cfg.Recovery, blamed, fault)
		}
		if err := sleep(ctx, b.pause); err != nil {
			return err
		}
		b.pause = min(2*b.pause, lastPause)
		clear(b.out) // then all are asked again
		b.w.avoid = nil
	}
}

// judge says which node is dropped for a fault. One of the way between two members is the later one's, if it cannot
// be reached from here either; else that of either, and then who has been part of such a fault before goes first.
func (b *blockWriter) judge(ctx context.Context, f *wire.Fault) string {
	nodes := b.at.Nodes
	m := min(f.Member, len(nodes)-1)
	if !f.Link || m == 0 {
		return nodes[m].ID
	}
	from, to := nodes[m-1].ID, nodes[m]
	if !b.probe(ctx, to) {
		return to.ID
	}
	if b.w.links[from]++; b.w.links[from] > 1 {
		return from
	}
	return to.ID
}

// another names the next pipeline: hdfs.ErrNoNodes if there is none now.
func (b *blockWriter) another(ctx context.Context) error {
	if b.acked == 0 {
		// No node has anything that is not here too: new nodes are as good as the old ones, and the block gets as
		// many as it should have.
		at, err := b.ask(ctx)
		if err != nil {
			return err
		}
		b.tried = at.Nodes
	}
	nodes := slices.DeleteFunc(slices.Clone(b.tried), func(n hdfs.Node) bool { return b.out[n.ID] })
	if b.acked > 0 && len(b.out) == 0 { // all over again, from those that are there now
		if err := b.restamp(ctx, nodes); err != nil { // says where they are: one that has started anew may be elsewhere
			return err
		}
		there := b.alive(ctx, b.at.Nodes)
		if len(there) == len(nodes) {
			return nil
		}
		nodes = there
	}
	if len(nodes) == 0 {
		return fmt.Errorf("%s: %w", b.at.ID, hdfs.ErrNoNodes)
	}
	return b.restamp(ctx, nodes)
}

// place gets the block its first pipeline.
func (b *blockWriter) place(ctx context.Context) error {
	late := time.Now().Add(b.w.cfg.Recovery)
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		at, err := b.ask(ctx)
		if err == nil {
			b.at, b.first, b.tried = at, at.Stamp, at.Nodes
			return nil
		}
		if !errors.Is(err, hdfs.ErrNoNodes) || time.Now().After(late) {
			return err
		}
		b.w.avoid = nil // better nodes that have failed than none
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// ask has the leader choose nodes for the block.
func (b *blockWriter) ask(ctx context.Context) (at hdfs.Located, err error) {
	err = b.w.ask(ctx, "add a block", func(ctx context.Context) (err error) {
		at, err = b.w.cfg.Names.AddBlock(ctx, b.w.file, b.w.cfg.Create.Lease, b.prev, b.w.avoid)
		if err == nil && len(at.Nodes) == 0 {
			err = hdfs.ErrNoNodes
		}
		return err
	})
	return at, err
}

// restamp gives the block a new stamp for a pipeline of these nodes.
func (b *blockWriter) restamp(ctx context.Context, nodes []hdfs.Node) error {
	ids := make([]string, len(nodes))
	for i, n := range nodes {
		ids[i] = n.ID
	}
	block := b.at.Block
	block.Size = b.acked
	return b.w.ask(ctx, "restamp a block", func(ctx context.Context) error {
		at, err := b.w.cfg.Names.Restamp(ctx, b.w.file, b.w.cfg.Create.Lease, block, ids)
		if err != nil {
			return err
		}
		if len(at.Nodes) == 0 || at.ID != b.at.ID || at.Stamp <= b.at.Stamp {
			return fmt.Errorf("%w: %s on %d nodes after %s", wire.ErrProtocol, at.Block, len(at.Nodes), b.at.Block)
		}
		b.at = at
		for _, n := range at.Nodes {
			for i := range b.tried {
				if b.tried[i].ID == n.ID {
					b.tried[i] = n
				}
			}
		}
		return nil
	})
}

// alive gives those of the nodes that take pipelines.
func (b *blockWriter) alive(ctx context.Context, nodes []hdfs.Node) []hdfs.Node {
	there := make([]bool, len(nodes))
	var asked sync.WaitGroup
	for i, n := range nodes {
		asked.Go(func() { there[i] = b.probe(ctx, n) })
	}
	asked.Wait()
	var out []hdfs.Node
	for i, n := range nodes {
		if there[i] {
			out = append(out, n)
		}
	}
	return out
}

// probe says whether a node takes pipelines.
func (b *blockWriter) probe(ctx context.Context, n hdfs.Node) bool {
	ctx, cancel := context.WithTimeout(ctx, b.w.cfg.Timing.Dial)
	defer cancel()
	client, err := b.w.cfg.Dialer.Client(n.ID)
	if err != nil {
		return false
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, strings.TrimSuffix(n.Address, "/")+wire.PipelinePath, nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode == http.StatusNoContent
}

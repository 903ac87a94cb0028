package datanode

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"millrace/hdfs"
	"millrace/hdfs/blockstore"
	"millrace/pkg/shortage"
)

// maxVerifies is how many orders to verify wait at the most. The leader orders anew what it hears nothing of.
const maxVerifies = 1000

// verifier is the goroutine that reads replicas again by order, as somebody has called them bad.
func (n *Node) verifier(ctx context.Context) {
	for {
		b, term, ok := n.orders.verifies.pop(ctx)
		if !ok {
			return
		}
		if term < n.orders.term.Load() {
			continue
		}
		began, read := time.Now(), int64(0)
		wait := func(ctx context.Context, size int) error {
			err := pace(ctx, began, read, n.cfg.ScrubRate)
			read += int64(size)
			return err
		}
		if n.verify(ctx, b, true, wait) != nil {
			return
		}
	}
}

// verify reads one replica and tells if it is bad; also if it is well, or not there, when the leader has asked. Only the end
// of ctx is an error.
func (n *Node) verify(ctx context.Context, b hdfs.Block, asked bool, wait func(context.Context, int) error) error {
	err := n.cfg.Store.Verify(ctx, b.ID, b.Stamp, wait)
	log := n.log.With(zap.Stringer("block", b.ID))
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		if asked {
			log.Info("a replica that was called bad is whole")
			n.news.tell(Change{Block: b, State: Verified})
		}
	case errors.Is(err, hdfs.ErrNoBlock), errors.Is(err, hdfs.ErrStale): // it went meanwhile, with its disk perhaps
		if asked {
			n.Relist()
		}
	case errors.Is(err, blockstore.ErrDisk): // all that is left is listed again
	case errors.Is(err, blockstore.ErrClosed), shortage.Of(err) == shortage.Descriptors, shortage.Of(err) == shortage.Processes:
		log.Warn("read a replica again", zap.Error(err)) // that says nothing about it
	default:
		log.Warn("a replica is damaged", zap.Error(err))
		n.news.tell(Change{Block: b, State: Bad, Reason: err.Error()})
	}
	return nil
}

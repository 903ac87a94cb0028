package datanode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"millrace/hdfs"
	"millrace/hdfs/wire"
)

// copy sends a final replica of this node's down a pipeline of its own, under the stamp that it has. It is
// verified on the way: damage here is not passed on, and not blamed on those who would find it.
func (n *Node) copy(ctx context.Context, c Copy) error {
	if len(c.To) == 0 {
		return fmt.Errorf("copy %s: %w: no target", c.Block.ID, hdfs.ErrInvalid)
	}
	replica, err := n.cfg.Store.Open(c.Block.ID, c.Block.Stamp)
	if err != nil {
		return n.noSource(c, err)
	}
	defer replica.Close()
	first := c.To[0]
	client, err := n.cfg.Dialer.Client(first.ID)
	if err != nil {
		return fmt.Errorf("copy %s to %s: %w", c.Block.ID, first.ID, err)
	}
	conn, err := wire.Dial(ctx, client, first.Address, wire.Setup{Block: c.Block.ID, Stamp: c.Block.Stamp,
		Limit: max(1, replica.Size()), Nodes: wire.Nexts(c.To[1:])}, n.cfg.Timing)
	if err != nil {
		return fmt.Errorf("copy %s to %s: %w", c.Block.ID, first.ID, err)
	}
	stop := context.AfterFunc(ctx, conn.Close)
	defer stop()
	var follow sync.WaitGroup
	defer follow.Wait()
	defer conn.Close()
	progress := newProgress(n.cfg.Timing.Slow, conn)
	defer progress.timer.Stop()
	follow.Go(func() { conn.Follow(n.cfg.Timing, progress.heard) })
	if err := n.push(ctx, conn, replica, c); err != nil {
		if errors.Is(err, hdfs.ErrCorrupt) {
			return n.noSource(c, err)
		}
		// What the members say of it tells more than that they hung up.
	}
	if err := progress.wait(ctx); err != nil {
		return fmt.Errorf("copy %s to %s: %w", c.Block.ID, first.ID, err)
	}
	return nil
}

// errDamaged says that the replica to be copied is no good, and that the leader was told.
var errDamaged = errors.New("the replica here is damaged")

// noSource tells the leader why there is nothing here to copy.
func (n *Node) noSource(c Copy, err error) error {
	switch {
	case errors.Is(err, hdfs.ErrCorrupt):
		n.news.tell(Change{Block: c.Block, State: Bad, Reason: err.Error()})
		err = fmt.Errorf("%w: %w", errDamaged, err)
	case errors.Is(err, hdfs.ErrNoBlock), errors.Is(err, hdfs.ErrStale):
		n.Relist() // it thinks otherwise
	}
	return fmt.Errorf("copy %s: %w", c.Block.ID, err)
}

// push sends all packets of a replica, no faster than it may.
func (n *Node) push(ctx context.Context, conn *wire.Conn, replica Replica, c Copy) error {
	p, began := wire.NewPacket(), time.Now()
	for at := int64(0); ; at = p.End() {
		if err := load(p, replica, at, replica.Size()); err != nil {
			return err
		}
		if err := p.Verify(); err != nil {
			return fmt.Errorf("replica of %s: %w", c.Block.ID, err)
		}
		if err := conn.Send(p, n.cfg.Timing.Slow); err != nil {
			return err
		}
		if p.Final {
			return nil
		}
		if err := pace(ctx, began, p.End(), cmp.Or(c.Rate, n.cfg.CopyRate)); err != nil {
			return err
		}
	}
}

// pace waits until it is time for more, after so many bytes since began.
func pace(ctx context.Context, began time.Time, bytes, rate int64) error {
	ahead := time.Duration(float64(bytes)/float64(rate)*float64(time.Second)) - time.Since(began)
	if ahead < time.Millisecond {
		return ctx.Err()
	}
	t := time.NewTimer(ahead)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// progress watches over a copy: without any for too long it hangs up.
type progress struct {
	timer  *time.Timer
	within time.Duration
	length int64
	end    chan wire.Ack // the last word
}

func newProgress(within time.Duration, conn *wire.Conn) *progress {
	return &progress{timer: time.AfterFunc(within, conn.Close), within: within, length: -1, end: make(chan wire.Ack, 1)}
}

// heard is called by one goroutine.
func (p *progress) heard(a wire.Ack) {
	if a.State >= wire.Final {
		p.end <- a
		return
	}
	if a.State == wire.Ready && a.Length > p.length {
		p.length = a.Length
		p.timer.Reset(p.within)
	}
}

func (p *progress) wait(ctx context.Context) error {
	a := <-p.end // comes: it is silent, slow or closed at some time
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case a.Fault != nil:
		return a.Fault
	}
	return nil
}

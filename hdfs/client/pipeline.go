package client

import (
	"context"
	"fmt"
	"sync"
	"time"

	"millrace/hdfs/wire"
)

// attempt runs one pipeline through b.at's nodes until the block is final (nil), a member fails, or ctx ends.
func (b *blockWriter) attempt(ctx context.Context) *wire.Fault {
	t := b.w.cfg.Timing
	conn, err := b.dial(ctx)
	if err != nil {
		return wire.Way(0, wire.Unreachable, err)
	}
	stop := context.AfterFunc(ctx, conn.Close)
	defer stop()
	var parts sync.WaitGroup
	defer parts.Wait()
	quit := make(chan struct{})
	acks := make(chan wire.Ack)
	out := make(chan *wire.Packet, cap(b.w.full)) // neither is ever full: there are no more packets
	sent := make(chan int64, cap(b.w.full))
	defer func() {
		close(quit)
		conn.Close()
		close(out)
	}()
	parts.Go(func() {
		conn.Follow(t, func(a wire.Ack) {
			select {
			case acks <- a:
			case <-quit:
			}
		})
	})
	parts.Go(func() {
		for p := range out {
			end := p.End()
			if conn.Send(p, t.Slow) != nil {
				return // Follow hears why
			}
			sent <- end
		}
	})
	return b.steer(ctx, acks, out, sent)
}

func (b *blockWriter) dial(ctx context.Context) (*wire.Conn, error) {
	first := b.at.Nodes[0]
	client, err := b.w.cfg.Dialer.Client(first.ID)
	if err != nil {
		return nil, err
	}
	s := wire.Setup{Block: b.at.ID, Stamp: b.at.Stamp, Limit: b.w.cfg.Create.BlockSize, Nodes: wire.Nexts(b.at.Nodes[1:])}
	if b.acked > 0 {
		s.Recover = &wire.Recover{From: b.first, Length: b.acked}
	}
	return wire.Dial(ctx, client, first.Address, s, b.w.cfg.Timing)
}

// steer hands packets out once all members are ready, those first that have been sent in vain, and takes in what
// was sent (up to an offset) and acknowledged. A packet is let go of after both: an acknowledgement may be here
// before the call that sent it has come back.
func (b *blockWriter) steer(ctx context.Context, acks <-chan wire.Ack, out chan<- *wire.Packet, sent <-chan int64) *wire.Fault {
	slow := time.NewTimer(b.w.cfg.Timing.Slow)
	defer slow.Stop()
	holder, resent := 0, false
	var there, acked int64
	var full <-chan *wire.Packet // from when they are ready until the block is whole
	for {
		select {
		case <-ctx.Done():
			return &wire.Fault{Text: context.Cause(ctx).Error()}
		case p := <-full:
			if len(b.pending) == 0 {
				slow.Reset(b.w.cfg.Timing.Slow)
			}
			b.keep(p)
			out <- p
			if b.whole {
				full = nil
			}
		case a := <-acks:
			holder = max(0, a.Holder)
			switch {
			case a.State == wire.Failed:
				return a.Fault
			case a.Length > max(b.size, b.acked):
				return wire.Way(0, wire.Protocol, fmt.Errorf("%w: %d bytes acknowledged, %d sent", wire.ErrProtocol, a.Length, b.size))
			}
			switch a.State {
			case wire.Final:
				if !b.whole || a.Length != b.size {
					return wire.Way(0, wire.Protocol, fmt.Errorf("%w: final at %d bytes of %d", wire.ErrProtocol, a.Length, b.size))
				}
				return nil
			case wire.Ready:
				if full == nil && !resent {
					resent = true
					for _, p := range b.pending {
						out <- p
					}
					if !b.whole {
						full = b.w.full
					}
					slow.Reset(b.w.cfg.Timing.Slow)
				}
				acked = a.Length
				if b.acknowledged(min(there, acked)) {
					slow.Reset(b.w.cfg.Timing.Slow)
				}
			}
		case there = <-sent:
			if b.acknowledged(min(there, acked)) {
				slow.Reset(b.w.cfg.Timing.Slow)
			}
		case <-slow.C:
			if resent && len(b.pending) == 0 {
				slow.Reset(b.w.cfg.Timing.Slow) // there is nothing to do
				continue
			}
			return &wire.Fault{Member: holder, Code: wire.Unreachable, Text: fmt.Sprintf("no progress for %v", b.w.cfg.Timing.Slow)}
		}
	}
}

// keep holds a packet until it is acknowledged.
func (b *blockWriter) keep(p *wire.Packet) {
	b.pending = append(b.pending, p)
	b.size, b.whole = p.End(), p.Final
}

// acknowledged lets go of packets that all members have written, and says whether there were any. The last one
// stays until the block is final.
func (b *blockWriter) acknowledged(length int64) bool {
	n := 0
	for n < len(b.pending) && !b.pending[n].Final && b.pending[n].End() <= length {
		b.acked = b.pending[n].End()
		b.w.free <- b.pending[n]
		n++
	}
	b.pending = b.pending[n:]
	if n > 0 {
		b.failing = time.Time{}
	}
	return n > 0
}

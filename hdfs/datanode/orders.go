package datanode

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"millrace/hdfs"
)

// ErrOldTerm says that an order comes from a leader that is none any more.
var ErrOldTerm = errors.New("the leader's term is over")

// deletesFor is how long an order to delete holds. The leader takes a replica for one that is there again when it has heard nothing for
// a minute of its order to delete it: by then no order may be left here that still would. What holds no more the leader orders anew.
const deletesFor = 45 * time.Second

// Order is what a leader wants done.
type Order struct {
	Term   uint64 // of the leader
	Delete []hdfs.Block
	Copy   []Copy
	Verify []hdfs.Block // to be read at once: the answer is Verified or Bad
}

// Copy is a final replica here that shall be copied to other nodes.
type Copy struct {
	Block hdfs.Block
	To    []hdfs.Node
	Rate  int64 // bytes per second at the most; 0: Config.CopyRate
}

// orders are those not carried out yet.
type orders struct {
	term     atomic.Uint64 // the highest seen
	deletes  queue[hdfs.Block]
	copies   queue[Copy]
	verifies queue[hdfs.Block]
}

// Term tells of a leader's term: orders of older ones are refused from now on, also those that wait.
func (n *Node) Term(term uint64) {
	for {
		old := n.orders.term.Load()
		if term <= old || n.orders.term.CompareAndSwap(old, term) {
			return
		}
	}
}

// Obey takes an order; what comes of it is in the reports. One that is repeated while it waits does no harm.
func (n *Node) Obey(o Order) error {
	n.Term(o.Term)
	if now := n.orders.term.Load(); o.Term < now {
		return fmt.Errorf("order of term %d: %w: it is %d", o.Term, ErrOldTerm, now)
	}
	n.orders.deletes.push(o.Term, o.Delete)
	n.orders.copies.push(o.Term, o.Copy)
	n.orders.verifies.push(o.Term, o.Verify)
	return nil
}

// forget drops what waits.
func (o *orders) forget() {
	o.deletes.clear()
	o.copies.clear()
	o.verifies.clear()
}

// deleter is the goroutine that deletes by order.
func (n *Node) deleter(ctx context.Context) {
	for {
		b, term, ok := n.orders.deletes.pop(ctx)
		if !ok {
			return
		}
		if term < n.orders.term.Load() {
			continue
		}
		n.evict(ctx, b)
		log := n.log.With(zap.Stringer("block", b.ID), zap.Uint64("stamp", uint64(b.Stamp)))
		switch err := n.cfg.Store.Delete(b.ID, b.Stamp); {
		case err == nil, errors.Is(err, hdfs.ErrNoBlock):
			log.Debug("a replica is deleted")
			n.news.tell(Change{Block: b, State: Gone})
		case errors.Is(err, hdfs.ErrStale):
			log.Debug("a replica to be deleted has another stamp by now")
		default:
			log.Warn("delete a replica", zap.Error(err))
		}
	}
}

// copier is a goroutine that copies by order.
func (n *Node) copier(ctx context.Context) {
	for {
		c, term, ok := n.orders.copies.pop(ctx)
		if !ok {
			return
		}
		if term < n.orders.term.Load() {
			continue
		}
		log := n.log.With(zap.Stringer("block", c.Block.ID), zap.Int("targets", len(c.To)))
		switch err := n.copy(ctx, c); {
		case err == nil:
			log.Debug("a replica is copied")
		case ctx.Err() == nil:
			log.Info("a replica could not be copied", zap.Error(err))
			n.copyFailed(c, err)
		}
	}
}

// copyFailed tells the leader which nodes get nothing; those that got it all the same have said so.
func (n *Node) copyFailed(c Copy, err error) {
	if errors.Is(err, errDamaged) {
		return // that ends it, and the fault is not theirs
	}
	for _, to := range c.To {
		n.news.tell(Change{Block: c.Block, State: NotCopied, To: to.ID, Reason: err.Error()})
	}
}

// queue gives what was first put in; any number of goroutines at both ends.
type queue[T any] struct {
	mu    sync.Mutex
	items []queued[T]
	more  chan struct{}
	most  int           // that wait, those beyond are dropped; 0: no limit
	life  time.Duration // of what waits, it is dropped then; 0: no limit
}

type queued[T any] struct {
	term  uint64
	since time.Time
	what  T
}

func newQueue[T any]() queue[T] { return queue[T]{more: make(chan struct{}, 1)} }

func (q *queue[T]) push(term uint64, list []T) {
	if len(list) == 0 {
		return
	}
	q.mu.Lock()
	if q.most > 0 {
		list = list[:min(len(list), max(0, q.most-len(q.items)))]
	}
	now := time.Now()
	for _, what := range list {
		q.items = append(q.items, queued[T]{term, now, what})
	}
	q.mu.Unlock()
	q.wake()
}

func (q *queue[T]) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items = nil
}

func (q *queue[T]) wake() {
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// pop waits for the next one; false: ctx has ended.
func (q *queue[T]) pop(ctx context.Context) (what T, term uint64, ok bool) {
	for ctx.Err() == nil {
		q.mu.Lock()
		q.dropOld()
		if len(q.items) > 0 {
			first := q.items[0]
			q.items = q.items[1:]
			left := len(q.items)
			q.mu.Unlock()
			if left > 0 {
				q.wake()
			}
			return first.what, first.term, true
		}
		q.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-q.more:
		}
	}
	return what, 0, false
}

// dropOld drops what has waited for too long. Called with mu held.
func (q *queue[T]) dropOld() {
	for q.life > 0 && len(q.items) > 0 && time.Since(q.items[0].since) >= q.life {
		q.items = q.items[1:]
	}
}

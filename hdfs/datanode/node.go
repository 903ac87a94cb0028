// Package datanode is a core node's end of the block store's wire: it takes part in the pipelines of writes,
// serves replicas to readers, obeys the leader's orders, reads everything again from time to time, and tells
// what it has. The replicas themselves are the blockstore's, which of them there should be the leader's matter.
package datanode

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"millrace/hdfs"
	"millrace/hdfs/wire"
)

// Dialer gives HTTP/1.1 clients, each of which connects to one node only and checks that it is it.
type Dialer interface {
	Client(node string) (*http.Client, error)
}

// Config sets up a Node. Zero fields from Writers on mean defaults.
type Config struct {
	Node   string // this one
	Store  Store
	Dialer Dialer

	Writers     int           // blocks being written here at once; default 64, each with 1.5 MiB of memory
	Readers     int           // blocks being read from here at once; default 128, each with 0.25 MiB
	ReaderWait  time.Duration // how long one more reader waits for its turn; default 5 s
	Copies      int           // blocks being copied from here by order at once, more wait; default 10
	CopyRate    int64         // bytes per second, of each copy for which the leader names none; default 64 MiB
	ScrubPeriod time.Duration // every replica is read again within it, as far as ScrubRate allows; default a week
	ScrubRate   int64         // bytes per second at the most, and of what is verified by order; default 32 MiB
	DisksEvery  time.Duration // how often the disks are reported; default 10 s
	Piece       int           // replicas in one report; default 5000
	Timing      wire.Timing
	Log         *zap.Logger
}

// Node is one datanode.
type Node struct {
	cfg     Config
	log     *zap.Logger
	life    context.Context // ends with Run
	end     context.CancelFunc
	writers chan struct{}
	readers chan struct{}
	news    feeds
	orders  orders

	mu     sync.Mutex
	ended  bool
	active map[hdfs.BlockID]*member
	all    map[*member]struct{}
	work   sync.WaitGroup // members
}

// New checks the configuration and starts nothing.
func New(c Config) (*Node, error) {
	if c.Node == "" || c.Store == nil || c.Dialer == nil {
		return nil, errors.New("datanode: node, store or dialer is missing")
	}
	for n, v := range map[*int]int{&c.Writers: 64, &c.Readers: 128, &c.Copies: 10, &c.Piece: 5000} {
		if *n <= 0 {
			*n = v
		}
	}
	for n, v := range map[*int64]int64{&c.CopyRate: 64 << 20, &c.ScrubRate: 32 << 20} {
		if *n <= 0 {
			*n = v
		}
	}
	for d, v := range map[*time.Duration]time.Duration{
		&c.ReaderWait: 5 * time.Second, &c.ScrubPeriod: 7 * 24 * time.Hour, &c.DisksEvery: 10 * time.Second} {
		if *d <= 0 {
			*d = v
		}
	}
	c.Timing = c.Timing.WithDefaults()
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	n := &Node{cfg: c, log: c.Log, writers: make(chan struct{}, c.Writers), readers: make(chan struct{}, c.Readers),
		active: map[hdfs.BlockID]*member{}, all: map[*member]struct{}{}}
	n.life, n.end = context.WithCancel(context.Background())
	n.orders.deletes, n.orders.copies, n.orders.verifies = newQueue[hdfs.Block](), newQueue[Copy](), newQueue[hdfs.Block]()
	n.orders.verifies.most, n.orders.deletes.life = maxVerifies, deletesFor
	return n, nil
}

// Register adds the node's paths. Who may ask is the caller's to decide.
func (n *Node) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET "+wire.PipelinePath, n.pipeline)
	mux.HandleFunc("HEAD "+wire.PipelinePath, n.there)
	mux.HandleFunc("GET "+wire.BlocksPath+"{id}", n.read)
}

// Run obeys orders and scrubs until ctx ends. Then it breaks off what is being written; the unfinished replicas
// stay for their writers to come back to.
func (n *Node) Run(ctx context.Context) {
	var loops sync.WaitGroup
	for range n.cfg.Copies {
		loops.Go(func() { n.copier(ctx) })
	}
	loops.Go(func() { n.deleter(ctx) })
	loops.Go(func() { n.verifier(ctx) })
	loops.Go(func() { n.scrub(ctx) })
	loops.Go(func() { n.drop(ctx) })
	<-ctx.Done()
	n.end()
	n.mu.Lock()
	n.ended = true
	for m := range n.all {
		m.stop()
	}
	n.mu.Unlock()
	n.work.Wait()
	loops.Wait()
}

// there answers that pipelines are taken here.
func (n *Node) there(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

// pipeline makes the node a member of one.
func (n *Node) pipeline(w http.ResponseWriter, r *http.Request) {
	conn, setup, err := wire.Accept(w, r)
	if err != nil {
		n.log.Debug("a pipeline was refused", zap.String("from", r.RemoteAddr), zap.Error(err))
		return
	}
	m := newMember(n, conn, setup)
	n.mu.Lock()
	if n.ended {
		n.mu.Unlock()
		conn.Close()
		return
	}
	n.all[m] = struct{}{}
	n.work.Add(1)
	n.mu.Unlock()
	defer n.work.Done()
	m.run()
	n.mu.Lock()
	delete(n.all, m)
	n.mu.Unlock()
}

// claim makes m the one that writes its block. One that does so under an older stamp has been given up by the
// writer, even if this node does not know yet: it makes way.
func (n *Node) claim(m *member) error {
	patience := time.NewTimer(n.cfg.Timing.Stall)
	defer patience.Stop()
	for {
		n.mu.Lock()
		old := n.active[m.setup.Block]
		if old == nil {
			n.active[m.setup.Block] = m
			n.mu.Unlock()
			return nil
		}
		n.mu.Unlock()
		if old.setup.Stamp >= m.setup.Stamp {
			return fmt.Errorf("%w: %s is being written with stamp %d", hdfs.ErrStale, m.setup.Block, old.setup.Stamp)
		}
		old.stop()
		select {
		case <-old.done:
		case <-patience.C:
			return fmt.Errorf("%w: %s is still being written with stamp %d: the disk does not answer", hdfs.ErrUnavailable, m.setup.Block, old.setup.Stamp)
		}
	}
}

// release ends a claim.
func (n *Node) release(m *member) {
	n.mu.Lock()
	if n.active[m.setup.Block] == m {
		delete(n.active, m.setup.Block)
	}
	n.mu.Unlock()
	close(m.done)
}

// evict breaks off the writing of a block up to a stamp, and waits for the end of it.
func (n *Node) evict(ctx context.Context, b hdfs.Block) {
	n.mu.Lock()
	m := n.active[b.ID]
	n.mu.Unlock()
	if m == nil || m.setup.Stamp > b.Stamp {
		return
	}
	m.stop()
	select {
	case <-m.done:
	case <-ctx.Done():
	}
}

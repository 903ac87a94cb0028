// Package blockmanager knows, for one cluster, which node has which replica, and decides what is to be copied, where
// to, and what is to be deleted. It runs on the leader only; all of it is learnt from the nodes' reports and none of
// it is logged: a new leader begins with an empty Manager and does no harm until it has heard enough.
//
// It has no clock, no goroutine and no connection of its own. The caller tells it what happened (NodeUp, Report,
// Received, BlockFinal …), calls Tick about once a second, and sends the orders that Tick gives to the nodes. How it
// decides is in judge.go; nothing is decided by an event alone, each only makes it look at a block again, and a slow
// walk over all blocks (sweep.go) finds what no event told.
package blockmanager

import (
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"

	"millrace/hdfs"
)

// Names is what the manager asks of the cluster's name space: as the log says it at that moment. Its methods are
// called with the manager's lock held, and must not call the manager.
type Names interface {
	// Block tells what the log says of a block; false if no file has it.
	Block(id hdfs.BlockID) (Block, bool)
	// Blocks gives all blocks in ascending order of their ids, from this one on.
	Blocks(from hdfs.BlockID) iter.Seq[Block]
	// HasLease tells whether a file is being written under this lease; Leases gives all such leases.
	HasLease(lease string) bool
	Leases() iter.Seq[string]
}

// Block is what the log says of a block.
type Block struct {
	hdfs.Block
	File   hdfs.FileID
	Wanted int  // replicas
	Final  bool // stamp and size are fixed: each replica has these or is stale
}

// Replica is what a node says it has of a block.
type Replica struct {
	hdfs.Block
	Unfinished bool // no whole replica: a pipeline broke off, or goes on
}

// Disk is one of a node's disks. Problem says why it takes no part any more, "" if it does.
type Disk struct {
	Dir            string
	Capacity, Free int64 // bytes; Free is what blocks may take: the reserve for tasks is taken off
	Reserve        int64
	Problem        string
}

// Config is what a Manager needs; durations and limits that are zero have the default told with them.
type Config struct {
	Names Names
	Now   func() time.Time // time.Now if nil
	Rand  *rand.Rand       // chance for placement; seeded by itself if nil
	Log   *zap.Logger

	// Expected lists the core nodes that the log knows as admitted when the leader took over: it waits for them, but
	// not for long, before it copies or deletes anything.
	Expected []string

	Streams     int           // copies that a node sends, and that it takes, at once: 10, of large blocks fewer
	Rate        int64         // bytes a second of copies that a node sends, and that it takes: 50 MiB; negative: no limit
	CopyTimeout time.Duration // until a copy of which nothing was heard is ordered again, besides the time for its bytes: 1 min
	Deletes     int           // replicas that a node is told to delete in one Tick: 1,000

	Grace        time.Duration // how long replicas of deleted blocks are kept, for those who read them: 1 min
	DownWait     time.Duration // until a node that is down is given up and its blocks are copied: 30 s
	ManyDownWait time.Duration // the same when more than a third of the nodes, and at least two, are down: 10 min
	ReportWait   time.Duration // a new leader's patience for expected nodes, and for a connected node's full report: 60 s
	LeaseTerm    time.Duration // a writer that does not renew for as long has lost its file: 60 s

	SweepBlocks int // blocks that a Tick looks at although nothing is known to have happened to them: 2,000
	SweepBurst  int // the same after something that may concern all blocks: 20,000
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	num := func(n *int, to int) {
		if *n == 0 {
			*n = to
		}
	}
	def(&c.CopyTimeout, time.Minute)
	def(&c.Grace, time.Minute)
	def(&c.DownWait, 30*time.Second)
	def(&c.ManyDownWait, 10*time.Minute)
	def(&c.ReportWait, time.Minute)
	def(&c.LeaseTerm, time.Minute)
	num(&c.Streams, 10)
	num(&c.Deletes, 1000)
	num(&c.SweepBlocks, 2000)
	num(&c.SweepBurst, 20_000)
	if c.Rate == 0 {
		c.Rate = 50 << 20
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

// Manager is one cluster's block manager during one term of a leader. Its methods may be called at once by many; calls
// about one node must come in the order in which the node said it.
type Manager struct {
	cfg Config

	mu    sync.Mutex
	began time.Time
	now   moment // of the call under way
	ready bool   // enough reports are in: copying and deleting are allowed
	quiet moment // since when every connected node has reported; negative: one has not

	nodes    nodes
	places   places
	suspects map[hdfs.BlockID]*suspect // what is the matter with blocks that are not simply well
	writing  map[hdfs.BlockID]*pipeline
	copies   map[hdfs.BlockID][]*copying // ordered and not heard of yet
	short    queue                       // blocks to copy, the most endangered first
	checks   checks
	sweep    sweep
	leases   map[string]lease
	renewing moment // when leases were last looked through
	counts   Counters
}

// New begins a term.
func New(c Config) *Manager {
	m := &Manager{
		cfg:      c.withDefaults(),
		suspects: map[hdfs.BlockID]*suspect{},
		writing:  map[hdfs.BlockID]*pipeline{},
		copies:   map[hdfs.BlockID][]*copying{},
		leases:   map[string]lease{},
	}
	m.began = m.cfg.Now()
	m.nodes.init()
	m.places.init()
	m.short.init()
	m.checks.init()
	for _, id := range m.cfg.Expected {
		m.nodes.expect(id)
	}
	return m
}

// lock takes the lock and reads the clock; the result unlocks.
func (m *Manager) lock() func() {
	m.mu.Lock()
	m.now = max(m.now, m.cfg.Now().Sub(m.began))
	return m.mu.Unlock
}

// Orders is what one node shall do. They belong to the session in which they are given: a node must not begin them
// after that session has ended, and it refuses those of a leader with an older term.
type Orders struct {
	Delete []hdfs.Block // these stamps and no later ones; sizes are those known
	Copy   []Copy
	Verify []hdfs.Block // to be read again at once: Bad or Verified is the answer
}

// Copy tells a node to send its replica to another one.
type Copy struct {
	hdfs.Block
	To   hdfs.Node
	Rate int64 // bytes a second that it should not exceed; 0: no limit
}

// Tick lets time pass and gives the orders for each node that has some. To be called about once a second.
func (m *Manager) Tick() map[string]*Orders {
	defer m.lock()()
	m.giveUpNodes()
	m.becomeReady()
	m.sweepSome()
	m.endOverdueCopies()
	m.checkDue()
	orders := map[string]*Orders{}
	m.orderVerifies(orders)
	if m.ready {
		m.orderDeletes(orders)
		m.orderCopies(orders)
	}
	return orders
}

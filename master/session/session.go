// Package session knows, on the leader alone, which workers are connected: it
// speaks the worker's end of the stream (hello, welcome, heartbeats), queues
// what is to be sent, and keeps each node's lease. It does not know what the
// messages are about: it hands them to a Handler.
package session

import (
	"context"
	"errors"
	"maps"
	"sort"
	"sync"
	"time"

	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/api"
)

// DefaultLease is how long a node counts as alive after its last message.
const DefaultLease = 3 * time.Second

// ReturnWithin is how long a new leader waits for the nodes of the one before: a leader that fell silent is missed only after a
// lease, and then the new one has to be found.
const ReturnWithin = DefaultLease + 2*time.Second

// A lease that ends may do so only because this process did not run for a while (a paused machine, a
// starved one), and what the worker sent meanwhile lies unread. So each gets a last chance: a moment
// if the end was noticed when it came, another lease if that took longer than lateness.
const (
	lastMoment = 250 * time.Millisecond
	lateness   = 100 * time.Millisecond
)

// queueLimit is how many messages may wait for one worker. A worker that far
// behind is cut off; when it comes back everything is settled anew.
const queueLimit = 1 << 16

// Why Serve ends, besides the stream's own errors.
var (
	ErrUnknownNode = errors.New("node is not admitted to this site")
	ErrTerminated  = errors.New("node has been terminated")
	ErrStaleTerm   = errors.New("worker has seen a newer leader")
	ErrReplaced    = errors.New("replaced by a newer session of the same node")
	ErrLeaseOver   = errors.New("nothing heard within the lease")
	ErrClosed      = errors.New("this master leads no longer")
	ErrProtocol    = errors.New("session protocol broken")
	ErrOverflow    = errors.New("worker does not read what it is sent")
	ErrMisplaced   = errors.New("the node has another place")
)

// Stream is one worker's connection. Send and Receive are each called by one
// goroutine. Receive must return once the call that Serve belongs to is over.
type Stream interface {
	Receive() (*api.WorkerMessage, error)
	Send(*api.MasterMessage) error
}

// Handler is told what happens, in order for each node, and must not block for long.
type Handler interface {
	// Up: the node said hello. Called at each hello, so also when a broken
	// stream was replaced within the lease (same incarnation), and when the node's
	// process has been started again (another incarnation, no Down in between):
	// what it ran before and does not list is gone.
	Up(node string, hello *api.WorkerHello)
	// Down: it left, or its lease is over.
	Down(node, reason string)
	// Message: anything but hello.
	Message(node string, m *api.WorkerMessage)
}

// Config sets up a Registry.
type Config struct {
	Term    uint64        // of this leader
	Lease   time.Duration // 0 = DefaultLease
	Welcome func(node *state.Node) *api.SessionWelcome
	Pong    func(node string) *api.Pong // answers each heartbeat; nil: with nothing in it
	View    func() *state.View
	// Find logs where a node that is Unsure says it is.
	Find    func(ctx context.Context, c state.FindNode) error
	Handler Handler // may be given later, with Handle, before the first Serve
	Log     *zap.Logger
}

// Node is a worker whose session or lease is open.
type Node struct {
	ID, Address            string
	Cluster, Role          string
	Slots                  int
	Memory, Disk, DiskFree int64 // bytes
	PID                    int64
	Version, Incarnation   string
	Protocol               int // that it speaks
	LastSeen               time.Time
	Connected              bool   // false: the stream broke, the lease runs
	Trust                  string // what it uses of the site's CA: WorkerHeartbeat.trust
}

// Registry holds the sessions of one leader's term.
type Registry struct {
	cfg Config
	log *zap.Logger
	wg  sync.WaitGroup // Serve calls, receivers, lease timers

	mu     sync.Mutex
	nodes  map[string]*entry
	seen   map[string]time.Time // when a node was last heard of whose lease is over
	probes probes
	closed bool
	done   chan struct{} // closed by Close
}

// entry is one node with an open lease.
type entry struct {
	order  sync.Mutex // held while the Handler hears of this node; taken before Registry.mu
	node   Node
	conn   *conn // nil while the lease runs without a stream
	timer  *time.Timer
	due    time.Time       // when timer is to fire
	last   bool            // the lease is over, and the last chance runs
	gone   bool            // Down was said; the entry is out of the map
	heard  []chan struct{} // closed at the next message
	copies map[string]bool // incarnations of other processes that said they are the node, and were refused
}

// New returns a Registry for one term of leadership. It starts nothing.
func New(c Config) *Registry {
	if c.Lease <= 0 {
		c.Lease = DefaultLease
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Pong == nil {
		c.Pong = func(string) *api.Pong { return &api.Pong{} }
	}
	return &Registry{cfg: c, log: c.Log.Named("session"), nodes: map[string]*entry{}, seen: map[string]time.Time{}, done: make(chan struct{}),
		probes: probes{waiting: map[uint64]probe{}}}
}

// Handle sets the Handler, before the first Serve: who handles sessions needs
// the Registry to answer, so one of the two comes later.
func (r *Registry) Handle(h Handler) { r.cfg.Handler = h }

// Send queues a message for a worker and never blocks; false if it is not
// connected now. What was queued when a stream breaks is lost: the next hello
// says what arrived.
func (r *Registry) Send(node string, m *api.MasterMessage) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.nodes[node]
	if e == nil || e.conn == nil {
		return false
	}
	return e.conn.push(m)
}

// Nodes lists the workers that are connected or in their lease, by id.
func (r *Registry) Nodes() []Node {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Node, 0, len(r.nodes))
	for _, e := range r.nodes {
		n := e.node
		n.Connected = e.conn != nil
		list = append(list, n)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].ID < list[j].ID })
	return list
}

// LastSeen is when a node was last heard of in this leader's term; zero: never.
func (r *Registry) LastSeen(node string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.nodes[node]; e != nil {
		return e.node.LastSeen
	}
	return r.seen[node]
}

// remember keeps when a node was last heard of that is gone, as long as it may come back. Called with mu held.
func (r *Registry) remember(n Node) {
	maps.DeleteFunc(r.seen, func(id string, _ time.Time) bool {
		_, err := r.admitted(id)
		return err != nil
	})
	r.seen[n.ID] = n.LastSeen
}

// Connected says whether a worker has a stream now.
func (r *Registry) Connected(node string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.nodes[node]
	return e != nil && e.conn != nil
}

// Close ends every session, tells the Handler nothing more, and waits.
func (r *Registry) Close() {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.done)
		for _, e := range r.nodes {
			if e.timer != nil && e.timer.Stop() {
				r.wg.Done()
			}
			if e.conn != nil {
				e.conn.end(ErrClosed)
				e.conn = nil
			}
		}
		r.nodes = map[string]*entry{}
	}
	r.mu.Unlock()
	r.wg.Wait()
}

package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/api"
)

// conn is one stream's outgoing queue and its end.
type conn struct {
	mu    sync.Mutex
	queue []*api.MasterMessage
	wake  chan struct{} // capacity 1
	over  chan struct{}
	cause error
}

func newConn() *conn {
	return &conn{wake: make(chan struct{}, 1), over: make(chan struct{})}
}

// push queues a message; false if the stream is at its end.
func (c *conn) push(m *api.MasterMessage) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil {
		return false
	}
	if len(c.queue) >= queueLimit {
		c.cause = ErrOverflow
		close(c.over)
		return false
	}
	c.queue = append(c.queue, m)
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return true
}

func (c *conn) take() []*api.MasterMessage {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.queue
	c.queue = nil
	return q
}

// end ends the stream; the first cause counts.
func (c *conn) end(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil {
		c.cause = cause
		close(c.over)
	}
}

func (c *conn) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// Serve carries one worker's session until the stream, the lease or this
// leader's term ends; the error says which. It refuses nodes that are not
// admitted and workers that have seen a newer term. A newer session of the same
// node replaces the older one. The worker's closing its side (io.EOF) is its
// goodbye: it is Down at once. After any other end the lease decides.
func (r *Registry) Serve(ctx context.Context, nodeID string, s Stream) error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return ErrClosed
	}
	r.wg.Add(2)
	r.mu.Unlock()
	defer r.wg.Done()

	hellos := make(chan *api.WorkerHello, 1)
	c := newConn()
	var e *entry
	ready := make(chan struct{}) // closed when e is set and greeted
	go func() {
		defer r.wg.Done()
		r.receive(nodeID, s, c, hellos, ready, &e)
	}()

	hello, err := r.greet(ctx, nodeID, c, hellos)
	if err != nil {
		c.end(err)
		close(ready)
		return err
	}
	node, err := r.admit(nodeID, hello)
	if err != nil {
		c.end(err)
		close(ready)
		return err
	}
	if err := r.alone(ctx, nodeID, hello); err != nil {
		c.end(err)
		close(ready)
		return err
	}
	if node, err = r.find(ctx, node, hello); err != nil {
		c.end(err)
		close(ready)
		return err
	}
	welcome := r.cfg.Welcome(node)
	err = s.Send(&api.MasterMessage{Message: &api.MasterMessage_Welcome{Welcome: welcome}})
	if err == nil && misplaced(node, hello) { // it has heard where it belongs, and comes again as that
		err = fmt.Errorf("%w: %s of %q", ErrMisplaced, node.Role, node.Cluster)
	}
	if err != nil {
		c.end(err)
		close(ready)
		return fmt.Errorf("welcome %s: %w", nodeID, err)
	}
	hello.Problem = cmp.Or(hello.Problem, r.unready(node))
	e, err = r.open(node, hello, c)
	if err != nil {
		c.end(err) // before ready: nothing of this stream is delivered
		close(ready)
		return err
	}
	close(ready)
	err = write(ctx, s, c)
	r.detach(e, c, err)
	return err
}

// greet waits for the hello, at most for a lease.
func (r *Registry) greet(ctx context.Context, nodeID string, c *conn, hellos <-chan *api.WorkerHello) (*api.WorkerHello, error) {
	patience := time.NewTimer(r.cfg.Lease)
	defer patience.Stop()
	select {
	case h := <-hellos:
		return h, nil
	case <-c.over:
		return nil, fmt.Errorf("hello of %s: %w", nodeID, c.err())
	case <-patience.C:
		return nil, fmt.Errorf("hello of %s: %w", nodeID, ErrLeaseOver)
	case <-r.done:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// receive reads the stream to its end. It alone calls s.Receive.
func (r *Registry) receive(nodeID string, s Stream, c *conn, hellos chan<- *api.WorkerHello, ready <-chan struct{}, e **entry) {
	m, err := s.Receive()
	if err != nil {
		c.end(err)
		return
	}
	hello := m.GetHello()
	if hello == nil {
		c.end(fmt.Errorf("first message is not a hello: %w", ErrProtocol))
		return
	}
	hellos <- hello
	<-ready
	for {
		m, err := s.Receive()
		if err != nil {
			c.end(err)
			return
		}
		if c.err() != nil {
			return
		}
		if m.GetHello() != nil {
			c.end(fmt.Errorf("second hello: %w", ErrProtocol))
			return
		}
		r.deliver(nodeID, *e, c, m)
	}
}

// write sends what is queued until the stream is over.
func write(ctx context.Context, s Stream, c *conn) error {
	for {
		for _, m := range c.take() {
			if err := s.Send(m); err != nil {
				c.end(err)
				return c.err()
			}
		}
		select {
		case <-c.wake:
		case <-c.over:
			return c.err()
		case <-ctx.Done():
			c.end(ctx.Err())
			return c.err()
		}
	}
}

// open makes c the node's session and says Up.
func (r *Registry) open(node *state.Node, h *api.WorkerHello, c *conn) (*entry, error) {
	for {
		r.mu.Lock()
		if r.closed {
			r.mu.Unlock()
			return nil, ErrClosed
		}
		e := r.nodes[node.ID]
		if e == nil {
			e = &entry{}
			r.nodes[node.ID] = e
		}
		r.mu.Unlock()

		e.order.Lock()
		r.mu.Lock()
		if r.closed || r.nodes[node.ID] != e {
			r.mu.Unlock()
			e.order.Unlock()
			continue // it went Down between the two locks
		}
		if e.conn != nil {
			e.conn.end(ErrReplaced)
		}
		e.conn = c
		e.node = Node{
			ID: node.ID, Address: h.Address, Cluster: node.Cluster, Role: node.Role,
			Slots: int(h.Slots), Memory: h.MemoryBytes, Disk: h.DiskBytes, DiskFree: h.DiskFreeBytes,
			PID: h.Pid, Version: h.Version, Protocol: max(1, int(h.Protocol)), Incarnation: h.Incarnation, LastSeen: time.Now(),
		}
		r.renew(e)
		r.mu.Unlock()
		r.log.Info("worker connected", zap.String("node", node.ID), zap.String("address", h.Address))
		r.cfg.Handler.Up(node.ID, h)
		e.order.Unlock()
		return e, nil
	}
}

// renew starts the lease again. Registry.mu is held.
func (r *Registry) renew(e *entry) {
	e.last = false
	r.wind(e, r.cfg.Lease)
}

// wind sets the entry's timer. Registry.mu is held.
func (r *Registry) wind(e *entry, d time.Duration) {
	if e.timer != nil {
		if e.timer.Stop() {
			e.due = time.Now().Add(d)
			e.timer.Reset(d)
		} // else it is firing: expire sees LastSeen
		return
	}
	r.wg.Add(1)
	e.due = time.Now().Add(d)
	e.timer = time.AfterFunc(d, func() {
		defer r.wg.Done()
		r.expire(e)
	})
}

// expire is the end of a lease, unless it was renewed meanwhile.
func (r *Registry) expire(e *entry) {
	e.order.Lock()
	defer e.order.Unlock()
	r.mu.Lock()
	e.timer = nil
	if r.closed || e.gone {
		r.mu.Unlock()
		return
	}
	if time.Since(e.node.LastSeen) < r.cfg.Lease {
		r.renew(e)
		r.mu.Unlock()
		return
	}
	if !e.last {
		e.last = true
		if time.Since(e.due) > lateness {
			r.wind(e, r.cfg.Lease)
		} else {
			r.wind(e, lastMoment)
		}
		r.mu.Unlock()
		return
	}
	r.mu.Unlock()
	r.down(e, ErrLeaseOver)
}

// down takes the node out and says so. e.order is held, Registry.mu is not.
func (r *Registry) down(e *entry, cause error) {
	r.mu.Lock()
	if r.closed || e.gone {
		r.mu.Unlock()
		return
	}
	e.gone = true
	delete(r.nodes, e.node.ID)
	r.remember(e.node)
	if e.timer != nil && e.timer.Stop() {
		r.wg.Done()
	}
	c := e.conn
	e.conn = nil
	r.mu.Unlock()
	if c != nil {
		c.end(cause)
	}
	r.log.Info("worker gone", zap.String("node", e.node.ID), zap.String("reason", cause.Error()))
	r.cfg.Handler.Down(e.node.ID, cause.Error())
}

// errGoodbye is the Down reason of a worker that closed its session in order.
var errGoodbye = errors.New("the worker ended")

// detach is the end of a stream: Down at once on a goodbye or a termination,
// else the lease runs on.
func (r *Registry) detach(e *entry, c *conn, cause error) {
	e.order.Lock()
	defer e.order.Unlock()
	r.mu.Lock()
	if e.gone || e.conn != c {
		r.mu.Unlock()
		return
	}
	e.conn = nil
	r.mu.Unlock()
	switch {
	case errors.Is(cause, io.EOF):
		r.down(e, errGoodbye)
	case errors.Is(cause, ErrTerminated):
		r.down(e, cause)
	default:
		r.log.Info("worker's stream broke, its lease runs", zap.String("node", e.node.ID), zap.Error(cause))
	}
}

// deliver renews the lease and hands the message on, if c is still the node's session.
func (r *Registry) deliver(nodeID string, e *entry, c *conn, m *api.WorkerMessage) {
	beat := m.GetHeartbeat()
	var pong *api.Pong
	if beat != nil {
		pong = r.cfg.Pong(nodeID)
	}
	node, err := r.admitted(nodeID)
	if err != nil {
		if beat != nil {
			c.end(ErrTerminated)
		}
		return
	}
	e.order.Lock()
	defer e.order.Unlock()
	r.mu.Lock()
	if r.closed || e.gone || e.conn != c {
		r.mu.Unlock()
		return
	}
	e.node.LastSeen = time.Now()
	e.wasHeard()
	r.renew(e)
	stays := node.Cluster == e.node.Cluster && node.Role == e.node.Role
	if beat != nil {
		e.node.DiskFree, e.node.Trust = beat.DiskFreeBytes, beat.Trust
		c.push(&api.MasterMessage{Message: &api.MasterMessage_Pong{Pong: pong}})
		if !stays {
			c.push(assignment(node))
		}
		beat.Problem = cmp.Or(beat.Problem, r.unready(node))
	}
	answer := m.GetProbed()
	if answer != nil {
		r.probed(nodeID, answer)
	}
	r.mu.Unlock()
	if answer == nil && stays {
		r.cfg.Handler.Message(nodeID, m)
	}
}

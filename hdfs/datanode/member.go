package datanode

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"millrace/hdfs"
	"millrace/hdfs/wire"
)

// inFlight is how many packets a member holds: back-pressure begins there.
const inFlight = 6

// lingers is how long a member that has told of a fault waits for the one before to hang up.
const lingers = 2 * time.Second

// member is this node's part in one pipeline. Packets are checked, passed on, and written by a goroutine of their
// own; what comes of it here and below is summed up in ack, which another one sends up whenever it changes.
type member struct {
	n     *Node
	conn  *wire.Conn // to the one before
	setup wire.Setup
	log   *zap.Logger
	done  chan struct{} // the block is nobody's here any more

	writer Writer
	next   *wire.Conn // to the one after, if there is one
	disk   chan *wire.Packet
	free   chan *wire.Packet

	changed chan struct{}
	settled chan struct{} // the last word has been sent

	mu      sync.Mutex
	stopped bool
	standing
}

func newMember(n *Node, conn *wire.Conn, s wire.Setup) *member {
	m := &member{n: n, conn: conn, setup: s, done: make(chan struct{}), disk: make(chan *wire.Packet, inFlight),
		free: make(chan *wire.Packet, inFlight), changed: make(chan struct{}, 1), settled: make(chan struct{}),
		log:      n.log.With(zap.Stringer("block", s.Block), zap.Uint64("stamp", uint64(s.Stamp))),
		standing: standing{last: len(s.Nodes) == 0, below: wire.Ack{}}}
	return m
}

// run takes part until the block is final, somebody fails, or the one before is gone.
func (m *member) run() {
	var acks sync.WaitGroup
	defer acks.Wait()
	defer m.conn.Close()
	acks.Go(m.acknowledge)
	if err := m.turn(); err != nil {
		m.log.Debug("a pipeline broke off", zap.Error(err))
		return
	}
	m.conn.Linger(lingers)
}

// turn is the part of it in which the block and one of the places for writers are this member's. If it gives no
// error the last word has been sent.
func (m *member) turn() error {
	select {
	case m.n.writers <- struct{}{}:
		defer func() { <-m.n.writers }()
	default:
		return m.refuse(wire.Own(fmt.Errorf("%w: %d blocks are being written to this node", hdfs.ErrUnavailable, cap(m.n.writers))))
	}
	if err := m.n.claim(m); err != nil {
		return m.refuse(wire.Own(err))
	}
	defer m.n.release(m)
	return m.take()
}

// refuse tells of a fault, and waits until that is done.
func (m *member) refuse(f *wire.Fault) error {
	m.fail(f)
	<-m.settled
	return nil
}

// take opens the replica here and the way to the next member, and takes packets.
func (m *member) take() error {
	var err error
	if r := m.setup.Recover; r != nil {
		m.writer, err = m.n.cfg.Store.Recover(m.setup.Block, r.From, m.setup.Stamp, r.Length)
	} else {
		m.writer, err = m.n.cfg.Store.Create(hdfs.Block{ID: m.setup.Block, Stamp: m.setup.Stamp, Size: m.setup.Limit})
	}
	if err != nil {
		return m.refuse(wire.Own(err))
	}
	m.n.news.tell(Change{Block: hdfs.Block{ID: m.setup.Block, Stamp: m.setup.Stamp, Size: m.writer.Size()}, State: Unfinished})
	m.update(func() { m.opened, m.received, m.written = true, m.writer.Size(), m.writer.Size() })
	var parts sync.WaitGroup
	defer func() {
		close(m.disk)
		m.hangUp()
		parts.Wait()
		m.returnPackets()
		if !m.final { // nobody else is left to change it
			if err := m.writer.Close(); err != nil {
				m.log.Warn("close an unfinished replica", zap.Error(err))
			}
		}
	}()
	parts.Go(m.write)
	if len(m.setup.Nodes) > 0 {
		if err := m.connect(); err != nil {
			return m.refuse(wire.Way(1, wire.Unreachable, err))
		}
		parts.Go(func() { m.next.Follow(m.n.cfg.Timing, m.heard) })
	}
	for range inFlight {
		m.free <- nil // borrowed when they are needed: a small block takes one
	}
	if err := m.receive(); err != nil {
		return err
	}
	<-m.settled
	return nil
}

// returnPackets gives back those that nobody holds any more; others go with the member.
func (m *member) returnPackets() {
	for {
		select {
		case p := <-m.free:
			if p != nil {
				p.Return()
			}
		default:
			return
		}
	}
}

func (m *member) connect() error {
	to := m.setup.Nodes[0]
	client, err := m.n.cfg.Dialer.Client(to.Node)
	if err != nil {
		return fmt.Errorf("node %s: %w", to.Node, err)
	}
	next, err := wire.Dial(m.n.life, client, to.Address, m.setup.After(), m.n.cfg.Timing)
	if err != nil {
		return fmt.Errorf("node %s: %w", to.Node, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		next.Close()
		return errors.New("the pipeline was given up")
	}
	m.next = next
	return nil
}

// receive takes packets until the last. An error is one that nobody above can be told; nil: there is a last word
// for them, or will be.
func (m *member) receive() error {
	t := m.n.cfg.Timing
	for {
		p := <-m.free
		if p == nil {
			p = wire.Borrow()
		}
		if err := m.conn.Receive(p, t.Stall); err != nil {
			if errors.Is(err, wire.ErrProtocol) {
				m.fail(wire.Way(0, wire.Protocol, err))
				return nil
			}
			return err
		}
		if err := m.check(p); err != nil {
			m.fail(wire.Way(0, wire.CodeOf(err), fmt.Errorf("%s: %w", m.setup.Block, err)))
			return nil
		}
		last := p.Final
		m.update(func() { m.received, m.whole = p.End(), last })
		// If it cannot be sent, whoever listens to the next member hears why.
		unsent := m.next != nil && m.next.Send(p, t.Slow) != nil
		m.disk <- p
		if last || unsent || m.failed() {
			return nil
		}
	}
}

// check says whether a packet is the next one, and whole.
func (m *member) check(p *wire.Packet) error {
	if p.Offset != m.received { // only this goroutine changes it
		return fmt.Errorf("%w: packet at offset %d, where %d is next", wire.ErrProtocol, p.Offset, m.received)
	}
	if p.End() > m.setup.Limit {
		return fmt.Errorf("%w: %d bytes of a block that shall have %d at the most", wire.ErrProtocol, p.End(), m.setup.Limit)
	}
	return p.Verify()
}

// write is the goroutine that brings packets to the disk.
func (m *member) write() {
	var sums []uint32
	for p := range m.disk {
		if !m.failed() {
			sums = p.Sums(sums[:0])
			if err := m.store(p, sums); err != nil {
				m.log.Warn("write a replica", zap.Error(err))
				m.fail(wire.Own(err))
			}
		}
		m.free <- p
	}
}

func (m *member) store(p *wire.Packet, sums []uint32) error {
	if p.Len() > 0 {
		if err := m.writer.Write(p.Data(), sums); err != nil {
			return err
		}
		end := p.End()
		m.update(func() { m.written = end })
	}
	if !p.Final {
		return nil
	}
	b, err := m.writer.Finalize()
	if err != nil {
		return err
	}
	m.n.news.tell(Change{Block: b, State: Final})
	m.update(func() { m.final = true })
	return nil
}

// heard takes in what the next member says.
func (m *member) heard(a wire.Ack) {
	m.update(func() {
		m.below = a
		if a.Fault != nil && m.fault == nil {
			m.fault = a.Fault.Later()
			m.fault.Text = m.named(m.fault)
		}
	})
}

// named says of whom a text is, where the next member could not.
func (m *member) named(f *wire.Fault) string {
	if f.Member == 1 && f.Code == wire.Unreachable {
		return fmt.Sprintf("node %s: %s", m.setup.Nodes[0].Node, f.Text)
	}
	return f.Text
}

func (m *member) fail(f *wire.Fault) {
	m.update(func() {
		if m.fault == nil {
			m.fault = f
		}
	})
}

func (m *member) failed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fault != nil
}

func (m *member) update(change func()) {
	m.mu.Lock()
	change()
	m.mu.Unlock()
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// stop breaks it all off, from outside.
func (m *member) stop() {
	m.mu.Lock()
	m.stopped = true
	m.mu.Unlock()
	m.conn.Close()
	m.hangUp()
}

func (m *member) hangUp() {
	m.mu.Lock()
	next := m.next
	m.mu.Unlock()
	if next != nil {
		next.Close()
	}
}

// acknowledge is the goroutine that speaks to the one before: at once when there is news, else every beat.
func (m *member) acknowledge() {
	defer close(m.settled)
	t := m.n.cfg.Timing
	tick := time.NewTicker(t.Beat)
	defer tick.Stop()
	for {
		a := m.ack()
		if m.conn.Acknowledge(a, t.Stall) != nil {
			m.conn.Close() // so that receive ends
			return
		}
		if a.State >= wire.Final {
			return
		}
		select {
		case <-m.changed:
		case <-tick.C:
		}
	}
}

// ack sums up how it stands here and below.
func (m *member) ack() wire.Ack {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.standing.ack()
}

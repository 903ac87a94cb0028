package blockmanager

import (
	"cmp"
	"slices"
	"time"

	"go.uber.org/zap"

	"millrace/hdfs"
	"millrace/hdfs/placement"
)

const (
	// parkFor is how long a block waits that no node could take, before that is asked again.
	parkFor = 10 * time.Second
	// shyFor is how long a node is passed over for a block of which a copy to it has failed, if there are others.
	shyFor = 5 * time.Minute
	// restFor is how long it is not even asked, though there be no other.
	restFor = 10 * time.Second
	// searchLimit bounds how many blocks a Tick passes over, as their nodes are busy, to find one whose are not.
	searchLimit = 5000
)

// copying is a copy that was ordered.
type copying struct {
	block    hdfs.Block
	from, to *node
	until    moment
}

// copiesBegun is how many copies a node is taken to begin in a second when they are small: its turn comes with the next call, and then
// each is made safe on a disk.
const copiesBegun = 20

// speed is how fast one node sends, or takes, copies.
func (m *Manager) speed() placement.Speed {
	return placement.Speed{Rate: max(m.cfg.Rate, 0), Copies: copiesBegun}
}

// MoreCopies gives orders for copies alone, as nodes have become free for some since the last Tick. It may be called at any time.
func (m *Manager) MoreCopies() map[string]*Orders {
	defer m.lock()()
	if !m.ready || m.short.tree.Len() == 0 {
		return nil
	}
	orders := map[string]*Orders{}
	m.orderCopies(orders)
	return orders
}

// orderCopies orders copies, the most endangered blocks first, as far as nodes are free for them.
func (m *Manager) orderCopies(orders map[string]*Orders) {
	for _, n := range m.nodes.byIndex {
		if n != nil {
			m.refreshStreams(n)
		}
	}
	var next []shortage
	m.short.tree.Scan(func(sh shortage) bool {
		next = append(next, sh)
		return len(next) < searchLimit
	})
	for _, sh := range next {
		if !slices.ContainsFunc(m.nodes.byIndex, maySend) || !slices.ContainsFunc(m.nodes.byIndex, mayTake) {
			return
		}
		m.orderCopy(sh.id, orders)
	}
}

// refreshStreams settles whether a node may send, and take, another copy now.
func (m *Manager) refreshStreams(n *node) {
	n.maySend = n.standing == live && n.sending.free(m.now, m.cfg.Streams, m.cfg.Rate)
	n.mayTake = n.standing == live && !n.draining && n.taking.free(m.now, m.cfg.Streams, m.cfg.Rate)
}

func maySend(n *node) bool { return n != nil && n.maySend }
func mayTake(n *node) bool { return n != nil && n.mayTake }

// orderCopy orders one copy of a block, if it needs one and the nodes are free for it.
func (m *Manager) orderCopy(id hdfs.BlockID, orders map[string]*Orders) {
	b, known := m.cfg.Names.Block(id)
	s := m.suspects[id]
	if !known || !b.Final {
		m.look(id)
		return
	}
	r := m.replicas(b, s)
	lack := m.lacks(b, &r)
	if lack == lacksNone || r.good() == 0 {
		m.enqueue(b, s, &r)
		return
	}
	sources := slices.DeleteFunc(slices.Concat(r.stay, r.leave), func(n *node) bool { return !n.maySend })
	if len(sources) == 0 {
		return // later
	}
	could := m.couldTake(b, s)
	may := func(n *node) bool { return could(n) && (lack != lacksSpread || n.Rack != r.stay[0].Rack) }
	var free []*node
	for _, n := range m.nodes.byIndex {
		if mayTake(n) && may(n) && !m.resting(s, n) {
			free = append(free, n)
		}
	}
	switch {
	case len(free) > 0:
		from := m.nodes.byID[placement.Source(m.placed(sources, b.Size)).ID]
		m.beginCopy(b, s, from, m.chooseTaker(b, s, &r, free), orders)
	case !slices.ContainsFunc(m.nodes.byIndex, may):
		m.park(b, s)
	}
}

// couldTake gives the rule that tells whether a node could take a copy of a block, if it had nothing else to do: if it
// stays, has room, and has nothing of the block, not even a bad or a stale replica.
func (m *Manager) couldTake(b Block, s *suspect) func(*node) bool {
	_, has := m.places.of(b.ID, nil)
	for _, k := range s.marks {
		if k.kind != shy {
			has = append(has, k.node)
		}
	}
	for _, c := range m.copies[b.ID] {
		has = append(has, c.to.index)
	}
	return func(n *node) bool {
		return n != nil && n.standing == live && !n.draining && !slices.Contains(has, n.index) && n.room(b.Size) >= b.Size
	}
}

// resting tells whether a copy to a node has failed just now.
func (m *Manager) resting(s *suspect, n *node) bool {
	k := s.find(n.index, shy)
	return k != nil && m.now < k.until-shyFor+restFor
}

// chooseTaker chooses among nodes that are free and could take the block: by the rules of placement, and passing over
// those that have failed a copy of it while there are others.
func (m *Manager) chooseTaker(b Block, s *suspect, r *replicas, free []*node) *node {
	var avoid []string
	for _, k := range s.marks {
		if k.kind == shy && k.until > m.now {
			avoid = append(avoid, m.nodes.byIndex[k.node].ID)
		}
	}
	have := slices.Clone(r.stay) // what leaves is no help to the spread over racks
	for _, c := range m.copies[b.ID] {
		have = append(have, c.to)
	}
	want := placement.Want{Count: 1, Size: b.Size, Have: m.placed(have, b.Size), Avoid: avoid}
	chosen := placement.Choose(m.cfg.Rand, m.placed(free, b.Size), want)
	if len(chosen) == 0 && len(avoid) > 0 {
		want.Avoid = nil
		chosen = placement.Choose(m.cfg.Rand, m.placed(free, b.Size), want)
	}
	return m.nodes.byID[chosen[0].ID]
}

// park takes a block out of the queue for a while that no node can take.
func (m *Manager) park(b Block, s *suspect) {
	m.unqueue(s)
	s.why = "no other core node can take it"
	m.checks.add(m.now+parkFor, b.ID)
}

func (m *Manager) beginCopy(b Block, s *suspect, from, to *node, orders map[string]*Orders) {
	rate := max(m.cfg.Rate, 0) // each may have all of it: the next one begins when the node has made up for this one
	c := &copying{block: b.Block, from: from, to: to, until: m.now + m.cfg.CopyTimeout}
	if rate > 0 {
		c.until += 4 * time.Duration(float64(b.Size)/float64(rate)*float64(time.Second))
	}
	m.copies[b.ID] = append(m.copies[b.ID], c)
	from.sending.begin(b.Size)
	to.taking.begin(b.Size)
	to.promised += b.Size
	m.refreshStreams(from)
	m.refreshStreams(to)
	o := orderFor(orders, from)
	o.Copy = append(o.Copy, Copy{Block: b.Block, To: to.Node, Rate: rate})
	m.counts.CopiesBegun++
	r := m.replicas(b, s)
	m.enqueue(b, s, &r)
	m.cfg.Log.Debug("copy block", zap.Stringer("block", b.ID), zap.String("node", from.ID), zap.String("to", to.ID))
}

// CopyFailed says that a copy came to nothing. (A source that knows says so; else the time-out does.)
func (m *Manager) CopyFailed(b hdfs.Block, to, reason string) {
	defer m.lock()()
	for _, c := range m.copies[b.ID] {
		if c.to.ID == to {
			m.failCopy(c, reason)
			return
		}
	}
}

// failCopy ends a copy that came to nothing; the next one goes elsewhere, if it can.
func (m *Manager) failCopy(c *copying, reason string) {
	if m.nodes.byID[c.to.ID] == c.to {
		m.suspect(c.block.ID).put(mark{node: c.to.index, kind: shy, until: m.now + shyFor})
		m.checks.add(m.now+shyFor, c.block.ID)
	}
	m.cancelCopy(c, reason)
}

// cancelCopy ends a copy that came to nothing through no fault of the node that was to take it.
func (m *Manager) cancelCopy(c *copying, reason string) {
	m.endCopy(c)
	m.counts.CopiesFailed++
	m.cfg.Log.Warn("copy of a block failed", zap.Stringer("block", c.block.ID), zap.String("node", c.from.ID),
		zap.String("to", c.to.ID), zap.String("reason", reason))
	m.look(c.block.ID)
}

// copyEnded notes that a copy has arrived, if it was one.
func (m *Manager) copyEnded(id hdfs.BlockID, to *node) {
	for _, c := range m.copies[id] {
		if c.to == to {
			m.endCopy(c)
			m.counts.CopiesDone++
			m.counts.BytesCopied += c.block.Size
			return
		}
	}
}

func (m *Manager) endCopy(c *copying) {
	c.from.sending.end(c.block.Size)
	c.to.taking.end(c.block.Size)
	c.to.promised -= c.block.Size
	left := slices.DeleteFunc(m.copies[c.block.ID], func(o *copying) bool { return o == c })
	if len(left) == 0 {
		delete(m.copies, c.block.ID)
	} else {
		m.copies[c.block.ID] = left
	}
}

// copiesThat lists the copies for which a condition holds, in the order of their blocks.
func (m *Manager) copiesThat(which func(*copying) bool) []*copying {
	var ended []*copying
	for _, cs := range m.copies {
		for _, c := range cs {
			if which(c) {
				ended = append(ended, c)
			}
		}
	}
	slices.SortFunc(ended, func(a, b *copying) int {
		return cmp.Or(cmp.Compare(a.block.ID, b.block.ID), cmp.Compare(a.to.index, b.to.index))
	})
	return ended
}

// endOverdueCopies gives up copies of which nothing was heard for too long.
func (m *Manager) endOverdueCopies() {
	for _, c := range m.copiesThat(func(c *copying) bool { return c.until <= m.now }) {
		m.failCopy(c, "nothing was heard of it")
	}
}

// abandon ends the copies from and to a node, and forgets what it was to be told.
func (m *Manager) abandon(n *node, reason string) {
	for _, c := range m.copiesThat(func(c *copying) bool { return c.from == n || c.to == n }) {
		m.cancelCopy(c, reason)
	}
	for _, d := range n.deletes {
		if s := m.suspects[d.id]; s.find(n.index, doomed) != nil {
			s.drop(n.index, doomed)
			m.checks.add(m.now, d.id)
		}
	}
	n.deletes = nil
}

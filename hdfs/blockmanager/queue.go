package blockmanager

import (
	"cmp"

	"github.com/tidwall/btree"

	"millrace/hdfs"
)

// shortage is a block that lacks a replica, and how much that endangers it.
type shortage struct {
	id      hdfs.BlockID
	good    int  // live good replicas
	wanted  int  // replicas
	crowded bool // it lacks none, but all are on one rack
}

func (a shortage) compare(b shortage) int {
	return cmp.Or(bools(a.crowded, b.crowded), cmp.Compare(a.good, b.good), -cmp.Compare(a.wanted, b.wanted), cmp.Compare(a.id, b.id))
}

func bools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// queue is the blocks that lack a replica, the most endangered first: fewest live replicas, then most wanted.
type queue struct{ tree *btree.BTreeG[shortage] }

func (q *queue) init() {
	q.tree = btree.NewBTreeGOptions(func(a, b shortage) bool { return a.compare(b) < 0 }, btree.Options{NoLocks: true})
}

// unqueue takes a block out of the queue.
func (m *Manager) unqueue(s *suspect) {
	if s.queued != nil {
		m.short.tree.Delete(*s.queued)
		s.queued = nil
	}
	s.why = ""
}

// enqueue puts a block into its place in the queue, or out of it.
func (m *Manager) enqueue(b Block, s *suspect, r *replicas) {
	m.unqueue(s)
	if r.good() == 0 {
		return
	}
	sh := shortage{id: b.ID, good: r.good(), wanted: b.Wanted}
	switch m.lacks(b, r) {
	case lacksNone:
		return
	case lacksSpread:
		sh.crowded = true
	}
	s.queued = &sh
	m.short.tree.Set(sh)
}

// lack is what a copy would be good for.
type lack uint8

const (
	lacksNone lack = iota
	lacksReplica
	lacksSpread // enough replicas, all on one rack
)

func (m *Manager) lacks(b Block, r *replicas) lack {
	switch {
	case len(r.stay)+r.away+r.coming < m.target(b, r):
		return lacksReplica
	case r.coming == 0 && r.away == 0 && m.crowded(b, r):
		return lacksSpread
	}
	return lacksNone
}

// check is a time at which a block is to be looked at.
type check struct {
	due moment
	id  hdfs.BlockID
}

// checks is a calendar of blocks to look at.
type checks struct{ tree *btree.BTreeG[check] }

func (c *checks) init() {
	c.tree = btree.NewBTreeGOptions(func(a, b check) bool {
		return cmp.Or(cmp.Compare(a.due, b.due), cmp.Compare(a.id, b.id)) < 0
	}, btree.Options{NoLocks: true})
}

func (c *checks) add(due moment, id hdfs.BlockID) { c.tree.Set(check{due, id}) }

// next takes the first block out whose time has come.
func (c *checks) next(now moment) (hdfs.BlockID, bool) {
	first, ok := c.tree.Min()
	if !ok || first.due > now {
		return 0, false
	}
	c.tree.PopMin()
	return first.id, true
}

// due tells whether there is a block whose time has come.
func (c *checks) due(now moment) bool {
	first, ok := c.tree.Min()
	return ok && first.due <= now
}

// checkDue looks at the blocks whose time has come, a bounded number.
func (m *Manager) checkDue() {
	for range m.cfg.SweepBurst {
		id, ok := m.checks.next(m.now)
		if !ok {
			return
		}
		m.look(id)
	}
}

package blockmanager

import (
	"go.uber.org/zap"

	"millrace/hdfs"
)

// deletion is a doom that waits until its node can be told.
type deletion struct {
	id    hdfs.BlockID
	cause cause
}

// doom decides that a replica is deleted: from now on it counts for nothing. Only nodes whose full report is in are
// told so.
func (m *Manager) doom(s *suspect, n *node, b hdfs.Block, c cause) {
	if n.standing != live || s.find(n.index, doomed) != nil {
		return
	}
	s.put(mark{node: n.index, kind: doomed, cause: c, block: b})
	n.deletes = append(n.deletes, deletion{id: b.ID, cause: c})
}

// orderDeletes tells nodes what to delete, a bounded number at once. Much may have happened since it was decided: what
// does not hold any more is given up.
func (m *Manager) orderDeletes(orders map[string]*Orders) {
	for _, n := range m.nodes.byIndex {
		if n == nil || n.standing != live {
			continue
		}
		told := 0
		for len(n.deletes) > 0 && told < m.cfg.Deletes {
			d := n.deletes[0]
			n.deletes = n.deletes[1:]
			if m.orderDelete(n, d, orders) {
				told++
			}
		}
		if len(n.deletes) == 0 {
			n.deletes = nil
		}
	}
}

func (m *Manager) orderDelete(n *node, d deletion, orders map[string]*Orders) bool {
	s := m.suspects[d.id]
	k := s.find(n.index, doomed)
	if k == nil || k.sent {
		return false
	}
	if !m.holds(d.id, s, d.cause) {
		s.drop(n.index, doomed)
		m.look(d.id)
		return false
	}
	k.sent, k.until = true, m.now+m.cfg.CopyTimeout
	m.checks.add(k.until, d.id)
	o := orderFor(orders, n)
	o.Delete = append(o.Delete, k.block)
	m.counts.Deletes[d.cause]++
	m.cfg.Log.Debug("delete replica", zap.Stringer("block", d.id), zap.String("node", n.ID), zap.Stringer("cause", d.cause))
	return true
}

// holds tells whether the reason for a deletion still stands, all that are doomed not counted.
func (m *Manager) holds(id hdfs.BlockID, s *suspect, c cause) bool {
	b, known := m.cfg.Names.Block(id)
	switch {
	case c == orphaned:
		return !known
	case !known || !b.Final:
		return false
	}
	r := m.replicas(b, s)
	if r.accused > 0 {
		return false
	}
	if c == surplus {
		return len(r.stay) >= b.Wanted
	}
	return r.good() > 0
}

func orderFor(orders map[string]*Orders, n *node) *Orders {
	o := orders[n.ID]
	if o == nil {
		o = &Orders{}
		orders[n.ID] = o
	}
	return o
}

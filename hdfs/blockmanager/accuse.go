package blockmanager

import (
	"slices"

	"go.uber.org/zap"

	"millrace/hdfs"
)

const (
	maxAccusations  = 1000 // of one node's replicas that wait for it to be told; what is accused beyond, the scrubber finds
	verifiesPerTick = 10   // that a node is told of at once
)

// Accused says that a reader found a node's replica damaged. That may be the reader's own memory or network: the node
// is told to read the replica at once, and it says Bad or Verified then. Until it does, the replica is the last to be
// read, and no other one of the block is deleted.
func (m *Manager) Accused(b hdfs.Block, id, reason string) {
	defer m.lock()()
	n := m.nodes.byID[id]
	if n == nil || len(n.verifies) >= maxAccusations {
		return
	}
	if in, known := m.cfg.Names.Block(b.ID); known && in.Final {
		m.settle(in) // no event may have told that it is
	}
	if stamp, ok := m.places.has(b.ID, n.index); !ok || stamp != b.Stamp {
		return
	}
	s := m.suspect(b.ID)
	if s.find(n.index, accused) == nil && s.find(n.index, bad) == nil {
		s.put(mark{node: n.index, kind: accused, block: b})
		n.verifies = append(n.verifies, b.ID)
		m.counts.Accusations++
		m.cfg.Log.Info("a replica is accused", zap.Stringer("block", b.ID), zap.String("node", id), zap.String("reason", reason))
	}
	m.tidy(b.ID, s)
}

// orderVerifies tells nodes which of their replicas are accused, a bounded number at once.
func (m *Manager) orderVerifies(orders map[string]*Orders) {
	for _, n := range m.nodes.byIndex {
		if n == nil || n.standing != live {
			continue
		}
		for told := 0; len(n.verifies) > 0 && told < verifiesPerTick; {
			id := n.verifies[0]
			n.verifies = n.verifies[1:]
			k := m.suspects[id].find(n.index, accused)
			if k == nil || k.sent {
				continue // it is settled
			}
			k.sent, k.until = true, m.now+m.cfg.CopyTimeout
			m.checks.add(k.until, id)
			o := orderFor(orders, n)
			o.Verify = append(o.Verify, k.block)
			told++
		}
	}
}

// accuseAgain has a node told once more that has said nothing about an accused replica.
func (m *Manager) accuseAgain(id hdfs.BlockID, s *suspect, k mark) {
	stamp, ok := m.places.has(id, k.node)
	if !ok || stamp != k.block.Stamp {
		s.drop(k.node, accused)
		return
	}
	k.sent = false
	s.put(k)
	n := m.nodes.byIndex[k.node]
	n.verifies = append(n.verifies, id)
}

// accusedLast puts nodes whose replica is accused behind the others.
func (m *Manager) accusedLast(id hdfs.BlockID, nodes []hdfs.Node) []hdfs.Node {
	s := m.suspects[id]
	if s == nil {
		return nodes
	}
	is := func(n hdfs.Node) bool { return s.find(m.nodes.byID[n.ID].index, accused) != nil }
	slices.SortStableFunc(nodes, func(a, b hdfs.Node) int { return bools(is(a), is(b)) })
	return nodes
}

package blockmanager

import (
	"math"
	"slices"

	"go.uber.org/zap"

	"millrace/hdfs"
)

// NodeUp says that a core node has a session with the leader, a new one if it had one. Its full report follows.
func (m *Manager) NodeUp(n hdfs.Node) {
	defer m.lock()()
	t := m.nodes.get(n.ID)
	if t.up {
		m.abandon(t, "the node's session ended")
	}
	t.Node, t.up, t.reported, t.changed = n, true, false, m.now
	t.standing = waited
	t.reporting = map[hdfs.BlockID]bool{}
	m.refreshNodes()
}

// NodeDown says that a node's session ended. It may come back: its replicas are not replaced at once.
func (m *Manager) NodeDown(id string) {
	defer m.lock()()
	n := m.nodes.byID[id]
	if n == nil || !n.up {
		return
	}
	n.up, n.reported, n.changed = false, false, m.now
	n.standing = waited
	n.reporting = nil
	m.abandon(n, "the node went down")
	m.refreshNodes()
}

// NodeGone says that a node has left the cluster for good: it is not waited for.
func (m *Manager) NodeGone(id string) {
	defer m.lock()()
	delete(m.nodes.awaited, id)
	delete(m.nodes.drained, id)
	n := m.nodes.byID[id]
	if n == nil {
		return
	}
	n.up, n.standing = false, lost
	m.forget(n)
	m.refreshNodes()
}

func (m *Manager) refreshNodes() {
	m.nodes.refresh()
	m.sweep.all()
}

// Report takes a piece of a node's full report; with last it is complete, and what the node had before and did not
// name in it, it has no more. A node may report in full again, as when a disk went with nobody knows what. Pieces may be of any size and empty; a few thousand blocks keep the lock short.
func (m *Manager) Report(id string, piece []Replica, last bool) {
	defer m.lock()()
	n := m.nodes.byID[id]
	if n == nil || !n.up {
		return
	}
	if n.reporting == nil {
		n.reporting = map[hdfs.BlockID]bool{}
	}
	for _, r := range piece {
		n.reporting[r.ID] = true
		m.learn(n, r)
	}
	if !last {
		return
	}
	for _, b := range m.places.held(n.index, 0, math.MaxInt) {
		if !n.reporting[b] {
			m.unlearn(n, b)
		}
	}
	for b, s := range m.suspects {
		if s.find(n.index, odd) != nil && !n.reporting[b] {
			m.unlearn(n, b)
		}
	}
	m.cfg.Log.Info("full block report", zap.String("node", id), zap.Int("blocks", len(n.reporting)))
	n.reporting, n.reported, n.standing = nil, true, live
	delete(m.nodes.awaited, id)
	m.refreshNodes()
}

// Received says that a node has a whole replica, from a pipeline or a copy. What it says of an older stamp than that with which it is in a
// pipeline by now tells nothing of that pipeline.
func (m *Manager) Received(id string, b hdfs.Block) {
	defer m.lock()()
	n := m.nodes.byID[id]
	if n == nil || !n.up {
		return
	}
	if n.reporting != nil {
		n.reporting[b.ID] = true
	}
	if m.outdated(n, b) {
		return
	}
	m.acquit(n, b.ID)
	m.copyEnded(b.ID, n)
	if in, known := m.cfg.Names.Block(b.ID); known && in.Stamp == b.Stamp {
		m.pipelineReceived(b.ID, n)
	}
	m.learn(n, Replica{Block: b})
	m.look(b.ID)
}

// Unfinished says that a node has begun to write a replica, in a pipeline or a copy. Of a block that is final already
// nothing is to be learnt from it: Received will say that the copy is whole.
func (m *Manager) Unfinished(id string, b hdfs.Block) {
	defer m.lock()()
	n := m.nodes.byID[id]
	if n == nil || !n.up {
		return
	}
	if n.reporting != nil {
		n.reporting[b.ID] = true
	}
	if in, known := m.cfg.Names.Block(b.ID); !known || !in.Final {
		m.learn(n, Replica{Block: b, Unfinished: true})
	}
}

// learn notes that a node has a replica: among the places if it is what the log says, else as an odd one.
func (m *Manager) learn(n *node, r Replica) {
	b, known := m.cfg.Names.Block(r.ID)
	if known && b.Final && b.Block == r.Block && !r.Unfinished {
		m.settlePlace(b)
		m.places.add(r.ID, r.Stamp, n.index)
		if s := m.suspects[r.ID]; s != nil {
			s.drop(n.index, odd)
			m.tidy(r.ID, s)
		}
		return
	}
	m.places.remove(r.ID, n.index)
	s := m.suspect(r.ID)
	s.drop(n.index, bad, accused)
	s.put(mark{node: n.index, kind: odd, block: r.Block, unfinished: r.Unfinished})
	m.checks.add(m.now, r.ID)
}

// settlePlace makes replicas odd that were learnt under another stamp than the log has.
func (m *Manager) settlePlace(b Block) {
	var buf [8]nodeIndex
	stamp, at := m.places.of(b.ID, buf[:0])
	if len(at) == 0 || stamp == b.Stamp {
		return
	}
	s := m.suspect(b.ID)
	for _, n := range at {
		m.places.remove(b.ID, n)
		s.put(mark{node: n, kind: odd, block: hdfs.Block{ID: b.ID, Stamp: stamp, Size: -1}})
	}
}

// Deleted says that a node has a replica no more.
func (m *Manager) Deleted(id string, b hdfs.Block) {
	defer m.lock()()
	n := m.nodes.byID[id]
	if n == nil {
		return
	}
	if m.outdated(n, b) {
		return
	}
	if n.reporting != nil {
		delete(n.reporting, b.ID)
	}
	m.unlearn(n, b.ID)
	m.look(b.ID)
}

// outdated tells whether a node has said that it has a later replica of a block by now.
func (m *Manager) outdated(n *node, b hdfs.Block) bool {
	if k := m.suspects[b.ID].find(n.index, odd); k != nil && k.block.Stamp > b.Stamp {
		return true
	}
	stamp, ok := m.places.has(b.ID, n.index)
	return ok && stamp > b.Stamp
}

// unlearn notes that a node has no replica of a block; it is to be looked at afterwards.
func (m *Manager) unlearn(n *node, id hdfs.BlockID) {
	m.places.remove(id, n.index)
	if s := m.suspects[id]; s != nil {
		s.drop(n.index, odd, bad, doomed, accused)
		m.tidy(id, s)
	}
	m.checks.add(m.now, id)
}

// Bad says that a node found its own replica damaged, when it scrubbed or copied it. It counts no more, and is deleted once
// there are enough others; if all are bad they are kept.
func (m *Manager) Bad(b hdfs.Block, id, reason string) {
	defer m.lock()()
	n := m.nodes.byID[id]
	if n == nil {
		return
	}
	if in, known := m.cfg.Names.Block(b.ID); known && in.Final {
		m.settle(in) // no event may have told that it is
	}
	if stamp, ok := m.places.has(b.ID, n.index); !ok || stamp != b.Stamp {
		return
	}
	s := m.suspect(b.ID)
	if s.find(n.index, bad) == nil {
		m.counts.BadReplicas++
		m.cfg.Log.Warn("bad replica", zap.Stringer("block", b.ID), zap.String("node", id), zap.String("reason", reason))
	}
	s.drop(n.index, accused)
	s.put(mark{node: n.index, kind: bad, why: reason})
	for _, c := range slices.Clone(m.copies[b.ID]) {
		if c.from == n {
			m.cancelCopy(c, "the replica is damaged")
		}
	}
	m.look(b.ID)
}

// Verified says that a node has read its own replica whole and found it right: whoever called it bad was mistaken.
func (m *Manager) Verified(id string, b hdfs.Block) {
	defer m.lock()()
	n := m.nodes.byID[id]
	if n == nil {
		return
	}
	if stamp, ok := m.places.has(b.ID, n.index); ok && stamp == b.Stamp {
		m.acquit(n, b.ID)
		m.look(b.ID)
	}
}

// acquit takes back that a replica is bad or accused, and that it is to be deleted if the node was not told yet.
func (m *Manager) acquit(n *node, id hdfs.BlockID) {
	s := m.suspects[id]
	if s == nil {
		return
	}
	s.drop(n.index, bad, shy, accused)
	if k := s.find(n.index, doomed); k != nil && !k.sent {
		s.drop(n.index, doomed)
	}
	m.tidy(id, s)
}

// Disks says how a node's disks are. Blocks that went with a disk come as Deleted.
func (m *Manager) Disks(id string, disks []Disk) {
	defer m.lock()()
	if n := m.nodes.byID[id]; n != nil {
		n.disks = disks
	}
}

// DisksOf is what a node has said of its disks.
func (m *Manager) DisksOf(id string) []Disk {
	defer m.lock()()
	if n := m.nodes.byID[id]; n != nil {
		return slices.Clone(n.disks)
	}
	return nil
}

// Drain says that a node is to leave, or not any more: nothing new is placed there, and its blocks are copied to
// others. It may be told before the node is up.
func (m *Manager) Drain(id string, on bool) {
	defer m.lock()()
	if on {
		m.nodes.drained[id] = true
	} else {
		delete(m.nodes.drained, id)
	}
	if n := m.nodes.byID[id]; n != nil && n.draining != on {
		n.draining = on
		m.refreshNodes()
	}
}

// BlockFinal says that the log has fixed a block's stamp and size.
func (m *Manager) BlockFinal(id hdfs.BlockID) {
	defer m.lock()()
	m.look(id)
}

// BlocksGone says that the log has removed blocks, ReplicationChanged that another number of replicas is wanted of
// them. They are looked at by the Ticks that follow.
func (m *Manager) BlocksGone(ids []hdfs.BlockID) { m.checkAll(ids) }

// ReplicationChanged is told with BlocksGone.
func (m *Manager) ReplicationChanged(ids []hdfs.BlockID) { m.checkAll(ids) }

func (m *Manager) checkAll(ids []hdfs.BlockID) {
	defer m.lock()()
	for _, id := range ids {
		m.checks.add(m.now, id)
	}
}

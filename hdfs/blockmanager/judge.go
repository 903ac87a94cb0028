package blockmanager

import (
	"slices"

	"millrace/hdfs"
	"millrace/hdfs/placement"
)

// replicas sorts what is known of a final block by what it is worth.
type replicas struct {
	stay   []*node // good, live, on nodes that stay
	leave  []*node // good, live, on nodes that drain: to be read and copied, but not counted on
	bad    []*node // known to be damaged, live
	away   int     // not there now, but waited for; or just written, and not reported yet
	due    int     // of those away: on nodes that are up, and about to say so
	coming int     // being copied
	unsure int     // on nodes that are up, and do not finish their report
	doomed []*node // their deletion was decided: they count for nothing

	accused int // of all these
}

func (r *replicas) good() int { return len(r.stay) + len(r.leave) }

func (r *replicas) wait(n *node) {
	r.away++
	if n.up {
		r.due++
	}
}

// replicas collects what is known of a final block.
func (m *Manager) replicas(b Block, s *suspect) replicas {
	var r replicas
	var buf [8]nodeIndex
	_, at := m.places.of(b.ID, buf[:0])
	for _, i := range at {
		n := m.nodes.byIndex[i]
		switch {
		case s.find(i, doomed) != nil:
			r.doomed = append(r.doomed, n)
		case n.standing == waited && s.find(i, bad) == nil:
			r.wait(n)
		case n.standing == lost:
			r.unsure++
		case n.standing == waited: // and bad
		case s.find(i, bad) != nil:
			r.bad = append(r.bad, n)
		case n.draining:
			r.leave = append(r.leave, n)
		default:
			r.stay = append(r.stay, n)
		}
		if s.find(i, accused) != nil {
			r.accused++
		}
	}
	if p := m.writing[b.ID]; p != nil && p.final {
		for _, n := range p.nodes {
			if !slices.Contains(at, n.index) && n.standing != lost {
				r.wait(n)
			}
		}
	}
	for _, n := range m.begun(b, s) {
		if n.standing != lost {
			r.wait(n)
		}
	}
	r.coming = len(m.copies[b.ID])
	return r
}

// begun lists the nodes that began a replica of a final block under its stamp and are about to say that it is whole, beyond those of
// the pipeline that is known: a new leader knows of none.
func (m *Manager) begun(b Block, s *suspect) (ns []*node) {
	if s == nil {
		return nil
	}
	p := m.writing[b.ID]
	for _, k := range s.marks {
		if n := m.nodes.byIndex[k.node]; k.awaited(b, m.now) && (p == nil || !slices.Contains(p.nodes, n)) {
			ns = append(ns, n)
		}
	}
	return ns
}

// target is how many good replicas a block should have on nodes that stay: what is wanted, but not more than there are
// nodes; and what it has now it keeps, though some of its nodes be asked to leave.
func (m *Manager) target(b Block, r *replicas) int {
	return min(b.Wanted, max(m.nodes.holders, r.good()))
}

// look decides about a block anew, from all that is known of it. It may be called at any time, of any block.
func (m *Manager) look(id hdfs.BlockID) {
	b, known := m.cfg.Names.Block(id)
	m.lookAt(id, b, known)
}

func (m *Manager) lookAt(id hdfs.BlockID, b Block, known bool) {
	m.lookAtPipeline(id, b, known)
	switch {
	case known && b.Final && m.suspects[id] == nil && m.isWell(b):
		return // like nearly all of them
	case !known:
		m.lookAtUnknown(id)
	case !b.Final:
		m.lookAtUnfinished(id)
	default:
		m.settle(b)
		m.lookAtFinal(b)
	}
}

// isWell tells of a block of which nothing is remembered whether it has its replicas where they should be.
func (m *Manager) isWell(b Block) bool {
	var buf [8]nodeIndex
	stamp, at := m.places.of(b.ID, buf[:0])
	if stamp != b.Stamp || len(at) != b.Wanted || len(at) == 0 {
		return false
	}
	first := m.nodes.byIndex[at[0]]
	oneRack := true
	for _, i := range at {
		n := m.nodes.byIndex[i]
		if n.standing != live || n.draining {
			return false
		}
		oneRack = oneRack && n.Rack == first.Rack
	}
	return !oneRack || len(at) < 2 || len(m.nodes.racks) < 2
}

// lookAtUnknown has the replicas of a block that no file has deleted, after a grace for those who read it.
func (m *Manager) lookAtUnknown(id hdfs.BlockID) {
	_, at := m.places.of(id, nil)
	s := m.suspects[id]
	if len(at) == 0 && s == nil {
		return
	}
	s = m.suspect(id)
	s.state, s.good = well, 0
	m.unqueue(s)
	for _, k := range slices.Clone(s.marks) {
		if k.kind == shy || k.kind == accused || k.kind == doomed && k.sent && k.until <= m.now {
			s.drop(k.node, k.kind)
		}
	}
	if len(at) == 0 && len(s.marks) == 0 {
		s.unknown = false
		m.tidy(id, s)
		return
	}
	if !s.unknown {
		s.unknown, s.since = true, m.now
	}
	if due := s.since + m.cfg.Grace; m.now < due {
		m.checks.add(due, id)
		return
	}
	m.doomAll(id, s, at)
}

// doomAll has all replicas of a block deleted that lie on nodes whose report is in.
func (m *Manager) doomAll(id hdfs.BlockID, s *suspect, at []nodeIndex) {
	if !m.ready {
		return
	}
	stamp, _ := m.places.of(id, nil)
	for _, i := range at {
		m.doom(s, m.nodes.byIndex[i], hdfs.Block{ID: id, Stamp: stamp}, orphaned)
	}
	for _, k := range slices.Clone(s.marks) {
		if k.kind == odd {
			m.doom(s, m.nodes.byIndex[k.node], k.block, orphaned)
		}
	}
}

// lookAtUnfinished leaves a block alone that is being written: its pipeline takes care of it.
func (m *Manager) lookAtUnfinished(id hdfs.BlockID) {
	s := m.suspects[id]
	if s == nil {
		return
	}
	s.unknown = false
	s.state, s.good = well, 0
	m.unqueue(s)
	m.tidy(id, s)
}

// settle sorts the replicas of a block that has become final: those of its stamp and size are good from now on. Unfinished
// ones of its stamp may be whole by now, as their nodes are about to say: they are waited for.
func (m *Manager) settle(b Block) {
	m.settlePlace(b)
	s := m.suspects[b.ID]
	if s == nil {
		return
	}
	for _, k := range slices.Clone(s.marks) {
		if k.kind == odd && k.block == b.Block && !k.unfinished {
			s.drop(k.node, odd)
			m.places.add(b.ID, b.Stamp, k.node)
		}
		if k.kind == odd && k.unfinished && k.block.Stamp == b.Stamp && k.until == 0 {
			k.until = m.now + m.cfg.DownWait
			s.put(k)
			m.checks.add(k.until, b.ID)
		}
	}
	s.unknown = false
	m.tidy(b.ID, s)
}

// lookAtFinal is the heart of it: what a final block has too much, and what it lacks.
func (m *Manager) lookAtFinal(b Block) {
	s := m.suspect(b.ID)
	r := m.replicas(b, s)
	m.expire(b, s, &r)
	if m.ready && r.accused == 0 { // else what is accused may be what is too much
		m.removeSurplus(b, s, &r)
		m.removeBad(b, s, &r)
		m.removeStale(b, s, &r)
	}
	s.state, s.good = m.stateOf(b, &r), r.good()
	m.enqueue(b, s, &r)
	m.tidy(b.ID, s)
}

func (m *Manager) stateOf(b Block, r *replicas) state {
	switch {
	case r.good() == 0 && r.away == 0 && r.unsure == 0 && len(r.bad) > 0:
		return corrupt
	case r.good() == 0 && r.due == 0 && r.unsure == 0 && len(r.doomed) == 0:
		return missing // it may come back with a node that is down: then it is not
	case r.good() == 0 || len(r.stay) < m.target(b, r):
		return under
	}
	return well
}

// expire drops marks whose time is over. A deletion that was not confirmed is ordered again while its reason holds;
// where it does not, as other replicas were lost meanwhile, the replica counts again: nobody said that it is gone.
func (m *Manager) expire(b Block, s *suspect, r *replicas) {
	for _, k := range slices.Clone(s.marks) {
		switch {
		case k.kind == shy && k.until <= m.now:
			s.drop(k.node, shy)
		case k.kind == accused && k.sent && k.until <= m.now:
			m.accuseAgain(b.ID, s, k)
		case k.kind == doomed && k.sent && k.until <= m.now:
			n := m.nodes.byIndex[k.node]
			s.drop(k.node, doomed)
			if k.cause == surplus && len(r.stay) >= b.Wanted && r.accused == 0 {
				m.doom(s, n, k.block, surplus)
				continue
			}
			*r = m.replicas(b, s)
		}
	}
}

// crowded tells whether all replicas of a block lie on one rack though there are others.
func (m *Manager) crowded(b Block, r *replicas) bool {
	if b.Wanted < 2 || len(m.nodes.racks) < 2 || len(r.stay) < 2 {
		return false
	}
	for _, n := range r.stay[1:] {
		if n.Rack != r.stay[0].Rack {
			return false
		}
	}
	return true
}

func (m *Manager) removeSurplus(b Block, s *suspect, r *replicas) {
	if len(r.stay) <= b.Wanted || b.Wanted < 1 {
		return
	}
	for _, p := range placement.Surplus(m.placed(r.stay, b.Size), b.Wanted) {
		n := m.nodes.byID[p.ID]
		m.doom(s, n, b.Block, surplus)
		r.stay = slices.DeleteFunc(r.stay, func(o *node) bool { return o == n })
	}
}

// removeBad deletes damaged replicas once there are as many good ones as are wanted; or at least one, when no other
// node could take the copy that is lacking.
func (m *Manager) removeBad(b Block, s *suspect, r *replicas) {
	if len(r.bad) == 0 || r.good() == 0 {
		return
	}
	if len(r.stay) < b.Wanted && slices.ContainsFunc(m.nodes.byIndex, m.couldTake(b, s)) {
		return
	}
	for _, n := range r.bad {
		m.doom(s, n, b.Block, damaged)
	}
}

// removeStale deletes replicas of other stamps and sizes than the log's, once there is a good one. One that was unfinished when
// its node spoke of it, and has the log's stamp, is most likely whole by now, as all of a pipeline had the block before it became
// final: its node has time to say so.
func (m *Manager) removeStale(b Block, s *suspect, r *replicas) {
	if r.good() == 0 {
		return
	}
	for _, k := range slices.Clone(s.marks) {
		if k.kind == odd && k.until <= m.now { // else its node may yet say that it is whole
			m.doom(s, m.nodes.byIndex[k.node], k.block, stale)
		}
	}
}

func (m *Manager) placed(ns []*node, size int64) []placement.Node {
	out := make([]placement.Node, 0, len(ns))
	for _, n := range ns {
		out = append(out, n.placed(size))
	}
	return out
}

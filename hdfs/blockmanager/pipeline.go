package blockmanager

import (
	"fmt"
	"iter"
	"slices"

	"millrace/hdfs"
	"millrace/hdfs/placement"
)

// Write is a block that is to be written.
type Write struct {
	Block hdfs.BlockID
	Size  int64 // bytes that the nodes must have room for: the file's block size
	Count int   // replicas
	// Writer is the node that writes, "" if none of the site does; Rack is where it is, if that is known.
	Writer, Rack string
	Avoid        []string // nodes that the writer has no luck with
}

// pipeline is the nodes that a block is being written to, in their order; and for a while after it is final those that
// must have it, though they may not have said so yet.
type pipeline struct {
	nodes   []*node
	arrived []*node // have said that they have the whole block
	size    int64
	final   bool
	until   moment // when final: how long those that are silent are waited for
}

// Targets chooses the nodes for a new block, as many as are wanted or as there are, and remembers them. Asked again
// for the same block it chooses anew. If there is none the error is hdfs.ErrNoNodes and says why.
func (m *Manager) Targets(w Write) ([]hdfs.Node, error) {
	defer m.lock()()
	if writer := m.nodes.byID[w.Writer]; writer != nil && writer.up {
		w.Rack = writer.Rack
	}
	m.endPipeline(w.Block)
	var candidates []placement.Node
	for _, n := range m.nodes.byIndex {
		if n != nil && n.up {
			candidates = append(candidates, n.placed(w.Size))
		}
	}
	chosen := placement.Choose(m.cfg.Rand, candidates, placement.Want{
		Count: w.Count, Size: w.Size, Writer: w.Writer, Rack: w.Rack, Avoid: w.Avoid,
	})
	if len(chosen) == 0 {
		return nil, noTargets(candidates, w)
	}
	var ns []*node
	for _, c := range chosen {
		ns = append(ns, m.nodes.byID[c.ID])
	}
	return m.beginPipeline(w.Block, w.Size, ns), nil
}

func noTargets(candidates []placement.Node, w Write) error {
	var draining, avoided, full int
	for _, c := range candidates {
		switch {
		case c.Draining:
			draining++
		case slices.Contains(w.Avoid, c.ID):
			avoided++
		default:
			full++
		}
	}
	if len(candidates) == 0 {
		return fmt.Errorf("%s: %w: none is up", w.Block, hdfs.ErrNoNodes)
	}
	return fmt.Errorf("%s: %w: of %d that are up %d have no room for %d bytes, %d are draining, %d have failed the writer",
		w.Block, hdfs.ErrNoNodes, len(candidates), full, w.Size, draining, avoided)
}

// Pipeline says to which nodes a block is being written from now on, after a change: those that survived. It gives
// them in the order in which they were named; nodes that are not up are left out.
func (m *Manager) Pipeline(id hdfs.BlockID, survivors []string) []hdfs.Node {
	defer m.lock()()
	var size int64
	if old := m.writing[id]; old != nil {
		size = old.size
	}
	m.endPipeline(id)
	var ns []*node
	for _, s := range survivors {
		if n := m.nodes.byID[s]; n != nil && n.up && !slices.Contains(ns, n) {
			ns = append(ns, n)
		}
	}
	if len(ns) == 0 {
		return nil
	}
	return m.beginPipeline(id, size, ns)
}

func (m *Manager) beginPipeline(id hdfs.BlockID, size int64, ns []*node) []hdfs.Node {
	m.writing[id] = &pipeline{nodes: ns, size: size}
	var out []hdfs.Node
	for _, n := range ns {
		n.writing++
		n.promised += size
		out = append(out, n.Node)
	}
	return out
}

func (m *Manager) endPipeline(id hdfs.BlockID) {
	if p := m.writing[id]; p != nil {
		for _, n := range p.nodes {
			p.arrive(n)
		}
		delete(m.writing, id)
	}
}

// arrive takes off a node's load what the block was.
func (p *pipeline) arrive(n *node) {
	if slices.Contains(p.nodes, n) && !slices.Contains(p.arrived, n) {
		p.arrived = append(p.arrived, n)
		n.writing--
		n.promised -= p.size
	}
}

func (m *Manager) pipelineReceived(id hdfs.BlockID, n *node) {
	if p := m.writing[id]; p != nil {
		p.arrive(n)
	}
}

// lookAtPipeline follows what the log says of a block that was being written.
func (m *Manager) lookAtPipeline(id hdfs.BlockID, b Block, known bool) {
	p := m.writing[id]
	if p == nil || known && !b.Final {
		return
	}
	if known && !p.final {
		p.final, p.until = true, m.now+m.cfg.DownWait
		m.checks.add(p.until, id)
	}
	if !known || m.now >= p.until || len(p.arrived) == len(p.nodes) {
		m.endPipeline(id)
	}
}

// Locate gives the nodes to read a block from, the best first for a reader on a node, or on a rack: those that have it
// for certain, last those that are accused; if none does, those whose replica somebody called bad, then those that are not there just
// now or have yet to say that their replica is whole. While the block is being written it gives the pipeline, in its order.
func (m *Manager) Locate(id hdfs.BlockID, reader, rack string) []hdfs.Node {
	defer m.lock()()
	b, known := m.cfg.Names.Block(id)
	if !known {
		return nil
	}
	p := m.writing[id]
	if !b.Final {
		var out []hdfs.Node
		if p != nil {
			for _, n := range p.nodes {
				out = append(out, n.Node)
			}
		}
		return out
	}
	m.settle(b)
	if n := m.nodes.byID[reader]; n != nil {
		rack = n.Rack
	}
	sure, damaged, absent := m.readable(b, p)
	if len(sure) > 0 {
		return m.accusedLast(id, m.ordered(reader, rack, sure, b.Size))
	}
	return append(m.ordered(reader, rack, damaged, b.Size), m.ordered(reader, rack, absent, b.Size)...)
}

// ordered gives nodes as a reader should try them.
func (m *Manager) ordered(reader, rack string, ns []*node, size int64) (out []hdfs.Node) {
	for _, c := range placement.Order(m.cfg.Rand, reader, rack, m.placed(ns, size)) {
		out = append(out, m.nodes.byID[c.ID].Node)
	}
	return out
}

// Away gives those of a cluster's core nodes that may have a good replica of a final block and are not there to give it: they are down,
// or have not said yet what they have. None, if all replicas that are wanted are known and lie on nodes that are there.
func (m *Manager) Away(id hdfs.BlockID, all iter.Seq[string]) (away []string) {
	defer m.lock()()
	b, known := m.cfg.Names.Block(id)
	if !known || !b.Final {
		return nil
	}
	_, at := m.places.of(id, nil)
	there := 0
	for _, i := range at {
		if m.nodes.byIndex[i].standing == live {
			there++
		}
	}
	if there >= b.Wanted {
		return nil
	}
	for name := range all {
		if n := m.nodes.byID[name]; n == nil || n.standing != live {
			away = append(away, name)
		}
	}
	return away
}

// readable gives the nodes that have a block: for certain; a replica that is damaged; and those that are not there, or that have
// begun it and not said yet that it is whole.
func (m *Manager) readable(b Block, p *pipeline) (sure, damaged, absent []*node) {
	s := m.suspects[b.ID]
	_, at := m.places.of(b.ID, nil)
	for _, i := range at {
		n := m.nodes.byIndex[i]
		switch {
		case s.find(i, doomed) != nil:
		case s.find(i, bad) != nil:
			damaged = append(damaged, n)
		case n.up:
			sure = append(sure, n)
		default:
			absent = append(absent, n)
		}
	}
	if p != nil {
		for _, n := range p.nodes {
			if n.up && !slices.Contains(at, n.index) {
				sure = append(sure, n)
			}
		}
	}
	return sure, damaged, append(absent, m.begun(b, s)...)
}

package blockmanager

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"millrace/hdfs"
	"millrace/hdfs/placement"
)

// ErrCannotDrain says that blocks would fall below the replicas that they have; its text says what would be needed.
var ErrCannotDrain = errors.New("the blocks there cannot be kept")

// CanDrain gives the plan for emptying some nodes, besides those that drain already. It is refused with ErrCannotDrain
// when the nodes that stay could not hold the blocks, and with hdfs.ErrUnavailable while too little is known.
func (m *Manager) CanDrain(ids ...string) (placement.Plan, error) {
	defer m.lock()()
	if !m.ready {
		return placement.Plan{}, fmt.Errorf("%w: block reports are still coming in", hdfs.ErrUnavailable)
	}
	leaving := slices.Clone(ids)
	var all []placement.Node
	for _, n := range m.nodes.byIndex {
		switch {
		case n == nil || n.standing == lost:
			continue
		case n.draining:
			leaving = append(leaving, n.ID)
		}
		all = append(all, n.placed(1))
	}
	plan := placement.NewDrain(all, leaving, m.speed())
	seen := map[hdfs.BlockID]bool{}
	for _, id := range leaving {
		n := m.nodes.byID[id]
		if n == nil {
			continue
		}
		for _, b := range m.places.held(n.index, 0, math.MaxInt) {
			if !seen[b] {
				seen[b] = true
				m.addToPlan(plan, b)
			}
		}
	}
	p := plan.Plan()
	if p.Problem != "" {
		return p, fmt.Errorf("%w: %s", ErrCannotDrain, p.Problem)
	}
	return p, nil
}

func (m *Manager) addToPlan(plan *placement.Drain, id hdfs.BlockID) {
	b, known := m.cfg.Names.Block(id)
	if !known || !b.Final {
		return
	}
	r := m.replicas(b, m.suspects[id])
	plan.Add(b.Size, b.Wanted, m.placed(slices.Concat(r.stay, r.leave), b.Size))
}

// DrainStatus is how far the draining of a node has come.
type DrainStatus struct {
	Draining bool
	Complete bool // all blocks have been looked at: what follows is all there is
	Done     bool // complete, and nothing is left: the node may leave
	Blocks   int  // that would have too few replicas without the node
	Bytes    int64
	Estimate time.Duration // until that is copied; 0: unknown
	Waiting  []Concern     // those of them that no node can take, in the order of their ids
	Writing  int           // blocks that are being written and lie there, until the node says that they are whole; further ones are written elsewhere
}

// DrainStatus tells how far the draining of a node has come.
func (m *Manager) DrainStatus(id string) DrainStatus {
	defer m.lock()()
	st := DrainStatus{Draining: m.nodes.drained[id], Complete: m.ready && !m.sweep.burst}
	n := m.nodes.byID[id]
	if n == nil || !st.Draining {
		return st
	}
	st.Writing = n.writing
	var largest int64
	for block, s := range m.suspects {
		b, known := m.cfg.Names.Block(block)
		if !known {
			continue
		}
		if m.begunOn(n, b, s) {
			st.Writing++
		}
		if !b.Final {
			continue
		}
		r := m.replicas(b, s)
		if !slices.Contains(r.leave, n) || certain(r.stay, s) >= min(b.Wanted, r.good()) {
			continue
		}
		st.Blocks++
		st.Bytes += b.Size
		largest = max(largest, b.Size)
		if s.why != "" {
			st.Waiting = append(st.Waiting, Concern{Block: block, File: b.File, Size: b.Size, Wanted: b.Wanted, Good: r.good(), Why: s.why})
		}
	}
	slices.SortFunc(st.Waiting, func(a, b Concern) int { return cmp.Compare(a.Block, b.Block) })
	st.Estimate = m.speed().Estimate(st.Blocks, st.Bytes, largest, m.nodes.holders)
	st.Done = st.Complete && !m.checks.due(m.now) && st.Blocks == 0 && st.Writing == 0 && n.standing == live
	return st
}

// certain counts the nodes whose replica nobody calls bad. What is accused may prove to be damaged when the others have left.
func certain(ns []*node, s *suspect) (count int) {
	for _, n := range ns {
		if s.find(n.index, accused) == nil {
			count++
		}
	}
	return count
}

// begunOn tells whether a node has a replica of a block that is not final yet, or was not when it spoke of it, beyond those that it is
// counted as writing: one that is whole, or of which this leader has not seen the pipeline.
func (m *Manager) begunOn(n *node, b Block, s *suspect) bool {
	k := s.find(n.index, odd)
	if k == nil || k.block.Stamp != b.Stamp || b.Final && !k.awaited(b, m.now) {
		return false
	}
	p := m.writing[b.ID]
	return p == nil || !slices.Contains(p.nodes, n) || slices.Contains(p.arrived, n)
}

// Alone lists the blocks of which no other node is known to have a good replica, in the order of their ids: with a node
// that does not come back they are lost. hdfs.ErrUnavailable while too little is known.
func (m *Manager) Alone(id string) ([]Concern, error) {
	defer m.lock()()
	if !m.ready || m.sweep.burst {
		return nil, fmt.Errorf("%w: it is not known yet which blocks lie elsewhere", hdfs.ErrUnavailable)
	}
	alone := map[hdfs.BlockID]Concern{}
	for block, s := range m.suspects {
		if b, _ := m.cfg.Names.Block(block); s.state == missing || s.state == corrupt {
			if r := m.replicas(b, s); r.away == 0 { // else it is not this one that is waited for, or is found below
				m.addAlone(alone, block, 0)
			}
		}
	}
	if n := m.nodes.byID[id]; n != nil {
		for _, block := range m.places.held(n.index, 0, math.MaxInt) {
			b, _ := m.cfg.Names.Block(block)
			r := m.replicas(b, m.suspects[block])
			others := slices.DeleteFunc(slices.Concat(r.stay, r.leave), func(o *node) bool { return o == n })
			if len(others) == 0 {
				m.addAlone(alone, block, r.good())
			}
		}
	}
	return slices.SortedFunc(maps.Values(alone), func(a, b Concern) int { return cmp.Compare(a.Block, b.Block) }), nil
}

func (m *Manager) addAlone(to map[hdfs.BlockID]Concern, id hdfs.BlockID, good int) {
	if b, known := m.cfg.Names.Block(id); known && b.Final {
		to[id] = Concern{Block: id, File: b.File, Size: b.Size, Wanted: b.Wanted, Good: good}
	}
}

package scheduler

import (
	"cmp"
	"container/heap"
	"slices"
)

// pool is a heap of one cluster's nodes with free slots, the one with most first.
type pool struct {
	slots []*slots
	byID  map[string]*slots // made when a task first asks for a node by name
}

// slots is a node's room while it is given out.
type slots struct {
	node *Node
	free int
	at   int // in the heap
}

// add puts a node in; the heap must be initialised afterwards.
func (p *pool) add(n *Node) {
	p.slots = append(p.slots, &slots{node: n, free: n.Free, at: len(p.slots)})
}

// find returns the best node for a task that it does not avoid, or nil.
func (p *pool) find(t Task) *slots {
	if s := p.near(t); s != nil {
		return s
	}
	if !slices.Contains(t.Avoid, p.slots[0].node.ID) {
		return p.slots[0]
	}
	// The best that is not avoided, without disturbing the heap: walk down from the
	// top, only through avoided nodes. There are at most len(t.Avoid) of them.
	var best *slots
	open := []int{0}
	for len(open) > 0 {
		i := open[len(open)-1]
		open = open[:len(open)-1]
		if i >= len(p.slots) || best != nil && !p.before(p.slots[i], best) {
			continue
		}
		if !slices.Contains(t.Avoid, p.slots[i].node.ID) {
			best = p.slots[i]
			continue
		}
		open = append(open, 2*i+1, 2*i+2)
	}
	return best
}

// near returns the best node that holds the task's input and is not avoided, or nil.
func (p *pool) near(t Task) *slots {
	if len(t.Near) == 0 {
		return nil
	}
	if p.byID == nil {
		p.byID = make(map[string]*slots, len(p.slots))
		for _, s := range p.slots {
			p.byID[s.node.ID] = s
		}
	}
	var best *slots
	for _, id := range t.Near {
		s := p.byID[id]
		if s == nil || s.free == 0 || slices.Contains(t.Avoid, id) {
			continue
		}
		if best == nil || p.before(s, best) {
			best = s
		}
	}
	return best
}

// take uses one slot of a node; a node without further slots leaves the heap.
func (p *pool) take(s *slots) *Node {
	s.free--
	if s.free == 0 {
		heap.Remove(p, s.at)
	} else {
		heap.Fix(p, s.at)
	}
	return s.node
}

func (p *pool) before(a, b *slots) bool {
	if a.free != b.free {
		return a.free > b.free
	}
	if a.node.Core != b.node.Core {
		return a.node.Core
	}
	return cmp.Less(a.node.ID, b.node.ID)
}

func (p *pool) Len() int           { return len(p.slots) }
func (p *pool) Less(i, j int) bool { return p.before(p.slots[i], p.slots[j]) }
func (p *pool) Swap(i, j int) {
	p.slots[i], p.slots[j] = p.slots[j], p.slots[i]
	p.slots[i].at, p.slots[j].at = i, j
}
func (p *pool) Push(x any) {
	s := x.(*slots)
	s.at = len(p.slots)
	p.slots = append(p.slots, s)
}
func (p *pool) Pop() any {
	last := p.slots[len(p.slots)-1]
	p.slots = p.slots[:len(p.slots)-1]
	return last
}

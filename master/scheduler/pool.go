package scheduler

import (
	"cmp"
	"container/heap"
	"math"
	"slices"
)

// pool is a heap of one cluster's nodes with free slots, the one with most first.
type pool struct {
	slots   []*slots
	byID    map[string]*slots // made when a task first asks for a node by name
	volumes map[string]*int64 // room of the disks that nodes share
	nowhere int64             // a task that needs so much disk, or more, fits on no node
}

// slots is a node's room while it is given out.
type slots struct {
	node *Node
	free int
	disk *int64 // bytes of room, for all nodes that share it
	own  int64  // where disk points if nobody shares it
	at   int    // in the heap
}

func newPool() *pool { return &pool{volumes: map[string]*int64{}, nowhere: math.MaxInt64} }

// add puts a node in; the heap must be initialised afterwards.
func (p *pool) add(n *Node) {
	s := &slots{node: n, free: n.Free, at: len(p.slots)}
	p.slots = append(p.slots, s)
	if n.Volume == "" {
		s.own = n.Disk
		s.disk = &s.own
		return
	}
	if s.disk = p.volumes[n.Volume]; s.disk == nil {
		s.disk = new(int64)
		*s.disk = n.Disk
		p.volumes[n.Volume] = s.disk
	}
	*s.disk = min(*s.disk, n.Disk)
}

// fits says whether a node has the disk that a task needs.
func (s *slots) fits(t *Task) bool { return t.Disk <= 0 || t.Disk <= *s.disk }

// suits says whether a node will do for a task: it has the disk, and the task does not avoid it.
func (s *slots) suits(t *Task) bool { return s.fits(t) && !slices.Contains(t.Avoid, s.node.ID) }

// hopeless says whether no node has room for a task, which is known from another one.
func (p *pool) hopeless(t *Task) bool { return t.Disk >= p.nowhere }

// find returns the best node that suits a task, or nil.
func (p *pool) find(t *Task) *slots {
	if s := p.near(t); s != nil || t.Bound {
		return s
	}
	if p.slots[0].suits(t) {
		return p.slots[0]
	}
	// The best that suits, without disturbing the heap: walk down from the top, only
	// through nodes that do not.
	var best *slots
	open := []int{0}
	for len(open) > 0 {
		i := open[len(open)-1]
		open = open[:len(open)-1]
		if i >= len(p.slots) || best != nil && !p.before(p.slots[i], best) {
			continue
		}
		if p.slots[i].suits(t) {
			best = p.slots[i]
			continue
		}
		open = append(open, 2*i+1, 2*i+2)
	}
	if best == nil && len(t.Avoid) == 0 {
		p.nowhere = min(p.nowhere, t.Disk)
	}
	return best
}

// near returns the best node that holds the task's input and suits it, or nil.
func (p *pool) near(t *Task) *slots {
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
		if s == nil || s.free == 0 || !s.suits(t) {
			continue
		}
		if best == nil || p.before(s, best) {
			best = s
		}
	}
	return best
}

// take uses one slot of a node, and a task's disk; a node without further slots leaves the heap.
func (p *pool) take(s *slots, t *Task) *Node {
	s.free--
	*s.disk -= max(t.Disk, 0)
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

// Package placement decides where replicas lie: the nodes for a new block, from where to where one is copied, which
// one is removed when there are too many, in which order they are read, and what it takes to empty a node. It is
// pure: nodes are values, randomness comes in from outside, and it knows nothing of blocks but their size.
package placement

import (
	"cmp"
	"math/rand/v2"
	"slices"
)

// Node is a core node as a place for replicas.
type Node struct {
	ID   string
	Rack string // failure domain; "" is one as any other

	// Room is how many bytes of blocks it may still take: what is kept free for tasks and what is promised to blocks on
	// their way there is taken off.
	Room int64
	// Load is how much it has to do already: blocks being written there, copies being sent.
	Load int

	Draining bool // takes nothing new: it is to leave
	Failing  bool // one of its disks has failed
}

// Want is how many replicas of which block are to be placed.
type Want struct {
	Count int
	Size  int64 // bytes of room that a node must have
	// Writer is the node that the block is written from, "" if that is none that stores; Rack is where it is.
	Writer, Rack string
	// Have lists the nodes that have a replica already, or get one; none of them is chosen again.
	Have []Node
	// Avoid lists nodes not to be chosen whatever else is there.
	Avoid []string
}

// Choose gives up to w.Count nodes for new replicas, fewer if there are fewer, in the order of a pipeline. It is the
// default policy of HDFS (the Apache Hadoop project's "HDFS Architecture" guide, under "Replica Placement: The First
// Baby Steps"): the first replica on the writer's node, or near it; the second on another rack; the third on the
// second's rack, on another node; further ones anywhere, but no more than (replicas-1)/racks+2 on one rack. What the
// nodes there are do not allow is given up, the last rule first to last: a block with its replicas in the wrong places
// is better than one with too few. Among equals chance decides, in favour of nodes with more room and less to do.
func Choose(r *rand.Rand, nodes []Node, w Want) []Node {
	c := newChoice(r, nodes, w)
	var chosen []Node
	for len(chosen) < w.Count {
		n, ok := c.next()
		if !ok {
			break
		}
		chosen = append(chosen, n)
		c.take(n)
	}
	return chosen
}

// choice is a Choose under way.
type choice struct {
	rand    *rand.Rand
	want    Want
	free    []Node         // may still be chosen
	placed  []Node         // have a replica, or will: w.Have, then those chosen
	onRack  map[string]int // how many of those placed
	perRack int            // how many a rack should have at most
}

func newChoice(r *rand.Rand, nodes []Node, w Want) *choice {
	c := &choice{rand: r, want: w, onRack: map[string]int{}}
	racks := map[string]bool{}
	for _, n := range nodes {
		if !n.Draining {
			racks[n.Rack] = true
		}
		if n.Draining || n.Room < w.Size || slices.Contains(w.Avoid, n.ID) || contains(w.Have, n.ID) {
			continue
		}
		c.free = append(c.free, n)
	}
	for _, n := range w.Have {
		c.placed = append(c.placed, n)
		c.onRack[n.Rack]++
	}
	c.perRack = (len(w.Have)+w.Count-1)/max(len(racks), 1) + 2
	return c
}

func (c *choice) take(n Node) {
	c.placed = append(c.placed, n)
	c.onRack[n.Rack]++
	c.free = slices.DeleteFunc(c.free, func(f Node) bool { return f.ID == n.ID })
}

// next chooses one more node by the rule for its position, and by weaker rules if that finds none.
func (c *choice) next() (Node, bool) {
	var rules []func(Node) bool
	switch len(c.placed) {
	case 0:
		if c.want.Writer != "" {
			rules = append(rules,
				func(n Node) bool { return n.ID == c.want.Writer },
				func(n Node) bool { return n.Rack == c.want.Rack })
		}
	case 1:
		rules = append(rules, func(n Node) bool { return n.Rack != c.placed[0].Rack })
	case 2:
		if c.placed[0].Rack == c.placed[1].Rack {
			rules = append(rules, func(n Node) bool { return n.Rack != c.placed[0].Rack })
		} else if len(c.want.Have) < 2 {
			rules = append(rules, func(n Node) bool { return n.Rack == c.placed[1].Rack })
		}
	default:
		if len(c.onRack) == 1 {
			rules = append(rules, func(n Node) bool { return c.onRack[n.Rack] == 0 })
		}
	}
	rules = append(rules,
		func(n Node) bool { return c.onRack[n.Rack] < c.perRack },
		func(Node) bool { return true })
	for _, rule := range rules {
		if n, ok := c.draw(rule); ok {
			return n, true
		}
	}
	return Node{}, false
}

// draw takes one of the free nodes that a rule allows, by chance: the likelier the more room and the less load it has.
func (c *choice) draw(rule func(Node) bool) (Node, bool) {
	var total float64
	last := -1
	for i, n := range c.free {
		if rule(n) {
			total += weight(n)
			last = i
		}
	}
	if last < 0 {
		return Node{}, false
	}
	at := c.rand.Float64() * total
	for i, n := range c.free {
		if !rule(n) {
			continue
		}
		if at -= weight(n); at < 0 || i == last {
			return n, true
		}
	}
	return Node{}, false // not reached: the last that the rule allows is taken
}

func weight(n Node) float64 { return float64(n.Room+1) / float64(n.Load+1) }

func contains(nodes []Node, id string) bool {
	return slices.ContainsFunc(nodes, func(n Node) bool { return n.ID == id })
}

// Racks counts the racks of some nodes.
func Racks(nodes []Node) int {
	racks := map[string]bool{}
	for _, n := range nodes {
		racks[n.Rack] = true
	}
	return len(racks)
}

// Source chooses which of some good replicas is copied: of a draining node first, as nothing is written there, then
// the one with the least to do. There must be one.
func Source(replicas []Node) Node {
	return slices.MinFunc(replicas, func(a, b Node) int {
		return cmp.Or(first(a.Draining, b.Draining), cmp.Compare(a.Load, b.Load), cmp.Compare(a.ID, b.ID))
	})
}

// Surplus chooses which of some good replicas to remove so that keep are left: one whose rack has another first, so
// that no rack loses its last one without need, then of a draining node, of one with a failed disk, of the one with
// the least room.
func Surplus(replicas []Node, keep int) []Node {
	left := slices.Clone(replicas)
	var out []Node
	for len(left) > max(keep, 0) {
		onRack := map[string]int{}
		for _, n := range left {
			onRack[n.Rack]++
		}
		n := slices.MinFunc(left, func(a, b Node) int {
			return cmp.Or(first(onRack[a.Rack] > 1, onRack[b.Rack] > 1), first(a.Draining, b.Draining),
				first(a.Failing, b.Failing), cmp.Compare(a.Room, b.Room), cmp.Compare(a.ID, b.ID))
		})
		out = append(out, n)
		left = slices.DeleteFunc(left, func(l Node) bool { return l.ID == n.ID })
	}
	return out
}

// Order sorts replicas for a reader: the one on its own node, then those on its rack, then the others; among equals
// the one with less to do, and then chance, so that not all readers come to the same.
func Order(r *rand.Rand, reader, rack string, replicas []Node) []Node {
	out := slices.Clone(replicas)
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	slices.SortStableFunc(out, func(a, b Node) int {
		return cmp.Or(first(a.ID == reader, b.ID == reader), first(a.Rack == rack, b.Rack == rack),
			cmp.Compare(a.Load, b.Load))
	})
	return out
}

// first puts what has a property before what has not.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

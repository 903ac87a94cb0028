package tracker

import (
	"container/heap"
	"iter"
	"slices"
	"strings"

	"millrace/master/scheduler"
	"millrace/master/state"
)

// rooms is where a cluster has room, kept up to date with each attempt that comes or goes: so what a round costs
// follows from what it hands out, not from how many nodes there are.
type rooms struct {
	rankings [roomKinds]ranking
	sums     [roomKinds]int // over all nodes
	cores    []*node        // by id
	revoking int            // leases that have been asked back
}

// The rankings of a cluster's nodes.
const (
	roomFree   = iota // by slots without attempt
	roomAhead         // full nodes, by how many more maps they may be leased ahead
	roomBehind        // by leases that wait in their queues
	roomKinds
)

// ranking is a heap of the nodes that have some of what it ranks by, most first; among equals core nodes, because
// those keep their map output where it is.
type ranking struct {
	kind int
	list []*node
}

func (r *ranking) before(a, b *node) bool {
	if x, y := a.room[r.kind], b.room[r.kind]; x != y {
		return x > y
	}
	if x, y := a.role == state.RoleCore, b.role == state.RoleCore; x != y {
		return x
	}
	return a.id < b.id
}

func (r *ranking) Len() int           { return len(r.list) }
func (r *ranking) Less(i, j int) bool { return r.before(r.list[i], r.list[j]) }
func (r *ranking) Swap(i, j int) {
	r.list[i], r.list[j] = r.list[j], r.list[i]
	r.list[i].rank[r.kind], r.list[j].rank[r.kind] = i, j
}
func (r *ranking) Push(x any) {
	n := x.(*node)
	n.rank[r.kind] = len(r.list)
	r.list = append(r.list, n)
}
func (r *ranking) Pop() any {
	n := r.list[len(r.list)-1]
	r.list[len(r.list)-1] = nil
	r.list = r.list[:len(r.list)-1]
	return n
}

// set gives a node its place.
func (r *ranking) set(n *node, room int) {
	had := n.room[r.kind] > 0
	n.room[r.kind] = room
	switch {
	case had && room > 0:
		heap.Fix(r, n.rank[r.kind])
	case had:
		heap.Remove(r, n.rank[r.kind])
	case room > 0:
		heap.Push(r, n)
	}
}

// best goes through the nodes, the best first: it takes O(log n) for each that is looked at. The nodes must stay
// as they are meanwhile.
func (r *ranking) best() iter.Seq[*node] {
	return func(yield func(*node) bool) {
		if len(r.list) == 0 {
			return
		}
		next := frontier{r: r, at: []int{0}}
		for len(next.at) > 0 {
			i := heap.Pop(&next).(int)
			for child := 2*i + 1; child <= 2*i+2 && child < len(r.list); child++ {
				heap.Push(&next, child)
			}
			if !yield(r.list[i]) {
				return
			}
		}
	}
}

// frontier is a heap of places in a ranking: what is looked at next is among them.
type frontier struct {
	r  *ranking
	at []int
}

func (f *frontier) Len() int           { return len(f.at) }
func (f *frontier) Less(i, j int) bool { return f.r.before(f.r.list[f.at[i]], f.r.list[f.at[j]]) }
func (f *frontier) Swap(i, j int)      { f.at[i], f.at[j] = f.at[j], f.at[i] }
func (f *frontier) Push(x any)         { f.at = append(f.at, x.(int)) }
func (f *frontier) Pop() any {
	last := f.at[len(f.at)-1]
	f.at = f.at[:len(f.at)-1]
	return last
}

// roomsOf gives a cluster's rooms.
func (t *Tracker) roomsOf(cluster string) *rooms {
	r := t.rooms[cluster]
	if r == nil {
		r = &rooms{}
		for kind := range r.rankings {
			r.rankings[kind].kind = kind
		}
		t.rooms[cluster] = r
	}
	return r
}

// enter and leave are for a node that comes or goes, or is about to change its role or cluster.
func (t *Tracker) enter(n *node) {
	r := t.roomsOf(n.cluster)
	if n.role == state.RoleCore {
		at, _ := slices.BinarySearchFunc(r.cores, n, byID)
		r.cores = slices.Insert(r.cores, at, n)
	}
	t.rank(n)
}

func (t *Tracker) leave(n *node) {
	r := t.roomsOf(n.cluster)
	if at, ok := slices.BinarySearchFunc(r.cores, n, byID); ok {
		r.cores = slices.Delete(r.cores, at, at+1)
	}
	r.set(n, [roomKinds]int{})
}

func byID(a, b *node) int { return strings.Compare(a.id, b.id) }

// rank is for a node whose slots or attempts have changed.
func (t *Tracker) rank(n *node) {
	maps := 0
	for _, a := range n.attempts {
		if a.task.id.Kind == state.Map {
			maps++
		}
	}
	var room [roomKinds]int
	room[roomFree] = max(0, n.slots-len(n.attempts))
	room[roomBehind] = max(0, len(n.attempts)-n.slots)
	if room[roomFree] == 0 { // as many further maps as run there now: a lease behind a reduce might wait for long
		room[roomAhead] = max(0, min(maps-room[roomBehind], n.slots)-room[roomBehind])
	}
	t.roomsOf(n.cluster).set(n, room)
}

func (r *rooms) set(n *node, room [roomKinds]int) {
	for kind := range r.rankings {
		r.sums[kind] += room[kind] - n.room[kind]
		if room[kind] != n.room[kind] {
			r.rankings[kind].set(n, room[kind])
		}
	}
}

// offers lists up to most nodes of a cluster with room of a kind that take leases now, the best first.
func (t *Tracker) offers(cluster string, kind, most int) []scheduler.Node {
	list := make([]scheduler.Node, 0, min(most, len(t.roomsOf(cluster).rankings[kind].list)))
	for n := range t.roomsOf(cluster).rankings[kind].best() {
		if len(list) >= most {
			break
		}
		if t.hasDisk(n, leastDisk) {
			list = append(list, n.offered(n.room[kind]))
		}
	}
	return list
}

// hasDisk says whether a node takes leases now, and has so much room on its disk.
func (t *Tracker) hasDisk(n *node, need int64) bool {
	return n.takes(t.cfg.Now()) && n.volume.room() >= need
}

// hasRoom says whether a node has a free slot and the disk for a task of a kind; and a core node for what it writes, if that is
// to be kept.
func (t *Tracker) hasRoom(j *job, kind string, need int64) bool {
	r := t.roomsOf(j.rec.Cluster)
	hasDisk := func(n *node) bool { return t.hasDisk(n, need) }
	kept := !j.isKept(kind) || slices.ContainsFunc(r.cores, hasDisk)
	return slices.ContainsFunc(r.rankings[roomFree].list, func(n *node) bool { return hasDisk(n) && (kept || n.role == state.RoleCore) })
}

// good says whether a node of the cluster that takes leases now has room of a kind and is a good one.
func (t *Tracker) good(cluster string, kind int, good func(id string) bool) bool {
	return slices.ContainsFunc(t.roomsOf(cluster).rankings[kind].list, func(n *node) bool { return t.hasDisk(n, leastDisk) && good(n.id) })
}

// idle is how many slots of a cluster are free on nodes that take leases now, counted up to most.
func (t *Tracker) idle(cluster string, most int) (slots int) {
	for _, n := range t.roomsOf(cluster).rankings[roomFree].list {
		if slots >= most {
			break
		}
		if t.hasDisk(n, leastDisk) {
			slots += n.room[roomFree]
		}
	}
	return slots
}

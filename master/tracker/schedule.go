package tracker

import (
	"cmp"
	"container/heap"
	"math"
	"slices"
	"sort"
	"strings"
	"time"

	"millrace/master/scheduler"
	"millrace/master/state"
	"millrace/pkg/api"
)

// schedule fills free slots, then the queues of busy workers; takes back what
// waits in the wrong queue, and ends a reduce that keeps a map from running.
func (t *Tracker) schedule() {
	if len(t.jobs) == 0 {
		return
	}
	if t.assign(roomFree, false) { // what was not suited leaves its slot to another
		t.assign(roomFree, true)
	}
	t.assign(roomAhead, false)
	t.rebalance()
	t.preempt()
	t.starve()
	t.speculate()
}

// assign hands out tasks to room of a kind: maps alone, if it is ahead of a free slot. It looks at as many nodes
// as there are tasks, unless all are asked for, and says whether both tasks and room are left.
func (t *Tracker) assign(kind int, all bool) (left bool) {
	queue := t.queue(kind, all)
	const everyNode = math.MaxInt32
	wanted := map[string]int{}
	tasks, room, leased := 0, 0, 0
	for _, s := range queue {
		tasks += len(s.Tasks)
		if wanted[s.Cluster] += len(s.Tasks); all || slices.ContainsFunc(s.Tasks, bound) {
			wanted[s.Cluster] = everyNode // it may be any of them that a task is for
		}
	}
	var nodes []scheduler.Node
	for cluster, n := range wanted {
		spared := 0
		if kind == roomAhead {
			spared = t.claims(cluster, queue)
			n += spared
		}
		list := t.offers(cluster, kind, n)
		nodes = append(nodes, list[min(spared, len(list)):]...)
	}
	for _, n := range nodes {
		room += n.Free
	}
	for _, a := range scheduler.Assign(queue, nodes) {
		j := t.jobs[a.Job]
		k := j.task(state.TaskID{Kind: string(a.Task.Kind), Index: a.Task.Index})
		there := func(good func(string) bool) bool { return good(a.Node) }
		if k != nil && t.fits(j, k) && t.suits(j, k, there) {
			t.lease(j, k, a.Node)
			leased++
		}
	}
	return leased < min(tasks, room)
}

func bound(k scheduler.Task) bool { return k.Bound }

// queue lists what jobs offer, for the scheduler to choose from: of each cluster, unless all are asked for, the jobs that are
// first in turn, and a few more, as these are all that can get a free slot. So a long queue is not looked through for one slot.
func (t *Tracker) queue(kind int, all bool) (queue []scheduler.Job) {
	const more = 16
	waiting := map[string]*turns{}
	var clusters []string
	for _, j := range t.order {
		c := j.rec.Cluster
		if j.waiting[state.Map].count+j.waiting[state.Reduce].count == 0 || t.roomsOf(c).sums[kind] == 0 || !t.leasing(j) {
			continue
		}
		if waiting[c] == nil {
			waiting[c] = &turns{}
			clusters = append(clusters, c)
		}
		*waiting[c] = append(*waiting[c], j)
	}
	for _, c := range clusters {
		turn, free := waiting[c], t.roomsOf(c).sums[kind]
		heap.Init(turn)
		for offering := 0; turn.Len() > 0 && (all || offering < 2*free+more); {
			if s := t.offer(heap.Pop(turn).(*job), free, kind); len(s.Tasks) > 0 {
				queue = append(queue, s)
				offering++
			}
		}
	}
	slices.SortFunc(queue, func(a, b scheduler.Job) int { return cmp.Compare(a.Sequence, b.Sequence) })
	return queue
}

// turns is a heap of jobs in the order in which the scheduler gives each its next slot.
type turns []*job

func (h turns) Len() int { return len(h) }
func (h turns) Less(x, y int) bool {
	a, b := h[x], h[y]
	return cmp.Or(cmp.Compare(b.rec.Priority, a.rec.Priority), cmp.Compare(len(a.live), len(b.live)), cmp.Compare(a.rec.Sequence, b.rec.Sequence)) < 0
}
func (h turns) Swap(x, y int) { h[x], h[y] = h[y], h[x] }
func (h *turns) Push(x any)   { *h = append(*h, x.(*job)) }
func (h *turns) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// claims is how many reduces of a cluster are to have the next free slots, though maps wait: none would be free, ever,
// if maps were leased ahead on every node. So many nodes, those with the shortest queues, are left to run out.
// A job has a claim as far as it has less than its share beside those whose maps would be leased ahead.
func (t *Tracker) claims(cluster string, queue []scheduler.Job) (n int) {
	priority, most := math.MinInt, 0
	for _, s := range queue {
		switch {
		case s.Cluster != cluster || s.Priority < priority:
		case s.Priority > priority:
			priority, most = s.Priority, s.Running
		default:
			most = max(most, s.Running)
		}
	}
	for _, j := range t.order {
		waiting := j.waiting[state.Reduce].count
		if waiting == 0 || j.rec.Cluster != cluster || j.rec.Priority < priority || j.wanting || !t.leasing(j) || !t.mapsStarted(j) {
			continue
		}
		if j.rec.Priority == priority {
			waiting = min(waiting, max(0, most-len(j.live)))
		}
		n += waiting
	}
	return n
}

// choosyFor is how long a task that has failed on some nodes waits for a slot
// on another one, if there is another one.
const choosyFor = 3 * time.Second

// beChoosy has the task's next attempt made elsewhere.
func (t *Tracker) beChoosy(j *job, k *task) {
	k.choosy = t.cfg.Now().Add(choosyFor)
	t.after(choosyFor, func() { t.touch(j) })
}

// suits says whether a node will do for the task, of those with room: one on which it has not failed, or any if
// there is no such node or it has waited long enough.
func (t *Tracker) suits(j *job, k *task, room func(good func(id string) bool) bool) bool {
	if len(k.avoid)+len(k.shun) == 0 || !t.cfg.Now().Before(k.choosy) {
		return true
	}
	good := func(id string) bool { return !slices.Contains(k.avoid, id) && !slices.Contains(k.shun, id) }
	if room(good) {
		return true
	}
	for _, n := range t.nodes {
		if n.cluster == j.rec.Cluster && n.slots > 0 && n.takes(t.cfg.Now()) && good(n.id) && !n.waitsFor(j) {
			return false
		}
	}
	return true
}

// waitsFor says whether nothing but reduces of the job hold the node's slots: none
// comes free there before the job's maps are done.
func (n *node) waitsFor(j *job) bool {
	reduces := 0
	for _, a := range n.attempts {
		if a.job == j && a.task.id.Kind == state.Reduce {
			reduces++
		}
	}
	return reduces >= n.slots
}

// offer lists up to n tasks of a job that could start now.
func (t *Tracker) offer(j *job, n, kind int) scheduler.Job {
	s := scheduler.Job{ID: j.id, Cluster: j.rec.Cluster, Priority: j.rec.Priority, Sequence: j.rec.Sequence, Running: len(j.live)}
	which := state.Map
	if kind == roomFree && t.mapsStarted(j) {
		which = state.Reduce
	}
	if which == state.Reduce && j.wanting {
		return s
	}
	room := func(good func(string) bool) bool { return t.good(j.rec.Cluster, kind, good) }
	fits := func(k *task) bool { return t.fits(j, k) && t.suits(j, k, room) && !(kind == roomAhead && k.fetched) }
	if which == state.Map && j.near != nil {
		s.Tasks = t.offerNear(j, n, kind, fits)
		return s
	}
	// What reads from an object store is near to no node, and a reduce reads from all.
	for _, k := range j.waiting[which].first(n, fits) {
		s.Tasks = append(s.Tasks, scheduler.Task{Kind: k.id.Kind[0], Index: k.id.Index, Avoid: slices.Concat(k.avoid, k.shun), Disk: t.need(j, k)})
	}
	return s
}

// mapsStarted says whether no map of the job waits for a slot: then its reduces may start.
func (t *Tracker) mapsStarted(j *job) bool {
	return !j.rec.MapOnly() && j.waiting[state.Map].count == 0 && j.unstarted == 0
}

// offered is a node as the scheduler sees it.
func (n *node) offered(free int) scheduler.Node {
	return scheduler.Node{ID: n.id, Cluster: n.cluster, Free: free, Core: n.role == state.RoleCore, Disk: n.volume.room(), Volume: n.volume.id}
}

// rebalance takes prefetched leases back while another node of the cluster has a free slot and nothing else waits
// for it: one of a node at a time, from the longest queues first.
func (t *Tracker) rebalance() {
	for cluster, r := range t.rooms {
		if r.sums[roomFree] == 0 || r.sums[roomBehind] == r.revoking {
			continue
		}
		idle := t.idle(cluster, r.sums[roomBehind]) - r.revoking
		room := func(good func(string) bool) bool { return t.good(cluster, roomFree, good) }
		for n := range r.rankings[roomBehind].best() {
			if idle <= 0 {
				break
			}
			for _, a := range n.queued() {
				if a.job.waiting[state.Map].count > 0 && slices.Contains(a.task.places, n.id) {
					continue // it waits where its input lies, and others of the job for a node like the idle one
				}
				if t.suits(a.job, a.task, room) && t.hasRoom(a.job, a.task.id.Kind, t.need(a.job, a.task)) {
					idle--
					t.revoke(a, t.send(a.node, &api.MasterMessage{Message: &api.MasterMessage_Revoke{Revoke: &api.Revoke{Attempt: a.id}}}))
					break
				}
			}
		}
	}
}

// revoke notes whether a lease has been asked back.
func (t *Tracker) revoke(a *attempt, revoking bool) {
	if a.revoking == revoking {
		return
	}
	a.revoking = revoking
	if n := t.nodes[a.node]; n != nil {
		if r := t.roomsOf(n.cluster); revoking {
			r.revoking++
		} else {
			r.revoking--
		}
	}
}

// queued gives the leases that wait in a full worker's queue and may be asked back, the youngest first.
func (n *node) queued() (list []*attempt) {
	over := len(n.attempts) - n.slots
	if n.offline || over <= 0 {
		return nil
	}
	for _, a := range n.attempts {
		switch {
		case a.revoking:
			over--
		case !a.started && a.killing == "" && !a.ending:
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b *attempt) int { return cmp.Or(b.from.Compare(a.from), strings.Compare(b.id, a.id)) })
	return list[:min(len(list), max(0, over))]
}

// preempt ends reduces of jobs whose maps have to run (again) and find no slot:
// the reduces would wait for those maps for ever.
func (t *Tracker) preempt() {
	for _, j := range t.order {
		if j.rec.MapOnly() || !t.leasing(j) {
			continue
		}
		victims := t.victims(j)
		if len(victims) > 0 && t.hasRoom(j, state.Map, t.leastNeed(j, state.Map)) {
			continue
		}
		for _, a := range victims {
			t.kill(a, "its slot is needed by a map")
		}
	}
}

// victims chooses reduces to end: so many that a quarter of the maps that wait
// (at least one) run at once, the youngest first, on nodes with nothing queued
// if there are such.
func (t *Tracker) victims(j *job) []*attempt {
	if j.reducing == 0 || t.mapsStarted(j) {
		return nil
	}
	wanting, moving := j.waiting[state.Map].count, 0
	queued := func(a *attempt) bool {
		n := t.nodes[a.node]
		return n != nil && len(n.attempts) > n.slots
	}
	var reduces []*attempt
	for _, a := range j.live {
		switch {
		case a.killing != "", a.ending, a.task.id.Kind == state.Map && (a.started || !queued(a)):
			moving++
		case a.task.id.Kind == state.Map:
			wanting++
		case a.started && !t.drains(a.node): // a slot there is of no use to a map
			reduces = append(reduces, a)
		}
	}
	need := int(math.Ceil(float64(wanting)/4)) - moving
	if wanting == 0 || need <= 0 || len(reduces) == 0 {
		return nil
	}
	sort.Slice(reduces, func(x, y int) bool {
		a, b := reduces[x], reduces[y]
		if qa, qb := queued(a), queued(b); qa != qb {
			return qb
		}
		if !a.began.Equal(b.began) {
			return a.began.After(b.began)
		}
		return a.id > b.id
	})
	return reduces[:min(need, len(reduces))]
}

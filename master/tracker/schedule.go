package tracker

import (
	"math"
	"slices"
	"sort"
	"time"

	"millrace/master/scheduler"
	"millrace/master/state"
	"millrace/pkg/api"
)

// schedule fills free slots, then the queues of busy workers; takes back what
// waits in the wrong queue, and ends a reduce that keeps a map from running.
func (t *Tracker) schedule() {
	nodes := t.freeNodes()
	if len(nodes) == 0 && len(t.jobs) == 0 {
		return
	}
	t.assign(nodes, false)
	if nodes = t.freeNodes(); len(nodes) > 0 { // what was not suited leaves its slot to another
		t.assign(nodes, false)
	}
	t.assign(t.prefetchNodes(), true)
	t.rebalance()
	t.preempt()
	t.starve()
	t.speculate()
}

// assign hands out tasks to the given room. With prefetch, maps alone.
func (t *Tracker) assign(nodes []scheduler.Node, prefetch bool) {
	free := map[string]int{}
	for _, n := range nodes {
		free[n.Cluster] += n.Free
	}
	if len(free) == 0 {
		return
	}
	var queue []scheduler.Job
	for _, j := range t.jobs {
		if n := free[j.rec.Cluster]; n > 0 && t.leasing(j) {
			if s := t.offer(j, n, nodes, prefetch); len(s.Tasks) > 0 {
				queue = append(queue, s)
			}
		}
	}
	if len(queue) == 0 {
		return
	}
	sort.Slice(queue, func(a, b int) bool { return queue[a].Sequence < queue[b].Sequence })
	for _, a := range scheduler.Assign(queue, nodes) {
		j := t.jobs[a.Job]
		k := j.task(state.TaskID{Kind: string(a.Task.Kind), Index: a.Task.Index})
		if k != nil && t.fits(j, k) && t.suits(j, k, []scheduler.Node{{ID: a.Node, Cluster: j.rec.Cluster}}) {
			t.lease(j, k, a.Node)
		}
	}
}

// choosyFor is how long a task that has failed on some nodes waits for a slot
// on another one, if there is another one.
const choosyFor = 3 * time.Second

// beChoosy has the task's next attempt made elsewhere.
func (t *Tracker) beChoosy(j *job, k *task) {
	k.choosy = t.cfg.Now().Add(choosyFor)
	t.after(choosyFor, func() { t.touch(j) })
}

// suits says whether one of the nodes with room will do for the task: one on which
// it has not failed, or any if there is no such node or it has waited long enough.
func (t *Tracker) suits(j *job, k *task, room []scheduler.Node) bool {
	if len(k.avoid)+len(k.shun) == 0 || !t.cfg.Now().Before(k.choosy) {
		return true
	}
	good := func(id string) bool { return !slices.Contains(k.avoid, id) && !slices.Contains(k.shun, id) }
	for _, n := range room {
		if n.Cluster == j.rec.Cluster && good(n.ID) {
			return true
		}
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
func (t *Tracker) offer(j *job, n int, room []scheduler.Node, prefetch bool) scheduler.Job {
	s := scheduler.Job{ID: j.id, Cluster: j.rec.Cluster, Priority: j.rec.Priority, Sequence: j.rec.Sequence}
	kind := state.Map
	if !prefetch && t.mapsStarted(j) {
		kind = state.Reduce
	}
	if kind == state.Reduce && j.wanting {
		return s
	}
	for _, k := range j.waiting[kind].first(n, func(k *task) bool { return t.fits(j, k) && t.suits(j, k, room) && !(prefetch && k.fetched) }) {
		s.Tasks = append(s.Tasks, scheduler.Task{Kind: k.id.Kind[0], Index: k.id.Index, Avoid: slices.Concat(k.avoid, k.shun), Disk: t.need(j, k)})
	}
	s.Running = len(j.live)
	return s
}

// mapsStarted says whether no map of the job waits for a slot: then its reduces may start.
func (t *Tracker) mapsStarted(j *job) bool {
	if j.rec.MapOnly() || j.waiting[state.Map].count > 0 {
		return false
	}
	for _, a := range j.live {
		if a.task.id.Kind == state.Map && !a.started {
			return false
		}
	}
	return true
}

func (t *Tracker) freeNodes() []scheduler.Node {
	var list []scheduler.Node
	for _, n := range t.nodes {
		if free := n.slots - len(n.attempts); free > 0 && n.takes(t.cfg.Now()) && n.volume.room() >= leastDisk {
			list = append(list, n.offered(free))
		}
	}
	sort.Slice(list, func(a, b int) bool { return list[a].ID < list[b].ID })
	return list
}

// prefetchNodes gives full nodes room for as many further maps as run there
// now: a lease behind a reduce might wait for long.
func (t *Tracker) prefetchNodes() []scheduler.Node {
	var list []scheduler.Node
	for _, n := range t.nodes {
		if !n.takes(t.cfg.Now()) || len(n.attempts) < n.slots || n.volume.room() < leastDisk {
			continue
		}
		maps, queued := 0, max(0, len(n.attempts)-n.slots)
		for _, a := range n.attempts {
			if a.task.id.Kind == state.Map {
				maps++
			}
		}
		if room := min(maps-queued, n.slots) - queued; room > 0 {
			list = append(list, n.offered(room))
		}
	}
	sort.Slice(list, func(a, b int) bool { return list[a].ID < list[b].ID })
	return list
}

// offered is a node as the scheduler sees it.
func (n *node) offered(free int) scheduler.Node {
	return scheduler.Node{ID: n.id, Cluster: n.cluster, Free: free, Core: n.role == state.RoleCore, Disk: n.volume.room(), Volume: n.volume.id}
}

// rebalance takes prefetched leases back while another node of the cluster has
// a free slot and nothing else waits for it. The youngest go first.
func (t *Tracker) rebalance() {
	idle := map[string]int{}
	free := t.freeNodes()
	for _, n := range free {
		idle[n.Cluster] += n.Free
	}
	if len(idle) == 0 {
		return
	}
	var queued []*attempt
	for _, n := range t.nodes {
		if idle[n.cluster] > 0 {
			mine, revoked := n.queued()
			idle[n.cluster] -= revoked
			queued = append(queued, mine...)
		}
	}
	sort.Slice(queued, func(a, b int) bool { return queued[a].id > queued[b].id })
	for _, a := range queued {
		cluster := a.job.rec.Cluster
		if idle[cluster] <= 0 || !t.suits(a.job, a.task, free) || !hasRoom(free, cluster, t.need(a.job, a.task)) {
			continue
		}
		idle[cluster]--
		a.revoking = t.send(a.node, &api.MasterMessage{Message: &api.MasterMessage_Revoke{Revoke: &api.Revoke{Attempt: a.id}}})
	}
}

// queued gives the leases that wait in a full worker's queue, and how many have
// been asked back already.
func (n *node) queued() (list []*attempt, revoked int) {
	over := len(n.attempts) - n.slots
	if n.offline || over <= 0 {
		return nil, 0
	}
	for _, a := range n.attempts {
		switch {
		case a.revoking:
			revoked++
		case !a.started && a.killing == "" && !a.ending:
			list = append(list, a)
		}
	}
	sort.Slice(list, func(a, b int) bool { return list[a].from.After(list[b].from) })
	return list[:min(len(list), max(0, over-revoked))], revoked
}

// preempt ends reduces of jobs whose maps have to run (again) and find no slot:
// the reduces would wait for those maps for ever.
func (t *Tracker) preempt() {
	free := t.freeNodes()
	for _, j := range t.jobs {
		if j.rec.MapOnly() || !t.leasing(j) {
			continue
		}
		victims := t.victims(j)
		if len(victims) > 0 && hasRoom(free, j.rec.Cluster, t.leastNeed(j, state.Map)) {
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
		case a.started:
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
		if !a.from.Equal(b.from) {
			return a.from.After(b.from)
		}
		return a.id > b.id
	})
	return reduces[:min(need, len(reduces))]
}

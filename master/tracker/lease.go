package tracker

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"go.uber.org/zap"

	"millrace/jobs"
	"millrace/master/scheduler"
	"millrace/master/state"
	"millrace/pkg/api"
)

// attempt is one try at a task: leased, perhaps started, not yet ended in the log.
type attempt struct {
	id       string
	job      *job
	task     *task
	node     string
	upload   *upload
	started  bool // in a slot; else in the worker's queue
	from     time.Time
	bytes    int64
	records  int64
	killing  string // why it is to end; "" = it is not
	revoking bool
	ending   bool   // its end is on the way into the log
	reporter string // who reported it meanwhile, and waits for an answer
}

func (t *Tracker) attemptID(j *job, k *task) string {
	t.made++
	return fmt.Sprintf("%s-%s-%d-%d", j.id, taskName(k.id), t.cfg.Term, t.made)
}

// list and unlist keep the books of attempts that are not over.
func (t *Tracker) list(a *attempt) {
	t.attempts[a.id] = a
	a.job.live[a.id] = a
	if n := t.nodes[a.node]; n != nil {
		n.attempts[a.id] = a
	}
	if a.task.current == nil && a.killing == "" {
		a.task.current = a
	}
	a.job.waiting[a.task.id.Kind].drop(a.task)
}

func (t *Tracker) unlist(a *attempt) {
	delete(t.attempts, a.id)
	delete(a.job.live, a.id)
	if n := t.nodes[a.node]; n != nil {
		delete(n.attempts, a.id)
	}
	if a.task.current == a {
		a.task.current = nil
	}
	t.untell(a)
}

// fits says whether a waiting task could start now, if there were a slot.
func (t *Tracker) fits(j *job, k *task) bool {
	return !k.done && k.current == nil && (!j.writesOutput(k) || k.uploaded())
}

// leasing says whether tasks of the job may be handed out now.
func (t *Tracker) leasing(j *job) bool {
	return j.tasked && j.planned && !j.failing && j.rec.Ending == "" && j.store != nil &&
		(!j.inherited || t.returned(j.rec.Cluster))
}

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
const choosyFor = 10 * time.Second

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
		if n.cluster == j.rec.Cluster && n.slots > 0 && !n.offline && good(n.id) {
			return false
		}
	}
	return true
}

// offer lists up to n tasks of a job that could start now.
func (t *Tracker) offer(j *job, n int, room []scheduler.Node, prefetch bool) scheduler.Job {
	s := scheduler.Job{ID: j.id, Cluster: j.rec.Cluster, Priority: j.rec.Priority, Sequence: j.rec.Sequence}
	kind := state.Map
	if !prefetch && t.mapsStarted(j) {
		kind = state.Reduce
	}
	for _, k := range j.waiting[kind].first(n, func(k *task) bool { return t.fits(j, k) && t.suits(j, k, room) && !(prefetch && k.fetched) }) {
		s.Tasks = append(s.Tasks, scheduler.Task{Kind: k.id.Kind[0], Index: k.id.Index, Avoid: slices.Concat(k.avoid, k.shun)})
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

// lease gives a task to a worker.
func (t *Tracker) lease(j *job, k *task, node string) {
	if j.writesOutput(k) && t.stale(j, k) {
		return
	}
	n := t.nodes[node]
	m := &api.Lease{
		Job: j.id, Kind: apiKind(k.id.Kind), Index: int32(k.id.Index), Number: int32(k.number + 1),
		Program: j.spec.Program, Store: j.creds, MemoryBytes: j.spec.MemoryBytes, MaxRecordBytes: jobs.DefaultMaxRecord,
		Maps: int32(j.rec.Maps),
	}
	if k.id.Kind == state.Map {
		m.Split, m.Partitions = j.splits[k.id.Index], int32(j.rec.Reduces)
		if !j.rec.MapOnly() && n.role != state.RoleCore {
			if m.PushTo = t.keepers(j, k); len(m.PushTo) == 0 {
				return // a task node's segment would have no home: it waits for a core node
			}
		}
	}
	a := &attempt{job: j, task: k, node: node, from: t.cfg.Now()}
	if j.writesOutput(k) {
		a.upload = k.spare
		a.id = k.spare.attempt
		m.Output = &api.Output{Bucket: j.bucket, Key: k.spare.key, UploadId: k.spare.id,
			Format: j.spec.OutputFormat, Compress: j.spec.Compress}
	} else {
		a.id = t.attemptID(j, k)
	}
	m.Attempt = a.id
	if !t.send(node, &api.MasterMessage{Message: &api.MasterMessage_Lease{Lease: m}}) {
		return // it has not left: task and upload stay as they are
	}
	if a.upload != nil {
		k.spare = nil // spent: an upload is for one attempt alone
	}
	k.number++
	k.fetched = false
	t.list(a)
	if k.id.Kind == state.Reduce {
		t.tellPlaces(j, node)
	}
	t.touch(j)
	j.log.Debug("leased", zap.String("task", k.String()), zap.String("attempt", a.id), zap.String("node", node))
}

func apiKind(kind string) api.TaskKind {
	if kind == state.Map {
		return api.TaskKind_TASK_KIND_MAP
	}
	return api.TaskKind_TASK_KIND_REDUCE
}

// keepers are the core nodes that may keep a task node's segment, the order
// turned by the task's index so that they share the load.
func (t *Tracker) keepers(j *job, k *task) []*api.NodeAddress {
	var list []*api.NodeAddress
	for _, n := range t.nodes {
		if n.cluster == j.rec.Cluster && n.role == state.RoleCore && !n.offline {
			list = append(list, &api.NodeAddress{Node: n.id, Address: n.address})
		}
	}
	sort.Slice(list, func(a, b int) bool { return list[a].Node < list[b].Node })
	if len(list) > 1 {
		turn := k.id.Index % len(list)
		list = append(slices.Clone(list[turn:]), list[:turn]...)
	}
	return list
}

func (t *Tracker) freeNodes() []scheduler.Node {
	var list []scheduler.Node
	for _, n := range t.nodes {
		if free := n.slots - len(n.attempts); free > 0 && !n.offline {
			list = append(list, scheduler.Node{ID: n.id, Cluster: n.cluster, Free: free, Core: n.role == state.RoleCore})
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
		if n.offline || len(n.attempts) < n.slots {
			continue
		}
		maps, queued := 0, max(0, len(n.attempts)-n.slots)
		for _, a := range n.attempts {
			if a.task.id.Kind == state.Map {
				maps++
			}
		}
		if room := min(maps-queued, n.slots) - queued; room > 0 {
			list = append(list, scheduler.Node{ID: n.id, Cluster: n.cluster, Free: room, Core: n.role == state.RoleCore})
		}
	}
	sort.Slice(list, func(a, b int) bool { return list[a].ID < list[b].ID })
	return list
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
		if idle[cluster] <= 0 || !t.suits(a.job, a.task, free) {
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
	free := map[string]bool{}
	for _, n := range t.freeNodes() {
		free[n.Cluster] = true
	}
	for _, j := range t.jobs {
		if free[j.rec.Cluster] || j.rec.MapOnly() || !t.leasing(j) {
			continue
		}
		if victims := t.victims(j); len(victims) > 0 {
			for _, a := range victims {
				t.kill(a, "its slot is needed by a map")
			}
		}
	}
}

// victims chooses reduces to end: so many that a quarter of the maps that wait
// (at least one) run at once, the youngest first, on nodes with nothing queued
// if there are such.
func (t *Tracker) victims(j *job) []*attempt {
	wanting, moving := j.waiting[state.Map].count, 0
	var reduces []*attempt
	for _, a := range j.live {
		switch {
		case a.task.id.Kind == state.Map && a.started, a.killing != "", a.ending:
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
	queued := func(a *attempt) bool {
		n := t.nodes[a.node]
		return n != nil && len(n.attempts) > n.slots
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

// onStarted: a lease left the worker's queue for a slot.
func (t *Tracker) onStarted(node string, m *api.AttemptStarted) {
	a := t.attempts[m.Attempt]
	if a == nil || a.node != node {
		return
	}
	a.started, a.revoking = true, false
	if m.UnixMs > 0 {
		a.from = time.UnixMilli(m.UnixMs)
	}
	t.touch(a.job)
}

// onReturned: a revoked lease had not started, and will not.
func (t *Tracker) onReturned(node, id string) {
	a := t.attempts[id]
	if a == nil || a.node != node || a.ending {
		return
	}
	t.unlist(a)
	a.task.fetched = true
	if a.killing == "" && a.task.number > 0 {
		a.task.number--
	}
	t.await(a.job, a.task)
	t.touch(a.job)
}

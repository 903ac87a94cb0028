package tracker

import (
	"fmt"
	"slices"
	"sort"
	"time"

	"go.uber.org/zap"

	"millrace/jobs"
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
	started  bool      // in a slot; else in the worker's queue
	from     time.Time // by its worker's clock
	listed   time.Time // by this leader's
	began    time.Time // in its slot, by this leader's; when it was taken over, if that is all that is known
	second   bool      // it runs beside a straggler
	moved    time.Time // when bytes or records last changed, by this leader's
	bytes    int64
	records  int64
	retried  int64  // requests to the object store that it has repeated
	killing  string // why it is to end; "" = it is not
	revoking bool
	heard    bool   // of, from its worker, since that said hello
	ending   bool   // its end is on the way into the log
	reporter string // who reported it meanwhile, and waits for an answer

	factor float64   // of its kind's need, when it was leased
	holds  []holding // disk that is reserved for it
}

func (t *Tracker) attemptID(j *job, k *task) string {
	t.made++
	return fmt.Sprintf("%s-%s-%d-%d", j.id, taskName(k.id), t.cfg.Term, t.made)
}

// list and unlist keep the books of attempts that are not over.
func (t *Tracker) list(a *attempt) {
	a.listed = t.cfg.Now()
	a.moved, a.began = a.listed, a.listed
	t.attempts[a.id] = a
	a.job.live[a.id] = a
	if n := t.nodes[a.node]; n != nil {
		n.attempts[a.id] = a
		t.reserve(n, a)
	}
	if a.task.current == nil && a.killing == "" {
		a.task.current = a
	}
	a.job.waiting[a.task.id.Kind].drop(a.task)
}

func (t *Tracker) unlist(a *attempt) {
	delete(t.attempts, a.id)
	delete(a.job.live, a.id)
	a.release()
	if n := t.nodes[a.node]; n != nil {
		delete(n.attempts, a.id)
	}
	if a.task.current == a {
		t.promote(a.job, a.task)
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

// lease gives a task to a worker.
func (t *Tracker) lease(j *job, k *task, node string) {
	if j.writesOutput(k) && t.stale(j, k) {
		return
	}
	n := t.nodes[node]
	m := &api.Lease{
		Job: j.id, Kind: apiKind(k.id.Kind), Index: int32(k.id.Index), Number: int32(k.number + 1),
		Program: j.spec.Program, Store: j.creds, MemoryBytes: j.spec.MemoryBytes, MaxRecordBytes: jobs.RecordLimit(j.spec.MaxRecordBytes, j.spec.MemoryBytes),
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
	if len(m.PushTo) > 0 {
		t.reserveAt(m.PushTo[0].Node, a)
	}
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
		a.release()
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

// keepers are the core nodes that may keep a task node's segment and have the disk for it, the order
// turned by the task's index so that they share the load.
func (t *Tracker) keepers(j *job, k *task) []*api.NodeAddress {
	connected := map[string]bool{}
	for _, n := range t.cfg.Workers.Nodes() {
		connected[n.ID] = n.Connected
	}
	var list []*api.NodeAddress
	for _, n := range t.nodes {
		if n.cluster == j.rec.Cluster && n.role == state.RoleCore && n.takes(t.cfg.Now()) && n.volume.room() >= t.need(j, k) && connected[n.id] {
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

// onStarted: a lease left the worker's queue for a slot.
func (t *Tracker) onStarted(node string, m *api.AttemptStarted) {
	a := t.attempts[m.Attempt]
	if a == nil || a.node != node {
		return
	}
	if !a.started {
		a.began = t.cfg.Now()
	}
	a.started, a.revoking, a.heard = true, false, true
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

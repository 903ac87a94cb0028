package tracker

import (
	"fmt"
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
	retried  int64        // requests to the object store that it has repeated
	store    repetitions  // of them, those since it last got on
	killing  string       // why it is to end; "" = it is not
	fault    *api.Failure // it is to end, and that counts as this failure
	revoking bool
	heard    bool // of, from its worker, since that said hello
	at       [sets]int
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
	a.job.live.add(a, ofJob)
	a.task.live.add(a, ofTask)
	a.job.counted(a, 1)
	if n := t.nodes[a.node]; n != nil {
		n.attempts.add(a, ofNode)
		t.rank(n)
		t.reserve(n, a)
	}
	if a.task.current == nil && a.killing == "" {
		a.task.current = a
	}
	a.job.waiting[a.task.id.Kind].drop(a.task)
}

func (t *Tracker) unlist(a *attempt) {
	delete(t.attempts, a.id)
	t.revoke(a, false)
	a.job.counted(a, -1)
	a.job.live.remove(a, ofJob)
	a.task.live.remove(a, ofTask)
	a.release()
	if n := t.nodes[a.node]; n != nil {
		n.attempts.remove(a, ofNode)
		t.rank(n)
	}
	if a.task.current == a {
		t.promote(a.task)
	}
	t.untell(a)
}

// counted adds an attempt to what is counted of the job's live ones, or takes it off.
func (j *job) counted(a *attempt, by int) {
	switch {
	case a.task.id.Kind == state.Reduce:
		j.reducing += by
	case !a.started:
		j.unstarted += by
	}
}

// setStarted says whether an attempt is in a slot.
func (t *Tracker) setStarted(a *attempt, started bool) {
	if t.attempts[a.id] != a {
		a.started = started
		return
	}
	a.job.counted(a, -1)
	a.started = started
	a.job.counted(a, 1)
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
		m.Output = j.outputOf(k)
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

// mostKeepers is how many core nodes a task node gets to choose from for one segment.
const mostKeepers = 16

// keepers are core nodes that may keep a task node's segment and have the disk for it, from the one on whose turn it
// is by the task's index, so that they share the load.
func (t *Tracker) keepers(j *job, k *task) (list []*api.NodeAddress) {
	cores := t.roomsOf(j.rec.Cluster).cores
	need := t.need(j, k)
	for i := range cores {
		n := cores[(k.id.Index+i)%len(cores)]
		if t.hasDisk(n, need) && t.cfg.Workers.Connected(n.id) {
			if list = append(list, &api.NodeAddress{Node: n.id, Address: n.address}); len(list) == mostKeepers {
				break
			}
		}
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
	a.heard = true
	t.setStarted(a, true)
	t.revoke(a, false)
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
	a.task.fetched = true
	t.takeBack(a)
}

// takeBack makes an attempt that has not started as if it had never been.
func (t *Tracker) takeBack(a *attempt) {
	t.unlist(a)
	if a.killing == "" && a.task.number > 0 {
		a.task.number--
	}
	t.await(a.job, a.task)
	t.touch(a.job)
}

package tracker

import (
	"fmt"
	"slices"
	"time"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
)

// simNode behaves as a worker does: it queues leases, runs as many as it has slots, keeps segments and reports
// until they are taken over, and opens a new session when its own has broken.
type simNode struct {
	s      *sim
	number int
	id     string
	role   string
	slots  int
	delay  time.Duration // of a message, either way

	up          bool // its process runs
	linked      bool // it has a session
	leased      bool // the leader waits for it to come back
	session     int
	incarnation int
	slow        float64 // how much longer its attempts take
	downs       int     // how often the leader was told that it is gone

	queue   []*api.Lease
	running []*simRun
	unacked []*api.AttemptReport
	held    []*api.HeldSegment
	places  map[string]*simPlaces // by job
}

// simRun is an attempt in a slot.
type simRun struct {
	lease *api.Lease
	job   *simJob
	since time.Duration
	fetch bool          // it waits for segments
	takes time.Duration // from work on
	work  time.Duration // when that began
	fails bool
	downs int // of its node, when it began
}

// simPlaces is which segments of a job a node was told the place of.
type simPlaces struct {
	told []bool
	all  int
}

const (
	simBeat  = 2 * time.Second
	simAway  = session.DefaultLease + 250*time.Millisecond // after that a silent node is down
	simSplit = 1 << 20
)

func (s *sim) join(number, slots int) *simNode {
	n := &simNode{s: s, number: number, id: fmt.Sprintf("i-%017x", number), role: state.RoleCore, slots: slots,
		delay: time.Duration(300+s.r.IntN(2000)) * time.Microsecond, slow: 1}
	if number%4 == 3 {
		n.role = state.RoleTask
	}
	group := map[string]string{state.RoleCore: "ig-c", state.RoleTask: "ig-t"}[n.role]
	s.must(state.PutNode{Node: state.Node{ID: n.id, Name: n.id, Cluster: "j-1", Group: group, Role: n.role, State: state.NodeAdmitted}})
	s.nodes, s.byID[n.id] = append(s.nodes, n), n
	s.in(time.Duration(s.r.IntN(int(simBeat))), n.number, n.beat)
	n.boot()
	return n
}

// boot starts the node's process.
func (n *simNode) boot() {
	n.up, n.incarnation, n.places = true, n.incarnation+1, map[string]*simPlaces{}
	n.s.in(time.Duration(n.s.r.IntN(int(time.Second))), n.number, n.link)
}

// die ends the node's process, and all that it had.
func (n *simNode) die() {
	n.s.note("died", n.number, "")
	for _, h := range n.held {
		n.s.jobs[h.Job].lost(h.Map)
	}
	n.up, n.queue, n.running, n.unacked, n.held = false, nil, nil, nil, nil
	n.unlink()
}

// unlink breaks the session: what is in the air is lost. The leader waits for a lease's time.
func (n *simNode) unlink() {
	if !n.linked {
		return
	}
	n.linked, n.leased = false, true
	n.session++
	session, leader := n.session, n.s.leader
	n.s.in(simAway, n.number, func() {
		if n.session == session && n.leased {
			n.leased = false
			n.disown()
			if n.downs++; leader == n.s.leader {
				leader.Down(n.id, "nothing heard within the lease")
			}
		}
	})
}

// disown: the node was away for so long that what it runs may run elsewhere by now.
func (n *simNode) disown() {
	for _, r := range n.running {
		delete(n.s.check.owns, r.lease.Attempt)
	}
}

// link opens a session with the leader: hello, what was not acknowledged, a heartbeat.
func (n *simNode) link() {
	if !n.up || n.linked || n.s.leader.dead {
		return
	}
	n.linked, n.leased = true, false
	n.session++
	if n.s.now-n.s.leader.since >= session.DefaultLease {
		n.disown()
	}
	h := &api.WorkerHello{NodeId: n.id, Address: "https://" + n.id, Slots: int32(n.slots), Incarnation: fmt.Sprint(n.incarnation), Segments: slices.Clone(n.held)}
	for _, r := range n.running {
		h.Running = append(h.Running, &api.RunningAttempt{Job: r.lease.Job, Attempt: r.lease.Attempt, Kind: r.lease.Kind, Index: r.lease.Index,
			Started: true, StartedUnixMs: simStart.Add(r.since).UnixMilli()})
	}
	for _, l := range n.queue {
		h.Running = append(h.Running, &api.RunningAttempt{Job: l.Job, Attempt: l.Attempt, Kind: l.Kind, Index: l.Index})
	}
	n.s.note("hello", n.number, "")
	n.s.leader.Up(n.id, h)
	for _, r := range n.unacked {
		n.s.leader.Message(n.id, &api.WorkerMessage{Message: &api.WorkerMessage_Report{Report: r}})
	}
	n.s.leader.Message(n.id, &api.WorkerMessage{Message: &api.WorkerMessage_Heartbeat{Heartbeat: &api.WorkerHeartbeat{}}})
}

func (n *simNode) tell(m *api.WorkerMessage) {
	session := n.session
	n.s.in(n.delay, n.number, func() {
		if n.session == session && n.linked {
			n.s.leader.Message(n.id, m)
		}
	})
}

// beat says how far the attempts are, and looks for a leader if there is none.
func (n *simNode) beat() {
	n.s.in(simBeat, n.number, n.beat)
	if n.up && !n.linked {
		n.link()
		return
	}
	h := &api.WorkerHeartbeat{}
	for _, r := range n.running {
		if !r.fetch {
			part := min(1, float64(n.s.now-r.work)/float64(r.takes))
			h.Progress = append(h.Progress, &api.AttemptProgress{Attempt: r.lease.Attempt, BytesDone: int64(part * simSplit)})
		}
	}
	if n.linked {
		n.tell(&api.WorkerMessage{Message: &api.WorkerMessage_Heartbeat{Heartbeat: h}})
	}
}

func (n *simNode) hear(m *api.MasterMessage) {
	switch v := m.Message.(type) {
	case *api.MasterMessage_Lease:
		n.s.check.leased(n, v.Lease)
		n.hurt(v.Lease)
		n.queue = append(n.queue, v.Lease)
		n.next()
	case *api.MasterMessage_Kill:
		n.s.check.killed(n, v.Kill)
		n.kill(v.Kill.Attempt)
	case *api.MasterMessage_Revoke:
		n.s.note("revoked", n.number, v.Revoke.Attempt)
		if i := n.queued(v.Revoke.Attempt); i >= 0 {
			n.queue = slices.Delete(n.queue, i, i+1)
			n.tell(&api.WorkerMessage{Message: &api.WorkerMessage_Returned{Returned: &api.LeaseReturned{Attempt: v.Revoke.Attempt}}})
		}
	case *api.MasterMessage_Locations:
		n.learn(v.Locations)
	case *api.MasterMessage_Ack:
		n.unacked = slices.DeleteFunc(n.unacked, func(r *api.AttemptReport) bool { return r.Attempt == v.Ack.Attempt })
		if !v.Ack.Accepted {
			n.drop(func(h *api.HeldSegment) bool { return h.Attempt == v.Ack.Attempt })
		}
	case *api.MasterMessage_Forget:
		n.forget(v.Forget.Job)
	}
}

func (n *simNode) queued(attempt string) int {
	return slices.IndexFunc(n.queue, func(l *api.Lease) bool { return l.Attempt == attempt })
}

func (n *simNode) drop(which func(*api.HeldSegment) bool) {
	n.held = slices.DeleteFunc(n.held, func(h *api.HeldSegment) bool {
		if !which(h) {
			return false
		}
		n.s.jobs[h.Job].lost(h.Map)
		return true
	})
}

func (n *simNode) forget(job string) {
	delete(n.places, job)
	n.held = slices.DeleteFunc(n.held, func(h *api.HeldSegment) bool { return h.Job == job })
	n.queue = slices.DeleteFunc(n.queue, func(l *api.Lease) bool { return l.Job == job })
	n.running = slices.DeleteFunc(n.running, func(r *simRun) bool { return r.lease.Job == job })
	n.next()
}

func (n *simNode) kill(attempt string) {
	if i := n.queued(attempt); i >= 0 {
		l := n.queue[i]
		n.queue = slices.Delete(n.queue, i, i+1)
		n.report(l, n.s.now, killedResult())
		return
	}
	for _, r := range n.running {
		if r.lease.Attempt == attempt {
			n.end(r, killedResult())
			return
		}
	}
}

// hurt notes the jobs that wait for a slow node.
func (n *simNode) hurt(leases ...*api.Lease) {
	for _, l := range leases {
		n.s.jobs[l.Job].hurt = n.s.jobs[l.Job].hurt || n.slow > 1
	}
}

// next starts queued leases while there are slots.
func (n *simNode) next() {
	for len(n.running) < n.slots && len(n.queue) > 0 {
		l := n.queue[0]
		n.queue = n.queue[1:]
		r := &simRun{lease: l, job: n.s.jobs[l.Job], since: n.s.now}
		n.running = append(n.running, r)
		n.s.check.started(n, r)
		n.tell(&api.WorkerMessage{Message: &api.WorkerMessage_Started{Started: &api.AttemptStarted{Attempt: l.Attempt, UnixMs: n.s.clock().UnixMilli()}}})
		if l.Kind == api.TaskKind_TASK_KIND_REDUCE && !n.fetched(r.job) {
			r.fetch = true
			continue
		}
		n.work(r)
	}
}

func (n *simNode) work(r *simRun) {
	r.fetch, r.work = false, n.s.now
	r.takes = time.Duration(float64(r.job.length(r.lease.Kind, int(r.lease.Index))) * n.slow)
	r.fails = n.s.r.Float64() < n.s.check.failing
	if r.fails {
		r.takes = time.Duration(float64(r.takes) * n.s.r.Float64())
	}
	n.s.in(r.takes, n.number, func() {
		if slices.Contains(n.running, r) {
			n.end(r, r.job.result(r))
		}
	})
}

// end frees an attempt's slot and reports.
func (n *simNode) end(r *simRun, res *api.AttemptResult) {
	n.running = slices.DeleteFunc(n.running, func(o *simRun) bool { return o == r })
	n.report(r.lease, r.since, res)
	n.next()
}

func (n *simNode) report(l *api.Lease, since time.Duration, res *api.AttemptResult) {
	r := &api.AttemptReport{Job: l.Job, Attempt: l.Attempt, Kind: l.Kind, Index: l.Index, Result: res,
		StartedUnixMs: simStart.Add(since).UnixMilli(), EndedUnixMs: n.s.clock().UnixMilli()}
	if res.Failure == nil && l.Kind == api.TaskKind_TASK_KIND_MAP && l.Partitions > 0 {
		keeper := n.keeper(l)
		if keeper == nil {
			r.Result = &api.AttemptResult{Failure: &api.Failure{Kind: api.FailureKind_FAILURE_KIND_NODE, Message: "no core node takes the segment"}}
		} else {
			r.SegmentNode = keeper.id
			keeper.held = append(keeper.held, &api.HeldSegment{Job: l.Job, Map: l.Index, Attempt: l.Attempt})
			n.s.jobs[l.Job].kept(l.Index)
		}
	}
	if res.Failure == nil && l.Output != nil && !n.s.store.upload(l.Output.UploadId, res.OutputBytes) {
		r.Result = &api.AttemptResult{Failure: &api.Failure{Kind: api.FailureKind_FAILURE_KIND_STORE, Message: "no such upload"}}
	}
	n.s.note("report", n.number, l.Attempt)
	n.unacked = append(n.unacked, r)
	n.tell(&api.WorkerMessage{Message: &api.WorkerMessage_Report{Report: r}})
}

// keeper is the node that keeps a map's segment: this one, or the first that takes it.
func (n *simNode) keeper(l *api.Lease) *simNode {
	if len(l.PushTo) == 0 {
		return n
	}
	for _, to := range l.PushTo {
		if core := n.s.byID[to.Node]; core.up {
			return core
		}
	}
	return nil
}

// learn takes in where segments lie, and lets reduces work that have waited for the last of them.
func (n *simNode) learn(m *api.SegmentLocations) {
	job := n.s.jobs[m.Job]
	p := n.places[m.Job]
	if p == nil {
		p = &simPlaces{told: make([]bool, job.maps)}
		n.places[m.Job] = p
	}
	for _, i := range m.Lost {
		if p.told[i] {
			p.told[i], p.all = false, p.all-1
		}
	}
	for _, s := range m.Segments {
		if !p.told[s.Map] {
			p.told[s.Map], p.all = true, p.all+1
		}
	}
	if !n.fetched(job) {
		return
	}
	for _, r := range slices.Clone(n.running) {
		if r.fetch && r.job == job {
			n.work(r)
		}
	}
}

// fetched says whether a reduce could read all segments now.
func (n *simNode) fetched(job *simJob) bool {
	p := n.places[job.id]
	return job.maps == 0 || p != nil && p.all == job.maps && job.missing == 0
}

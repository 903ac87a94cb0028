package tracker

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/api"
)

// node is a worker that has said hello and is not down.
type node struct {
	id, cluster, role    string
	address, incarnation string
	slots                int
	offline              bool // a message could not be sent: nothing new until it says hello again
	attempts             attempts
	room, rank           [roomKinds]int // of each kind, and where it is in the ranking
	telling              bool           // its hello is heard, but not yet all that it had kept for it
	bootstrap            string         // how far its bootstrap actions are, by the log

	volume  *volume // its disk
	problem string  // why it takes no tasks, as it says itself
	asideBy string  // why it is set aside for a while, until then
	aside   time.Time
	pause   time.Duration // how long it was set aside last; 0: something has succeeded there since

	drainBy time.Time // it gets nothing new, and what still runs there then is killed; zero: it does not drain
	grace   *timer    // until then

	apart      time.Duration // how long it was left alone last as it was cut off from its peers
	apartUntil time.Time

	rows map[string]*row // by job
}

// takes says whether a node may get leases now, as far as its slots and its disk allow.
func (n *node) takes(now time.Time) bool {
	return !n.offline && n.problem == "" && n.drainBy.IsZero() && !now.Before(n.aside)
}

// send sends to a worker; one that cannot be reached gets nothing new until its next hello.
func (t *Tracker) send(id string, m *api.MasterMessage) bool {
	if t.cfg.Workers.Send(id, m) {
		return true
	}
	if n := t.nodes[id]; n != nil {
		n.offline = true
	}
	return false
}

// returned says whether all nodes that may run attempts of an earlier leader
// are back, or have had the time to be.
func (t *Tracker) returned(cluster string) bool {
	if t.leaseUp {
		return true
	}
	if id, looked := t.awaited[cluster]; looked && (id == "" || !t.seen[id]) {
		return id == ""
	}
	for _, n := range t.cfg.View().Nodes(cluster) {
		worker := n.Role == state.RoleCore || n.Role == state.RoleTask
		if worker && n.State != state.NodeTerminated && !t.seen[n.ID] && !(t.oneLease && !t.cfg.Alive(n.ID)) {
			t.awaited[cluster] = n.ID
			return false
		}
	}
	t.awaited[cluster] = ""
	return true
}

// nodeUp compares what a worker says it has with what it should have.
func (t *Tracker) nodeUp(id string, hello *api.WorkerHello) {
	t.takeUp(id)
	rec, ok := t.cfg.View().Node(id)
	if !ok || !works(rec) {
		return
	}
	n := t.nodes[id]
	if n == nil {
		n = &node{id: id, rows: map[string]*row{}}
		t.nodes[id] = n
	} else {
		t.leave(n)
	}
	t.moved[id] = t.cfg.Now()
	restarted := n.incarnation != "" && n.incarnation != hello.Incarnation
	n.cluster, n.role, n.address, n.incarnation = rec.Cluster, rec.Role, hello.Address, hello.Incarnation
	n.slots, n.offline, n.problem, n.bootstrap = int(hello.Slots), false, hello.Problem, rec.Bootstrap
	t.mount(n, hello)
	t.enter(n)
	if !t.seen[id] {
		n.telling = true
		t.after(t.cfg.ReportGrace, func() { t.toldAll(t.nodes[id]) })
	}

	running := map[string]bool{}
	for _, r := range hello.Running {
		running[r.Attempt] = true
	}
	for _, a := range n.attempts {
		if !running[a.id] {
			t.missing(a, restarted)
		}
	}
	for _, r := range hello.Running {
		t.resume(n, r)
	}
	t.holds(n, hello.Segments)
	t.setDrain(n, rec.DrainBy)
	for _, j := range t.order {
		if _, was := j.told[id]; was { // whether or not it arrived
			delete(j.told, id)
			t.tellPlaces(j, id)
		}
	}
	t.touchAll(n.cluster)
}

// toldAll: a node has reported what ended while it had no leader: until then what
// it ran would be handed out again though it is done. Its reports follow the hello,
// and the first heartbeat follows them.
func (t *Tracker) toldAll(n *node) {
	if n == nil || !n.telling {
		return
	}
	n.telling = false
	t.seen[n.id] = true
	t.touchAll(n.cluster)
}

// missing deals with an attempt that a returned node does not list: it is gone
// with the process, or its report is on the way, or its lease never arrived.
func (t *Tracker) missing(a *attempt, restarted bool) {
	switch {
	case a.ending:
	case restarted:
		t.lose(a, "its worker was started again")
	default:
		a.heard = false
		t.after(t.cfg.ReportGrace, func() {
			if t.attempts[a.id] == a && !a.ending && !a.heard {
				// The lease may have arrived after the hello was written.
				t.sendKill(a.node, a.id, "it is counted as lost")
				if !a.started { // nothing ran: its lease went down with the connection
					t.takeBack(a)
					return
				}
				t.lose(a, "lost when the connection to its worker broke")
			}
		})
	}
}

// resume takes up an attempt that a node says is running, or ends it.
func (t *Tracker) resume(n *node, r *api.RunningAttempt) {
	a := t.attempts[r.Attempt]
	switch {
	case a != nil && a.node == n.id && a.ending: // what runs has not reported: it was given up
		t.sendKill(n.id, a.id, "it is counted as lost")
	case a != nil && a.node == n.id && a.killing == "":
		a.heard = true
		t.setStarted(a, r.Started)
		t.revoke(a, false)
	case a != nil && a.node == n.id:
		t.setStarted(a, r.Started)
		t.sendKill(a.node, a.id, a.killing)
	case a != nil:
		t.sendKill(n.id, r.Attempt, "another node has this attempt")
	default:
		a = t.adopt(n.id, r.Job, r.Attempt, r.Kind, int(r.Index))
		if a == nil {
			t.sendKill(n.id, r.Attempt, "nobody knows of it")
			t.forgetOn(n.id, r.Job)
			return
		}
		t.setStarted(a, r.Started)
		if r.StartedUnixMs > 0 {
			a.from = time.UnixMilli(r.StartedUnixMs)
		}
		a.job.log.Info("took over a running attempt", zap.String("attempt", a.id), zap.String("node", n.id))
		if a.task.current != a {
			t.kill(a, "not needed any more")
		} else if a.task.id.Kind == state.Reduce {
			t.tellPlaces(a.job, n.id)
		}
	}
}

// adopt lists an attempt that an earlier leader made; nil if it cannot be one.
// If it may not win any more it is listed, but not its task's current one.
func (t *Tracker) adopt(node, job, id string, kind api.TaskKind, index int) *attempt {
	j := t.jobs[job]
	if j == nil {
		if rec, ok := t.cfg.View().Job(job); ok && !rec.Ended() {
			t.take(rec, true)
			j = t.jobs[job]
		}
	}
	if j == nil || !j.tasked || t.nodes[node] == nil || madeIn(id) == t.cfg.Term || !strings.HasPrefix(id, job+"-") {
		return nil
	}
	k := j.task(state.TaskID{Kind: stateKind(kind), Index: index})
	if k == nil || t.wasEnded(job, k.id, id) {
		return nil
	}
	a := &attempt{id: id, job: j, task: k, node: node, from: t.cfg.Now()}
	hopeless := k.done || j.rec.Ending != "" || k.current != nil
	if j.writesOutput(k) {
		if a.upload = t.uploadOf(j, id); a.upload == nil {
			hopeless = true
		}
	}
	current := k.current
	t.list(a)
	if hopeless {
		k.current = current
		t.await(j, k)
	}
	return a
}

// wasEnded says whether an attempt has ended in the log: one that was given up as lost is lost, also for the next leader, when
// its node comes back with it.
func (t *Tracker) wasEnded(job string, id state.TaskID, attempt string) bool {
	logged, ok := t.cfg.View().Task(job, id)
	return ok && slices.ContainsFunc(logged.Ended, func(e state.EndedAttempt) bool { return e.Attempt == attempt })
}

// uploadOf finds the logged upload that an earlier leader has made for an attempt.
func (t *Tracker) uploadOf(j *job, attempt string) *upload {
	if j.earlier == nil {
		j.earlier = map[string]*upload{}
		for _, u := range t.cfg.View().Uploads(j.id) {
			j.earlier[u.Attempt] = &upload{id: u.ID, key: u.Key, attempt: u.Attempt}
		}
	}
	return j.earlier[attempt]
}

// madeIn is the term of the leader that named an attempt; 0 if that cannot be read.
func madeIn(attempt string) uint64 {
	parts := strings.Split(attempt, "-")
	if len(parts) < 2 {
		return 0
	}
	term, err := strconv.ParseUint(parts[len(parts)-2], 10, 64)
	if err != nil {
		return 0
	}
	return term
}

func stateKind(k api.TaskKind) string {
	switch k {
	case api.TaskKind_TASK_KIND_MAP:
		return state.Map
	case api.TaskKind_TASK_KIND_REDUCE:
		return state.Reduce
	}
	return ""
}

// forgetOn frees what a node holds for a job that is no more.
func (t *Tracker) forgetOn(node, job string) {
	if rec, ok := t.cfg.View().Job(job); ok && !rec.Ended() {
		return
	}
	t.send(node, &api.MasterMessage{Message: &api.MasterMessage_Forget{Forget: &api.ForgetJob{Job: job}}})
}

// nodeDown loses what the node ran, and what only it had.
func (t *Tracker) nodeDown(id, reason string) {
	t.takeUp(id) // perhaps it is down because it was let go
	if n := t.nodes[id]; n != nil {
		t.drop(n, func(a *attempt) { t.lose(a, "its node is gone: "+reason) })
	}
}

// drop forgets a node, once the end of each of its attempts is on the way.
func (t *Tracker) drop(n *node, end func(*attempt)) {
	for _, a := range n.attempts {
		if !a.ending {
			end(a)
		}
	}
	for _, a := range n.attempts {
		t.revoke(a, false)
	}
	t.stop(n.grace)
	t.leave(n)
	delete(t.nodes, n.id)
	t.peers.gone(n.id)
	t.moved[n.id] = t.cfg.Now()
	for _, j := range t.order {
		delete(j.told, n.id)
	}
	t.touchAll(n.cluster)
}

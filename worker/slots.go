package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"millrace/pkg/api"
	"millrace/worker/shuffle"
)

// task is one lease on this node, from its arrival until its report is acknowledged.
type task struct {
	lease   *api.Lease
	ctx     context.Context
	kill    context.CancelCauseFunc
	started time.Time // zero: waits for a slot

	// Guarded by slots.mu.
	bytes, records int64
	storeRetries   int64
	storeTrouble   string
	told           bool // what the last heartbeat said is still so
}

// slots is the books of this node: what waits, what runs, and what has ended but is
// not acknowledged. It also writes to the session, whose messages must agree with
// the books, one after the other. It starts nothing itself.
type slots struct {
	room  int
	begin func(*task)   // runs a task in a goroutine of its own, which ends with finish
	trust func() string // WorkerHeartbeat.trust
	now   func() time.Time

	mu       sync.Mutex
	queue    []*task
	running  map[string]*task
	reports  map[string]*api.AttemptReport // not acknowledged
	out      *outbox                       // of the present session, or nil
	held     bool                          // nothing starts yet
	stopping bool
	stopped  chan struct{} // closed when stopping
}

func newSlots(room int, begin func(*task)) *slots {
	return &slots{room: room, begin: begin, now: time.Now, trust: func() string { return "" },
		running: map[string]*task{}, reports: map[string]*api.AttemptReport{}, stopped: make(chan struct{})}
}

// errJobOver is the cause of kills that no one needs to hear of.
var errJobOver = errors.New("the job is over")

// lease takes a lease in. One that is known already is a repetition; while the node
// stops, the leader is left to find out from the session's end.
func (s *slots) lease(l *api.Lease) error {
	if !shuffle.ValidName(l.Job) || !shuffle.ValidName(l.Attempt) || !strings.HasPrefix(l.Attempt, l.Job+"-") {
		return fmt.Errorf("lease of attempt %q of job %q: no ids", l.Attempt, l.Job)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping || s.running[l.Attempt] != nil || s.reports[l.Attempt] != nil || s.queued(l.Attempt) >= 0 {
		return nil
	}
	ctx, kill := context.WithCancelCause(context.Background())
	s.queue = append(s.queue, &task{lease: l, ctx: ctx, kill: kill})
	s.fill()
	return nil
}

func (s *slots) queued(attempt string) int {
	return slices.IndexFunc(s.queue, func(t *task) bool { return t.lease.Attempt == attempt })
}

// fill puts queued tasks into free slots. Called with mu held.
func (s *slots) fill() {
	for !s.stopping && !s.held && len(s.queue) > 0 && len(s.running) < s.room {
		t := s.queue[0]
		s.queue = s.queue[1:]
		t.started = s.now()
		s.running[t.lease.Attempt] = t
		s.send(&api.WorkerMessage{Message: &api.WorkerMessage_Started{Started: &api.AttemptStarted{
			Attempt: t.lease.Attempt, UnixMs: t.started.UnixMilli()}}})
		s.begin(t)
	}
}

// hold has leases wait in the queue, until it does so no more.
func (s *slots) hold(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = on
	s.fill()
}

// finish frees the task's slot and reports, until that is acknowledged.
func (s *slots) finish(t *task, r *api.AttemptReport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, t.lease.Attempt)
	if cause := context.Cause(t.ctx); cause != errJobOver && cause != errStopping {
		s.report(r)
	}
	t.kill(nil)
	s.fill()
}

// report is called with mu held.
func (s *slots) report(r *api.AttemptReport) {
	s.reports[r.Attempt] = r
	s.send(&api.WorkerMessage{Message: &api.WorkerMessage_Report{Report: r}})
}

// acknowledged takes a report off the list. last says that the job has no further
// lease of that kind here.
func (s *slots) acknowledged(attempt string) (r *api.AttemptReport, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r = s.reports[attempt]
	delete(s.reports, attempt)
	if r == nil {
		return nil, false
	}
	same := func(job string, kind api.TaskKind) bool { return job == r.Job && kind == r.Kind }
	for _, t := range s.running {
		if same(t.lease.Job, t.lease.Kind) {
			return r, false
		}
	}
	for _, t := range s.queue {
		if same(t.lease.Job, t.lease.Kind) {
			return r, false
		}
	}
	for _, o := range s.reports {
		if same(o.Job, o.Kind) {
			return r, false
		}
	}
	return r, true
}

// revoke gives a lease back if it has not started.
func (s *slots) revoke(attempt string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.queued(attempt); i >= 0 {
		s.queue[i].kill(nil)
		s.queue = slices.Delete(s.queue, i, i+1)
		s.send(&api.WorkerMessage{Message: &api.WorkerMessage_Returned{Returned: &api.LeaseReturned{Attempt: attempt}}})
	}
}

// end kills an attempt: a running one reports when it is dead, a queued one at once.
func (s *slots) end(attempt, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.running[attempt]; t != nil {
		t.kill(errors.New(reason))
		return
	}
	i := s.queued(attempt)
	if i < 0 {
		return // reported already, or never here: the leader will see
	}
	t := s.queue[i]
	s.queue = slices.Delete(s.queue, i, i+1)
	t.kill(nil)
	now := s.now()
	s.report(&api.AttemptReport{Job: t.lease.Job, Attempt: attempt, Kind: t.lease.Kind, Index: t.lease.Index,
		StartedUnixMs: now.UnixMilli(), EndedUnixMs: now.UnixMilli(),
		Result: &api.AttemptResult{Failure: &api.Failure{Kind: api.FailureKind_FAILURE_KIND_KILLED, Message: reason}}})
}

// forget drops everything of a job; nobody waits for reports.
func (s *slots) forget(job string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = slices.DeleteFunc(s.queue, func(t *task) bool {
		if t.lease.Job != job {
			return false
		}
		t.kill(nil)
		return true
	})
	for _, t := range s.running {
		if t.lease.Job == job {
			t.kill(errJobOver)
		}
	}
	for id, r := range s.reports {
		if r.Job == job {
			delete(s.reports, id)
		}
	}
}

// stop takes no further lease and starts nothing more.
func (s *slots) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopping {
		close(s.stopped)
	}
	s.stopping = true
	for _, t := range s.queue {
		t.kill(nil)
	}
	s.queue = nil
}

// stopsWithin waits for the node's end, at most for the time, and says whether it has come.
func (s *slots) stopsWithin(d time.Duration) bool {
	late := time.NewTimer(d)
	defer late.Stop()
	select {
	case <-s.stopped:
		return true
	case <-late.C:
		return false
	}
}

// killAll ends every running attempt.
func (s *slots) killAll(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.running {
		t.kill(cause)
	}
}

// progress notes what a running attempt has done so far.
func (s *slots) progress(t *task, p *api.ChildProgress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.bytes != p.BytesDone || t.records != p.RecordsDone || t.storeRetries != p.StoreRetries {
		t.bytes, t.records, t.told = p.BytesDone, p.RecordsDone, false
		t.storeRetries, t.storeTrouble = p.StoreRetries, p.StoreTrouble
	}
}

// bytesDone is what the task's progress last said.
func (s *slots) bytesDone(t *task) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.bytes
}

// heartbeat says what has changed since the last one.
func (s *slots) heartbeat(diskFree int64, problem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beat(diskFree, problem)
}

// beat is heartbeat, called with mu held.
func (s *slots) beat(diskFree int64, problem string) {
	h := &api.WorkerHeartbeat{DiskFreeBytes: diskFree, Problem: problem, Trust: s.trust()}
	for id, t := range s.running {
		if !t.told {
			t.told = true
			h.Progress = append(h.Progress, &api.AttemptProgress{Attempt: id, BytesDone: t.bytes, RecordsDone: t.records,
				StoreRetries: t.storeRetries, StoreTrouble: t.storeTrouble})
		}
	}
	s.send(&api.WorkerMessage{Message: &api.WorkerMessage_Heartbeat{Heartbeat: h}})
}

// problem passes a reduce's trouble on.
func (s *slots) problem(p *api.SegmentProblem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.send(&api.WorkerMessage{Message: &api.WorkerMessage_Problem{Problem: p}})
}

// say sends what belongs to this session alone: if there is none, it is lost.
func (s *slots) say(m *api.WorkerMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.send(m)
}

// send is called with mu held. Without a session the next hello says it all.
func (s *slots) send(m *api.WorkerMessage) {
	if s.out != nil {
		s.out.push(m)
	}
}

// connect makes out the session's queue: first the hello, filled in with what runs, then
// the reports and problems that nobody has answered, then a heartbeat; from then on what happens.
func (s *slots) connect(out *outbox, hello *api.WorkerHello, problems []*api.SegmentProblem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	add := func(t *task) {
		r := &api.RunningAttempt{Job: t.lease.Job, Attempt: t.lease.Attempt, Kind: t.lease.Kind, Index: t.lease.Index}
		if !t.started.IsZero() {
			r.Started, r.StartedUnixMs = true, t.started.UnixMilli()
		}
		hello.Running = append(hello.Running, r)
		t.told = false
	}
	for _, t := range s.running {
		add(t)
	}
	for _, t := range s.queue {
		add(t)
	}
	s.out = out
	s.send(&api.WorkerMessage{Message: &api.WorkerMessage_Hello{Hello: hello}})
	for _, r := range s.reports {
		s.send(&api.WorkerMessage{Message: &api.WorkerMessage_Report{Report: r}})
	}
	for _, p := range problems {
		s.send(&api.WorkerMessage{Message: &api.WorkerMessage_Problem{Problem: p}})
	}
	// A new leader leases again when it has this: what ended under the old one is all said.
	s.beat(hello.DiskFreeBytes, hello.Problem)
}

// disconnect ends a session's queue.
func (s *slots) disconnect(out *outbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out == out {
		s.out = nil
	}
}

// settled says whether nothing runs and every report is acknowledged.
func (s *slots) settled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.running) == 0 && len(s.reports) == 0
}

// outbox is what waits to be sent in one session. It has no bound of its own: reports
// and problems are as many as the leases that caused them.
type outbox struct {
	mu    sync.Mutex
	queue []*api.WorkerMessage
	wake  chan struct{}
}

func newOutbox() *outbox { return &outbox{wake: make(chan struct{}, 1)} }

func (o *outbox) push(m *api.WorkerMessage) {
	o.mu.Lock()
	o.queue = append(o.queue, m)
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *outbox) take() []*api.WorkerMessage {
	o.mu.Lock()
	defer o.mu.Unlock()
	q := o.queue
	o.queue = nil
	return q
}

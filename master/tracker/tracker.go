// Package tracker takes each job through its life: plan, queue, map, reduce,
// commit, clean-up. It runs on the leader alone and owns what is not in the
// log: leases, progress, which upload was given to which attempt. Whatever
// must survive the leader is a log entry before anything that follows from it
// is done; a new leader's tracker goes on from the log and from what the
// workers say in their hellos.
//
// One goroutine owns all of that (an actor). Log entries and the object store
// are asked by other goroutines, which hand back a function for it to run.
package tracker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// Workers reaches the connected workers; session.Registry is one.
type Workers interface {
	// Send queues a message; false if the worker is not connected.
	Send(node string, m *api.MasterMessage) bool
	// Connected says whether a worker has a session now; in its lease it may have none.
	Connected(node string) bool
}

// Stores opens object stores.
type Stores interface {
	// For opens the store that a job reads and writes, and gives its settings
	// with keys, as leases carry them.
	For(job *state.Job) (objectstore.Store, *api.ObjectStore, error)
	// Publisher is for a job whose output is in a block store.
	Publisher(job *state.Job) (Publisher, error)
	// System is the site's store and its system prefix (with the slash, or "").
	System() (store objectstore.Store, bucket, prefix string, err error)
}

// Config sets up a Tracker.
type Config struct {
	Term uint64
	View func() *state.View
	// Apply logs a command and returns what it gave. Errors of package state are
	// answers; any other one means that this master leads no longer (or cannot
	// know): Run ends with it.
	Apply   func(context.Context, state.Command) (any, error)
	Workers Workers
	Stores  Stores
	Locator Locator // nil: where the input lies is not known
	Log     *zap.Logger
	Now     func() time.Time // nil = time.Now
	// Retries is the master's budget for requests that are repeated; nil: no bound.
	Retries *objectstore.Budget

	Lease        time.Duration // 0 = session.DefaultLease: how long a node may be away
	ReturnWithin time.Duration // 0 = session.ReturnWithin: how long nodes have to come to a new leader
	// Alive says whether other sources see a node: one that they do not see has no more than a lease to come to a new leader. nil: all are seen.
	Alive        func(node string) bool
	ReportGrace  time.Duration // 0 = 1 s: how long a returned node has to report what it no longer runs
	KillPatience time.Duration // 0 = 15 s: after that a kill that nobody answers counts as carried out
	UploadBatch  int           // 0 = 64 uploads made ahead at once
	Parallel     int           // 0 = 64 requests to the store at once, per job
	Planners     int           // 0 = 4 jobs planned at once
}

// Tracker tracks the open jobs of one term.
type Tracker struct {
	cfg    Config
	log    *zap.Logger
	events chan event
	done   chan struct{} // closed when the loop is over
	wg     sync.WaitGroup

	changes changes // leader-only news, for watchers

	// Owned by the loop from here on.
	ctx        context.Context
	fatal      error
	jobs       map[string]*job
	order      []*job // the same, the oldest first
	nodes      map[string]*node
	rooms      map[string]*rooms // by cluster
	volumes    map[string]*volume
	starving   int // jobs that wait for disk
	attempts   map[string]*attempt
	made       uint64 // attempts named in this term
	entries    pipeline
	dirty      []*job               // what something happened to, in order
	seen       map[string]bool      // nodes that have said hello in this term
	awaited    map[string]string    // one that has not, by cluster; "": all have
	moved      map[string]time.Time // when a node last said hello or went down
	peers      peers
	oneLease   bool // a lease has gone by since the start: who is not alive is not waited for
	leaseUp    bool // who has not come back by now may not come
	planners   chan struct{}
	speculated time.Time // when stragglers were looked for last
	timers     map[*timer]struct{}

	// How work is done beside the loop, and how it is woken: simulations have their own.
	beside func(f func())
	alarm  func(d time.Duration, f func()) (stop func() bool)
}

// timer is what runs later, if it is not stopped.
type timer struct{ stop func() bool }

// New returns a Tracker. It starts nothing.
func New(c Config) (*Tracker, error) {
	if c.View == nil || c.Apply == nil || c.Workers == nil || c.Stores == nil {
		return nil, errors.New("tracker: View, Apply, Workers and Stores are needed")
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Alive == nil {
		c.Alive = func(string) bool { return true }
	}
	setDefault(&c.Lease, session.DefaultLease)
	setDefault(&c.ReturnWithin, session.ReturnWithin)
	setDefault(&c.ReportGrace, time.Second)
	setDefault(&c.KillPatience, 15*time.Second)
	setDefault(&c.UploadBatch, 64)
	setDefault(&c.Parallel, 64)
	setDefault(&c.Planners, 4)
	return &Tracker{
		cfg: c, log: c.Log.Named("tracker"),
		events: make(chan event, 1024), done: make(chan struct{}),
		jobs: map[string]*job{}, nodes: map[string]*node{}, rooms: map[string]*rooms{}, volumes: map[string]*volume{}, attempts: map[string]*attempt{},
		seen: map[string]bool{}, awaited: map[string]string{}, moved: map[string]time.Time{},
		planners: make(chan struct{}, c.Planners), timers: map[*timer]struct{}{},
		beside: func(f func()) { go f() },
		alarm:  func(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop },
	}, nil
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Run takes up the open jobs and tracks them until ctx ends (nil) or the log
// takes no more entries (the error). It is called once.
func (t *Tracker) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.begin(ctx)
	for t.fatal == nil && ctx.Err() == nil {
		select {
		case e := <-t.events:
			e.do()
			if more := t.drain(); more || !e.question {
				t.settle()
			}
		case <-ctx.Done():
		}
	}
	ended := ctx.Err() != nil
	cancel()
	for timer := range t.timers {
		timer.stop()
	}
	close(t.done)
	t.wg.Wait()
	t.changes.all()
	if t.fatal != nil && !ended {
		return fmt.Errorf("track jobs in term %d: %w", t.cfg.Term, t.fatal)
	}
	return nil
}

// begin takes up the open jobs.
func (t *Tracker) begin(ctx context.Context) {
	t.ctx = ctx
	t.after(t.cfg.Lease, func() {
		t.oneLease = true
		clear(t.awaited)
		t.touchAll("")
	})
	t.after(t.cfg.ReturnWithin, func() {
		t.leaseUp = true
		t.touchAll("")
	})
	for _, rec := range t.cfg.View().OpenJobs() {
		t.take(rec, true)
	}
	t.settle()
}

// event is something for the loop to do. A question changes nothing: nothing is to be settled after it.
type event struct {
	do       func()
	question bool
}

// drain runs what is waiting, so that one settle serves many events, and says whether anything was no question.
func (t *Tracker) drain() (more bool) {
	for range 256 {
		select {
		case e := <-t.events:
			e.do()
			more = more || !e.question
		default:
			return more
		}
	}
	return more
}

// settle lets every job that something happened to take its next step, then
// hands out work and log entries.
func (t *Tracker) settle() {
	for again := true; again; again = len(t.dirty) > 0 {
		touched := t.dirty
		t.dirty = nil
		for _, j := range touched {
			j.dirty = false
			t.changes.tell(j.id)
			if t.jobs[j.id] == j {
				t.advance(j)
			}
		}
		t.schedule()
	}
	t.fly()
}

// post hands f to the loop; dropped once the loop is over.
func (t *Tracker) post(f func()) {
	select {
	case t.events <- event{do: f}:
	case <-t.done:
	}
}

// spawn runs f beside the loop, and what it returns in the loop.
func (t *Tracker) spawn(f func() func()) {
	t.wg.Add(1)
	t.beside(func() {
		defer t.wg.Done()
		if then := f(); then != nil {
			t.post(then)
		}
	})
}

// after runs f in the loop after d. The timer may be stopped with t.stop.
func (t *Tracker) after(d time.Duration, f func()) *timer {
	timer := &timer{}
	t.timers[timer] = struct{}{}
	timer.stop = t.alarm(d, func() {
		t.post(func() {
			if _, ok := t.timers[timer]; ok {
				delete(t.timers, timer)
				f()
			}
		})
	})
	return timer
}

func (t *Tracker) stop(timer *timer) {
	if timer != nil {
		timer.stop()
		delete(t.timers, timer)
	}
}

// ask runs f, which changes nothing, in the loop and waits; false if the loop is not running.
func (t *Tracker) ask(f func()) bool {
	answered := make(chan struct{})
	select {
	case t.events <- event{func() { f(); close(answered) }, true}:
	case <-t.done:
		return false
	}
	select {
	case <-answered:
		return true
	case <-t.done:
		return false
	}
}

// touch marks a job for its next step.
func (t *Tracker) touch(j *job) {
	if !j.dirty {
		j.dirty = true
		t.dirty = append(t.dirty, j)
	}
}

// touchAll touches the jobs of a cluster, or all of them ("").
func (t *Tracker) touchAll(cluster string) {
	for _, j := range t.order {
		if cluster == "" || j.rec.Cluster == cluster {
			j.checkSegments = true
			t.touch(j)
		}
	}
}

// Submitted tells the tracker of a job that is in the log now.
func (t *Tracker) Submitted(job string) { t.nudge(job) }

// Cancelled tells the tracker that a CancelJob has been applied.
func (t *Tracker) Cancelled(job string) { t.nudge(job) }

func (t *Tracker) nudge(id string) {
	t.post(func() {
		if j := t.jobs[id]; j != nil {
			t.touch(j)
		} else if rec, ok := t.cfg.View().Job(id); ok && !rec.Ended() {
			t.take(rec, false)
		}
	})
}

// Up, Down and Message make the Tracker a session.Handler.
func (t *Tracker) Up(node string, hello *api.WorkerHello) {
	t.post(func() { t.nodeUp(node, hello) })
}

func (t *Tracker) Down(node, reason string) {
	t.post(func() { t.nodeDown(node, reason) })
}

func (t *Tracker) Message(node string, m *api.WorkerMessage) {
	t.post(func() {
		switch v := m.Message.(type) {
		case *api.WorkerMessage_Heartbeat:
			t.onProgress(node, v.Heartbeat)
		case *api.WorkerMessage_Report:
			t.onReport(node, v.Report)
		case *api.WorkerMessage_Started:
			t.onStarted(node, v.Started)
		case *api.WorkerMessage_Problem:
			t.onProblem(node, v.Problem)
		case *api.WorkerMessage_Returned:
			t.onReturned(node, v.Returned.Attempt)
		}
	})
}

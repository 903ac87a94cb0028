package tracker

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"millrace/jobs"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
	"millrace/pkg/pace"
)

// job is an open job as the leader knows it: its record, and what is not logged.
type job struct {
	id   string
	rec  *state.Job // as of the last look
	spec *api.JobSpec
	log  *zap.Logger

	store          objectstore.Store
	creds          *api.ObjectStore
	bucket, prefix string // of the output

	inherited    bool // an earlier leader had it: attempts may run that nobody here has leased
	uncertain    bool // uploads may exist that are not in the log
	tasked       bool // maps and reduces are set up: the job is planned
	splits       []*api.Split
	disk         int64              // of all maps
	planned      bool               // splits are at hand
	busy         string             // what one exclusive step is doing: plan, load, commit, clean; "" = none
	quit         context.CancelFunc // ends that step early
	trouble      string             // what is being tried again, for people
	troubleSince time.Time
	retried      objectstore.Tally // requests of the leader's own that were repeated
	storeTrouble string            // what an attempt's was last repeated for
	failing      bool              // a FailJob is under way

	maps, reduces []*task
	wanting       bool              // a straggling map waits for a slot elsewhere: no reduce gets one
	waiting       map[string]*queue // by kind: tasks that want a lease
	live          map[string]*attempt
	told          map[string]bool // nodes that know the places of the segments
	checkSegments bool            // winners' segments are to be looked over

	unmade     []*task // output tasks that need an upload
	creating   int     // batches of uploads under way
	lastBatch  context.CancelFunc
	unlogged   []upload // made, refused by the log: to be aborted
	retryAfter *time.Timer

	speeds map[string][]float64 // by kind: of tasks that are done, in bytes per second; since this leader leads
	learnt map[string]*learnt   // by kind: the disk that its tasks need
	noRoom string               // why nothing of it runs: no node has the disk for it; "" = that is not so
	stuck  time.Time            // since when

	redone  map[int]int // commit: how often a part had to be made again
	resumed bool        // a commit was begun before
	recheck bool        // the ledger is to be checked (again) before a commit goes on
	timeout *time.Timer
	held    []func()     // reports that wait for the plan
	news    map[int]bool // maps whose place changed since it was last told

	pace pace.Meter
}

// task is a map or a reduce, as of the log, with its attempt.
type task struct {
	id       state.TaskID
	done     bool
	win      *state.Completion
	prior    *state.Completion
	failures int
	number   int       // attempts so far
	fetched  bool      // it was in a worker's queue and taken back: next it gets a slot
	choosy   time.Time // until then it waits for a node that is not in those lists
	refusals int       // completions the log did not take
	// unreadable counts failures that are the input's own.
	unreadable int
	starved    int      // attempts that ended because their node had run out of something
	dropped    int      // attempts whose upload the store has lost
	avoid      []string // nodes where one has failed
	shun       []string // nodes where one could not read what others could
	waiting    bool     // in the queue
	straggles  bool     // it is to have an upload for a second attempt
	current    *attempt // that may still win
	spare      *upload  // made ahead, for the next attempt
	gone       bool     // the winner's segment node says it does not have it
	losing     bool     // a LoseMaps is under way
	bytes      int64    // maps: of the split
	disk       int64    // maps: that its spills and segment are taken to need
}

func (k *task) String() string { return taskName(k.id) }

// taskName is a task's name for people: m-00003.
func taskName(id state.TaskID) string { return fmt.Sprintf("%s-%05d", id.Kind, id.Index) }

// upload is a logged multipart upload and the attempt it was made for.
type upload struct {
	id, key, attempt string
	made             time.Time
}

// take begins to track an open job.
func (t *Tracker) take(rec *state.Job, inherited bool) {
	j := &job{
		id: rec.ID, rec: rec, spec: &api.JobSpec{}, log: t.log.With(zap.String("job", rec.ID)),
		inherited: inherited, uncertain: inherited && rec.Planned(), recheck: inherited,
		waiting: map[string]*queue{state.Map: {}, state.Reduce: {}},
		live:    map[string]*attempt{}, speeds: map[string][]float64{}, told: map[string]bool{}, learnt: map[string]*learnt{state.Map: {factor: 1}, state.Reduce: {factor: 1}}, redone: map[int]int{}, news: map[int]bool{},
		checkSegments: true, resumed: rec.Phase == state.PhaseCommitting,
	}
	t.jobs[j.id] = j
	t.touch(j)
	if err := proto.Unmarshal(rec.Spec, j.spec); err != nil {
		t.failJob(j, fmt.Sprintf("its specification cannot be read: %v", err), nil, true)
		return
	}
	if u, err := objectstore.ParseURL(rec.Output); err != nil {
		t.failJob(j, fmt.Sprintf("output %s: %v", rec.Output, err), nil, true)
	} else {
		j.bucket, j.prefix = u.Bucket, u.Key
		if j.prefix != "" && !strings.HasSuffix(j.prefix, "/") {
			j.prefix += "/"
		}
	}
	if d := time.Duration(j.spec.TimeoutMs) * time.Millisecond; d > 0 {
		j.timeout = t.after(max(0, rec.SubmittedAt.Add(d).Sub(t.cfg.Now())), func() { t.timedOut(j, d) })
	}
	if rec.Planned() {
		t.setTasks(j)
	}
}

// setTasks sets up a planned job's tasks from the log.
func (t *Tracker) setTasks(j *job) {
	j.tasked = true
	j.maps = makeTasks(state.Map, j.rec.Maps)
	j.reduces = makeTasks(state.Reduce, j.rec.Reduces)
	view := t.cfg.View()
	for _, kind := range []string{state.Map, state.Reduce} {
		tasks := j.tasks(kind)
		for _, logged := range view.Tasks(j.id, kind) {
			if i := logged.ID.Index; i < len(tasks) {
				tasks[i].read(logged)
			}
		}
		for _, k := range tasks {
			t.await(j, k)
		}
	}
}

func makeTasks(kind string, n int) []*task {
	tasks := make([]*task, n)
	all := make([]task, n)
	for i := range all {
		all[i].id = state.TaskID{Kind: kind, Index: i}
		tasks[i] = &all[i]
	}
	return tasks
}

// read takes over what the log says of a task.
func (k *task) read(logged *state.Task) {
	k.done, k.win, k.prior, k.failures = logged.Done, logged.Win, logged.Prior, logged.Failures
	k.number = max(k.number, len(logged.Ended))
	k.avoid = k.avoid[:0]
	for _, e := range logged.Ended {
		if e.State == state.AttemptFailed {
			k.avoid = append(k.avoid, e.Node)
		}
	}
}

// reread looks a task up in the log again.
func (t *Tracker) reread(j *job, k *task) {
	if logged, ok := t.cfg.View().Task(j.id, k.id); ok {
		k.read(logged)
	}
	if k.done {
		j.waiting[k.id.Kind].drop(k)
	}
}

// await queues a task for a lease, if it needs one.
func (t *Tracker) await(j *job, k *task) {
	if k.done || k.current != nil || k.waiting {
		return
	}
	j.waiting[k.id.Kind].push(k)
	if j.writesOutput(k) && k.spare == nil {
		j.unmade = append(j.unmade, k)
	}
}

func (j *job) tasks(kind string) []*task {
	if kind == state.Map {
		return j.maps
	}
	return j.reduces
}

func (j *job) task(id state.TaskID) *task {
	if tasks := j.tasks(id.Kind); id.Index >= 0 && id.Index < len(tasks) {
		return tasks[id.Index]
	}
	return nil
}

// outputs are the tasks that write the output.
func (j *job) outputs() []*task { return j.tasks(j.rec.OutputKind()) }

func (j *job) writesOutput(k *task) bool { return k.id.Kind == j.rec.OutputKind() }

// partKey is the key of an output task's part.
func (j *job) partKey(index int) string {
	return j.prefix + jobs.PartName(j.spec, j.rec.OutputKind()[0], index)
}

// open finds the job's store, once.
func (t *Tracker) open(j *job) error {
	if j.store != nil {
		return nil
	}
	store, creds, err := t.cfg.Stores.For(j.rec)
	if err != nil {
		return fmt.Errorf("open the object store of job %s: %w", j.id, err)
	}
	// What is repeated is repeated by retry, where it is known what the job is doing.
	j.store, j.creds = objectstore.Once(store), creds
	return nil
}

// advance lets a job take its next step: the one place that decides what that is.
func (t *Tracker) advance(j *job) {
	rec, ok := t.cfg.View().Job(j.id)
	if ok {
		j.rec = rec
	}
	if !ok || rec.Ended() {
		t.forget(j)
		return
	}
	if rec.Planned() && !j.tasked {
		t.setTasks(j)
	}
	t.tellNews(j)
	if rec.Ending != "" {
		t.wind(j)
		return
	}
	if j.failing || !t.opened(j) {
		return
	}
	outputDone := j.tasked && rec.MapsDone == rec.Maps && rec.ReducesDone == rec.Reduces
	switch {
	case !rec.Planned():
		t.plan(j)
	case outputDone && rec.Phase == state.PhaseCommitting && !j.recheck:
		t.commit(j)
	case outputDone:
		t.beginCommit(j)
	default:
		t.load(j)
		t.makeUploads(j)
		t.loseSegments(j)
	}
}

// opened opens the job's store; if that cannot be done now, later.
func (t *Tracker) opened(j *job) bool {
	if err := t.open(j); err != nil {
		j.note(t.cfg.Now(), err)
		if j.retryAfter == nil {
			j.retryAfter = t.after(time.Second, func() { j.retryAfter = nil; t.touch(j) })
		}
		return false
	}
	return true
}

// later lets a job take its next step after a second: what was refused now
// would be refused again at once.
func (t *Tracker) later(j *job) {
	t.after(time.Second, func() { t.touch(j) })
}

// note keeps the trouble that is being tried again, and since when, for people; nil clears it.
func (j *job) note(now time.Time, err error) {
	was := j.trouble
	j.trouble = ""
	if err != nil {
		j.trouble = err.Error()
		if was == "" {
			j.troubleSince = now
		}
		if was != j.trouble {
			j.log.Warn("trying again", zap.Error(err))
		}
	}
}

// failJob makes the job fail for a reason; the first one counts.
func (t *Tracker) failJob(j *job, reason string, f *state.Failure, force bool) {
	if j.failing || j.rec.Ending != "" {
		return
	}
	j.failing = true
	j.log.Warn("job fails", zap.String("reason", reason))
	t.propose(j.id, state.FailJob{Job: j.id, Reason: reason, Failure: f, Force: force}, func(_ any, err error) {
		if err != nil {
			j.failing = false
			j.log.Info("job is past failing", zap.Error(err))
		}
		t.touch(j)
	})
}

// timedOut cancels a job that has had its time.
func (t *Tracker) timedOut(j *job, d time.Duration) {
	j.timeout = nil
	if t.jobs[j.id] != j {
		return
	}
	t.propose(j.id, state.CancelJob{Job: j.id, Reason: "timed out after " + d.String()}, func(_ any, err error) {
		if err != nil {
			j.log.Info("time is over, but the job is past cancelling", zap.Error(err))
		}
		t.touch(j)
	})
}

// forget drops a job that has ended, and tells its cluster's nodes to do the same.
func (t *Tracker) forget(j *job) {
	delete(t.jobs, j.id)
	t.stop(j.timeout)
	t.stop(j.retryAfter)
	for _, a := range j.live {
		t.unlist(a)
	}
	for _, n := range t.nodes {
		if n.cluster == j.rec.Cluster {
			t.send(n.id, &api.MasterMessage{Message: &api.MasterMessage_Forget{Forget: &api.ForgetJob{Job: j.id}}})
		}
	}
	j.log.Info("job ended", zap.String("state", j.rec.State), zap.String("reason", j.rec.Reason))
	t.changes.tell(j.id)
}

// step runs f beside the loop as the job's one exclusive step, and then in the
// loop what it returns. ctx ends when the job is wound up.
func (t *Tracker) step(j *job, what string, f func(ctx context.Context) func()) {
	ctx, cancel := context.WithCancel(t.ctx)
	j.busy, j.quit = what, cancel
	t.spawn(func() func() {
		then := f(ctx)
		cancel()
		return func() {
			j.busy, j.quit = "", nil
			t.touch(j)
			if then != nil {
				then()
			}
		}
	})
}

package tracker

import (
	"cmp"
	"context"
	"fmt"
	"slices"
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
	committer      committer

	begun        bool   // it has had its turn: it is planned, or is to be
	turn         string // why it has not; "" = it has, or nobody has looked yet
	inherited    bool   // an earlier leader had it: attempts may run that nobody here has leased
	uncertain    bool   // uploads may exist that are not in the log
	tasked       bool   // maps and reduces are set up: the job is planned
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
	live          attempts
	reducing      int                // live reduces
	unstarted     int                // live maps that are in no slot yet
	dirty         bool               // touched, and not looked at yet
	again         map[int]bool       // maps whose places are to be told once more; nil: none
	told          map[string]bool    // nodes that are to know the places of the segments; false: they could not be sent
	telling       *api.MasterMessage // all places, for the next node; nil: they have changed
	kept          map[string][]*task // maps whose segment a node keeps, and such as it kept once
	earlier       map[string]*upload // of an earlier leader, by attempt; nil: not looked up yet
	observed      time.Time          // when a sample for its pace was taken last
	checkSegments bool               // winners' segments are to be looked over

	unmade     []*task // output tasks that need an upload
	invalid    int     // batches in a row that the store has called invalid
	creating   int     // batches of uploads under way
	lastBatch  context.CancelFunc
	unlogged   []upload // made, refused by the log: to be aborted
	retryAfter *timer

	near       map[string]*shelf    // waiting maps by the nodes that hold their input; nil: it lies in no block store
	loose      *shelf               // those that wait for no such node
	passedOver map[string]time.Time // since when nodes with room are passed over, as nothing waiting lies there

	speeds map[string][]float64 // by kind: of tasks that are done, in bytes per second; since this leader leads
	learnt map[string]*learnt   // by kind: the disk that its tasks need
	noRoom string               // why nothing of it runs: no node has the disk for it; "" = that is not so
	stuck  time.Time            // since when

	redone  map[int]int // commit: how often a part had to be made again
	resumed bool        // a commit was begun before
	recheck bool        // the ledger is to be checked (again) before a commit goes on
	timeout *timer
	held    []func()     // reports that wait for the plan
	news    map[int]bool // maps whose place changed since it was last told

	pace pace.Meter
}

// take begins to track an open job.
func (t *Tracker) take(rec *state.Job, inherited bool) {
	j := &job{
		id: rec.ID, rec: rec, spec: &api.JobSpec{}, log: t.log.With(zap.String("job", rec.ID)),
		begun: rec.Planned(), inherited: inherited, uncertain: inherited && rec.Planned(), recheck: inherited,
		waiting: map[string]*queue{state.Map: {}, state.Reduce: {}},
		speeds:  map[string][]float64{}, told: map[string]bool{}, kept: map[string][]*task{}, learnt: map[string]*learnt{state.Map: {factor: 1}, state.Reduce: {factor: 1}}, redone: map[int]int{}, news: map[int]bool{},
		checkSegments: true, resumed: rec.Phase == state.PhaseCommitting,
	}
	t.jobs[j.id] = j
	at, _ := slices.BinarySearchFunc(t.order, rec.Sequence, func(o *job, s uint64) int { return cmp.Compare(o.rec.Sequence, s) })
	t.order = slices.Insert(t.order, at, j)
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
				j.read(tasks[i], logged)
			}
		}
		for _, k := range tasks {
			t.await(j, k)
		}
	}
}

// read takes over what the log says of a task.
func (j *job) read(k *task, logged *state.Task) {
	if logged.Done && logged.Win != k.win && logged.Win.SegmentNode != "" {
		j.kept[logged.Win.SegmentNode] = append(j.kept[logged.Win.SegmentNode], k)
	}
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
		j.read(k, logged)
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
	j.waiting[k.id.Kind].push(k, !j.writesOutput(k) || k.uploaded())
	j.shelve(k)
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
	store = objectstore.Once(store)
	switch {
	case jobs.Copies(j.spec):
		j.committer = copies{t, j}
	case !objectstore.IsHDFS(j.bucket):
		j.committer = objects{t, j}
	default:
		p, err := t.cfg.Stores.Publisher(j.rec)
		if err != nil {
			return fmt.Errorf("open the output of job %s: %w", j.id, err)
		}
		j.committer = files{t, j, p}
	}
	j.store, j.creds = store, creds
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
	if t.disband(j) || j.failing || !t.opened(j) {
		return
	}
	outputDone := j.tasked && rec.MapsDone == rec.Maps && rec.ReducesDone == rec.Reduces
	switch {
	case !rec.Planned():
		if t.mayBegin(j) {
			t.plan(j)
		}
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
	if j.store != nil {
		return true
	}
	if err := t.open(j); err != nil {
		j.note(t.cfg.Now(), err)
		if j.retryAfter == nil {
			j.retryAfter = t.after(time.Second, func() { j.retryAfter = nil; t.touch(j) })
		}
		return false
	}
	j.note(t.cfg.Now(), nil)
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
	if !j.stuck.IsZero() {
		t.starving--
	}
	t.order = slices.DeleteFunc(t.order, func(o *job) bool { return o == j })
	t.stop(j.timeout)
	t.stop(j.retryAfter)
	for _, a := range slices.Clone(j.live) {
		t.unlist(a)
	}
	for _, n := range t.nodes {
		if n.cluster == j.rec.Cluster {
			t.send(n.id, &api.MasterMessage{Message: &api.MasterMessage_Forget{Forget: &api.ForgetJob{Job: j.id}}})
		}
	}
	t.nextTurn(j.rec.Cluster)
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

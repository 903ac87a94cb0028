package state

import (
	"fmt"

	"github.com/google/go-cmp/cmp"
)

// twinTask is a task as the twin sees it: who won, and what a lost winner had written.
type twinTask struct {
	attempt string // the winner; "" = to be done
	last    string // the winner whose work was lost last
	digest  uint64 // of a done or lost map's segment, of a done reduce's set
	ledger  Ledger
	known   bool            // a map that is done or was
	ended   map[string]bool // attempts that ended without winning, or whose work was lost
	fails   int
}

// twinJob is a job without any sums: whatever Job keeps as one is counted here anew each time.
type twinJob struct {
	state, phase, ending  string
	output                string
	maps, reduces         []*twinTask
	uploads               map[string]TaskID
	mapped, reset         bool // every map was done at one time; reduces have started over
	failed, killed, extra int  // attempts; extra: lost
}

// twin is a slow and simple model of the store's jobs.
type twin struct{ jobs map[string]*twinJob }

func (j *twinJob) over() bool {
	return j.state == JobCompleted || j.state == JobFailed || j.state == JobCancelled
}

func (j *twinJob) task(id TaskID) *twinTask {
	list := j.maps
	if id.Kind == Reduce {
		list = j.reduces
	}
	if id.Index < 0 || id.Index >= len(list) {
		return nil
	}
	return list[id.Index]
}

func done(list []*twinTask) (n int) {
	for _, k := range list {
		if k.attempt != "" {
			n++
		}
	}
	return n
}

// written sums what all maps wrote whose output was or may have been consumed.
func (j *twinJob) written() (set uint64, sum Ledger) {
	for i, k := range j.maps {
		if k.known {
			set += term(i, k.digest)
			sum = sum.Add(k.ledger)
		}
	}
	return set, sum
}

func (j *twinJob) fetched() (sum Ledger) {
	for _, k := range j.reduces {
		if k.attempt != "" {
			sum = sum.Add(k.ledger)
		}
	}
	return sum
}

func newTasks(n int) []*twinTask {
	list := make([]*twinTask, n)
	for i := range list {
		list[i] = &twinTask{ended: map[string]bool{}}
	}
	return list
}

func (w *twin) plan(c PlanJob) bool {
	j := w.jobs[c.Job]
	if j == nil || j.state != JobPending || j.ending != "" {
		return false
	}
	j.state, j.phase = JobRunning, PhaseMapping
	j.maps, j.reduces = newTasks(c.Maps), newTasks(c.Reduces)
	j.settle()
	return true
}

// settle moves the job on when its maps are all done.
func (j *twinJob) settle() {
	if done(j.maps) == len(j.maps) {
		j.mapped = true
	}
	if j.phase == PhaseMapping && j.mapped && len(j.reduces) > 0 {
		j.phase = PhaseReducing
	}
	if n := len(j.reduces); n > 0 && done(j.reduces) == n {
		for _, k := range j.maps { // nobody needs lost maps any more
			if k.attempt == "" {
				k.attempt = k.last
			}
		}
	}
}

// end says what EndTasks must answer.
func (w *twin) end(e EndTask) EndTaskResult {
	j := w.jobs[e.Job]
	switch {
	case j == nil:
		return EndTaskResult{Reason: RefusedNoJob}
	case j.over():
		return EndTaskResult{Reason: RefusedJobEnded}
	case j.phase == "":
		return EndTaskResult{Reason: RefusedNotPlanned}
	}
	k := j.task(e.Task)
	if k == nil {
		return EndTaskResult{Reason: RefusedNoTask}
	}
	if e.Ended != nil {
		return j.unwon(k, e)
	}
	switch {
	case k.attempt == e.Win.Attempt:
		return EndTaskResult{Accepted: true}
	case j.ending != "":
		return EndTaskResult{Reason: RefusedJobEnded}
	case k.attempt != "":
		return EndTaskResult{Reason: RefusedOtherWon}
	}
	if task, ok := j.uploads[e.Win.UploadID]; e.Win.UploadID != "" && (!ok || task != e.Task) {
		return EndTaskResult{Reason: RefusedNoUpload}
	}
	result := EndTaskResult{Accepted: true}
	if e.Task.Kind == Reduce {
		if set, _ := j.written(); !j.mapped || e.Win.Digest != set {
			return EndTaskResult{Reason: RefusedOtherInput}
		}
	} else if k.known && k.digest != e.Win.Digest && done(j.reduces) > 0 {
		if j.reset || j.phase == PhaseCommitting {
			return EndTaskResult{NotDeterministic: true, Reason: RefusedNotDeterministic}
		}
		for _, r := range j.reduces {
			j.undo(r)
		}
		j.reset, result.NotDeterministic, result.ReducesReset = true, true, true
	}
	k.attempt, k.digest, k.ledger, k.known = e.Win.Attempt, e.Win.Digest, e.Win.Ledger, true
	j.settle()
	return result
}

func (j *twinJob) unwon(k *twinTask, e EndTask) EndTaskResult {
	if k.ended[e.Ended.Attempt] {
		return EndTaskResult{Accepted: true}
	}
	if k.attempt == e.Ended.Attempt {
		return EndTaskResult{Reason: RefusedHadWon}
	}
	switch e.CountsAs {
	case CountsFailed:
		j.failed++
		k.fails++
	case CountsKilled:
		j.killed++
	case CountsLost:
		j.extra++
	}
	k.ended[e.Ended.Attempt] = true
	return EndTaskResult{Accepted: true}
}

// undo makes a done task one to be done again.
func (j *twinJob) undo(k *twinTask) {
	if k.attempt != "" {
		k.ended[k.attempt] = true
		k.last, k.attempt = k.attempt, ""
		j.extra++
	}
}

func (w *twin) lose(c LoseMaps) (lost []int) {
	j := w.jobs[c.Job]
	if j == nil || j.over() || j.ending != "" || done(j.reduces) == len(j.reduces) {
		return nil
	}
	for _, m := range c.Maps {
		if k := j.task(TaskID{Map, m.Index}); k != nil && k.attempt != "" && k.attempt == m.Attempt {
			j.undo(k)
			lost = append(lost, m.Index)
		}
	}
	return lost
}

func (j *twinJob) ready() bool {
	_, written := j.written()
	return j.state == JobRunning && j.ending == "" && done(j.maps) == len(j.maps) && done(j.reduces) == len(j.reduces) &&
		(len(j.reduces) == 0 || written == j.fetched())
}

func (w *twin) redo(c RedoParts) bool {
	j := w.jobs[c.Job]
	if j == nil || j.over() || j.ending != "" || j.phase != PhaseCommitting {
		return false
	}
	output := j.reduces
	if len(output) == 0 {
		output = j.maps
	}
	for _, i := range c.Tasks {
		if i >= len(output) {
			return false
		}
	}
	for _, i := range c.Tasks {
		j.undo(output[i])
		if len(j.reduces) == 0 {
			output[i].known = false
		}
	}
	return true
}

func (j *twinJob) finish(state string) { j.state, j.phase, j.ending, j.uploads = state, "", "", nil }

// check compares a stored job with the twin's, and with its own tasks.
func (j *twinJob) check(t failer, v *View, id string) {
	t.Helper()
	got, ok := v.Job(id)
	if !ok {
		t.Fatalf("job %s is gone", id)
	}
	set, written := j.written()
	want := *got
	want.State, want.Phase, want.Ending = j.state, j.phase, j.ending
	want.Maps, want.MapsDone, want.Reduces, want.ReducesDone = len(j.maps), done(j.maps), len(j.reduces), done(j.reduces)
	want.MapDigest, want.MapLedger, want.Fetched = set, written, j.fetched()
	want.Failed, want.Killed, want.Lost = j.failed, j.killed, j.extra
	want.BytesDone = int64(100 * done(j.maps))
	if want.ReduceRound = 0; j.reset {
		want.ReduceRound = 1
	}
	if d := cmp.Diff(&want, got); d != "" {
		t.Fatalf("job %s (- twin, + store):\n%s", id, d)
	}
	for kind, list := range map[string][]*twinTask{Map: j.maps, Reduce: j.reduces} {
		for i, k := range list {
			task, logged := v.Task(id, TaskID{kind, i})
			if !logged {
				task = &Task{}
			}
			if task.Done != (k.attempt != "") || task.Done != (task.Win != nil) || task.Failures != k.fails || len(task.Ended) != min(len(k.ended), maxEnded) {
				t.Fatalf("job %s: task %s %d is %+v, the twin's %+v", id, kind, i, task, k)
			}
			if task.Prior != nil && (task.Done || kind == Reduce) {
				t.Fatalf("job %s: task %s %d is %+v", id, kind, i, task)
			}
		}
		if n := len(v.Tasks(id, kind)); n > len(list) {
			t.Fatalf("job %s has %d tasks of kind %s, %d are logged", id, len(list), kind, n)
		}
	}
	if n := len(v.Uploads(id)); n != len(j.uploads) {
		t.Fatalf("job %s has %d uploads, the twin's %d", id, n, len(j.uploads))
	}
	if got.State == JobCompleted && (got.MapsDone != got.Maps || got.ReducesDone != got.Reduces || got.Reduces > 0 && got.MapLedger != got.Fetched) {
		t.Fatalf("job %s is complete without being so: %+v", id, got)
	}
	if open := fmt.Sprint(jobIDs(v.OpenJobs())); !j.over() != containsWord(open, id) {
		t.Fatalf("job %s is %s; open jobs: %s", id, got.State, open)
	}
}

package state

import (
	"slices"
	"strings"
)

// twinTask is a task as the twin sees it: who won, and what a lost winner had written.
type twinTask struct {
	attempt string // the winner; "" = to be done
	last    string // the winner whose work was lost last
	digest  uint64 // of a done or lost map's segment, of a done reduce's set
	ledger  Ledger
	known   bool     // a map that is done or was
	ended   []string // attempts that ended without winning, or whose work was lost; the log remembers the newest eight
	fails   int
}

// twinJob is a job without any sums: whatever Job keeps as one is counted here anew each time.
type twinJob struct {
	Job                                // what is set once: by the submit, the plan, the ends
	state, phase, ending        string // as they are now
	maps, reduces               []*twinTask
	uploads                     map[string]Upload
	mapped, reset               bool // every map was done at one time; reduces have started over
	failed, killed, extra, spec int  // attempts; extra: lost
}

func (j *twinJob) over() bool {
	return j.state == JobCompleted || j.state == JobFailed || j.state == JobCancelled
}

func (j *twinJob) task(id TaskID) *twinTask {
	list := j.maps
	if id.Kind == Reduce {
		list = j.reduces
	}
	if id.Index < 0 || id.Index >= len(list) || id.Kind != Map && id.Kind != Reduce {
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

// remembers says whether an attempt is among the newest eight that ended: one that is logged again counts once.
func (k *twinTask) remembers(attempt string) bool {
	return slices.Contains(k.ended[max(0, len(k.ended)-8):], attempt)
}

func newTasks(n int) []*twinTask {
	list := make([]*twinTask, n)
	for i := range list {
		list[i] = &twinTask{}
	}
	return list
}

// overlaps: all outputs of the histories end in a slash, and none is the same as being nowhere.
func overlaps(a, b string) bool {
	return a != "" && b != "" && (strings.HasPrefix(a, b) || strings.HasPrefix(b, a))
}

// reserved is an open job whose output is in the way of another.
func (w *twin) reserved(output string) *twinJob {
	for _, j := range w.order {
		if !j.over() && overlaps(j.Output, output) {
			return j
		}
	}
	return nil
}

// ofRequest is the job that a user's request id has made, of the history too.
func (w *twin) ofRequest(cluster, user, request string) *twinJob {
	for _, j := range slices.Concat(w.order, w.past) {
		if request != "" && j.Cluster == cluster && j.User == user && j.RequestID == request {
			return j
		}
	}
	return nil
}

// submit also says which job the answer is.
func (w *twin) submit(in Job, index uint64) (id string, err error) {
	if in.ID == "" {
		return "", ErrInvalid
	}
	if j := w.ofRequest(in.Cluster, in.User, in.RequestID); j != nil {
		return j.ID, nil
	}
	switch {
	case w.jobs[in.ID] != nil, w.inHistory(in.ID):
		return "", ErrExists
	case w.site == nil || in.Cluster != w.cluster.ID:
		return "", ErrNotFound
	case w.reserved(in.Output) != nil:
		return "", ErrOutputReserved
	}
	in.Sequence = index
	in.State, in.MapsDone = "", 0 // not the submitter's to say
	j := &twinJob{Job: in, state: JobPending, uploads: map[string]Upload{}}
	w.jobs[in.ID] = j
	w.order = append(w.order, j)
	w.made++
	return in.ID, nil
}

func (w *twin) inHistory(id string) bool {
	return slices.ContainsFunc(w.past, func(j *twinJob) bool { return j.ID == id })
}

// retire moves jobs that have ended to the history, and says which.
func (w *twin) retire(ids []string) (moved []string) {
	for _, id := range ids {
		if j := w.jobs[id]; j != nil && j.over() {
			delete(w.jobs, id)
			w.order = slices.DeleteFunc(w.order, func(o *twinJob) bool { return o == j })
			w.past = append(w.past, j)
			moved = append(moved, id)
		}
	}
	return moved
}

// forget drops jobs of the history, and says which.
func (w *twin) forget(ids []string) (gone []string) {
	for _, id := range ids {
		if w.inHistory(id) {
			w.past = slices.DeleteFunc(w.past, func(j *twinJob) bool { return j.ID == id })
			gone = append(gone, id)
		}
	}
	return gone
}

// open finds a job that goes on: ErrTooLate if it has ended or is about to.
func (w *twin) open(id string) (*twinJob, error) {
	j := w.jobs[id]
	switch {
	case j == nil:
		return nil, ErrNotFound
	case j.over() || j.ending != "":
		return nil, ErrTooLate
	}
	return j, nil
}

func (w *twin) plan(c PlanJob) error {
	j, err := w.open(c.Job)
	switch {
	case err != nil:
		return err
	case j.state != JobPending:
		return ErrTooLate
	case c.Maps < 0 || c.Reduces < 0 || c.BytesTotal < 0:
		return ErrInvalid
	}
	j.state, j.phase = JobRunning, PhaseMapping
	j.PlanKey, j.PlanDigest, j.BytesTotal, j.PlannedAt, j.Notes = c.PlanKey, c.PlanDigest, c.BytesTotal, c.At, c.Notes
	j.maps, j.reduces = newTasks(c.Maps), newTasks(c.Reduces)
	if c.Maps == 0 {
		j.MapsEndedAt = c.At
	}
	j.settle()
	return nil
}

// settle moves the job on when its maps are all done.
func (j *twinJob) settle() {
	if done(j.maps) == len(j.maps) && !j.mapped {
		j.mapped = true
		if len(j.maps) > 0 {
			j.MapsEndedAt = at(3) // as all maps of the histories
		}
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
	switch {
	case k == nil:
		return EndTaskResult{Reason: RefusedNoTask}
	case (e.Win == nil) == (e.Ended == nil), e.Win != nil && e.Win.Attempt == "", e.Ended != nil && e.Ended.Attempt == "":
		return EndTaskResult{Reason: RefusedMalformed}
	case e.Ended != nil:
		return j.unwon(k, e)
	case k.attempt == e.Win.Attempt:
		return EndTaskResult{Accepted: true}
	case j.ending != "":
		return EndTaskResult{Reason: RefusedJobEnded}
	case k.attempt != "":
		return EndTaskResult{Reason: RefusedOtherWon}
	}
	if u, ok := j.uploads[e.Win.UploadID]; e.Win.UploadID != "" && (!ok || u.Task != e.Task) {
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
	if e.Speculative {
		j.spec++
	}
	j.settle()
	return result
}

func (j *twinJob) unwon(k *twinTask, e EndTask) EndTaskResult {
	if k.remembers(e.Ended.Attempt) {
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
	default:
		return EndTaskResult{Reason: RefusedMalformed}
	}
	if e.Speculative {
		j.spec++
	}
	k.ended = append(k.ended, e.Ended.Attempt)
	return EndTaskResult{Accepted: true}
}

// undo makes a done task one to be done again.
func (j *twinJob) undo(k *twinTask) {
	if k.attempt != "" {
		k.ended = append(k.ended, k.attempt)
		k.last, k.attempt = k.attempt, ""
		j.extra++
	}
}

func (w *twin) lose(c LoseMaps) (lost []int, err error) {
	j := w.jobs[c.Job]
	if j == nil {
		return nil, ErrNotFound
	}
	if j.over() || j.ending != "" || done(j.reduces) == len(j.reduces) {
		return nil, nil
	}
	for _, m := range c.Maps {
		if k := j.task(TaskID{Map, m.Index}); k != nil && k.attempt != "" && k.attempt == m.Attempt {
			j.undo(k)
			lost = append(lost, m.Index)
		}
	}
	return lost, nil
}

// addUploads takes all or none.
func (w *twin) addUploads(c AddUploads) error {
	taken := map[[2]string]Upload{}
	for _, u := range c.Uploads {
		j, err := w.open(u.Job)
		if err != nil {
			return err
		}
		may := u.Task.Index >= 0 && (u.Task.Kind == Map || u.Task.Kind == Reduce) // ahead of the plan nobody knows the tasks
		if j.phase != "" {
			may = j.task(u.Task) != nil && (u.Task.Kind == Reduce) == (len(j.reduces) > 0)
		}
		if u.ID == "" || !may {
			return ErrInvalid
		}
		old, known := taken[[2]string{u.Job, u.ID}]
		if !known {
			old, known = j.uploads[u.ID]
		}
		if known && (old.Task != u.Task || old.Key != u.Key) {
			return ErrExists
		}
		taken[[2]string{u.Job, u.ID}] = u
	}
	for _, u := range taken {
		w.jobs[u.Job].uploads[u.ID] = u
	}
	return nil
}

func (w *twin) dropUploads(c DropUploads) error {
	j := w.jobs[c.Job]
	if j == nil {
		return ErrNotFound
	}
	for _, id := range c.IDs {
		delete(j.uploads, id)
	}
	return nil
}

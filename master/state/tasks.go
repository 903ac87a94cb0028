package state

import (
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of what is logged of an ended attempt.
const (
	maxEnded   = 8    // attempts kept per task, the newest
	maxMessage = 512  // bytes
	maxStderr  = 1024 // bytes, the last
)

// task returns a copy of a task's record, to change and insert; a new one if nothing is logged of it.
func (t *txn) task(job string, id TaskID) *Task {
	if old, ok := first[Task](t.Txn, tableTask, byID, job, id.Kind, id.Index); ok {
		task := *old
		return &task
	}
	return &Task{Job: job, ID: id}
}

// has says whether the job's plan has such a task.
func (j *Job) has(id TaskID) bool {
	switch id.Kind {
	case Map:
		return id.Index >= 0 && id.Index < j.Maps
	case Reduce:
		return id.Index >= 0 && id.Index < j.Reduces
	}
	return false
}

func (t *txn) endTasks(c EndTasks) ([]EndTaskResult, error) {
	results := make([]EndTaskResult, len(c.Items))
	for i, item := range c.Items {
		var err error
		if results[i], err = t.endTask(item); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// endTask logs one ended attempt. What refuses it is in the result, not an error:
// the other items of the entry stand.
func (t *txn) endTask(e EndTask) (EndTaskResult, error) {
	j, err := t.job(e.Job)
	switch {
	case errors.Is(err, ErrNotFound):
		return refused(RefusedNoJob)
	case err != nil:
		return EndTaskResult{}, err
	case j.Ended():
		return refused(RefusedJobEnded)
	case !j.Planned():
		return refused(RefusedNotPlanned)
	case !j.has(e.Task):
		return refused(RefusedNoTask)
	case e.Win != nil && e.Ended == nil && e.Win.Attempt != "":
		return t.endWon(j, t.task(j.ID, e.Task), e)
	case e.Win == nil && e.Ended != nil && e.Ended.Attempt != "":
		return t.endUnwon(j, t.task(j.ID, e.Task), e)
	}
	return refused(RefusedMalformed)
}

func refused(reason string) (EndTaskResult, error) { return EndTaskResult{Reason: reason}, nil }

func (t *txn) endWon(j *Job, task *Task, e EndTask) (EndTaskResult, error) {
	if task.Done && task.Win.Attempt == e.Win.Attempt {
		return EndTaskResult{Accepted: true}, nil // logged a second time, by who got no answer to the first
	}
	switch {
	case j.Ending != "":
		return refused(RefusedJobEnded)
	case task.Done:
		return refused(RefusedOtherWon)
	}
	if id := e.Win.UploadID; id != "" {
		if u, ok := t.upload(j.ID, id); !ok || u.Task != task.ID {
			return refused(RefusedNoUpload)
		}
	}
	win := t.winMap
	if task.ID.Kind == Reduce {
		win = t.winReduce
	}
	result, err := win(j, task, e.Win)
	if err != nil || !result.Accepted {
		return result, err
	}
	if e.Speculative {
		j.Speculative++
	}
	if err := t.Insert(tableTask, task); err != nil {
		return EndTaskResult{}, err
	}
	return result, t.putJob(j)
}

func (t *txn) winMap(j *Job, task *Task, win *Completion) (EndTaskResult, error) {
	result := EndTaskResult{Accepted: true}
	if p := task.Prior; p != nil {
		if p.Digest != win.Digest && j.ReducesDone > 0 {
			result.NotDeterministic = true
			if j.ReduceRound > 0 || j.Phase == PhaseCommitting {
				// Refused, so that the mismatch stays even if nobody lives to fail the job.
				return EndTaskResult{Reason: RefusedNotDeterministic, NotDeterministic: true}, nil
			}
			if err := t.resetReduces(j); err != nil {
				return EndTaskResult{}, err
			}
			result.ReducesReset = true
		}
		j.MapLedger = j.MapLedger.Sub(p.Ledger)
		j.MapDigest -= p.SetTerm
	}
	task.Done, task.Win, task.Prior = true, win, nil
	j.MapsDone++
	j.BytesDone += win.InputBytes
	j.MapLedger = j.MapLedger.Add(win.Ledger)
	j.MapDigest += win.SetTerm
	if j.MapsDone == j.Maps && j.Phase == PhaseMapping {
		j.MapsEndedAt = win.EndedAt
		if !j.MapOnly() {
			j.Phase = PhaseReducing
		}
	}
	return result, nil
}

// resetReduces makes all reduces of the job start over.
func (t *txn) resetReduces(j *Job) error {
	for _, old := range collect(each[Task](t.Txn, tableTask, byIDPrefix, j.ID, Reduce)) {
		if !old.Done {
			continue
		}
		task := *old
		task.endWin(j, "consumed a map output that a second run did not give again")
		if err := t.Insert(tableTask, &task); err != nil {
			return err
		}
	}
	j.ReducesDone, j.Fetched, j.ReducesEndedAt = 0, Ledger{}, time.Time{}
	j.ReduceRound++
	return nil
}

func (t *txn) winReduce(j *Job, task *Task, win *Completion) (EndTaskResult, error) {
	// Until every map was done once, no reduce can have consumed all of them.
	if j.Phase == PhaseMapping || win.Digest != j.MapDigest {
		return refused(RefusedOtherInput)
	}
	task.Done, task.Win = true, win
	j.ReducesDone++
	j.Fetched = j.Fetched.Add(win.Ledger)
	if j.ReducesDone < j.Reduces {
		return EndTaskResult{Accepted: true}, nil
	}
	j.ReducesEndedAt = win.EndedAt
	return EndTaskResult{Accepted: true}, t.reviveMaps(j)
}

// reviveMaps makes maps whose segments were lost completed again, once all reduces
// have consumed what they had written: nothing would be gained by running them again.
func (t *txn) reviveMaps(j *Job) error {
	if j.MapsDone == j.Maps {
		return nil
	}
	for _, old := range collect(each[Task](t.Txn, tableTask, byIDPrefix, j.ID, Map)) {
		if old.Done || old.Prior == nil {
			continue
		}
		task := *old
		task.Done, task.Win, task.Prior = true, old.Prior, nil
		j.MapsDone++
		j.BytesDone += task.Win.InputBytes
		if err := t.Insert(tableTask, &task); err != nil {
			return err
		}
	}
	return nil
}

func (t *txn) endUnwon(j *Job, task *Task, e EndTask) (EndTaskResult, error) {
	ended := *e.Ended
	if slices.ContainsFunc(task.Ended, func(a EndedAttempt) bool { return a.Attempt == ended.Attempt }) {
		return EndTaskResult{Accepted: true}, nil // logged a second time
	}
	if task.Done && task.Win.Attempt == ended.Attempt {
		return refused(RefusedHadWon)
	}
	switch e.CountsAs {
	case CountsFailed:
		task.Failures++
		j.Failed++
		ended.State = AttemptFailed
	case CountsKilled:
		j.Killed++
		ended.State = AttemptKilled
	case CountsLost:
		j.Lost++
		ended.State = AttemptLost
	default:
		return refused(RefusedMalformed)
	}
	if e.Speculative {
		j.Speculative++
	}
	ended.Failure = bounded(ended.Failure)
	task.remember(ended)
	if err := t.Insert(tableTask, task); err != nil {
		return EndTaskResult{}, err
	}
	return EndTaskResult{Accepted: true}, t.putJob(j)
}

func (t *txn) loseMaps(c LoseMaps) ([]int, error) {
	j, err := t.job(c.Job)
	if err != nil {
		return nil, err
	}
	if j.Ended() || j.Ending != "" || j.MapOnly() || j.ReducesDone == j.Reduces {
		return nil, nil
	}
	var lost []int
	for _, m := range c.Maps {
		task := t.task(j.ID, TaskID{Map, m.Index})
		if !task.Done || task.Win.Attempt != m.Attempt {
			continue
		}
		j.MapsDone--
		j.BytesDone -= task.Win.InputBytes
		prior := task.Win
		task.endWin(j, "its segment was lost")
		task.Prior = prior
		if err := t.Insert(tableTask, task); err != nil {
			return nil, err
		}
		lost = append(lost, m.Index)
	}
	return lost, t.putJob(j)
}

// endWin makes a completed task pending again: what its winner did is lost.
func (t *Task) endWin(j *Job, why string) {
	w := t.Win
	j.Lost++
	t.remember(EndedAttempt{
		Attempt: w.Attempt, Node: w.Node, State: AttemptLost, StartedAt: w.StartedAt, EndedAt: w.EndedAt,
		Failure: Failure{Node: w.SegmentNode, Message: why},
	})
	t.Done, t.Win = false, nil
}

// remember adds an ended attempt, and forgets the oldest beyond maxEnded. The old
// slice is other views' and stays as it is.
func (t *Task) remember(e EndedAttempt) {
	keep := t.Ended
	if len(keep) >= maxEnded {
		keep = keep[len(keep)-maxEnded+1:]
	}
	t.Ended = append(slices.Clip(keep), e)
}

// bounded cuts a failure's texts to what may be logged.
func bounded(f Failure) Failure {
	f.Message = clip(f.Message, maxMessage)
	f.Input = clip(f.Input, maxMessage*2) // a key has at most 1024 bytes
	f.Signal = clip(f.Signal, 32)
	if tail := f.StderrTail; len(tail) > maxStderr {
		tail = tail[len(tail)-maxStderr:]
		for len(tail) > 0 && !utf8.RuneStart(tail[0]) {
			tail = tail[1:]
		}
		f.StderrTail = tail
	}
	f.StderrTail = strings.ToValidUTF8(f.StderrTail, "?")
	return f
}

// clip cuts s to at most max bytes at a character's border. A run of bytes that are no text
// becomes "?", because JSON, which the log and snapshots are in, cannot hold it.
func clip(s string, max int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= max {
		return s
	}
	for max > 0 && !utf8.RuneStart(s[max]) {
		max--
	}
	return s[:max]
}

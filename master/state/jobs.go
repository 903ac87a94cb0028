package state

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/go-memdb"
)

// job returns a copy of a job's record, to change and put.
func (t *txn) job(id string) (*Job, error) {
	old, ok := first[Job](t.Txn, tableJob, byID, id)
	if !ok {
		return nil, fmt.Errorf("job %s: %w", id, ErrNotFound)
	}
	j := *old
	return &j, nil
}

// putJob stores a job. It is called for a change of its tasks and uploads too: a
// watch of a job is a watch of this one record.
func (t *txn) putJob(j *Job) error { return t.Insert(tableJob, j) }

func (t *txn) submitJob(c SubmitJob) (*Job, error) {
	in := &c.Job
	if in.ID == "" {
		return nil, fmt.Errorf("%w: a job needs an id", ErrInvalid)
	}
	if in.RequestID != "" {
		if known, ok := first[Job](t.Txn, tableJob, byRequest, in.Cluster, in.User, in.RequestID); ok {
			return known, nil
		}
		if past, ok := first[PastJob](t.Txn, tablePast, byRequest, in.Cluster, in.User, in.RequestID); ok {
			return past.Brief(), nil
		}
	}
	_, known := first[Job](t.Txn, tableJob, byID, in.ID)
	_, past := first[PastJob](t.Txn, tablePast, byID, in.ID)
	if known || past {
		return nil, fmt.Errorf("job %s: %w", in.ID, ErrExists)
	}
	if _, err := t.liveCluster(in.Cluster); err != nil {
		return nil, err
	}
	if other := reserved(t.Txn, in.Output); other != nil {
		return nil, &OutputReservedError{Job: other.ID, Output: in.Output}
	}
	j := &Job{ // what is not the submitter's to say starts empty
		ID: in.ID, Cluster: in.Cluster, Name: in.Name, Program: in.Program, User: in.User, RequestID: in.RequestID,
		Spec: in.Spec, SealedStore: in.SealedStore, Input: in.Input, Output: in.Output, Overwrite: in.Overwrite,
		Priority: in.Priority, SubmittedAt: in.SubmittedAt,
		Sequence: t.index, State: JobPending,
	}
	return j, t.putJob(j)
}

// reserved is the open job whose output equals, contains or lies in that one, or nil. "s3://b/x/" and
// "s3://b/xy/" have nothing to do with each other. No output is in nobody's way.
func reserved(t *memdb.Txn, output string) *Job {
	if output == "" {
		return nil
	}
	output = slashed(output)
	if j, ok := first[Job](t, tableJob, byOutputPrefix, partial(output)); ok {
		return j
	}
	for i := range len(output) - 1 {
		if output[i] != '/' {
			continue
		}
		if j, ok := first[Job](t, tableJob, byOutput, output[:i+1]); ok {
			return j
		}
	}
	return nil
}

func slashed(prefix string) string { return strings.TrimSuffix(prefix, "/") + "/" }

func (t *txn) planJob(c PlanJob) (*Job, error) {
	j, err := t.job(c.Job)
	if err != nil {
		return nil, err
	}
	if j.State != JobPending || j.Ending != "" {
		return nil, tooLate(j)
	}
	if c.Maps < 0 || c.Reduces < 0 || c.BytesTotal < 0 {
		return nil, fmt.Errorf("%w: plan of %d maps, %d reduces, %d bytes", ErrInvalid, c.Maps, c.Reduces, c.BytesTotal)
	}
	j.State, j.Phase, j.PlannedAt = JobRunning, PhaseMapping, c.At
	j.PlanKey, j.PlanDigest, j.BytesTotal, j.Maps, j.Reduces = c.PlanKey, c.PlanDigest, c.BytesTotal, c.Maps, c.Reduces
	j.Notes = c.Notes
	if j.Maps == 0 {
		j.MapsEndedAt = c.At
		if !j.MapOnly() {
			j.Phase = PhaseReducing
		}
	}
	return j, t.putJob(j)
}

func (t *txn) failJob(c FailJob) (*Job, error) {
	j, err := t.job(c.Job)
	if err != nil {
		return nil, err
	}
	if j.Ending == JobFailed {
		return j, nil // the first cause stays
	}
	if j.Ended() || j.Ending != "" || (j.Phase == PhaseCommitting && !c.Force) {
		return nil, tooLate(j)
	}
	j.Ending, j.Reason = JobFailed, clip(c.Reason, maxMessage)
	if c.Failure != nil {
		f := bounded(*c.Failure)
		j.Failure = &f
	}
	return j, t.putJob(j)
}

func (t *txn) cancelJob(c CancelJob) (*Job, error) {
	j, err := t.job(c.Job)
	if err != nil {
		return nil, err
	}
	if j.State == JobCancelPending || j.State == JobCancelled {
		return j, nil
	}
	if j.Ended() || j.Ending != "" || j.Phase == PhaseCommitting {
		return nil, tooLate(j)
	}
	j.State, j.Ending, j.Reason = JobCancelPending, JobCancelled, clip(c.Reason, maxMessage)
	return j, t.putJob(j)
}

func (t *txn) endJob(c EndJob) (*Job, error) {
	j, err := t.job(c.Job)
	if err != nil {
		return nil, err
	}
	switch {
	case j.State == JobFailed || j.State == JobCancelled:
		return j, nil
	case j.Ended():
		return nil, tooLate(j)
	case j.Ending == "":
		return nil, fmt.Errorf("job %s is neither failing nor being cancelled: %w", j.ID, ErrNotReady)
	}
	j.State, j.Ending, j.EndedAt = j.Ending, "", c.At
	if c.Left != "" {
		j.Reason = strings.TrimPrefix(j.Reason+"; "+c.Left, "; ")
	}
	return j, t.closeJob(j, c.Retries)
}

// closeJob stores a job that has its final state: counters are summed, uploads forgotten.
func (t *txn) closeJob(j *Job, r StoreRetries) error {
	j.Phase = ""
	j.StoreTrouble = r.Last
	j.Counters = t.sumCounters(j.ID, r.Requests)
	if _, err := t.DeleteAll(tableUpload, byIDPrefix, j.ID); err != nil {
		return err
	}
	return t.putJob(j)
}

// CounterGroup and CounterStoreRetries name what counts requests that were repeated.
const (
	CounterGroup        = "millrace"
	CounterStoreRetries = "storeRetries"
)

// sumCounters adds up the counters of the attempts that won, and the leader's own
// retries, in order of group and name.
func (t *txn) sumCounters(job string, retries int64) []Counter {
	type id struct{ group, name string }
	sums := map[id]int64{}
	if retries > 0 {
		sums[id{CounterGroup, CounterStoreRetries}] = retries
	}
	for task := range each[Task](t.Txn, tableTask, byIDPrefix, job) {
		if task.Done {
			for _, c := range task.Win.Counters {
				sums[id{c.Group, c.Name}] += c.Value
			}
		}
	}
	var counters []Counter
	for k, v := range sums {
		counters = append(counters, Counter{Group: k.group, Name: k.name, Value: v})
	}
	slices.SortFunc(counters, func(a, b Counter) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Name, b.Name))
	})
	return counters
}

// tooLate says what the job is doing instead.
func tooLate(j *Job) error {
	what := j.State
	switch {
	case j.Ending == JobFailed:
		what = "failing"
	case j.Phase != "" && j.State == JobRunning:
		what = j.Phase
	}
	return fmt.Errorf("job %s is %s: %w", j.ID, what, ErrTooLate)
}

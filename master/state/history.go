package state

import (
	"cmp"
	"slices"
	"time"
)

// PastJob is what stays here of a job that has moved to the history: enough to find it by, and
// to say where its record lies.
type PastJob struct {
	ID          string    `json:"id"`
	Cluster     string    `json:"cluster"`
	Name        string    `json:"name"`
	User        string    `json:"user"`
	RequestID   string    `json:"requestId,omitempty"`
	State       string    `json:"state"`
	SubmittedAt time.Time `json:"submittedAt"`
	EndedAt     time.Time `json:"endedAt"`
	Sequence    uint64    `json:"sequence"`
	Page        string    `json:"page"` // of the history: the object that lists it, among others
}

// Brief is the job as far as it is known here. Its record has the rest.
func (p *PastJob) Brief() *Job {
	return &Job{
		ID: p.ID, Cluster: p.Cluster, Name: p.Name, User: p.User, RequestID: p.RequestID, State: p.State,
		SubmittedAt: p.SubmittedAt, EndedAt: p.EndedAt, Sequence: p.Sequence,
	}
}

// retireJobs leaves of each job a PastJob. A job that has ended changes no more, so that
// what was written of it before this command is what it was to the end; and nothing of it
// is left to be cleaned up: it ends when that is done.
func (t *txn) retireJobs(c RetireJobs) ([]string, error) {
	var moved []string
	for _, id := range c.Jobs {
		j, ok := first[Job](t.Txn, tableJob, byID, id)
		if !ok || !j.Ended() {
			continue
		}
		for _, table := range []string{tableTask, tableUpload} {
			if _, err := t.DeleteAll(table, byIDPrefix, id); err != nil {
				return nil, err
			}
		}
		if err := t.Delete(tableJob, j); err != nil {
			return nil, err
		}
		if err := t.Insert(tablePast, &PastJob{
			ID: j.ID, Cluster: j.Cluster, Name: j.Name, User: j.User, RequestID: j.RequestID, State: j.State,
			SubmittedAt: j.SubmittedAt, EndedAt: j.EndedAt, Sequence: j.Sequence, Page: c.Page,
		}); err != nil {
			return nil, err
		}
		moved = append(moved, id)
	}
	return moved, nil
}

func (t *txn) forgetJobs(c ForgetJobs) ([]string, error) {
	var gone []string
	for _, id := range c.Jobs {
		p, ok := first[PastJob](t.Txn, tablePast, byID, id)
		if !ok {
			continue
		}
		if err := t.Delete(tablePast, p); err != nil {
			return nil, err
		}
		gone = append(gone, id)
	}
	return gone, nil
}

// EndedJobs returns the site's jobs that have ended and have not moved to the history, the first that ended first.
func (v *View) EndedJobs() []*Job {
	var ended []*Job
	for j := range each[Job](v.txn, tableJob, byID) {
		if j.Ended() {
			ended = append(ended, j)
		}
	}
	slices.SortFunc(ended, func(a, b *Job) int {
		return cmp.Or(a.EndedAt.Compare(b.EndedAt), cmp.Compare(a.Sequence, b.Sequence))
	})
	return ended
}

// PastJob finds a job of the history by its id.
func (v *View) PastJob(id string) (*PastJob, bool) {
	return first[PastJob](v.txn, tablePast, byID, id)
}

// PastJobs returns a cluster's jobs that have moved to the history, the newest first; "" means all of the site.
func (v *View) PastJobs(cluster string) []*PastJob {
	var past []*PastJob
	if cluster == "" {
		past = collect(each[PastJob](v.txn, tablePast, byID))
		slices.SortFunc(past, func(a, b *PastJob) int { return cmp.Compare(a.Sequence, b.Sequence) })
	} else {
		past = collect(each[PastJob](v.txn, tablePast, byClusterPrefix, cluster))
	}
	slices.Reverse(past)
	return past
}

// Entry is a job in a listing: its record, or what stays of one that has moved to the
// history. One of the two is set.
type Entry struct {
	Job  *Job
	Past *PastJob
}

// Brief is the job's record, or as much as is known here of a past one.
func (e Entry) Brief() *Job {
	if e.Past != nil {
		return e.Past.Brief()
	}
	return e.Job
}

// Ended says whether the job has its final state.
func (e Entry) Ended() bool { return e.Past != nil || e.Job.Ended() }

// State is the job's state, as logged.
func (e Entry) State() string {
	if e.Past != nil {
		return e.Past.State
	}
	return e.Job.State
}

// Sequence orders jobs by their submission.
func (e Entry) Sequence() uint64 {
	if e.Past != nil {
		return e.Past.Sequence
	}
	return e.Job.Sequence
}

// Name is the job's name.
func (e Entry) Name() string {
	if e.Past != nil {
		return e.Past.Name
	}
	return e.Job.Name
}

// List returns a cluster's jobs, those of the history too, the newest first; "" means all of the site.
func (v *View) List(cluster string) []Entry {
	jobs, past := v.Jobs(cluster), v.PastJobs(cluster)
	list := make([]Entry, 0, len(jobs)+len(past))
	for len(jobs)+len(past) > 0 {
		if len(past) == 0 || len(jobs) > 0 && jobs[0].Sequence > past[0].Sequence {
			list, jobs = append(list, Entry{Job: jobs[0]}), jobs[1:]
		} else {
			list, past = append(list, Entry{Past: past[0]}), past[1:]
		}
	}
	return list
}

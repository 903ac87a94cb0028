package state

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"strings"
)

// checkJobs compares what the views say of jobs, tasks and uploads.
func (m *machine) checkJobs() {
	m.Helper()
	v, w := m.b.View(), &m.twin
	var all, open []*Job
	for _, j := range w.order {
		all = append([]*Job{j.record()}, all...)
		if !j.over() {
			open = append(open, j.record())
		}
	}
	m.same("jobs", all, v.Jobs(""))
	m.same("jobs of the cluster", all, v.Jobs(testCluster))
	m.same("jobs of another cluster", []*Job(nil), v.Jobs("j-OTHER"))
	m.same("open jobs", open, v.OpenJobs())
	for _, id := range jobPool {
		j, known := w.jobs[id]
		got, found := v.Job(id)
		m.same("is there job "+id, known, found)
		if known {
			m.same("job "+id, j.record(), got)
			m.checkTasks(j)
		}
	}
	var past []*PastJob
	for _, j := range newestFirst(w.past) {
		past = append(past, j.pastJob())
		if n := len(v.Tasks(j.ID, Map)) + len(v.Tasks(j.ID, Reduce)) + len(v.Uploads(j.ID)); n > 0 {
			m.Fatalf("%d tasks and uploads of job %s of the history are left", n, j.ID)
		}
	}
	m.same("jobs of the history", past, v.PastJobs(""))
	m.same("jobs of the history of the cluster", past, v.PastJobs(testCluster))
	for _, output := range []string{"s3://o/", "s3://o/x/", "s3://o/x/deep/", "s3://o/xy/", "s3://o/z/", ""} {
		got := v.Reserved(output)
		m.same("is "+output+" reserved", w.reserved(output) != nil, got != nil)
		if got != nil { // of several it may be any
			j := w.jobs[got.ID]
			m.same("is it reserved by "+got.ID, true, j != nil && !j.over() && overlaps(j.Output, output))
		}
	}
	for _, request := range []string{"r-1", "r-2"} {
		for _, user := range []string{"ann", "bob"} {
			want := w.ofRequest(testCluster, user, request)
			got, found := v.JobOfRequest(testCluster, user, request)
			m.same("has the request made a job", want != nil, found)
			if found {
				m.same("job of the request", want.ID, got.Brief().ID)
			}
		}
	}
	for _, ref := range []string{"", "last", "s-A", "s-AB", "s-", "s-B", "daily", "none"} {
		got, err := v.FindJob("", ref)
		want := w.find(ref)
		m.same("jobs found by "+ref, want, idsOf(got))
		m.same("is it an error", len(want) == 0, errors.Is(err, ErrNotFound))
	}
}

// newestFirst sorts jobs by their submission.
func newestFirst(jobs []*twinJob) []*twinJob {
	return slices.SortedFunc(slices.Values(jobs), func(a, b *twinJob) int { return cmp.Compare(b.Sequence, a.Sequence) })
}

// pastJob is what stays of a job that has moved to the history.
func (j *twinJob) pastJob() *PastJob {
	return &PastJob{ID: j.ID, Cluster: j.Cluster, Name: j.Name, User: j.User, RequestID: j.RequestID, State: j.state,
		SubmittedAt: j.SubmittedAt, EndedAt: j.EndedAt, Sequence: j.Sequence, Page: "page"}
}

func idsOf(jobs []Entry) (all []string) {
	for _, j := range jobs {
		all = append(all, j.Brief().ID)
	}
	slices.Sort(all)
	return all
}

// find is FindJob: an id, then "last" or the newest job of a name, then all ids that begin so.
func (w *twin) find(ref string) (found []string) {
	if ref == "" {
		return nil
	}
	if w.jobs[ref] != nil || w.inHistory(ref) {
		return []string{ref}
	}
	for _, j := range newestFirst(slices.Concat(w.order, w.past)) {
		if ref == "last" || j.Name == ref {
			return []string{j.ID}
		}
	}
	for _, j := range slices.Concat(w.order, w.past) {
		if strings.HasPrefix(j.ID, ref) {
			found = append(found, j.ID)
		}
	}
	slices.Sort(found)
	return found
}

func (m *machine) checkTasks(j *twinJob) {
	m.Helper()
	v := m.b.View()
	for kind, list := range map[string][]*twinTask{Map: j.maps, Reduce: j.reduces} {
		logged := 0
		for i, k := range list {
			task, known := v.Task(j.ID, TaskID{kind, i})
			if !known {
				task = &Task{}
			} else {
				logged++
			}
			winner := ""
			if task.Win != nil {
				winner = task.Win.Attempt
			}
			if winner != k.attempt || task.Done != (k.attempt != "") || task.Failures != k.fails || len(task.Ended) != min(len(k.ended), 8) {
				m.Fatalf("job %s: task %s %d is %+v, the twin's %+v", j.ID, kind, i, task, k)
			}
			for _, e := range task.Ended {
				if !k.remembers(e.Attempt) {
					m.Fatalf("job %s: task %s %d has an attempt that the twin does not know: %+v", j.ID, kind, i, e)
				}
			}
			if lost := k.known && k.attempt == "" && kind == Map; (task.Prior != nil) != lost {
				m.Fatalf("job %s: task %s %d is %+v, the twin's %+v", j.ID, kind, i, task, k)
			}
		}
		if n := len(v.Tasks(j.ID, kind)); n != logged {
			m.Fatalf("job %s lists %d tasks of kind %s, %d are logged", j.ID, n, kind, logged)
		}
	}
	m.same("uploads of "+j.ID, sorted(j.uploads, func(u Upload) string { return u.ID }), v.Uploads(j.ID))
}

// watches takes one of every job.
func (m *machine) watches() map[string]<-chan struct{} {
	v := m.b.View()
	all := map[string]<-chan struct{}{"": v.WatchJobs()}
	for _, j := range v.Jobs("") {
		all[j.ID] = v.Watch(j.ID)
	}
	return all
}

// checkWatches: who watches a job hears of every change of it, its tasks and its uploads; a refused command wakes nobody.
func (m *machine) checkWatches(before *View, watches map[string]<-chan struct{}, refused error) {
	m.Helper()
	now := m.b.View()
	for id, ch := range watches {
		changed := len(before.Jobs("")) != len(now.Jobs(""))
		if id != "" {
			changed = !untouched(id, before, now)
		}
		if changed && !closed(ch) {
			m.Fatalf("who watches job %q does not hear that it changed", id)
		}
		if refused != nil && closed(ch) {
			m.Fatalf("who watches job %q is woken by a command that was refused", id)
		}
	}
}

// untouched: records are never changed but replaced, so those of a job are the same ones.
func untouched(id string, before, now *View) bool {
	was, _ := before.Job(id)
	is, _ := now.Job(id)
	return was == is && slices.Equal(before.Tasks(id, Map), now.Tasks(id, Map)) && slices.Equal(before.Tasks(id, Reduce), now.Tasks(id, Reduce)) &&
		slices.Equal(before.Uploads(id), now.Uploads(id))
}

// restore goes on with a store that was restored from a snapshot, as a master that starts again.
func (m *machine) restore() {
	before := snapshotOf(m.T, m.b.View())
	s := New()
	if err := s.Restore(bytes.NewReader(before), readable); err != nil {
		m.Fatalf("restore: %v", err)
	}
	if after := snapshotOf(m.T, s.View()); !bytes.Equal(before, after) {
		m.Fatalf("%s\nwas restored as\n%s", before, after)
	}
	m.b.Store = s
}

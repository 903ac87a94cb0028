package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func containsWord(s, word string) bool { return slices.Contains(strings.Fields(s), word) }

// machine drives a store and its twin by the same random commands.
type machine struct {
	*rapid.T
	b       *bench
	twin    twin
	log     []Command
	started []byte // snapshot from before the log
	attempt int
}

func newMachine(t *rapid.T) *machine {
	m := &machine{T: t, b: newBench(t), twin: twin{jobs: map[string]*twinJob{}}}
	m.started = snapshotOf(t, m.b.View())
	return m
}

func (m *machine) apply(c Command) (any, error) {
	m.Logf("%d %s %+v", m.b.index+1, c.CommandName(), c)
	m.log = append(m.log, c)
	return m.b.apply(c)
}

// accepted applies a command that must be accepted just when the twin does.
func (m *machine) accepted(c Command, want bool) {
	m.Helper()
	if _, err := m.apply(c); (err == nil) != want {
		m.Fatalf("%s %+v: %v, the twin says %v", c.CommandName(), c, err, want)
	}
}

func (m *machine) jobID() string { return rapid.SampledFrom([]string{"s-A", "s-B"}).Draw(m.T, "job") }

func (m *machine) newAttempt() string {
	m.attempt++
	return fmt.Sprint("a", m.attempt)
}

func (m *machine) Submit(*rapid.T) {
	id := m.jobID()
	output := rapid.SampledFrom([]string{"s3://o/", "s3://o/x/", "s3://o/y/"}).Draw(m.T, "output")
	ok := m.twin.jobs[id] == nil
	for _, j := range m.twin.jobs {
		ok = ok && (j.over() || j.output != "s3://o/" && output != "s3://o/" && j.output != output)
	}
	m.accepted(SubmitJob{Job{ID: id, Cluster: testCluster, Output: output}}, ok)
	if ok {
		m.twin.jobs[id] = &twinJob{state: JobPending, output: output, uploads: map[string]TaskID{}}
	}
}

func (m *machine) Plan(*rapid.T) {
	c := PlanJob{Job: m.jobID(), Maps: rapid.IntRange(0, 3).Draw(m.T, "maps"), Reduces: rapid.IntRange(0, 2).Draw(m.T, "reduces"), At: at(1)}
	ok := m.twin.plan(c)
	m.accepted(c, ok)
}

// EndTasks ends up to three attempts in one entry, most of them as an honest worker
// would, some of them twice.
func (m *machine) EndTasks(*rapid.T) {
	id := m.jobID()
	var items []EndTask
	for range rapid.IntRange(1, 3).Draw(m.T, "items") {
		items = append(items, m.endTask(id))
		if rapid.IntRange(0, 9).Draw(m.T, "twice") == 0 {
			items = append(items, items[len(items)-1])
		}
	}
	var want []EndTaskResult
	for _, e := range items {
		if e.Task.Kind == Reduce && e.Win != nil && e.Win.Digest == 0 {
			if j := m.twin.jobs[id]; j != nil { // honest: all that was written, in the last reduce's hands
				e.Win.Digest, e.Win.Ledger = m.honest(j, e.Task.Index)
			}
		}
		want = append(want, m.twin.end(e))
	}
	got, err := m.apply(EndTasks{Items: items})
	if err != nil || !slices.Equal(got.([]EndTaskResult), want) {
		m.Fatalf("%+v (%v), the twin says %+v", got, err, want)
	}
}

// honest is what a reduce finds that consumes what is there now: the first all records, the others none.
func (m *machine) honest(j *twinJob, index int) (uint64, Ledger) {
	set, written := j.written()
	if index > 0 {
		written = Ledger{}
	}
	return set, written
}

// aim picks a task, most often one of the job that is still to be done.
func (m *machine) aim(id string) TaskID {
	var todo []TaskID
	if j := m.twin.jobs[id]; j != nil {
		for i, k := range j.maps {
			if k.attempt == "" {
				todo = append(todo, TaskID{Map, i})
			}
		}
		for i, k := range j.reduces {
			if k.attempt == "" && j.mapped {
				todo = append(todo, TaskID{Reduce, i})
			}
		}
	}
	if len(todo) == 0 || rapid.IntRange(0, 4).Draw(m.T, "aim") == 0 {
		return TaskID{rapid.SampledFrom([]string{Map, Reduce}).Draw(m.T, "kind"), rapid.IntRange(0, 3).Draw(m.T, "index")}
	}
	return rapid.SampledFrom(todo).Draw(m.T, "task")
}

func (m *machine) endTask(id string) EndTask {
	task := m.aim(id)
	switch rapid.IntRange(0, 9).Draw(m.T, "what") {
	case 0:
		counts := rapid.SampledFrom([]string{CountsFailed, CountsKilled, CountsLost}).Draw(m.T, "counts")
		return ended(id, task, m.newAttempt(), counts)
	case 1, 2: // a program of another mind, or a reduce that counted wrong
		if task.Kind == Map {
			return mapWin(id, task.Index, m.newAttempt(), uint64(rapid.IntRange(100, 101).Draw(m.T, "digest")))
		}
		return reduceWin(id, task.Index, m.newAttempt(), uint64(rapid.IntRange(0, 1).Draw(m.T, "set")), Ledger{Records: 1})
	case 3:
		e := mapWin(id, task.Index, m.newAttempt(), uint64(task.Index+1))
		e.Task.Kind = Map
		e.Win.UploadID = rapid.SampledFrom([]string{"u0", "u1"}).Draw(m.T, "upload")
		return e
	}
	if task.Kind == Map {
		return mapWin(id, task.Index, m.newAttempt(), uint64(task.Index+1))
	}
	return reduceWin(id, task.Index, m.newAttempt(), 0, Ledger{})
}

func (m *machine) Lose(*rapid.T) {
	c := LoseMaps{Job: m.jobID()}
	for range rapid.IntRange(1, 2).Draw(m.T, "maps") {
		lost := LostMap{Index: rapid.IntRange(0, 3).Draw(m.T, "index"), Attempt: "other"}
		if task, ok := m.b.View().Task(c.Job, TaskID{Map, lost.Index}); ok && task.Done {
			lost.Attempt = task.Win.Attempt
		}
		c.Maps = append(c.Maps, lost)
	}
	if m.twin.jobs[c.Job] == nil {
		m.accepted(c, false)
		return
	}
	want := m.twin.lose(c)
	got, err := m.apply(c)
	if err != nil || !slices.Equal(got.([]int), want) {
		m.Fatalf("lost %v (%v), the twin says %v", got, err, want)
	}
}

func (m *machine) Uploads(*rapid.T) {
	id := m.jobID()
	u := Upload{Job: id, Task: TaskID{Map, rapid.IntRange(0, 1).Draw(m.T, "index")}, Key: "k"}
	u.ID = fmt.Sprint("u", u.Task.Index)
	j := m.twin.jobs[id]
	ok := j != nil && !j.over() && j.ending == "" && (j.phase == "" || len(j.reduces) == 0 && u.Task.Index < len(j.maps))
	m.accepted(AddUploads{Uploads: []Upload{u}}, ok)
	if ok {
		j.uploads[u.ID] = u.Task
	}
}

func (m *machine) Drop(*rapid.T) {
	c := DropUploads{Job: m.jobID(), IDs: []string{"u0"}}
	j := m.twin.jobs[c.Job]
	m.accepted(c, j != nil)
	if j != nil {
		delete(j.uploads, "u0")
	}
}

func (m *machine) Commit(*rapid.T) {
	c := BeginCommit{Job: m.jobID(), At: at(6)}
	j := m.twin.jobs[c.Job]
	ok := j != nil && j.ready()
	m.accepted(c, ok)
	if ok {
		j.phase = PhaseCommitting
	}
}

func (m *machine) Redo(*rapid.T) {
	c := RedoParts{Job: m.jobID(), Tasks: []int{rapid.IntRange(0, 2).Draw(m.T, "part")}}
	ok := m.twin.redo(c)
	m.accepted(c, ok)
}

func (m *machine) Complete(*rapid.T) {
	c := CompleteJob{Job: m.jobID(), At: at(8)}
	j := m.twin.jobs[c.Job]
	ok := j != nil && (j.state == JobCompleted || j.phase == PhaseCommitting && j.ready())
	m.accepted(c, ok)
	if ok {
		j.finish(JobCompleted)
	}
}

func (m *machine) Fail(*rapid.T) {
	c := FailJob{Job: m.jobID(), Reason: "why", Force: rapid.Bool().Draw(m.T, "force")}
	j := m.twin.jobs[c.Job]
	ok := j != nil && (j.ending == JobFailed || j.ending == "" && !j.over() && (c.Force || j.phase != PhaseCommitting))
	m.accepted(c, ok)
	if ok {
		j.ending = JobFailed
	}
}

func (m *machine) Cancel(*rapid.T) {
	c := CancelJob{Job: m.jobID()}
	j := m.twin.jobs[c.Job]
	known := j != nil && (j.state == JobCancelPending || j.state == JobCancelled)
	ok := known || j != nil && j.ending == "" && !j.over() && j.phase != PhaseCommitting
	m.accepted(c, ok)
	if ok && !known {
		j.state, j.ending = JobCancelPending, JobCancelled
	}
}

func (m *machine) End(*rapid.T) {
	c := EndJob{Job: m.jobID(), At: at(9)}
	j := m.twin.jobs[c.Job]
	known := j != nil && (j.state == JobFailed || j.state == JobCancelled)
	ok := known || j != nil && j.ending != ""
	m.accepted(c, ok)
	if ok && !known {
		j.finish(j.ending)
	}
}

// Restore continues on a store restored from a snapshot, as a master that starts again.
func (m *machine) Restore(*rapid.T) {
	before := snapshotOf(m.T, m.b.View())
	s := New()
	if err := s.Restore(bytes.NewReader(before)); err != nil {
		m.Fatalf("restore: %v", err)
	}
	if after := snapshotOf(m.T, s.View()); !bytes.Equal(before, after) {
		m.Fatalf("%s\nwas restored as\n%s", before, after)
	}
	m.b.Store = s
}

// Check is run after every step.
func (m *machine) Check(*rapid.T) {
	for id, j := range m.twin.jobs {
		j.check(m.T, m.b.View(), id)
	}
}

// replay applies the log anew, each command as the log's JSON gives it.
func (m *machine) replay() {
	s := New()
	if err := s.Restore(bytes.NewReader(m.started)); err != nil {
		m.Fatalf("restore: %v", err)
	}
	for i, c := range m.log {
		data, err := json.Marshal(c)
		if err != nil {
			m.Fatalf("%+v: %v", c, err)
		}
		logged := reflect.New(reflect.TypeOf(c))
		if err := json.Unmarshal(data, logged.Interface()); err != nil {
			m.Fatalf("%s: %v", data, err)
		}
		_, _ = s.Apply(uint64(i+2), logged.Elem().Interface().(Command)) // refused or not, as before
	}
	if got, want := snapshotOf(m.T, s.View()), snapshotOf(m.T, m.b.View()); !bytes.Equal(got, want) {
		m.Fatalf("%s\nis, replayed,\n%s", want, got)
	}
}

func TestLikeTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		actions := map[string]func(*rapid.T){
			"": m.Check, "submit": m.Submit, "plan": m.Plan, "lose": m.Lose, "uploads": m.Uploads, "drop": m.Drop, "redo": m.Redo,
			"end tasks": m.EndTasks, "end tasks 2": m.EndTasks, "end tasks 3": m.EndTasks, "end tasks 4": m.EndTasks,
			"commit": m.Commit, "commit 2": m.Commit, "complete": m.Complete, "restore": m.Restore,
			"fail": m.rarely(m.Fail), "cancel": m.rarely(m.Cancel), "end": m.rarely(m.End),
		}
		t.Repeat(actions)
		m.replay()
	})
}

// rarely keeps commands that end jobs from ending all of them early.
func (m *machine) rarely(action func(*rapid.T)) func(*rapid.T) {
	return func(t *rapid.T) {
		if rapid.IntRange(0, 4).Draw(t, "rarely") > 0 {
			t.Skip("not now")
		}
		action(t)
	}
}

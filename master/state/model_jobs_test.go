package state

import (
	"fmt"
	"slices"

	"pgregory.net/rapid"
)

var jobPool = []string{"s-A", "s-AB", "s-B", "s-C", "s-D", "s-E", "s-F", "s-G"}

// jobID draws a job, most often one that is in one of the given states or phases; of none: one that goes on.
func (m *machine) jobID(in ...string) string {
	var fit []string
	for _, j := range m.twin.order {
		if len(in) == 0 && !j.over() || slices.Contains(in, j.state) && j.phase == "" || slices.Contains(in, j.phase) && j.ending == "" {
			fit = append(fit, j.ID)
		}
	}
	if len(fit) == 0 && !m.rare(8, "no job") {
		return m.newest() // which may be waiting for its plan, or have ended
	}
	if len(fit) == 0 || m.rare(12, "any job") {
		return rapid.SampledFrom(jobPool).Draw(m.T, "any")
	}
	return rapid.SampledFrom(fit).Draw(m.T, "job")
}

// newest is the job that was submitted last.
func (m *machine) newest() string {
	if n := len(m.twin.order); n > 0 {
		return m.twin.order[n-1].ID
	}
	return jobPool[0]
}

func (m *machine) newAttempt() string {
	m.attempt++
	return fmt.Sprint("a", m.attempt)
}

func (m *machine) submit() {
	j := Job{
		ID: jobPool[m.twin.made%len(jobPool)], Cluster: testCluster, Name: one(m, "name", "daily", "s-A", ""), User: one(m, "user", "ann", "bob"),
		RequestID: one(m, "request", "", "", "", "r-1", "r-2"), Output: one(m, "output", "", "s3://o/x/", "s3://o/y/", "s3://o/xy/", "s3://o/"),
		Program: "wordcount", Spec: []byte{1}, SealedStore: []byte{2}, Input: []string{"s3://i/"}, Overwrite: m.rare(2, "overwrite"), Priority: 3, SubmittedAt: at(int(m.b.index)),
	}
	if m.rare(8, "odd job") {
		j.ID, j.Cluster = one(m, "id", "", "s-A", "s-G"), one(m, "cluster", "j-OTHER", testCluster)
		j.State, j.MapsDone = JobCompleted, 3
	}
	id, err := m.twin.submit(j, m.b.index+1)
	result := m.expect(SubmitJob{j}, err)
	if err == nil && result.(*Job).ID != id {
		m.Fatalf("the answer is job %s; the twin says %s", result.(*Job).ID, id)
	}
}

// retireJobs moves jobs to the history, of which some go on, are there already, or never were.
func (m *machine) retireJobs() {
	c := RetireJobs{Page: "page", Jobs: []string{m.jobID(JobCompleted, JobFailed, JobCancelled), m.jobID(JobCompleted, JobFailed, JobCancelled), "s-NONE"}}
	if c.Jobs[0] == c.Jobs[1] {
		c.Jobs = c.Jobs[1:]
	}
	m.same("jobs that move", m.twin.retire(c.Jobs), m.expect(c, nil))
}

func (m *machine) forgetJobs() {
	c := ForgetJobs{Jobs: []string{m.jobID(), "s-NONE"}}
	if len(m.twin.past) > 0 && !m.rare(3, "not of the history") {
		c.Jobs[0] = m.twin.past[0].ID
	}
	m.same("jobs that are forgotten", m.twin.forget(c.Jobs), m.expect(c, nil))
}

func (m *machine) plan() {
	c := PlanJob{
		Job: m.jobID(JobPending), PlanKey: "plans/1", PlanDigest: "digest", BytesTotal: 9, Notes: one(m, "notes", nil, []string{"planned"}),
		Maps: one(m, "maps", 2, 1, 3, 0), Reduces: one(m, "reduces", 2, 1, 3, 0), At: at(1),
	}
	if m.rare(10, "odd plan") {
		c.Maps, c.BytesTotal = one(m, "odd maps", -1, 1), one(m, "odd bytes", int64(-1), 1)
	}
	m.expect(c, m.twin.plan(c))
}

// endTasks ends up to three attempts in one entry, most of them as an honest worker would, some of them twice.
func (m *machine) endTasks() {
	var items []EndTask
	id := m.jobID(PhaseMapping, PhaseReducing, PhaseCommitting)
	for range rapid.IntRange(1, 4).Draw(m.T, "items") {
		items = append(items, m.endTask(id))
		if m.rare(10, "twice") {
			items = append(items, items[len(items)-1])
		}
		if m.rare(6, "another job") {
			id = m.jobID()
		}
	}
	m.end(items)
}

// end has the twin's word on attempts that end in one entry, and the store's.
func (m *machine) end(items []EndTask) {
	var want []EndTaskResult
	for _, e := range items {
		if e.Task.Kind == Reduce && e.Win != nil && e.Win.Digest == 0 {
			if j := m.twin.jobs[e.Job]; j != nil {
				e.Win.Digest, e.Win.Ledger = honest(j, e.Task.Index)
			}
		}
		lost := m.lostMaps(e.Job)
		r := m.twin.end(e)
		want = append(want, r)
		m.came[r.Reason]++
		if r.ReducesReset {
			m.came[reducesReset]++
		}
		if e.Task.Kind == Reduce && m.lostMaps(e.Job) < lost {
			m.came[mapsRevived]++
		}
	}
	m.same("results", want, m.expect(EndTasks{Items: items}, nil))
}

// finish has all that is to be done of a job done by honest workers, in one entry.
func (m *machine) finish() {
	id := m.jobID(PhaseMapping, PhaseReducing, PhaseCommitting)
	j := m.twin.jobs[id]
	if j == nil {
		return
	}
	var items []EndTask
	for i, k := range j.maps {
		if k.attempt == "" && (!k.known || m.rare(2, "lost maps too")) {
			items = append(items, mapWin(id, i, m.newAttempt(), uint64(i+1)))
		}
	}
	for i, k := range j.reduces {
		if k.attempt == "" {
			items = append(items, reduceWin(id, i, m.newAttempt(), 0, Ledger{}))
		}
	}
	m.end(items)
}

// changeMind loses a map of a job, most often one that some reduces have consumed, and has it give other bytes.
func (m *machine) changeMind() {
	id := m.jobID(PhaseReducing, PhaseCommitting)
	j := m.twin.jobs[id]
	if j == nil || len(j.maps) == 0 {
		return
	}
	c := LoseMaps{Job: id, Maps: []LostMap{{Index: 0, Attempt: j.maps[0].attempt}}}
	want, err := m.twin.lose(c)
	m.same("lost", want, m.expect(c, err))
	m.end([]EndTask{mapWin(id, 0, m.newAttempt(), uint64(100+m.attempt))})
}

func (m *machine) lostMaps(id string) int {
	j := m.twin.jobs[id]
	if j == nil {
		return 0
	}
	return len(j.maps) - done(j.maps)
}

// honest is what a reduce finds that consumes what is there now: the first all records, the others none.
func honest(j *twinJob, index int) (uint64, Ledger) {
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
		early := m.rare(4, "early")
		for i, k := range j.maps {
			if k.attempt == "" {
				todo = append(todo, TaskID{Map, i})
			}
		}
		for i, k := range j.reduces {
			if k.attempt == "" && (j.mapped || early) {
				todo = append(todo, TaskID{Reduce, i})
			}
		}
	}
	if j := m.twin.jobs[id]; len(todo) == 0 && j != nil && len(j.maps) > 0 && !m.rare(4, "beside") {
		return TaskID{Map, rapid.IntRange(0, len(j.maps)-1).Draw(m.T, "done")}
	}
	if len(todo) == 0 || m.rare(8, "aim") {
		return TaskID{one(m, "kind", Map, Reduce, "x"), rapid.IntRange(-1, 3).Draw(m.T, "index")}
	}
	return rapid.SampledFrom(todo).Draw(m.T, "task")
}

func (m *machine) endTask(id string) EndTask {
	task := m.aim(id)
	e := mapWin(id, task.Index, m.newAttempt(), uint64(task.Index+1))
	if task.Kind == Reduce {
		e = reduceWin(id, task.Index, m.newAttempt(), 0, Ledger{})
	}
	e.Task = task
	e.Speculative = m.rare(8, "speculative")
	switch rapid.IntRange(0, 11).Draw(m.T, "what") {
	case 0:
		e = ended(id, task, e.Win.Attempt, one(m, "counts", CountsFailed, CountsKilled, CountsLost, "nothing"))
		e.Speculative = m.rare(2, "speculative loser")
	case 1: // of one that has won or ended before
		attempt := fmt.Sprint("a", rapid.IntRange(1, m.attempt).Draw(m.T, "old attempt"))
		if j := m.twin.jobs[id]; j != nil && len(j.maps) > 0 {
			task = TaskID{Map, 0}
			attempt = j.maps[0].attempt
		}
		e = ended(id, task, attempt, CountsFailed)
	case 2, 3: // a program of another mind, or a reduce that counted wrong
		if task.Kind == Reduce {
			set, _ := honest(&twinJob{}, 0)
			if j := m.twin.jobs[id]; j != nil {
				set, _ = honest(j, 0)
			}
			e.Win.Digest, e.Win.Ledger = set+one[uint64](m, "other set", 0, 1), Ledger{Records: 1}
		} else {
			digest := one[uint64](m, "other bytes", 100, 101)
			e.Win.Digest, e.Win.SetTerm, e.Win.Ledger.Checksum = digest, term(task.Index, digest), digest
		}
	case 4:
		e.Win.UploadID = one(m, "upload", "u0", "u1", "u2")
	case 5:
		switch rapid.IntRange(0, 9).Draw(m.T, "malformed") {
		case 0:
			e.Win = nil
		case 1:
			e.Ended = &EndedAttempt{Attempt: "both"}
		case 2:
			e.Win.Attempt = ""
		}
	}
	return e
}

func (m *machine) loseMaps() {
	c := LoseMaps{Job: m.jobID(PhaseReducing, PhaseCommitting)}
	for range rapid.IntRange(1, 2).Draw(m.T, "maps") {
		lost := LostMap{Index: rapid.IntRange(0, 3).Draw(m.T, "index"), Attempt: "other"}
		if j := m.twin.jobs[c.Job]; j != nil {
			if k := j.task(TaskID{Map, lost.Index}); k != nil && k.attempt != "" {
				lost.Attempt = k.attempt
			}
		}
		c.Maps = append(c.Maps, lost)
	}
	want, err := m.twin.lose(c)
	if got := m.expect(c, err); err == nil {
		m.same("lost", want, got)
	}
}

func (m *machine) addUploads() {
	var c AddUploads
	for range rapid.IntRange(1, 2).Draw(m.T, "uploads") {
		u := Upload{Job: m.jobID(), Task: TaskID{one(m, "kind", Map, Reduce), rapid.IntRange(0, 2).Draw(m.T, "index")}, Attempt: one(m, "attempt", "", "a1")}
		u.ID, u.Key = fmt.Sprint("u", u.Task.Index), fmt.Sprint("k", u.Task.Index)
		switch rapid.IntRange(0, 9).Draw(m.T, "odd upload") {
		case 0:
			u.Key = "another"
		case 1:
			u.ID = one(m, "id", "u0", "u1", "")
		case 2:
			u.Task.Index = one(m, "odd index", 3, -1)
		}
		c.Uploads = append(c.Uploads, u)
	}
	m.expect(c, m.twin.addUploads(c))
}

func (m *machine) dropUploads() {
	c := DropUploads{Job: m.jobID(), IDs: []string{"u0", "none"}}
	m.expect(c, m.twin.dropUploads(c))
}

func (m *machine) beginCommit() {
	c := BeginCommit{Job: m.jobID(PhaseReducing, PhaseMapping), At: at(int(m.b.index))}
	m.expect(c, m.twin.beginCommit(c))
}

func (m *machine) redoParts() {
	c := RedoParts{Job: m.jobID(PhaseCommitting), Tasks: []int{rapid.IntRange(0, 2).Draw(m.T, "part")}}
	if m.rare(4, "two parts") {
		c.Tasks = append(c.Tasks, rapid.IntRange(-1, 2).Draw(m.T, "part"))
	}
	want, err := m.twin.redoParts(c)
	if got := m.expect(c, err); err == nil {
		m.same("redone", want, got)
	}
}

func (m *machine) retries() StoreRetries {
	return one(m, "retries", StoreRetries{}, StoreRetries{Requests: 2, Last: "503"})
}

func (m *machine) completeJob() {
	c := CompleteJob{
		Job: m.jobID(PhaseCommitting), At: at(int(m.b.index)), OutputRecords: 1, OutputBytes: 2, Parts: 3, CommitMs: 4,
		Notes: one(m, "notes", nil, []string{"done"}), Retries: m.retries(),
	}
	m.expect(c, m.twin.completeJob(c))
}

func (m *machine) failJob() {
	c := FailJob{Job: m.jobID(), Reason: one(m, "reason", "", "why"), Force: m.rare(2, "force")}
	if m.rare(2, "failure") {
		c.Failure = &Failure{Message: "exit code 1", ExitCode: 1}
	}
	m.expect(c, m.twin.failJob(c))
}

func (m *machine) cancelJob() {
	c := CancelJob{Job: m.jobID(), Reason: one(m, "reason", "", "not wanted")}
	m.expect(c, m.twin.cancelJob(c))
}

func (m *machine) endJob() {
	c := EndJob{Job: m.jobID(), At: at(int(m.b.index)), Left: one(m, "left", "", "a part stays"), Retries: m.retries()}
	m.expect(c, m.twin.endJob(c))
}

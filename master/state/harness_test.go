package state

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"
)

// t0 is when all tests happen.
var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(seconds int) time.Time { return t0.Add(time.Duration(seconds) * time.Second) }

// failer is what *testing.T and *rapid.T have in common.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// bench is a store with a site and its cluster, and a log that counts.
type bench struct {
	failer
	*Store
	index uint64
}

const testCluster = "j-CLUSTER"

func newBench(t failer) *bench {
	b := &bench{failer: t, Store: New()}
	b.do(CreateSite{
		Site: Site{ID: "site", CreatedAt: t0, SystemPrefix: "s3://sys/"},
		Cluster: Cluster{ID: testCluster, Name: DefaultCluster, CreatedAt: t0, Groups: []Group{
			{ID: "ig-core", Role: RoleCore, Target: 1}, {ID: "ig-task", Role: RoleTask}}},
	})
	return b
}

func (b *bench) apply(c Command) (any, error) {
	b.index++
	return b.Apply(b.index, c)
}

// do applies a command that must be accepted.
func (b *bench) do(c Command) any {
	b.Helper()
	result, err := b.apply(c)
	if err != nil {
		b.Fatalf("%s: %v", c.CommandName(), err)
	}
	return result
}

// refuse applies a command that must be refused with the given error, and checks that nothing changed.
func (b *bench) refuse(want error, c Command) error {
	b.Helper()
	before := records(b, b.View())
	_, err := b.apply(c)
	if !errors.Is(err, want) {
		b.Fatalf("%s: error is %v, not %v", c.CommandName(), err, want)
	}
	if records(b, b.View()) != before {
		b.Fatalf("%s was refused (%v), but changed something", c.CommandName(), err)
	}
	return err
}

// end applies an EndTasks of one item.
func (b *bench) end(e EndTask) EndTaskResult {
	b.Helper()
	return b.do(EndTasks{Items: []EndTask{e}}).([]EndTaskResult)[0]
}

// win ends a task by a completion that must be accepted.
func (b *bench) win(e EndTask) {
	b.Helper()
	if r := b.end(e); !r.Accepted || r.NotDeterministic {
		b.Fatalf("%s of %v: %+v", e.Win.Attempt, e.Task, r)
	}
}

func (b *bench) job(id string) *Job {
	b.Helper()
	j, ok := b.View().Job(id)
	if !ok {
		b.Fatalf("no job %s", id)
	}
	return j
}

func (b *bench) theTask(id string, task TaskID) *Task {
	b.Helper()
	k, ok := b.View().Task(id, task)
	if !ok {
		b.Fatalf("nothing is logged of task %v of job %s", task, id)
	}
	return k
}

// submit makes a PENDING job.
func (b *bench) submit(id string) {
	b.Helper()
	b.do(SubmitJob{Job{ID: id, Cluster: testCluster, Name: "name of " + id, Output: "s3://out/" + id + "/", SubmittedAt: t0}})
}

// plan makes a job RUNNING with so many tasks.
func (b *bench) plan(id string, maps, reduces int) {
	b.Helper()
	b.submit(id)
	b.do(PlanJob{Job: id, PlanKey: "plans/" + id, PlanDigest: "digest", BytesTotal: int64(100 * maps), Maps: maps, Reduces: reduces, At: at(1)})
}

// term stands in for record.MapDigest.
func term(index int, digest uint64) uint64 {
	return (digest + 1) * uint64(2*index+3) * 0x9e3779b97f4a7c15
}

// mapWin is a completed map whose segment has the given digest. Its ledger follows from the digest.
func mapWin(job string, index int, attempt string, digest uint64) EndTask {
	return EndTask{Job: job, Task: TaskID{Map, index}, Win: &Completion{
		Attempt: attempt, Node: "i-1", SegmentNode: "i-1", Digest: digest, SetTerm: term(index, digest),
		Ledger:     Ledger{Records: 10, Bytes: 100, Checksum: digest * 7},
		Counters:   []Counter{{"millrace", "mapInputRecords", 5}},
		InputBytes: 100, StartedAt: at(2), EndedAt: at(3),
	}}
}

// reduceWin is a completed reduce that consumed a set of the given digest and decoded the given ledger.
func reduceWin(job string, index int, attempt string, set uint64, fetched Ledger) EndTask {
	return EndTask{Job: job, Task: TaskID{Reduce, index}, Win: &Completion{
		Attempt: attempt, Node: "i-2", Digest: set, Ledger: fetched,
		Counters: []Counter{{"mine", "words", 3}, {"millrace", "reduceOutputRecords", 2}},
		Records:  2, Bytes: 20, StartedAt: at(4), EndedAt: at(5),
	}}
}

func ended(job string, task TaskID, attempt, countsAs string) EndTask {
	return EndTask{Job: job, Task: task, CountsAs: countsAs, Ended: &EndedAttempt{
		Attempt: attempt, Node: "i-3", StartedAt: at(2), EndedAt: at(3), Failure: Failure{Message: "why", ExitCode: 1},
	}}
}

// reducing makes a job with two done maps of digests 1 and 2, and two reduces to run.
func (b *bench) reducing(id string) {
	b.Helper()
	b.plan(id, 2, 2)
	b.win(mapWin(id, 0, "m0", 1))
	b.win(mapWin(id, 1, "m1", 2))
}

// winReduces completes the two reduces of a job made by reducing.
func (b *bench) winReduces(id string) {
	b.Helper()
	j := b.job(id)
	half := Ledger{Records: 15, Bytes: 150, Checksum: 999}
	b.win(reduceWin(id, 0, "r0", j.MapDigest, half))
	b.win(reduceWin(id, 1, "r1", j.MapDigest, j.MapLedger.Sub(half)))
}

func (b *bench) committing(id string) {
	b.Helper()
	b.reducing(id)
	b.winReduces(id)
	b.do(BeginCommit{Job: id, At: at(6)})
}

// records is a view's snapshot without its header, which holds the index.
func records(t failer, v *View) string {
	_, body, _ := bytes.Cut(snapshotOf(t, v), []byte("\n"))
	return string(body)
}

func snapshotOf(t failer, v *View) []byte {
	t.Helper()
	var w bytes.Buffer
	if err := v.Persist(&w); err != nil {
		t.Fatalf("persist: %v", err)
	}
	return w.Bytes()
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func ids[T any](rs []*T, id func(*T) string) string {
	out := ""
	for _, r := range rs {
		out += id(r) + " "
	}
	return out
}

func jobIDs(js []*Job) string { return ids(js, func(j *Job) string { return j.ID }) }

func TestUnknownCommandIsRefused(t *testing.T) {
	b := newBench(t)
	b.refuse(ErrInvalid, unknown{})
	b.refuse(ErrInvalid, &SubmitJob{}) // commands are values
}

type unknown struct{}

func (unknown) CommandName() string { return "Unknown" }

func TestARefusedCommandCountsForTheIndex(t *testing.T) {
	b := newBench(t)
	b.refuse(ErrNotFound, EndJob{Job: "s-NONE"})
	if got := b.View().Index(); got != b.index {
		t.Errorf("index %d after %d commands", got, b.index)
	}
}

func TestUninitialisedSite(t *testing.T) {
	b := &bench{failer: t, Store: New()}
	if _, ok := b.View().Site(); ok {
		t.Error("a new store has a site")
	}
	b.refuse(ErrNotFound, PutStore{SystemPrefix: "s3://x/"})
	b.refuse(ErrNotFound, RaiseSite{Protocol: 2})
	b.refuse(ErrInvalid, CreateSite{Site: Site{ID: "x"}})
	b.refuse(ErrNotFound, SubmitJob{Job{ID: "s-A", Cluster: testCluster}})
}

func TestSite(t *testing.T) {
	b := newBench(t)
	b.refuse(ErrExists, CreateSite{Site: Site{ID: "other"}, Cluster: Cluster{ID: "j-2", Name: "x"}})
	b.do(PutStore{SealedStore: []byte{1}, SystemPrefix: "s3://new/"})
	site, _ := b.View().Site()
	if got := fmt.Sprint(site.ID, site.SystemPrefix, site.SealedStore); got != "sites3://new/[1]" {
		t.Error(got)
	}
	if got := b.View().Protocol(); got != 1 {
		t.Errorf("a site that says nothing uses protocol %d", got)
	}
	for _, c := range []struct{ to, uses int }{{3, 3}, {2, 3}, {3, 3}, {4, 4}} { // it never falls
		b.do(RaiseSite{Protocol: c.to})
		if got := b.View().Protocol(); got != c.uses {
			t.Errorf("raised to %d it uses %d", c.to, got)
		}
	}
	// A snapshot is for who reads the log.
	if got, err := SnapshotProtocol(bytes.NewReader(snapshotOf(b, b.View()))); got != 4 || err != nil {
		t.Errorf("its snapshot takes protocol %d, %v", got, err)
	}
}

func TestSchemaIsValid(t *testing.T) {
	if err := schema().Validate(); err != nil {
		t.Error(err)
	}
}

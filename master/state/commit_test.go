package state

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCommit(t *testing.T) {
	b := newBench(t)
	b.reducing("s-A")
	b.do(AddUploads{Uploads: []Upload{{Job: "s-A", Task: TaskID{Reduce, 0}, ID: "u0", Key: "k0"}, {Job: "s-A", Task: TaskID{Reduce, 1}, ID: "u1", Key: "k1"}}})
	b.winReduces("s-A")
	j := b.do(BeginCommit{Job: "s-A", At: at(6)}).(*Job)
	if j.Phase != PhaseCommitting || j.State != JobRunning || !j.CommitAt.Equal(at(6)) {
		t.Errorf("%+v", j)
	}
	j = b.do(CompleteJob{Job: "s-A", At: at(8), OutputRecords: 4, OutputBytes: 40, Parts: 2, CommitMs: 7, Notes: []string{"an upload stays"}, Retries: StoreRetries{3, "503 SlowDown"}}).(*Job)
	if j.State != JobCompleted || j.Phase != "" || !j.EndedAt.Equal(at(8)) || j.OutputRecords != 4 || j.OutputBytes != 40 || j.Parts != 2 || j.CommitMs != 7 {
		t.Errorf("%+v", j)
	}
	if d := cmp.Diff([]string{"an upload stays"}, j.Notes); d != "" {
		t.Error(d)
	}
	want := []Counter{{"millrace", "mapInputRecords", 10}, {"millrace", "reduceOutputRecords", 4}, {"millrace", "storeRetries", 3}, {"mine", "words", 6}}
	if d := cmp.Diff(want, j.Counters); d != "" {
		t.Error(d)
	}
	if j.StoreTrouble != "503 SlowDown" {
		t.Errorf("trouble %q", j.StoreTrouble)
	}
	if n := len(b.View().Uploads("s-A")); n != 0 {
		t.Errorf("%d uploads left", n)
	}
	if len(b.View().Tasks("s-A", Reduce)) != 2 || len(b.View().OpenJobs()) != 0 {
		t.Error("tasks are gone, or the job is still open")
	}
}

func TestALedgerThatDoesNotBalance(t *testing.T) {
	for _, short := range []Ledger{{Records: 1}, {Bytes: 1}, {Checksum: 1}} {
		b := newBench(t)
		b.reducing("s-A")
		j := b.job("s-A")
		b.win(reduceWin("s-A", 0, "r0", j.MapDigest, Ledger{}))
		b.win(reduceWin("s-A", 1, "r1", j.MapDigest, j.MapLedger.Sub(short)))
		var sides *LedgerError
		err := b.refuse(ErrLedger, BeginCommit{Job: "s-A"})
		if !errors.As(err, &sides) || sides.Written != j.MapLedger || sides.Fetched != j.MapLedger.Sub(short) {
			t.Errorf("%v", err)
		}
	}
}

func TestCommitWithoutRecords(t *testing.T) {
	for _, c := range []struct {
		name          string
		maps, reduces int
	}{{"map-only", 0, 0}, {"with reduces", 0, 1}} {
		b := newBench(t)
		b.plan("s-A", c.maps, c.reduces)
		if c.reduces > 0 {
			b.win(reduceWin("s-A", 0, "r0", 0, Ledger{}))
		}
		b.do(BeginCommit{Job: "s-A", At: at(2)})
		b.do(CompleteJob{Job: "s-A", At: at(3)})
	}
}

func TestMapOnlyCommit(t *testing.T) {
	b := newBench(t)
	b.plan("s-A", 2, 0)
	b.do(AddUploads{Uploads: []Upload{{Job: "s-A", Task: TaskID{Map, 0}, ID: "u0", Key: "k0"}}})
	e := mapWin("s-A", 0, "m0", 0)
	e.Win.UploadID = "u0"
	b.win(e)
	b.refuse(ErrNotReady, BeginCommit{Job: "s-A"})
	b.win(mapWin("s-A", 1, "m1", 0))
	if j := b.job("s-A"); j.Phase != PhaseMapping || j.MapsEndedAt.IsZero() {
		t.Errorf("%+v", j)
	}
	b.do(BeginCommit{Job: "s-A", At: at(6)})
	if got := b.do(RedoParts{Job: "s-A", Tasks: []int{1}}).([]int); !slices.Equal(got, []int{1}) {
		t.Error(got)
	}
	if j := b.job("s-A"); j.MapsDone != 1 || j.BytesDone != 100 || j.Phase != PhaseCommitting {
		t.Errorf("%+v", j)
	}
	b.win(mapWin("s-A", 1, "m1b", 0))
	b.do(CompleteJob{Job: "s-A", At: at(8)})
}

func TestPartsThatTheStoreLost(t *testing.T) {
	b := newBench(t)
	b.committing("s-A")
	full := *b.job("s-A")
	if got := b.do(RedoParts{Job: "s-A", Tasks: []int{1, 1}}).([]int); !slices.Equal(got, []int{1}) {
		t.Error(got)
	}
	j := b.job("s-A")
	if j.ReducesDone != 1 || !j.ReducesEndedAt.IsZero() || j.Phase != PhaseCommitting || j.Lost != 1 {
		t.Errorf("%+v", j)
	}
	b.refuse(ErrInvalid, RedoParts{Job: "s-A", Tasks: []int{0, 2}})
	b.refuse(ErrNotReady, CompleteJob{Job: "s-A"})

	// Its maps may have to run again too, and must give what the kept parts were made of.
	b.lose("s-A", 0, "m0")
	if r := b.end(mapWin("s-A", 0, "m0b", 9)); r.Accepted || !r.NotDeterministic || r.ReducesReset {
		t.Errorf("parts are visible, and other bytes gave %+v", r)
	}
	b.win(mapWin("s-A", 0, "m0c", 1))
	half := Ledger{Records: 15, Bytes: 150, Checksum: 999}
	b.win(reduceWin("s-A", 1, "r1b", full.MapDigest, full.MapLedger.Sub(half)))
	if j := b.job("s-A"); j.Fetched != full.Fetched || j.ReducesEndedAt.IsZero() {
		t.Errorf("%+v", j)
	}
	b.do(CompleteJob{Job: "s-A", At: at(9)})
}

func TestARedoneReduceMustBalanceToo(t *testing.T) {
	b := newBench(t)
	b.committing("s-A")
	set := b.job("s-A").MapDigest
	b.do(RedoParts{Job: "s-A", Tasks: []int{1}})
	b.win(reduceWin("s-A", 1, "r1b", set, Ledger{}))
	b.refuse(ErrLedger, CompleteJob{Job: "s-A"})
	b.refuse(ErrLedger, BeginCommit{Job: "s-A"})
	b.refuse(ErrTooLate, FailJob{Job: "s-A"})
	b.do(FailJob{Job: "s-A", Reason: "ledger", Force: true})
	if j := b.do(EndJob{Job: "s-A", At: at(9)}).(*Job); j.State != JobFailed {
		t.Errorf("%+v", j)
	}
}

func TestUploads(t *testing.T) {
	b := newBench(t)
	b.submit("s-A")
	b.plan("s-B", 2, 1)
	up := func(job, kind string, index int, id string) Upload {
		return Upload{Job: job, Task: TaskID{kind, index}, ID: id, Key: "key-" + id}
	}
	b.do(AddUploads{Uploads: []Upload{up("s-A", Map, 5, "u1"), up("s-A", Reduce, 3, "u3"), up("s-A", Reduce, 3, "u2"), up("s-B", Reduce, 0, "u1")}})
	b.do(AddUploads{Uploads: []Upload{up("s-B", Reduce, 0, "u1")}}) // logged a second time
	show := func(job string) string { return ids(b.View().Uploads(job), func(u *Upload) string { return u.ID }) }
	if show("s-A") != "u1 u2 u3 " || show("s-B") != "u1 " || show("s-") != "" {
		t.Errorf("%q, %q", show("s-A"), show("s-B"))
	}
	b.refuse(ErrInvalid, AddUploads{Uploads: []Upload{up("s-B", Reduce, 0, "u2"), up("s-B", Reduce, 1, "u3")}})
	b.refuse(ErrInvalid, AddUploads{Uploads: []Upload{up("s-B", Map, 0, "u2")}}) // maps do not write its output
	b.refuse(ErrInvalid, AddUploads{Uploads: []Upload{up("s-A", "x", 0, "u9")}})
	b.refuse(ErrInvalid, AddUploads{Uploads: []Upload{up("s-A", Map, -1, "u9")}})
	b.refuse(ErrInvalid, AddUploads{Uploads: []Upload{up("s-A", Map, 0, "")}})
	b.refuse(ErrExists, AddUploads{Uploads: []Upload{up("s-A", Map, 0, "u1")}})
	b.do(DropUploads{Job: "s-A", IDs: []string{"u1", "u3", "none"}})
	if show("s-A") != "u2 " || show("s-B") != "u1 " {
		t.Errorf("%q, %q", show("s-A"), show("s-B"))
	}
}

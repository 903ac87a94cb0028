package state

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/google/go-cmp/cmp"
)

func TestSubmitJob(t *testing.T) {
	b := newBench(t)
	in := Job{ID: "s-A", Cluster: testCluster, Name: "n", Spec: []byte{1}, Input: []string{"s3://in/"}, Output: "s3://out/a/",
		SubmittedAt: t0, State: JobCompleted, Sequence: 77, MapsDone: 5, Ending: JobFailed}
	got := b.do(SubmitJob{in}).(*Job)
	want := Job{ID: "s-A", Cluster: testCluster, Name: "n", Spec: []byte{1}, Input: []string{"s3://in/"}, Output: "s3://out/a/",
		SubmittedAt: t0, State: JobPending, Sequence: b.index}
	if d := cmp.Diff(&want, got); d != "" {
		t.Error(d)
	}
	b.refuse(ErrExists, SubmitJob{Job{ID: "s-A", Cluster: testCluster, Output: "s3://else/"}})
	b.refuse(ErrNotFound, SubmitJob{Job{ID: "s-B", Cluster: "j-NONE", Output: "s3://else/"}})
	b.refuse(ErrInvalid, SubmitJob{Job{Cluster: testCluster, Output: "s3://else/"}})
}

func TestARequestIDMakesOneJob(t *testing.T) {
	b := newBench(t)
	submit := func(id, user, request string) string {
		return b.do(SubmitJob{Job{ID: id, Cluster: testCluster, User: user, RequestID: request, Output: "s3://out/" + id + "/"}}).(*Job).ID
	}
	for _, c := range []struct{ id, user, request, want string }{
		{"s-A", "ann", "1", "s-A"},
		{"s-B", "ann", "1", "s-A"},
		{"s-C", "bob", "1", "s-C"}, // another's request
		{"s-D", "ann", "", "s-D"},  // none: always a new job
		{"s-E", "ann", "", "s-E"},
	} {
		if got := submit(c.id, c.user, c.request); got != c.want {
			t.Errorf("%+v: made %s", c, got)
		}
	}
	b.do(CancelJob{Job: "s-A"})
	b.do(EndJob{Job: "s-A", At: at(1)})
	if got := submit("s-F", "ann", "1"); got != "s-A" {
		t.Errorf("repeated after the job's end, it made %s", got)
	}
}

func TestOutputReservation(t *testing.T) {
	for _, c := range []struct {
		output string
		clash  bool
	}{
		{"s3://out/x/", true},
		{"s3://out/x", true},
		{"s3://out/x/y/", true},
		{"s3://out/", true},
		{"s3://out/xy/", false},
		{"s3://out/X/", false},
		{"s3://out/w/x/", false},
		{"s3://ou/", false},
		{"", false},
	} {
		b := newBench(t)
		b.do(SubmitJob{Job{ID: "s-A", Cluster: testCluster, Output: "s3://out/x/"}})
		submit := SubmitJob{Job{ID: "s-B", Cluster: testCluster, Output: c.output}}
		if !c.clash {
			b.do(submit)
			continue
		}
		var reserved *OutputReservedError
		if err := b.refuse(ErrOutputReserved, submit); !errors.As(err, &reserved) || reserved.Job != "s-A" {
			t.Errorf("%q: %v", c.output, err)
		}
		b.do(FailJob{Job: "s-A"})
		b.refuse(ErrOutputReserved, submit) // until it is cleaned up
		b.do(EndJob{Job: "s-A", At: at(1)})
		b.do(submit)
	}
}

func TestOverlapWithoutTheLastSlash(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"s3://out/x", "s3://out/xy", false},
		{"s3://out/x", "s3://out/x", true},
		{"s3://out/x", "s3://out/x/", true},
		{"s3://out/x", "s3://out/x/y", true},
		{"s3://out", "s3://outer", false},
		{"", "", false},
	} {
		for _, two := range [][2]string{{c.a, c.b}, {c.b, c.a}} {
			b := newBench(t)
			b.do(SubmitJob{Job{ID: "s-A", Cluster: testCluster, Output: two[0]}})
			if got := b.View().Reserved(two[1]) != nil; got != c.want {
				t.Errorf("%q and %q: not %v", c.a, c.b, c.want)
			}
		}
	}
}

// TestReservedLikeASearchThroughAll compares what the index finds with each open job's output.
func TestReservedLikeASearchThroughAll(t *testing.T) {
	overlap := func(a, b string) bool {
		a, b = strings.TrimSuffix(a, "/")+"/", strings.TrimSuffix(b, "/")+"/"
		return strings.HasPrefix(a, b) || strings.HasPrefix(b, a)
	}
	rapid.Check(t, func(t *rapid.T) {
		b := newBench(t)
		outputs := rapid.StringMatching(`s3://[ab]{1,2}(/[ab]{1,2}){0,3}/?`)
		var open []string
		for i := range rapid.IntRange(0, 8).Draw(t, "jobs") {
			output, clash := outputs.Draw(t, "output"), ""
			for _, o := range open {
				if overlap(output, o) {
					clash = o
				}
			}
			if got := b.View().Reserved(output); (got != nil) != (clash != "") || got != nil && !overlap(got.Output, output) {
				t.Fatalf("%s is reserved by %+v; open: %v", output, got, open)
			}
			if clash != "" {
				continue
			}
			id := fmt.Sprint("s-", i)
			b.do(SubmitJob{Job{ID: id, Cluster: testCluster, Output: output}})
			if rapid.Bool().Draw(t, "ends") {
				b.do(CancelJob{Job: id})
				b.do(EndJob{Job: id, At: at(1)})
				continue
			}
			open = append(open, output)
		}
	})
}

func TestPlanJob(t *testing.T) {
	for _, c := range []struct {
		name          string
		maps, reduces int
		phase         string
		mapsEnded     bool
	}{
		{"maps and reduces", 3, 2, PhaseMapping, false},
		{"map-only", 3, 0, PhaseMapping, false},
		{"all inputs empty", 0, 2, PhaseReducing, true},
		{"all inputs empty, map-only", 0, 0, PhaseMapping, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.plan("s-A", c.maps, c.reduces)
			j := b.job("s-A")
			if j.State != JobRunning || j.Phase != c.phase || j.MapsEndedAt.IsZero() == c.mapsEnded || !j.PlannedAt.Equal(at(1)) {
				t.Errorf("%+v", j)
			}
		})
	}
	b := newBench(t)
	b.submit("s-A")
	b.refuse(ErrInvalid, PlanJob{Job: "s-A", Maps: -1})
}

// inState makes jobs in every state a job can be in.
var inState = map[string]func(b *bench){
	"pending":           func(b *bench) { b.submit("s-A") },
	"pending, failing":  func(b *bench) { b.submit("s-A"); b.do(FailJob{Job: "s-A", Reason: "first"}) },
	"mapping":           func(b *bench) { b.plan("s-A", 2, 2) },
	"reducing":          func(b *bench) { b.reducing("s-A") },
	"reduced":           func(b *bench) { b.reducing("s-A"); b.winReduces("s-A") },
	"failing":           func(b *bench) { b.reducing("s-A"); b.do(FailJob{Job: "s-A", Reason: "first"}) },
	"cancel pending":    func(b *bench) { b.reducing("s-A"); b.do(CancelJob{Job: "s-A", Reason: "first"}) },
	"committing":        func(b *bench) { b.committing("s-A") },
	"committing, redo":  func(b *bench) { b.committing("s-A"); b.do(RedoParts{Job: "s-A", Tasks: []int{1}}) },
	"committing, fails": func(b *bench) { b.committing("s-A"); b.do(FailJob{Job: "s-A", Reason: "first", Force: true}) },
	"completed":         func(b *bench) { b.committing("s-A"); b.do(CompleteJob{Job: "s-A", At: at(9)}) },
	"failed":            func(b *bench) { b.submit("s-A"); b.do(FailJob{Job: "s-A", Reason: "first"}); b.do(EndJob{Job: "s-A"}) },
	"cancelled": func(b *bench) {
		b.submit("s-A")
		b.do(CancelJob{Job: "s-A", Reason: "first"})
		b.do(EndJob{Job: "s-A"})
	},
}

// TestCommandsByState says which command is taken in which state. In each row the
// columns are: ok, = (taken, changes nothing), late (ErrTooLate), not (ErrNotReady).
func TestCommandsByState(t *testing.T) {
	commands := []Command{
		PlanJob{Job: "s-A", Maps: 1, Reduces: 1, At: at(1)},
		BeginCommit{Job: "s-A", At: at(7)},
		RedoParts{Job: "s-A", Tasks: []int{0}},
		CompleteJob{Job: "s-A", At: at(8)},
		FailJob{Job: "s-A", Reason: "second"},
		FailJob{Job: "s-A", Reason: "second", Force: true},
		CancelJob{Job: "s-A", Reason: "second"},
		EndJob{Job: "s-A", At: at(9)},
		AddUploads{Uploads: []Upload{{Job: "s-A", Task: TaskID{Reduce, 0}, ID: "u", Key: "k"}}},
	}
	table := `
                    plan  begin redo  compl fail  force cancel end  upload
pending           | ok    not   not   not   ok    ok    ok    not   ok
pending, failing  | late  late  late  late  =     =     late  ok    late
mapping           | late  not   not   not   ok    ok    ok    not   ok
reducing          | late  not   not   not   ok    ok    ok    not   ok
reduced           | late  ok    not   not   ok    ok    ok    not   ok
failing           | late  late  late  late  =     =     late  ok    late
cancel pending    | late  late  late  late  late  late  =     ok    late
committing        | late  =     ok    ok    late  ok    late  not   ok
committing, redo  | late  not   ok    not   late  ok    late  not   ok
committing, fails | late  late  late  late  =     =     late  ok    late
completed         | late  late  late  =     late  late  late  late  late
failed            | late  late  late  late  late  late  late  =     late
cancelled         | late  late  late  late  late  late  =     =     late`
	rows := 0
	for line := range strings.Lines(table) {
		name, cells, ok := strings.Cut(line, "|")
		if !ok {
			continue
		}
		rows++
		for i, want := range strings.Fields(cells) {
			b := newBench(t)
			inState[strings.TrimSpace(name)](b)
			before := records(b, b.View())
			_, err := b.apply(commands[i])
			changed := records(b, b.View()) != before
			got := map[bool]string{true: "ok", false: "="}[changed]
			switch {
			case errors.Is(err, ErrTooLate):
				got = "late"
			case errors.Is(err, ErrNotReady):
				got = "not"
			case err != nil:
				got = err.Error()
			}
			if got != want || err != nil && changed {
				t.Errorf("%s%s: %s, not %s (%v, changed: %v)", name, commands[i].CommandName(), got, want, err, changed)
			}
		}
	}
	if rows != len(inState) {
		t.Errorf("%d rows for %d states", rows, len(inState))
	}
}

func TestEveryJobCommandWantsAJob(t *testing.T) {
	b := newBench(t)
	for _, c := range []Command{PlanJob{}, BeginCommit{}, RedoParts{}, CompleteJob{}, FailJob{}, CancelJob{}, EndJob{}, LoseMaps{},
		DropUploads{}, AddUploads{Uploads: []Upload{{Job: "s-NONE", ID: "u"}}}} {
		b.refuse(ErrNotFound, c)
	}
}

func TestFailedJob(t *testing.T) {
	b := newBench(t)
	b.reducing("s-A")
	b.do(AddUploads{Uploads: []Upload{{Job: "s-A", Task: TaskID{Reduce, 0}, ID: "u", Key: "k"}}})
	failure := Failure{Task: "m-00001", Attempt: "a", Node: "i-1", Message: strings.Repeat("é", 600), StderrTail: strings.Repeat("x", 2000) + "the end"}
	b.do(FailJob{Job: "s-A", Reason: "task m-00001 failed 4 times", Failure: &failure})
	j := b.job("s-A")
	if j.State != JobRunning || j.Ending != JobFailed || len(j.Failure.Message) > 512 || len(j.Failure.StderrTail) > 1024 {
		t.Errorf("%+v", j)
	}
	if !strings.HasSuffix(j.Failure.StderrTail, "the end") {
		t.Error("the end of stderr is not kept")
	}
	j = b.do(EndJob{Job: "s-A", At: at(9)}).(*Job)
	if j.State != JobFailed || j.Ending != "" || j.Phase != "" || !j.EndedAt.Equal(at(9)) || j.Reason != "task m-00001 failed 4 times" {
		t.Errorf("%+v", j)
	}
	if d := cmp.Diff([]Counter{{"millrace", "mapInputRecords", 10}}, j.Counters); d != "" {
		t.Error(d)
	}
	if n := len(b.View().Uploads("s-A")); n != 0 {
		t.Errorf("%d uploads left", n)
	}
}

func TestCancelledJob(t *testing.T) {
	b := newBench(t)
	b.plan("s-A", 1, 1)
	if j := b.do(CancelJob{Job: "s-A", Reason: "by ann"}).(*Job); j.State != JobCancelPending || j.Ending != JobCancelled || j.Reason != "by ann" {
		t.Errorf("%+v", j)
	}
	if r := b.end(mapWin("s-A", 0, "late", 1)); r.Reason != RefusedJobEnded {
		t.Errorf("a completion after the cancel: %+v", r)
	}
	if r := b.end(ended("s-A", TaskID{Map, 0}, "late", CountsKilled)); !r.Accepted {
		t.Errorf("a kill because of the cancel: %+v", r)
	}
	if j := b.do(EndJob{Job: "s-A", At: at(9)}).(*Job); j.State != JobCancelled || j.Killed != 1 {
		t.Errorf("%+v", j)
	}
}

package state

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestMapsThenReduces(t *testing.T) {
	b := newBench(t)
	b.plan("s-A", 2, 2)
	b.win(mapWin("s-A", 1, "m1", 2))
	if j := b.job("s-A"); j.Phase != PhaseMapping || j.MapsDone != 1 || j.BytesDone != 100 || !j.MapsEndedAt.IsZero() {
		t.Errorf("after one map: %+v", j)
	}
	b.win(mapWin("s-A", 0, "m0", 1))
	j := b.job("s-A")
	if j.Phase != PhaseReducing || j.MapsDone != 2 || !j.MapsEndedAt.Equal(at(3)) {
		t.Errorf("after all maps: %+v", j)
	}
	if want := term(0, 1) + term(1, 2); j.MapDigest != want || j.MapLedger != (Ledger{20, 200, 21}) {
		t.Errorf("digest %x (want %x), ledger %v", j.MapDigest, want, j.MapLedger)
	}
	b.winReduces("s-A")
	j = b.job("s-A")
	if j.Phase != PhaseReducing || j.ReducesDone != 2 || !j.ReducesEndedAt.Equal(at(5)) || j.Fetched != j.MapLedger {
		t.Errorf("after all reduces: %+v", j)
	}
}

func TestRefusedCompletions(t *testing.T) {
	withUpload := func(e EndTask, id string) EndTask { e.Win.UploadID = id; return e }
	for _, c := range []struct {
		name  string
		state string
		end   func(b *bench) EndTask
		want  string
	}{
		{"no such job", "mapping", func(*bench) EndTask { return mapWin("s-NONE", 0, "a", 1) }, RefusedNoJob},
		{"not planned", "pending", func(*bench) EndTask { return mapWin("s-A", 0, "a", 1) }, RefusedNotPlanned},
		{"failed", "failed", func(*bench) EndTask { return mapWin("s-A", 0, "a", 1) }, RefusedJobEnded},
		{"failing", "failing", func(*bench) EndTask { return mapWin("s-A", 0, "a", 1) }, RefusedJobEnded},
		{"completed", "completed", func(*bench) EndTask { return mapWin("s-A", 0, "a", 1) }, RefusedJobEnded},
		{"map out of range", "mapping", func(*bench) EndTask { return mapWin("s-A", 2, "a", 1) }, RefusedNoTask},
		{"negative index", "mapping", func(*bench) EndTask { return mapWin("s-A", -1, "a", 1) }, RefusedNoTask},
		{"unknown kind", "mapping", func(*bench) EndTask { return EndTask{Job: "s-A", Task: TaskID{"x", 0}, Win: &Completion{Attempt: "a"}} }, RefusedNoTask},
		{"second winner", "reducing", func(*bench) EndTask { return mapWin("s-A", 0, "other", 1) }, RefusedOtherWon},
		{"reduce before all maps", "mapping", func(b *bench) EndTask { return reduceWin("s-A", 0, "a", b.job("s-A").MapDigest, Ledger{}) }, RefusedOtherInput},
		{"reduce of other maps", "reducing", func(b *bench) EndTask { return reduceWin("s-A", 0, "a", b.job("s-A").MapDigest+1, Ledger{}) }, RefusedOtherInput},
		{"unknown upload", "reducing", func(b *bench) EndTask {
			return withUpload(reduceWin("s-A", 0, "a", b.job("s-A").MapDigest, Ledger{}), "u")
		}, RefusedNoUpload},
		{"another task's upload", "reducing", func(b *bench) EndTask {
			b.do(AddUploads{Uploads: []Upload{{Job: "s-A", Task: TaskID{Reduce, 1}, ID: "u", Key: "k"}}})
			return withUpload(reduceWin("s-A", 0, "a", b.job("s-A").MapDigest, Ledger{}), "u")
		}, RefusedNoUpload},
		{"neither won nor ended", "mapping", func(*bench) EndTask { return EndTask{Job: "s-A", Task: TaskID{Map, 0}} }, RefusedMalformed},
		{"won and ended", "mapping", func(*bench) EndTask { e := mapWin("s-A", 0, "a", 1); e.Ended = &EndedAttempt{Attempt: "a"}; return e }, RefusedMalformed},
		{"no attempt", "mapping", func(*bench) EndTask { return mapWin("s-A", 0, "", 1) }, RefusedMalformed},
		{"counts as nothing", "mapping", func(*bench) EndTask { return ended("s-A", TaskID{Map, 0}, "a", "") }, RefusedMalformed},
		{"the winner fails", "reducing", func(*bench) EndTask { return ended("s-A", TaskID{Map, 0}, "m0", CountsFailed) }, RefusedHadWon},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			inState[c.state](b)
			e := c.end(b)
			before := records(b, b.View())
			if r := b.end(e); r != (EndTaskResult{Reason: c.want}) {
				t.Errorf("%+v, not %q", r, c.want)
			}
			if records(b, b.View()) != before {
				t.Error("it changed something")
			}
		})
	}
}

func TestOneRefusedItemLeavesTheOthersStanding(t *testing.T) {
	b := newBench(t)
	b.plan("s-A", 2, 1)
	got := b.do(EndTasks{Items: []EndTask{
		mapWin("s-A", 0, "a", 1), mapWin("s-A", 0, "b", 1), mapWin("s-NONE", 0, "c", 1), mapWin("s-A", 1, "d", 1)}})
	want := []EndTaskResult{{Accepted: true}, {Reason: RefusedOtherWon}, {Reason: RefusedNoJob}, {Accepted: true}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if j := b.job("s-A"); j.MapsDone != 2 || j.Phase != PhaseReducing {
		t.Errorf("%+v", j)
	}
}

func TestEndingsLoggedTwiceCountOnce(t *testing.T) {
	b := newBench(t)
	b.plan("s-A", 2, 1)
	for range 2 {
		b.win(mapWin("s-A", 0, "won", 1))
		if r := b.end(ended("s-A", TaskID{Map, 1}, "failed", CountsFailed)); !r.Accepted {
			t.Errorf("%+v", r)
		}
	}
	if j := b.job("s-A"); j.MapsDone != 1 || j.Failed != 1 || j.BytesDone != 100 {
		t.Errorf("%+v", j)
	}
}

func TestUnwonAttempts(t *testing.T) {
	b := newBench(t)
	b.plan("s-A", 1, 1)
	task := TaskID{Map, 0}
	for _, c := range []struct {
		counts, state          string
		failures               int
		failed, killed, lost   int
		speculative, wantSpecs int
	}{
		{counts: CountsFailed, state: AttemptFailed, failures: 1, failed: 1},
		{counts: CountsKilled, state: AttemptKilled, failures: 1, failed: 1, killed: 1, speculative: 1, wantSpecs: 1},
		{counts: CountsLost, state: AttemptLost, failures: 1, failed: 1, killed: 1, lost: 1, wantSpecs: 1},
		{counts: CountsFailed, state: AttemptFailed, failures: 2, failed: 2, killed: 1, lost: 1, wantSpecs: 1},
	} {
		e := ended("s-A", task, fmt.Sprint("a", b.index), c.counts)
		e.Speculative = c.speculative > 0
		if r := b.end(e); !r.Accepted {
			t.Fatalf("%+v", r)
		}
		j, k := b.job("s-A"), b.theTask("s-A", task)
		if j.Failed != c.failed || j.Killed != c.killed || j.Lost != c.lost || j.Speculative != c.wantSpecs || k.Failures != c.failures {
			t.Errorf("%+v: job %+v, task %+v", c, j, k)
		}
		if last := k.Ended[len(k.Ended)-1]; last.State != c.state || last.Attempt != e.Ended.Attempt {
			t.Errorf("%+v: kept %+v", c, last)
		}
	}
}

func TestTheNewestEndedAttemptsAreKept(t *testing.T) {
	b := newBench(t)
	b.plan("s-A", 1, 1)
	var old *View
	for i := range 12 {
		if i == 8 {
			old = b.View()
		}
		b.end(ended("s-A", TaskID{Map, 0}, fmt.Sprint(i), CountsFailed))
	}
	attempts := func(v *View) (all []string) {
		k, _ := v.Task("s-A", TaskID{Map, 0})
		for _, e := range k.Ended {
			all = append(all, e.Attempt)
		}
		return all
	}
	if got := attempts(b.View()); !slices.Equal(got, strings.Fields("4 5 6 7 8 9 10 11")) {
		t.Error(got)
	}
	if got := attempts(old); !slices.Equal(got, strings.Fields("0 1 2 3 4 5 6 7")) {
		t.Errorf("an older view changed: %v", got)
	}
}

func TestFailuresAreBounded(t *testing.T) {
	for _, text := range []string{"", "short", strings.Repeat("a", 5000), strings.Repeat("語", 5000), "x" + strings.Repeat("語", 5000), strings.Repeat("\xff", 5000)} {
		f := bounded(Failure{Message: text, StderrTail: text, Input: text, Signal: text})
		for _, c := range []struct {
			got   string
			bound int
		}{{f.Message, 512}, {f.StderrTail, 1024}, {f.Input, 1024}, {f.Signal, 32}} {
			if len(c.got) > c.bound || !utf8.ValidString(c.got) || utf8.ValidString(text) && len(text) > c.bound && len(c.got) < c.bound-3 {
				t.Errorf("%d bytes of %.9q became %d of %d: %.9q", len(text), text, len(c.got), c.bound, c.got)
			}
		}
	}
}

// lose makes a map pending again.
func (b *bench) lose(job string, index int, attempt string) {
	b.Helper()
	if got := b.do(LoseMaps{Job: job, Maps: []LostMap{{index, attempt}}}).([]int); len(got) != 1 || got[0] != index {
		b.Fatalf("lost %v", got)
	}
}

func TestALostMapRunsAgain(t *testing.T) {
	b := newBench(t)
	b.reducing("s-A")
	full := b.job("s-A")
	b.lose("s-A", 0, "m0")
	j, k := b.job("s-A"), b.theTask("s-A", TaskID{Map, 0})
	if j.MapsDone != 1 || j.BytesDone != 100 || j.Phase != PhaseReducing || j.Lost != 1 || k.Done || k.Win != nil || k.Failures != 0 {
		t.Errorf("after the loss: %+v, %+v", j, k)
	}
	if e := k.Ended[0]; e.Attempt != "m0" || e.State != AttemptLost {
		t.Errorf("kept %+v", e)
	}
	b.win(mapWin("s-A", 0, "m0b", 1))
	j = b.job("s-A")
	if j.MapsDone != 2 || j.BytesDone != 200 || j.MapDigest != full.MapDigest || j.MapLedger != full.MapLedger || j.ReduceRound != 0 {
		t.Errorf("after the second run: %+v", j)
	}
	b.winReduces("s-A")
	b.do(BeginCommit{Job: "s-A", At: at(7)})
}

func TestLossesThatAreIgnored(t *testing.T) {
	for _, c := range []struct {
		name  string
		setup func(b *bench)
		lost  LostMap
	}{
		{"another attempt has won", inState["reducing"], LostMap{0, "m0-old"}},
		{"the map is not done", inState["mapping"], LostMap{0, "m0"}},
		{"no such map", inState["reducing"], LostMap{7, "m0"}},
		{"all reduces are done", inState["reduced"], LostMap{0, "m0"}},
		{"the job is failing", inState["failing"], LostMap{0, "m0"}},
		{"the job has ended", inState["completed"], LostMap{0, "m0"}},
		{"map-only", func(b *bench) { b.plan("s-A", 2, 0); b.win(mapWin("s-A", 0, "m0", 1)) }, LostMap{0, "m0"}},
	} {
		b := newBench(t)
		c.setup(b)
		before := records(b, b.View())
		if got := b.do(LoseMaps{Job: "s-A", Maps: []LostMap{c.lost}}).([]int); got != nil || records(b, b.View()) != before {
			t.Errorf("%s: lost %v", c.name, got)
		}
	}
}

// A reduce that had fetched all of a map before its segment was lost is as good as any.
func TestAReduceMayHaveConsumedWhatIsLostNow(t *testing.T) {
	b := newBench(t)
	b.reducing("s-A")
	set := b.job("s-A").MapDigest
	b.lose("s-A", 0, "m0")
	b.win(reduceWin("s-A", 0, "r0", set, Ledger{5, 50, 1}))

	// The second run gives the same bytes: nothing starts over.
	b.win(mapWin("s-A", 0, "m0b", 1))
	if j := b.job("s-A"); j.ReducesDone != 1 || j.ReduceRound != 0 || j.MapDigest != set {
		t.Errorf("%+v", j)
	}
}

// When the last reduce is done nobody needs the segments: the job may commit though a node was lost.
func TestTheLastReduceMakesLostMapsGood(t *testing.T) {
	b := newBench(t)
	b.reducing("s-A")
	b.lose("s-A", 1, "m1")
	b.winReduces("s-A")
	j, k := b.job("s-A"), b.theTask("s-A", TaskID{Map, 1})
	if j.MapsDone != 2 || j.BytesDone != 200 || !k.Done || k.Win.Attempt != "m1" || k.Prior != nil {
		t.Errorf("%+v, %+v", j, k)
	}
	if r := b.end(mapWin("s-A", 1, "m1b", 5)); r.Reason != RefusedOtherWon {
		t.Errorf("the second run: %+v", r)
	}
	b.do(BeginCommit{Job: "s-A", At: at(7)})
	if j := b.do(CompleteJob{Job: "s-A", At: at(8)}).(*Job); j.Counters[0] != (Counter{"millrace", "mapInputRecords", 10}) {
		t.Errorf("counters %v", j.Counters)
	}
}

func TestANonDeterministicMap(t *testing.T) {
	b := newBench(t)
	b.reducing("s-A")
	set := b.job("s-A").MapDigest
	b.win(reduceWin("s-A", 0, "r0", set, Ledger{5, 50, 1}))
	b.lose("s-A", 0, "m0")

	// Once, all reduces start over.
	if r := b.end(mapWin("s-A", 0, "m0b", 9)); r != (EndTaskResult{Accepted: true, NotDeterministic: true, ReducesReset: true}) {
		t.Fatalf("%+v", r)
	}
	j, k := b.job("s-A"), b.theTask("s-A", TaskID{Reduce, 0})
	if j.ReduceRound != 1 || j.ReducesDone != 0 || j.Fetched != (Ledger{}) || k.Done || k.Win != nil || k.Ended[0].Attempt != "r0" {
		t.Errorf("%+v, %+v", j, k)
	}
	if r := b.end(reduceWin("s-A", 1, "r1", set, Ledger{})); r.Reason != RefusedOtherInput {
		t.Errorf("a reduce of the old outputs: %+v", r)
	}

	// A second time the job must fail; until it does, the map stays to be done.
	b.win(reduceWin("s-A", 0, "r0b", b.job("s-A").MapDigest, Ledger{5, 50, 1}))
	b.lose("s-A", 0, "m0b")
	want := EndTaskResult{NotDeterministic: true, Reason: RefusedNotDeterministic}
	for range 2 {
		if r := b.end(mapWin("s-A", 0, fmt.Sprint("m0c", b.index), 10)); r != want {
			t.Fatalf("%+v", r)
		}
	}
	if j := b.job("s-A"); j.ReduceRound != 1 || j.MapsDone != 1 || j.ReducesDone != 1 {
		t.Errorf("%+v", j)
	}
	// Should it give the consumed bytes after all, the job is sound.
	b.win(mapWin("s-A", 0, "m0d", 9))
}

func TestOtherBytesThatNobodyConsumedAreNoHarm(t *testing.T) {
	b := newBench(t)
	b.reducing("s-A")
	b.lose("s-A", 0, "m0")
	b.win(mapWin("s-A", 0, "m0b", 9))
	j := b.job("s-A")
	if want := term(0, 9) + term(1, 2); j.MapDigest != want || j.MapLedger != (Ledger{20, 200, 77}) || j.ReduceRound != 0 {
		t.Errorf("%+v", j)
	}
}

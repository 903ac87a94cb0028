package tracker

import (
	"flag"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	modelBudgets = flag.String("model.budgets", "", "faults,changes;… for every scenario, in place of its own")
	modelReplay  = flag.String("model.replay", "", "repeat one run, as a failure has printed it")
	modelTime    = flag.Duration("model.time", 0, "give up a search after this time; 0 = never")
)

func scenarios() []*scenario {
	plain, fault, change := budget{}, budget{Faults: 1}, budget{Changes: 1}
	return []*scenario{
		{name: "map and reduce", maps: 1, reduces: 2, budgets: []budget{fault, change}},
		{name: "map only", maps: 2, budgets: []budget{fault}},
		{name: "overwrite", maps: 1, reduces: 2, overwrite: true, budgets: []budget{fault}},
		{name: "cancelled", maps: 1, reduces: 2, cancel: true, budgets: []budget{plain}},
		{name: "cancelled overwrite", maps: 1, reduces: 2, cancel: true, overwrite: true, budgets: []budget{plain}},
		{name: "a failing reduce", maps: 1, reduces: 2, failing: map[int32]bool{1: true}, budgets: []budget{plain}},
		{name: "a second attempt reads less", maps: 1, reduces: 2, short: true, budgets: []budget{fault}},
		{name: "no _SUCCESS", maps: 1, reduces: 2, noSuccess: true, budgets: []budget{fault}},
		{name: "a store that denies", maps: 1, reduces: 2, overwrite: true, refusals: true, budgets: []budget{fault}},
	}
}

// The real tracker, over the real state of the log and the store in memory, in every
// run that there is of a small job: two output tasks, two attempts each, two leaders.
//
// What may happen: each request to the store is carried out and answered; or it gets no
// answer in time, and is carried out at any later moment, also after the job's end and
// under another leader, or never; or it is carried out twice, the second time at any
// later moment; one that reads fails; a CompleteUpload is refused as invalid, or answered
// and not done, the upload still there or gone; an AbortUpload is answered and not done. The store drops an upload, or one part of it.
// An attempt fails, and its last request may come late; a node is cut off, its attempts
// go on uploading, and it comes back at any later moment. The leader dies between any
// two requests, with its entry under way in the log or not, its requests to the store
// carried out at any later moment or never; or it is deposed and goes on without knowing,
// its requests in any order with those of the next one. Somebody cancels, at any moment.
//
// A budget says how many faults and changes of leader a run has. Within it a search is
// exhaustive, in the order of everything too, with these reductions: steps on different
// keys go together in any order; once nothing can go wrong any more the leader in office
// and the attempts take their steps in one order (what is late and a deposed leader go on
// in any order with them); time passes when nothing else can; and after the job's end what
// is late arrives in one order. Not in the model: two late requests of a store that knows
// no conditional DELETE (see "What may come late" in docs/design.md).
//
// After every single step: before COMMITTING nothing of the output has changed; while the
// old _SUCCESS is there so is the old set; while the job's _SUCCESS is there it names
// exactly the parts that are there, with their sizes and ETags, each of them holds what its
// winner wrote and nothing else, nothing else lies beside them, and the ledger in the log
// balances; once there, it does not change or vanish. At the end: that set, or nothing
// of it, and no upload but an empty one that came to be after the last sweep.
func TestModel(t *testing.T) {
	if *modelReplay != "" {
		replay(t, *modelReplay)
		return
	}
	for _, sc := range scenarios() {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			budgets := sc.budgets
			if *modelBudgets != "" {
				budgets = parseBudgets(t, *modelBudgets)
			}
			for _, b := range budgets {
				explore(t, sc, b)
			}
		})
	}
}

func explore(t *testing.T, sc *scenario, b budget) {
	began := time.Now()
	s := &search{sc: sc, budget: b, seen: map[[32]byte][]string{}}
	whole := "all"
	for again := true; again; again = s.next() {
		if broken := s.run(t); broken != "" {
			t.Fatalf("%s, after\n%sagain: go test -run TestModel ./master/tracker -model.replay '%s'", broken, s.story(), s.replay())
		}
		if *modelTime > 0 && time.Since(began) > *modelTime {
			whole = "not all"
			break
		}
	}
	t.Logf("%d faults, %d changes of leader: %s %d states, %d runs (%d cut short), %d steps, the longest run %d, %v",
		b.Faults, b.Changes, whole, len(s.seen), s.runs, s.cut, s.steps, s.deepest, time.Since(began).Round(time.Millisecond))
}

func parseBudgets(t *testing.T, text string) (list []budget) {
	for _, one := range strings.Split(text, ";") {
		var b budget
		if _, err := fmt.Sscanf(one, "%d,%d", &b.Faults, &b.Changes); err != nil {
			t.Fatalf("budget %q: want faults,changes", one)
		}
		list = append(list, b)
	}
	return list
}

// replay repeats a run from what search.replay has printed.
func replay(t *testing.T, text string) {
	parts := strings.Split(text, "/")
	if len(parts) != 3 {
		t.Fatalf("%q: want scenario/faults,changes/choices", text)
	}
	for _, sc := range scenarios() {
		if sc.name != parts[0] {
			continue
		}
		s := &search{sc: sc, budget: parseBudgets(t, parts[1])[0], seen: map[[32]byte][]string{}}
		for _, c := range strings.Split(parts[2], ".") {
			i, err := strconv.Atoi(c)
			if err != nil {
				t.Fatalf("choice %q: %v", c, err)
			}
			s.path = append(s.path, &fork{chosen: i})
		}
		broken := s.run(t)
		t.Logf("%s, after\n%s", broken, s.story())
		return
	}
	t.Fatalf("there is no scenario %q", parts[0])
}

package state

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// machine drives a store and its twin by the same random commands, legal and illegal ones.
type machine struct {
	*rapid.T
	b       *bench
	twin    twin
	log     []Command
	attempt int
	came    map[string]int // names of commands, "!" before those that were refused; and what else histories must have
}

// actions are what a history is made of, each as often as it says of 128 times.
var actions = []struct {
	often int
	act   func(*machine)
}{
	{1, (*machine).createSite}, {1, (*machine).putStore}, {3, (*machine).putNode}, {8, (*machine).admitNode}, {1, (*machine).removeNode}, {2, (*machine).drainNode},
	{4, (*machine).createToken}, {1, (*machine).revokeToken},
	{10, (*machine).submit}, {12, (*machine).plan}, {5, (*machine).addUploads}, {2, (*machine).dropUploads}, {30, (*machine).endTasks}, {5, (*machine).finish}, {9, (*machine).changeMind}, {9, (*machine).loseMaps},
	{9, (*machine).beginCommit}, {6, (*machine).redoParts}, {3, (*machine).completeJob}, {1, (*machine).failJob}, {1, (*machine).cancelJob}, {1, (*machine).endJob},
	{2, (*machine).restore}, {1, (*machine).retireJobs}, {1, (*machine).forgetJobs},
}

// action draws one of so many, as often as it says of 128 times. Seven coins, because rapid prefers small numbers.
func action(count int, often func(i int) int) *rapid.Generator[int] {
	return rapid.Custom(func(t *rapid.T) int {
		n := 0
		for range 7 {
			n *= 2
			if rapid.Bool().Draw(t, "coin") {
				n++
			}
		}
		for i := range count {
			if n -= often(i); n < 0 {
				return i
			}
		}
		return 0
	})
}

// Whatever comes in whatever order: the store takes and refuses what the twin does, and every view is as the twin's. The log that
// came of it gives the same state again, however it is played.
func TestLikeTwin(t *testing.T) {
	came := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{T: t, b: &bench{failer: t, Store: New()}, twin: newTwin(), came: came}
		if rapid.IntRange(0, 9).Draw(t, "site") > 0 {
			m.siteAtOnce()
		}
		for _, i := range rapid.SliceOfN(action(len(actions), func(i int) int { return actions[i].often }), 100, 150).Draw(t, "actions") {
			actions[i].act(m)
			m.checkSite()
			m.checkJobs()
		}
		m.replay()
	})
	for _, name := range []string{
		"CreateSite", "PutStore", "PutNode", "AdmitNode", "RemoveNode", "DrainNode", "CreateToken", "RevokeToken", "SubmitJob", "PlanJob", "AddUploads", "DropUploads",
		"RetireJobs", "ForgetJobs",
		"EndTasks", "LoseMaps", "BeginCommit", "RedoParts", "CompleteJob", "FailJob", "CancelJob", "EndJob",
		"!CreateSite", "!PutStore", "!PutNode", "!AdmitNode", "!RemoveNode", "!DrainNode", "!CreateToken", "!RevokeToken", "!SubmitJob", "!PlanJob", "!AddUploads", "!DropUploads",
		"!LoseMaps", "!BeginCommit", "!RedoParts", "!CompleteJob", "!FailJob", "!CancelJob", "!EndJob", // EndTasks answers item by item
		RefusedNoJob, RefusedNotPlanned, RefusedNoTask, RefusedJobEnded, RefusedOtherWon, RefusedHadWon, RefusedOtherInput, RefusedNoUpload,
		RefusedNotDeterministic, RefusedMalformed, reducesReset, mapsRevived, ErrLedger.Error(),
	} {
		if came[name] == 0 {
			t.Errorf("no history has this: %s", name)
		}
	}
	t.Log(came)
}

// What else the histories must have.
const (
	reducesReset = "all reduces start over"
	mapsRevived  = "maps whose segments are lost are needed no more"
)

// expect applies a command that must be taken, or be refused with the given error; and sees to what is watched.
func (m *machine) expect(c Command, want error) any {
	m.Helper()
	m.Logf("%d %s %+v", m.b.index+1, c.CommandName(), c)
	before, watches := m.b.View(), m.watches()
	m.log = append(m.log, c)
	result, err := m.b.apply(c)
	if (err == nil) != (want == nil) || !errors.Is(err, want) {
		m.Fatalf("%s %+v: %v; the twin says: %v", c.CommandName(), c, err, want)
	}
	if err != nil {
		m.came["!"+c.CommandName()]++
		if errors.Is(err, ErrLedger) {
			m.came[ErrLedger.Error()]++
		}
		if records(m, before) != records(m, m.b.View()) {
			m.Fatalf("%s %+v was refused (%v), and changed something", c.CommandName(), c, err)
		}
	} else {
		m.came[c.CommandName()]++
		m.isStored(result)
	}
	m.checkWatches(before, watches, err)
	return result
}

// isStored: what a command gives is the record as it is now.
func (m *machine) isStored(result any) {
	m.Helper()
	v := m.b.View()
	var stored any
	switch r := result.(type) {
	case *Site:
		stored, _ = v.Site()
	case *Node:
		stored, _ = v.Node(r.ID)
	case *Token:
		if now, ok := v.Token(r.ID); ok {
			stored = now
		} else {
			stored = r // it was revoked
		}
	case *Job:
		if e, ok := v.Entry(r.ID); ok {
			stored = e.Brief()
		}
	case *Cluster:
		stored, _ = v.Cluster(r.ID)
	default:
		return
	}
	if d := cmp.Diff(stored, result); d != "" {
		m.Fatalf("the result is not what is stored (-stored, +result):\n%s", d)
	}
}

// one draws one of several values.
func one[V any](m *machine, label string, of ...V) V { return rapid.SampledFrom(of).Draw(m.T, label) }

// rare is true once in n times.
func (m *machine) rare(n int, label string) bool {
	return rapid.IntRange(0, n-1).Draw(m.T, label) == n-1
}

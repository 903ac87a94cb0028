package tracker

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/master/fsm"
	"millrace/master/state"
)

// entryLimit is what an entry must stay below: Raft's heartbeats wait while a greater one is on its way.
const entryLimit = 512 << 10

// What ends while an entry is being written shares the next one: however many there are, there is one entry for each maxEnds of
// them, and one at a time of a job. Each end is answered once, in order.
func TestEndsThatComeTogetherShareEntries(t *testing.T) {
	for _, c := range []struct{ ends, entries int }{{1, 1}, {2, 2}, {maxEnds + 1, 2}, {maxEnds + 2, 3}, {20_000, 1 + (20_000+maxEnds-2)/maxEnds}} {
		t.Run(fmt.Sprint(c.ends), func(t *testing.T) {
			tr := &Tracker{ctx: t.Context(), events: make(chan event, 1), beside: func(f func()) { go f() }}
			entries := 0 // not shared: there is one at a time
			tr.cfg.Apply = func(_ context.Context, cmd state.Command) (any, error) {
				entries++
				if data, err := fsm.Encode(cmd); err != nil || len(data) >= entryLimit {
					t.Errorf("an entry of %d bytes, %v", len(data), err)
				}
				return make([]state.EndTaskResult, len(cmd.(state.EndTasks).Items)), nil
			}
			answered := 0
			for i := range c.ends {
				tr.proposeEnd(win(i), func(state.EndTaskResult) {
					if i != answered {
						t.Fatalf("end %d is answered after %d", i, answered)
					}
					answered++
				})
				tr.fly() // the first goes at once; it is not answered before all others have come
			}
			for answered < c.ends {
				(<-tr.events).do()
				tr.fly()
			}
			tr.wg.Wait()
			require.Equal(t, c.entries, entries)
		})
	}
}

func win(i int) state.EndTask {
	return state.EndTask{Job: "s-AAAAAAAAAAAAA", Task: state.TaskID{Kind: state.Map, Index: i}, Win: &state.Completion{
		Attempt: fmt.Sprintf("s-AAAAAAAAAAAAA-m-%05d-17-4", i), Node: "i-00000000000000000", SegmentNode: "i-00000000000000000",
		Digest: 1<<64 - 1, SetTerm: 1<<64 - 1, UploadID: strings.Repeat("u", 200),
		Counters: []state.Counter{{Group: "millrace", Name: "mapInputRecords", Value: 1 << 40}},
	}}
}

// An entry stays small whatever programs have written last: markup and control characters take six times their bytes in the log.
func TestEntriesStaySmall(t *testing.T) {
	for _, text := range []string{"x", "<", "\x00", "語"} {
		tr := &Tracker{}
		for i := range 300 {
			tr.proposeEnd(state.EndTask{Job: "s-AAAAAAAAAAAAA", Task: state.TaskID{Kind: state.Map, Index: i}, CountsAs: state.CountsFailed, Ended: &state.EndedAttempt{
				Attempt: "a", Failure: state.Failure{Message: strings.Repeat(text, 2048/len(text)), Input: strings.Repeat(text, 1024/len(text)), StderrTail: strings.Repeat(text, 1024/len(text))},
			}}, nil)
		}
		ends := 0
		for _, e := range tr.entries.queue {
			data, err := fsm.Encode(state.EndTasks{Items: e.ends})
			require.NoError(t, err)
			require.Less(t, len(data), entryLimit, "%d ends of %q", len(e.ends), text)
			ends += len(e.ends)
		}
		require.Equal(t, 300, ends)
	}
}

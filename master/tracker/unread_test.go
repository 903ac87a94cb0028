package tracker

import (
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/pkg/api"
)

// A node that can keep segments but not read them has its maps run again a few times, not without end: then that counts
// as failures of the reduces there, and the job goes on elsewhere, or fails and says what it was.
func TestANodeThatCannotReadSegments(t *testing.T) {
	for name, c := range map[string]struct {
		nodes int
		ill   func(k *worker)
		fails bool
	}{
		"not its own, and it is alone":         {1, func(k *worker) { k.denied = true }, true},
		"nor does it give them to others":      {3, func(k *worker) { k.denied = true }, false},
		"none, whoever keeps them":             {3, func(k *worker) { k.blind = true }, false},
		"none, which it sees when it is alone": {1, func(k *worker) { k.play = endsDamaged(k) }, true},
		"none, which it sees while it merges":  {3, func(k *worker) { k.play = endsDamaged(k) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				const maps = 6
				for i := range c.nodes {
					k := w.join([]string{"i-a", "i-b", "i-c"}[i], state.RoleCore, 2)
					if i == 0 {
						c.ill(k)
					}
				}
				w.lead()
				w.submit(maps, 2, nil)
				j := w.await()
				require.LessOrEqual(t, j.Lost, 4*enoughUnread*maps, "maps that ran again")
				if !c.fails {
					w.committed()
					return
				}
				w.nothing(state.JobFailed)
				require.Regexp(t, `^task r-0000[01] failed 4 times: its node could not read the output of m-0000\d, which was made \d+ times; `+
					`the last one, kept by node i-a: .*(permission denied|corrupt)$`, j.Reason)
			})
		})
	}
}

// endsDamaged has every reduce of a worker end because it finds the output of map 2 damaged.
func endsDamaged(k *worker) func(l *api.Lease) *api.Failure {
	return func(l *api.Lease) *api.Failure {
		won, _ := k.w.log.View().Task(testJob, state.TaskID{Kind: state.Map, Index: 2})
		if isMap(l) || !won.Done {
			return nil
		}
		return &api.Failure{Kind: api.FailureKind_FAILURE_KIND_SEGMENT, Message: "corrupt", SegmentMap: 2, SegmentAttempt: won.Win.Attempt}
	}
}

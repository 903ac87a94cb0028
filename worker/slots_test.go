package worker

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"millrace/pkg/api"
)

// TestTheBooksHoldWhateverComes drives slots with random orders against a dumb twin: a queue, a set
// that runs, a set that waits for its acknowledgement.
func TestTheBooksHoldWhateverComes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const room = 2
		var begun []*task
		s := newSlots(room, func(k *task) { begun = append(begun, k) })
		out := newOutbox()
		s.connect(out, &api.WorkerHello{}, nil)
		var queue, running, reported []string
		fill := func() {
			for len(running) < room && len(queue) > 0 {
				running, queue = append(running, queue[0]), queue[1:]
			}
		}
		ids := rapid.SampledFrom([]string{"s-A-m-00000-1-1", "s-A-m-00001-1-2", "s-A-m-00002-1-3", "s-A-m-00003-1-4", "s-A-m-00004-1-5"})
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			id := ids.Draw(t, "id")
			drop := func(l []string) []string { return slices.DeleteFunc(l, func(x string) bool { return x == id }) }
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				if err := s.lease(&api.Lease{Job: "s-A", Attempt: id, Kind: api.TaskKind_TASK_KIND_MAP}); err != nil {
					t.Fatal(err)
				}
				if !slices.Contains(queue, id) && !slices.Contains(running, id) && !slices.Contains(reported, id) {
					queue = append(queue, id)
				}
			case 1:
				for _, k := range begun {
					if k.lease.Attempt == id && slices.Contains(running, id) && s.running[id] == k {
						s.finish(k, &api.AttemptReport{Job: "s-A", Attempt: id, Kind: api.TaskKind_TASK_KIND_MAP})
						running, reported = drop(running), append(reported, id)
						break
					}
				}
			case 2:
				s.revoke(id)
				queue = drop(queue)
			case 3:
				s.end(id, "because")
				if slices.Contains(queue, id) {
					queue, reported = drop(queue), append(reported, id)
				}
			case 4:
				r, last := s.acknowledged(id)
				if (r != nil) != slices.Contains(reported, id) {
					t.Fatalf("acknowledged %s: %v, reported %v", id, r, reported)
				}
				reported = drop(reported)
				if last != (r != nil && len(queue)+len(running)+len(reported) == 0) {
					t.Fatalf("last is %v with %v %v %v", last, queue, running, reported)
				}
			}
			fill()
			h, again := &api.WorkerHello{}, newOutbox()
			s.connect(again, h, nil)
			var said []string
			for _, r := range h.Running {
				said = append(said, fmt.Sprint(r.Attempt, r.Started))
			}
			var want []string
			for _, r := range running {
				want = append(want, fmt.Sprint(r, true))
			}
			for _, q := range queue {
				want = append(want, fmt.Sprint(q, false))
			}
			slices.Sort(said)
			slices.Sort(want)
			if !slices.Equal(said, want) {
				t.Fatalf("hello says %v, want %v", said, want)
			}
			first := again.take()
			if len(first) != 1+len(reported)+1 || first[0].GetHello() == nil || first[len(first)-1].GetHeartbeat() == nil {
				t.Fatalf("a new session begins with %v, want the hello, %d reports and a heartbeat", first, len(reported))
			}
			if n := len(first[len(first)-1].GetHeartbeat().Progress); n != len(running) {
				t.Fatalf("the first heartbeat tells of %d attempts, want all %d", n, len(running))
			}
		}
	})
}

func TestTheEndOfAJobIsReportedToNobody(t *testing.T) {
	var k *task
	s := newSlots(1, func(b *task) { k = b })
	for i := range 3 {
		require.NoError(t, s.lease(&api.Lease{Job: "s-A", Attempt: fmt.Sprintf("s-A-m-0000%d-1-1", i)}))
	}
	s.forget("s-A")
	require.Error(t, k.ctx.Err())
	s.finish(k, &api.AttemptReport{Job: "s-A", Attempt: k.lease.Attempt})
	require.True(t, s.settled())
	require.Empty(t, s.queue)
}

func TestAStoppingNodeStartsNothing(t *testing.T) {
	var k *task
	s := newSlots(1, func(b *task) { k = b })
	require.NoError(t, s.lease(&api.Lease{Job: "s-A", Attempt: "s-A-m-00000-1-1"}))
	require.NoError(t, s.lease(&api.Lease{Job: "s-A", Attempt: "s-A-m-00001-1-2"}))
	first := k
	s.stop()
	require.NoError(t, s.lease(&api.Lease{Job: "s-A", Attempt: "s-A-m-00002-1-3"}))
	s.finish(first, &api.AttemptReport{Job: "s-A", Attempt: "s-A-m-00000-1-1"})
	require.Same(t, first, k)
	require.False(t, s.settled(), "what ended in time is still reported")
	_, _ = s.acknowledged("s-A-m-00000-1-1")
	require.True(t, s.settled())
	s.killAll(errors.New("x"))
}

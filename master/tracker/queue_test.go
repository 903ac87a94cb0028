package tracker

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"millrace/master/state"
	"millrace/pkg/api"
)

func TestQueueIsSeen(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 2)
		a.at(10 * time.Second)
		w.lead()
		w.submit(7, 1, nil)
		w.until("two run", func() bool { return w.leader.RunningOn("i-a") == 2 })
		live, ok := w.leader.Live(testJob)
		require.True(t, ok)
		require.Equal(t, LiveTasks{Pending: 5, Prefetched: 2, Running: 2}, live.Maps)
		require.Equal(t, LiveTasks{Pending: 1}, live.Reduces)
		require.Equal(t, 5, w.leader.Queued("j-1"))
		require.Zero(t, w.leader.Queued("j-2"))
		require.Len(t, live.Attempts, 4)

		changed := w.leader.Changed(testJob)
		w.leader.Message("i-a", &api.WorkerMessage{Message: &api.WorkerMessage_Heartbeat{Heartbeat: &api.WorkerHeartbeat{
			Progress: []*api.AttemptProgress{{Attempt: a.starts()[0], BytesDone: 4}},
		}}})
		<-changed
		live, _ = w.leader.Live(testJob)
		require.EqualValues(t, 4, live.BytesDone)
		time.Sleep(time.Second)
		w.leader.Message("i-a", &api.WorkerMessage{Message: &api.WorkerMessage_Heartbeat{Heartbeat: &api.WorkerHeartbeat{
			Progress: []*api.AttemptProgress{{Attempt: a.starts()[0], BytesDone: 8}},
		}}})
		synctest.Wait()
		live, _ = w.leader.Live(testJob)
		require.EqualValues(t, 4, live.BytesPerSecond)
		require.Equal(t, 62*time.Second/4, live.ETA)
		w.await()
		w.committed()
		require.Equal(t, 2, a.most)
	})
}

// A node that joins while a job runs takes what was prefetched elsewhere.
func TestNewNodeTakesPrefetchedTasks(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 2)
		a.at(10 * time.Second)
		w.lead()
		w.submit(4, 1, nil)
		w.until("two run, two are queued", func() bool {
			l, _ := w.leader.Live(testJob)
			return l.Maps.Running == 2 && l.Maps.Prefetched == 2
		})
		w.joinAt(10*time.Second, "i-b", state.RoleTask, 2)
		w.until("all four run", func() bool { return w.leader.RunningOn("i-a") == 2 && w.leader.RunningOn("i-b") == 2 })
		w.await()
		w.committed()
		require.Zero(t, w.job().Killed+w.job().Lost)
	})
}

// A task node alone cannot keep map outputs: maps wait for a core node.
func TestTaskNodeNeedsACoreNode(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		b := w.join("i-b", state.RoleTask, 2)
		w.lead()
		w.submit(3, 1, nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Empty(t, b.starts())
		w.join("i-a", state.RoleCore, 1)
		w.await()
		w.committed()
	})
}

// That the core node goes away is not the fault of a map that cannot bring it its segment.
func TestTheCoreNodeGoesAway(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 1)
		b := w.join("i-b", state.RoleTask, 2)
		b.at(50 * time.Millisecond)
		b.play = func(l *api.Lease) *api.Failure {
			if len(l.PushTo) > 0 && !a.up() {
				return &api.Failure{Kind: api.FailureKind_FAILURE_KIND_RESOURCE, Message: "no core node takes the segment"}
			}
			return nil
		}
		w.lead()
		w.submit(6, 1, nil)
		for range 6 {
			w.until("a map runs there", func() bool { return w.leader.RunningOn("i-b") > 0 || w.job().Ended() })
			a.cut()
			time.Sleep(time.Second)
			a.reconnect()
		}
		w.await()
		w.committed()
		require.Zero(t, w.job().Failed)
		require.Positive(t, w.job().Lost)
	})
}

// Its own fault is, though, and that has an end.
func TestATaskNodeFails(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 1)
		b := w.join("i-b", state.RoleTask, 2)
		full := func(*api.Lease) *api.Failure {
			return &api.Failure{Kind: api.FailureKind_FAILURE_KIND_NODE, Message: "no space left on device"}
		}
		a.play, b.play = full, full
		w.lead()
		w.submit(2, 1, nil)
		w.await()
		w.nothing(state.JobFailed)
	})
}

func TestUploadsOfHoursAgoAreNotUsed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 1)
		a.at(7 * time.Hour)
		w.lead()
		w.submit(1, 1, nil)
		w.until("the map runs", func() bool { return w.leader.RunningOn("i-a") == 1 })
		time.Sleep(7 * time.Hour)
		a.at(time.Second)
		w.await()
		w.committed()
		n := 0
		for _, name := range w.names {
			if name == "CreateUpload" {
				n++
			}
		}
		require.Equal(t, 2, n)
	})
}

// What many attempts report at once shares log entries.
func TestReportsShareEntries(t *testing.T) {
	var p pipeline
	tr := &Tracker{}
	for range 300 {
		tr.proposeEnd(state.EndTask{Job: "s-1", Win: &state.Completion{}}, func(state.EndTaskResult) {})
	}
	p = tr.entries
	require.Len(t, p.queue, 3)
	require.Len(t, p.queue[0].ends, maxEnds)
	big := state.EndTask{Job: "s-1", Win: &state.Completion{Counters: make([]state.Counter, maxCounters)}}
	tr = &Tracker{}
	for range 100 {
		tr.proposeEnd(big, func(state.EndTaskResult) {})
	}
	for _, e := range tr.entries.queue {
		require.LessOrEqual(t, e.bytes, maxEndBytes)
	}
}

// Flights keep the order of each job's commands, lose none, and never carry two
// of the same job.
func TestFlightsKeepEachJobsOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		jobs := rapid.SliceOfN(rapid.StringMatching("[a-d]"), 0, 30).Draw(t, "jobs")
		tr := &Tracker{}
		for i, j := range jobs {
			tr.propose(j, state.EndJob{Job: j, At: time.Unix(int64(i), 0)}, nil)
		}
		var out []int
		for len(tr.entries.queue) > 0 {
			seen := map[string]bool{}
			flight := tr.entries.cut()
			if len(flight) == 0 {
				t.Fatal("no progress")
			}
			for _, e := range flight {
				c := e.cmd.(state.EndJob)
				if seen[c.Job] {
					t.Fatalf("two of %s in one flight", c.Job)
				}
				seen[c.Job] = true
				out = append(out, int(c.At.Unix()))
			}
		}
		if !slices.IsSorted(out) || len(out) != len(jobs) {
			t.Fatalf("order %v of %d", out, len(jobs))
		}
	})
}

// The queue against a dumb twin: tasks wait, become ready, are leased.
func TestQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q queue
		tasks := makeTasks(state.Map, 12)
		waits, ready := map[int]bool{}, map[int]bool{}
		for _, step := range rapid.SliceOfN(rapid.IntRange(0, 3*len(tasks)-1), 0, 400).Draw(t, "steps") {
			switch i := step % len(tasks); step / len(tasks) {
			case 0:
				q.push(tasks[i], ready[i])
				waits[i] = true
			case 1:
				q.drop(tasks[i])
				delete(waits, i)
				ready[i] = false
			case 2:
				q.ready(tasks[i])
				ready[i] = true
			}
			fits := func(k *task) bool { return k.id.Index%2 == 0 && ready[k.id.Index] }
			want := 0
			for i := range waits {
				if fits(tasks[i]) {
					want++
				}
			}
			got := q.first(100, fits)
			if len(got) != want || q.count != len(waits) || len(q.first(1, fits)) != min(1, want) {
				t.Fatalf("got %d of %d, count %d of %d", len(got), want, q.count, len(waits))
			}
			for _, k := range got {
				if !waits[k.id.Index] || !fits(k) {
					t.Fatalf("%s does not wait", k)
				}
			}
		}
	})
}

func TestDefaultReduces(t *testing.T) {
	for _, c := range []struct {
		bytes int64
		slots int
		want  int
	}{{0, 4, 1}, {100, 4, 1}, {64 << 20, 4, 1}, {64<<20 + 1, 4, 2}, {1 << 40, 4, 4}, {1 << 30, 0, 1}} {
		require.Equal(t, c.want, DefaultReduces(c.bytes, c.slots), "%d bytes, %d slots", c.bytes, c.slots)
	}
}

func TestTermOfAttempt(t *testing.T) {
	require.EqualValues(t, 17, madeIn("s-AAAAAAAAAAAAA-m-00003-17-4"))
	require.Zero(t, madeIn("x"))
	require.Zero(t, madeIn("a-b-c"))
}

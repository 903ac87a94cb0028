package tracker

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"millrace/master/state"
	"millrace/pkg/api"
)

const mib = 1 << 20

// disk is a fake worker's disk. Attempts take of it what swell makes of their input.
type disk struct {
	total  int64
	volume string
	swell  float64 // a map's segment over its split's size; 0: 1

	mu     sync.Mutex
	others int64            // somebody else's files
	ours   map[string]int64 // by attempt
	most   int64            // bytes of ours at once
	failed int              // attempts for which there was no room
}

func (d *disk) left() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return max(0, d.total-d.others-d.sum())
}

func (d *disk) sum() (n int64) {
	for _, b := range d.ours {
		n += b
	}
	return n
}

// fill sets what somebody else has on the disk.
func (d *disk) fill(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.others = bytes
}

// take plays an attempt's writing.
func (d *disk) take(l *api.Lease) *api.Failure {
	d.mu.Lock()
	defer d.mu.Unlock()
	var bytes int64
	for _, p := range l.GetSplit().GetPieces() {
		bytes += p.Length
	}
	if l.Kind == api.TaskKind_TASK_KIND_REDUCE {
		bytes = int64(l.Maps) * 100
	}
	if d.swell > 0 {
		bytes = int64(float64(bytes) * d.swell)
	}
	if d.others+d.sum()+bytes > d.total {
		d.failed++
		return &api.Failure{Kind: api.FailureKind_FAILURE_KIND_RESOURCE, Disk: true, Message: "no space left on device"}
	}
	d.ours[l.Attempt] = bytes
	d.most = max(d.most, d.sum())
	return nil
}

// give removes an attempt's bytes, or everybody's.
func (d *disk) give(l *api.Lease) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l == nil {
		d.ours = map[string]int64{}
		return
	}
	delete(d.ours, l.Attempt)
}

// joinDisk adds a worker that says twice a second what is free.
func (w *world) joinDisk(id, role string, slots int, total int64) *worker {
	k := w.join(id, role, slots)
	k.mu.Lock()
	k.disk = &disk{total: total, ours: map[string]int64{}}
	k.mu.Unlock()
	k.beats()
	return k
}

// submitBig logs a job over maps splits of so many bytes.
func (w *world) submitBig(maps, reduces int, split int64) {
	w.submit(maps, reduces, func(_ *state.Job, s *api.JobSpec) {
		s.SplitSize = split
		w.put("in/text", strings.Repeat(strings.Repeat("x", 1023)+"\n", int(int64(maps)*split/1024)))
	})
}

func TestANodeWithoutRoomGetsNothingAndTheJobGoesOnElsewhere(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		small := w.joinDisk("i-a", state.RoleCore, 2, 100*mib)
		small.disk.fill(88 * mib) // 12 free, of which 10 are kept free
		w.joinDisk("i-b", state.RoleCore, 1, 10_000*mib)
		w.lead()
		w.submitBig(6, 2, 2*mib)
		w.until("it runs on the other", func() bool { return w.leader.RunningOn("i-b") > 0 })
		require.Equal(t, "disk full: 12 MiB free of 100 MiB, 10 MiB of it kept free; a task needs 3 MiB", w.leader.Reason("i-a"))
		require.Empty(t, w.leader.Reason("i-b"))
		w.await()
		w.committed()
		require.Zero(t, w.job().Failed)
		require.Zero(t, w.job().Killed)
		require.Zero(t, small.disk.failed, "nothing was tried there")
		require.Empty(t, w.leader.Reason("i-a"), "nothing waits, and there is more than the reserve")
		small.disk.fill(95 * mib)
		w.until("it says so without a job, too", func() bool { return w.leader.Reason("i-a") != "" })
		require.Equal(t, "disk full: 5 MiB free of 100 MiB, 10 MiB of it kept free", w.leader.Reason("i-a"))
	})
}

func TestAllDisksFull(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.joinDisk("i-a", state.RoleCore, 1, 100*mib), w.joinDisk("i-b", state.RoleCore, 1, 100*mib)
		a.disk.fill(95 * mib)
		b.disk.fill(99 * mib)
		w.lead()
		w.submitBig(4, 1, 2*mib)
		said := func() string { l, _ := w.leader.Live(testJob); return l.NoRoom }
		w.until("it says what it waits for", func() bool { return said() != "" })
		require.Equal(t, "no node has room on its disk for the tasks that wait: "+
			"i-a: disk full: 5 MiB free of 100 MiB, 10 MiB of it kept free; a task needs 3 MiB; "+
			"i-b: disk full: 1 MiB free of 100 MiB, 10 MiB of it kept free; a task needs 3 MiB", said())
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Empty(t, a.starts())
		require.Empty(t, b.starts())
		require.Equal(t, state.JobRunning, w.job().State)
		b.disk.fill(20 * mib)
		w.await()
		w.committed()
		require.Zero(t, w.job().Failed+w.job().Killed+w.job().Lost)
		require.Empty(t, a.starts())
	})
}

// Leases are given for what is there, not for what was there when the node last spoke.
func TestDiskIsReservedWithTheLease(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.joinDisk("i-a", state.RoleCore, 8, 100*mib)
		a.disk.fill(81 * mib) // room for nine, less the reserve of ten
		a.at(10 * time.Second)
		w.lead()
		w.submitBig(8, 1, 3*mib)
		w.until("two run", func() bool { return w.leader.RunningOn("i-a") == 2 })
		time.Sleep(5 * time.Second)
		require.Equal(t, 2, w.leader.RunningOn("i-a"), "each needs four")
		require.Contains(t, w.leader.Reason("i-a"), "8 MiB promised to running tasks; a task needs 4 MiB")
		a.disk.fill(0)
		w.await()
		w.committed()
		require.Zero(t, w.job().Killed)
	})
}

func TestNodesOfOneMachineShareItsDisk(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		shared := &disk{total: 100 * mib, others: 81 * mib, volume: "v", ours: map[string]int64{}}
		var all []*worker
		for _, id := range []string{"i-a", "i-b", "i-c", "i-d"} {
			k := w.joinDisk(id, state.RoleCore, 1, 0)
			k.disk = shared
			k.at(10 * time.Second)
			all = append(all, k)
		}
		w.lead()
		w.submitBig(4, 1, 3*mib)
		time.Sleep(5 * time.Second)
		running := 0
		for _, k := range all {
			running += w.leader.RunningOn(k.id)
		}
		require.Equal(t, 2, running)
		shared.fill(0)
		w.await()
		w.committed()
	})
}

// An estimate that is too small costs attempts, which do not count, and is mended; one that is too big costs time.
func TestEstimatesAreMended(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.joinDisk("i-a", state.RoleCore, 1, 100*mib)
		a.disk.fill(80 * mib)
		a.disk.swell = 6
		b := w.joinDisk("i-b", state.RoleCore, 1, 1000*mib)
		b.disk.swell = 6
		w.lead()
		w.submitBig(8, 1, 4*mib)
		w.await()
		w.committed()
		require.Zero(t, w.job().Failed)
		require.LessOrEqual(t, w.job().Killed, 3)
		require.Equal(t, w.job().Killed, a.disk.failed)
	})
	inWorld(t, func(t *testing.T, w *world) {
		a := w.joinDisk("i-a", state.RoleCore, 1, 100*mib)
		a.disk.fill(80 * mib) // ten of room; the split is taken to need seventeen
		a.disk.swell = 0.1
		w.lead()
		w.submitBig(2, 1, 16*mib)
		w.await()
		w.committed()
		require.Zero(t, w.job().Failed+w.job().Killed)
	})
}

// A task that needs more than any node has is not tried for ever, and the cause is named.
func TestATaskThatNoDiskIsBigEnoughFor(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.joinDisk("i-a", state.RoleCore, 1, 100*mib), w.joinDisk("i-b", state.RoleCore, 1, 80*mib)
		a.disk.swell, b.disk.swell = 100, 100
		w.lead()
		w.submitBig(1, 1, 4*mib)
		w.await()
		w.nothing(state.JobFailed)
		require.Zero(t, w.job().Failed)
		require.Equal(t, maxStarved, a.disk.failed+b.disk.failed)
		require.Equal(t, "task m-00000 found no node with what it needs, 8 times; the last one said: no space left on device", w.job().Reason)
		require.NotEmpty(t, w.job().Failure.Node)
	})
}

func TestATaskNodesSegmentNeedsRoomOnACoreNode(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		full := w.joinDisk("i-a", state.RoleCore, 1, 100*mib)
		full.disk.fill(95 * mib)
		roomy := w.joinDisk("i-b", state.RoleCore, 1, 1000*mib)
		roomy.at(time.Hour)
		w.joinDisk("i-t", state.RoleTask, 2, 1000*mib)
		w.lead()
		w.submitBig(4, 1, 2*mib)
		w.until("the task node's maps are done", func() bool { return w.job().MapsDone >= 2 })
		for _, task := range w.log.View().Tasks(testJob, state.Map) {
			if task.Done {
				require.Equal(t, "i-b", task.Win.SegmentNode)
			}
		}
	})
}

// Any other shortage sets the node aside, each time for longer; a success ends that.
func TestANodeThatIsOutOfSomethingIsSetAside(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.join("i-a", state.RoleCore, 2), w.join("i-b", state.RoleCore, 1)
		b.at(3 * time.Second)
		var out atomic.Bool
		out.Store(true)
		a.play = func(l *api.Lease) *api.Failure {
			if isMap(l) && out.Load() {
				return &api.Failure{Kind: api.FailureKind_FAILURE_KIND_RESOURCE, Message: "too many open files"}
			}
			return nil
		}
		w.lead()
		w.submit(8, 1, nil)
		w.until("it is set aside", func() bool { return w.leader.Reason("i-a") != "" })
		require.Equal(t, "set aside for 2s: too many open files", w.leader.Reason("i-a"))
		time.Sleep(8 * time.Second)
		out.Store(false)
		w.await()
		w.committed()
		require.Zero(t, w.job().Failed)
		require.LessOrEqual(t, w.job().Killed, 16, "two at once and two prefetched, at 0, 2 and 6 s")
		require.Empty(t, w.leader.Reason("i-a"))
	})
}

func TestANodeThatSaysItIsIllGetsNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 2)
		a.ill = "its directory is gone"
		b := w.join("i-b", state.RoleCore, 1)
		w.lead()
		w.submit(4, 1, nil)
		w.await()
		w.committed()
		require.Empty(t, a.starts())
		require.NotEmpty(t, b.starts())
		require.Equal(t, "its directory is gone", w.leader.Reason("i-a"))
		a.mu.Lock()
		a.ill = ""
		a.mu.Unlock()
		a.beat()
		w.until("it is well again", func() bool { return w.leader.Reason("i-a") == "" })
	})
}

// TestDisksOfAnySize: whatever the disks and however wrong the estimates, a job whose tasks fit some node
// completes, without a failed attempt; and nothing of it stays promised.
func TestDisksOfAnySize(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		inWorld(t, func(t *testing.T, w *world) {
			swell := rapid.Float64Range(0.05, 4).Draw(rt, "swell")
			for i := range rapid.IntRange(1, 4).Draw(rt, "nodes") {
				role := state.RoleCore
				if i > 0 && rapid.Bool().Draw(rt, "task node") {
					role = state.RoleTask
				}
				k := w.joinDisk(fmt.Sprintf("i-%c", 'a'+i), role, rapid.IntRange(1, 3).Draw(rt, "slots"), 100*mib)
				k.disk.swell = swell
				k.disk.fill(rapid.Int64Range(0, 120).Draw(rt, "full") * mib)
				if i == 0 {
					k.disk.total, k.disk.others = 1000*mib, 0
				}
			}
			w.lead()
			w.submitBig(rapid.IntRange(1, 6).Draw(rt, "maps"), 2, mib)
			w.await()
			w.committed()
			require.Zero(t, w.job().Failed, w.job().Reason)
			w.leader.ask(func() {
				for id, v := range w.leader.volumes {
					require.Zero(t, v.reserved, id)
				}
			})
		})
	})
}

// A task node has all the room there is, and the core node has none for what maps would write: that is said, and
// the job waits. Where only the estimate is too big for it, the job goes on.
func TestATaskNodeWaitsForRoomOnACoreNode(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		core := w.joinDisk("i-a", state.RoleCore, 1, 100*mib)
		core.disk.fill(95 * mib)
		w.joinDisk("i-t", state.RoleTask, 2, 1000*mib)
		w.lead()
		w.submitBig(4, 1, 2*mib)
		said := func() string { l, _ := w.leader.Live(testJob); return l.NoRoom }
		w.until("it says what it waits for", func() bool { return said() != "" })
		require.Equal(t, "no node has room on its disk for the tasks that wait: "+
			"i-a: disk full: 5 MiB free of 100 MiB, 10 MiB of it kept free; a task needs 3 MiB", said())
		core.disk.fill(0)
		w.await()
		w.committed()
	})
	inWorld(t, func(t *testing.T, w *world) {
		core := w.joinDisk("i-a", state.RoleCore, 1, 100*mib)
		core.disk.fill(80 * mib) // ten of room; the split is taken to need seventeen
		for _, k := range []*worker{core, w.joinDisk("i-t", state.RoleTask, 2, 1000*mib)} {
			k.disk.swell = 0.1
		}
		w.lead()
		w.submitBig(2, 1, 16*mib)
		w.await()
		w.committed()
	})
}

// Attempts that a new leader takes over hold the disk that their leases held.
func TestDiskIsReservedForAttemptsThatAreTakenOver(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.joinDisk("i-a", state.RoleCore, 2, 1000*mib)
		b := w.joinDisk("i-t", state.RoleTask, 2, 1000*mib)
		a.at(time.Minute)
		b.at(time.Minute)
		w.lead()
		w.submitBig(4, 1, 3*mib)
		reserved := func() (all [2]int64) {
			w.leader.ask(func() {
				for i, id := range []string{"i-a", "i-t"} {
					if n := w.leader.nodes[id]; n != nil {
						all[i] = n.volume.reserved
					}
				}
			})
			return all
		}
		w.until("all maps run", func() bool { return w.leader.RunningOn("i-a")+w.leader.RunningOn("i-t") == 4 })
		before := reserved()
		require.Equal(t, [2]int64{16 * mib, 8 * mib}, before, "the core node keeps what the task node writes")
		w.depose()
		w.lead()
		w.until("they are taken over", func() bool { return w.leader.RunningOn("i-a")+w.leader.RunningOn("i-t") == 4 && reserved() == before })
		w.await()
		w.committed()
		require.Zero(t, reserved())
	})
}

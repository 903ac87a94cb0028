package tracker

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/pkg/api"
)

// first says whether an attempt is the first one at its task.
func first(l *api.Lease) bool { return l.Number == 1 }

// A straggler gets a second attempt elsewhere, of whatever kind it is. One of the two wins, the other is
// killed, and counts as no failure.
func TestAStragglerGetsASecondAttempt(t *testing.T) {
	for name, kind := range map[string]struct {
		maps, reduces int
		straggles     func(l *api.Lease) bool
	}{
		"a map":                {8, 2, func(l *api.Lease) bool { return isMap(l) && l.Index == 5 && first(l) }},
		"a reduce":             {4, 6, func(l *api.Lease) bool { return !isMap(l) && l.Index == 3 && first(l) }},
		"a map of its own job": {8, 0, func(l *api.Lease) bool { return l.Index == 2 && first(l) }},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				for i := range 2 {
					k := w.join(fmt.Sprintf("i-%d", i), state.RoleCore, 3)
					k.at(500 * time.Millisecond)
					k.hang = kind.straggles
					k.beats()
				}
				w.lead()
				began := time.Now()
				w.submit(kind.maps, kind.reduces, nil)
				w.await()
				w.committed()
				j := w.job()
				require.Equal(t, 1, j.Speculative, "it is counted")
				require.Equal(t, 1, j.Killed, "the straggler is ended")
				require.Zero(t, j.Failed)
				require.Zero(t, j.Lost)
				require.Less(t, time.Since(began), 30*time.Second, "of virtual time")
			})
		})
	}
}

// The reduces that wait for a straggling map hold all slots of the other node: one of them yields.
func TestAReduceYieldsToAStragglersSecondAttempt(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for i := range 2 {
			k := w.join(fmt.Sprintf("i-%d", i), state.RoleCore, 2)
			k.at(500 * time.Millisecond)
			k.hang = func(l *api.Lease) bool { return isMap(l) && l.Index == 5 && first(l) }
			k.beats()
		}
		w.lead()
		began := time.Now()
		w.submit(8, 6, nil)
		w.await()
		w.committed()
		require.Equal(t, 1, w.job().Speculative)
		require.Zero(t, w.job().Failed)
		require.Zero(t, w.job().Lost)
		require.LessOrEqual(t, w.job().Killed, 4, "the straggler, and a reduce or two")
		require.Less(t, time.Since(began), 30*time.Second, "of virtual time")
	})
}

// The straggler may win after all: then the second one is killed.
func TestAStragglerMayWin(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for i := range 2 {
			k := w.join(fmt.Sprintf("i-%d", i), state.RoleCore, 3)
			k.at(500 * time.Millisecond)
			k.play = func(l *api.Lease) *api.Failure {
				if isMap(l) && l.Index == 5 && first(l) {
					time.Sleep(8 * time.Second)
				}
				return nil
			}
			k.hang = func(l *api.Lease) bool { return isMap(l) && l.Index == 5 && !first(l) }
			k.beats()
		}
		w.lead()
		w.submit(8, 2, nil)
		w.await()
		w.committed()
		require.Equal(t, 1, w.job().Speculative)
		require.Equal(t, 1, w.job().Killed)
		require.Zero(t, w.job().Failed)
	})
}

// Without another node, without a free slot, where the job says no, or where a task is as slow as its input is
// large, nothing is tried twice.
func TestWhatIsNoStraggler(t *testing.T) {
	slow := func(l *api.Lease) *api.Failure {
		if isMap(l) && l.Index == 5 {
			time.Sleep(20 * time.Second)
		}
		return nil
	}
	for name, c := range map[string]struct {
		nodes  int
		change func(*state.Job, *api.JobSpec)
	}{
		"one node": {1, nil},
		"off": {2, func(_ *state.Job, s *api.JobSpec) {
			s.Program.Properties = map[string]string{"mapreduce.map.speculative": "false"}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				for i := range c.nodes {
					k := w.join(fmt.Sprintf("i-%d", i), state.RoleCore, 8)
					k.at(500 * time.Millisecond)
					k.play = slow
					k.beats()
				}
				w.lead()
				w.submit(8, 1, c.change)
				w.await()
				w.committed()
				require.Zero(t, w.job().Speculative)
				require.Zero(t, w.job().Killed)
			})
		})
	}
	t.Run("a large one", func(t *testing.T) {
		j := &job{rec: &state.Job{}, speeds: map[string][]float64{}}
		now := time.Now()
		a := &attempt{job: j, task: &task{id: state.TaskID{Kind: state.Map}, bytes: 1000}, began: now.Add(-9 * time.Second), moved: now, bytes: 900}
		_, is := j.straggler(a, 100, now)
		require.False(t, is, "a thousand bytes take ten seconds")
		_, is = j.straggler(a, 1000, now)
		require.False(t, is, "it needs one more second, and so would another")
		a.bytes = 100
		left, is := j.straggler(a, 1000, now)
		require.True(t, is)
		require.Equal(t, 81*time.Second, left)
	})
}

// So many at once as a tenth of the job's tasks, not more.
func TestOneInTenHasASecondAttempt(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for i := range 3 {
			k := w.join(fmt.Sprintf("i-%d", i), state.RoleCore, 20)
			k.at(200 * time.Millisecond)
			k.hang = func(l *api.Lease) bool { return isMap(l) && l.Index%2 == 1 && first(l) }
			k.beats()
		}
		w.lead()
		w.submit(40, 1, nil)
		most := 0
		w.until("all are done", func() bool {
			live, ok := w.leader.Live(testJob)
			if !ok {
				return true
			}
			tries := map[state.TaskID]int{}
			for _, a := range live.Attempts {
				tries[a.Task]++
			}
			twice := 0
			for _, n := range tries {
				if n > 1 {
					twice++
				}
			}
			most = max(most, twice)
			return w.job().Ended()
		})
		w.committed()
		require.LessOrEqual(t, most, 4)
		require.Positive(t, most)
		require.Equal(t, 20, w.job().Speculative)
		require.Zero(t, w.job().Failed)
	})
}

// An upload made for a second attempt that found no slot for hours is not given to one: another is made.
func TestAStragglersUploadOfHoursAgo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for i := range 3 {
			k := w.join(fmt.Sprintf("i-%d", i), state.RoleCore, 3)
			k.at(500 * time.Millisecond)
			k.hang = func(l *api.Lease) bool { return !isMap(l) && l.Index == 3 && first(l) }
			k.beats()
		}
		w.lead()
		w.submit(4, 6, nil)
		aged := false
		w.until("the upload for a second attempt is there", func() bool {
			w.leader.ask(func() {
				if j := w.leader.jobs[testJob]; j != nil && len(j.reduces) > 3 && j.reduces[3].straggles && j.reduces[3].uploaded() {
					j.reduces[3].spare.made = time.Now().Add(-staleUpload)
					aged = true
				}
			})
			return aged || w.job().Ended()
		})
		require.True(t, aged)
		w.await()
		w.committed()
		require.Equal(t, 1, w.job().Speculative)
	})
}

// latch holds the attempts at map 2, by their number, until they are let go; a kill does not reach them.
type latch map[int32]chan struct{}

// straggling begins a job of maps alone in which map 2 straggles.
func (w *world) straggling(held latch) {
	w.t.Helper()
	for i := range 2 {
		k := w.join(fmt.Sprintf("i-%d", i), state.RoleCore, 3)
		k.at(500 * time.Millisecond)
		k.play = func(l *api.Lease) *api.Failure {
			if free := held[l.Number]; free != nil && l.Index == 2 {
				select {
				case <-free:
				case <-k.done:
				}
			}
			return nil
		}
		k.beats()
	}
	w.lead()
	w.submit(8, 0, nil)
}

// twice runs that job up to where map 2 has its second attempt.
func (w *world) twice(held latch) {
	w.t.Helper()
	w.straggling(held)
	w.until("map 2 is tried twice", func() bool {
		live, _ := w.leader.Live(testJob)
		return len(live.Attempts) == 2 && live.Attempts[0].Task == live.Attempts[1].Task
	})
}

// oneLoser checks what the record of that job tells: one of the two attempts has won, the other was killed.
func (w *world) oneLoser(why string) {
	w.t.Helper()
	w.committed()
	require.Equal(w.t, 1, w.job().Speculative)
	require.Equal(w.t, 1, w.job().Killed)
	require.Zero(w.t, w.job().Failed+w.job().Lost)
	task, _ := w.log.View().Task(testJob, state.TaskID{Kind: state.Map, Index: 2})
	require.Len(w.t, task.Ended, 1)
	require.Equal(w.t, state.AttemptKilled, task.Ended[0].State)
	require.Contains(w.t, task.Ended[0].Failure.Message, why)
}

// A job does not wait for the loser of its last task; its record tells of it all the same.
func TestALoserThatDoesNotAnswer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		began := time.Now()
		w.twice(latch{1: make(chan struct{})})
		w.await()
		w.oneLoser("another attempt was faster")
		require.Less(t, time.Since(began), w.leader.cfg.KillPatience, "of virtual time")
	})
}

// A loser whose end is on its way into the log when the job's own end comes is counted once.
func TestALoserThatReportsWhileItsJobEnds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		held, putting, put := latch{1: make(chan struct{})}, make(chan struct{}), make(chan struct{})
		w.mem.Fault = func(op, _, key string) error {
			if op == "Put" && key == "out/_SUCCESS" {
				close(putting)
				<-put
			}
			return nil
		}
		w.twice(held)
		<-putting
		w.together(func() { close(held[1]) }, func() { close(put) })
		w.await()
		w.oneLoser("no such upload")
	})
}

// Where both attempts end at once, the log has one of them win; the other one counts as what it is, too.
func TestAStragglerAndItsSecondAttemptEndAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		held := latch{1: make(chan struct{}), 2: make(chan struct{})}
		w.twice(held)
		time.Sleep(time.Second) // both have got as far as that
		w.together(func() { close(held[1]) }, func() { close(held[2]) })
		w.await()
		w.oneLoser(state.RefusedOtherWon)
	})
}

// The straggler ends while the upload for its second attempt is being made: the commit waits for that, and aborts it.
func TestAStragglerEndsWhileItsSecondUploadIsMade(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		held, making, made := latch{1: make(chan struct{})}, make(chan struct{}), make(chan struct{})
		var uploads atomic.Int32
		w.mem.Fault = func(op, _, key string) error {
			if op == "CreateUpload" && key == "out/part-m-00002" && uploads.Add(1) == 2 {
				close(making)
				<-made
			}
			return nil
		}
		w.straggling(held)
		<-making
		close(held[1])
		w.until("all maps have ended", func() bool { return w.job().MapsDone == 8 })
		time.Sleep(time.Minute) // of virtual time
		early := w.job().Ended()
		close(made)
		require.False(t, early)
		w.await()
		w.committed()
		require.Zero(t, w.job().Speculative)
	})
}

// together has the leader learn in one go what the steps lead to, in their order.
func (w *world) together(steps ...func()) {
	learn := make(chan struct{})
	w.leader.post(func() { <-learn })
	for _, step := range steps {
		step()
		synctest.Wait()
	}
	close(learn)
}

package tracker

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// setting is a job that the deaths of leaders are tried on.
type setting struct {
	maps, reduces int
	change        func(*state.Job, *api.JobSpec)
	prepare       func(w *world)
	play          func(l *api.Lease) *api.Failure
	during        func(w *world) // runs beside the job
	check         func(w *world)
}

func settings() map[string]setting {
	committed := func(w *world) { w.committed() }
	failing := func(kind api.TaskKind, index int32) func(l *api.Lease) *api.Failure {
		return func(l *api.Lease) *api.Failure {
			if l.Kind == kind && l.Index == index {
				return &api.Failure{Kind: api.FailureKind_FAILURE_KIND_PROGRAM, Message: "exit status 3", ExitCode: 3}
			}
			return nil
		}
	}
	cancel := func(after time.Duration) func(w *world) {
		return func(w *world) {
			time.Sleep(after)
			w.mu.Lock()
			w.index++
			_, err := w.log.Apply(w.index, state.CancelJob{Job: testJob, Reason: "test"})
			l := w.leader
			w.mu.Unlock()
			if err == nil && l != nil {
				l.Cancelled(testJob)
			}
		}
	}
	all := func(w *world) {
		if w.job().State == state.JobCompleted {
			w.committed()
		} else {
			w.nothing(state.JobCancelled)
		}
	}
	return filesSettings(map[string]setting{
		"map and reduce": {maps: 5, reduces: 2, check: committed},
		"map only":       {maps: 6, reduces: 0, check: committed},
		"overwrite": {maps: 3, reduces: 2, change: func(j *state.Job, _ *api.JobSpec) { j.Overwrite = true },
			prepare: func(w *world) {
				w.put("out/_SUCCESS", "old")
				w.put("out/part-r-00001", "old")
				w.put("out/part-r-00002", "old")
			}, check: committed},
		"a failing reduce": {maps: 2, reduces: 2, play: failing(api.TaskKind_TASK_KIND_REDUCE, 1),
			check: func(w *world) { w.nothing(state.JobFailed) }},
		"a failing map": {maps: 3, reduces: 0, play: failing(api.TaskKind_TASK_KIND_MAP, 1),
			check: func(w *world) { w.nothing(state.JobFailed) }},
		"cancelled while mapping":  {maps: 8, reduces: 2, during: cancel(30 * time.Millisecond), check: all},
		"cancelled while reducing": {maps: 2, reduces: 3, during: cancel(45 * time.Millisecond), check: all},
		"cancelled while planning": {maps: 2, reduces: 3, during: cancel(0), check: all},
	})
}

// play runs a setting with the given deaths and gives the number of operations.
func (s setting) run(t *testing.T, arm func(w *world)) (ops int) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		for _, k := range []*worker{w.join("i-a", state.RoleCore, 2), w.join("i-b", state.RoleTask, 2)} {
			k.play = s.play
		}
		if s.prepare != nil {
			s.prepare(w)
		}
		arm(w)
		w.lead()
		w.submit(s.maps, s.reduces, s.change)
		if s.during != nil {
			over := make(chan struct{})
			go func() { defer close(over); s.during(w) }()
			defer func() { <-over }()
		}
		w.await()
		s.check(w)
		ops = w.ops
	})
	return ops
}

// The leader dies at every entry and at every request to the store in turn,
// before it was carried out and after it was, and another one follows: the
// output is there whole, or nothing is, and nothing else is left.
func TestLeaderDiesAnywhere(t *testing.T) {
	for name, s := range settings() {
		t.Run(name, func(t *testing.T) {
			total := s.run(t, func(*world) {})
			for k := 1; k <= total; k++ {
				t.Run(fmt.Sprintf("before %d", k), func(t *testing.T) {
					s.run(t, func(w *world) { w.before = func(op int, _ string) bool { return op == k } })
				})
				t.Run(fmt.Sprintf("after %d", k), func(t *testing.T) {
					s.run(t, func(w *world) { w.after = func(op int, _ string) bool { return op == k } })
				})
			}
		})
	}
}

// Every leader dies after a few operations; the job still gets there.
func TestLeadersKeepDying(t *testing.T) {
	for name, s := range settings() {
		for _, every := range []int{12, 13, 17, 23} {
			t.Run(fmt.Sprintf("%s, every %d", name, every), func(t *testing.T) {
				s.run(t, func(w *world) {
					left := every
					w.after = func(op int, what string) bool {
						// Reading is no progress: with few operations a leader, it would never end.
						if what == "List" || what == "Head" || what == "Get" || what == "ListUploads" || what == "ListParts" || what == "AbortUpload" {
							return false
						}
						left--
						if left == 0 {
							left = every
							return true
						}
						return false
					}
				})
			})
		}
	}
}

// The store's answers get lost on the way: what was asked was done all the same.
func TestLostAnswers(t *testing.T) {
	for name, s := range settings() {
		t.Run(name, func(t *testing.T) {
			s.run(t, func(w *world) {
				n := 0
				w.mem.Lost = func(op, bucket, key string) error {
					if op == "UploadPart" || op == "MakeBucket" {
						return nil
					}
					if j, ok := w.log.View().Job(testJob); ok && j.Ended() {
						return nil
					}
					w.mu.Lock()
					defer w.mu.Unlock()
					if n++; n%3 == 0 {
						return fmt.Errorf("%s: %w", op, objectstore.ErrUnreachable)
					}
					return nil
				}
			})
		})
	}
}

// … and what block stores are asked for.
func TestLostAnswersOfFiles(t *testing.T) {
	for name, s := range settings() {
		t.Run(name, func(t *testing.T) {
			s.run(t, func(w *world) {
				n := 0
				w.mute = func(string) bool { // a commit takes six steps
					w.mu.Lock()
					defer w.mu.Unlock()
					n++
					return n%7 == 0
				}
			})
		})
	}
}

func TestRunEndsWithTheLog(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.join("i-a", state.RoleCore, 2)
		w.before = func(_ int, name string) bool { return name == "PlanJob" }
		w.lead()
		w.submit(2, 1, nil)
		l := w.leader
		err := <-l.over
		// The leader's own end was asked for at the same moment: nil; else the log's error.
		if err != nil {
			require.ErrorIs(t, err, errDied)
		}
		_, ok := l.Live(testJob)
		require.False(t, ok, "a leader that is over knows nothing")
		l.over <- err
		require.NotPanics(t, func() { l.Submitted(testJob); l.Up("i-a", &api.WorkerHello{}) })
	})
}

// Attempts that run on while the leader changes are not started again.
func TestAttemptsOutliveTheirLeader(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 2)
		b := w.join("i-b", state.RoleCore, 2)
		a.at(10 * time.Second)
		b.at(10 * time.Second)
		w.lead()
		w.submit(4, 2, nil)
		w.until("all maps run", func() bool { return w.leader.RunningOn("i-a")+w.leader.RunningOn("i-b") == 4 })
		w.depose()
		w.lead()
		w.until("they are taken over", func() bool { l, _ := w.leader.Live(testJob); return l.Maps.Running == 4 })
		w.await()
		w.committed()
		require.Zero(t, w.job().Lost+w.job().Killed+w.job().Failed)
		require.Len(t, slicesOf(a.starts(), b.starts()), 6)
	})
}

// A report that no leader has heard is taken by the next one.
func TestReportsOutliveTheirLeader(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 4)
		a.at(time.Second)
		w.lead()
		w.submit(4, 1, nil)
		w.until("the maps run", func() bool { return w.leader.RunningOn("i-a") == 4 })
		w.depose()
		time.Sleep(5 * time.Second) // they end while nobody leads
		w.lead()
		w.await()
		w.committed()
		require.Len(t, a.starts(), 5)
	})
}

// Reports take their time after the hello: what they are about is not run again meanwhile.
func TestReportsAreAwaited(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 4)
		a.at(time.Second)
		w.lead()
		w.submit(4, 1, nil)
		w.until("the maps run", func() bool { return w.leader.RunningOn("i-a") == 4 })
		w.depose()
		time.Sleep(5 * time.Second)
		a.late = 400 * time.Millisecond
		w.lead()
		w.await()
		w.committed()
		require.Len(t, a.starts(), 5)
	})
}

// The plan lies in the system prefix, wherever that is, and its key in the log is relative to it.
func TestPlanLiesInTheSystemPrefix(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.prefix = "deep/down/"
		w.join("i-a", state.RoleCore, 1).at(time.Second)
		w.lead()
		w.submit(2, 1, nil)
		w.until("it is planned", func() bool { return w.job().Planned() })
		require.Regexp(t, "^plans/"+testJob+"-.*[.]plan$", w.job().PlanKey)
		_, err := w.mem.Head(t.Context(), "system", w.prefix+w.job().PlanKey)
		require.NoError(t, err)
		w.depose()
		w.lead() // and reads it
		w.await()
		w.committed()
	})
}

// What may still run on a node that has not come back is not handed out before it has had the time to: a lease, and somewhat more if it
// is alive.
func TestNewLeaderWaitsForTheLease(t *testing.T) {
	for alive, atLeast := range map[bool]time.Duration{true: session.ReturnWithin, false: session.DefaultLease} {
		t.Run(fmt.Sprint("alive ", alive), func(t *testing.T) { waitsForTheLease(t, alive, atLeast) })
	}
}

func waitsForTheLease(t *testing.T, alive bool, atLeast time.Duration) {
	inWorld(t, func(t *testing.T, w *world) {
		w.dead = map[string]bool{"i-a": !alive}
		a := w.join("i-a", state.RoleCore, 2)
		b := w.join("i-b", state.RoleCore, 2)
		a.at(time.Hour)
		b.at(20 * time.Millisecond)
		w.lead()
		w.submit(2, 1, nil)
		w.until("both run", func() bool { return w.leader.RunningOn("i-a") > 0 })
		w.depose()
		a.cut()
		w.lead()
		start := time.Now()
		w.await()
		w.committed()
		require.GreaterOrEqual(t, time.Since(start), atLeast)
		require.Less(t, time.Since(start), atLeast+time.Second)
	})
}

func slicesOf(lists ...[]string) (all []string) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// A _SUCCESS that is there is not taken away again because its leader died before
// the log had the end: readers may have seen it.
func TestCommitIsNotTakenBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.join("i-a", state.RoleCore, 2)
		died := false
		w.before = func(_ int, name string) bool {
			dies := name == "CompleteJob" && !died
			died = died || dies
			return dies
		}
		w.lead()
		w.submit(2, 2, func(j *state.Job, _ *api.JobSpec) { j.Overwrite = true })
		w.until("the leader dies", func() bool { return w.leader.ctx.Err() != nil })
		w.depose()
		before := w.read("out/_SUCCESS")
		ops := len(w.names)
		w.lead()
		w.await()
		w.committed()
		require.Equal(t, before, w.read("out/_SUCCESS"))
		for _, name := range w.names[ops:] {
			require.NotContains(t, []string{"Delete", "DeleteIf", "Put", "CompleteUpload"}, name)
		}
	})
}

// An attempt that was given up as lost is lost for the next leader, too: its node comes back with it running, and
// nothing that it reports counts.
func TestALostAttemptIsLostForTheNextLeader(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 1)
		a.at(20 * time.Second)
		w.lead()
		w.submit(1, 1, nil)
		w.until("the map runs", func() bool { return w.leader.RunningOn("i-a") == 1 })
		lost := a.starts()[0]
		a.cut()
		w.leader.Down("i-a", "frozen")
		w.until("it is lost", func() bool { return w.job().Lost == 1 })
		w.depose()
		w.lead()
		a.reconnect()
		w.await()
		w.committed()
		for _, k := range w.log.View().Tasks(testJob, state.Map) {
			require.NotEqual(t, lost, k.Win.Attempt)
		}
	})
}

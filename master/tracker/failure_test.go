package tracker

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

func isMap(l *api.Lease) bool { return l.Kind == api.TaskKind_TASK_KIND_MAP }

func program(message string) *api.Failure {
	return &api.Failure{Kind: api.FailureKind_FAILURE_KIND_PROGRAM, Message: message, ExitCode: 3, Input: "s3://data/in/text", Offset: 10, StderrTail: "boom"}
}

func TestFailedAttemptIsTriedElsewhere(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 1)
		w.join("i-b", state.RoleCore, 1)
		a.play = func(l *api.Lease) *api.Failure {
			if isMap(l) && l.Index == 0 {
				return program("exit status 3")
			}
			return nil
		}
		w.lead()
		w.submit(4, 1, nil)
		w.await()
		w.committed()
		require.LessOrEqual(t, w.job().Failed, 1, "the second try goes to another node")
	})
}

func TestJobFailsAfterItsAttempts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 1)
		a.play = func(l *api.Lease) *api.Failure {
			if isMap(l) && l.Index == 1 {
				return program("exit status 3")
			}
			return nil
		}
		w.lead()
		w.submit(3, 1, nil)
		j := w.await()
		w.nothing(state.JobFailed)
		require.Equal(t, 4, j.Failed)
		require.Equal(t, "task m-00001 failed 4 times: exit status 3", j.Reason)
		require.NotNil(t, j.Failure)
		f := *j.Failure
		require.True(t, strings.HasPrefix(f.Attempt, testJob+"-m-00001-1-"), f.Attempt)
		f.Attempt = ""
		require.Equal(t, state.Failure{Task: "m-00001", Node: "i-a", Message: "exit status 3", ExitCode: 3,
			Input: "s3://data/in/text", Offset: 10, StderrTail: "boom"}, f)
	})
}

// Damaged input is the same on every node: one more try, elsewhere, and the job fails.
func TestDamagedInputIsTriedTwice(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, id := range []string{"i-a", "i-b", "i-c"} {
			w.join(id, state.RoleCore, 1).play = func(l *api.Lease) *api.Failure {
				if isMap(l) && l.Index == 1 {
					return &api.Failure{Kind: api.FailureKind_FAILURE_KIND_INPUT, Message: "damaged", Input: "s3://data/in/text", Offset: 17}
				}
				return nil
			}
		}
		w.lead()
		w.submit(3, 1, nil)
		j := w.await()
		w.nothing(state.JobFailed)
		require.Equal(t, 2, j.Failed)
		require.Equal(t, "task m-00001 failed 2 times: damaged", j.Reason)
		require.Equal(t, "s3://data/in/text", j.Failure.Input)
		require.EqualValues(t, 17, j.Failure.Offset)
		task, _ := w.log.View().Task(testJob, state.TaskID{Kind: state.Map, Index: 1})
		require.NotEqual(t, task.Ended[0].Node, task.Ended[1].Node)
	})
}

// A slot that the job's own waiting reduce holds is none to wait for: a program that
// fails everywhere says so at once.
func TestFailingMapDoesNotWaitForItsOwnReduce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, id := range []string{"i-a", "i-b", "i-c"} {
			w.join(id, state.RoleCore, 1).play = func(l *api.Lease) *api.Failure {
				if isMap(l) {
					return program("exit status 7")
				}
				return nil
			}
		}
		w.lead()
		w.submit(1, 1, nil)
		began := time.Now()
		j := w.await()
		w.nothing(state.JobFailed)
		require.Equal(t, 4, j.Failed)
		require.Less(t, time.Since(began), choosyFor, "in the test's own time")
	})
}

func TestWorkerLost(t *testing.T) {
	for name, when := range map[string]state.TaskID{"while mapping": {Kind: state.Map}, "while reducing": {Kind: state.Reduce}} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.join("i-a", state.RoleCore, 2), w.join("i-b", state.RoleCore, 2)
				a.at(time.Second)
				b.at(time.Second)
				w.lead()
				w.submit(6, 2, nil)
				w.until("it runs there", func() bool {
					live, _ := w.leader.Live(testJob)
					for _, x := range live.Attempts {
						if x.Task.Kind == when.Kind && x.Node == "i-a" && x.Started {
							return true
						}
					}
					return false
				})
				a.die(false)
				w.leader.Down("i-a", "nothing heard within the lease")
				j := w.await()
				w.committed()
				require.NotZero(t, j.Lost)
				require.Zero(t, j.Failed)
			})
		})
	}
}

// A worker that is started again within the lease has its segments still: only
// what it was running is lost.
func TestWorkerRestartKeepsSegments(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.join("i-a", state.RoleCore, 2), w.join("i-b", state.RoleCore, 2)
		a.at(100 * time.Millisecond)
		b.at(100 * time.Millisecond)
		w.lead()
		w.submit(8, 2, nil)
		w.until("half of the maps are done", func() bool { return w.job().MapsDone >= 4 })
		maps := func() (n int) {
			for _, id := range slicesOf(a.starts(), b.starts()) {
				if strings.Contains(id, "-m-") {
					n++
				}
			}
			return n
		}
		a.die(true)
		time.Sleep(time.Second)
		a.reconnect()
		j := w.await()
		w.committed()
		require.LessOrEqual(t, j.Lost, 4, "only leases")
		require.LessOrEqual(t, maps(), 8+2, "only two maps ran there")
	})
}

func TestBrokenConnectionLosesNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 2)
		a.at(100 * time.Millisecond)
		w.lead()
		w.submit(6, 2, nil)
		for range 5 {
			time.Sleep(70 * time.Millisecond)
			a.cut()
			time.Sleep(200 * time.Millisecond)
			a.reconnect()
		}
		w.await()
		w.committed()
		require.Zero(t, w.job().Failed)
	})
}

func TestMissingAndDamagedSegments(t *testing.T) {
	for _, what := range []string{"missing", "damaged"} {
		t.Run(what, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a := w.join("i-a", state.RoleCore, 3)
				w.lead()
				a.spoil = what
				w.submit(4, 2, nil)
				w.await()
				w.committed()
				require.NotZero(t, w.job().Lost)
			})
		})
	}
}

// A reduce that finds a damaged segment while it merges ends; the map runs again.
func TestSegmentFailure(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.join("i-a", state.RoleCore, 2), w.join("i-b", state.RoleCore, 2)
		var once atomic.Bool
		bad := func(l *api.Lease) *api.Failure {
			if !isMap(l) && once.CompareAndSwap(false, true) {
				win, _ := w.log.View().Task(testJob, state.TaskID{Kind: state.Map, Index: 2})
				return &api.Failure{Kind: api.FailureKind_FAILURE_KIND_SEGMENT, Message: "corrupt", SegmentMap: 2, SegmentAttempt: win.Win.Attempt}
			}
			return nil
		}
		a.play, b.play = bad, bad
		w.lead()
		w.submit(3, 1, nil)
		j := w.await()
		w.committed()
		require.Equal(t, 1, j.Killed)
		require.Equal(t, 1, j.Lost, "the map's output")
		require.Zero(t, j.Failed)
	})
}

// A map that gives other bytes when it runs again.
func TestMapGivesOtherOutput(t *testing.T) {
	for name, c := range map[string]struct {
		done   int // reduces done before the map is lost
		always bool
		state  string
	}{
		"before any reduce is done": {0, false, state.JobCompleted},
		"after one is done":         {1, false, state.JobCompleted},
		"again and again":           {1, true, state.JobFailed},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := w.join("i-a", state.RoleCore, 4), w.join("i-b", state.RoleCore, 1)
				b.at(50 * time.Millisecond)
				a.at(50 * time.Millisecond)
				runs := 0
				other := func(l *api.Lease) uint64 {
					w.mu.Lock()
					defer w.mu.Unlock()
					if l.Index != 0 {
						return uint64(l.Index)
					}
					if runs++; c.always {
						return uint64(1000 + runs)
					}
					return uint64(1000 + min(runs, 2))
				}
				a.digest, b.digest = other, other
				slow := func(l *api.Lease) *api.Failure {
					if !isMap(l) && (l.Index > 0 || c.done == 0) {
						time.Sleep(time.Second)
					}
					return nil
				}
				a.play, b.play = slow, slow
				w.lead()
				w.submit(3, 2, nil)
				lose := func() {
					win, ok := w.log.View().Task(testJob, state.TaskID{Kind: state.Map, Index: 0})
					if !ok || !win.Done || w.job().Phase != state.PhaseReducing {
						return
					}
					w.leader.Message("i-b", &api.WorkerMessage{Message: &api.WorkerMessage_Problem{Problem: &api.SegmentProblem{
						Job: testJob, Map: 0, MapAttempt: win.Win.Attempt, SegmentNode: win.Win.SegmentNode, Reason: "missing",
					}}})
				}
				w.until("the reduces run", func() bool {
					j := w.job()
					live, _ := w.leader.Live(testJob)
					return j.MapsDone == 3 && j.ReducesDone == c.done && live.Reduces.Running > 0
				})
				lose()
				if c.always {
					w.until("they start over", func() bool { return w.job().ReduceRound == 1 })
					w.until("one is done again", func() bool { return w.job().ReducesDone == 1 })
					lose()
				}
				j := w.await()
				require.Equal(t, c.state, j.State, j.Reason)
				if c.state == state.JobCompleted {
					w.committed()
					require.Equal(t, c.done, j.ReduceRound)
				} else {
					w.nothing(state.JobFailed)
					require.Equal(t, "map 00000 gave different output when it ran again: the program is not deterministic", j.Reason)
				}
			})
		})
	}
}

// With one slot, a reduce that waits for a lost map must make room for it.
func TestReduceMakesRoomForMap(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 1)
		a.at(100 * time.Millisecond)
		w.lead()
		w.submit(2, 1, nil)
		w.until("the maps are done", func() bool { return w.job().MapsDone == 2 })
		a.mu.Lock()
		for id, s := range a.held {
			if s.Map == 1 {
				a.broken[id] = true
			}
		}
		a.mu.Unlock()
		w.await()
		w.committed()
		require.Equal(t, 1, a.most)
	})
}

func TestLedgerThatDoesNotBalance(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 2)
		a.short = true
		w.lead()
		w.submit(2, 1, nil)
		j := w.await()
		w.nothing(state.JobFailed)
		require.Contains(t, j.Reason, "ledger does not balance: maps wrote 3 records of 20 bytes")
		require.Contains(t, j.Reason, "reduces decoded 2 records of 20 bytes")
	})
}

func TestPlanFailures(t *testing.T) {
	t.Run("input vanished", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			w.lead()
			w.submit(2, 1, func(j *state.Job, _ *api.JobSpec) { j.Input = []string{"s3://data/nowhere/"} })
			require.Contains(t, w.await().Reason, "s3://data/nowhere/ matches nothing")
			w.nothing(state.JobFailed)
		})
	})
	t.Run("store away for a while", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			w.join("i-a", state.RoleCore, 2)
			var away atomic.Bool
			w.mem.Fault = func(op, _, _ string) error {
				if away.Load() {
					return fmt.Errorf("%s: %w", op, objectstore.ErrUnreachable)
				}
				return nil
			}
			w.lead()
			w.put("in/text", "x\n")
			w.submit(2, 1, func(*state.Job, *api.JobSpec) { away.Store(true) })
			w.until("it says so", func() bool {
				l, _ := w.leader.Live(testJob)
				return l.Planning && strings.Contains(l.Trouble, "unreachable") && l.StoreRetries > 0 && l.StoreTrouble != ""
			})
			time.Sleep(time.Minute)
			away.Store(false)
			w.await()
			w.committed()
			counted := func(c state.Counter) bool { return c.Name == state.CounterStoreRetries && c.Value >= 5 }
			require.True(t, slices.ContainsFunc(w.job().Counters, counted), "%v", w.job().Counters)
			require.Contains(t, w.job().StoreTrouble, "unreachable")
		})
	})
	t.Run("store away while uploads are begun", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			w.join("i-a", state.RoleCore, 2)
			var back atomic.Bool
			w.mem.Fault = func(op, _, _ string) error {
				if op == "CreateUpload" && !back.Load() {
					return fmt.Errorf("%s: %w", op, objectstore.ErrUnreachable)
				}
				return nil
			}
			w.lead()
			w.put("in/text", "x\n")
			w.submit(2, 1, nil)
			w.until("it says so, and counts", func() bool {
				l, _ := w.leader.Live(testJob)
				return l.StoreRetries > 5 && strings.Contains(l.Trouble, "unreachable") && strings.Contains(l.StoreTrouble, "unreachable")
			})
			back.Store(true)
			w.await()
			w.committed()
		})
	})
}

func TestCommitFailures(t *testing.T) {
	t.Run("uploads lost by the store", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			a := w.join("i-a", state.RoleCore, 2)
			var once atomic.Bool
			w.lead()
			w.before = func(_ int, name string) bool {
				if name == "BeginCommit" && once.CompareAndSwap(false, true) {
					task, _ := w.log.View().Task(testJob, state.TaskID{Kind: state.Reduce, Index: 1})
					_ = w.mem.AbortUpload(t.Context(), "data", "out/part-r-00001", task.Win.UploadID)
				}
				return false
			}
			w.submit(2, 2, nil)
			w.await()
			w.committed()
			require.Len(t, a.starts(), 2+2+1, "only that part is made again")
		})
	})
	t.Run("key refused", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			w.join("i-a", state.RoleCore, 2)
			w.mem.Fault = func(op, _, key string) error {
				if op == "Put" && key == "out/_SUCCESS" {
					return fmt.Errorf("put: %w", objectstore.ErrDenied)
				}
				return nil
			}
			w.lead()
			w.submit(2, 2, nil)
			j := w.await()
			require.Contains(t, j.Reason, "commit: put: access denied")
			w.nothing(state.JobFailed)
		})
	})
	t.Run("a name that the store takes for no upload", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			w.join("i-a", state.RoleCore, 2)
			w.mem.Fault = func(op, _, key string) error {
				if op == "CreateUpload" {
					return &objectstore.Error{Op: "start an upload", Kind: objectstore.ErrInvalid, Status: 400, Code: "KeyTooLongError"}
				}
				return nil
			}
			w.lead()
			w.submit(2, 2, nil)
			require.Contains(t, w.await().Reason, "start an upload to s3://data/out/: start an upload : refused by the store as invalid")
			w.nothing(state.JobFailed)
		})
	})
	t.Run("others' objects are left alone", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			w.join("i-a", state.RoleCore, 2)
			w.put("out/notes", "mine")
			w.lead()
			w.submit(2, 1, nil)
			w.await()
			w.committed("out/notes")
		})
	})
}

func TestTimeout(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 2)
		a.at(time.Hour)
		w.lead()
		w.submit(2, 1, func(_ *state.Job, s *api.JobSpec) { s.TimeoutMs = 90_000 })
		start := time.Now()
		j := w.await()
		w.nothing(state.JobCancelled)
		require.Equal(t, "timed out after 1m30s", j.Reason)
		require.InDelta(t, 90, time.Since(start).Seconds(), 1)
		require.Equal(t, 2, j.Killed)
	})
}

// A job whose time is over while it commits is past cancelling: its output may be seen already.
func TestTimeoutInMidCommit(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.join("i-a", state.RoleCore, 2)
		w.lead()
		start := time.Now()
		w.mem.Fault = func(op, _, key string) error {
			if op == "Put" && key == "out/_SUCCESS" && time.Since(start) < 100*time.Second {
				return fmt.Errorf("put: %w", objectstore.ErrUnreachable)
			}
			return nil
		}
		w.submit(2, 1, func(_ *state.Job, s *api.JobSpec) { s.TimeoutMs = 90_000 })
		w.await()
		w.committed()
		require.Greater(t, time.Since(start), 90*time.Second)
	})
}

// A worker that does not answer a kill holds the end up only so long.
func TestKillIsNotAnswered(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 2)
		a.at(time.Hour)
		w.lead()
		w.submit(2, 1, nil)
		w.until("they run", func() bool { return w.leader.RunningOn("i-a") == 2 })
		a.mu.Lock()
		a.mute = true
		a.mu.Unlock()
		w.must(state.CancelJob{Job: testJob, Reason: "enough"})
		w.leader.Cancelled(testJob)
		start := time.Now()
		w.await()
		w.nothing(state.JobCancelled)
		require.InDelta(t, 15, time.Since(start).Seconds(), 1)
	})
}

func TestCancelWaitsForTheAttempts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 2)
		a.at(time.Hour)
		w.lead()
		w.submit(2, 0, nil)
		w.until("they run", func() bool { return w.leader.RunningOn("i-a") == 2 })
		a.cut() // the kill cannot be said now
		w.must(state.CancelJob{Job: testJob, Reason: "enough"})
		w.leader.Cancelled(testJob)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Equal(t, state.JobCancelPending, w.job().State)
		a.reconnect()
		w.await()
		w.nothing(state.JobCancelled)
		require.Equal(t, 2, w.job().Killed)
	})
}

// An upload that the store drops under an attempt is no fault of the attempt, up to a point.
func TestUploadsThatTheStoreDrops(t *testing.T) {
	for name, test := range map[string]struct{ times, killed int }{"some": {3, 3}, "all": {1000, maxDropped}} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				var lost atomic.Int64
				w.join("i-a", state.RoleCore, 1).play = func(l *api.Lease) *api.Failure {
					if !isMap(l) && lost.Add(1) <= int64(test.times) {
						return &api.Failure{Kind: api.FailureKind_FAILURE_KIND_STORE, Message: "it is gone"}
					}
					return nil
				}
				w.lead()
				w.submit(2, 1, nil)
				w.await()
				require.Zero(t, w.job().Failed)
				require.Equal(t, test.killed, w.job().Killed)
				if name == "all" {
					require.Equal(t, state.JobFailed, w.job().State)
					require.Contains(t, w.job().Reason, "task r-00000 lost its unfinished upload 8 times")
					require.Contains(t, w.job().Reason, "it is gone")
					return
				}
				w.committed()
			})
		})
	}
}

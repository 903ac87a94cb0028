package tracker

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/pkg/api"
)

// A node on which tasks keep failing that others do is left alone for a while, with the reason, and tried again. One
// on which they fail as everywhere is not.
func TestANodeOnWhichTasksKeepFailingIsSetAside(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.join("i-a", state.RoleCore, 2), w.join("i-b", state.RoleCore, 2)
		a.at(100 * time.Millisecond)
		b.at(time.Second)
		a.play = func(l *api.Lease) *api.Failure {
			if isMap(l) {
				return program("sort: command not found")
			}
			return nil
		}
		w.lead()
		w.submit(30, 2, nil)
		w.until("it is set aside", func() bool { return w.leader.Reason("i-a") != "" })
		require.Regexp(t, `^set aside for 2s: its last \d+ attempts of job `+testJob+" have failed, and others of it have succeeded elsewhere meanwhile; the last one: sort: command not found$",
			w.leader.Reason("i-a"))
		time.Sleep(200 * time.Millisecond) // what is there already ends
		failed := w.job().Failed
		time.Sleep(1500 * time.Millisecond)
		require.Equal(t, failed, w.job().Failed, "nothing is tried there")
		w.await()
		w.committed()
		require.Greater(t, w.job().Failed, failed, "it was tried again")
	})
	inWorld(t, func(t *testing.T, w *world) {
		for i := range 2 {
			w.join(fmt.Sprintf("i-%d", i), state.RoleCore, 2).play = func(l *api.Lease) *api.Failure {
				if isMap(l) {
					return program("exit status 3")
				}
				return nil
			}
		}
		w.lead()
		w.submit(20, 1, nil)
		for !w.job().Ended() {
			require.Empty(t, w.leader.Reason("i-0")+w.leader.Reason("i-1"))
			time.Sleep(10 * time.Millisecond)
		}
		w.nothing(state.JobFailed)
	})
}

// A node that the leader reaches, and its peers do not: what it has written is made again elsewhere, once, and what
// it should read is read elsewhere.
func TestANodeThatIsCutOffFromItsPeers(t *testing.T) {
	for _, nodes := range []int{2, 4} {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				var all []*worker
				for i := range nodes {
					k := w.join(fmt.Sprintf("i-%d", i), state.RoleCore, 2)
					k.at(200 * time.Millisecond)
					k.apart = map[string]bool{}
					all = append(all, k)
				}
				for _, k := range all[1:] {
					k.apart["i-0"], all[0].apart[k.id] = true, true
				}
				w.lead()
				time.Sleep(2 * settledAfter)
				began := time.Now()
				w.submit(12, 3, nil)
				w.await()
				w.committed()
				require.Zero(t, w.job().Failed)
				require.LessOrEqual(t, w.job().Lost, 12, "each map's output once at most")
				require.LessOrEqual(t, w.job().Killed, 12)
				require.Less(t, time.Since(began), time.Minute, "of virtual time")
			})
		})
	}
}

// Of two nodes that are alone and do not reach one another, one that has run out of something is to blame, whatever the two
// are called: its output is made again on the other.
func TestTheOneThatHasRunOutIsCutOff(t *testing.T) {
	for _, short := range []string{"i-0", "i-1"} {
		t.Run(short, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				var out time.Time // when the one runs out
				for id, other := range map[string]string{"i-0": "i-1", "i-1": "i-0"} {
					k := w.join(id, state.RoleCore, 2)
					k.at(200 * time.Millisecond)
					k.apart = map[string]bool{other: true}
					if id == short {
						k.play = func(*api.Lease) *api.Failure {
							if time.Now().After(out) {
								return &api.Failure{Kind: api.FailureKind_FAILURE_KIND_RESOURCE, Message: "too many open files"}
							}
							return nil
						}
					}
				}
				w.lead()
				time.Sleep(2 * settledAfter)
				began := time.Now()
				out = began.Add(time.Second)
				w.submit(12, 3, nil)
				w.await()
				w.committed()
				require.Zero(t, w.job().Failed)
				require.Less(t, time.Since(began), time.Minute, "of virtual time")
			})
		})
	}
}

// Failures of a job that fails everywhere are no reason to set a node aside when an attempt of another job fails there.
func TestEachJobsFailuresAreCountedByThemselves(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.join("i-a", state.RoleCore, 1)
		w.lead()
		synctest.Wait()
		bad, good := &job{id: "bad", rec: &state.Job{}}, &job{id: "good", rec: &state.Job{}}
		w.leader.ask(func() {
			failed := &state.EndedAttempt{Node: "i-a", Failure: state.Failure{Message: "exit status 1"}}
			for range 3 {
				w.leader.blame(bad, failed, state.Map)
				good.maps = append(good.maps, &task{done: true, wonAt: time.Now().Add(time.Second), win: &state.Completion{Node: "i-b"}})
			}
			w.leader.blame(good, failed, state.Map)
		})
		require.Empty(t, w.leader.Reason("i-a"))
	})
}

// A node that is lost is not cut off: who does not reach it goes on, whether its leader has heard of the loss, has it
// before it, or is a new one that has never seen that node.
func TestALostNodeIsNotCutOff(t *testing.T) {
	for name, lost := range map[string]func(w *world, k *worker){
		"it is down":          func(w *world, k *worker) { w.leader.Down(k.id, "its lease is over") },
		"nobody knows it yet": func(w *world, _ *worker) { w.depose(); w.lead() },
		"its lease runs":      func(*world, *worker) {},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				var all []*worker
				for i := range 4 {
					k := w.join(fmt.Sprintf("i-%d", i), state.RoleCore, 2)
					k.at(200 * time.Millisecond)
					all = append(all, k)
				}
				all[3].at(5 * time.Second) // so that reduces wait
				w.lead()
				time.Sleep(2 * settledAfter)
				w.submit(8, 2, nil)
				reader, reduce := "", ""
				w.until("a reduce runs", func() bool {
					live, _ := w.leader.Live(testJob)
					for _, a := range live.Attempts {
						if a.Task.Kind == state.Reduce && a.Started {
							reader, reduce = a.Node, a.ID
						}
					}
					return reduce != ""
				})
				dead := all[0]
				if reader == dead.id {
					dead = all[1]
				}
				keeps := map[int32]string{}
				for _, k := range w.log.View().Tasks(testJob, state.Map) {
					if k.Done && k.Win.SegmentNode == dead.id {
						keeps[int32(k.ID.Index)] = k.Win.Attempt
					}
				}
				dead.die(false)
				lost(w, dead)
				time.Sleep(100 * time.Millisecond)
				killed := w.job().Killed
				for m, attempt := range keeps {
					w.leader.Message(reader, &api.WorkerMessage{Message: &api.WorkerMessage_Problem{Problem: &api.SegmentProblem{
						Job: testJob, Map: m, MapAttempt: attempt, SegmentNode: dead.id, ReduceAttempt: reduce, Reason: "unreachable: connection refused"}}})
				}
				time.Sleep(100 * time.Millisecond)
				require.Equal(t, killed, w.job().Killed, "running attempts go on")
				require.Empty(t, w.leader.Reason(reader))
				w.leader.Down(dead.id, "its lease is over")
				w.await()
				w.committed()
			})
		})
	}
}

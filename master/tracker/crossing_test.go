package tracker

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// What crosses what: a hello is older than what the leader has heard meanwhile, of others or in the session before.

// A lease may arrive after the hello was written and before the leader reads it: the attempt
// is not listed there. If it is heard of it goes on; else it is lost, and told to end.
func TestALeaseCrossesAHello(t *testing.T) {
	for name, heard := range map[string]bool{"heard of": true, "not heard of": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a := w.join("i-a", state.RoleCore, 1)
				a.at(2 * time.Second)
				w.lead()
				w.submit(1, 0, nil)
				w.until("it runs", func() bool { return w.leader.RunningOn("i-a") == 1 })
				w.leader.Up("i-a", &api.WorkerHello{NodeId: "i-a", Address: "https://i-a", Slots: 1, Incarnation: "1"})
				if heard {
					a.tell(&api.WorkerMessage{Message: &api.WorkerMessage_Heartbeat{Heartbeat: &api.WorkerHeartbeat{
						Progress: []*api.AttemptProgress{{Attempt: a.starts()[0], BytesDone: 1}}}}})
				}
				w.await()
				w.committed()
				require.Equal(t, 1, a.most, "never beyond its slots")
				if heard {
					require.Len(t, a.starts(), 1)
					require.Zero(t, w.job().Lost)
				} else {
					require.Len(t, a.starts(), 2)
					require.Equal(t, 1, w.job().Lost)
					require.Less(t, w.job().EndedAt.Sub(w.job().PlannedAt), 3500*time.Millisecond, "the lost one does not keep its slot")
				}
			})
		})
	}
}

// A job is looked at when one of its entries is applied and the tracker has not heard of that yet: it does nothing twice.
func TestAJobIsLookedAtBeforeItsAnswer(t *testing.T) {
	for _, reduces := range []int{0, 2} {
		inWorld(t, func(t *testing.T, w *world) {
			w.join("i-a", state.RoleCore, 2)
			w.applied = func(string) {
				w.leader.Submitted(testJob)
				time.Sleep(time.Millisecond)
			}
			w.lead()
			w.submit(5, reduces, nil)
			w.await()
			w.committed()
			require.Zero(t, w.job().Killed+w.job().Failed+w.job().Lost)
		})
	}
}

// A segment may be brought to a core node after its hello was written and before the leader reads it, when the leader has heard
// of the map already: the hello does not list it. The map does not run again, unless a reduce finds that it is not there.
func TestASegmentCrossesAHello(t *testing.T) {
	for name, there := range map[string]bool{"it is there": true, "it is not": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				core := w.join("i-a", state.RoleCore, 1)
				w.join("i-b", state.RoleTask, 1)
				core.at(20 * time.Second)
				w.lead()
				w.submit(2, 1, nil)
				w.until("the task node's map is done", func() bool { return w.job().MapsDone == 1 })
				core.mu.Lock()
				held := core.held
				core.held = map[string]*api.HeldSegment{}
				core.mu.Unlock()
				require.Len(t, held, 1)
				core.hello()
				if there {
					core.mu.Lock()
					core.held = held
					core.mu.Unlock()
				}
				w.await()
				w.committed()
				lost := 0
				if !there {
					lost = 1
				}
				require.Equal(t, lost, w.job().Lost)
			})
		})
	}
}

// A core node's lease is over, it thaws, answers a task node that has waited to bring it a segment, and only then says hello: the map
// is not lost. If the core node does not come, it is.
func TestASegmentComesBeforeItsNode(t *testing.T) {
	for name, comes := range map[string]bool{"it comes": true, "it does not": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				core := w.join("i-a", state.RoleCore, 0)
				b := w.join("i-b", state.RoleTask, 1)
				b.at(2 * time.Second)
				w.lead()
				w.submit(1, 1, nil)
				w.until("its map runs", func() bool { return w.leader.RunningOn("i-b") == 1 })
				w.leader.Down("i-a", "nothing heard within the lease")
				w.until("it is done", func() bool { return w.job().MapsDone == 1 })
				if comes {
					time.Sleep(100 * time.Millisecond)
					core.hello()
				} else {
					w.until("it is lost", func() bool { return w.job().Lost == 1 })
					w.join("i-c", state.RoleCore, 0)
				}
				w.await()
				w.committed()
				if comes {
					require.Zero(t, w.job().Lost)
				}
			})
		})
	}
}

// A reduce gives up a node that it does not reach while one of the two has only just come: nothing follows from that, but
// the reduce is to try again.
func TestAPlaceThatWasNotReachedIsToldAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.join("i-a", state.RoleCore, 1), w.join("i-b", state.RoleCore, 1)
		a.apart, b.apart = map[string]bool{"i-b": true}, map[string]bool{"i-a": true}
		w.lead()
		w.submit(2, 1, nil)
		w.until("the maps are done", func() bool { return w.job().MapsDone == 2 })
		time.Sleep(time.Second)
		a.reaches(b)
		b.reaches(a)
		w.await()
		w.committed()
		require.Zero(t, w.job().Lost+w.job().Killed)
	})
}

// segments lists what a node keeps.
func (k *worker) segments() (list []*api.HeldSegment) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.held {
		list = append(list, s)
	}
	return list
}

// reaches mends the network between a node and another.
func (k *worker) reaches(other *worker) {
	other.mu.Lock() // which is held when that is looked up
	defer other.mu.Unlock()
	delete(k.apart, other.id)
}

// Places that could not be sent are sent when the node comes back.
func TestPlacesAreToldAfterAHelloThatBroke(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.join("i-a", state.RoleCore, 1), w.join("i-b", state.RoleCore, 1)
		b.at(5 * time.Second)
		w.lead()
		w.submit(2, 1, func(_ *state.Job, spec *api.JobSpec) {
			spec.Program.Properties = map[string]string{speculative[state.Map]: "false"}
		})
		reduce := ""
		w.until("the reduce runs", func() bool {
			live, _ := w.leader.Live(testJob)
			for _, at := range live.Attempts {
				if at.Task.Kind == state.Reduce && at.Started && at.Node == a.id {
					reduce = at.ID
				}
			}
			return reduce != ""
		})
		a.cut()
		w.until("the other map is done", func() bool { return w.job().MapsDone == 2 })
		w.leader.Up(a.id, &api.WorkerHello{NodeId: a.id, Address: "https://i-a", Slots: 1, Incarnation: "1", Segments: a.segments(),
			Running: []*api.RunningAttempt{{Job: testJob, Attempt: reduce, Kind: api.TaskKind_TASK_KIND_REDUCE, Started: true}}})
		synctest.Wait()
		a.reconnect()
		w.await()
		w.committed()
		require.Zero(t, w.job().Lost+w.job().Killed)
	})
}

// A node comes back while the log is still being told that its attempts are lost: what runs there is ended.
func TestANodeComesBackWhileItsAttemptsAreGivenUp(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 2)
		a.at(time.Hour)
		w.lead()
		w.submit(2, 0, nil)
		w.until("both run", func() bool { return w.leader.RunningOn("i-a") == 2 })
		first := a.starts()
		w.slow = func(name string) time.Duration { return map[string]time.Duration{"EndTasks": time.Second}[name] }
		w.leader.Down("i-a", "nothing heard within the lease")
		time.Sleep(500 * time.Millisecond)
		a.at(time.Second)
		a.hello()
		w.await()
		w.committed()
		require.Equal(t, 2, a.most, "never beyond its slots")
		require.Equal(t, 2, w.job().Lost)
		require.Len(t, a.starts(), len(first)+2)
	})
}

// A lease that goes down with a connection has never run: that is no loss.
func TestALeaseGoesDownWithAConnection(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 1)
		a.at(3 * time.Second)
		w.lead()
		w.submit(2, 0, nil)
		index := 0 // of the one that runs
		w.until("one runs, one is leased ahead", func() bool {
			l, _ := w.leader.Live(testJob)
			for _, at := range l.Attempts {
				if at.Started {
					index = at.Task.Index
				}
			}
			return l.Maps.Running == 1 && l.Maps.Prefetched == 1
		})
		w.leader.Up("i-a", &api.WorkerHello{NodeId: "i-a", Address: "https://i-a", Slots: 1, Incarnation: "1",
			Running: []*api.RunningAttempt{{Job: testJob, Attempt: a.starts()[0], Kind: api.TaskKind_TASK_KIND_MAP, Index: int32(index), Started: true}}})
		w.await()
		w.committed()
		require.Len(t, a.starts(), 2)
		require.Zero(t, w.job().Lost+w.job().Killed)
	})
}

// Leaders fall silent without a word, and who misses one looks for the next: what finished and what runs on a node that finds the new one
// only then is kept.
func TestANodeFindsTheNewLeaderLate(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.join("i-a", state.RoleCore, 1), w.join("i-b", state.RoleCore, 1)
		a.at(3 * time.Second)
		b.at(3 * time.Second)
		w.lead()
		w.submit(4, 1, nil)
		w.until("some are done, others run", func() bool {
			return w.job().MapsDone == 2 && w.leader.RunningOn("i-a") == 1 && w.leader.RunningOn("i-b") == 1
		})
		w.depose()
		a.cut()
		w.lead()
		time.Sleep(session.ReturnWithin - 500*time.Millisecond)
		a.reconnect()
		w.await()
		w.committed()
		require.Zero(t, w.job().Lost+w.job().Killed)
	})
}

// A success that waits for the job's plan to be read again is not lost when its worker says hello a second time.
func TestASuccessWaitsForThePlan(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 2)
		a.at(time.Second)
		w.lead()
		w.submit(2, 1, nil)
		w.until("the maps run", func() bool { return w.leader.RunningOn("i-a") == 2 })
		w.depose()
		var away atomic.Bool
		away.Store(true)
		w.mem.Fault = func(op, _, _ string) error {
			if away.Load() && op == "Get" {
				return fmt.Errorf("%s: %w", op, objectstore.ErrUnreachable)
			}
			return nil
		}
		time.Sleep(2 * time.Second) // they end while nobody leads
		w.lead()
		synctest.Wait()
		a.hello()
		time.Sleep(2 * time.Second)
		away.Store(false)
		w.await()
		w.committed()
		require.Zero(t, w.job().Lost+w.job().Killed)
		require.Len(t, a.starts(), 3)
	})
}

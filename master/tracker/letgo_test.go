package tracker

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/master/state"
)

// pooled has a node of the pool work for the cluster as a task node.
func (w *world) pooled(id string, slots int) *worker {
	w.must(state.CreateToken{Token: state.Token{ID: "t-" + id, Role: state.RolePool, ExpiresAt: time.Now().Add(time.Hour), UsesLeft: 1}})
	w.must(state.AdmitNode{Token: "t-" + id, Node: state.Node{ID: id, Role: state.RolePool}, Now: time.Now()})
	w.must(state.AssignNode{ID: id, Cluster: "j-1", Group: "ig-t"})
	return w.start(id, state.RoleTask, slots)
}

// leases is how many leases a worker was sent.
func (k *worker) leases() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.leased
}

// A node that leaves gets nothing more, though the log has it drain no more as soon as it is let go, and though its session goes on for a
// while after that: not when the leader is told, not when it asks what is left first, not with a hello that was on the way.
func TestANodeThatIsLetGoGetsNothingMore(t *testing.T) {
	for name, end := range map[string]state.Command{
		"removed":  state.RemoveNode{ID: "i-t", Shrink: true},
		"released": state.ReleaseNode{ID: "i-t"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				core := w.join("i-a", state.RoleCore, 1)
				core.at(time.Second)
				task := w.pooled("i-t", 2)
				defer task.die(false)
				task.at(time.Second)
				w.lead()
				w.submit(40, 1, nil)
				w.until("its slots and its queue are full", func() bool { return w.leader.Drained("i-t").Attempts == 4 })

				w.must(state.LeaveNode{ID: "i-t", By: time.Now().Add(time.Minute)})
				require.Positive(t, w.leader.Drained("i-t").Attempts)
				had := task.leases()
				w.leader.NodeChanged("i-t")
				w.until("nothing is left", func() bool { return w.leader.Drained("i-t").Empty() })
				w.must(end)
				w.leader.NodeChanged("i-t")
				for range 10 {
					synctest.Wait()
					task.beat()
					time.Sleep(100 * time.Millisecond)
				}
				task.hello()
				synctest.Wait()
				require.Equal(t, Drain{}, w.leader.Drained("i-t"), "the leader knows it no more")
				w.leader.Down("i-t", "nothing heard within the lease")

				w.await()
				w.committed()
				require.Equal(t, had, task.leases())
				job := w.job()
				require.Zero(t, job.Killed+job.Failed+job.Lost)
			})
		})
	}
}

// What still runs on a node when it is removed ends at once, whatever its worker says or does not say: it is killed, not lost, and is made
// elsewhere.
func TestWhatRunsOnANodeThatIsRemovedIsKilledAtOnce(t *testing.T) {
	for name, told := range map[string]func(w *world){
		"the leader is told":                        func(w *world) { w.leader.NodeChanged("i-t") },
		"the leader hears that its session is over": func(w *world) { w.leader.Down("i-t", "node has been terminated") },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.join("i-a", state.RoleCore, 1).at(time.Second)
				task := w.pooled("i-t", 2)
				task.at(time.Hour)
				w.lead()
				w.submit(12, 1, nil)
				w.until("it runs some, with more behind that", func() bool { return w.leader.Drained("i-t").Attempts == 4 && len(task.starts()) == 2 })
				defer task.die(false)
				task.cut() // so that it cannot say how they end
				w.must(state.RemoveNode{ID: "i-t", Shrink: true})
				told(w)
				synctest.Wait()
				require.Equal(t, 4, w.killedOn("i-t"), "with no time gone by")

				w.await()
				w.committed()
				require.Len(t, task.starts(), 2)
				job := w.job()
				require.Zero(t, job.Failed+job.Lost)
			})
		})
	}
}

// A node gets tasks as soon as the log says that its bootstrap actions are done, not with its next heartbeat.
func TestANodeIsReadyWhenItsBootstrapActionsAreDone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 2)
		a.ill = "its bootstrap actions are not done"
		w.lead()
		w.submit(4, 1, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Zero(t, a.leases())
		w.must(state.NoteBootstrap{ID: "i-a", Cluster: "j-1", State: state.BootstrapDone})
		require.Empty(t, w.leader.Reason("i-a"), "though nobody has said so yet")
		w.leader.NodeChanged("i-a")
		w.await()
		w.committed()
	})
}

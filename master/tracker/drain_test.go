package tracker

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/pkg/api"
)

// drain logs that a node drains from now on, with a grace, and tells the leader.
func (w *world) drain(id string, grace time.Duration) {
	w.must(state.DrainNode{ID: id, By: time.Now().Add(grace)})
	w.leader.NodeChanged(id)
}

// killedOn counts a node's attempts that were killed. (A reduce that waits for a map elsewhere may be, too.)
func (w *world) killedOn(node string) (n int) {
	for _, kind := range []string{state.Map, state.Reduce} {
		for _, k := range w.log.View().Tasks(testJob, kind) {
			for _, e := range k.Ended {
				if e.Node == node && e.State == state.AttemptKilled {
					n++
				}
			}
		}
	}
	return n
}

// A draining node runs to their ends the attempts that it has begun and gets no others; what waited in its queue runs elsewhere.
// It is empty when the last job that reads its map output is over.
func TestADrainingNodeFinishesWhatItRuns(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.join("i-a", state.RoleCore, 2), w.join("i-b", state.RoleCore, 2)
		a.at(2 * time.Second)
		b.at(time.Second)
		w.lead()
		w.submit(20, 2, nil)
		w.until("it is busy, with more behind that", func() bool { return len(a.starts()) == 2 && w.leader.Drained("i-a").Attempts == 4 })
		w.drain("i-a", time.Minute)
		w.until("its queue is empty", func() bool { return w.leader.Drained("i-a").Attempts == 2 })
		w.until("what ran is over", func() bool { return w.leader.Drained("i-a").Attempts == 0 })
		d := w.leader.Drained("i-a")
		require.Equal(t, []string{testJob}, d.Needed, "its map output is still to be read")
		require.False(t, d.Empty())

		w.await()
		w.committed()
		require.Len(t, a.starts(), 2, "nothing was begun there meanwhile")
		job := w.job()
		require.Zero(t, job.Killed+job.Failed+job.Lost)
		require.True(t, w.leader.Drained("i-a").Empty())
	})
}

// What still runs when the grace is over is killed, which counts against nothing, and runs elsewhere.
func TestTheGraceOfADrainEnds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 2)
		a.at(time.Hour)
		w.lead()
		w.submit(2, 1, nil)
		w.until("it is busy", func() bool { return len(a.starts()) == 2 })
		b := w.join("i-b", state.RoleCore, 2)
		w.drain("i-a", time.Minute)
		time.Sleep(time.Minute - time.Millisecond)
		synctest.Wait()
		require.Equal(t, 2, w.leader.Drained("i-a").Attempts)
		require.Zero(t, w.job().Killed)
		w.await()
		w.committed()
		require.Equal(t, 2, w.killedOn("i-a"))
		require.Zero(t, w.job().Failed)
		require.NotEmpty(t, b.starts())
		require.True(t, w.leader.Drained("i-a").Empty())
	})
}

// A new leader goes by the grace that is in the log: it kills no earlier, and does not begin it anew.
func TestTheGraceOfADrainOutlivesItsLeader(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 2)
		a.at(time.Hour)
		w.lead()
		w.submit(2, 1, nil)
		w.until("it is busy", func() bool { return len(a.starts()) == 2 })
		w.join("i-b", state.RoleCore, 2)
		began := time.Now()
		w.drain("i-a", time.Minute)
		time.Sleep(40 * time.Second)
		w.depose()
		w.lead()
		time.Sleep(19 * time.Second)
		synctest.Wait()
		require.Equal(t, Drain{Known: true, Attempts: 2}, w.leader.Drained("i-a"))
		require.Zero(t, w.job().Killed)
		w.await()
		require.Less(t, time.Since(began), 70*time.Second, "of virtual time")
		require.Equal(t, 2, w.killedOn("i-a"))
		w.committed()
	})
}

// A node that resumes gets leases at once; one that the leader does not know is known to be nothing, not even empty.
func TestADrainedNodeResumes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 2)
		w.lead()
		synctest.Wait()
		w.drain("i-a", time.Minute)
		w.submit(4, 1, nil)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.Empty(t, a.starts())
		require.True(t, w.leader.Drained("i-a").Empty())
		require.False(t, w.leader.Drained("i-none").Empty())
		w.must(state.DrainNode{ID: "i-a"})
		w.leader.NodeChanged("i-a")
		w.await()
		w.committed()
		require.Zero(t, w.job().Killed)
	})
}

// Task nodes push no map output to a core node that drains.
func TestNoMapOutputGoesToADrainingNode(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.join("i-a", state.RoleCore, 0)
		w.join("i-b", state.RoleCore, 0)
		w.join("i-t", state.RoleTask, 2)
		w.lead()
		synctest.Wait()
		w.drain("i-a", time.Minute)
		w.submit(6, 0, nil)
		w.await()
		require.Empty(t, w.leader.Drained("i-a").Needed)
	})
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.join("i-a", state.RoleCore, 0), w.join("i-b", state.RoleCore, 0)
		task := w.join("i-t", state.RoleTask, 2)
		pushed := map[string]bool{}
		task.play = func(l *api.Lease) *api.Failure {
			for _, to := range l.PushTo {
				task.mu.Lock()
				pushed[to.Node] = true
				task.mu.Unlock()
			}
			return nil
		}
		w.lead()
		synctest.Wait()
		w.drain(a.id, time.Minute)
		w.submit(6, 1, nil)
		w.await()
		w.committed()
		require.Equal(t, map[string]bool{b.id: true}, pushed)
	})
}

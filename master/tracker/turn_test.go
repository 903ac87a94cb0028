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

// submitAs submits one more job, with an output of its own.
func (w *world) submitAs(id string, priority int) {
	w.submit(1, 1, func(j *state.Job, spec *api.JobSpec) {
		j.ID, j.Output, j.Priority = id, fmt.Sprintf("s3://data/%s/", id), priority
		spec.Output = j.Output
	})
	w.leader.Submitted(id)
}

func (w *world) atOnce(n int) {
	w.must(state.SetCluster{Cluster: "j-1", StepConcurrency: &n})
	w.leader.ClusterChanged("j-1")
}

func (w *world) states(ids ...string) (list []string) {
	for _, id := range ids {
		j, ok := w.log.View().Job(id)
		require.True(w.t, ok, id)
		list = append(list, j.State)
	}
	return list
}

// running is how many jobs run.
func (w *world) running() (n int) {
	for _, j := range w.log.View().OpenJobs() {
		if j.State == state.JobRunning && j.Ending == "" {
			n++
		}
	}
	return n
}

// Of a cluster's jobs so many run at once as it says, in the order of priority, then of age; the others say what they wait for.
func TestJobsWaitForTheirTurn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 8)
		a.at(time.Hour)
		w.lead()
		w.atOnce(2)
		ids := []string{testJob, "s-2", "s-3", "s-4"}
		w.submitAs(testJob, 0)
		w.submitAs("s-2", 0)
		w.submitAs("s-3", 0)
		w.until("two run", func() bool { return w.running() == 2 })
		w.submitAs("s-4", 5)
		synctest.Wait()
		require.Equal(t, []string{"RUNNING", "RUNNING", "PENDING", "PENDING"}, w.states(ids...))
		live, ok := w.leader.Live("s-3")
		require.True(t, ok)
		require.False(t, live.Planning)
		require.Equal(t, "it waits for its turn: cluster default runs 2 jobs at once, and "+testJob+", s-2 come first", live.Turn)
		live, _ = w.leader.Live(testJob)
		require.Empty(t, live.Turn)

		w.must(state.CancelJob{Job: testJob, Reason: "test"})
		w.leader.Cancelled(testJob)
		w.until("the more urgent one goes first, though it came last", func() bool { return w.states("s-4")[0] == "RUNNING" })
		require.Equal(t, []string{"CANCELLED", "RUNNING", "PENDING", "RUNNING"}, w.states(ids...))
	})
}

// A limit that is lifted lets all begin that wait; one that is lowered stops none that has begun. A new leader keeps to it.
func TestTheLimitOfJobsAtOnceChanges(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 8)
		a.at(time.Hour)
		w.lead()
		w.atOnce(1)
		w.submitAs(testJob, 0)
		w.submitAs("s-2", 0)
		w.submitAs("s-3", 0)
		w.until("one runs", func() bool { return w.running() == 1 })
		w.atOnce(2)
		w.until("two run", func() bool { return w.running() == 2 })
		w.atOnce(1)
		require.NoError(t, w.depose())
		w.lead()
		synctest.Wait()
		require.Equal(t, []string{"RUNNING", "RUNNING", "PENDING"}, w.states(testJob, "s-2", "s-3"))
		w.must(state.CancelJob{Job: testJob, Reason: "test"})
		w.leader.Cancelled(testJob)
		w.until("the first one is gone", func() bool { return w.states(testJob)[0] == "CANCELLED" })
		synctest.Wait()
		require.Equal(t, []string{"RUNNING", "PENDING"}, w.states("s-2", "s-3"), "one alone runs now")
		w.atOnce(0)
		w.until("there is no limit", func() bool { return w.states("s-3")[0] == "RUNNING" })
	})
}

// One that is cancelled while it waits lets the next one have its turn.
func TestAJobThatWaitsForItsTurnIsCancelled(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.lead()
		w.atOnce(1)
		w.submitAs(testJob, 0)
		w.submitAs("s-2", 0)
		w.must(state.CancelJob{Job: "s-2", Reason: "test"})
		w.leader.Cancelled("s-2")
		w.until("it is gone", func() bool { return w.states("s-2")[0] == "CANCELLED" })
		w.submitAs("s-3", 0)
		synctest.Wait()
		require.Equal(t, "PENDING", w.states("s-3")[0])
	})
}

// What waits and what runs in a cluster that ends is cancelled, whoever leads.
func TestJobsOfAClusterThatEnds(t *testing.T) {
	terminate := state.TerminateCluster{Cluster: "j-1", ReasonCode: state.ReasonUserRequest, Reason: "terminated by alice"}
	for _, c := range []struct {
		name string
		ends func(t *testing.T, w *world)
	}{
		{"the leader is told", func(t *testing.T, w *world) {
			w.must(terminate)
			w.leader.ClusterChanged("j-1")
		}},
		{"another one leads then", func(t *testing.T, w *world) {
			require.NoError(t, w.depose())
			w.must(terminate)
			w.lead()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a := w.join("i-a", state.RoleCore, 8)
				a.at(time.Hour)
				w.lead()
				w.atOnce(1)
				w.submitAs(testJob, 0)
				w.submitAs("s-2", 0)
				w.until("one runs", func() bool { return w.running() == 1 })
				c.ends(t, w)
				for _, id := range []string{testJob, "s-2"} {
					w.until(id+" is cancelled", func() bool { return w.states(id)[0] == "CANCELLED" })
					j, _ := w.log.View().Job(id)
					require.Equal(t, "its cluster ends: terminated by alice", j.Reason)
				}
			})
		})
	}
}

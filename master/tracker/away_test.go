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
	"millrace/pkg/objectstore"
)

// A store that does not answer the leader is away once that has gone on for a while, and no longer when it answers.
func TestAStoreIsAwayForTheLeader(t *testing.T) {
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
		require.Zero(t, w.leader.StoreAway("j-1"), "no job waits")
		began := time.Now()
		w.submit(2, 1, func(*state.Job, *api.JobSpec) { away.Store(true) })
		w.until("its trouble is known", func() bool { l, _ := w.leader.Live(testJob); return l.Trouble != "" })
		require.Zero(t, w.leader.StoreAway("j-1"), "one request is none")
		time.Sleep(awayAfter)
		got := w.leader.StoreAway("j-1")
		require.Equal(t, []any{testJob, 1}, []any{got.Job, got.Jobs})
		require.Contains(t, got.Trouble, "unreachable")
		require.False(t, got.Since.Before(began))
		require.Zero(t, w.leader.StoreAway("j-2"), "another cluster's is another")
		away.Store(false)
		w.until("it answers", func() bool { return w.leader.StoreAway("j-1") == Away{} })
		w.await()
		w.committed()
	})
}

// Of an attempt the store is away while it repeats requests and does not get on: not for one that had to be
// repeated, nor for one that gets on all the same, nor when nothing more is heard of it.
func TestAStoreIsAwayForAnAttempt(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.join("i-a", state.RoleCore, 1)
		a.at(time.Hour)
		w.lead()
		w.submit(1, 1, nil)
		w.until("it runs", func() bool { return w.leader.RunningOn("i-a") == 1 })
		says := func(bytes, retries int64) Away {
			w.leader.Message("i-a", &api.WorkerMessage{Message: &api.WorkerMessage_Heartbeat{Heartbeat: &api.WorkerHeartbeat{
				Progress: []*api.AttemptProgress{{Attempt: a.starts()[0], BytesDone: bytes, StoreRetries: retries, StoreTrouble: "connection refused"}},
			}}})
			synctest.Wait()
			return w.leader.StoreAway("j-1")
		}
		require.Zero(t, says(1, 3))
		time.Sleep(awayAfter)
		require.Zero(t, says(1, 3), "repeated once, and busy since")
		away := says(1, 4)
		require.Equal(t, "connection refused", away.Trouble)
		require.Equal(t, awayAfter, time.Since(away.Since))
		require.Zero(t, says(2, 5), "it gets on")
		time.Sleep(awayAfter)
		require.NotZero(t, says(2, 6))
		time.Sleep(awayFor)
		require.Zero(t, says(2, 6), "it has not asked again for long")
		w.must(state.CancelJob{Job: testJob, Reason: "enough"})
		w.leader.Cancelled(testJob)
		w.await()
	})
}

package tracker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/pkg/objectstore"
)

// A job that waits its turn to repeat a request, as the master has repeated too many, says what it is
// about meanwhile, and is cancelled at once.
func TestWaitingForTheBudgetEndsWithTheStep(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.lead()
		w.submit(1, 1, nil)
		synctest.Wait()
		l := w.leader
		l.ask(func() { l.cfg.Retries = objectstore.NewBudget(1e-6) })
		require.NoError(t, l.cfg.Retries.Wait(t.Context()), "all that it has")
		var j *job
		l.ask(func() { j = l.jobs[testJob] })
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() {
			defer close(over)
			l.noting(ctx, j)(errors.New("connection refused"))
		}()
		synctest.Wait()
		live, _ := l.Live(testJob)
		require.Equal(t, "connection refused", live.Trouble)
		began := time.Now()
		cancel()
		<-over
		require.Equal(t, began, time.Now())
		w.must(state.CancelJob{Job: testJob, Reason: "enough"})
		l.Cancelled(testJob)
		w.await()
	})
}

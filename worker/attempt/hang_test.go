package attempt

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

func TestAHangIsTheAbsenceOfEverySignOfLife(t *testing.T) {
	now, moved := time.Unix(0, 0), int64(1000)
	h := hang{limit: time.Minute, now: func() time.Time { return now }, io: func() int64 { return moved }}
	p := &api.ChildProgress{}
	said, waiting := int64(0), false
	tick := func() bool { now = now.Add(50 * time.Second); moved += 1000; return h.over(p, said, waiting) }
	require.False(t, tick(), "it begins")
	for name, sign := range map[string]func(){
		"input": func() { p.BytesDone++ }, "a record": func() { p.RecordsDone++ }, "the store is away": func() { p.StoreRetries++ },
		"a counter": func() { p.Alive++ }, "standard error": func() { said++ }, "a merge": func() { moved += 2 * enoughIO },
	} {
		require.False(t, tick(), name)
		sign()
		require.False(t, tick(), name)
	}
	waiting = true
	for range 5 {
		require.False(t, tick(), "it waits for maps")
	}
	waiting = false
	require.False(t, tick())
	require.True(t, tick())

	h.limit = 0
	require.False(t, tick(), "no limit")
}

func TestWhatAProcessMovesIsCounted(t *testing.T) {
	before := ioOf(os.Getpid())
	require.NoError(t, os.WriteFile(t.TempDir()+"/x", make([]byte, 1<<20), 0o600))
	require.GreaterOrEqual(t, ioOf(os.Getpid())-before, int64(1<<20))
	require.Zero(t, ioOf(1<<30))
}

// An attempt that reports on and on, and gets no further, fails for its own reason; without limit it runs.
func TestAnAttemptThatHangsIsEnded(t *testing.T) {
	f := newFixture(t)
	l := f.lease("s-1", "a1", "say=last words\n", "idle")
	l.Program.Properties = map[string]string{"mapreduce.task.timeout": "100"}
	r, _ := f.pool.Run(t.Context(), Attempt{Lease: l})
	require.Equal(t, api.FailureKind_FAILURE_KIND_PROGRAM, r.GetFailure().GetKind())
	require.Contains(t, r.Failure.Message, "no progress for 100ms: no input read")
	require.Equal(t, "last words\n", r.Failure.StderrTail)

	l = f.lease("s-1", "a2", "idle")
	l.Program.Properties = map[string]string{"mapreduce.task.timeout": "0"}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 500*time.Millisecond, errors.New("enough"))
	defer cancel()
	r, _ = f.pool.Run(ctx, Attempt{Lease: l})
	require.Equal(t, api.FailureKind_FAILURE_KIND_KILLED, r.GetFailure().GetKind(), r)
}

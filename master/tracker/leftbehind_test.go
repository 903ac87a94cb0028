package tracker

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// What the store does not let a failed job remove is named in its reason.
func TestWhatIsLeftBehindIsNamed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.join("i-a", state.RoleCore, 2).play = func(l *api.Lease) *api.Failure {
			if isMap(l) {
				return program("exit status 3")
			}
			return nil
		}
		w.mem.Fault = func(op, bucket, key string) error {
			if op == "AbortUpload" {
				return &objectstore.Error{Op: "abort upload", URL: "s3://" + bucket + "/" + key, Kind: objectstore.ErrDenied}
			}
			return nil
		}
		w.lead()
		w.submit(1, 2, nil)
		j := w.await()
		require.Equal(t, state.JobFailed, j.State)
		require.True(t, strings.HasPrefix(j.Reason, "task m-00000 failed 4 times: exit status 3; the store did not let it be cleaned up: "), j.Reason)
		for _, part := range []string{"part-r-00000", "part-r-00001"} {
			require.Contains(t, j.Reason, "abort upload s3://data/out/"+part+": access denied")
		}
	})
}

// A job whose output is right says which uploads the store does not let go.
func TestACompletedJobNamesWhatIsLeftBehind(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		failed := false
		w.join("i-a", state.RoleCore, 2).play = func(l *api.Lease) *api.Failure {
			if isMap(l) || l.Index != 0 || failed {
				return nil
			}
			failed = true
			return program("exit status 3")
		}
		w.mem.Fault = func(op, bucket, key string) error {
			if op == "AbortUpload" {
				return &objectstore.Error{Op: "abort upload", URL: "s3://" + bucket + "/" + key, Kind: objectstore.ErrDenied}
			}
			return nil
		}
		w.lead()
		w.submit(1, 2, nil)
		j := w.await()
		require.Equal(t, state.JobCompleted, j.State, j.Reason)
		require.Equal(t, []string{"unfinished uploads stay in the store and take room there: abort upload s3://data/out/part-r-00000: access denied"}, j.Notes)
	})
}

// A key that may abort and not look: the uploads are gone, and nothing is said of them.
func TestAbortsWithoutLooking(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.join("i-a", state.RoleCore, 2).play = func(l *api.Lease) *api.Failure { return program("exit status 3") }
		w.mem.Fault = func(op, bucket, key string) error {
			if op == "ListParts" {
				return objectstore.ErrDenied
			}
			return nil
		}
		w.lead()
		w.submit(1, 2, nil)
		j := w.await()
		require.Equal(t, state.JobFailed, j.State)
		require.Equal(t, "task m-00000 failed 4 times: exit status 3", j.Reason)
		w.noUploads()
	})
}

// A name for each of a hundred thousand would not fit into an entry of the log.
func TestWhatIsLeftBehindIsBounded(t *testing.T) {
	require.Empty(t, leftBehind(nil))
	tr := &Tracker{cfg: Config{Parallel: 4}}
	err := tr.gather(100, func(i int) error { return fmt.Errorf("delete s3://data/%d", i) })
	require.ErrorContains(t, err, "and 96 more")
	require.NotContains(t, leftBehind(err), "\n")
	require.LessOrEqual(t, len(leftBehind(errors.New(strings.Repeat("ü", 5000)))), maxLeft+64)
}

// An upload that cannot be aborted does not keep those of other keys.
func TestASweepGoesOnAfterARefusal(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		for _, key := range []string{"out/a", "out/b", "out/c"} {
			_, err := w.mem.CreateUpload(ctx, "data", key, nil)
			require.NoError(t, err)
		}
		w.mem.Fault = func(op, bucket, key string) error {
			if op == "AbortUpload" && key == "out/a" || op == "ListUploads" && key == "out/b" {
				return &objectstore.Error{Op: op, URL: "s3://" + bucket + "/" + key, Kind: objectstore.ErrDenied}
			}
			return nil
		}
		tr := &Tracker{cfg: Config{Parallel: 1}, ctx: ctx}
		j := &job{bucket: "data", store: w.mem}
		err := tr.sweep(ctx, j, []string{"out/a", "out/b", "out/c"}, nil)
		require.ErrorContains(t, err, "s3://data/out/a")
		require.ErrorContains(t, err, "s3://data/out/b")
		w.mem.Fault = nil
		left, err := w.mem.ListUploads(ctx, "data", "out/c")
		require.NoError(t, err)
		require.Empty(t, left)
	})
}

// A worker that was away when its job ended comes back when the job has moved to the history: what it kept for it goes.
func TestWhatAWorkerKeptForAPastJobGoes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.join("i-a", state.RoleCore, 1), w.join("i-b", state.RoleCore, 1)
		w.lead()
		w.submit(4, 1, nil)
		kept := func(k *worker) int {
			k.mu.Lock()
			defer k.mu.Unlock()
			return len(k.held)
		}
		w.until("both keep segments", func() bool { return kept(a) > 0 && kept(b) > 0 })
		a.cut()
		w.leader.Down("i-a", "its lease is over")
		w.await()
		w.committed()
		require.Positive(t, kept(a), "it has not heard of the end")

		w.must(state.RetireJobs{Page: "page", Jobs: []string{testJob}})
		a.reconnect()
		for range 100 {
			synctest.Wait()
			if kept(a) == 0 {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Fatalf("it still keeps %d segments", kept(a))
	})
}

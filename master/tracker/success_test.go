package tracker

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

func overwrites(j *state.Job, _ *api.JobSpec) { j.Overwrite = true }

// beforeSuccess has something happen when the leader is about to write _SUCCESS.
func beforeSuccess(w *world, f func()) {
	w.before = func(_ int, name string) bool {
		if name == "Put" && w.job().Phase == state.PhaseCommitting && f != nil {
			w.mu.Unlock() // the hook is called with it
			f()
			w.mu.Lock()
			f = nil
		}
		return false
	}
}

// Somebody else writes a _SUCCESS there while the job runs: it stays, and the job says so.
func TestForeignSuccessIsNotReplaced(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.join("i-a", state.RoleCore, 2)
		beforeSuccess(w, func() { w.put("out/_SUCCESS", "another's") })
		w.lead()
		w.submit(2, 2, nil)
		j := w.await()
		require.Equal(t, state.JobFailed, j.State)
		require.Contains(t, j.Reason, "write out/_SUCCESS: it is there already, and not this job's: somebody else writes")
		require.Equal(t, []string{"out/_SUCCESS"}, w.keys("out/"))
		require.Equal(t, "another's", w.read("out/_SUCCESS"))
		w.noUploads()
	})
}

// A job that may replace what is there replaces that, too.
func TestOverwriteReplacesALateSuccess(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.join("i-a", state.RoleCore, 2)
		beforeSuccess(w, func() { w.put("out/_SUCCESS", "another's") })
		w.lead()
		w.submit(2, 2, overwrites)
		w.await()
		w.committed()
	})
}

// A store that knows no conditions on a PUT gets it without.
func TestStoreWithoutConditions(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.join("i-a", state.RoleCore, 2)
		w.wrap = func(s objectstore.Store) objectstore.Store { return simple{s} }
		w.lead()
		w.submit(2, 2, overwrites)
		w.await()
		w.committed()
	})
}

type simple struct{ objectstore.Store }

func (s simple) Put(ctx context.Context, b, k string, r io.Reader, n int64, o objectstore.PutOptions) (objectstore.Object, error) {
	if o.IfNoneMatch {
		return objectstore.Object{}, &objectstore.Error{Op: "put", Kind: objectstore.ErrInvalid, Code: "NotImplemented"}
	}
	return s.Store.Put(ctx, b, k, r, n, o)
}

// What is at the place of a part when a failed commit is cleaned up, and not the job's any more, stays.
func TestCleanUpDeletesNothingNew(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.join("i-a", state.RoleCore, 2)
		beforeSuccess(w, func() { w.put("out/_SUCCESS", "another's") })
		replaced := false
		w.mem.Fault = func(op, _, key string) error {
			if op == "DeleteIf" && strings.HasSuffix(key, "part-r-00000") && !replaced {
				replaced = true
				w.put(key, "another's")
			}
			return nil
		}
		w.lead()
		w.submit(2, 2, nil)
		require.Equal(t, state.JobFailed, w.await().State)
		require.True(t, replaced)
		require.Equal(t, []string{"out/_SUCCESS", "out/part-r-00000"}, w.keys("out/"))
	})
}

// A prefix with so much in it that its listing takes longer than any one request may.
func TestOverwriteOfAPrefixThatTakesLongToList(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.join("i-a", state.RoleCore, 2)
		for i := range 200 {
			w.put(fmt.Sprintf("out/old-%03d", i), "old")
		}
		w.wrap = func(s objectstore.Store) objectstore.Store { return slowList{s} }
		w.lead()
		w.submit(2, 2, overwrites)
		w.await()
		w.committed()
	})
}

// slowList needs a second for each name.
type slowList struct{ objectstore.Store }

func (s slowList) List(ctx context.Context, b, p string, o objectstore.ListOptions) iter.Seq2[objectstore.Object, error] {
	return func(yield func(objectstore.Object, error) bool) {
		for x, err := range s.Store.List(ctx, b, p, o) {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				err = ctx.Err()
			}
			if !yield(x, err) || err != nil {
				return
			}
		}
	}
}

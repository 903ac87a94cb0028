package history

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/pkg/objectstore"
)

const (
	bucket = "system"
	prefix = "here/"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is a site's state, its log and its store.
type world struct {
	t     testing.TB
	state *state.Store
	store *objectstore.Memory
	index uint64
	// refuse, if set, is asked before an entry is logged; lost, after it: an error takes the answer's place.
	refuse, lost func() error
	old          bool // some master does not know what is logged here
	now          time.Time
	ahead        time.Duration      // the store's clock
	was          map[string]*Record // of every ended job, as it was in the state
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, state: state.New(), store: objectstore.NewMemory(), now: t0.Add(10 * time.Minute), was: map[string]*Record{}}
	require.NoError(t, w.store.MakeBucket(t.Context(), bucket))
	w.do(state.CreateSite{Site: state.Site{ID: "site"}, Cluster: state.Cluster{ID: "j-1", Name: "default"}})
	return w
}

func (w *world) do(c state.Command) any {
	w.t.Helper()
	w.index++
	result, err := w.state.Apply(w.index, c)
	require.NoError(w.t, err)
	return result
}

func (w *world) apply(_ context.Context, c state.Command) (any, error) {
	if w.refuse != nil {
		if err := w.refuse(); err != nil {
			return nil, err
		}
	}
	w.index++
	result, err := w.state.Apply(w.index, c)
	if err == nil && w.lost != nil {
		err = w.lost()
	}
	return result, err
}

func (w *world) place() Place { return Place{w.store, bucket, prefix} }

// keeper is that of a new leader.
func (w *world) keeper(keep int, retention time.Duration) *Keeper {
	k, err := New(Config{
		View: w.state.View, Apply: w.apply, Keep: keep, Retention: retention,
		System: func() (objectstore.Store, string, string, error) { return w.store, bucket, prefix, nil },
		Known:  func() bool { return !w.old }, Now: func() time.Time { return w.now },
		StoreNow: func(context.Context, Place) (time.Time, error) { return w.now.Add(w.ahead), nil },
	})
	require.NoError(w.t, err)
	return k
}

// ended makes a job that has ended n seconds after t0: COMPLETED, with two maps and a failed attempt, or CANCELLED.
func (w *world) ended(n int) string {
	w.t.Helper()
	id := fmt.Sprintf("s-%03d", n)
	w.do(state.SubmitJob{Job: state.Job{
		ID: id, Cluster: "j-1", Name: "daily", Output: "s3://out/" + id + "/", Spec: []byte("spec of " + id), SealedStore: []byte("sealed"),
		SubmittedAt: t0, Input: []string{"s3://in/"},
	}})
	end := t0.Add(time.Duration(n) * time.Second)
	if n%3 == 0 {
		w.do(state.CancelJob{Job: id, Reason: "why not"})
		w.do(state.EndJob{Job: id, At: end})
	} else {
		w.do(state.PlanJob{Job: id, Maps: 2, At: t0, PlanKey: "plans/" + id + "-digest.plan"})
		task := func(i int) state.TaskID { return state.TaskID{Kind: state.Map, Index: i} }
		w.do(state.EndTasks{Items: []state.EndTask{
			{Job: id, Task: task(0), CountsAs: state.CountsFailed, Ended: &state.EndedAttempt{Attempt: id + "-m-0", Node: "i-1", Failure: state.Failure{Message: "why", ExitCode: 3}}},
			{Job: id, Task: task(0), Win: &state.Completion{Attempt: id + "-m-1", Node: "i-2", Digest: 1<<64 - 1, SetTerm: 1 << 63, Counters: []state.Counter{{Group: "g", Name: "n", Value: 7}}}},
			{Job: id, Task: task(1), Win: &state.Completion{Attempt: id + "-m-2", Node: "i-1"}},
		}})
		w.do(state.BeginCommit{Job: id, At: end})
		w.do(state.CompleteJob{Job: id, At: end, Parts: 2})
	}
	j, _ := w.state.View().Job(id)
	w.was[id] = RecordOf(w.state.View(), j)
	return id
}

func (w *world) put(key string) {
	w.t.Helper()
	_, err := w.store.Put(w.t.Context(), bucket, key, nil, 0, objectstore.PutOptions{})
	require.NoError(w.t, err)
}

func (w *world) keys() (keys []string) {
	w.t.Helper()
	for o, err := range w.store.List(w.t.Context(), bucket, "", objectstore.ListOptions{}) {
		require.NoError(w.t, err)
		keys = append(keys, o.Key)
	}
	return keys
}

// whole checks that every job that has ended is known in full: by the state, or by the history.
func (w *world) whole() {
	w.t.Helper()
	v := w.state.View()
	pages := map[string]map[string]*state.Job{}
	for id, was := range w.was {
		e, ok := v.Entry(id)
		require.True(w.t, ok, "job %s is forgotten", id)
		if e.Job != nil {
			require.Empty(w.t, cmp.Diff(was, RecordOf(v, e.Job)))
			continue
		}
		want := *was
		job := *was.Job
		job.SealedStore = nil
		want.Job = &job
		got, err := w.place().Record(w.t.Context(), id)
		require.NoError(w.t, err)
		require.Empty(w.t, cmp.Diff(&want, got))
		alone, err := w.place().Job(w.t.Context(), id)
		require.NoError(w.t, err)
		require.Empty(w.t, cmp.Diff(&job, alone))

		if pages[e.Past.Page] == nil {
			pages[e.Past.Page], err = w.place().Page(w.t.Context(), e.Past.Page)
			require.NoError(w.t, err)
		}
		listed := job
		listed.Spec = nil
		require.Empty(w.t, cmp.Diff(&listed, pages[e.Past.Page][id]))
	}
}

// inState and inHistory count the jobs that have ended.
func (w *world) inState() int   { return len(w.state.View().EndedJobs()) }
func (w *world) inHistory() int { return len(w.state.View().PastJobs("")) }

var errBroken = errors.New("broken")

// nth fails the n-th time that it is asked, from 0, and notes that it did.
func nth(n int, failed *atomic.Bool) func() error {
	var asked atomic.Int64
	return func() error {
		if asked.Add(1) != int64(n)+1 {
			return nil
		}
		failed.Store(true)
		return errBroken
	}
}

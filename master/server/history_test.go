package server

import (
	"fmt"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"millrace/master/history"
	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/objectstore"
)

// retire moves all jobs that have ended, but for the last, to the history.
func (w *world) retire() {
	w.t.Helper()
	k, err := history.New(history.Config{
		View: w.state.View, Apply: w.log.Apply, Keep: 1, Known: func() bool { return true },
		System: func() (objectstore.Store, string, string, error) { return w.store, "system", "here/", nil },
	})
	require.NoError(w.t, err)
	require.NoError(w.t, k.Round(w.t.Context()))
}

// cancelled submits n jobs and cancels them.
func (w *world) cancelled(n int) (ids []string) {
	w.t.Helper()
	for i := range n {
		spec := wordcount()
		spec.Name = fmt.Sprint("job ", i)
		id := w.submit(spec).Id
		w.apply(state.CancelJob{Job: id, Reason: "enough"})
		w.apply(state.EndJob{Job: id, At: w.time().Add(time.Duration(i) * time.Second)})
		ids = append(ids, id)
	}
	return ids
}

// answers are all that the server says of a job.
func (w *world) answers(ref string) (all []proto.Message) {
	w.t.Helper()
	alice, one := w.user("alice"), &api.GetJobRequest{Job: ref}
	job, err := alice.GetJob(w.t.Context(), connect.NewRequest(one))
	require.NoError(w.t, err)
	why, err := alice.ExplainJob(w.t.Context(), connect.NewRequest(one))
	require.NoError(w.t, err)
	all = append(all, job.Msg, why.Msg)
	for _, req := range []*api.ListTasksRequest{{Job: ref}, {Job: ref, Failed: true}, {Job: ref, Running: true}, {Job: ref, Slow: true}} {
		tasks, err := alice.ListTasks(w.t.Context(), connect.NewRequest(req))
		require.NoError(w.t, err)
		all = append(all, tasks.Msg)
	}
	watch, err := alice.WatchJob(w.t.Context(), connect.NewRequest(one))
	require.NoError(w.t, err)
	require.True(w.t, watch.Receive(), watch.Err())
	all = append(all, proto.Clone(watch.Msg()))
	require.False(w.t, watch.Receive())
	require.NoError(w.t, watch.Close())
	attempt, text, err := w.logs(&api.JobLogsRequest{Job: ref})
	require.NoError(w.t, err)
	return append(all, &api.JobLogsResponse{Attempt: attempt, Data: []byte(text)})
}

func (w *world) list(req *api.ListJobsRequest) *api.ListJobsResponse {
	w.t.Helper()
	resp, err := w.user("alice").ListJobs(w.t.Context(), connect.NewRequest(req))
	require.NoError(w.t, err)
	return resp.Msg
}

func TestAJobOfTheHistoryAnswersAsBefore(t *testing.T) {
	w := newWorld(t)
	id := w.attempts()
	w.apply(state.FailJob{Job: id, Reason: "why not", Failure: &state.Failure{Task: "m-00000", Message: "exit code 3"}})
	w.apply(state.EndJob{Job: id, At: w.time()})
	w.tracker.set(id, tracker.Live{})
	attempt := id + "-m-00000-9-1"
	w.put("system", "here/logs/"+id+"/"+attempt+".log", "it said so\n")
	before, listed := w.answers(id), w.list(&api.ListJobsRequest{})

	w.cancelled(1)
	w.retire()
	_, there := w.state.View().Job(id)
	require.False(t, there, "it has moved")

	for _, ref := range []string{id, id[:8], before[0].(*api.Job).Name} {
		require.Empty(t, cmp.Diff(before, w.answers(ref), protocmp.Transform()), ref)
	}
	after := w.list(&api.ListJobsRequest{})
	require.Empty(t, after.Brief)
	require.Empty(t, cmp.Diff(listed.Jobs, after.Jobs[1:], protocmp.Transform()))

	_, err := w.user("alice").CancelJob(t.Context(), connect.NewRequest(&api.CancelJobRequest{Job: id}))
	requireProblems(t, err, client.ExitFailed, "has ended: FAILED")
}

func TestListsComeInPages(t *testing.T) {
	w := newWorld(t)
	w.ready()
	ids := w.cancelled(7)
	w.retire()
	open := wordcount()
	open.Name = "open"
	ids = append(ids, w.submit(open).Id)
	whole := w.list(&api.ListJobsRequest{})
	require.Len(t, whole.Jobs, 8)
	require.Zero(t, whole.More)
	for i, j := range whole.Jobs {
		require.Equal(t, ids[len(ids)-1-i], j.Id)
	}
	for _, c := range []struct {
		states []string
		want   int
	}{{nil, 8}, {[]string{"cancelled"}, 7}, {[]string{"PENDING"}, 1}, {[]string{"FAILED"}, 0}} {
		for limit := int32(1); limit < 10; limit++ {
			var jobs []*api.Job
			req := &api.ListJobsRequest{Limit: limit, States: c.states}
			for {
				resp := w.list(req)
				jobs = append(jobs, resp.Jobs...)
				if req.Before = resp.More; req.Before == 0 {
					break
				}
				require.Len(t, resp.Jobs, int(limit))
			}
			require.Len(t, jobs, c.want, "%d at a time, %v", limit, c.states)
			want := whole.Jobs
			if c.want == 7 {
				want = want[1:]
			}
			for i, j := range jobs {
				require.Empty(t, cmp.Diff(want[i], j, protocmp.Transform()))
			}
		}
	}
}

func TestWithoutItsStoreTheHistoryIsBrief(t *testing.T) {
	w := newWorld(t)
	w.ready()
	ids := w.cancelled(3)
	w.retire()
	whole := w.list(&api.ListJobsRequest{})
	w.store.Fault = func(op, _, _ string) error { return fmt.Errorf("%s: %w", op, objectstore.ErrUnreachable) }

	_, err := w.user("alice").GetJob(t.Context(), connect.NewRequest(&api.GetJobRequest{Job: ids[0]}))
	requireProblems(t, err, client.ExitUnreachable, "record of job "+ids[0]+" in the history", "store unreachable", "check that the object store runs")

	resp := w.list(&api.ListJobsRequest{})
	require.Contains(t, resp.Brief, "store unreachable")
	require.Len(t, resp.Jobs, 3)
	require.Empty(t, cmp.Diff(whole.Jobs[0], resp.Jobs[0], protocmp.Transform()), "the last one is in the state")
	first := resp.Jobs[2]
	require.Equal(t, []any{ids[0], "job 0", "CANCELLED", "alice", ""}, []any{first.Id, first.Name, first.State, first.User, first.Output})
	require.True(t, proto.Equal(whole.Jobs[2].EndedAt, first.EndedAt) && proto.Equal(whole.Jobs[2].SubmittedAt, first.SubmittedAt))
}

func TestARecordThatIsGoneIsNotFound(t *testing.T) {
	w := newWorld(t)
	w.ready()
	ids := w.cancelled(2)
	w.retire()
	require.NoError(t, w.store.Delete(t.Context(), "system", "here/history/"+ids[0]+".json.zst"))
	_, err := w.user("alice").GetJob(t.Context(), connect.NewRequest(&api.GetJobRequest{Job: ids[0]}))
	requireProblems(t, err, client.ExitNotFound, "s3://system/here/history/"+ids[0]+".json.zst", "not there any more", "--system")
}

func TestARequestOfAJobOfTheHistoryIsThatJob(t *testing.T) {
	w := newWorld(t)
	w.ready()
	spec := wordcount()
	spec.RequestId = "once"
	first := w.submit(spec)
	w.apply(state.CancelJob{Job: first.Id, Reason: "enough"})
	w.apply(state.EndJob{Job: first.Id, At: w.time()})
	w.cancelled(1)
	w.retire()
	_, there := w.state.View().Job(first.Id)
	require.False(t, there)

	again := w.submit(spec)
	require.Equal(t, []string{first.Id, "CANCELLED", "enough"}, []string{again.Id, again.State, again.Reason})
	other := proto.Clone(spec).(*api.JobSpec)
	other.Priority = 7
	_, err := w.user("alice").SubmitJob(t.Context(), connect.NewRequest(&api.SubmitJobRequest{Spec: other}))
	requireProblems(t, err, client.ExitUsage, "has made job "+first.Id, "priority")
}

// TestAWatchedJobMayMove: it ends and is in the history before the watcher looks again.
func TestAWatchedJobMayMove(t *testing.T) {
	w := newWorld(t)
	w.ready()
	id := w.submit(wordcount()).Id
	watch, err := w.user("alice").WatchJob(t.Context(), connect.NewRequest(&api.GetJobRequest{Job: id}))
	require.NoError(t, err)
	defer watch.Close()
	require.True(t, watch.Receive())
	require.Equal(t, "PENDING", watch.Msg().State)

	w.log.mu.Lock() // as one step: the job ends, another one, too, and it moves
	for _, c := range []state.Command{state.CancelJob{Job: id, Reason: "enough"}, state.EndJob{Job: id, At: w.time()}} {
		w.log.index++
		_, err := w.state.Apply(w.log.index, c)
		require.NoError(t, err)
	}
	w.log.mu.Unlock()
	w.cancelled(1)
	w.retire()
	last := ""
	for watch.Receive() {
		last = watch.Msg().State
	}
	require.NoError(t, watch.Err())
	require.Equal(t, "CANCELLED", last)
}

// A page that somebody has deleted costs a list nothing but time: the jobs' own records tell the same.
func TestAListWithoutItsPages(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.cancelled(5)
	before := w.list(&api.ListJobsRequest{})
	w.retire()
	for o, err := range w.store.List(t.Context(), "system", "here/history/pages/", objectstore.ListOptions{}) {
		require.NoError(t, err)
		require.NoError(t, w.store.Delete(t.Context(), "system", o.Key))
	}
	after := w.list(&api.ListJobsRequest{})
	require.Empty(t, after.Brief)
	require.Empty(t, cmp.Diff(before.Jobs, after.Jobs, protocmp.Transform()))
}

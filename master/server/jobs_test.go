package server

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/objectstore"
)

func TestSubmit(t *testing.T) {
	w := newWorld(t)
	w.ready()
	job := w.submit(wordcount())
	require.Regexp(t, `^s-[A-Z0-9]{13}$`, job.Id)
	require.Equal(t, "PENDING", job.State)
	require.Equal(t, "alice", job.User)
	require.Equal(t, []string{job.Id}, w.tracker.submitted)

	record, ok := w.state.View().Job(job.Id)
	require.True(t, ok)
	var spec api.JobSpec
	require.NoError(t, proto.Unmarshal(record.Spec, &spec))
	require.EqualValues(t, 128<<20, spec.SplitSize, "defaults are logged")
}

func TestSubmitMistakes(t *testing.T) {
	digest := "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	cases := []struct {
		name   string
		change func(w *world, s *api.JobSpec)
		exit   int32
		says   []string
	}{
		{"several at once", func(_ *world, s *api.JobSpec) { s.Program.Name, s.Cluster, s.Priority = "wordcuont", "nowhere", 0 },
			2, []string{"wordcuont", "no such cluster: nowhere"}},
		{"input that matches nothing", func(_ *world, s *api.JobSpec) { s.Input = []string{"s3://input/b", "s3://input/*.gz"} },
			2, []string{"input s3://input/b matches nothing", "input s3://input/*.gz matches nothing", "millrace fs ls s3://input"}},
		{"input bucket", func(_ *world, s *api.JobSpec) { s.Input = []string{"s3://inpt/a"} },
			2, []string{"no such bucket: inpt: did you mean input?"}},
		{"output bucket", func(_ *world, s *api.JobSpec) { s.Output = "s3://results/x" },
			2, []string{"output s3://results/x/: no such bucket: results", "millrace fs mb s3://results"}},
		{"output taken", func(w *world, s *api.JobSpec) { w.put("out", "x/part", "1"); w.put("out", "x/other", "1") },
			2, []string{"output s3://out/x/ is not empty (2 objects)", "choose another output, or add --overwrite"}},
		{"input and output", func(_ *world, s *api.JobSpec) { s.Input, s.Output = []string{"s3://input/none"}, "s3://none/x" },
			2, []string{"input s3://input/none matches nothing", "no such bucket: none"}},
		{"output with a name that is too long for its parts", func(_ *world, s *api.JobSpec) {
			s.Output = "s3://out/" + strings.Repeat("a", 1015) + "/"
		}, 2, []string{"the store takes no such names as aaa", "the key has 1029 bytes, more than 1024", "choose another output"}},
		{"file not uploaded", func(_ *world, s *api.JobSpec) {
			s.Program.Files = []*api.ShippedFile{{Name: "stop.txt", Sha256: digest}}
		}, 2, []string{"stop.txt", "has not been uploaded"}},
		{"store unreachable", func(w *world, s *api.JobSpec) {
			w.store.Fault = func(string, string, string) error { return objectstore.ErrUnreachable }
		}, 3, []string{"http://store.test", "store unreachable"}},
		{"store's key refused", func(w *world, s *api.JobSpec) {
			w.store.Fault = func(string, string, string) error { return objectstore.ErrDenied }
		}, 3, []string{"access denied"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.ready()
			spec := wordcount()
			c.change(w, spec)
			begin := time.Now()
			_, err := w.user("alice").SubmitJob(t.Context(), connect.NewRequest(&api.SubmitJobRequest{Spec: spec}))
			requireProblems(t, err, c.exit, c.says...)
			require.Less(t, time.Since(begin), time.Minute)
			require.Empty(t, w.state.View().Jobs(""), "nothing was started")
		})
	}
}

func TestOverwriteAllowsATakenOutput(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.put("out", "x/part", "1")
	spec := wordcount()
	spec.Overwrite = true
	require.True(t, proto.Equal(w.submit(spec).Maps, &api.TaskCounts{}))
}

func TestOutputReservedByAnotherJob(t *testing.T) {
	w := newWorld(t)
	w.ready()
	first := w.submit(wordcount())
	spec := wordcount()
	spec.Output = "s3://out/x/below"
	_, err := w.user("alice").SubmitJob(t.Context(), connect.NewRequest(&api.SubmitJobRequest{Spec: spec}))
	requireProblems(t, err, client.ExitUsage, first.Id, "reserved")
}

func TestARepeatedRequestIsTheSameJob(t *testing.T) {
	w := newWorld(t)
	w.ready()
	spec := wordcount()
	spec.RequestId = "once"
	first := w.submit(spec)
	w.put("out", "x/part-r-00000", "its own output is no obstacle")
	require.Equal(t, first.Id, w.submit(spec).Id)
	require.Len(t, w.state.View().Jobs(""), 1)

	other, err := w.user("bob").SubmitJob(t.Context(), connect.NewRequest(&api.SubmitJobRequest{Spec: spec}))
	require.Error(t, err, "another user's request id is another request: %v", other)
}

func TestDryRunStartsNothing(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.put("input", "d/1", "12345")
	w.put("input", "d/2", "12345")
	spec := wordcount()
	spec.Input = []string{"s3://input/d/"}
	resp, err := w.user("alice").SubmitJob(t.Context(), connect.NewRequest(&api.SubmitJobRequest{Spec: spec, DryRun: true}))
	require.NoError(t, err)
	require.EqualValues(t, 10, resp.Msg.BytesTotal)
	require.EqualValues(t, 1, resp.Msg.Maps.Total, "small objects share a split")
	require.EqualValues(t, 1, resp.Msg.Reduces.Total, "as many as the tracker would take")
	require.Empty(t, w.state.View().Jobs(""))

	for _, c := range []struct {
		change func(s *api.JobSpec)
		want   int64
	}{
		{func(s *api.JobSpec) { s.Reduces = proto.Int32(5) }, 5},
		{func(s *api.JobSpec) { s.Reduces = proto.Int32(0) }, 0},
		{func(s *api.JobSpec) { s.Program.Name, s.Program.Args = "grep", []string{"1"} }, 0},
	} {
		spec := proto.Clone(spec).(*api.JobSpec)
		c.change(spec)
		resp, err := w.user("alice").SubmitJob(t.Context(), connect.NewRequest(&api.SubmitJobRequest{Spec: spec, DryRun: true}))
		require.NoError(t, err)
		require.Equal(t, c.want, resp.Msg.Reduces.Total)
	}
}

func TestAJobThatIsTooLargeForTheLog(t *testing.T) {
	w := newWorld(t)
	w.ready()
	spec := wordcount()
	spec.Program.Args = []string{strings.Repeat("x", maxSpec)}
	_, err := w.user("alice").SubmitJob(t.Context(), connect.NewRequest(&api.SubmitJobRequest{Spec: spec}))
	require.Error(t, err)
	require.Empty(t, w.state.View().Jobs(""))

	spec = wordcount()
	spec.Program.Env = map[string]string{"LONG": strings.Repeat("x", maxSpec)}
	_, err = w.user("alice").SubmitJob(t.Context(), connect.NewRequest(&api.SubmitJobRequest{Spec: spec}))
	requireProblems(t, err, client.ExitUsage, "more than 131072")
	require.Empty(t, w.state.View().Jobs(""))
}

func TestAJobsOwnStoreIsSealed(t *testing.T) {
	w := newWorld(t)
	w.ready()
	spec := wordcount()
	spec.Store = &api.ObjectStore{Endpoint: "http://other.test", AccessKey: "k", SecretKey: "job's own secret"}
	job := w.submit(spec)
	record, ok := w.state.View().Job(job.Id)
	require.True(t, ok)
	require.NotContains(t, string(record.Spec), "job's own secret")
	plain, err := w.server.cfg.Seal.Open(record.SealedStore)
	require.NoError(t, err)
	require.Contains(t, string(plain), "job's own secret")
}

// run takes a job into MAPPING with the given numbers of tasks.
func (w *world) run(job string, maps, reduces int) {
	w.t.Helper()
	w.apply(state.PlanJob{Job: job, PlanKey: "plans/p", PlanDigest: "d", BytesTotal: 100, Maps: maps, Reduces: reduces, At: w.now})
}

func TestTheJobShowsWhatTheLeaderKnows(t *testing.T) {
	w := newWorld(t)
	w.ready()
	id := w.submit(wordcount()).Id
	get := func() *api.Job {
		resp, err := w.user("alice").GetJob(t.Context(), connect.NewRequest(&api.GetJobRequest{Job: id[:6]}))
		require.NoError(t, err)
		return resp.Msg
	}
	w.tracker.set(id, tracker.Live{Planning: true})
	require.Equal(t, []string{"RUNNING", "PLANNING"}, []string{get().State, get().Phase})

	w.run(id, 10, 2)
	w.tracker.set(id, tracker.Live{Maps: tracker.LiveTasks{Running: 4}, BytesDone: 40, BytesPerSecond: 20, ETA: 3 * time.Second})
	job := get()
	require.Equal(t, []string{"RUNNING", "MAPPING"}, []string{job.State, job.Phase})
	require.True(t, proto.Equal(&api.TaskCounts{Total: 10, Pending: 6, Running: 4}, job.Maps), "%v", job.Maps)
	require.True(t, proto.Equal(&api.TaskCounts{Total: 2, Pending: 2}, job.Reduces))
	require.Equal(t, []int64{40, 100, 20, 3000}, []int64{job.BytesDone, job.BytesTotal, job.BytesPerSecond, job.EtaMs})
}

func TestCountsAlwaysAddUp(t *testing.T) {
	for total := range 4 {
		for done := range 6 {
			for running := range 6 {
				c := counts(total, done, running)
				require.Equal(t, c.Total, c.Pending+c.Running+c.Completed, "%d %d %d", total, done, running)
				require.GreaterOrEqual(t, c.Pending, int64(0))
				require.GreaterOrEqual(t, c.Running, int64(0))
			}
		}
	}
}

func TestFindingAJob(t *testing.T) {
	w := newWorld(t)
	w.ready()
	_, err := w.user("alice").GetJob(t.Context(), connect.NewRequest(&api.GetJobRequest{Job: "last"}))
	requireProblems(t, err, client.ExitNotFound, "there is no job yet")

	a := wordcount()
	a.Name = "nightly"
	first := w.submit(a)
	b := wordcount()
	b.Output = "s3://out/y/"
	second := w.submit(b)
	for ref, want := range map[string]string{first.Id: first.Id, "nightly": first.Id, "last": second.Id} {
		got, err := w.user("alice").GetJob(t.Context(), connect.NewRequest(&api.GetJobRequest{Job: ref}))
		require.NoError(t, err, ref)
		require.Equal(t, want, got.Msg.Id, ref)
	}
	_, err = w.user("alice").GetJob(t.Context(), connect.NewRequest(&api.GetJobRequest{Job: "s-"}))
	requireProblems(t, err, client.ExitUsage, first.Id, second.Id)
	_, err = w.user("alice").ListJobs(t.Context(), connect.NewRequest(&api.ListJobsRequest{States: []string{"DONE"}}))
	requireProblems(t, err, client.ExitUsage, "no such job state: DONE")
	list, err := w.user("alice").ListJobs(t.Context(), connect.NewRequest(&api.ListJobsRequest{States: []string{"pending"}}))
	require.NoError(t, err)
	require.Len(t, list.Msg.Jobs, 2)
}

// Which job is the last one depends on the cluster. A list without a cluster is of the default one, and so is this.
func TestTheLastJobIsThatOfTheCluster(t *testing.T) {
	w := newWorld(t)
	w.ready()
	mine := w.submit(wordcount())
	none := int64(0)
	_, err := w.create(&api.CreateClusterRequest{Name: "nightly", Groups: []*api.GroupTarget{{Role: "core", Target: &none}}})
	require.NoError(t, err)
	b := wordcount()
	b.Name, b.Output, b.Cluster = "theirs", "s3://out/y/", "nightly"
	theirs := w.submit(b)
	for _, c := range []struct{ cluster, ref, want string }{
		{"", "last", mine.Id}, {"nightly", "last", theirs.Id}, {"nightly", "theirs", theirs.Id},
		{"", theirs.Id, theirs.Id}, {"", theirs.Id[:len(theirs.Id)-1], theirs.Id}, {"", "theirs", ""},
	} {
		got, err := w.user("alice").GetJob(t.Context(), connect.NewRequest(&api.GetJobRequest{Job: c.ref, Cluster: c.cluster}))
		if c.want == "" {
			requireProblems(t, err, client.ExitNotFound, "no such job: "+c.ref)
			continue
		}
		require.NoError(t, err, c)
		require.Equal(t, c.want, got.Msg.Id, c)
	}
}

func TestCancel(t *testing.T) {
	w := newWorld(t)
	w.ready()
	id := w.submit(wordcount()).Id
	cancel := func() (*api.Job, error) {
		resp, err := w.user("alice").CancelJob(t.Context(), connect.NewRequest(&api.CancelJobRequest{Job: id}))
		if err != nil {
			return nil, err
		}
		return resp.Msg, nil
	}
	for range 2 { // repeating it is no error
		job, err := cancel()
		require.NoError(t, err)
		require.Equal(t, "CANCEL_PENDING", job.State)
		require.Equal(t, "cancelled by alice", job.Reason)
	}
	require.Equal(t, []string{id}, w.tracker.cancelled)
	w.apply(state.EndJob{Job: id, At: w.now})
	job, err := cancel()
	require.NoError(t, err)
	require.Equal(t, "CANCELLED", job.State)
}

func TestCancelComesTooLate(t *testing.T) {
	w := newWorld(t)
	w.ready()
	id := w.submit(wordcount()).Id
	w.apply(state.FailJob{Job: id, Reason: "broken"})
	w.apply(state.EndJob{Job: id, At: w.now})
	_, err := w.user("alice").CancelJob(t.Context(), connect.NewRequest(&api.CancelJobRequest{Job: id}))
	requireProblems(t, err, client.ExitFailed, "has ended: FAILED")
}

// A leader that is none any more may hear how its successor ended the job, on the word of the very call that it could not answer.
func TestCancelUnderAChangeOfLeaders(t *testing.T) {
	w := newWorld(t)
	w.ready()
	id := w.submit(wordcount()).Id
	cancel := func() (*connect.Response[api.Job], error) {
		return w.user("alice").CancelJob(t.Context(), connect.NewRequest(&api.CancelJobRequest{Job: id}))
	}
	var elsewhere error
	w.log.before = func() {
		for _, c := range []state.Command{state.CancelJob{Job: id, Reason: "cancelled by alice"}, state.EndJob{Job: id, At: w.now}} {
			_, err := w.log.Apply(t.Context(), c)
			elsewhere = errors.Join(elsewhere, err)
		}
		w.log.fault = ErrNotLeader
	}
	_, err := cancel()
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err), "%v", err)
	require.NoError(t, elsewhere)
	w.log.fault = nil
	job, err := cancel()
	require.NoError(t, err)
	require.Equal(t, "CANCELLED", job.Msg.State)
}

// watch follows a job; next gives message after message.
func (w *world) watch(job string) (next func() *api.Job, ended func() error) {
	w.t.Helper()
	stream, err := w.user("alice").WatchJob(w.t.Context(), connect.NewRequest(&api.GetJobRequest{Job: job}))
	require.NoError(w.t, err)
	w.t.Cleanup(func() { stream.Close() })
	next = func() *api.Job {
		w.t.Helper()
		require.True(w.t, stream.Receive(), "%v", stream.Err())
		return proto.Clone(stream.Msg()).(*api.Job)
	}
	ended = func() error {
		require.False(w.t, stream.Receive())
		return stream.Err()
	}
	return next, ended
}

func TestWatchHoldsBackNeitherTheFirstChangeNorTheEnd(t *testing.T) {
	w := newWorld(t)
	w.server.watchEvery = time.Hour // whatever is held back never comes
	w.ready()
	id := w.submit(wordcount()).Id
	next, end := w.watch(id)
	require.Equal(t, "PENDING", next().State)
	w.tracker.set(id, tracker.Live{Planning: true})
	require.Equal(t, "PLANNING", next().Phase)
	w.run(id, 4, 1)
	require.Equal(t, "MAPPING", next().Phase, "people wait for phases")
	w.tracker.set(id, tracker.Live{Maps: tracker.LiveTasks{Running: 2}, BytesDone: 60}) // may wait
	w.apply(state.FailJob{Job: id, Reason: "broken"})
	w.apply(state.EndJob{Job: id, At: w.now})
	last := next()
	for ; last.State != "FAILED"; last = next() {
	}
	require.Equal(t, "broken", last.Reason)
	require.NoError(t, end())
}

func TestWatchGathersProgress(t *testing.T) {
	w := newWorld(t)
	w.ready()
	id := w.submit(wordcount()).Id
	next, _ := w.watch(id)
	next()
	w.run(id, 4, 1)
	next()
	begin, messages := time.Now(), 0
	for i := range 200 {
		w.tracker.set(id, tracker.Live{Maps: tracker.LiveTasks{Running: 2}, BytesDone: int64(i/2 + 1)})
	}
	for job := next(); job.BytesDone != 100; job = next() { // the last word comes
		messages++
	}
	require.LessOrEqual(t, messages, int(time.Since(begin)/watchEvery)+1)
}

func TestWatchEndsWithTheLeadership(t *testing.T) {
	w := newWorld(t)
	w.ready()
	id := w.submit(wordcount()).Id
	stream, err := w.user("alice").WatchJob(t.Context(), connect.NewRequest(&api.GetJobRequest{Job: id}))
	require.NoError(t, err)
	defer stream.Close()
	require.True(t, stream.Receive())
	close(w.done)
	require.False(t, stream.Receive())
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(stream.Err()))
}

func TestErrorsBecomeCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code connect.Code
		exit int32
	}{
		{ErrNotLeader, connect.CodeUnavailable, 3},
		{&state.OutputReservedError{Job: "s-1", Output: "s3://o/"}, connect.CodeFailedPrecondition, 2},
		{state.ErrToken, connect.CodeUnauthenticated, 3},
		{state.ErrNotFound, connect.CodeNotFound, 4},
		{state.ErrTooLate, connect.CodeFailedPrecondition, 1},
		{objectstore.ErrUnreachable, connect.CodeFailedPrecondition, 3},
		{objectstore.ErrDenied, connect.CodeFailedPrecondition, 3},
		{objectstore.ErrNoSuchBucket, connect.CodeInvalidArgument, 2},
		{usage("next", "a", "b"), connect.CodeInvalidArgument, 2},
		{notFound("", "no such thing"), connect.CodeNotFound, 4},
		{errors.New("unforeseen"), connect.CodeInternal, 1},
	} {
		got := toConnect(fmt.Errorf("wrapped: %w", c.err))
		require.Equal(t, c.code, connect.CodeOf(got), "%v", c.err)
		require.Equal(t, c.exit, client.Problems(got).ExitCode, "%v", c.err)
	}
	require.NoError(t, toConnect(nil))
	require.Equal(t, []string{"a", "b"}, client.Problems(toConnect(usage("next", "a", "b"))).Errors)
}

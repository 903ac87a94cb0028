package server

import (
	"regexp"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return noon.Add(-d) }

func core(id string, running int64) *api.Node {
	return &api.Node{Id: id, Name: "host", Role: state.RoleCore, State: nodeRunning, Slots: 2, Running: running}
}

// mapping is a job that is at its maps: 10 of them, 4 done, on one idle core node.
func mapping() *facts {
	return &facts{
		now:   noon,
		job:   &state.Job{ID: "s-1", Cluster: "j-1", State: state.JobRunning, Phase: state.PhaseMapping, Maps: 10, MapsDone: 4, Reduces: 2},
		nodes: []*api.Node{core("i-1", 0)},
		live:  tracker.Live{Maps: tracker.LiveTasks{Running: 2}},
	}
}

func failedAttempt(task, attempt, node, message string, at time.Time) state.EndedAttempt {
	return state.EndedAttempt{Attempt: attempt, Node: node, State: "FAILED", EndedAt: at,
		Failure: state.Failure{Task: task, Attempt: attempt, Node: node, Message: message}}
}

func TestWhyAJobWaits(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(f *facts)
		cause  string // a pattern
		detail string // a pattern of one of the details; "" = none is looked for
	}{
		{"nothing holds it up", func(f *facts) { f.live.ETA = 90 * time.Second },
			`^maps: 4 of 10 done, 2 running; reduces: 0 of 2 done, 0 running; about 1m30s to go$`, ""},
		{"the store stutters", func(f *facts) { f.live.StoreRetries, f.live.StoreTrouble = 3, "503 SlowDown" }, "^maps: 4 of 10", "repeated so far: 3, the last one after: 503 SlowDown"},
		{"not taken up", func(f *facts) { f.job.Phase, f.job.State = "", state.JobPending }, "leader has not taken it up yet", ""},
		{"planning", func(f *facts) { f.job.Phase, f.live.Planning = "", true }, "being listed and cut", ""},
		{"planning, with the store away", func(f *facts) {
			f.job.Phase, f.live.Planning, f.live.Trouble, f.live.Since = "", true, "list s3://in/: connection refused", ago(3*time.Minute)
		}, `store is tried again and again since 11:57:00Z \(for 3m0s\): list s3://in/: connection refused$`, "being listed"},
		{"committing", func(f *facts) { f.job.Phase = state.PhaseCommitting }, "committing its output: 2 parts are put in place", ""},
		{"committing, map-only", func(f *facts) { f.job.Phase, f.job.Reduces, f.job.Maps = state.PhaseCommitting, 0, 1 }, "1 part is put in place", ""},
		{"no node at all", func(f *facts) { f.nodes = nil }, "^the cluster has no node$", "maps: 4 of 10"},
		{"no node up", func(f *facts) {
			f.nodes[0].State, f.nodes[0].Reason = nodeLost, "it has no session with the leader"
		}, "no node is up: 1 node lost", `^node i-1 \(host\) is lost \(it has no session|node i-1 .* is lost`},
		{"no node yet", func(f *facts) {
			f.nodes, f.cluster = nil, &state.Cluster{Name: "nightly", User: "ada", Groups: []state.Group{{Role: state.RoleCore, Target: 2}, {Role: state.RoleTask, Target: 1}}}
		}, "^the cluster has no node: 3 nodes are to come$", "maps: 4 of 10"},
		{"no core node", func(f *facts) { f.nodes[0].Role = state.RoleTask }, "no core node is up", ""},
		{"a map-only job needs no core node", func(f *facts) { f.nodes[0].Role, f.job.Reduces = state.RoleTask, 0 }, "^maps: 4 of 10 done, 2 running$", ""},
		{"no room on the disks", func(f *facts) { f.nodes[0].Reason = "its disk is full: 1 MiB free" },
			`^node i-1 \(host\) takes no tasks now: its disk is full: 1 MiB free$`, ""},
		{"no room for its tasks on any disk", func(f *facts) { f.live.NoRoom = "no node has room on its disk for the tasks that wait: i-1: disk full" },
			`^no node has room on its disk for the tasks that wait: i-1: disk full$`, ""},
		{"lost maps", func(f *facts) {
			f.job.Phase, f.job.MapsDone, f.live.Again, f.live.Maps.Running = state.PhaseReducing, 9, 1, 1
			f.maps = []*state.Task{{ID: state.TaskID{Kind: state.Map, Index: 3}, Prior: &state.Completion{SegmentNode: "i-9"}}}
		}, "^1 map runs again, because what they had written was lost with node i-9; the reduces wait for them$", ""},
		{"reduces started over", func(f *facts) { f.job.ReduceRound = 1 }, "all reduces started over", ""},
		{"a task that failed", func(f *facts) {
			f.maps = []*state.Task{
				{ID: state.TaskID{Kind: state.Map}, Failures: 1, Ended: []state.EndedAttempt{failedAttempt("m-00000", "a2", "i-2", "exit code 2", ago(time.Minute))}},
				{ID: state.TaskID{Kind: state.Map, Index: 1}, Failures: 1, Ended: []state.EndedAttempt{failedAttempt("m-00001", "a1", "i-1", "exit code 1", ago(time.Hour))}},
				{ID: state.TaskID{Kind: state.Map, Index: 2}, Done: true, Failures: 1, Ended: []state.EndedAttempt{failedAttempt("m-00002", "a0", "i-1", "exit code 0", ago(2*time.Hour))}},
			}
		}, "^2 tasks have failed and made again; first attempt a1 on node i-1: exit code 1$", ""},
		{"its own tasks have all slots", func(f *facts) { f.nodes[0].Running = 2 }, "4 tasks wait for a slot: the job itself has all 2", ""},
		{"another job has the slots", func(f *facts) {
			f.nodes[0].Running, f.live.Maps.Running = 2, 0
			f.others = []*api.Job{
				{Id: "s-2", Name: "idle", Maps: &api.TaskCounts{Pending: 5}},
				{Id: "s-3", Name: "big", Priority: 7, Maps: &api.TaskCounts{Running: 2, Pending: 1}},
			}
		}, `^6 tasks wait for a slot: of 2, 0 are taken by this job, 2 by s-3 \(big, priority 7\); 1 task goes of jobs with a higher priority before$`, ""},
		{"a node was lost with work of it", func(f *facts) {
			f.nodes = append(f.nodes, &api.Node{Id: "i-9", Name: "gone", State: nodeLost, Reason: "no session"}, &api.Node{Id: "i-8", State: nodeLost})
			f.maps = []*state.Task{{Ended: []state.EndedAttempt{{Attempt: "a1", Node: "i-9", State: state.AttemptLost}}}}
		}, `^node i-9 \(gone\) is lost \(no session\), and with it 1 attempt of this job$`, "1 node is lost of the cluster, and had no work of this job"},
		{"a node was lost before", func(f *facts) {
			f.nodes[0].Running = 2
			f.nodes = append(f.nodes, &api.Node{Id: "i-8", State: nodeLost})
		}, "4 tasks wait for a slot: the job itself has all 2", "1 node is lost of the cluster, and had no work of this job"},
		{"a straggler", func(f *facts) {
			done := &state.Completion{StartedAt: ago(time.Hour), EndedAt: ago(time.Hour).Add(20 * time.Second)}
			f.maps = []*state.Task{{Done: true, Win: done}}
			f.live.Attempts = []tracker.LiveAttempt{
				{ID: "a7", Task: state.TaskID{Kind: state.Map, Index: 7}, Node: "i-1", Started: true, StartedAt: ago(5 * time.Minute), MovedAt: ago(time.Second), BytesDone: 42},
				{ID: "a8", Task: state.TaskID{Kind: state.Map, Index: 8}, Node: "i-1", Started: true, StartedAt: ago(10 * time.Second), MovedAt: ago(time.Second)},
			}
		}, `^task m-00007 is slow: on node i-1 since 11:55:00Z \(5m0s; others took 20s\), 42 bytes so far$`, "^maps: 4"},
		{"an attempt that stands still", func(f *facts) {
			f.live.Attempts = []tracker.LiveAttempt{{ID: "a7", Task: state.TaskID{Kind: state.Map, Index: 7}, Node: "i-1", Started: true, StartedAt: ago(time.Minute), MovedAt: ago(40 * time.Second)}}
		}, `^task m-00007 on node i-1, running since 11:59:00Z, has shown no progress for 40s`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := mapping()
			c.change(f)
			e := f.explain()
			require.Regexp(t, c.cause, e.Cause)
			require.NotEmpty(t, e.Next)
			if c.detail != "" {
				require.Condition(t, func() bool {
					for _, d := range e.Details {
						if matches(c.detail, d) {
							return true
						}
					}
					return false
				}, "%q", e.Details)
			}
		})
	}
}

func TestTheMostBasicCauseComesFirst(t *testing.T) {
	f := mapping()
	f.nodes = nil
	f.live.Trouble = "put: connection refused"
	e := f.explain()
	require.Contains(t, e.Cause, "connection refused")
	require.Equal(t, "the cluster has no node", e.Details[0])
}

func TestWhyAJobFailed(t *testing.T) {
	last := failedAttempt("m-00003", "a9", "i-2", "connection refused", noon)
	f := &facts{now: noon, job: &state.Job{ID: "s-1", State: state.JobFailed, Reason: "task m-00003 failed 2 times: connection refused", Failure: &last.Failure},
		maps: []*state.Task{
			{ID: state.TaskID{Kind: state.Map, Index: 1}, Ended: []state.EndedAttempt{failedAttempt("m-00001", "a0", "i-1", "of another task", ago(time.Hour))}},
			{ID: state.TaskID{Kind: state.Map, Index: 3}, Ended: []state.EndedAttempt{
				last,
				{Attempt: "a2", State: "KILLED", EndedAt: ago(2 * time.Hour)},
				failedAttempt("m-00003", "a3", "i-1", "exit code 1", ago(time.Minute)),
			}},
		}}
	e := f.explain()
	require.Equal(t, "task m-00003 failed 2 times: exit code 1", e.Cause, "the first cause, not what followed")
	require.Equal(t, "a3", e.Failure.Attempt)
	require.Equal(t, []string{"later, attempt a9 on node i-2: connection refused"}, e.Details)
	require.Equal(t, "millrace job logs s-1 --attempt a3", e.Next)

	f.maps[1].Ended[0].Failure.Message = "exit code 1"
	require.Equal(t, []string{"the same every time, on 2 nodes"}, f.explain().Details)

	f.job.Reason, f.job.Failure.Attempt = "its completion was refused 8 times", "a12"
	e = f.explain()
	require.Equal(t, "its completion was refused 8 times", e.Cause, "what an attempt did that has not failed: earlier failures are another matter")
	require.Equal(t, "a12", e.Failure.Attempt)

	f = &facts{job: &state.Job{State: state.JobFailed, Reason: "commit: access denied"}}
	require.Equal(t, "commit: access denied", f.explain().Cause, "what no attempt did")
	f = &facts{job: &state.Job{State: state.JobRunning, Ending: state.JobFailed, Reason: "r"}, live: tracker.Live{Trouble: "abort upload: reset"}}
	require.Equal(t, []string{"what it left is being removed", "tried again and again: abort upload: reset"}, f.explain().Details)
}

func TestWhyAJobHasEnded(t *testing.T) {
	e := (&facts{job: &state.Job{State: state.JobCompleted, Failed: 2}}).explain()
	require.Equal(t, "it did what was asked", e.Cause)
	require.Len(t, e.Details, 1)
	e = (&facts{job: &state.Job{State: state.JobCancelled, Reason: "timed out after 5s"}}).explain()
	require.Equal(t, "timed out after 5s", e.Cause)
	require.Empty(t, e.Details)
	require.Equal(t, "it was cancelled", (&facts{job: &state.Job{State: state.JobCancelled}}).explain().Cause)
}

func TestExplainJobGathersTheFacts(t *testing.T) {
	w := newWorld(t)
	w.ready()
	job := w.submit(wordcount())
	w.tracker.set(job.Id, tracker.Live{Planning: true, Trouble: "list s3://input/: connection refused", Since: noon})
	resp, err := w.user("alice").ExplainJob(t.Context(), connect.NewRequest(&api.GetJobRequest{Job: "last"}))
	require.NoError(t, err)
	require.Equal(t, job.Id, resp.Msg.Job.Id)
	require.Contains(t, resp.Msg.Cause, "connection refused")
	_, err = w.user("alice").ExplainJob(t.Context(), connect.NewRequest(&api.GetJobRequest{Job: "nothing"}))
	requireProblems(t, err, 4, "no such job: nothing")
}

func matches(pattern, s string) bool { return regexp.MustCompile(pattern).MatchString(s) }

func TestAJobsNameThatIsNearlyRight(t *testing.T) {
	w := newWorld(t)
	w.ready()
	spec := wordcount()
	spec.Name = "nightly"
	w.submit(spec)
	_, err := w.user("alice").GetJob(t.Context(), connect.NewRequest(&api.GetJobRequest{Job: "nigthly"}))
	requireProblems(t, err, 4, "no such job: nigthly: did you mean nightly?")

	w.apply(state.CreateCluster{Cluster: state.Cluster{ID: "j-B", Name: "batch"}})
	spec.Name, spec.Cluster, spec.Output = "report", "batch", "s3://out/report/"
	w.submit(spec)
	_, err = w.user("alice").GetJob(t.Context(), connect.NewRequest(&api.GetJobRequest{Job: "report"}))
	requireProblems(t, err, 4, "no such job: report: the one of that name is of cluster batch", "--cluster batch")
}

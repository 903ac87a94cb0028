package server

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/jobs/input"
	"millrace/master/session"
	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/security"
)

func sumOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// upload sends content in pieces, under a sum and size of its own choice.
func (w *world) upload(sum string, size int64, pieces ...string) error {
	w.t.Helper()
	stream := w.user("alice").UploadFile(w.t.Context())
	first := &api.UploadFileRequest{Sha256: sum, Size: size}
	for _, p := range pieces {
		first.Data = []byte(p)
		if err := stream.Send(first); err != nil {
			break // the answer says why
		}
		first = &api.UploadFileRequest{}
	}
	_, err := stream.CloseAndReceive()
	return err
}

func TestUpload(t *testing.T) {
	w := newWorld(t)
	content := strings.Repeat("program ", 100)
	sum := sumOf(content)
	missing := func() []string {
		resp, err := w.user("alice").MissingFiles(t.Context(), connect.NewRequest(&api.MissingFilesRequest{Sha256: []string{sum}}))
		require.NoError(t, err)
		return resp.Msg.Sha256
	}
	require.Equal(t, []string{sum}, missing())

	for name, err := range map[string]error{
		"other content": w.upload(sum, 5, "other"),
		"too short":     w.upload(sum, int64(len(content)), content[:10]),
		"too long":      w.upload(sum, 10, content),
		"no sum":        w.upload("", 1, "x"),
		"a path":        w.upload("../../plans/x", 1, "x"),
		"huge":          w.upload(sum, 1<<50, "x"),
	} {
		requireProblems(t, err, client.ExitUsage)
		require.Equal(t, []string{sum}, missing(), name)
	}

	for range 2 { // again is no error
		require.NoError(t, w.upload(sum, int64(len(content)), content[:300], content[300:]))
	}
	require.Empty(t, missing())
	body, err := w.store.Get(t.Context(), "system", "here/programs/"+sum, 0, -1, "")
	require.NoError(t, err)
	stored, err := io.ReadAll(body)
	require.NoError(t, err)
	require.Equal(t, content, string(stored))

	left, err := os.ReadDir(w.server.cfg.TempDir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// attempts gives a running job one failed map attempt, one completed and one running one.
func (w *world) attempts() (job string) {
	w.t.Helper()
	w.ready()
	job = w.submit(wordcount()).Id
	plan := input.NewPlan([]*api.Split{
		{Pieces: []*api.Piece{{Bucket: "input", Key: "a", Length: 60, ObjectSize: 100}}},
		{Pieces: []*api.Piece{{Bucket: "input", Key: "a", Offset: 60, Length: 40, ObjectSize: 100}}},
	})
	data, digest, err := plan.Encode()
	require.NoError(w.t, err)
	w.put("system", "here/plans/p", string(data))
	w.apply(state.PlanJob{Job: job, PlanKey: "plans/p", PlanDigest: digest, BytesTotal: 100, Maps: 2, Reduces: 1, At: w.now})
	w.apply(state.PutNode{Node: state.Node{ID: workerID, Role: state.RoleCore, Cluster: "j-DEFAULT", Name: "w"}})
	m0 := state.TaskID{Kind: state.Map, Index: 0}
	w.apply(state.EndTasks{Items: []state.EndTask{{
		Job: job, Task: m0, CountsAs: "failed", Ended: &state.EndedAttempt{
			Attempt: job + "-m-00000-9-1", Node: workerID, State: "FAILED", StartedAt: w.now, EndedAt: w.now,
			Failure: state.Failure{Message: "it broke", ExitCode: 3},
		},
	}}})
	w.apply(state.EndTasks{Items: []state.EndTask{{Job: job, Task: m0, Win: &state.Completion{
		Attempt: job + "-m-00000-9-2", Node: workerID, SegmentNode: workerID, StartedAt: w.now, EndedAt: w.now.Add(time.Second), InputBytes: 60,
	}}}})
	w.tracker.set(job, tracker.Live{Maps: tracker.LiveTasks{Running: 1}, Attempts: []tracker.LiveAttempt{
		{ID: job + "-m-00001-9-3", Task: state.TaskID{Kind: state.Map, Index: 1}, Node: workerID, Started: true, StartedAt: w.now, BytesDone: 11},
		{ID: job + "-r-00000-9-4", Task: state.TaskID{Kind: state.Reduce, Index: 0}, Node: workerID},
	}})
	return job
}

func TestTasks(t *testing.T) {
	w := newWorld(t)
	job := w.attempts()
	list := func(m *api.ListTasksRequest) []*api.Task {
		m.Job = job
		resp, err := w.user("alice").ListTasks(t.Context(), connect.NewRequest(m))
		require.NoError(t, err)
		return resp.Msg.Tasks
	}
	all := list(&api.ListTasksRequest{})
	require.Len(t, all, 3)
	require.Equal(t, []string{"m-00000", "m-00001", "r-00000"}, []string{all[0].Id, all[1].Id, all[2].Id})
	require.Equal(t, []string{"COMPLETED", "RUNNING", "PENDING"}, []string{all[0].State, all[1].State, all[2].State})
	require.Equal(t, "s3://input/a", all[1].Input)
	require.Equal(t, []int64{60, 40}, []int64{all[1].Offset, all[1].Length})
	require.Len(t, all[0].Attempts, 2)
	require.Equal(t, "it broke", all[0].Attempts[0].Cause)
	require.Equal(t, "COMPLETED", all[0].Attempts[1].State)
	require.EqualValues(t, 11, all[1].Attempts[0].BytesDone)
	require.Empty(t, all[2].Attempts, "a prefetched lease is pending")

	require.Len(t, list(&api.ListTasksRequest{Failed: true}), 1)
	require.Len(t, list(&api.ListTasksRequest{Running: true}), 1)
	require.Empty(t, list(&api.ListTasksRequest{Slow: true}))
	w.later(10 * time.Second)
	slow := list(&api.ListTasksRequest{Slow: true})
	require.Len(t, slow, 1)
	require.Equal(t, "m-00001", slow[0].Id)
}

// logs reads a log to its end.
func (w *world) logs(m *api.JobLogsRequest) (attempt, text string, err error) {
	w.t.Helper()
	stream, err := w.user("alice").JobLogs(w.t.Context(), connect.NewRequest(m))
	require.NoError(w.t, err)
	defer stream.Close()
	for stream.Receive() {
		attempt += stream.Msg().Attempt
		text += string(stream.Msg().Data)
	}
	return attempt, text, stream.Err()
}

// logWorker is a worker, by its address, that has the log of one attempt, JOB/ATTEMPT, for masters alone.
func (w *world) logWorker(node, attempt string) (address string) {
	w.t.Helper()
	worker := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		peer, ok := security.PeerIdentity(r.TLS)
		if !ok || peer.Role != security.RoleMaster || r.URL.Path != logsByPath+attempt {
			http.NotFound(rw, r)
			return
		}
		io.WriteString(rw, "from the worker")
	}))
	var err error
	worker.TLS, err = w.credential(security.RoleWorker, node).ServerTLS(true)
	require.NoError(w.t, err)
	worker.StartTLS()
	w.t.Cleanup(worker.Close)
	return worker.URL
}

func TestLogs(t *testing.T) {
	w := newWorld(t)
	job := w.attempts()
	failed := job + "-m-00000-9-1"

	_, _, err := w.logs(&api.JobLogsRequest{Job: job})
	requireProblems(t, err, client.ExitNotFound, "is gone", workerID)

	w.put("system", "here/logs/"+job+"/"+failed+".log", "from the store")
	attempt, text, err := w.logs(&api.JobLogsRequest{Job: job})
	require.NoError(t, err)
	require.Equal(t, []string{failed, "from the store"}, []string{attempt, text}, "the first failed attempt's, without being told")

	// While the worker is connected, it is asked itself, and must be who it should be.
	worker := w.logWorker(workerID, job+"/"+failed)
	w.sessions.nodes = []session.Node{{ID: workerID, Address: worker, Connected: true}}
	_, text, err = w.logs(&api.JobLogsRequest{Job: job, Attempt: failed})
	require.NoError(t, err)
	require.Equal(t, "from the worker", text)

	_, _, err = w.logs(&api.JobLogsRequest{Job: job, Attempt: "s-OTHER-m-00000-9-1"})
	requireProblems(t, err, client.ExitNotFound, "has no attempt")
	_, _, err = w.logs(&api.JobLogsRequest{Job: job, Attempt: job + "-m-00000-9-1/../../x"})
	requireProblems(t, err, client.ExitNotFound)
}

func TestLogsOfAJobWithoutFailures(t *testing.T) {
	w := newWorld(t)
	w.ready()
	_, _, err := w.logs(&api.JobLogsRequest{Job: w.submit(wordcount()).Id})
	requireProblems(t, err, client.ExitFailed, "no attempt of job", "--attempt")
}

func TestClusterAndNodes(t *testing.T) {
	w := newWorld(t)
	cluster := func() *api.Cluster {
		resp, err := w.user("alice").GetCluster(t.Context(), connect.NewRequest(&api.GetClusterRequest{}))
		require.NoError(t, err)
		return resp.Msg
	}
	require.Equal(t, "STARTING", cluster().State)
	w.apply(state.PutNode{Node: state.Node{ID: workerID, Role: state.RoleCore, Cluster: "j-DEFAULT", Group: "ig-CORE", Name: "w"}})
	require.Equal(t, "STARTING", cluster().State)
	require.Contains(t, strings.Join(cluster().Problems, "\n"), "is lost")

	w.sessions.nodes = []session.Node{{
		ID: workerID, Address: "https://w:1", Slots: 4, Memory: 1 << 30, PID: 42, Version: "v", LastSeen: w.now, Connected: true,
	}}
	c := cluster()
	require.Equal(t, "WAITING", c.State)
	require.Empty(t, c.Problems)
	require.Equal(t, []int64{4, 1, 7}, []int64{c.SlotsTotal, c.SlotsRunning, c.QueuedTasks})
	require.EqualValues(t, 1, c.Groups[0].Running)
	require.Len(t, c.Masters, 1)

	w.ready()
	w.submit(wordcount())
	require.Equal(t, "RUNNING", cluster().State)

	nodes, err := w.user("alice").ListNodes(t.Context(), connect.NewRequest(&api.ListNodesRequest{}))
	require.NoError(t, err)
	require.Len(t, nodes.Msg.Nodes, 2)
	master, worker := nodes.Msg.Nodes[0], nodes.Msg.Nodes[1]
	require.True(t, master.Leader)
	require.Equal(t, []string{"CORE", "RUNNING", "https://w:1"}, []string{worker.Role, worker.State, worker.Address})
	require.EqualValues(t, 42, worker.Pid)

	_, err = w.user("alice").ListNodes(t.Context(), connect.NewRequest(&api.ListNodesRequest{Cluster: "nowhere"}))
	requireProblems(t, err, client.ExitNotFound, "no such cluster: nowhere")
	clusters, err := w.user("alice").ListClusters(t.Context(), connect.NewRequest(&api.ListClustersRequest{}))
	require.NoError(t, err)
	require.Len(t, clusters.Msg.Clusters, 1)
}

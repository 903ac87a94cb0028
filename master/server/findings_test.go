package server

import (
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"millrace/master/session"
	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/objectstore"
)

// refused submits a job that must be refused, and gives what was said.
func (w *world) refused(req *api.SubmitJobRequest, exit int32) *api.Problems {
	w.t.Helper()
	_, err := w.user("alice").SubmitJob(w.t.Context(), connect.NewRequest(req))
	p := requireProblems(w.t, err, exit)
	require.Len(w.t, w.tracker.submitted, len(w.state.View().Jobs("")), "nothing was started")
	return p
}

func TestEveryMistakeIsNamedOnce(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.put("out", "x/part", "1")
	spec := wordcount()
	spec.Program.Name, spec.InputFormat, spec.Reduces = "wordcuont", "avro", proto.Int32(-1)
	spec.Input = []string{"s3://inptu/a", "s3://input/none", "s3://input/none", "hdfs:///a/../x", "s3://input/["}
	spec.Cluster = "nowhere"
	p := w.refused(&api.SubmitJobRequest{Spec: spec}, client.ExitUsage)
	require.Equal(t, []string{
		`input "hdfs:///a/../x": a path cannot have ".." in it`,
		`input "s3://input/[" is not a valid glob`,
		"reduces -1: there cannot be fewer than 0 (0 is map-only)",
		`unknown input format "avro": there is text`,
		`no built-in program "wordcuont"; did you mean wordcount?`,
		"no such cluster: nowhere",
		"output s3://out/x/ is not empty (1 object)",
		"input s3://inptu/a: no such bucket: inptu: did you mean input?",
		"input s3://input/none matches nothing",
	}, p.Errors)

	// Whoever has found the spec's mistakes already asks for the others.
	p = w.refused(&api.SubmitJobRequest{Spec: spec, PlacesOnly: true}, client.ExitUsage)
	require.Len(t, p.Errors, 4)
	spec = wordcount()
	spec.Output, spec.Program = "s3://out/y/", nil
	resp, err := w.user("alice").SubmitJob(t.Context(), connect.NewRequest(&api.SubmitJobRequest{Spec: spec, PlacesOnly: true}))
	require.NoError(t, err)
	require.Empty(t, resp.Msg.Id)
	require.Empty(t, w.state.View().Jobs(""))
}

// A result has no folders: a bucket that has some is not replaced by one.
func TestAWholeBucketIsNotOverwritten(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.put("out", "part-r-00000", "1")
	spec := wordcount()
	spec.Output = "s3://out"
	p := w.refused(&api.SubmitJobRequest{Spec: spec}, client.ExitUsage)
	require.Equal(t, []string{"output s3://out/ is not empty (1 object)"}, p.Errors)
	require.Equal(t, "name a folder in it: s3://out/NAME/", p.Next)
	spec.Overwrite = true
	w.put("out", "in/photo.jpg", "1")
	p = w.refused(&api.SubmitJobRequest{Spec: spec}, client.ExitUsage)
	require.Equal(t, []string{"output s3://out/ is a whole bucket, and there is more in it than a result (in/): --overwrite would delete all of it"}, p.Errors)
	require.NoError(t, w.store.Delete(t.Context(), "out", "in/photo.jpg"))
	w.store.Fault = func(op, bucket, _ string) error {
		if op == "List" && bucket == "out" {
			return objectstore.ErrDenied
		}
		return nil
	}
	p = w.refused(&api.SubmitJobRequest{Spec: spec}, client.ExitUnreachable)
	require.Len(t, p.Errors, 1, "what cannot be looked at is not overwritten, and that is said once: %v", p.Errors)
	w.store.Fault = nil
	w.submit(spec)
}

func TestMistakesAndTroubleTogether(t *testing.T) {
	w := newWorld(t)
	w.ready()
	first := w.submit(wordcount())
	w.store.Fault = func(op, bucket, key string) error {
		return &objectstore.Error{Op: op, URL: "s3://" + bucket, Kind: objectstore.ErrUnreachable, Err: context.DeadlineExceeded}
	}
	spec := wordcount()
	spec.MaxAttempts = -1
	p := w.refused(&api.SubmitJobRequest{Spec: spec}, client.ExitUsage)
	require.Equal(t, []string{
		"max attempts -1: a task needs at least 1",
		"output s3://out/x/ is reserved by job " + first.Id,
		"object store http://store.test: store unreachable: context deadline exceeded",
	}, p.Errors)
	require.Contains(t, p.Next, "millrace job wait "+first.Id)
}

func TestAnOutputThatMayNotBeWritten(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.store.Fault = func(op, bucket, key string) error {
		if op != "UploadPart" {
			return nil
		}
		return &objectstore.Error{Op: op, URL: "s3://" + bucket + "/" + key, Kind: objectstore.ErrDenied, Code: "AccessDenied", Err: errText("Access Denied.")}
	}
	p := w.refused(&api.SubmitJobRequest{Spec: wordcount()}, client.ExitUnreachable)
	require.Equal(t, []string{"object store http://store.test: output s3://out/x/: access denied: Access Denied."}, p.Errors)
}

type errText string

func (e errText) Error() string { return string(e) }

func TestNodesThatCannotReachTheStore(t *testing.T) {
	w := newWorld(t)
	w.ready()
	node := func(id, cluster string) session.Node {
		return session.Node{ID: id, Cluster: cluster, Incarnation: "1", Connected: true, Slots: 1}
	}
	away := node("i-away", "j-DEFAULT")
	away.Connected = false
	w.sessions.nodes = []session.Node{node("i-1", "j-DEFAULT"), node("i-2", "j-DEFAULT"), node("i-3", "j-DEFAULT"), node("i-4", "j-DEFAULT"), away, node("i-other", "j-OTHER")}
	w.sessions.why = map[string]string{"i-1": "connection refused", "i-2": "connection refused", "i-3": "gone", "i-4": "no such host", "i-other": "x", "i-away": "x"}
	p := w.refused(&api.SubmitJobRequest{Spec: wordcount()}, client.ExitUnreachable)
	require.Equal(t, []string{"3 of 4 nodes cannot reach http://store.test (i-1, i-2: connection refused; i-4: no such host)"}, p.Errors)
	require.Contains(t, p.Next, "millrace node list")
	require.ElementsMatch(t, []string{"i-1", "i-2", "i-3", "i-4"}, w.sessions.probed)

	// All mended: only those that were well already are not asked again.
	w.sessions.why = nil
	w.submit(wordcount())
	require.Len(t, w.sessions.probed, 8)
	again := wordcount()
	again.Output = "s3://out/y/"
	w.submit(again)
	require.Len(t, w.sessions.probed, 8, "what went well is believed for a while")

	// Another key, another store; a process started again; and time.
	own := wordcount()
	own.Output, own.Store = "s3://out/z/", &api.ObjectStore{Endpoint: "http://store.test", AccessKey: "other", SecretKey: "secret"}
	w.submit(own)
	require.Len(t, w.sessions.probed, 12)
	w.sessions.nodes[0].Incarnation = "2"
	w.submitTo("s3://out/1/")
	require.Len(t, w.sessions.probed, 13)
	w.later(reachedFor)
	w.submitTo("s3://out/2/")
	require.Len(t, w.sessions.probed, 17)
}

func (w *world) submitTo(output string) {
	w.t.Helper()
	spec := wordcount()
	spec.Output = output
	w.submit(spec)
}

func TestANodeThatDoesNotAnswer(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.sessions.nodes = []session.Node{{ID: "i-1", Cluster: "j-DEFAULT", Connected: true}}
	w.sessions.why = map[string]string{"i-1": "-"}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond) // ends sooner than the wait
	defer cancel()
	found := w.server.reach.ask(ctx, w.sessions, "j-DEFAULT", &api.ObjectStore{}, "in")
	require.Equal(t, []unreached{{"i-1", "no answer within 5s"}}, found)

	var f findings
	many := make([]unreached, 12)
	for i := range many {
		many[i] = unreached{strings.Repeat("i", i+1), "no route to host"}
	}
	f.unreached(w.state.View(), "http://s", nil, "j-DEFAULT", many)
	require.Equal(t, "12 of 12 nodes cannot reach http://s (i, ii, iii, iiii, iiiii, 7 more: no route to host)", f.troubles[0].text)
	f.unreached(w.state.View(), "http://s", nil, "j-DEFAULT", nil)
	require.Len(t, f.troubles, 1)
}

func TestMemoryThatNoNodeHas(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.sessions.nodes = []session.Node{
		{ID: "i-1", Cluster: "j-DEFAULT", Memory: 1 << 30}, {ID: "i-2", Cluster: "j-DEFAULT", Memory: 2 << 30}, {ID: "i-3", Cluster: "j-OTHER", Memory: 8 << 30}}
	spec := wordcount()
	spec.MemoryBytes = 4 << 30
	_, err := w.user("alice").SubmitJob(t.Context(), connect.NewRequest(&api.SubmitJobRequest{Spec: spec}))
	requireProblems(t, err, 2, "memory 4 GiB: no node of the cluster has so much for an attempt; the largest has 2 GiB", "choose a smaller --memory")
	spec.MemoryBytes = 2 << 30
	w.submit(spec)
	w.sessions.nodes = nil
	spec = wordcount()
	spec.MemoryBytes, spec.Output = 4<<30, "s3://out/2/"
	w.submit(spec) // one that has as much may come
}

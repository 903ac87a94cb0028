package server

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/security"
)

// nodePort is a worker of the site, up, whose own port is the handler; who asks there is a master.
func (w *world) nodePort(h http.Handler) (id string) {
	w.t.Helper()
	id = workerID
	w.apply(state.CreateToken{Token: state.Token{ID: "n", Role: state.RoleCore, Cluster: "j-DEFAULT", ExpiresAt: w.now.Add(1 << 40), UsesLeft: -1}})
	w.apply(state.AdmitNode{Token: "n", Node: state.Node{ID: id, Name: "core-1", Role: state.RoleCore, Cluster: "j-DEFAULT"}, Now: w.now})
	port := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if peer, ok := security.PeerIdentity(r.TLS); !ok || peer.Role != security.RoleMaster {
			http.Error(rw, "no", http.StatusForbidden)
			return
		}
		h.ServeHTTP(rw, r)
	}))
	var err error
	port.TLS, err = w.credential(security.RoleWorker, id).ServerTLS(true)
	require.NoError(w.t, err)
	port.StartTLS()
	w.t.Cleanup(func() { port.CloseClientConnections(); port.Close() })
	w.sessions.nodes = []session.Node{{ID: id, Address: port.URL, Cluster: "j-DEFAULT", Role: state.RoleCore, Connected: true}}
	return id
}

// text is a fixed answer, with whether what comes was wanted, too.
func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, s+r.FormValue("follow")+"\n") }
}

func (w *world) nodeLogs(q *api.NodeLogsRequest) (string, error) {
	w.t.Helper()
	stream, err := w.user(Admin).NodeLogs(w.t.Context(), connect.NewRequest(q))
	require.NoError(w.t, err)
	defer stream.Close()
	var out strings.Builder
	for stream.Receive() {
		out.Write(stream.Msg().Data)
	}
	return out.String(), stream.Err()
}

// fixedTail is a log in memory.
type fixedTail string

func (f fixedTail) Copy(ctx context.Context, w io.Writer, follow bool) error {
	if _, err := io.WriteString(w, string(f)); err != nil || !follow {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestNodeLogs(t *testing.T) {
	w := newWorld(t)
	mux := http.NewServeMux()
	mux.Handle("GET /v1/node/log", text("the node's own"))
	mux.Handle("GET /v1/node/bootstrap-log", text("what the actions said"))
	id := w.nodePort(mux)
	for q, want := range map[*api.NodeLogsRequest]string{
		{Node: "core-1"}: "the node's own\n", {Node: id, Follow: true}: "the node's own1\n",
		{Node: id[:18], Bootstrap: true}: "what the actions said\n", {Node: "core-1", Bootstrap: true, Follow: true}: "what the actions said1\n",
	} {
		got, err := w.nodeLogs(q)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err := w.nodeLogs(&api.NodeLogsRequest{Node: "nobody"})
	requireProblems(t, err, client.ExitNotFound, "no such node")
	_, err = w.nodeLogs(&api.NodeLogsRequest{Node: "m", Bootstrap: true})
	requireProblems(t, err, client.ExitUsage, "is a master: it runs no bootstrap actions")
	_, err = w.nodeLogs(&api.NodeLogsRequest{Node: "m"})
	requireProblems(t, err, client.ExitFailed, "keeps no log in memory")
	w.server.cfg.LogTail = fixedTail("the master's own\n")
	got, err := w.nodeLogs(&api.NodeLogsRequest{Node: "m"})
	require.NoError(t, err)
	require.Equal(t, "the master's own\n", got)
}

// What the actions of a node have said outlives it.
func TestBootstrapLogsOfANodeThatIsGone(t *testing.T) {
	w := newWorld(t)
	id := w.nodePort(http.NotFoundHandler())
	_, err := w.nodeLogs(&api.NodeLogsRequest{Node: id, Bootstrap: true})
	requireProblems(t, err, client.ExitFailed, "no bootstrap action has run on node core-1")
	_, err = w.nodeLogs(&api.NodeLogsRequest{Node: id})
	requireProblems(t, err, client.ExitFailed, "keeps no log in memory")
	for _, n := range []string{"10-last.sh", "1-first.sh", "2-second.sh"} {
		w.put("system", "here/bootstrap/j-DEFAULT/"+id+"/"+n+".log", n+"\n")
	}
	w.sessions.nodes = nil
	got, err := w.nodeLogs(&api.NodeLogsRequest{Node: id, Bootstrap: true})
	require.NoError(t, err)
	require.Equal(t, "1-first.sh\n2-second.sh\n10-last.sh\n", got)
	_, err = w.nodeLogs(&api.NodeLogsRequest{Node: id})
	requireProblems(t, err, client.ExitFailed, "node core-1 is lost", "look on its machine: journalctl -u millrace-worker")
	w.apply(state.RemoveNode{ID: id})
	_, err = w.nodeLogs(&api.NodeLogsRequest{Node: id})
	requireProblems(t, err, client.ExitFailed, "node core-1 was removed from the site", "journalctl -u millrace-worker")
	got, err = w.nodeLogs(&api.NodeLogsRequest{Node: id, Bootstrap: true})
	require.NoError(t, err)
	require.Contains(t, got, "1-first.sh")
}

// A master that follows gives its own log, to another master alone.
func TestAFollowersOwnLog(t *testing.T) {
	w := newWorld(t)
	w.server.cfg.LogTail = fixedTail("the follower's own\n")
	other := "i-000000000000000cc"
	w.apply(state.PutNode{Node: state.Node{ID: other, Name: "m2", Role: state.RoleMaster, Address: w.http.URL}})
	w.server.Lead(nil)
	get := func(role security.Role, id string) (int, string) {
		config, err := w.credential(role, id).ClientTLS(security.MasterName)
		require.NoError(t, err)
		resp, err := httpsClient(t, config).Get(w.http.URL + NodeLogPath)
		require.NoError(t, err)
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(data)
	}
	status, said := get(security.RoleMaster, other)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "the follower's own\n", said)
	status, _ = get(security.RoleUser, Admin)
	require.Equal(t, http.StatusForbidden, status)

	// The leader asks it. Here the two are one server.
	w.server.Lead(w.leader)
	got, err := w.nodeLogs(&api.NodeLogsRequest{Node: "m2"})
	require.NoError(t, err)
	require.Equal(t, "the follower's own\n", got)
}

// program is a node's answer to node exec: it says what it was to run.
func program(t *testing.T, pieces ...*api.ExecNodeResponse) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		q := &api.ExecNodeRequest{}
		if err != nil || proto.Unmarshal(body, q) != nil {
			t.Error("the request cannot be read")
		}
		said := strings.Join(q.Command, " ") + " < " + string(q.Stdin)
		for _, p := range append([]*api.ExecNodeResponse{{Piece: &api.ExecNodeResponse_Stdout{Stdout: []byte(said)}}}, pieces...) {
			if _, err := protodelim.MarshalTo(w, p); err != nil {
				return
			}
		}
	}
}

func (w *world) exec(user string, q *api.ExecNodeRequest) (stdout string, end *api.ExecEnd, err error) {
	w.t.Helper()
	stream, err := w.user(user).ExecNode(w.t.Context(), connect.NewRequest(q))
	require.NoError(w.t, err)
	defer stream.Close()
	for stream.Receive() {
		stdout += string(stream.Msg().GetStdout())
		end = stream.Msg().GetEnd()
	}
	return stdout, end, stream.Err()
}

func TestExecNode(t *testing.T) {
	w := newWorld(t)
	end := &api.ExecNodeResponse{Piece: &api.ExecNodeResponse_End{End: &api.ExecEnd{ExitCode: 3}}}
	id := w.nodePort(program(t, end))
	w.audit.take()
	out, got, err := w.exec(Admin, &api.ExecNodeRequest{Node: "core-1", Command: []string{"df", "-h"}, Stdin: []byte("x")})
	require.NoError(t, err)
	require.Equal(t, "df -h < x", out)
	require.EqualValues(t, 3, got.ExitCode)
	lines := w.audit.take()
	require.Len(t, lines, 2)
	for i, outcome := range []string{"begins", "ok"} {
		require.Equal(t, outcome, lines[i].Outcome)
		require.Equal(t, Admin, lines[i].User)
		require.Equal(t, `node=core-1 command=["df","-h"]`, lines[i].Subject)
	}

	_, _, err = w.exec("alice", &api.ExecNodeRequest{Node: id, Command: []string{"df"}})
	require.Equal(t, connect.CodePermissionDenied, connect.CodeOf(err))
	for q, says := range map[*api.ExecNodeRequest]string{
		{Node: id}: "no program is given",
		{Node: id, Command: []string{"x"}, Stdin: make([]byte, maxStdin+1)}: "at most 1048576",
		{Node: id, Command: []string{"x"}, TimeoutMs: -1}:                   "cannot be negative",
		{Node: "m", Command: []string{"x"}}:                                 "is a master",
	} {
		_, _, err = w.exec(Admin, q)
		requireProblems(t, err, client.ExitUsage, says)
	}
	off := true
	w.apply(state.SetSite{NoExec: &off})
	_, _, err = w.exec(Admin, &api.ExecNodeRequest{Node: id, Command: []string{"df"}})
	requireProblems(t, err, client.ExitFailed, "switched off for this site")
}

func TestExecOnNodesThatGo(t *testing.T) {
	w := newWorld(t)
	id := w.nodePort(program(t)) // its connection ends before the program does
	_, end, err := w.exec(Admin, &api.ExecNodeRequest{Node: id, Command: []string{"df"}})
	require.Nil(t, end)
	requireProblems(t, err, client.ExitFailed, "node core-1 went away while the program ran")
	w.sessions.nodes = nil
	_, _, err = w.exec(Admin, &api.ExecNodeRequest{Node: id, Command: []string{"df"}})
	requireProblems(t, err, client.ExitFailed, "node core-1 is not up")
	w.apply(state.RemoveNode{ID: id})
	_, _, err = w.exec(Admin, &api.ExecNodeRequest{Node: id, Command: []string{"df"}})
	requireProblems(t, err, client.ExitFailed, "was removed")
}

package worker

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"millrace/pkg/api"
	"millrace/pkg/logtail"
	"millrace/pkg/security"
)

// exec runs a program on the node, as a master has it, and gives what it writes.
func (n *fakeNode) exec(ctx context.Context, q *api.ExecNodeRequest) (stdout, stderr string, end *api.ExecEnd) {
	n.m.t.Helper()
	body, err := proto.Marshal(q)
	require.NoError(n.m.t, err)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.address()+"/v1/node/exec", bytes.NewReader(body))
	require.NoError(n.m.t, err)
	resp, err := n.m.tlsClient(security.RoleMaster, masterID, security.NodeName(n.id)).Do(req)
	require.NoError(n.m.t, err)
	defer resp.Body.Close()
	require.Equal(n.m.t, http.StatusOK, resp.StatusCode)
	for in := bufio.NewReader(resp.Body); end == nil; {
		m := &api.ExecNodeResponse{}
		if err := protodelim.UnmarshalFrom(in, m); err != nil {
			return stdout, stderr, nil
		}
		stdout, stderr, end = stdout+string(m.GetStdout()), stderr+string(m.GetStderr()), m.GetEnd()
	}
	return stdout, stderr, end
}

func TestProgramsOfAnAdministrator(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	m := newMaster(t)
	n := m.worker("free", poolRole)
	out, errs, end := n.exec(t.Context(), &api.ExecNodeRequest{Command: []string{"sh", "-c", "cat; echo oh >&2; env; exit 5"}, Stdin: []byte("given\n")})
	require.True(t, strings.HasPrefix(out, "given\n"), out)
	require.Contains(t, out, "MILLRACE_NODE_ID="+n.id+"\n")
	require.NotContains(t, out, "secret")
	require.Equal(t, "oh\n", errs)
	require.EqualValues(t, 5, end.ExitCode)

	_, _, end = n.exec(t.Context(), &api.ExecNodeRequest{Command: []string{"no-such-program"}})
	require.Contains(t, end.Error, "not found")
	_, _, end = n.exec(t.Context(), &api.ExecNodeRequest{Command: []string{"sleep", "1000"}, TimeoutMs: 200})
	require.Equal(t, "it took longer than it may: 200ms", end.Error)

	// A caller that goes away takes the program with it, and so does the node's end.
	ctx, cancel := context.WithCancel(t.Context())
	begun := filepath.Join(t.TempDir(), "begun")
	over := make(chan struct{})
	go func() {
		defer close(over)
		n.execUntilGone(ctx, "echo $$ > "+begun+"; exec sleep 1000")
	}()
	pid := alive(t, begun)
	cancel()
	<-over
	gone(t, pid)
	require.NoError(t, os.Remove(begun))
	go n.execUntilGone(context.Background(), "echo $$ > "+begun+"; exec sleep 1000")
	pid = alive(t, begun)
	n.end()
	gone(t, pid)
}

// execUntilGone runs a script of the shell, whatever becomes of it.
func (n *fakeNode) execUntilGone(ctx context.Context, script string) {
	body, err := proto.Marshal(&api.ExecNodeRequest{Command: []string{"sh", "-c", script}})
	if err != nil {
		return
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.address()+"/v1/node/exec", bytes.NewReader(body))
	if err != nil {
		return
	}
	if resp, err := n.m.tlsClient(security.RoleMaster, masterID, security.NodeName(n.id)).Do(req); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

// alive waits for the id that a process writes of itself.
func alive(t *testing.T, path string) (pid string) {
	t.Helper()
	require.Eventually(t, func() bool {
		data, err := os.ReadFile(path)
		pid = strings.TrimSpace(string(data))
		return err == nil && pid != ""
	}, time.Minute, time.Millisecond)
	return pid
}

func gone(t *testing.T, pid string) {
	t.Helper()
	require.Eventually(t, func() bool { _, err := os.Stat("/proc/" + pid); return err != nil }, time.Minute, time.Millisecond)
}

func TestTheNodesOwnLogAndWhoMayAsk(t *testing.T) {
	m := newMaster(t)
	tail := &logtail.Tail{}
	n := m.worker("core", coreRole, func(c *Config) { c.LogTail = tail })
	_, err := io.WriteString(tail, "a line\n")
	require.NoError(t, err)
	get := func(role security.Role, path string) (int, string) {
		resp, err := m.tlsClient(role, someone[role], security.NodeName(n.id)).Get(n.address() + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(data)
	}
	status, text := get(security.RoleMaster, "/v1/node/log")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "a line\n", text)
	status, text = get(security.RoleMaster, "/v1/node/bootstrap-log")
	require.Equal(t, http.StatusNotFound, status)
	require.Contains(t, text, "no bootstrap action has run")
	for _, path := range []string{"/v1/node/log", "/v1/node/bootstrap-log", "/v1/node/exec", "/v1/node/other"} {
		for _, role := range []security.Role{security.RoleWorker, security.RoleUser} {
			status, _ := get(role, path)
			require.Equal(t, http.StatusForbidden, status, "%s %s", role, path)
		}
	}
}

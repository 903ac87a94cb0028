package worker

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
	"millrace/pkg/objectstore"
	"millrace/pkg/security"
)

// bootstrap has the site's clusters have a bootstrap action.
func (m *fakeMaster) bootstrap(script string, args ...string) {
	m.t.Helper()
	_, err := m.store.Put(m.t.Context(), "sys", "p/setup.sh", strings.NewReader(script), int64(len(script)), objectstore.PutOptions{})
	require.NoError(m.t, err)
	sum := sha256.Sum256([]byte(script))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.welcome = func(w *api.SessionWelcome, h *api.WorkerHello) {
		if w.Cluster == "" {
			return
		}
		w.ClusterName, w.BootstrapDigest = "mine", "digest of "+w.Cluster
		w.BootstrapActions = []*api.BootstrapAction{{Name: "setup", Url: "s3://sys/p/setup.sh", Args: args, Sha256: hex.EncodeToString(sum[:])}}
	}
}

// bootstrapped waits for the last word on the actions.
func (n *fakeNode) bootstrapped(state string) (b *api.BootstrapReport) {
	n.m.t.Helper()
	n.await("bootstrap actions "+state, func(g *api.WorkerMessage) bool {
		b = g.GetBootstrap()
		return b.GetState() == state
	})
	return b
}

func TestBootstrapActionsComeBeforeTasks(t *testing.T) {
	m := newMaster(t)
	gate := filepath.Join(t.TempDir(), "gate")
	ran := filepath.Join(t.TempDir(), "ran")
	m.bootstrap("echo x >> "+ran+"; echo $1 $MILLRACE_CLUSTER_ID $MILLRACE_CLUSTER_NAME $MILLRACE_NODE_ROLE $MILLRACE_SITE $MILLRACE_MASTERS\nwhile ! [ -e "+gate+" ]; do sleep 0.01; done\n", "hello")
	n := m.worker("core", coreRole)
	require.Equal(t, "runs bootstrap action 1 of 1 (setup)", n.bootstrapped("RUNNING").Reason)
	n.await("the heartbeat that says so", func(g *api.WorkerMessage) bool {
		return g.GetHeartbeat().GetProblem() == "runs bootstrap action 1 of 1 (setup)"
	})
	n.lease(mapLease(0)) // of a leader that knows nothing of this

	get := func(path string) (*http.Response, string) {
		resp, err := m.tlsClient(security.RoleMaster, masterID, security.NodeName(n.id)).Get(n.address() + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp, string(data)
	}
	said := "hello j-1 mine core site-test " + m.url() + "\n"
	require.Eventually(t, func() bool { _, text := get("/v1/node/bootstrap-log"); return strings.HasSuffix(text, said) }, time.Minute, 10*time.Millisecond)
	m.mu.Lock()
	require.False(t, n.saw(func(g *api.WorkerMessage) bool { return g.GetStarted() != nil }), "no task before they have ended")
	m.mu.Unlock()

	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	require.Equal(t, "digest of j-1", n.bootstrapped("DONE").Digest)
	require.Nil(t, n.report("s-J-m-00000-1-1").Result.Failure, "then the lease begins")
	require.Empty(t, n.w.problem())
	_, text := get("/v1/node/bootstrap-log?follow=1")
	require.Equal(t, "[bootstrap action 1 of 1: setup]\n"+said+"[done]\n", text)
	o, err := m.store.Head(t.Context(), "sys", "p/bootstrap/j-1/"+n.id+"/1-setup.log")
	require.NoError(t, err)
	require.EqualValues(t, len(text), o.Size)

	// Told again to the next leader, and after a restart; not run again.
	first := n.session()
	first.cancel()
	n.newSession(first)
	n.bootstrapped("DONE")
	n.end()
	n.run()
	require.Equal(t, "digest of j-1", n.session().hello.Bootstrapped)
	n.bootstrapped("DONE")
	data, err := os.ReadFile(ran)
	require.NoError(t, err)
	require.Equal(t, "x\n", string(data))
}

func TestABootstrapActionThatFails(t *testing.T) {
	m := newMaster(t)
	m.bootstrap("echo cannot >&2; exit 3\n")
	n := m.worker("free", poolRole)
	n.assign(place{"j-1", coreRole})
	b := n.bootstrapped("FAILED")
	require.Equal(t, "bootstrap action 1 of 1 (setup) failed: exit code 3; it said last: cannot", b.Reason)
	require.Equal(t, b.Reason, n.w.problem())

	// Back in the pool it is as good as any, and it is tried anew.
	n.assign(place{"", poolRole})
	require.Empty(t, n.w.problem())
	require.Empty(t, n.left())
	m.bootstrap("true\n")
	n.assign(place{"j-1", coreRole})
	n.bootstrapped("DONE")
}

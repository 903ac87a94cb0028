//go:build cluster && containers

package clustertest

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	masters "millrace/pkg/client"
)

// The provider of containers that stands among the examples: a cluster gets its nodes from it, grows, shrinks, and leaves nothing.
func TestContainersFromAProvider(t *testing.T) {
	m := startMinIO(t)
	provider, err := filepath.Abs("../../examples/providers/docker/provider")
	require.NoError(t, err)
	dir, home := filepath.Join(t.TempDir(), "master"), t.TempDir()
	environ := append(os.Environ(), "MILLRACE_HOME="+home)

	var said lockedBuffer
	cmd := exec.Command(binary(t), "master", "run", "--dir", dir, "--listen", "127.0.0.1:0", "--raft-listen", "127.0.0.1:0", "--gossip-listen", "127.0.0.1:0",
		"--s3", m.endpoint, "--provider", "docker="+provider)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(environ, m.environ()...), &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		if t.Failed() {
			t.Logf("master:\n%s", said.String())
		}
		removeContainers(t)
	})
	waitFor(t, "the administrator's context is written", func() (bool, string) {
		_, err := os.Stat(filepath.Join(dir, "admin.json"))
		return err == nil, said.String()
	})
	admin, err := masters.ReadContext(filepath.Join(dir, "admin.json"))
	require.NoError(t, err)
	require.NoError(t, masters.SaveContext(home, admin))
	require.NoError(t, masters.UseContext(home, admin.Name))
	mr := func(stdin []byte, args ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), binary(t), args...)
		var stderr bytes.Buffer
		c.Env, c.Stdin, c.Stderr = environ, bytes.NewReader(stdin), &stderr
		out, err := c.Output()
		require.NoError(t, err, "%v\n%s", args, stderr.String())
		return string(out)
	}

	mr(nil, "cluster", "create", "--name", "boxed", "--provider", "docker", "--core", "1", "--task", "1", "--wait")
	require.Len(t, keysOfContainers(t), 2)
	mr(nil, "fs", "mb", "s3://boxed-input")
	mr(sourceOfGo(t), "fs", "put", "-", "s3://boxed-input/words")
	mr(nil, "run", "wordcount", "s3://boxed-input/", "hdfs:///words", "--cluster", "boxed")
	mr(nil, "cluster", "resize", "--cluster", "boxed", "--task", "2", "--wait")
	require.Len(t, keysOfContainers(t), 3)
	mr(nil, "cluster", "resize", "--cluster", "boxed", "--task", "0", "--wait")
	waitFor(t, "the containers that were let go are gone", func() (bool, string) {
		keys := keysOfContainers(t)
		return len(keys) == 1, strings.Join(keys, " ")
	})
	mr(nil, "cluster", "terminate", "boxed", "--wait")
	waitFor(t, "no container is left", func() (bool, string) {
		keys := keysOfContainers(t)
		return len(keys) == 0, strings.Join(keys, " ")
	})
	var shown struct{ State string }
	require.NoError(t, json.Unmarshal([]byte(mr(nil, "cluster", "show", "boxed", "--json")), &shown))
	require.Equal(t, "TERMINATED", shown.State)
}

// keysOfContainers are those of the provider's containers that are there, running or not.
func keysOfContainers(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("docker", "ps", "-a", "--filter", "label=millrace.key", "--format", `{{.Label "millrace.key"}}`).Output()
	require.NoError(t, err)
	return strings.Fields(string(out))
}

func removeContainers(t *testing.T) {
	out, err := exec.Command("docker", "ps", "-aq", "--filter", "label=millrace.key").Output()
	require.NoError(t, err)
	for _, id := range strings.Fields(string(out)) {
		require.NoError(t, exec.Command("docker", "rm", "-f", "-v", id).Run())
	}
}

//go:build cluster

package clustertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTaskUser: on a node whose attempts run as another user, jobs of every kind complete, with S3 and with hdfs:// on either end, and
// what a program tries at the node's own things is refused. What docs/isolation.md says about modes holds.
func TestTaskUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("attempts as another user need root")
	}
	const user = "nobody"
	c := startCluster(t, "--core", "1", "--task", "0", "--slots", "1")
	dir := filepath.Join(t.TempDir(), "node")
	require.NoError(t, os.Chmod(filepath.Dir(filepath.Dir(dir)), 0o711))
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte(c.json("join-token", "create", "--role", "core").str("token")), 0o600))
	args := []string{"worker", "run", "--dir", dir, "--join", c.server, "--token", "@" + token, "--listen", "127.0.0.1:0", "--gossip-listen", "127.0.0.1:0", "--slots", "2", "--name", "shut"}

	r := c.try(append(args, "--task-user", "no-such-user")...)
	require.Equal(t, 2, r.code, r)
	require.Contains(t, r.err, "make it (useradd --system")
	page, err := os.ReadFile("../../docs/isolation.md")
	require.NoError(t, err)
	require.Contains(t, string(page), "useradd --system --no-create-home --shell /usr/sbin/nologin millrace-task")

	w := exec.Command(binary(t), append(args, "--task-user", user)...)
	log := &lockedBuffer{}
	w.Env, w.Stderr, w.SysProcAttr = append(c.environ(), "NODE_SECRET=secret-of-the-node"), log, &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	require.NoError(t, w.Start())
	ended := make(chan error, 1)
	go func() { ended <- w.Wait() }()
	t.Cleanup(func() {
		w.Process.Signal(syscall.SIGTERM)
		<-ended
		if t.Failed() {
			t.Logf("the worker said:\n%s", log)
		}
	})
	waitFor(t, "the node is there", func() (bool, string) { return len(c.nodes("CORE")) == 2, log.String() })
	c.mr("node", "drain", "core-1", "--wait")

	in := newCorpus(1, 1<<20)
	in.put(t, c, "data")
	job := c.waitJob(c.submit("wordcount", "--input", "s3://data/in", "--split-size", "256KiB", "--reduces", "2", "--output", "s3://data/words"))
	require.Equal(t, "COMPLETED", job.str("state"), job)
	require.Zero(t, job.num("attempts", "failed"), job)
	_, lines := readOutput(t, c, "data", "words/")
	requireCounts(t, in.counts, lines)

	c.mr("run", "../../examples/wordcount", "s3://data/in", "s3://data/go", "--split-size", "512KiB") // a Go program
	_, lines = readOutput(t, c, "data", "go/")
	requireCounts(t, in.counts, lines)

	probe := script(t, "probe.sh", fmt.Sprintf(`#!/bin/sh
cat > /dev/null
try() { if "$@" > /dev/null 2>&1; then echo "OPEN: $*"; fi; }
try ls %[1]s; try ls %[1]s/attempts; try ls %[1]s/programs
for file in pki/node.key pki/node.crt node.json format.json lock term attempts/.token; do try cat %[1]s/$file; done
for folder in pki blocks segments logs bootstrap; do try ls %[1]s/$folder; done
for what in environ maps mem io fd/0 cwd/node.json root/etc/passwd; do try dd if=/proc/%[2]d/$what count=1; done
try kill -0 %[2]d; try kill -KILL %[2]d
try cat %[3]s; try sudo -n true
env | grep secret && echo OPEN: environment
for fd in 3 4 5 6 7 8 9; do [ -e /proc/self/fd/$fd ] && [ "$(readlink /proc/self/fd/$fd)" != "$0" ] && echo "OPEN: fd $fd $(readlink /proc/self/fd/$fd)"; done
echo "user $(id -un)"; umask 0; mkdir left; touch left/file; chmod 0 left; (env -i setsid sleep 776 > /dev/null 2>&1 &)
`, dir, w.Process.Pid, token))
	c.mr("fs", "put", probe, "hdfs:///in")
	job = c.waitJob(c.submit("--mapper", "./probe.sh", "--file", probe, "--reducer", "cat", "--reduces", "1", "--input", "hdfs:///in", "--output", "hdfs:///out"))
	require.Equal(t, "COMPLETED", job.str("state"), job)
	require.Equal(t, "user "+user, strings.TrimSpace(c.mr("fs", "cat", "hdfs:///out/part-*")))

	waitFor(t, "nothing of the attempts is left", func() (bool, string) {
		left, err := os.ReadDir(filepath.Join(dir, "attempts"))
		require.NoError(t, err)
		running := processesNaming("sleep\x00776")
		return len(left) == 1 && len(running) == 0, fmt.Sprint(left, running) // its .token
	})
	for path, mode := range map[string]os.FileMode{"": 0o710, "attempts": 0o710, "programs": 0o710, "pki": 0o700, "segments": 0o700, "blocks": 0o700, "logs": 0o700, "node.json": 0o600, "pki/node.key": 0o600} {
		info, err := os.Stat(filepath.Join(dir, path))
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode().Perm(), path)
	}
}

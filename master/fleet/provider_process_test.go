package fleet

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// aWorker stands for millrace: it notes how it was started, joins at once, and ends when it is told to, or with its lifeline.
const aWorker = `#!/bin/sh
trap 'exit 0' TERM
echo "$@" >> "$4/starts"
[ -e "$4/token" ] && cat "$4/token" >> "$4/tokens"
touch "$4/node.json"
if [ -n "$LIFELINE" ]; then cat <&3; exit; fi
while :; do sleep 0.05; done
`

func processes(t *testing.T, change ...func(*ProcessConfig)) *Processes {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "millrace")
	require.NoError(t, os.WriteFile(binary, []byte(aWorker), 0o700))
	c := ProcessConfig{Dir: filepath.Join(t.TempDir(), "nodes"), Binary: binary, Args: []string{"--slots", "2"}, Env: []string{"PATH=" + os.Getenv("PATH")}}
	for _, f := range change {
		f(&c)
	}
	p, err := NewProcesses(c)
	require.NoError(t, err)
	t.Cleanup(func() {
		for key := range listed(t, p) {
			require.NoError(t, p.Terminate(context.Background(), key, ""))
		}
	})
	return p
}

func request(key string) Request {
	return Request{Key: key, Role: "task", Masters: []string{"https://127.0.0.1:7400", "https://127.0.0.1:7500"}, Token: "mr1.token"}
}

func listed(t *testing.T, p *Processes) map[string]string {
	t.Helper()
	machines, err := p.List(context.Background())
	require.NoError(t, err)
	return machines
}

// eventually reads a file that a node writes.
func eventually(t *testing.T, path string, lines int) (list []string) {
	t.Helper()
	require.Eventually(t, func() bool {
		data, _ := os.ReadFile(path)
		list = strings.Split(strings.TrimSpace(string(data)), "\n")
		return len(data) > 0 && len(list) == lines
	}, time.Minute, 5*time.Millisecond)
	return list
}

func TestANodeOfThisMachine(t *testing.T) {
	p := processes(t)
	require.Empty(t, listed(t, p))
	machine, err := p.Launch(t.Context(), request("l-A1"))
	require.NoError(t, err)
	require.Equal(t, map[string]string{"l-A1": machine}, listed(t, p))
	dir := filepath.Join(p.cfg.Dir, "l-A1")
	require.Equal(t, dir, machine)
	require.Equal(t, []string{"worker run --dir " + dir + " --name task-a1 --listen 127.0.0.1:0 --gossip-listen 127.0.0.1:0 --join https://127.0.0.1:7400 --join https://127.0.0.1:7500 --token @" + dir + "/token --slots 2"},
		eventually(t, filepath.Join(dir, "starts"), 1))
	require.Equal(t, []string{"mr1.token"}, eventually(t, filepath.Join(dir, "tokens"), 1), "the token is not among the arguments")

	again, err := p.Launch(t.Context(), request("l-A1"))
	require.NoError(t, err)
	require.Equal(t, machine, again)
	pids, err := p.running()
	require.NoError(t, err)
	require.Len(t, pids["l-A1"], 1, "it is not started twice")
	leader, err := syscall.Getpgid(pids["l-A1"][0])
	require.NoError(t, err)
	require.Equal(t, pids["l-A1"][0], leader, "what ends our group does not end it")

	other, err := NewProcesses(p.cfg) // the next leader, in another process
	require.NoError(t, err)
	require.Equal(t, map[string]string{"l-A1": machine}, listed(t, other))
	require.NoError(t, p.Terminate(t.Context(), "l-A1", machine))
	require.Empty(t, listed(t, other))
	require.NoDirExists(t, dir)
	require.NoError(t, p.Terminate(t.Context(), "l-A1", machine), "it is gone, and that is what was asked for")
	require.NoError(t, p.Terminate(t.Context(), "l-never", ""))
}

func TestANodeThatDiedIsStartedAgainOnItsFolder(t *testing.T) {
	p := processes(t)
	_, err := p.Launch(t.Context(), request("l-1"))
	require.NoError(t, err)
	dir := filepath.Join(p.cfg.Dir, "l-1")
	require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(dir, "node.json")); return err == nil }, time.Minute, 5*time.Millisecond)
	pids, err := p.running()
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pids["l-1"][0], syscall.SIGKILL))
	require.Eventually(t, func() bool { return len(listed(t, p)) == 0 }, time.Minute, 5*time.Millisecond)
	_, err = p.Launch(t.Context(), request("l-1"))
	require.NoError(t, err)
	require.Len(t, listed(t, p), 1)
	starts := eventually(t, filepath.Join(dir, "starts"), 2)
	require.NotContains(t, starts[1], "--token", "it has its certificate")
	require.NoFileExists(t, filepath.Join(dir, "token"))
}

// A node that ends at once has been started, and is so again when it is asked for again.
func TestANodeThatEndsAtOnceHoldsNobodyUp(t *testing.T) {
	p := processes(t)
	require.NoError(t, os.WriteFile(p.cfg.Binary, []byte("#!/bin/sh\necho x >> \"$4/starts\"\n"), 0o700))
	dir := filepath.Join(p.cfg.Dir, "l-1")
	for i := range 3 {
		_, err := p.Launch(t.Context(), request("l-1"))
		require.NoError(t, err)
		eventually(t, filepath.Join(dir, "starts"), i+1)
		require.Eventually(t, func() bool { return len(listed(t, p)) == 0 }, time.Minute, 5*time.Millisecond)
	}
	ended := exec.Command("true")
	require.NoError(t, ended.Start())
	require.NoError(t, unix.Waitid(unix.P_PID, ended.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil))
	p.children[ended.Process.Pid] = true
	require.NoError(t, p.shows(t.Context(), ended.Process.Pid))
	require.Empty(t, p.children)
}

func TestNodesEndWithTheLifelineTheyAreGiven(t *testing.T) {
	life, ours, err := os.Pipe()
	require.NoError(t, err)
	p := processes(t, func(c *ProcessConfig) { c.Files, c.Env = []*os.File{life}, append(c.Env, "LIFELINE=3") })
	_, err = p.Launch(t.Context(), request("l-1"))
	require.NoError(t, err)
	require.Len(t, listed(t, p), 1)
	require.NoError(t, ours.Close())
	require.Eventually(t, func() bool { return len(listed(t, p)) == 0 }, time.Minute, 5*time.Millisecond)
	require.NoError(t, life.Close())
}

func TestNobodyElsesProcessIsTakenForANode(t *testing.T) {
	for _, c := range []struct {
		key  string
		args []string
	}{
		{"l-1", []string{"millrace", "worker", "run", "--dir", "/n/l-1", "--join", "x"}},
		{"l-1", []string{"/bin/sh", "/tmp/millrace", "worker", "run", "--dir", "/n/l-1"}},
		{"", []string{"millrace", "worker", "run", "--dir", "/n/l-1/deeper"}},
		{"", []string{"millrace", "worker", "run", "--dir", "/n/"}},
		{"", []string{"millrace", "worker", "run", "--dir", "/other/l-1"}},
		{"", []string{"millrace", "master", "run", "--dir", "/n/l-1"}},
		{"", []string{"vi", "--dir", "/n/l-1"}},
		{"", []string{"millrace", "worker", "run", "--dir"}},
		{"", nil},
	} {
		require.Equal(t, c.key, keyOf("/n", c.args), "%q", c.args)
	}
	p := processes(t)
	for _, key := range []string{"", "..", "a/b", "."} {
		require.Error(t, p.Terminate(t.Context(), key, ""), "%q", key)
	}
}

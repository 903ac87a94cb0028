package attempt

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"millrace/pkg/api"
)

func TestWhichControlGroupCountsProcesses(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "unit"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(root, "unit", "cgroup.controllers"), []byte("cpu memory pids\n"), 0o600))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "poor"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(root, "poor", "cgroup.controllers"), []byte("cpuset hugetlb\n"), 0o600))
	for name, c := range map[string]struct {
		membership string
		dir        string
		unified    bool
	}{
		"v1":                         {"9:name=systemd:/\n8:pids:/docker/x\n", "pids/docker/x", false},
		"v1, with another":           {"8:cpu,pids:/\n", "cpu,pids", false},
		"v1 beside v2":               {"0::/unit\n8:pids:/a\n", "pids/a", false},
		"v2":                         {"0::/unit\n", "unit", true},
		"v2 that does not give it":   {"0::/poor\n", "", false},
		"v2 that is not to be seen":  {"0::/nowhere\n", "", false},
		"none":                       {"", "", false},
		"something else altogether":  {"what\n::\n", "", false},
		"a name that only begins so": {"8:pidsx:/a\n", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir, unified := pidsGroup([]byte(c.membership), root)
			want := ""
			if c.dir != "" {
				want = filepath.Join(root, c.dir)
			}
			require.Equal(t, want, dir)
			require.Equal(t, c.unified, unified)
		})
	}
}

// Where the machine has control groups: what is in one is found and counted, and the kernel refuses more.
func TestControlGroups(t *testing.T) {
	c := openConfiner("test", 5)
	if c.dir == "" {
		t.Skip("this process may make no control groups")
	}
	defer c.close()
	sleep := exec.Command("sleep", "1000")
	require.NoError(t, sleep.Start())
	g := c.put("one", sleep.Process.Pid)
	require.Equal(t, []int{sleep.Process.Pid}, g.members())
	found := tree{token: "no such token", group: g}.members()
	require.Len(t, found, 1)
	require.Equal(t, sleep.Process.Pid, found[0].pid)
	require.NoError(t, sleep.Process.Kill())
	require.Error(t, sleep.Wait())
	require.Empty(t, g.members())

	sh := exec.Command("sh", "-c", "read go; for i in 1 2 3 4 5 6 7 8; do sleep 0 & done; wait")
	in, err := sh.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, sh.Start())
	g = c.put("two", sh.Process.Pid)
	g.limit(4)
	require.Zero(t, g.refused())
	_, err = in.Write([]byte("\n"))
	require.NoError(t, err)
	_ = sh.Wait() // what it makes of a refusal is its own business
	require.Positive(t, g.refused())
	require.Eventually(t, func() bool {
		for _, p := range zombies() { // this process may have inherited them
			_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil)
		}
		g.remove()
		_, err := os.Stat(g.dir)
		return os.IsNotExist(err)
	}, time.Minute, time.Millisecond)

	// What a group above refuses, a whole container's, is not this one's doing.
	require.NoError(t, os.WriteFile(filepath.Join(c.dir, "pids.max"), []byte("4"), 0))
	sh = exec.Command("sh", "-c", "read go; for i in 1 2 3 4 5 6 7 8; do sleep 0 & done; wait")
	in, err = sh.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, sh.Start())
	g = c.put("three", sh.Process.Pid)
	g.limit(1000)
	_, err = in.Write([]byte("\n"))
	require.NoError(t, err)
	_ = sh.Wait()
	require.Zero(t, g.refused())
	for _, p := range zombies() {
		_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil)
	}

	var none group
	none.limit(1)
	none.remove()
	require.Zero(t, none.refused())
	require.Empty(t, none.members())
}

// A program that forks without end, the next generation each in a session of its own and without the token, is stopped by the
// kernel where there are control groups, and nothing of it is left.
func TestAForkBomb(t *testing.T) {
	f := newFixture(t)
	if f.pool.groups.dir == "" {
		t.Skip("this process may make no control groups")
	}
	l := f.lease("s-1", "a1", "shell=bomb() { env -i setsid sleep 1000 & bomb | bomb & }; bomb; sleep 1000")
	l.Program.Properties = map[string]string{"millrace.task.processes": "80"}
	r, _ := f.pool.Run(t.Context(), Attempt{Lease: l})
	require.Equal(t, api.FailureKind_FAILURE_KIND_PROGRAM, r.GetFailure().GetKind(), r)
	require.Contains(t, r.Failure.Message, "it had more than 80 processes")
}

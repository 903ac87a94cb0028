package attempt

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

// tree2 is a folder that looks like a control group of version 2, as far as it is written to: the files are there, and say what was
// last written.
func tree2(t *testing.T, path ...string) string {
	t.Helper()
	dir := filepath.Join(path...)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for file, text := range map[string]string{"cgroup.type": "domain\n", "cgroup.controllers": "cpu memory pids\n", "cgroup.procs": "", "cgroup.subtree_control": ""} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644))
	}
	return dir
}

func text(t *testing.T, path ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	require.NoError(t, err)
	return strings.TrimSpace(string(data))
}

func TestAGroupOfOnesOwnIsSharedOut(t *testing.T) {
	root := tree2(t, t.TempDir())
	tree2(t, root, nodesGroup)
	require.NoError(t, os.WriteFile(filepath.Join(root, "cgroup.procs"), []byte("12\n34\n"), 0o644))
	attempts := tree2(t, root, "millrace-x")
	require.NoError(t, os.WriteFile(filepath.Join(attempts, "cpu.weight"), nil, 0o644))
	c := openUnified(root, root, "x", 5)
	require.Equal(t, attempts, c.dir)
	require.True(t, c.memory)
	require.Equal(t, "34", text(t, root, nodesGroup, "cgroup.procs"), "the last one that was moved")
	require.Equal(t, "+cpu", text(t, root, "cgroup.subtree_control"), "the last one that was asked for")
	require.Equal(t, "+cpu", text(t, attempts, "cgroup.subtree_control"))
	require.Equal(t, "33", text(t, attempts, "cpu.weight"))

	// Another node finds itself where the first one has moved it, and settles beside that.
	require.Equal(t, filepath.Join(root, "millrace-y"), func() string {
		tree2(t, root, "millrace-y")
		return openUnified(root, filepath.Join(root, nodesGroup), "y", 5).dir
	}())
}

func TestAGroupOfSomebodyElsesIsLeftAsItIs(t *testing.T) {
	root := tree2(t, t.TempDir())
	session := tree2(t, root, "session.scope")
	require.NoError(t, os.WriteFile(filepath.Join(session, "cgroup.procs"), []byte("12\n34\n"), 0o644))
	tree2(t, session, "millrace-x")
	if os.Geteuid() != 0 {
		t.Skip("what is not root's is one's own")
	}
	c := openUnified(root, session, "x", 5)
	require.NotEmpty(t, c.dir, "processes are counted")
	require.False(t, c.memory)
	require.Equal(t, "+pids", text(t, session, "cgroup.subtree_control"))
	require.NoDirExists(t, filepath.Join(session, nodesGroup))

	require.NoError(t, os.Remove(filepath.Join(session, "cgroup.subtree_control")))
	require.NoError(t, os.Mkdir(filepath.Join(session, "cgroup.subtree_control"), 0o755)) // takes nothing
	require.Empty(t, openUnified(root, session, "x", 5).dir)
	require.Empty(t, openUnified(root, filepath.Join(root, "nowhere"), "x", 5).dir)
}

func TestMemoryOfAGroup(t *testing.T) {
	g := group{tree2(t, t.TempDir()), true}
	put := func(file, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(g.dir, file), []byte(text), 0o644))
	}
	for _, file := range []string{"memory.max", "memory.swap.max", "memory.oom.group"} {
		put(file, "")
	}
	g.limitMemory(144 << 20)
	require.Equal(t, strconv.Itoa(144<<20), text(t, g.dir, "memory.max"))
	require.Equal(t, "0", text(t, g.dir, "memory.swap.max"))
	require.Equal(t, "1", text(t, g.dir, "memory.oom.group"))
	require.Zero(t, g.killed())

	w := &ward{memory: 64 << 20, limits: limits{memory: 144 << 20}, tree: tree{group: g}, killed: g.killed()}
	put("memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 2\n")
	require.Empty(t, w.missed(), "the limit was somebody else's, further up")
	put("memory.events", "low 0\nhigh 0\nmax 7\noom 1\noom_kill 2\noom_group_kill 1\n")
	put("memory.peak", strconv.Itoa(145<<20))
	require.Equal(t, "out of memory: its processes held 145 MiB, of 64 MiB that it may use, program included (--memory sets another limit)", w.missed())
	again := &ward{memory: 64 << 20, limits: limits{memory: 144 << 20}, tree: tree{group: g}, killed: g.killed()}
	require.Empty(t, again.missed(), "it was an attempt before this one")

	g.limitMemory(0)
	require.Equal(t, "max", text(t, g.dir, "memory.max"))
	require.Equal(t, "max", text(t, g.dir, "memory.swap.max"))
	require.Equal(t, "0", text(t, g.dir, "memory.oom.group"))

	var none group
	none.limitMemory(1)
	require.Zero(t, none.killed())
	require.Zero(t, none.most())
}

func TestWeights(t *testing.T) {
	for nice, want := range map[int]int{0: 100, 5: 33, 19: 1, -5: 305, -40: 752_316} {
		require.Equal(t, min(want, 10_000), weightOf(nice), nice)
	}
}

// Where the kernel bounds memory, what takes more at one stroke is killed as a whole, and says so.
func TestTheKernelBoundsMemory(t *testing.T) {
	f := newFixture(t)
	if !f.pool.groups.memory {
		t.Skip("this process may arrange no control groups of version 2 with the controller memory")
	}
	l := f.lease("s-1", "a1", "shell=sleep 777 & head -c 2000M /dev/zero | tail; wait")
	l.MemoryBytes = 64 << 20
	r, _ := f.pool.Run(t.Context(), Attempt{Lease: l})
	require.Equal(t, api.FailureKind_FAILURE_KIND_PROGRAM, r.GetFailure().GetKind(), r)
	require.Contains(t, r.Failure.Message, "out of memory: its processes held")
}

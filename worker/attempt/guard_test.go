package attempt

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

const mib = 1 << 20

// An attempt that takes more of its node than it may is ended with that cause, and nothing of it is left (which the
// fixture sees to).
func TestAnAttemptThatTakesTooMuchIsEnded(t *testing.T) {
	for name, c := range map[string]struct {
		program string
		says    string
	}{
		"processes":                      {`for i in $(seq 60); do sleep 1000 & done; wait`, "^it had more than 50 processes .or threads. at once .-D millrace.task.processes=N sets another limit, 0 none.$"},
		"processes, each in its session": {`for i in $(seq 60); do setsid sleep 1000 & done; wait`, "^it had more than 50 processes"},
		"processes whose parents end":    {`for i in $(seq 60); do (setsid sleep 1000 &) ; done; sleep 1000`, "^it had more than 50 processes"},
		"memory":                         {`(head -c 300M /dev/zero; sleep 1000) | tail`, "^out of memory: its processes held [0-9.]+ MiB, of 64 MiB that it may use, program included .--memory sets another limit.$"},
		"disk":                           {`head -c 80M /dev/zero > file; sleep 1000`, "^its program has filled the disk: its files take [0-9.]+ MiB, 10 MiB free of 1 GiB$"},
		"disk, hidden":                   {`mkdir .x; head -c 40M /dev/zero > .x/file; ln .x/file .x/other; exec 3> gone; rm gone; head -c 40M /dev/zero >&3; sleep 1000`, "^its program has filled the disk: its files take [678][0-9.]+ MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(c *Config) {
				c.Disk = func() (int64, int64, error) { return 1024 * mib, 10 * mib, nil } // full since before
			})
			l := f.lease("s-1", "a1", "shell="+c.program)
			l.MemoryBytes = 64 * mib
			l.Program.Properties = map[string]string{"millrace.task.processes": "50"}
			r, _ := f.pool.Run(t.Context(), Attempt{Lease: l})
			require.Equal(t, api.FailureKind_FAILURE_KIND_PROGRAM, r.GetFailure().GetKind(), r)
			require.Regexp(t, c.says, r.Failure.Message)
			require.Nil(t, f.run("s-1", "a2").Failure, "the next one is well")
		})
	}
}

// What is within the limits, or has none, runs.
func TestAnAttemptWithinItsLimitsRuns(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Disk = func() (int64, int64, error) { return 1024 * mib, 10 * mib, nil } })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l := f.lease("s-1", "a1", `shell=for i in $(seq 60); do sleep 1.5 & done; head -c 100M /dev/zero | tail > /dev/null; head -c 40M /dev/zero > file; wait`)
	l.MemoryBytes = 256 * mib
	l.Program.Properties = map[string]string{"millrace.task.processes": "0"}
	r, _ := f.pool.Run(ctx, Attempt{Lease: l})
	require.Nil(t, r.Failure)
}

func TestWhoHasFilledADisk(t *testing.T) {
	for name, c := range map[string]struct {
		files, room, total int64 // room: when it began
		filled             bool
	}{
		"all of it":                         {900 * mib, 900 * mib, 1000 * mib, true},
		"most of it, beside others":         {500 * mib, 900 * mib, 1000 * mib, true},
		"some, and others the most":         {200 * mib, 900 * mib, 1000 * mib, false},
		"next to nothing":                   {20 * mib, 20 * mib, 1000 * mib, false},
		"scratch, on a disk full by others": {300 * mib, 500_000 * mib, 1_000_000 * mib, false},
		"a small disk":                      {30 * mib, 50 * mib, 64 * mib, true},
	} {
		w := &ward{room: c.room}
		require.Equal(t, c.filled, w.fillsDisk(c.files, c.total, 0) != "", name)
	}
}

// What a program has mapped of files is the kernel's to take back: it counts for nothing.
func TestMappedFilesAreNoMemory(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3")
	}
	f := newFixture(t)
	big := filepath.Join(t.TempDir(), "dictionary")
	require.NoError(t, os.WriteFile(big, make([]byte, 300*mib), 0o600))
	l := f.lease("s-1", "a1", `shell=python3 -c "
import mmap, time
f = open('`+big+`', 'rb'); m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
sum(m[i] for i in range(0, len(m), 4096))
time.sleep(2)"`)
	l.MemoryBytes = 64 * mib
	r, _ := f.pool.Run(t.Context(), Attempt{Lease: l})
	require.Nil(t, r.Failure)
	n, ok := sumOf("RssAnon:	12 kB\nRssFile:	99 kB\nVmSwap:	1 kB\n", []string{"RssAnon:", "VmSwap:"})
	require.True(t, ok)
	require.EqualValues(t, 13<<10, n)
}

// A process group's number may be another's when it has come to its end.
func TestProcessGroupsThatAreAnothersByNow(t *testing.T) {
	self := os.Getpid()
	child := process{pid: 1000, ppid: self, pgid: 1000, state: 'S'}
	a := &ward{tree: tree{token: "a", root: 1000}, groups: map[int]bool{}}
	require.Len(t, belonging([]process{child, {pid: 1001, ppid: 1000, pgid: 1001, state: 'S'}}, []*ward{a})[a], 2)
	require.Len(t, belonging([]process{child, {pid: 1002, ppid: 1, pgid: 1001, state: 'S'}}, []*ward{a})[a], 2, "its parent has ended")
	require.Len(t, belonging([]process{child}, []*ward{a})[a], 1)
	require.Len(t, belonging([]process{child, {pid: 1001, ppid: 77, pgid: 1001, state: 'S'}}, []*ward{a})[a], 1, "a stranger")

	a.groups[2000] = true
	b := &ward{tree: tree{token: "b", root: 2000}, groups: map[int]bool{}}
	for _, list := range [][]*ward{{a, b}, {b, a}} {
		a.groups[2000] = true
		of := belonging([]process{child, {pid: 2000, ppid: self, pgid: 2000, state: 'S'}}, list)
		require.Len(t, of[a], 1)
		require.Len(t, of[b], 1, "the next attempt's child")
	}
}

func TestWhatTheMachineRuns(t *testing.T) {
	require.Positive(t, tasksOfTheMachine())
	me, ok := readStat(os.Getpid())
	require.True(t, ok)
	require.Greater(t, me.memory, int64(mib))
	require.Positive(t, ownMemory(me))
	require.Equal(t, int64(7), ownMemory(process{pid: 1 << 30, memory: 7}))
	require.Empty(t, tokenOf(1<<30))
}

package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// sh runs a script of the shell.
func sh(t *testing.T, script string, change ...func(*Command)) (End, string) {
	t.Helper()
	var out bytes.Buffer
	c := Command{Path: "/bin/sh", Args: []string{"-c", script}, Dir: t.TempDir(), Env: Environ(), Stdout: &out, Stderr: &out}
	for _, f := range change {
		f(&c)
	}
	return Run(t.Context(), c), out.String()
}

func TestHowProgramsEnd(t *testing.T) {
	for script, want := range map[string]string{
		"echo hello":             "exit code 0: hello\n",
		"echo out; echo err >&2": "exit code 0: out\nerr\n",
		"exit 7":                 "exit code 7: ",
		"kill -TERM $$":          "ended by SIGTERM: ",
		"read x || echo nothing": "exit code 0: nothing\n",
	} {
		end, out := sh(t, script)
		require.Equal(t, want, fmt.Sprintf("%s: %s", end, out), script)
	}
	end, out := sh(t, "cat", func(c *Command) { c.Stdin = []byte("given") })
	require.False(t, end.Failed())
	require.Equal(t, "given", out)
	end, _ = sh(t, "", func(c *Command) { c.Path = "/nowhere/at/all" })
	require.True(t, end.Failed())
	require.ErrorIs(t, end.Err, os.ErrNotExist)
}

func TestTheEnvironmentIsWhatIsGiven(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	_, out := sh(t, "env", func(c *Command) { c.Env = Environ("MILLRACE_NODE_ROLE=core") })
	require.Contains(t, out, "MILLRACE_NODE_ROLE=core\n")
	require.Contains(t, out, "PATH=")
	require.Contains(t, out, "HOME=")
	require.NotContains(t, out, "secret")
}

func TestATimeLimit(t *testing.T) {
	end, out := sh(t, "echo begun; sleep 1000 & sleep 1000", func(c *Command) { c.Limit = 4 * time.Second })
	require.ErrorIs(t, end.Err, ErrLimit)
	require.EqualError(t, end.Err, "it took longer than it may: 4s")
	require.Equal(t, "begun\n", out)
}

// The end of who asked for it is its end, and that of all it has started.
func TestACallersEnd(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the caller is gone")
	over := make(chan End, 1)
	go func() {
		over <- Run(ctx, Command{Path: "/bin/sh", Args: []string{"-c", "sleep 1000 & echo $! > " + pids + ".new; mv " + pids + ".new " + pids + "; wait"}, Env: Environ()})
	}()
	child := waitForPID(t, pids)
	cancel(gone)
	require.ErrorIs(t, (<-over).Err, gone)
	requireEnds(t, child)
}

// A daemon that keeps its parent's output open does not keep the program from ending.
func TestADaemonIsNotWaitedFor(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	end, out := sh(t, "setsid sh -c 'echo $$ > "+pids+"; exec sleep 1000' & while ! [ -s "+pids+" ]; do :; done; echo done")
	require.False(t, end.Failed(), "%s", end)
	require.Equal(t, "done\n", out)
	daemon := waitForPID(t, pids)
	require.NoError(t, unix.Kill(daemon, 0), "it is somebody's service by now")
	require.NoError(t, unix.Kill(daemon, unix.SIGKILL))

	// One that stayed in the group is no daemon.
	_, out = sh(t, "sleep 1000 & echo $!")
	pid, err := strconv.Atoi(strings.TrimSpace(out))
	require.NoError(t, err)
	requireEnds(t, pid)
}

// A reader that goes ends what writes to it.
func TestAReaderThatGoes(t *testing.T) {
	end, _ := sh(t, "yes", func(c *Command) { c.Stdout = brokenWriter{} })
	require.True(t, end.Failed())
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("nobody reads") }

func waitForPID(t *testing.T, path string) (pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		data, err := os.ReadFile(path)
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(data)))
		return err == nil
	}, time.Minute, time.Millisecond)
	return pid
}

// requireEnds waits until a process is gone, or a zombie that nobody has looked after yet.
func requireEnds(t *testing.T, pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(data), ") Z ")
	}, time.Minute, time.Millisecond)
}

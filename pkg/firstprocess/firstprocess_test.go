package firstprocess

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestMain lets the test's own binary be the first process: what it waits for must be nobody else's children.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "first" {
		unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) // orphans come to it, as to the first process of a container
		code, err := Run(os.Args[2], os.Args[3:], os.Environ())
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 99
		}
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func first(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	return exec.CommandContext(t.Context(), self, append([]string{"first"}, args...)...)
}

// It ends as the program did.
func TestTheExitCodeIsThePrograms(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -9 $$": 128 + 9} {
		cmd := first(t, "/bin/sh", "-c", script)
		cmd.Run()
		require.Equal(t, want, cmd.ProcessState.ExitCode(), script)
	}
}

// A program that is not there is named.
func TestAProgramThatIsNotThere(t *testing.T) {
	out, err := first(t, "/no/such/program").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "start /no/such/program")
}

// A signal goes to the program, which ends as it likes.
func TestSignalsArePassedOn(t *testing.T) {
	cmd := first(t, "/bin/sh", "-c", `trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done`)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	cmd.Wait()
	require.Equal(t, 5, cmd.ProcessState.ExitCode())
}

// What an orphan leaves is taken away: none stays as a zombie.
func TestOrphansAreWaitedFor(t *testing.T) {
	// The inner shell ends at once and leaves its child to the first process; then the outer one looks for zombies of it.
	script := `sh -c 'sleep 0.05 & echo $!'; n=0; while [ -e /proc/$(cat pid 2>/dev/null)/stat ] && [ $n -lt 200 ]; do n=$((n+1)); sleep 0.05; done; echo done`
	cmd := first(t, "/bin/sh", "-c", strings.Replace(script, "echo $!'", "echo $! > pid'", 1))
	cmd.Dir = t.TempDir()
	out, err := cmd.Output()
	require.NoError(t, err)
	require.Equal(t, "done\n", string(out))
	pid, err := os.ReadFile(cmd.Dir + "/pid")
	require.NoError(t, err)
	require.NoFileExists(t, "/proc/"+strings.TrimSpace(string(pid))+"/stat")
}

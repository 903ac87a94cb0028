//go:build cluster

package clustertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/hinshun/vt10x"
	"github.com/stretchr/testify/require"
)

// tty is a command on a terminal of its own, and what can be seen there.
type tty struct {
	t     *testing.T
	cmd   *exec.Cmd
	file  *os.File // the terminal's other end
	vt    vt10x.Terminal
	bytes lockedBuffer // all that was written
	ended chan struct{}
}

func (c *cluster) onTerminal(t *testing.T, env []string, args ...string) *tty {
	t.Helper()
	s := &tty{t: t, cmd: exec.Command(binary(t), args...), vt: vt10x.New(vt10x.WithSize(80, 24)), ended: make(chan struct{})}
	s.cmd.Env = append(append(c.environ(), "TERM=xterm"), env...)
	s.start(80, 24)
	return s
}

// start starts the command on a terminal of so many columns and rows.
func (s *tty) start(columns, rows uint16) {
	s.t.Helper()
	var err error
	s.file, err = pty.StartWithSize(s.cmd, &pty.Winsize{Cols: columns, Rows: rows})
	require.NoError(s.t, err)
	go func() {
		defer close(s.ended)
		buf := make([]byte, 4096)
		for {
			n, err := s.file.Read(buf)
			s.bytes.Write(buf[:n])
			s.vt.Write(buf[:n])
			if err != nil { // EIO: nobody has it open any more
				s.cmd.Wait()
				return
			}
		}
	}()
	s.t.Cleanup(func() { s.cmd.Process.Kill(); <-s.ended; s.file.Close() })
}

func (s *tty) rows() (rows []string) {
	for l := range strings.SplitSeq(s.vt.String(), "\n") {
		if l = strings.TrimRight(l, " \x00"); l != "" {
			rows = append(rows, l)
		}
	}
	return rows
}

// resize is a person who pulls at the window. 0 is a terminal that does not know its size.
func (s *tty) resize(columns, rows int) {
	s.t.Helper()
	if columns > 0 {
		s.vt.Resize(columns, rows)
	} else {
		s.vt.Resize(80, 24)
	}
	require.NoError(s.t, pty.Setsize(s.file, &pty.Winsize{Cols: uint16(columns), Rows: uint16(rows)}))
}

func (s *tty) wait() int {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.t.Fatalf("it has not ended; the screen:\n%s", strings.Join(s.rows(), "\n"))
	}
	return s.cmd.ProcessState.ExitCode()
}

// heldUp is a job that waits for a file, and a function that makes it.
func heldUp(t *testing.T, c *cluster, name string) (args []string, open func()) {
	gate := filepath.Join(t.TempDir(), "gate")
	return []string{"run", "--name", name, "--mapper", "while [ ! -e " + gate + " ]; do sleep 0.02; done; cat", "--reducer", "cat", "--reduces", "1", "s3://tty/in/", "s3://tty/" + name + "/"},
		func() { require.NoError(t, os.WriteFile(gate, nil, 0o644)) }
}

func TestOnATerminal(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--slots", "2")
	c.mr("fs", "mb", "s3://tty")
	c.tryIn(strings.NewReader("a line\n"), "fs", "put", "-", "s3://tty/in/text")

	t.Run("bars survive resizing", func(t *testing.T) {
		args, open := heldUp(t, c, "resized")
		s := c.onTerminal(t, nil, args...)
		mapLine := regexp.MustCompile(`^map    \[-+\] 0/1  1 running, 0 queued`)
		for _, size := range [][2]int{{80, 24}, {60, 10}, {40, 10}, {20, 5}, {30, 3}, {0, 0}, {120, 30}} {
			s.resize(size[0], size[1])
			waitFor(t, fmt.Sprintf("the bars stand alone at %v", size), func() (bool, string) {
				rows := s.rows()
				shown := fmt.Sprintf("%v:\n%s", size, strings.Join(rows, "\n"))
				var maps, reduces int
				for _, r := range rows {
					if strings.HasPrefix(r, "map ") {
						maps++
					}
					if strings.HasPrefix(r, "reduce ") {
						reduces++
					}
				}
				if len(rows) < 2 {
					return false, shown
				}
				first := rows[len(rows)-2]
				wide := size[0] == 0 || size[0] >= 60
				// Nothing of earlier drawings is left: only what was said before, and two lines.
				return maps == 1 && reduces == 1 && len(rows) <= 4 && strings.HasPrefix(first, "map ") && (!wide || mapLine.MatchString(first)) &&
					(wide || len(first) <= size[0]-1), shown
			})
		}
		open()
		require.Zero(t, s.wait())
		all := strings.Join(s.rows(), "\n")
		require.NotRegexp(t, `(?m)^(map|reduce) `, all, "the bars are gone")
		require.Contains(t, all, "COMPLETED in")
		require.NotRegexp(t, `\x1b\[[\d;]*m`, s.bytes.String(), "there are no colours to leave away")
	})
	t.Run("Ctrl-C leaves the job running and says how to go on", func(t *testing.T) {
		args, open := heldUp(t, c, "interrupted")
		s := c.onTerminal(t, []string{"NO_COLOR=1"}, args...)
		waitFor(t, "it runs", func() (bool, string) {
			rows := strings.Join(s.rows(), "\n")
			return strings.Contains(rows, "1 running"), rows
		})
		_, err := s.file.Write([]byte{3})
		require.NoError(t, err)
		require.Equal(t, 130, s.wait())
		job := c.json("job", "show", "interrupted")
		open() // whatever follows: it has both slots
		id := job.str("id")
		all := strings.Join(s.rows(), "") // lines that were wrapped, whole again
		require.Contains(t, all, "job wait "+id)
		require.Contains(t, all, "job cancel "+id)
		require.Equal(t, "RUNNING", job.str("state"))
		require.Equal(t, "COMPLETED", c.waitJob(id).str("state"))
	})
	for _, env := range []string{"TERM=dumb", "CI=true", "TERM="} {
		t.Run("plain lines with "+env, func(t *testing.T) {
			s := c.onTerminal(t, []string{env}, "run", "cat", "s3://tty/in/", "s3://tty/plain-"+env+"/")
			require.Zero(t, s.wait())
			require.NotContains(t, s.bytes.String(), "\x1b")
			require.Contains(t, s.bytes.String(), "COMPLETED")
		})
	}
	t.Run("no control codes in a pipe", func(t *testing.T) {
		r := c.try("run", "cat", "s3://tty/in/", "s3://tty/piped/")
		require.Zero(t, r.code)
		require.NotRegexp(t, `[\x00-\x08\x0b-\x1f]`, r.out+r.err)
		require.Contains(t, r.err, "COMPLETED")
	})
}

package devcluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// said collects what the user would read.
type said struct {
	mu    sync.Mutex
	lines []string
	heard chan string
}

func newSaid() *said { return &said{heard: make(chan string, 100)} }

func (s *said) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
	s.heard <- s.lines[len(s.lines)-1]
}

// shell is a supervised process that runs a script.
func shell(t *testing.T, s *said, script string) *process {
	p := &process{name: "node", binary: "/bin/sh", argv: []string{"-c", script}, env: []string{"PATH=" + os.Getenv("PATH")},
		log: filepath.Join(t.TempDir(), "node.log"), say: s.say, gaveUp: func(*process) error { return nil }}
	p.init()
	return p
}

func start(t *testing.T, p *process) {
	go p.supervise()
	t.Cleanup(func() { p.stop(); <-p.ended })
}

// wait opens a pipe that a script writes to: its lines are events, so that no test has to poll.
func events(t *testing.T) (path string, next func() string) {
	path = filepath.Join(t.TempDir(), "events")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0) // both ways: never at its end
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	buf := make([]byte, 4096)
	return path, func() string {
		require.NoError(t, f.SetReadDeadline(time.Now().Add(time.Minute)))
		n, err := f.Read(buf)
		require.NoError(t, err)
		return strings.TrimSpace(string(buf[:n]))
	}
}

func number(t *testing.T, s string) int {
	n, err := strconv.Atoi(s)
	require.NoError(t, err)
	return n
}

func TestAProcessThatDiesIsStartedAgain(t *testing.T) {
	s := newSaid()
	fifo, next := events(t)
	p := shell(t, s, "echo $$ > "+fifo+"; exec sleep 100")
	start(t, p)
	first := next()
	pid := number(t, first)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	require.Contains(t, <-s.heard, fmt.Sprintf("node (pid %d) ended: signal: killed; it is started again in 100ms", pid))
	require.NotEqual(t, first, next())
}

// A worker that was removed from its site ends with an exit code that says so: it is not started again.
func TestAProcessThatEndsForGoodIsLeft(t *testing.T) {
	s := newSaid()
	p := shell(t, s, "echo it was removed >&2; exit 4")
	p.last = 4
	start(t, p)
	<-p.ended
	require.True(t, p.gone())
	require.Regexp(t, `^node \(pid \d+\) ended for good: node.log: it was removed$`, <-s.heard)

	other := shell(t, s, "exit 4")
	start(t, other)
	require.Contains(t, <-s.heard, "ended: exit code 4; it is started again in 100ms")
	require.False(t, other.gone())
}

func TestStopEndsAProcessAndItsGroup(t *testing.T) {
	s := newSaid()
	fifo, next := events(t)
	p := shell(t, s, "sleep 1000 & echo started > "+fifo+"; wait")
	// Both inherit the pipe's end: it reads as ended when the last of them is gone.
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	p.files = []*os.File{w}
	start(t, p)
	require.Equal(t, "started", next())
	p.stop()
	<-p.ended
	require.NoError(t, w.Close()) // ours
	require.NoError(t, r.SetReadDeadline(time.Now().Add(time.Minute)))
	_, err = r.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	require.Empty(t, s.lines, "an ordered end is nothing to report")
}

func TestATokenIsHandedOverWhenItIsThere(t *testing.T) {
	s := newSaid()
	fifo, next := events(t)
	p := shell(t, s, "echo $$ $(cat) > "+fifo+"; exec sleep 100")
	tokens := make(chan string, 1)
	p.stdin = tokens
	start(t, p)
	tokens <- "secret\n"
	pid, token, _ := strings.Cut(next(), " ")
	require.Equal(t, "secret", token)
	require.NoError(t, syscall.Kill(number(t, pid), syscall.SIGKILL))
	_, token, _ = strings.Cut(next(), " ")
	require.Equal(t, "secret", token, "again, when it is started again")
}

func TestAProcessThatWaitsForItsTokenCanBeStopped(t *testing.T) {
	p := shell(t, newSaid(), "cat")
	p.stdin = make(chan string)
	start(t, p)
	p.stop()
	<-p.ended
}

// A node that cannot start is given up, with its last words, and everything else is ended.
func TestOpenGivesUp(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "broken")
	require.NoError(t, os.WriteFile(binary, []byte("#!/bin/sh\necho no room on the disk >&2\nexit 7\n"), 0o755))
	s := newSaid()
	c, err := New(Config{Dir: filepath.Join(dir, "dev"), Binary: binary, Core: 1, Say: s.say})
	require.NoError(t, err)
	err = c.Open(t.Context())
	require.ErrorContains(t, err, "object-store does not start")
	require.ErrorContains(t, err, "no room on the disk")
	require.NoError(t, c.Close(), "again")
}

func TestOpenEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	s := newSaid()
	c, err := New(Config{Dir: dir, Binary: "/bin/cat", Core: 1, Say: s.say})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, c.Open(ctx), context.Canceled)
}

func TestOneClusterPerFolder(t *testing.T) {
	dir := t.TempDir()
	first, err := lock(t.Context(), dir, 0)
	require.NoError(t, err)
	_, err = lock(t.Context(), dir, 0)
	require.ErrorIs(t, err, ErrInUse)
	require.NoError(t, first.Close())
	again, err := lock(t.Context(), dir, 0)
	require.NoError(t, err)
	require.NoError(t, again.Close())
}

func TestPortsAreChosenOnceAndKept(t *testing.T) {
	dir := t.TempDir()
	l, err := loadLayout(dir)
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, process := range []string{"master-1", "core-1"} {
		for _, purpose := range []string{"listen", "gossip"} {
			a, err := l.address(process, purpose)
			require.NoError(t, err)
			require.False(t, seen[a])
			seen[a] = true
		}
	}
	require.NoError(t, l.save())
	l.reserved.Close()
	again, err := loadLayout(dir)
	require.NoError(t, err)
	t.Cleanup(again.reserved.Close)
	require.Equal(t, l.Ports, again.Ports)
	a, err := again.address("core-1", "gossip")
	require.NoError(t, err)
	require.True(t, seen[a])
	taken, err := net.Listen("tcp", a)
	require.NoError(t, err)
	defer taken.Close()
	other, err := again.address("core-1", "gossip")
	require.NoError(t, err)
	require.False(t, seen[other], "another program has the port now")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "dev.json"), []byte("{"), 0o600))
	_, err = loadLayout(dir)
	require.Error(t, err)
}

func TestKeysAreMadeOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "store", "keys.json")
	none := func(string) string { return "" }
	k, err := LoadKeys(file, none)
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(k.SecretKey), 32)
	again, err := LoadKeys(file, none)
	require.NoError(t, err)
	require.Equal(t, k, again)
	st, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
	given, err := LoadKeys(file, func(v string) string { return v })
	require.NoError(t, err)
	require.Equal(t, Keys{"MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"}, given)
	require.NoError(t, os.WriteFile(file, []byte("{}"), 0o600))
	_, err = LoadKeys(file, none)
	require.ErrorContains(t, err, "holds no keys")
}

func TestMemoryIsDividedOverTheNodes(t *testing.T) {
	require.EqualValues(t, 2<<30, nodeMemory(8<<30, 3))
	require.Zero(t, nodeMemory(8<<30, 0))
	require.Positive(t, machineMemory())
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []Config{{Core: 0, Task: 1}, {Core: 1, Task: -1}, {Core: 1, Slots: -1}} {
		_, err := New(c)
		require.Error(t, err)
	}
}

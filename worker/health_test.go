package worker

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
	"millrace/pkg/nodedir"
)

// newSession waits for a session after that one.
func (n *fakeNode) newSession(after *fakeSession) {
	n.m.t.Helper()
	n.m.wait("another session", func() bool { return n.m.sessions[n.id] != after })
}

func (n *fakeNode) session() *fakeSession {
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	return n.m.sessions[n.id]
}

// progressOf fits the first word of a running attempt.
func progressOf(attempt string) func(*api.WorkerMessage) bool {
	return func(g *api.WorkerMessage) bool {
		return slices.ContainsFunc(g.GetHeartbeat().GetProgress(), func(p *api.AttemptProgress) bool { return p.Attempt == attempt && p.BytesDone > 0 })
	}
}

// vanish removes a folder at one stroke: the node, which makes it anew, is not to get in between.
func vanish(t *testing.T, dir string) {
	t.Helper()
	away := filepath.Join(t.TempDir(), "away")
	require.NoError(t, os.Rename(dir, away))
	require.NoError(t, os.RemoveAll(away))
}

func TestARemovedDirectoryIsMadeAnew(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", "CORE")
	n.lease(mapLease(0))
	n.report("s-J-m-00000-1-1")
	n.ack("s-J-m-00000-1-1", true)
	n.lease(mapLease(1, "hang"))
	n.await("progress", progressOf("s-J-m-00001-1-2"))
	first := n.session()

	vanish(t, n.dir)
	n.newSession(first)
	require.Empty(t, n.session().hello.Segments, "the leader hears what is lost")
	f := n.report("s-J-m-00001-1-2").Result.Failure
	require.Equal(t, api.FailureKind_FAILURE_KIND_KILLED, f.GetKind(), "that counts for nothing")
	require.Contains(t, f.Message, "directory was removed")
	n.ack("s-J-m-00001-1-2", false)

	n.lease(mapLease(2))
	require.Nil(t, n.report("s-J-m-00002-1-3").Result.Failure)
	require.FileExists(t, filepath.Join(n.dir, "segments", "s-J", "s-J-m-00002-1-3.seg"))
	require.Empty(t, n.w.health.says())
	require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(n.dir, "term")); return err == nil }, time.Minute, time.Millisecond)
	id := n.id
	n.end()
	n.run(func(c *Config) { c.Token, c.Join = "", nil })
	require.Equal(t, id, n.id, "the next start is the same node, and needs no token")
}

func TestRemovedSegmentsAreReported(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", "CORE")
	for i := range 2 {
		l := mapLease(i)
		n.lease(l)
		n.report(l.Attempt)
		n.ack(l.Attempt, true)
	}
	first := n.session()
	vanish(t, filepath.Join(n.dir, "segments"))
	n.newSession(first)
	require.Empty(t, n.session().hello.Segments)
	l := mapLease(2)
	n.lease(l)
	require.Nil(t, n.report(l.Attempt).Result.Failure)
	require.Len(t, n.w.segments.Held(), 1)
}

func TestAnAttemptWhoseDirectoryIsRemoved(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", "CORE")
	gate := filepath.Join(t.TempDir(), "gate")
	l := mapLease(0, "wait="+gate)
	n.lease(l)
	n.await("progress", progressOf(l.Attempt))
	dir := filepath.Join(n.dir, "attempts", l.Attempt)
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	f := n.report(l.Attempt).Result.Failure
	require.Equal(t, api.FailureKind_FAILURE_KIND_RESOURCE, f.GetKind())
	require.Contains(t, f.Message, "its directory "+dir+" was removed while it ran")
	require.False(t, f.Disk)
}

func TestADirectoryThatCannotBeMadeAnew(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", "CORE")
	for os.WriteFile(n.dir, nil, 0o600) != nil { // something is in its place, unless the node is quicker
		vanish(t, n.dir)
	}
	ill := func(g *api.WorkerMessage) bool { return g.GetHeartbeat().GetProblem() != "" }
	n.await("the node says so", ill)
	m.mu.Lock()
	for _, g := range m.sessions[n.id].got {
		if ill(g) {
			require.Contains(t, g.GetHeartbeat().GetProblem(), n.dir)
		}
	}
	m.mu.Unlock()
	require.NoError(t, os.Remove(n.dir))
	require.Eventually(t, func() bool { return n.w.health.says() == "" }, time.Minute, time.Millisecond)
	l := mapLease(0)
	n.lease(l)
	require.Nil(t, n.report(l.Attempt).Result.Failure)
}

func TestADirectoryThatAnotherProcessTook(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", "CORE")
	elsewhere := n.dir + "-away"
	require.NoError(t, os.Rename(n.dir, elsewhere))
	other, err := nodedir.Open(n.dir, "test")
	if errors.Is(err, nodedir.ErrInUse) {
		t.Skip("the node was quicker")
	}
	require.NoError(t, err)
	defer other.Close()
	err = <-n.done
	require.ErrorIs(t, err, errDirectory)
	require.ErrorIs(t, err, nodedir.ErrInUse)
}

// A node that cannot write down the leader's term, its disk being full, is still of use to it.
func TestATermThatCannotBeKept(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", "CORE")
	inTheWay := filepath.Join(n.dir, "term", "x")
	require.Eventually(t, func() bool { return n.w.termKept.Load() == 1 }, time.Minute, time.Millisecond)
	require.NoError(t, os.Remove(filepath.Join(n.dir, "term")))
	require.NoError(t, os.MkdirAll(inTheWay, 0o700))
	first := n.session()
	m.change(func() { m.term = 7 })
	first.cancel()
	n.newSession(first)
	require.Eventually(t, func() bool { return n.w.term.Load() == 7 }, time.Minute, time.Millisecond)
	require.NoError(t, os.RemoveAll(filepath.Join(n.dir, "term")))
	require.Eventually(t, func() bool {
		data, err := os.ReadFile(filepath.Join(n.dir, "term"))
		return err == nil && string(data) == "7"
	}, time.Minute, time.Millisecond, "it is kept as soon as that is possible")
}

package worker

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

func TestANodeThatLeavesForGood(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", coreRole, func(c *Config) { c.LeaveOnTerm = true })
	gate := filepath.Join(t.TempDir(), "gate")
	n.lease(mapLease(0, "wait="+gate))
	n.await("it runs", progressOf("s-J-m-00000-1-1"))
	n.stores(7)
	n.stop()
	leave := func(g *api.WorkerMessage) bool { return g.GetLeave() != nil }
	n.await("its word", leave)
	first := n.session() // another leader: it is told, too, and what runs goes on
	first.cancel()
	n.newSession(first)
	n.await("its word", leave)
	require.Len(t, n.session().hello.Running, 1)
	id := n.id

	m.mu.Lock()
	m.removed = true
	m.sessions[n.id].cancel()
	m.mu.Unlock()
	require.NoError(t, <-n.done)
	require.Empty(t, n.left())
	require.NoFileExists(t, filepath.Join(n.dir, "node.json"))

	m.mu.Lock()
	m.removed = false
	m.mu.Unlock()
	n.run()
	require.NotEqual(t, id, n.id, "the next start is another node")
}

// Without a leader to take leave of it ends as at any other time.
func TestALeaveWithoutALeader(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", coreRole, func(c *Config) { c.LeaveOnTerm = true })
	n.w.leavePatience = time.Millisecond
	m.stop()
	n.stop()
	require.NoError(t, <-n.done)
	require.FileExists(t, filepath.Join(n.dir, "node.json"))
	m.start()
	n.run()
}

//go:build cluster

package clustertest

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Nodes that the process provider has started are the same nodes with the same data whatever ends: one of them, dev as a whole by SIGKILL. And none
// of them outlives dev.
func TestNodesThatAreProcesses(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--slots", "1")
	c.mr("cluster", "create", "--name", "night", "--core", "2", "--task", "1", "--provider", "process", "--wait")
	require.Zero(t, c.tryIn(strings.NewReader("kept"), "fs", "put", "--replication", "1", "-", "hdfs://night/f").code)
	group := func() map[string]int64 { // pid by id
		pids := map[string]int64{}
		for _, n := range c.jsonList("node", "list", "--cluster", "night") {
			if n.str("state") == "RUNNING" && n.str("role") != "MASTER" {
				pids[n.str("id")] = n.num("pid")
			}
		}
		return pids
	}
	same := func(what string, before map[string]int64, restarted func(id string) bool) {
		t.Helper()
		waitFor(t, what, func() (bool, string) {
			now := group()
			ok := len(now) == len(before)
			for id, pid := range before {
				ok = ok && now[id] != 0 && (now[id] != pid) == restarted(id)
			}
			return ok, fmt.Sprintf("before: %v, now: %v\n%s", before, now, c.mr("cluster", "events", "night"))
		})
		require.Equal(t, "kept", c.mr("fs", "cat", "hdfs://night/f"))
	}
	before := group()
	require.Len(t, before, 3)
	var victim string
	for id, pid := range before {
		victim = id
		require.NoError(t, syscall.Kill(int(pid), syscall.SIGKILL))
		break
	}
	same("the node that was killed is back, and no other was touched", before, func(id string) bool { return id == victim })

	before = group()
	require.NoError(t, c.dev.Process.Kill())
	<-c.ended
	waitFor(t, "no process of the cluster is left", func() (bool, string) {
		left := processesNaming(c.dir)
		return len(left) == 0, strings.Join(left, "\n")
	})
	c.start()
	same("all nodes are back", before, func(string) bool { return true })

	c.mr("cluster", "resize", "night", "--core", "1", "--task", "0", "--wait")
	require.Equal(t, "kept", c.mr("fs", "cat", "hdfs://night/f"))
	require.Equal(t, "TERMINATED", c.json("cluster", "terminate", "night", "--wait").str("state"))
	require.Empty(t, processesNaming(c.dir+"/nodes/"))
}

//go:build cluster

package clustertest

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestANodeIsDrained: one of four core nodes leaves while files lie on it, one is being written and a job runs, and the
// leader is killed on the way. Every block has its replicas without the node before it goes, no attempt counts as failed, and all files
// are what they were. What three nodes could not keep they are not asked to.
func TestANodeIsDrained(t *testing.T) {
	c := startCluster(t, "--masters", "3", "--core", "4", "--task", "0", "--slots", "2")
	voters(c, 3)
	in := newCorpus(1, 2<<20)
	in.put(t, c, "data")
	files := map[string][]byte{}
	for i := range 6 {
		name, data := fmt.Sprintf("hdfs:///kept/%d", i), noiseBytes(uint64(i), 2<<20+i)
		files[name] = data
		local := filepath.Join(t.TempDir(), "f")
		require.NoError(t, os.WriteFile(local, data, 0o600))
		c.mr("fs", "put", "--replication", fmt.Sprint(2+i%2), local, name)
	}
	slow := noiseBytes(99, 3<<20)
	files["hdfs:///slow"] = slow
	source, more := io.Pipe()
	written := c.later(source, "fs", "put", "--replication", "3", "-", "hdfs:///slow")
	_, err := more.Write(slow[:2<<20])
	require.NoError(t, err)

	g := newGated(t)
	job := g.submit(c, "maps")
	node := mostBlocks(c, files)
	plan := c.json("node", "drain", node.str("name"), "--dry-run")
	require.Positive(t, plan.num("blocks"), plan)
	require.Equal(t, "RUNNING", plan.str("node", "state"))

	drained := c.later(nil, "node", "drain", node.str("name"), "--wait")
	c.awaitState(node.str("id"), "DRAINING")
	c.kill(leader(c))
	waitFor(t, "its blocks are copied, under another leader", func() (bool, string) {
		r := c.try("node", "drain", node.str("name"), "--json") // once more, which changes nothing
		var d object
		if r.code == 0 {
			require.NoError(t, json.Unmarshal([]byte(r.out), &d), r.out)
		}
		return r.code == 0 && d.num("blocks") == 0 && d.num("attempts") > 0, r.out + r.err
	})
	require.False(t, isOver(drained), "what was begun there goes on: %s", c.try("node", "list").out)
	refused := c.try("node", "remove", node.str("name"))
	require.Equal(t, 1, refused.code, refused)
	require.Contains(t, refused.err, "is not drained yet: ")

	_, err = more.Write(slow[2<<20:])
	require.NoError(t, err)
	require.NoError(t, more.Close())
	g.open(t, g.mapGate)
	g.open(t, g.reduceGate)
	require.Zero(t, (<-written).code)
	end := <-drained
	require.Zero(t, end.code, end)
	require.Contains(t, end.out, "drained: nothing is left on it")

	for name := range files {
		wanted := c.json("fs", "stat", name).num("replication")
		for _, replicas := range replicasOf(c, name) {
			others := slices.DeleteFunc(replicas, func(id string) bool { return id == node.str("id") })
			require.GreaterOrEqual(t, int64(len(others)), wanted, "%s is on the others", name)
		}
	}
	c.mr("node", "remove", node.str("name"))
	for name := range files {
		for _, replicas := range replicasOf(c, name) {
			require.NotContains(t, replicas, node.str("id"), name)
		}
	}
	require.Len(t, c.nodes("CORE"), 3)
	waitFor(t, "its process ends, and is not started again", func() (bool, string) {
		return strings.Contains(c.log.String(), node.str("name")+" (pid "+fmt.Sprint(node.num("pid"))+") ended for good: "), c.log.String()
	})
	healthy(c)
	for name, data := range files {
		got := c.mr("fs", "cat", name)
		require.True(t, got == string(data), "%s: %d bytes of %d", name, len(got), len(data))
	}
	done := c.waitJob(job)
	require.Equal(t, "COMPLETED", done.str("state"), done)
	require.Zero(t, done.num("attempts", "failed"), done)
	c.requireNoneLost(done)
	_, lines := readOutput(t, c, "data", "o/")
	requireCounts(t, in.counts, lines)

	next := c.node("CORE", 0)
	refused = c.try("node", "drain", next.str("name"), "--wait")
	require.Equal(t, 1, refused.code, refused)
	require.Contains(t, refused.err, "replication 3 needs 3 core nodes; 2 would be left")
	require.Contains(t, refused.err, "next: let more core nodes join")
	require.Len(t, c.nodes("CORE"), 3, "and nothing has changed")
	groups, _ := c.json("cluster", "show")["groups"].([]any)
	require.Equal(t, int64(3), object(groups[slices.IndexFunc(groups, func(g any) bool { return object(g.(map[string]any)).str("role") == "CORE" })].(map[string]any)).num("target"))

	c.stop()
	c.start()
	require.Len(t, c.nodes("CORE"), 3, "it does not wait for the one that is gone")
	healthy(c)
}

// A node that was drained stays so when its machine is started again, until somebody has it resume: then it gets tasks.
func TestNodesThatAreDrainedStaySo(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "1", "--slots", "1")
	newCorpus(1, 512<<10).put(t, c, "data")
	node := c.node("TASK", 0)
	require.Contains(t, c.mr("node", "drain", "task-1", "--wait"), "drained: nothing is left on it")
	c.kill(node)
	again := c.awaitNode("task-1", "DRAINING", node.num("pid"))
	require.Equal(t, node.str("id"), again.str("id"))

	g := newGated(t)
	job := g.submit(c, "maps")
	require.Zero(t, c.nodeNamed("task-1").num("running"), "it gets none of what waits")
	require.Contains(t, c.mr("node", "resume", "task-1"), "does not drain")
	waitFor(t, "it runs a task", func() (bool, string) {
		n := c.nodeNamed("task-1")
		return n.str("state") == "RUNNING" && n.num("running") > 0, fmt.Sprint(n)
	})
	g.open(t, g.mapGate)
	g.open(t, g.reduceGate)
	require.Equal(t, "COMPLETED", c.waitJob(job).str("state"))
}

// noise is bytes that nothing else has.
func noiseBytes(seed uint64, n int) []byte {
	data := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 7))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}

// later starts a command and gives its result when it has ended.
func (c *cluster) later(stdin io.Reader, args ...string) <-chan result {
	ended := make(chan result, 1)
	go func() { ended <- c.tryIn(stdin, args...) }()
	return ended
}

func isOver(ended <-chan result) bool { return len(ended) > 0 }

// replicasOf is where each block of a file lies.
func replicasOf(c *cluster, name string) (all [][]string) {
	c.t.Helper()
	blocks, _ := c.json("fs", "stat", name)["blocks"].([]any)
	require.NotEmpty(c.t, blocks, name)
	for _, b := range blocks {
		var nodes []string
		replicas, _ := object(b.(map[string]any))["replicas"].([]any)
		for _, r := range replicas {
			nodes = append(nodes, r.(string))
		}
		all = append(all, nodes)
	}
	return all
}

// mostBlocks is the core node on which the most blocks of some files lie.
func mostBlocks(c *cluster, files map[string][]byte) (most object) {
	c.t.Helper()
	held := map[string]int{}
	for name := range files {
		if r := c.try("fs", "stat", name, "--json"); r.code != 0 {
			continue // it is being written
		}
		for _, replicas := range replicasOf(c, name) {
			for _, node := range replicas {
				held[node]++
			}
		}
	}
	for _, n := range c.nodes("CORE") {
		if most == nil || held[n.str("id")] > held[most.str("id")] {
			most = n
		}
	}
	return most
}

// healthy waits until each block has all the replicas that are wanted of it.
func healthy(c *cluster) {
	c.t.Helper()
	waitFor(c.t, "the files are healthy", func() (bool, string) {
		r := c.try("fs", "fsck", "hdfs:///", "--json")
		return r.code == 0, r.out + r.err
	})
}

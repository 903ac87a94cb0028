//go:build cluster

package clustertest

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// group is a cluster's group of a role, as it is now.
func (c *cluster) group(name, role string) object {
	c.t.Helper()
	groups, _ := c.json("cluster", "show", name)["groups"].([]any)
	for _, g := range groups {
		if g := object(g.(map[string]any)); g.str("role") == role {
			return g
		}
	}
	c.t.Fatalf("cluster %s has no group %s", name, role)
	return nil
}

// awaitGroup waits until so many nodes of a group run and nothing of it is under way.
func (c *cluster) awaitGroup(name, role string, running int64) {
	c.t.Helper()
	waitFor(c.t, fmt.Sprintf("%d %s nodes run in %s", running, role, name), func() (bool, string) {
		r := c.try("cluster", "show", name, "--json")
		if r.code != 0 {
			return false, r.err
		}
		g := c.group(name, role)
		return g.num("running") == running && g.num("draining")+g.num("launching")+g.num("bootstrapping") == 0, fmt.Sprint(g)
	})
}

// events are the messages of a cluster's events.
func (c *cluster) events(name string) (list []string) {
	c.t.Helper()
	for _, e := range c.jsonList("cluster", "events", name) {
		list = append(list, e.str("message"))
	}
	return list
}

// A cluster that is resized under a job: nodes of the pool take tasks as soon as they are there, and leave again when what they run is over.
// The result is what it would be without, and no attempt counts as failed.
func TestAClusterIsResizedUnderAJob(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--provider", "pool", "--pool", "3", "--slots", "1")
	in := newCorpus(1, 2<<20)
	in.put(t, c, "data")
	g := newGated(t)
	job := g.submit(c, "maps")

	plan := c.json("cluster", "resize", "--core", "1", "--task", "2", "--dry-run")
	require.Equal(t, true, plan["dryRun"])
	require.Zero(t, c.group("default", "TASK").num("target"), "nothing was changed")

	began := time.Now()
	c.mr("cluster", "resize", "--task", "2", "--wait")
	waitFor(t, "each of the new nodes runs a task", func() (bool, string) {
		var with []string
		for _, n := range c.nodes("TASK") {
			if n.num("running") > 0 {
				with = append(with, n.str("name"))
			}
		}
		return len(with) == 2, fmt.Sprint(with)
	})
	t.Logf("from resize to tasks on both new nodes: %s", time.Since(began).Round(time.Millisecond))

	down := c.later(nil, "cluster", "resize", "--task", "0", "--grace", "5m", "--wait")
	waitFor(t, "both are leaving", func() (bool, string) {
		g := c.group("default", "TASK")
		return g.num("draining") == 2, fmt.Sprint(g)
	})
	require.Empty(t, down, "they finish what they run")
	g.open(t, g.mapGate)
	g.open(t, g.reduceGate)
	end := <-down
	require.Zero(t, end.code, end)
	done := c.waitJob(job)
	require.Equal(t, "COMPLETED", done.str("state"), done)
	require.Zero(t, done.num("attempts", "failed"), done)
	c.requireNoneLost(done)
	_, lines := readOutput(t, c, "data", "o/")
	requireCounts(t, in.counts, lines)
	require.Empty(t, c.nodes("TASK"))
	waitFor(t, "they are back in the pool", func() (bool, string) { return len(c.nodes("POOL")) == 3, c.mr("node", "list") })
	require.Contains(t, strings.Join(c.events("default"), "\n"), "resized by admin from 1 core, 2 task to 1 core, 0 task")
}

// Nodes that leave under a job with more tasks than slots end what they run and what is in their queues, or give it back, and get no more:
// also not in the moment in which they are taken out of the site. So nothing is lost.
func TestAResizeDownLosesNothing(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "2", "--slots", "2")
	in := newCorpus(1, 1<<20)
	in.put(t, c, "data")
	job := c.submit("--mapper", `sleep 0.3; tr -s ' \t\r' '\n\n\n' | sed '/^$/d; s/$/\t1/'`,
		"--reducer", `awk -F '\t' '{ if (NR > 1 && ($1 "") != (k "")) { print k "\t" n; n = 0 } k = $1; n += $2 } END { if (NR) print k "\t" n }'`,
		"--input", "s3://data/in", "--split-size", "12KiB", "--reduces", "2", "--output", "s3://data/o")
	waitFor(t, "both task nodes are busy", func() (bool, string) {
		nodes := c.nodes("TASK")
		busy := len(nodes) == 2 && nodes[0].num("running") > 0 && nodes[1].num("running") > 0
		return busy, fmt.Sprint(nodes)
	})
	c.mr("cluster", "resize", "--task", "1", "--wait")
	c.mr("cluster", "resize", "--task", "0", "--wait")
	done := c.waitJob(job)
	require.Equal(t, "COMPLETED", done.str("state"), done)
	require.Zero(t, done.num("attempts", "failed"), done)
	c.requireNoneLost(done)
	_, lines := readOutput(t, c, "data", "o/")
	requireCounts(t, in.counts, lines)
	require.Empty(t, c.nodes("TASK"))
}

// What runs on a node that leaves when its grace is over is killed, which counts against nothing, and runs elsewhere.
func TestAResizeWithoutGrace(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--provider", "pool", "--pool", "1", "--slots", "2")
	in := newCorpus(1, 1<<20)
	in.put(t, c, "data")
	c.mr("cluster", "resize", "--task", "1", "--wait")
	g := newGated(t)
	job := g.submit(c, "maps")
	waitFor(t, "the task node runs something", func() (bool, string) {
		nodes := c.nodes("TASK")
		return len(nodes) == 1 && nodes[0].num("running") > 0, fmt.Sprint(nodes)
	})
	c.mr("cluster", "resize", "--task", "0", "--grace", "0s", "--wait")
	g.open(t, g.mapGate)
	g.open(t, g.reduceGate)
	done := c.waitJob(job)
	require.Equal(t, "COMPLETED", done.str("state"), done)
	require.Zero(t, done.num("attempts", "failed"), done)
	c.requireNoneLost(done)
	require.Positive(t, done.num("attempts", "killed"), done)
	_, lines := readOutput(t, c, "data", "o/")
	requireCounts(t, in.counts, lines)
}

// A resize that another one overtakes ends at the last target, also when that is asked for while nodes are leaving, and when
// the pool has fewer than are wanted: then it says how many are missing, and takes them when they are there.
func TestAResizeIsOvertaken(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--provider", "pool", "--pool", "2", "--slots", "2")
	in := newCorpus(1, 1<<20)
	in.put(t, c, "data")
	for _, n := range []string{"2", "0", "1", "2", "1"} {
		c.mr("cluster", "resize", "--task", n)
	}
	c.awaitGroup("default", "TASK", 1)

	g := newGated(t)
	job := g.submit(c, "maps")
	c.mr("cluster", "resize", "--task", "0")
	c.mr("cluster", "resize", "--task", "1")
	c.awaitGroup("default", "TASK", 1)
	c.mr("cluster", "resize", "--task", "4")
	waitFor(t, "it says how many are missing", func() (bool, string) {
		v := c.json("cluster", "show")
		problems := fmt.Sprint(v["problems"])
		return c.group("default", "TASK").num("missing") == 2 && strings.Contains(problems, "the TASK group lacks 2 nodes"), problems
	})
	c.awaitGroup("default", "TASK", 2)
	refused := c.try("cluster", "resize", "--core", "0")
	require.Equal(t, 1, refused.code, refused)
	require.Contains(t, refused.err, "job "+job+" runs")
	g.open(t, g.mapGate)
	g.open(t, g.reduceGate)
	require.Equal(t, "COMPLETED", c.waitJob(job).str("state"))
	_, lines := readOutput(t, c, "data", "o/")
	requireCounts(t, in.counts, lines)
	c.mr("cluster", "resize", "--task", "2", "--wait")
}

// A resize goes on under the next leader, up and down, and core nodes leave with nothing lost.
func TestALeaderDiesInAResize(t *testing.T) {
	c := startCluster(t, "--masters", "3", "--core", "2", "--task", "0", "--provider", "pool", "--pool", "2", "--slots", "1")
	voters(c, 3)
	files := map[string][]byte{}
	for i := range 4 {
		files[fmt.Sprintf("hdfs:///kept/%d", i)] = noiseBytes(uint64(i), 1<<20+i)
	}
	for name, data := range files {
		r := c.tryIn(strings.NewReader(string(data)), "fs", "put", "--replication", "2", "-", name)
		require.Zero(t, r.code, r.err)
	}
	up := c.later(nil, "cluster", "resize", "--core", "4", "--wait")
	c.kill(leader(c))
	end := <-up
	if end.code != 0 { // the leader died before the resize reached it, or was answered
		c.mr("cluster", "resize", "--core", "4", "--wait")
	}
	c.awaitGroup("default", "CORE", 4)

	voters(c, 3)
	c.mr("cluster", "resize", "--core", "2")
	c.kill(leader(c))
	c.awaitGroup("default", "CORE", 2)
	healthy(c)
	for name, data := range files {
		got := c.mr("fs", "cat", name)
		require.True(t, got == string(data), "%s: %d bytes of %d", name, len(got), len(data))
	}
}

// A resize that the pool has too few nodes for goes on by itself when a machine joins the pool; one of a cluster that is ending is refused.
func TestAResizeWaitsForMachines(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--provider", "pool", "--slots", "1")
	newCorpus(1, 512<<10).put(t, c, "data")
	require.Contains(t, c.mr("cluster", "resize", "--task", "1"), "missing: the provider has no more now, and is asked again and again")
	further := c.ownNode("further", "pool")
	further.on(c.joinToken("pool"))
	c.awaitGroup("default", "TASK", 1)
	require.Empty(t, c.json("cluster", "show")["problems"])

	// The store is away, so that the job cannot be cleaned up: the cluster is ending for as long.
	g := newGated(t)
	g.submit(c, "maps")
	goOn := c.pauseStore()
	c.mr("cluster", "terminate", "default")
	refused := c.try("cluster", "resize", "--task", "2")
	require.Equal(t, 1, refused.code, refused)
	require.Contains(t, refused.err, "cluster default is TERMINATING: nothing of it can be changed")
	goOn()
	waitFor(t, "it has ended", func() (bool, string) {
		v := c.jsonList("cluster", "list", "--all")
		return len(v) == 1 && v[0].str("state") == "TERMINATED", fmt.Sprint(v)
	})
}

// pauseStore has the embedded object store stand still until the function is called that it gives.
func (c *cluster) pauseStore() (goOn func()) {
	c.t.Helper()
	for _, p := range processesNaming(filepath.Join(c.dir, "object-store")) {
		var pid int64
		var command, role string
		if n, _ := fmt.Sscan(p, &pid, &command, &role); n == 3 && role == "object-store" {
			return freeze(c.t.(*testing.T), object{"pid": float64(pid)})
		}
	}
	c.t.Fatal("there is no object store")
	return nil
}

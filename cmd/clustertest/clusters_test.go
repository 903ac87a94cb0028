//go:build cluster

package clustertest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// From the creation of a cluster on free nodes to the end of its first job, which is submitted at once.
func TestAClusterOfNodesFromThePool(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--pool", "2", "--slots", "1")
	in := newCorpus(1, 64<<10)
	in.put(t, c, "data")
	began := time.Now()
	made := c.json("cluster", "create", "--name", "fast", "--core", "2", "--provider", "pool")
	require.Equal(t, "fast", made.str("name"))
	require.Contains(t, []string{"STARTING", "WAITING"}, made.str("state"))
	job := c.submit("wordcount", "--cluster", "fast", "--input", "s3://data/in", "--output", "s3://data/o")
	c.waitJobUntil(job, "has its first task done", func(o object) bool { return o.num("maps", "completed") > 0 })
	t.Logf("from cluster create to the first finished task: %s", time.Since(began).Round(time.Millisecond))
	require.Equal(t, "COMPLETED", c.waitJob(job).str("state"))
	_, lines := readOutput(t, c, "data", "o/")
	requireCounts(t, in.counts, lines)
	require.Equal(t, []string{"created by admin: 2 core, 0 task"}, c.events("fast")[:1])
}

// Several clusters on one site have files, jobs and slots of their own, and the name of each means it alone.
func TestClustersOnOneSite(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--pool", "3", "--slots", "1")
	in := newCorpus(1, 256<<10)
	in.put(t, c, "data")
	c.mr("cluster", "create", "--name", "one", "--core", "1", "--provider", "pool", "--tag", "team=a", "--step-concurrency", "1", "--wait")
	c.mr("cluster", "create", "--name", "two", "--core", "2", "--provider", "pool", "--termination-protected", "--wait")
	for _, args := range [][]string{{"--name", "one"}, {"--name", "a b"}, {"--name", "x", "--provider", "cloud"}, {"--name", "x", "--bootstrap-action", "s3://data/none.sh"}} {
		r := c.try(append([]string{"cluster", "create"}, args...)...)
		require.Equal(t, 2, r.code, r)
	}
	require.Len(t, c.jsonList("cluster", "list"), 3)

	require.Zero(t, c.tryIn(strings.NewReader("of one"), "fs", "put", "-", "hdfs://one/f").code)
	require.Zero(t, c.tryIn(strings.NewReader("of two"), "fs", "put", "-", "hdfs://two/f").code)
	require.Equal(t, "of one", c.mr("fs", "cat", "hdfs://one/f"))
	require.Equal(t, "of two", c.mr("fs", "cat", "hdfs:///f", "--cluster", "two"))
	require.NotZero(t, c.try("fs", "cat", "hdfs:///f").code)

	// One job at a time in one; the other cluster has slots of its own.
	g := newGated(t)
	first := c.submit(append(g.args(t), "--cluster", "one", "--output", "s3://data/first")...)
	c.waitJobUntil(first, "runs", func(o object) bool { return o.num("maps", "running") > 0 })
	second := c.submit("wordcount", "--cluster", "one", "--input", "s3://data/in", "--output", "hdfs://one/second")
	other := c.submit("wordcount", "--cluster", "two", "--input", "s3://data/in", "--output", "hdfs:///o")
	require.Equal(t, "COMPLETED", c.waitJob(other).str("state"))
	require.Contains(t, c.mr("fs", "ls", "hdfs://two/o/"), "part-r-00000")
	waits := c.json("job", "show", second)
	require.Equal(t, "PENDING", waits.str("state"), waits)
	require.Contains(t, c.mr("job", "why", second), "it waits for its turn: cluster one runs 1 job at once, and "+first+" comes first")
	c.mr("cluster", "set", "one", "--step-concurrency", "2")
	c.waitJobUntil(second, "has its turn", func(o object) bool { return o.str("state") == "RUNNING" })

	// A cluster that ends takes its jobs with it, and nothing of the others.
	refused := c.try("cluster", "terminate", "two")
	require.Equal(t, 1, refused.code)
	require.Contains(t, refused.err, "cluster two is protected from termination")
	ended := c.json("cluster", "terminate", "one", "--wait")
	require.Equal(t, []string{"TERMINATED", "USER_REQUEST", "terminated by admin"}, []string{ended.str("state"), ended.str("reasonCode"), ended.str("reason")})
	for _, id := range []string{first, second} {
		job := c.json("job", "show", id)
		require.Equal(t, "CANCELLED", job.str("state"), job)
	}
	requireNothing(t, c, "data", "first/")
	refused = c.try("job", "submit", "wordcount", "--cluster", "one", "--input", "s3://data/in", "--output", "s3://data/x")
	require.Equal(t, 2, refused.code, refused)
	require.Len(t, c.jsonList("cluster", "list"), 2)
	require.Len(t, c.jsonList("cluster", "list", "--state", "TERMINATED"), 1)
	require.Equal(t, "of two", c.mr("fs", "cat", "hdfs://two/f"))

	// Its name is free, and the new one has nothing of the old one.
	c.mr("cluster", "create", "--name", "one", "--core", "1", "--provider", "pool", "--wait")
	require.NotZero(t, c.try("fs", "cat", "hdfs://one/f").code)
	require.NotEqual(t, ended.str("id"), c.json("cluster", "show", "one").str("id"))
}

// What a cluster kept on nodes of the pool is gone when they are free again: no block, segment, log or program of it is left.
func TestNodesOfThePoolComeBackWiped(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--pool", "2", "--slots", "2")
	in := newCorpus(1, 512<<10)
	in.put(t, c, "data")
	c.mr("cluster", "create", "--name", "secret", "--core", "1", "--task", "1", "--provider", "pool", "--wait")
	g := newGated(t)
	job := c.submit(append(g.args(t), "--cluster", "secret", "--output", "s3://data/o")...)
	c.waitJobUntil(job, "has maps done and others running", func(o object) bool { return o.num("maps", "completed") > 0 && o.num("maps", "running") > 0 })
	const word = "whatever-is-secret-stays-so"
	require.Zero(t, c.tryIn(strings.NewReader(word), "fs", "put", "--replication", "1", "-", "hdfs://secret/f").code)
	found := func() (names []string) {
		for _, pool := range []string{"pool-1", "pool-2"} {
			filepath.WalkDir(filepath.Join(c.dir, pool), func(path string, d os.DirEntry, err error) error {
				if err == nil && d.Type().IsRegular() {
					data, _ := os.ReadFile(path) // it may be gone again
					if strings.Contains(string(data), word) || strings.Contains(path, job) {
						names = append(names, path)
					}
				}
				return nil
			})
		}
		return names
	}
	require.NotEmpty(t, found(), "they are there to be wiped")
	began := time.Now()
	c.mr("cluster", "terminate", "secret", "--wait")
	waitFor(t, "both nodes are free", func() (bool, string) { return len(c.nodes("POOL")) == 2, c.mr("node", "list") })
	t.Logf("from terminate to free nodes: %s", time.Since(began).Round(time.Millisecond))
	waitFor(t, "nothing of it is left", func() (bool, string) { return len(found()) == 0, fmt.Sprint(found()) })
	for _, pool := range []string{"pool-1", "pool-2"} {
		for _, folder := range []string{"segments", "attempts", "logs", "programs"} {
			require.NoError(t, filepath.WalkDir(filepath.Join(c.dir, pool, folder), func(path string, d os.DirEntry, err error) error {
				require.True(t, err != nil || d.IsDir() || d.Name() == ".token", "%s is left", path) // that one marks the processes of the node itself
				return err
			}))
		}
	}

	// The same machines serve the next cluster.
	c.mr("cluster", "create", "--name", "next", "--core", "2", "--provider", "pool", "--wait")
	done := c.waitJob(c.submit("wordcount", "--cluster", "next", "--input", "s3://data/in", "--output", "s3://data/next"))
	require.Equal(t, "COMPLETED", done.str("state"), done)
	_, lines := readOutput(t, c, "data", "next/")
	requireCounts(t, in.counts, lines)
}

// A cluster that is terminated while its nodes are still to come, and one that ends by itself when it has nothing to do.
func TestClustersThatEndEarly(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--pool", "1", "--slots", "1")
	newCorpus(1, 64<<10).put(t, c, "data")
	c.mr("cluster", "create", "--name", "big", "--core", "5", "--provider", "pool")
	c.mr("cluster", "terminate", "big", "--wait")
	waitFor(t, "its node is free", func() (bool, string) { return len(c.nodes("POOL")) == 1, c.mr("node", "list") })

	c.mr("cluster", "create", "--name", "idle", "--core", "1", "--provider", "pool", "--auto-terminate", "1h")
	job := c.submit("wordcount", "--cluster", "idle", "--input", "s3://data/in", "--output", "s3://data/o")
	c.mr("cluster", "set", "idle", "--auto-terminate", "1s") // not before: a slow submit would find it ended
	require.Equal(t, "COMPLETED", c.waitJob(job).str("state"))
	waitFor(t, "it has ended by itself", func() (bool, string) {
		v := c.json("cluster", "show", "idle")
		return v.str("state") == "TERMINATED", fmt.Sprint(v)
	})
	v := c.json("cluster", "show", "idle")
	require.Equal(t, "AUTO_TERMINATE", v.str("reasonCode"), v)
	require.Equal(t, "COMPLETED", c.json("job", "show", job).str("state"), "what it has done is known")
}

// A cluster that is terminated while it is created: its nodes run bootstrap actions, or are still to come. What the actions began is ended,
// and the nodes are free again, with nothing of it left on them.
func TestClustersThatEndWhileTheyAreCreated(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--pool", "2", "--slots", "1")
	const word = "whatever-is-begun-is-ended"
	hangs := nodeScript(t, "hangs.sh", "echo "+word+" > left-behind; exec sleep 1000 # "+word+"\n")
	c.mr("cluster", "create", "--name", "big", "--core", "2", "--task", "1", "--provider", "pool", "--bootstrap-action", hangs)
	left := func() (files []string) {
		for _, pool := range []string{"pool-1", "pool-2"} {
			filepath.WalkDir(filepath.Join(c.dir, pool), func(path string, d os.DirEntry, err error) error {
				if err == nil && d.Name() == "left-behind" {
					files = append(files, path)
				}
				return nil
			})
		}
		return files
	}
	waitFor(t, "both nodes run their action", func() (bool, string) {
		return len(left()) == 2 && len(c.running("sleep")) == 2, c.mr("node", "list")
	})
	ended := c.json("cluster", "terminate", "big", "--wait")
	require.Equal(t, "TERMINATED", ended.str("state"), ended)
	waitFor(t, "both nodes are free", func() (bool, string) { return len(c.nodes("POOL")) == 2, c.mr("node", "list") })
	require.Empty(t, left())
	require.Empty(t, c.running("sleep"))
	c.mr("cluster", "create", "--name", "big", "--core", "2", "--provider", "pool", "--wait") // the same nodes, and the name, are of use
}

//go:build cluster

package clustertest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// pauseDev has dev start nothing again until the function is called that it gives: its processes go on.
func (c *cluster) pauseDev() (goOn func()) {
	c.t.Helper()
	pid := c.dev.Process.Pid
	require.NoError(c.t, syscall.Kill(pid, syscall.SIGSTOP))
	goOn = func() { syscall.Kill(pid, syscall.SIGCONT) }
	c.t.Cleanup(goOn)
	waitFor(c.t, "dev stands still", func() (bool, string) {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		for _, thread := range threads {
			text, _ := os.ReadFile(thread)
			if _, after, found := strings.Cut(string(text), ") "); !found || after[0] != 'T' {
				return false, string(text)
			}
		}
		return len(threads) > 0, ""
	})
	return goOn
}

// TestWorkersComeToARestoredMaster: the only master is lost with its folder, and another one is made of a backup, at its address. The workers
// come to it by themselves, and keep their blocks: a core node, and one that was in the pool at the time of the backup, and is of a cluster since,
// with the last replica of a file. It has taken the place of another one, which comes back empty.
func TestWorkersComeToARestoredMaster(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--pool", "2", "--slots", "1")
	in := newCorpus(1, 64<<10)
	in.put(t, c, "data")
	c.mr("cluster", "create", "--name", "night", "--core", "1", "--provider", "pool", "--wait")
	for _, name := range []string{"hdfs:///kept", "hdfs://night/kept"} {
		require.Zero(t, c.tryIn(strings.NewReader("of "+name), "fs", "put", "--replication", "1", "-", name).code)
	}
	first := c.only("night", "CORE")
	backup := filepath.Join(t.TempDir(), "site.backup")
	c.mr("master", "backup", backup)

	c.mr("cluster", "resize", "night", "--core", "2", "--wait")
	c.mr("node", "drain", first.str("id"), "--wait")
	c.mr("cluster", "resize", "night", "--core", "1", "--wait") // those that drain go first
	second := c.only("night", "CORE")
	require.NotEqual(t, first.str("id"), second.str("id"))
	waitFor(t, "the first one is free, and wiped", func() (bool, string) { return len(c.nodes("POOL")) == 1, c.mr("node", "list") })
	require.Equal(t, []string{second.str("id")}, replicasOf(c, "hdfs://night/kept")[0])

	lost := leader(c)
	goOn := c.pauseDev()
	c.kill(lost)
	waitFor(t, "it writes nothing any more", func() (bool, string) { // dev stands still, and does not reap it
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", lost.num("pid")))
		_, after, _ := strings.Cut(string(text), ") ")
		return err != nil || strings.HasPrefix(after, "Z"), string(text)
	})
	folder := filepath.Join(c.dir, lost.str("name"))
	require.NoError(t, os.RemoveAll(folder))
	c.mr("master", "restore", backup, "--dir", folder, "--name", lost.str("name"))
	goOn()

	waitFor(t, "the restored master answers", func() (bool, string) {
		r := c.try("master", "list")
		return r.code == 0, r.out + r.err
	})
	found := leader(c)
	require.NotEqual(t, lost.str("id"), found.str("id"))
	waitFor(t, "all workers have come", func() (bool, string) {
		here := 0
		for _, n := range c.jsonList("node", "list") {
			if n.str("role") != "MASTER" && n.str("state") != "LOST" {
				here++
			}
		}
		return here == 3, c.mr("node", "list")
	})
	for _, name := range []string{"hdfs:///kept", "hdfs://night/kept"} {
		waitFor(t, name+" can be read", func() (bool, string) {
			r := c.try("fs", "cat", name)
			return r.code == 0 && r.out == "of "+name, r.out + r.err
		})
	}
	for _, name := range []string{"default", "night"} {
		job := c.waitJob(c.submit("wordcount", "--cluster", name, "--input", "s3://data/in", "--output", "s3://data/"+name))
		require.Equal(t, "COMPLETED", job.str("state"), job)
		_, lines := readOutput(t, c, "data", name+"/")
		requireCounts(t, in.counts, lines)
	}
	c.awaitGroup("night", "CORE", 1) // as the backup has it: the other one goes, and its blocks before
	require.Equal(t, "of hdfs://night/kept", c.mr("fs", "cat", "hdfs://night/kept"))
}

// only is the one node of a role in a cluster.
func (c *cluster) only(cluster, role string) (only object) {
	c.t.Helper()
	for _, n := range c.jsonList("node", "list", "--cluster", cluster) {
		if n.str("role") == role {
			require.Nil(c.t, only)
			only = n
		}
	}
	require.NotNil(c.t, only)
	return only
}

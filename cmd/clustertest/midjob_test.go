//go:build cluster

package clustertest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
)

const mebibyte = 1 << 20

// startOnSmallDisks starts a cluster whose core nodes' directories are file systems of so many MiB.
func startOnSmallDisks(t *testing.T, sizes map[string]string) *cluster {
	t.Helper()
	return startOnDisks(t, sizes, "--core", "2", "--task", "0", "--slots", "2")
}

// startOnDisks starts any cluster, with file systems of some size for directories of some nodes.
func startOnDisks(t *testing.T, sizes map[string]string, flags ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, home: t.TempDir(), dir: filepath.Join(t.TempDir(), "dev"), flags: flags}
	for node, size := range sizes {
		dir := filepath.Join(c.dir, node)
		require.NoError(t, os.MkdirAll(dir, 0o700))
		if err := syscall.Mount("millrace-test", dir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
			t.Skipf("needs a small file system, and mount is refused: %v", err)
		}
		t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	}
	c.start()
	t.Cleanup(func() {
		c.stop()
		if t.Failed() {
			t.Logf("dev said:\n%s", c.log)
			c.logTails()
		}
	})
	return c
}

// fill leaves a node's disk less than its reserve.
func fill(t *testing.T, c *cluster, node string, mib int) (file string) {
	t.Helper()
	file = filepath.Join(c.dir, node, "somebody-elses")
	require.NoError(t, os.WriteFile(file, bytes.Repeat([]byte("x"), mib*mebibyte), 0o600))
	return file
}

func (c *cluster) nodeNamed(name string) object {
	c.t.Helper()
	for _, n := range c.jsonList("node", "list") {
		if n.str("name") == name {
			return n
		}
	}
	c.t.Fatalf("no node %s", name)
	return nil
}

// TestFullDisks: a node with a full disk gets nothing and says so, the job goes on elsewhere; where no
// node has room it waits, says so, and goes on when there is room.
func TestFullDisks(t *testing.T) {
	c := startOnSmallDisks(t, map[string]string{"core-1": "64m", "core-2": "192m"})
	in := newCorpus(1, 2<<20)
	in.put(t, c, "data")
	args := []string{"wordcount", "--input", "s3://data/in", "--split-size", "128KiB", "--reduces", "3"}

	fill(t, c, "core-1", 60)
	waitFor(t, "core-1 says that its disk is full", func() (bool, string) {
		r := c.nodeNamed("core-1").str("reason")
		return strings.Contains(r, "disk full: ") && strings.Contains(r, " of 64 MiB"), r
	})
	job := c.waitJob(c.submit(append(args, "--output", "s3://data/one")...))
	require.Equal(t, "COMPLETED", job.str("state"), job)
	require.Zero(t, job.num("attempts", "failed"))
	_, lines := readOutput(t, c, "data", "one/")
	requireCounts(t, in.counts, lines)

	file := fill(t, c, "core-2", 185)
	waitFor(t, "core-2 says that its disk is full", func() (bool, string) {
		r := c.nodeNamed("core-2").str("reason")
		return strings.Contains(r, "disk full: "), r
	})
	id := c.submit(append(args, "--output", "s3://data/two")...)
	c.waitJobUntil(id, "says what it waits for", func(o object) bool {
		return strings.Contains(o.str("reason"), "no node has room on its disk for the tasks that wait")
	})
	require.NoError(t, os.Remove(file))
	job = c.waitJob(id)
	require.Equal(t, "COMPLETED", job.str("state"), job)
	require.Zero(t, job.num("attempts", "failed"))
	_, lines = readOutput(t, c, "data", "two/")
	requireCounts(t, in.counts, lines)
}

// TestWorkersDirectoryIsRemoved: in mid-job, in whole or in part. The job completes, and no attempt counts as failed.
func TestWorkersDirectoryIsRemoved(t *testing.T) {
	for _, what := range []string{".", "segments", "attempts"} {
		t.Run(what, func(t *testing.T) {
			c := startCluster(t, "--core", "2", "--task", "0", "--slots", "2")
			in := newCorpus(1, 2<<20)
			in.put(t, c, "data")
			g := newGated(t)
			id := c.submit(append(g.args(t), "--output", "s3://data/o")...)
			c.waitJobUntil(id, "has some maps done and others running", func(o object) bool {
				return o.num("maps", "completed") > 0 && o.num("maps", "running") > 0
			})
			dir := filepath.Join(c.dir, "core-1", what)
			require.NoError(t, os.Rename(dir, filepath.Join(t.TempDir(), "away"))) // at one stroke: the node makes it anew
			g.open(t, g.mapGate)
			g.open(t, g.reduceGate)
			job := c.waitJob(id)
			require.Equal(t, "COMPLETED", job.str("state"), job)
			require.Zero(t, job.num("attempts", "failed"), job)
			_, lines := readOutput(t, c, "data", "o/")
			requireCounts(t, in.counts, lines)
			waitFor(t, "both nodes are well", func() (bool, string) { // the folder is looked at twice a second
				_, err := os.Stat(filepath.Join(c.dir, "core-1", "node.json"))
				return err == nil && len(c.nodes("CORE")) == 2, fmt.Sprint(err, c.jsonList("node", "list"))
			})
		})
	}
}

// TestFewDescriptors: a worker that has run out of them is set aside, and named; the job goes on elsewhere, without
// a failed attempt. Its limit is lowered in mid-life: what it holds stays open, and nothing more can be opened.
func TestFewDescriptors(t *testing.T) {
	c := startCluster(t, "--core", "2", "--task", "0", "--slots", "2")
	in := newCorpus(1, 2<<20)
	in.put(t, c, "data")
	n := c.nodeNamed("core-1")
	limit := func(soft string) {
		out, err := exec.Command("prlimit", "--pid", fmt.Sprint(n.num("pid")), "--nofile="+soft+":").CombinedOutput()
		if err != nil {
			t.Skipf("needs prlimit: %v: %s", err, out)
		}
	}
	g := newGated(t)
	id := c.submit(append(g.args(t), "--output", "s3://data/one")...)
	c.waitJobUntil(id, "has some maps done and others running", func(o object) bool {
		return o.num("maps", "completed") > 0 && o.num("maps", "running") > 0
	})
	limit("1")
	g.open(t, g.mapGate)
	g.open(t, g.reduceGate)
	job := c.waitJob(id)
	require.Equal(t, "COMPLETED", job.str("state"), job)
	require.Zero(t, job.num("attempts", "failed"), job)
	_, lines := readOutput(t, c, "data", "one/")
	requireCounts(t, in.counts, lines)
	limit("4096")
	waitFor(t, "core-1 takes tasks again", func() (bool, string) {
		n := c.nodeNamed("core-1")
		return n.str("state") == "RUNNING" && n.str("reason") == "", fmt.Sprint(n)
	})
	require.Equal(t, "COMPLETED", c.waitJob(c.submit("wordcount", "--input", "s3://data/in", "--output", "s3://data/two")).str("state"))
}

// TestDamagedInput: object and offset are named, and it is not tried four times.
func TestDamagedInput(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--slots", "2")
	s := c.store()
	require.NoError(t, s.MakeBucket(t.Context(), "data"))
	var good bytes.Buffer
	w := gzip.NewWriter(&good)
	_, err := w.Write([]byte("one two\nthree\n"))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	for name, damaged := range map[string]struct {
		data   []byte
		says   string
		offset int64
		flags  []string
	}{
		"cut.gz":   {good.Bytes()[:good.Len()-3], "is cut off after", 14, nil},
		"more.gz":  {append(bytes.Clone(good.Bytes()), "rest"...), "what follows gzip member 1", 14, nil},
		"long.txt": {[]byte("short\n" + strings.Repeat("x", 5000) + "\n"), "longer than the limit of 4096 bytes; --max-record raises it", 6, []string{"--max-record", "4KiB"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Put(t.Context(), "data", name, bytes.NewReader(damaged.data), int64(len(damaged.data)), objectstore.PutOptions{})
			require.NoError(t, err)
			job := c.waitJob(c.submit(append([]string{"wordcount", "--input", "s3://data/" + name, "--output", "s3://data/out-" + name}, damaged.flags...)...))
			require.Equal(t, "FAILED", job.str("state"))
			require.Contains(t, job.str("reason"), damaged.says)
			require.Equal(t, "s3://data/"+name, job.str("failure", "input"))
			require.Equal(t, damaged.offset, job.num("failure", "offset"))
			require.EqualValues(t, 2, job.num("attempts", "failed"))
		})
	}
}

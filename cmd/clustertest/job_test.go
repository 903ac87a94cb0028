//go:build cluster

package clustertest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
)

var small = []string{"--core", "2", "--task", "1", "--slots", "2"}

// TestJobs is the whole path, on the embedded store and on a real MinIO: every
// built-in program and both kinds of people's own, compared with a naive count.
func TestJobs(t *testing.T) {
	stores(t, small, func(t *testing.T, c *cluster) {
		in := newCorpus(1, 4<<20)
		in.put(t, c, "data")

		t.Run("wordcount over many splits", func(t *testing.T) {
			job := c.json("run", "wordcount", "s3://data/in", "s3://data/out/wc", "--split-size", "256KiB", "--reduces", "3")
			require.Equal(t, "COMPLETED", job.str("state"))
			require.Greater(t, job.num("maps", "total"), int64(6), "more splits than slots")
			require.Equal(t, job.num("maps", "total"), job.num("maps", "completed"))
			require.Equal(t, in.lines, job.num("counters", "millrace", "mapInputRecords"))
			m, lines := readOutput(t, c, "data", "out/wc/")
			require.Len(t, m.Parts, 3)
			require.Equal(t, m.Ledger.SegmentRecords, m.Ledger.FetchedRecords)
			requireCounts(t, in.counts, lines)
		})
		t.Run("the output is taken", func(t *testing.T) {
			r := c.try("run", "wordcount", "s3://data/in", "s3://data/out/wc")
			require.Equal(t, 2, r.code)
			require.Contains(t, r.err, "millrace: ")
			require.Contains(t, r.err, "\nnext: ")
		})
		t.Run("overwrite replaces the whole set", func(t *testing.T) {
			c.mr("run", "wordcount", "s3://data/in", "s3://data/out/wc", "--reduces", "1", "--overwrite")
			m, lines := readOutput(t, c, "data", "out/wc/")
			require.Len(t, m.Parts, 1)
			requireCounts(t, in.counts, lines)
		})
		t.Run("cat is map-only and keeps every line", func(t *testing.T) {
			job := c.json("run", "cat", "s3://data/in", "s3://data/out/cat", "--split-size", "300KiB")
			require.Zero(t, job.num("reduces", "total"))
			_, lines := readOutput(t, c, "data", "out/cat/")
			require.EqualValues(t, in.lines, len(lines))
		})
		t.Run("grep", func(t *testing.T) {
			c.mr("run", "grep", "s3://data/in", "s3://data/out/grep", "--", "-F", "the end")
			_, lines := readOutput(t, c, "data", "out/grep/")
			require.Len(t, lines, 8)
		})
		t.Run("distinct", func(t *testing.T) {
			c.mr("run", "distinct", "s3://data/out/grep", "s3://data/out/distinct")
			_, lines := readOutput(t, c, "data", "out/distinct/")
			require.NotEmpty(t, lines)
			seen := map[string]bool{}
			for _, l := range lines {
				require.False(t, seen[l], l)
				seen[l] = true
			}
		})
		t.Run("commands in Python", func(t *testing.T) {
			dir := filepath.Join("..", "..", "examples", "python-wordcount")
			c.mr("job", "submit", "--mapper", "python3 mapper.py", "--reducer", "python3 reducer.py",
				"--file", filepath.Join(dir, "mapper.py"), "--file", filepath.Join(dir, "reducer.py"),
				"--input", "s3://data/in", "--output", "s3://data/out/python", "--reduces", "2", "--wait")
			m, lines := readOutput(t, c, "data", "out/python/")
			require.True(t, strings.HasSuffix(m.Parts[0].Key, "/part-00000"), m.Parts[0].Key)
			requireCounts(t, in.counts, lines)
		})
		t.Run("a Go program", func(t *testing.T) {
			c.mr("run", "../../examples/wordcount", "s3://data/in", "s3://data/out/go", "--split-size", "1MiB")
			_, lines := readOutput(t, c, "data", "out/go/")
			requireCounts(t, in.counts, lines)
		})
		t.Run("results and local agree", func(t *testing.T) {
			lines := strings.Split(strings.TrimSpace(c.mr("results", "last")), "\n")
			requireCounts(t, in.counts, lines)
			c.mr("run", "wordcount", "s3://data/in", "s3://data/out/local", "--local")
			_, local := readOutput(t, c, "data", "out/local/")
			requireCounts(t, in.counts, local)
		})
		t.Run("two jobs share the cluster", func(t *testing.T) {
			a := c.submit("wordcount", "--input", "s3://data/in", "--output", "s3://data/out/a", "--split-size", "200KiB")
			b := c.submit("wordcount", "--input", "s3://data/in", "--output", "s3://data/out/b", "--split-size", "200KiB")
			require.Equal(t, "COMPLETED", c.waitJob(a).str("state"))
			require.Equal(t, "COMPLETED", c.waitJob(b).str("state"))
			for _, p := range []string{"out/a/", "out/b/"} {
				_, lines := readOutput(t, c, "data", p)
				requireCounts(t, in.counts, lines)
			}
		})
		t.Run("no input records at all", func(t *testing.T) {
			job := c.json("run", "wordcount", "s3://data/in/empty", "s3://data/out/empty")
			require.Equal(t, "COMPLETED", job.str("state"))
			_, lines := readOutput(t, c, "data", "out/empty/")
			require.Empty(t, lines)
		})
	})
}

// TestFailingProgram: four attempts, then FAILED with its cause, and nothing is left.
func TestFailingProgram(t *testing.T) {
	c := startCluster(t, small...)
	newCorpus(1, 100000).put(t, c, "data")
	bad := script(t, "bad.sh", "#!/bin/sh\nread line\necho so it broke >&2\nexit 7\n")
	r := c.try("job", "submit", "--mapper", "./bad.sh", "--reducer", "cat", "--file", bad,
		"--input", "s3://data/in/a-large.txt", "--output", "s3://data/o", "--wait", "--json")
	require.Equal(t, 1, r.code, r.err)
	var job object
	require.NoError(t, json.Unmarshal([]byte(r.out), &job))
	require.Equal(t, "FAILED", job.str("state"))
	require.EqualValues(t, 4, job.num("attempts", "failed"))
	require.EqualValues(t, 7, job.num("failure", "exitCode"))
	require.Contains(t, job.str("failure", "stderrTail"), "so it broke")
	require.Equal(t, "s3://data/in/a-large.txt", job.str("failure", "input"))
	require.True(t, strings.HasPrefix(job.str("failure", "node"), "i-"), job)
	require.NotEmpty(t, job.str("failure", "attempt"))
	require.Contains(t, c.mr("job", "logs", job.str("id")), "so it broke")
	requireNothing(t, c, "data", "o")

	r = c.try("job", "submit", "--mapper", "exit 9", "--reducer", "cat", "--input", "s3://data/in", "--output", "s3://data/o", "--wait")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "9")
	r = c.try("job", "logs", "last")
	require.Zero(t, r.code, r.err)
	require.Contains(t, r.err, "wrote nothing")
}

// TestAHangingProgram: an attempt that gets no further is ended with that cause; one that says that it gets on is not.
func TestAHangingProgram(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--slots", "2")
	newCorpus(1, 10_000).put(t, c, "data")
	args := func(mapper, output string) []string {
		return []string{"job", "submit", "--wait", "--mapper", mapper, "--reducer", "cat", "--max-attempts", "1", "-D", "mapreduce.task.timeout=1000",
			"--input", "s3://data/in/a-large.txt", "--output", output}
	}
	r := c.try(args("read line; sleep 600; cat", "s3://data/hangs")...)
	require.Equal(t, 1, r.code, r.err)
	require.Contains(t, c.mr("job", "why", "last"), "no progress for 1s")
	waitFor(t, "what it had started is gone", func() (bool, string) {
		left := processesNaming("sleep\x00600")
		return len(left) == 0, strings.Join(left, "\n")
	})
	requireNothing(t, c, "data", "hangs")
	c.mr(args("for i in 1 2 3 4 5 6 7 8; do sleep 0.4; echo reporter:status:at it >&2; done; cat", "s3://data/slow")...)
}

// TestAStraggler: a map that stands still on one node is run on another one beside it, and leaves no trace.
func TestAStraggler(t *testing.T) {
	c := startCluster(t, "--core", "2", "--task", "0", "--slots", "2")
	in := newCorpus(1, 1<<20)
	in.put(t, c, "data")
	once := filepath.Join(t.TempDir(), "once")
	slow := script(t, "slow.sh", "#!/bin/sh\nif [ \"$mapreduce_task_partition\" = 3 ] && mkdir "+once+"; then sleep 700; fi\ntr -s ' \\t\\r' '\\n\\n\\n' | sed '/^$/d; s/$/\\t1/'\n")
	job := c.waitJob(c.submit("--mapper", "./slow.sh", "--reducer", `awk -F '\t' '{ if (NR > 1 && ($1 "") != (k "")) { print k "\t" n; n = 0 } k = $1; n += $2 } END { if (NR) print k "\t" n }'`,
		"--file", slow, "--input", "s3://data/in", "--split-size", "128KiB", "--reduces", "2", "--output", "s3://data/o"))
	require.Equal(t, "COMPLETED", job.str("state"), job)
	require.Positive(t, job.num("attempts", "speculative"), "on a busy machine others may look like stragglers, too: %v", job)
	require.Positive(t, job.num("attempts", "killed"), "the straggler, and perhaps a reduce that held the other node's slot: %v", job)
	require.Zero(t, job.num("attempts", "failed"), job)
	_, lines := readOutput(t, c, "data", "o/")
	requireCounts(t, in.counts, lines)
	waitFor(t, "what the straggler had started is gone", func() (bool, string) {
		left := processesNaming("sleep\x00700")
		return len(left) == 0, strings.Join(left, "\n")
	})
}

// TestQueue: what does not fit waits and is seen waiting; a node never runs more than its slots.
func TestQueue(t *testing.T) {
	c := startCluster(t, small...)
	newCorpus(1, 1<<20).put(t, c, "data")
	gate := filepath.Join(t.TempDir(), "go-on")
	slow := script(t, "slow.sh", "#!/bin/sh\nwhile [ ! -e "+gate+" ]; do sleep 0.05; done\ncat\n")
	id := c.submit("--mapper", "./slow.sh", "--reducer", "cat", "--file", slow,
		"--input", "s3://data/in/a-large.txt", "--output", "s3://data/o", "--split-size", "64KiB")
	job := c.waitJobUntil(id, "fills the slots", func(o object) bool { return o.num("maps", "running") == 6 })
	require.Equal(t, job.num("maps", "total")-6, job.num("maps", "pending"))
	cl := c.json("cluster", "show")
	require.EqualValues(t, 6, cl.num("slots", "running"))
	require.EqualValues(t, 6, cl.num("slots", "total"))
	require.GreaterOrEqual(t, cl.num("queuedTasks"), job.num("maps", "pending"))
	for _, n := range append(c.nodes("CORE"), c.nodes("TASK")...) {
		require.LessOrEqual(t, n.num("running"), n.num("slots"))
	}
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	require.Equal(t, "COMPLETED", c.waitJob(id).str("state"))
}

// TestCancel: everything the job started ends, and nothing of its output is left.
func TestCancel(t *testing.T) {
	stores(t, small, func(t *testing.T, c *cluster) {
		newCorpus(1, 1<<20).put(t, c, "data")
		mark := fmt.Sprintf("77%d", os.Getpid())
		// A grandchild in a session of its own must go, too.
		forks := script(t, "forks.sh", "#!/bin/sh\nsetsid sleep "+mark+" &\nsleep "+mark+"\n")
		id := c.submit("--mapper", "./forks.sh", "--reducer", "cat", "--file", forks,
			"--input", "s3://data/in", "--output", "s3://data/o", "--split-size", "128KiB")
		c.waitJobUntil(id, "runs", func(o object) bool { return o.num("maps", "running") > 0 && len(processesNaming(mark)) > 1 })
		c.mr("job", "cancel", id)
		require.Equal(t, "CANCELLED", c.waitJob(id).str("state"))
		waitFor(t, "the program's processes end", func() (bool, string) {
			left := processesNaming("sleep\x00" + mark)
			return len(left) == 0, strings.Join(left, "\n")
		})
		requireNothing(t, c, "data", "o")
		// The output is free again.
		c.mr("run", "cat", "s3://data/in/empty", "s3://data/o")
	})
}

// TestSameDirAgain: Ctrl-C ends dev; started again on its folder it knows jobs, files and objects.
func TestSameDirAgain(t *testing.T) {
	c := startCluster(t, small...)
	in := newCorpus(1, 100000)
	in.put(t, c, "data")
	job := c.json("run", "wordcount", "s3://data/in", "s3://data/wc")
	nodes := len(c.jsonList("node", "list"))
	c.stop()
	c.start()
	again := c.json("job", "show", job.str("id"))
	require.Equal(t, job.str("state"), again.str("state"))
	require.Equal(t, job.at("counters"), again.at("counters"))
	require.Len(t, c.jsonList("node", "list"), nodes)
	_, lines := readOutput(t, c, "data", "wc/")
	requireCounts(t, in.counts, lines)
	c.mr("run", "wordcount", "s3://data/in", "s3://data/wc2")
}

// TestFiles walks through fs.
func TestFiles(t *testing.T) {
	stores(t, []string{"--core", "1", "--task", "0"}, func(t *testing.T, c *cluster) {
		dir := t.TempDir()
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "tree", "deep"), 0o755))
		big := text(3, 20<<20)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "tree", "big"), big, 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "tree", "deep", "a + b&c%.txt"), []byte("x\n"), 0o644))
		r := c.try("fs", "put", filepath.Join(dir, "tree", "big"), "s3://files/x")
		require.NotZero(t, r.code)
		require.Contains(t, r.err, "next: millrace fs mb s3://files")
		c.mr("fs", "mb", "s3://files")
		c.mr("fs", "put", "-r", filepath.Join(dir, "tree"), "s3://files/t/")
		var found []string
		for _, e := range c.jsonList("fs", "ls", "-R", "s3://files/") {
			found = append(found, e.str("path"))
		}
		require.Contains(t, strings.Join(found, "\n"), "deep/a + b&c%.txt")
		out := filepath.Join(dir, "back")
		require.NoError(t, os.Mkdir(out, 0o755))
		c.mr("fs", "get", "-r", "s3://files/t", out)
		var back []byte
		require.NoError(t, filepath.WalkDir(out, func(p string, d os.DirEntry, err error) error {
			if err == nil && d.Name() == "big" {
				back, err = os.ReadFile(p)
			}
			return err
		}))
		require.True(t, string(big) == string(back), "big came back as it was")
		require.Zero(t, c.tryIn(strings.NewReader("streamed"), "fs", "put", "-", "s3://files/stream").code)
		require.Equal(t, "streamed", c.mr("fs", "cat", "s3://files/stream"))
		c.mr("fs", "rm", "-r", "s3://files/t")
		require.Len(t, c.jsonList("fs", "ls", "-R", "s3://files/"), 1)
	})
}

// TestStore: a bucket made by another client is there for jobs, whoever made it.
func TestStore(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0")
	require.NoError(t, c.store().MakeBucket(context.Background(), "theirs"))
	_, err := c.store().Put(context.Background(), "theirs", "k", strings.NewReader("a a\n"), 4, objectstore.PutOptions{})
	require.NoError(t, err)
	require.Equal(t, "a\t2\n", c.mr("run", "wordcount", "s3://theirs/k", "-"))
}

// TestDevRefusesAStoreItCannotUse: ready means that a job can be submitted.
func TestDevRefusesAStoreItCannotUse(t *testing.T) {
	m := startMinIO(t)
	dir := filepath.Join(t.TempDir(), "dev")
	dev := func(env []string, args ...string) (string, int) {
		t.Helper()
		cmd := exec.Command(binary(t), append([]string{"dev", "--dir", dir, "--core", "1", "--task", "0"}, args...)...)
		cmd.Env = append([]string{"MILLRACE_HOME=" + t.TempDir(), "HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}, env...)
		out, _ := cmd.CombinedOutput()
		require.NotContains(t, string(out), "ready: ")
		return string(out), cmd.ProcessState.ExitCode()
	}
	wrong := m
	wrong.secret += "?"
	said, code := dev(wrong.environ(), "--s3", m.endpoint)
	require.Equal(t, 3, code, said)
	require.Contains(t, said, "next: check the key")

	said, code = dev([]string{"AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=b"}, "--s3", "http://127.0.0.1:9")
	require.Equal(t, 3, code, said)
	require.Contains(t, said, "http://127.0.0.1:9")

	// A cluster that lives on MinIO does not come back on an empty store of its own.
	c := startClusterEnv(t, m.environ(), "--s3", m.endpoint, "--core", "1", "--task", "0")
	c.stop()
	dir = c.dir
	said, code = dev(nil)
	require.Equal(t, 2, code, said)
	require.Contains(t, said, m.endpoint)
	c.start()
}

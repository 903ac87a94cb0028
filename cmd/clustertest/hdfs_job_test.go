//go:build cluster

package clustertest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestJobsInTheBlockStore: jobs read and write hdfs:// as they do s3://, one after the other and across; the whole output is there at
// once, or nothing of it.
func TestJobsInTheBlockStore(t *testing.T) {
	c := startCluster(t, "--core", "3", "--task", "1", "--slots", "2")
	in := newCorpus(1, 2<<20)
	in.put(t, c, "data")
	c.mr("fs", "cp", "-r", "s3://data/in/", "hdfs:///in/", "--block-size", "128KiB")

	counts := func(url string) {
		t.Helper()
		requireCounts(t, in.counts, strings.Split(strings.TrimSuffix(c.mr("fs", "cat", url), "\n"), "\n"))
	}
	for name, places := range map[string][2]string{
		"from hdfs to hdfs": {"hdfs:///in", "hdfs:///counted"},
		"from s3 to hdfs":   {"s3://data/in", "hdfs:///from-s3"},
		"from hdfs to s3":   {"hdfs:///in", "s3://data/from-hdfs"},
	} {
		t.Run(name, func(t *testing.T) {
			job := c.waitJob(c.submit("wordcount", "--input", places[0], "--output", places[1], "--reduces", "3", "--split-size", "128KiB"))
			require.Equal(t, "COMPLETED", job.str("state"), job)
			counts(places[1] + "/part-*")
		})
	}

	t.Run("what one has written is the next one's input", func(t *testing.T) {
		job := c.waitJob(c.submit("cat", "--input", "hdfs:///counted", "--output", "hdfs:///again"))
		require.Equal(t, "COMPLETED", job.str("state"), job)
		counts("hdfs:///again/part-*")
	})

	t.Run("a core node is killed while it runs", func(t *testing.T) {
		gate := filepath.Join(t.TempDir(), "gate")
		id := c.submit("--mapper", "sleep 1; cat", "--reducer", `sed 's/\t$//'; until [ -e `+gate+` ]; do sleep 0.1; done`, "--reduces", "2", "--input", "hdfs:///in/a-large.txt", "--output", "hdfs:///killed", "--split-size", "256KiB")
		c.waitJobUntil(id, "has a map that is done", func(o object) bool { return o.num("maps", "completed") > 0 })
		require.Equal(t, 4, c.try("fs", "ls", "hdfs:///killed").code, "nothing is visible before the commit")
		c.kill(c.node("CORE", 0))
		require.NoError(t, os.WriteFile(gate, nil, 0o600))
		job := c.waitJob(id)
		require.Equal(t, "COMPLETED", job.str("state"), job)
		want := len(strings.Split(strings.TrimSuffix(string(in.objects["in/a-large.txt"]), "\n"), "\n"))
		require.EqualValues(t, want, job.num("outputRecords"))
		require.Equal(t, want, strings.Count(c.mr("fs", "cat", "hdfs:///killed/part-*"), "\n"))
		c.awaitHealthy()
	})

	t.Run("a failed one leaves nothing", func(t *testing.T) {
		job := c.waitJob(c.submit("--mapper", "cat", "--reducer", "head -n 10; exit 3", "--max-attempts", "1", "--input", "hdfs:///in", "--output", "hdfs:///failed"))
		require.Equal(t, "FAILED", job.str("state"), job)
		require.Equal(t, 4, c.try("fs", "ls", "hdfs:///failed").code)
	})
}

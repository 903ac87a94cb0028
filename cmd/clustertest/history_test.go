//go:build cluster

package clustertest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
)

// answers is all that the command line says of a job, by command.
func answers(c *cluster, id string) map[string]any {
	c.t.Helper()
	all := map[string]any{}
	for _, args := range [][]string{
		{"job", "show", id}, {"job", "tasks", id}, {"job", "tasks", id, "--failed"}, {"job", "counters", id}, {"job", "why", id}, {"job", "wait", id},
	} {
		r := c.try(append(args, "--json")...)
		var v any
		require.NoError(c.t, json.Unmarshal([]byte(r.out), &v), "%v: %s%s", args, r.out, r.err)
		all[strings.Join(args, " ")] = []any{r.code, v}
	}
	for _, args := range [][]string{{"job", "show", id}, {"job", "logs", id}, {"job", "results", id}} {
		r := c.try(args...)
		all[strings.Join(args, " ")+" in words"] = []any{r.code, r.out, r.err}
	}
	for _, j := range c.jsonList("job", "list") {
		if j.str("id") == id {
			all["job list"] = j
		}
	}
	require.NotNil(c.t, all["job list"], "job %s is not listed", id)
	return all
}

var movedJobs = regexp.MustCompile(`ended jobs moved to the history\s.*"jobs": (\d+)`)

// moved waits until the masters have moved so many jobs to the history.
func moved(c *cluster, want int) {
	c.t.Helper()
	waitFor(c.t, fmt.Sprintf("%d jobs have moved to the history", want), func() (bool, string) {
		logs, _ := filepath.Glob(filepath.Join(c.dir, "logs", "master*.log"))
		n := 0
		for _, l := range logs {
			data, _ := os.ReadFile(l)
			for _, m := range movedJobs.FindAllSubmatch(data, -1) {
				jobs, _ := strconv.Atoi(string(m[1]))
				n += jobs
			}
		}
		return n >= want, fmt.Sprintf("%d in %v", n, logs)
	})
}

// TestHistory: jobs of each kind of end move to the history as soon as another one has ended; what is
// said of them is the same before, after, and when the master has been killed.
func TestHistory(t *testing.T) {
	stores(t, []string{"--core", "1", "--task", "1", "--slots", "2", "--keep-jobs", "1"}, func(t *testing.T, c *cluster) {
		newCorpus(1, 256<<10).put(t, c, "data")
		before := map[string]map[string]any{}
		end := func(args ...string) string {
			t.Helper()
			id := c.submit(append(args, "--input", "s3://data/in", "--output", fmt.Sprintf("s3://data/out/%d", len(before)))...)
			c.waitJob(id)
			before[id] = answers(c, id)
			return id
		}
		done := end("wordcount", "--name", "done", "--split-size", "32KiB", "--reduces", "2", "--request-id", "once")
		failed := end("--name", "failed", "--mapper", "echo no luck >&2; exit 3", "--reducer", "cat", "--max-attempts", "2")
		mapOnly := end("cat", "--name", "map-only")

		g := newGated(t)
		cancelled := c.submit(append(g.args(t), "--name", "cancelled", "--output", "s3://data/out/cancelled")...)
		c.mr("job", "cancel", cancelled, "--reason", "enough")
		c.waitJob(cancelled)
		before[cancelled] = answers(c, cancelled)
		end("wordcount", "--name", "the last one stays")
		moved(c, 4)

		same := func(when string) {
			t.Helper()
			for id, was := range before {
				require.Equal(t, was, answers(c, id), "%s, %s", id, when)
			}
			var names []string
			for _, j := range c.jsonList("job", "list") {
				names = append(names, j.str("name"))
			}
			require.Equal(t, []string{"the last one stays", "cancelled", "map-only", "failed", "done"}, names, when)
			require.Len(t, c.jsonList("job", "list", "--state", "FAILED"), 1)
			require.Len(t, c.jsonList("job", "list", "--limit", "3"), 3)
			for ref, id := range map[string]string{"done": done, failed[:12]: failed, mapOnly: mapOnly} {
				require.Equal(t, id, c.json("job", "show", ref).str("id"))
			}
		}
		same("after the move")
		c.kill(leader(c))
		waitFor(t, "the master is back", func() (bool, string) {
			r := c.try("job", "list")
			return r.code == 0, r.err
		})
		same("after the master was killed")

		require.Equal(t, done, c.submit("wordcount", "--name", "done", "--split-size", "32KiB", "--reduces", "2", "--request-id", "once",
			"--input", "s3://data/in", "--output", "s3://data/out/0"), "the same request is the same job")
		require.Equal(t, 1, c.try("job", "cancel", done).code)
	})
}

// TestHistoryIsNotForGood: what is too old is deleted, and then there is no such job.
func TestHistoryIsNotForGood(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--keep-jobs", "1", "--keep-history", "5s")
	newCorpus(1, 64<<10).put(t, c, "data")
	first := c.json("run", "wordcount", "s3://data/in", "s3://data/out/1").str("id")
	last := c.json("run", "wordcount", "s3://data/in", "s3://data/out/2").str("id")
	waitFor(t, "the first job is forgotten", func() (bool, string) {
		r := c.try("job", "show", first)
		return r.code == 4, r.out + r.err
	})
	require.Equal(t, "COMPLETED", c.json("job", "show", last).str("state"))
	for o, err := range c.store().List(t.Context(), "millrace-system", "", objectstore.ListOptions{}) {
		require.NoError(t, err)
		require.NotContains(t, o.Key, first, "nothing of it is left")
	}
}

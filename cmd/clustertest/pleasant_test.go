//go:build cluster

package clustertest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
)

// What people rely on around a job: its time-out, its request id, its result, its names, why it waits.
func TestPleasantAtTheEdges(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--slots", "2")
	c.mr("fs", "mb", "s3://edge")
	c.tryIn(strings.NewReader("b a\nb\n"), "fs", "put", "-", "s3://edge/in/text")
	gate := filepath.Join(t.TempDir(), "gate")
	blocker := func(name string) string { // a job that has both slots until it is cancelled
		t.Helper()
		id := c.submit("--name", name, "--mapper", "sleep 300", "--reducer", "cat", "--reduces", "1", "--input", "s3://edge/in/", "--output", "s3://edge/"+name+"/")
		c.waitJobUntil(id, "has both slots", func(o object) bool { return o.num("maps", "running")+o.num("reduces", "running") == 2 })
		return id
	}
	nothingAt := func(t *testing.T, prefix string) {
		t.Helper()
		for o, err := range c.store().List(t.Context(), "edge", prefix, objectstore.ListOptions{}) {
			require.NoError(t, err)
			t.Errorf("%s is left", o.Key)
		}
	}

	t.Run("timeout of a running job, and of one that waits", func(t *testing.T) {
		r := c.try("job", "submit", "--wait", "--timeout", "300ms", "--mapper", "sleep 300", "--input", "s3://edge/in/", "--output", "s3://edge/late/")
		require.Equal(t, 124, r.code, r.err)
		require.Contains(t, r.err, "timed out after 300ms")
		require.Equal(t, "timed out after 300ms", c.json("job", "why", "last").str("cause"))
		require.Equal(t, 124, c.try("job", "wait", "last").code, "whoever waits for it")
		id := blocker("timeouts")
		require.Equal(t, 124, c.try("run", "wordcount", "s3://edge/in/", "s3://edge/late/", "--timeout", "300ms").code)
		c.mr("job", "cancel", id)
		c.waitJob(id)
		nothingAt(t, "late/")
	})
	t.Run("a request id is one job, however often and whenever it comes", func(t *testing.T) {
		ids := make([]string, 20)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				r := c.try("job", "submit", "wordcount", "--input", "s3://edge/in/", "--output", "s3://edge/once/", "--request-id", "once", "--json")
				var o object
				if err := json.Unmarshal([]byte(r.out), &o); err == nil {
					ids[i] = o.str("id")
				}
			})
		}
		wg.Wait()
		for _, id := range ids {
			require.NotEmpty(t, id)
			require.Equal(t, ids[0], id)
		}
		require.Equal(t, "COMPLETED", c.waitJob(ids[0]).str("state"))
		require.Equal(t, ids[0], c.submit("wordcount", "--input", "s3://edge/in/", "--output", "s3://edge/once/", "--request-id", "once"), "also when it has ended")
		r := c.try("job", "submit", "cat", "--input", "s3://edge/in/", "--output", "s3://edge/once/", "--request-id", "once")
		require.Equal(t, 2, r.code)
		require.Contains(t, r.err, `request id "once" has made job `+ids[0])
	})
	t.Run("output to standard output keeps nothing", func(t *testing.T) {
		require.Equal(t, "a\t1\nb\t2\n", c.mr("run", "wordcount", "s3://edge/in/", "-"))
		require.Equal(t, 1, c.try("run", "--mapper", "exit 5", "--max-attempts", "1", "s3://edge/in/", "-").code)
		head := exec.Command("bash", "-c", `"$0" run wordcount s3://edge/in/ - | head -1; echo ${PIPESTATUS[0]}`, binary(t))
		head.Env = c.environ()
		out, err := head.Output()
		require.NoError(t, err)
		require.Regexp(t, "^a\t1\n(0|141)\n$", string(out))
		interrupted := exec.Command(binary(t), "run", "--name", "to-stdout", "--mapper", "sleep 300", "s3://edge/in/", "-")
		interrupted.Env = c.environ()
		require.NoError(t, interrupted.Start())
		waitFor(t, "it runs", func() (bool, string) {
			r := c.try("job", "show", "to-stdout", "--json")
			return strings.Contains(r.out, `"running": 1`), r.out
		})
		require.NoError(t, interrupted.Process.Signal(os.Interrupt))
		interrupted.Wait()
		require.Equal(t, 130, interrupted.ProcessState.ExitCode())
		require.Equal(t, "CANCELLED", c.waitJob("to-stdout").str("state"))
		for o, err := range c.store().List(t.Context(), "millrace-system", "stdout/", objectstore.ListOptions{}) {
			require.NoError(t, err)
			t.Errorf("%s is left", o.Key)
		}
	})
	t.Run("results", func(t *testing.T) {
		c.mr("run", "wordcount", "s3://edge/in/", "s3://edge/res/", "--compress", "gzip", "--reduces", "2", "--name", "counted")
		all := c.mr("results", "counted")
		require.Equal(t, "b\t2\n", c.mr("results", "counted", "--top", "1"))
		require.Equal(t, all, c.mr("results", "counted", "--part", "0")+c.mr("results", "counted", "--part", "1"))
		dir := t.TempDir()
		c.mr("results", "counted", "--to", dir)
		c.mr("results", "counted", "--part", "0", "--to", dir) // one beside the others of the same result
		var saved bytes.Buffer
		for _, name := range []string{"part-r-00000", "part-r-00001"} {
			data, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			saved.Write(data)
		}
		require.Equal(t, all, saved.String())
		var shared bytes.Buffer
		for url := range strings.Lines(c.mr("results", "counted", "--share", "1h")) {
			resp, err := http.Get(strings.TrimSpace(url)) // somebody without a key
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, resp.StatusCode)
			packed, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			resp.Body.Close()
			if len(packed) > 0 {
				z, err := gzip.NewReader(bytes.NewReader(packed))
				require.NoError(t, err)
				_, err = io.Copy(&shared, z)
				require.NoError(t, err)
			}
		}
		require.Equal(t, all, shared.String())
		require.Equal(t, 2, c.try("results", "counted", "--share", "169h").code)
		require.Equal(t, 4, c.try("results", "counted", "--part", "2").code)

		first := c.json("job", "show", "counted").str("id")
		c.mr("run", "cat", "s3://edge/in/", "s3://edge/res/", "--overwrite")
		r := c.try("results", first)
		require.Equal(t, 1, r.code)
		require.Contains(t, r.err, "was replaced")
		require.NoError(t, c.store().Delete(t.Context(), "edge", "res/part-m-00000"))
		r = c.try("results", "last")
		require.Equal(t, 1, r.code)
		require.Contains(t, r.err, "s3://edge/res/part-m-00000")
	})
	t.Run("a job by id, beginning, name and last", func(t *testing.T) {
		id := c.json("job", "show", "counted").str("id")
		require.Equal(t, id, c.json("job", "show", id).str("id"))
		require.Equal(t, id, c.json("job", "show", id[:12]).str("id"))
		newer := c.json("run", "cat", "s3://edge/in/", "s3://edge/newer/", "--name", id[:8]).str("id") // a name that looks like an id
		require.Equal(t, newer, c.json("job", "show", id[:8]).str("id"), "a name that somebody gave comes before the beginning of an id")
		require.Equal(t, id, c.json("job", "show", id).str("id"), "a whole id comes before all")
		require.Equal(t, newer, c.json("job", "show", "last").str("id"))
		r := c.try("job", "show", "s-")
		require.Equal(t, 2, r.code)
		require.Contains(t, r.err, "jobs: s-")
		require.Equal(t, 4, c.try("job", "show", "nobody").code)
	})
	t.Run("why", func(t *testing.T) {
		id := blocker("holder")
		waiting := c.submit("wordcount", "--input", "s3://edge/in/", "--output", "s3://edge/waiting/")
		c.waitJobUntil(waiting, "is planned", func(o object) bool { return o.num("maps", "total") == 1 })
		require.Regexp(t, "^1 task waits for a slot: of 2, 0 are taken by this job, 2 by "+id+` \(holder`, c.json("job", "why", waiting).str("cause"))
		c.mr("job", "cancel", id)
		require.Equal(t, "COMPLETED", c.waitJob(waiting).str("state"))
		require.Equal(t, "it did what was asked", c.json("job", "why", waiting).str("cause"))

		r := c.try("run", "--name", "flaky", "--max-attempts", "2", "--mapper", "if [ -e "+gate+" ]; then exit 9; fi; touch "+gate+"; echo first >&2; exit 7", "s3://edge/in/", "s3://edge/flaky/")
		require.Equal(t, 1, r.code)
		why := c.json("job", "why", "flaky")
		require.Equal(t, int64(7), why.num("failure", "exitCode"), "the first cause")
		require.Contains(t, why.str("failure", "stderrTail"), "first")
		require.Contains(t, c.mr("job", "logs", "flaky"), "first")

		core := c.node("CORE", 0)
		c.kill(core)
		orphan := c.submit("wordcount", "--input", "s3://edge/in/", "--output", "s3://edge/orphan/")
		require.Equal(t, "COMPLETED", c.waitJob(orphan).str("state"), "its node came back")
	})
}

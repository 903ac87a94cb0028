//go:build cluster

package clustertest

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// awaitState waits until a node is in a state.
func (c *cluster) awaitState(id, state string) {
	c.t.Helper()
	waitFor(c.t, "node "+id+" is "+state, func() (bool, string) {
		for _, n := range c.jsonList("node", "list") {
			if n.str("id") == id {
				return n.str("state") == state, n.str("state")
			}
		}
		return false, "not listed"
	})
}

// TestALostNodeThatComesBack: a node of each role freezes while maps, or reduces, run. It is noticed, its work is done elsewhere,
// and when it thaws, with its attempts still running, nothing that it reports or uploads counts: the result is exact, and
// what it holds is of use again.
func TestALostNodeThatComesBack(t *testing.T) {
	for _, role := range []string{"CORE", "TASK"} {
		for _, phase := range []string{"maps", "reduces"} {
			t.Run(role+" while "+phase+" run", func(t *testing.T) {
				c := startCluster(t, "--core", "2", "--task", "1", "--slots", "2")
				in := newCorpus(1, 2<<20)
				in.put(t, c, "data")
				g := newGated(t)
				id := g.submit(c, phase)
				n := c.node(role, 0)
				thaw := freeze(t, n)
				c.awaitState(n.str("id"), "LOST")
				g.open(t, g.mapGate)
				if phase == "reduces" { // elsewhere they run on, and are done while it is away
					g.open(t, g.reduceGate)
					job := c.waitJob(id)
					require.Equal(t, "COMPLETED", job.str("state"), job)
				}
				thaw()
				c.awaitState(n.str("id"), "RUNNING")
				g.open(t, g.reduceGate)
				job := c.waitJob(id)
				require.Equal(t, "COMPLETED", job.str("state"), job)
				require.Zero(t, job.num("attempts", "failed"), job)
				_, lines := readOutput(t, c, "data", "o/")
				requireCounts(t, in.counts, lines)
				waitFor(t, "it ends what it ran", func() (bool, string) {
					left := c.running("m.sh", "r.sh")
					return len(left) == 0, fmt.Sprint(left)
				})
				job = c.waitJob(c.submit("wordcount", "--input", "s3://data/in", "--split-size", "128KiB", "--output", "s3://data/next"))
				require.Equal(t, "COMPLETED", job.str("state"), job)
				require.Zero(t, job.num("attempts", "lost"), "it is well again: %v", job)
			})
		}
	}
}

// TestAllTaskNodesAreKilled: nothing that had finished runs again.
func TestAllTaskNodesAreKilled(t *testing.T) {
	for _, phase := range []string{"maps", "reduces"} {
		t.Run("while "+phase+" run", func(t *testing.T) {
			c := startCluster(t, "--core", "1", "--task", "3", "--slots", "2")
			in := newCorpus(1, 2<<20)
			in.put(t, c, "data")
			g := newGated(t)
			id := g.submit(c, phase)
			before := completedAttempts(c, id)
			for _, n := range c.nodes("TASK") {
				c.kill(n)
			}
			g.open(t, g.mapGate)
			g.open(t, g.reduceGate)
			job := c.waitJob(id)
			require.Equal(t, "COMPLETED", job.str("state"), job)
			require.Zero(t, job.num("attempts", "failed"), job)
			requireKept(t, c, id, before)
			_, lines := readOutput(t, c, "data", "o/")
			requireCounts(t, in.counts, lines)
		})
	}
}

// BenchmarkNodeKill is what the loss of a node in mid-job costs, in seconds of attempts beyond those of the job undisturbed, and
// of them those of the attempts that ran there: a task node costs no more than these, a core node the maps again that
// it kept and reduces still need.
func BenchmarkNodeKill(b *testing.B) {
	c := startCluster(b, "--core", "2", "--task", "2", "--slots", "1")
	newCorpus(1, 1<<20).put(b, c, "data")
	run := func(name, role string) (spent, lost time.Duration, attempts object) {
		id := c.submit("--mapper", "cat; sleep 0.5", "--reducer", "cat; sleep 0.5", "--input", "s3://data/in", "--split-size", "32KiB", "--reduces", "4",
			"-D", "mapreduce.map.speculative=false", "-D", "mapreduce.reduce.speculative=false", "--output", "s3://data/kill/"+name)
		if role != "" {
			c.waitJobUntil(id, "half of the maps are done", func(o object) bool { return 2*o.num("maps", "completed") > o.num("maps", "total") })
			n := c.node(role, 0)
			c.kill(n)
			defer c.awaitState(n.str("id"), "RUNNING") // dev starts it again
		}
		job := c.waitJob(id)
		require.Equal(b, "COMPLETED", job.str("state"), job)
		for _, task := range c.jsonList("job", "tasks", id) {
			list, _ := task["attempts"].([]any)
			for _, a := range list {
				o := object(a.(map[string]any))
				from, _ := time.Parse(time.RFC3339Nano, o.str("startedAt"))
				to, _ := time.Parse(time.RFC3339Nano, o.str("endedAt"))
				spent += to.Sub(from)
				if o.str("state") == "LOST" {
					lost += to.Sub(from)
				}
			}
		}
		return spent, lost, job
	}
	base := map[string][]time.Duration{}
	for i := range 5 {
		for _, role := range []string{"", "TASK", "CORE"} {
			spent, lost, _ := run(fmt.Sprintf("%s-%d", role, i), role)
			base[role] = append(base[role], spent)
			base[role+"lost"] = append(base[role+"lost"], lost)
		}
	}
	undisturbed := median(base[""])
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(undisturbed.Seconds(), "undisturbed-s")
	for _, role := range []string{"TASK", "CORE"} {
		b.ReportMetric((median(base[role]) - undisturbed).Seconds(), role+"-extra-s")
		b.ReportMetric(median(base[role+"lost"]).Seconds(), role+"-lost-s")
	}
}

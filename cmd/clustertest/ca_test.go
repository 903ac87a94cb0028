//go:build cluster

package clustertest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// person is somebody with a folder of their own who uses a cluster.
func person(t *testing.T, c *cluster) *cluster {
	p := *c
	p.t, p.home = t, t.TempDir()
	return &p
}

// namesake is somebody who has the contexts of another as they are now.
func namesake(t *testing.T, of *cluster) *cluster {
	p := person(t, of)
	require.NoError(t, os.CopyFS(p.home, os.DirFS(of.home)))
	return p
}

// TestTheCAIsRotatedUnderARunningJob: the job, the nodes and who is logged in, whether they run anything meanwhile or not, notice
// nothing; tokens and codes from before are good
// until the old CA is trusted no more.
func TestTheCAIsRotatedUnderARunningJob(t *testing.T) {
	c := startCluster(t, "--masters", "3", "--core", "2", "--task", "1", "--slots", "2")
	in := newCorpus(1, 2<<20)
	in.put(t, c, "data")
	old, seldom := namesake(t, c), namesake(t, c)
	bob, sue := c.json("user", "create", "bob", "--role", "submit"), c.json("user", "create", "sue", "--role", "read")
	before, pids := c.json("ca", "show"), map[string]int64{}
	require.Equal(t, "STEADY", before.str("phase"))
	for _, n := range c.jsonList("node", "list") {
		pids[n.str("id")] = n.num("pid")
	}
	g := newGated(t)
	id := c.submit(append(g.args(t), "--output", "s3://data/o", "-D", "mapreduce.map.speculative=false", "-D", "mapreduce.reduce.speculative=false")...)
	c.waitJobUntil(id, "has some maps done and others running", func(o object) bool {
		return o.num("maps", "completed") > 0 && o.num("maps", "running") > 0
	})

	begun := time.Now()
	rotated := c.json("ca", "rotate", "--wait")
	t.Logf("all nodes have certificates of the new CA after %s", time.Since(begun).Round(time.Millisecond))
	require.Equal(t, "RETIRING", rotated.str("phase"), rotated)
	require.NotEqual(t, before.str("fingerprint"), rotated.str("fingerprint"))

	r := seldom.try("job", "list")
	require.Zero(t, r.code, "who ran nothing meanwhile: %s", r.err)
	login := person(t, c)
	r = login.try("login", c.server, bob.str("code"))
	require.Zero(t, r.code, "a code from before: %s", r.err)
	r = login.try("user", "list")
	require.Equal(t, 3, r.code, r.err)
	r = login.try("login", c.server, bob.str("code"))
	require.Equal(t, 3, r.code, "a code is good once: %s", r.err)

	g.open(t, g.mapGate)
	g.open(t, g.reduceGate)
	job := c.waitJob(id)
	require.Equal(t, "COMPLETED", job.str("state"), job)
	for _, kind := range []string{"failed", "killed"} {
		require.Zero(t, job.num("attempts", kind), job)
	}
	c.requireNoneLost(job)
	_, lines := readOutput(t, c, "data", "o/")
	requireCounts(t, in.counts, lines)
	for _, n := range c.jsonList("node", "list") {
		require.Equal(t, pids[n.str("id")], n.num("pid"), n)
		require.Equal(t, "RUNNING", n.str("state"), n)
	}

	require.Equal(t, "STEADY", c.json("ca", "rotate", "--finish").str("phase"))
	waitFor(t, "no master takes a context of the old CA any more", func() (bool, string) {
		r = namesake(t, old).try("node", "list") // one that is taken is brought up to date
		return r.code == 3, r.err
	})
	require.Contains(t, r.err, "was given a new CA, and trusts the one of your context no more")
	r = person(t, c).try("login", c.server, sue.str("code"))
	require.Equal(t, 3, r.code, "a code of the old CA: %s", r.err)
	require.Zero(t, seldom.try("node", "list").code, "a context that was brought up to date by one command")
	require.Zero(t, login.try("job", "list").code, "who came meanwhile goes on")
	job = c.waitJob(c.submit("wordcount", "--input", "s3://data/in", "--output", "s3://data/after"))
	require.Equal(t, "COMPLETED", job.str("state"), job)

	c.stop()
	c.start()
	for _, n := range c.jsonList("node", "list") {
		require.Contains(t, pids, n.str("id"), "the same nodes, though their start has tokens of the old CA")
	}
	job = c.waitJob(c.submit("wordcount", "--input", "s3://data/in", "--output", "s3://data/again"))
	require.Equal(t, "COMPLETED", job.str("state"), job)
}

// awaitCA waits until a change of the CA is in a phase in which exactly these nodes are waited for.
func (c *cluster) awaitCA(phase string, waitedFor ...string) {
	c.t.Helper()
	slices.Sort(waitedFor)
	waitFor(c.t, "the change of the CA is "+phase, func() (bool, string) {
		s := c.json("ca", "show")
		var waiting []string
		list, _ := s["waiting"].([]any)
		for _, id := range list {
			waiting = append(waiting, id.(string))
		}
		slices.Sort(waiting)
		return s.str("phase") == phase && slices.Equal(waiting, waitedFor), fmt.Sprint(s)
	})
}

// TestTheCAIsRotatedWhileNodesAreOff: who is off is waited for, comes back and goes on by itself; also if the change went on without it, as
// long as the old CA vouches for the new one. A node, or a master, to which the old one is all is told what to do when that is trusted no
// more: it joins anew.
func TestTheCAIsRotatedWhileNodesAreOff(t *testing.T) {
	c := startCluster(t, "--masters", "3", "--core", "1", "--task", "0", "--slots", "1")
	voters(c, 3)
	early, late, never := c.ownNode("early", "task"), c.ownNode("late", "task"), c.ownNode("never", "task")
	id := map[*ownNode]string{}
	for _, n := range []*ownNode{early, late, never} {
		n.on(c.joinToken("task"))
		id[n] = c.awaitNode(filepath.Base(n.dir), "RUNNING", 0).str("id")
	}
	works := func(name string) {
		t.Helper()
		c.awaitNode(name, "RUNNING", 0)
		require.Equal(t, name+"\n", c.mr("node", "exec", name, "--", "sh", "-c", "echo $MILLRACE_NODE_NAME"))
	}

	// Nobody forces anything.
	early.off()
	c.mr("ca", "rotate")
	c.awaitCA("SPREADING", id[early])
	early.on("")
	c.awaitCA("RETIRING")
	works("early")
	require.Equal(t, "STEADY", c.json("ca", "rotate", "--finish").str("phase"))
	c.awaitCA("STEADY")
	works("early")

	// It is forced past those that are off.
	late.off()
	never.off()
	old, master := namesake(t, c), follower(c)
	freeze(t, master)
	c.mr("ca", "rotate")
	c.awaitCA("SPREADING", id[late], id[never], master.str("id"))
	c.mr("ca", "rotate", "--finish")
	c.awaitCA("ISSUING", id[late], id[never], master.str("id"))
	late.on("")
	c.awaitCA("ISSUING", id[never], master.str("id"))
	works("late")
	require.Equal(t, "STEADY", c.json("ca", "rotate", "--finish").str("phase"))
	for _, m := range c.nodes("MASTER") {
		if m.str("id") == master.str("id") {
			continue
		}
		waitFor(t, m.str("name")+" trusts the old CA no more", func() (bool, string) {
			r := namesake(t, old).try("node", "list", "--server", m.str("address")) // one that is taken is brought up to date
			return r.code == 3 && strings.Contains(r.err, "trusts the one of your context no more"), r.err
		})
	}
	works("late")

	never.on("")
	c.kill(master) // dev starts it again, as it was before
	refused := func(what, remove string, log func() string) {
		t.Helper()
		waitFor(t, what+" is told what to do", func() (bool, string) {
			said := log()
			return strings.Contains(said, "was given a new CA, and trusts the one of this node no more") &&
				strings.Contains(said, "have it join anew, with an empty folder; "+remove+" takes out the one that it was"), said
		})
	}
	refused("the node", "millrace node remove "+id[never], never.log.String)
	refused("the master", "millrace master remove "+master.str("id"), func() string {
		data, err := os.ReadFile(filepath.Join(c.dir, "logs", master.str("name")+".log"))
		require.NoError(t, err)
		return string(data)
	})

	never.off()
	c.awaitState(id[never], "LOST")
	c.mr("node", "remove", id[never])
	require.NoError(t, os.RemoveAll(never.dir))
	never.on(c.joinToken("task"))
	works("never")
	c.mr("master", "remove", master.str("id"))
	further := c.ownNode("further", "master")
	further.on(c.joinToken("master"))
	voters(c, 3)
	for _, m := range c.jsonList("master", "list") {
		require.Equal(t, m.str("id") != master.str("id"), m.str("member") == "VOTER", m)
	}
}

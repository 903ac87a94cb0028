//go:build cluster

package clustertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// nodeScript writes a script for nodes to a file.
func nodeScript(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// What bootstrap actions install is there for a streaming program; they run once on each node, and the node says what they said.
func TestBootstrapActions(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--pool", "2", "--slots", "1")
	in := newCorpus(1, 64<<10)
	in.put(t, c, "data")
	tools := t.TempDir()
	setup := nodeScript(t, "setup.sh", "#!/bin/sh\nset -e\necho setting up $MILLRACE_NODE_ROLE $MILLRACE_NODE_NAME of $MILLRACE_CLUSTER_NAME with $1\n"+
		"echo x >> "+tools+"/runs-$MILLRACE_NODE_NAME\nprintf '#!/bin/sh\\nexec tr a-z A-Z\\n' > "+tools+"/upper.new\nchmod 755 "+tools+"/upper.new\nmv "+tools+"/upper.new "+tools+"/upper\n")
	check := nodeScript(t, "check", "test -x "+tools+"/upper && echo it is there\nsetsid sh -c 'echo $$ > "+tools+"/daemon; exec sleep 1000' &\necho and a daemon\n")
	t.Cleanup(func() {
		data, err := os.ReadFile(filepath.Join(tools, "daemon"))
		if pid, parsed := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && parsed == nil {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	made := c.json("cluster", "create", "--name", "prepared", "--core", "1", "--provider", "pool", "--bootstrap-action", setup+",these words", "--bootstrap-action", check, "--wait")
	require.Equal(t, "WAITING", made.str("state"), made)

	node := c.jsonList("node", "list", "--cluster", "prepared")
	worker := node[len(node)-1]
	name := worker.str("name")
	said := "[bootstrap action 1 of 2: setup.sh]\nsetting up core " + name + " of prepared with these words\n[done]\n[bootstrap action 2 of 2: check]\nit is there\nand a daemon\n[done]\n"
	require.Equal(t, said, c.mr("node", "logs", name, "bootstrap", "-f"))
	require.Contains(t, c.mr("node", "logs", name), "bootstrap actions")

	job := c.waitJob(c.submit("--cluster", "prepared", "--mapper", tools+"/upper", "--reducer", "cat", "--input", "s3://data/in", "--output", "s3://data/o"))
	require.Equal(t, "COMPLETED", job.str("state"), job)

	// A restart runs nothing again.
	c.kill(worker)
	waitFor(t, "it is back", func() (bool, string) {
		n := c.json("node", "show", name)
		return n.str("state") == "RUNNING" && n.num("pid") != worker.num("pid"), n.str("state") + " " + n.str("reason")
	})
	require.Equal(t, said, c.mr("node", "logs", name, "bootstrap"))
	job = c.waitJob(c.submit("--cluster", "prepared", "--mapper", tools+"/upper", "--reducer", "cat", "--input", "s3://data/in", "--output", "s3://data/p"))
	require.Equal(t, "COMPLETED", job.str("state"), job)
	runs, err := os.ReadFile(filepath.Join(tools, "runs-"+name))
	require.NoError(t, err)
	require.Equal(t, "x\n", string(runs))

	// What they said stays when the node has another place.
	c.mr("cluster", "terminate", "prepared", "--wait")
	waitFor(t, "the node is free", func() (bool, string) { // it may still have to hear of it
		r := c.try("node", "logs", name, "bootstrap")
		return r.code == 1 && strings.Contains(r.err, "is free, in the site's pool"), r.out + r.err
	})
	kept := c.mr("fs", "cat", c.json("site", "show").str("systemPrefix")+"bootstrap/"+made.str("id")+"/"+worker.str("id")+"/1-setup.sh.log")
	require.Contains(t, kept, "with these words")
}

// A node whose action fails is named with its last lines, and no task ever ran there. With another action it is of use; a node that has run its
// action runs none of those that come later.
func TestABootstrapActionThatFails(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--pool", "1", "--slots", "1")
	bad := nodeScript(t, "bad.sh", "echo looking for the package\necho no such package >&2\nexit 9\n")
	c.mr("cluster", "create", "--name", "broken", "--core", "1", "--provider", "pool", "--bootstrap-action", bad)
	waitFor(t, "the events say so", func() (bool, string) {
		said := strings.Join(c.events("broken"), "\n")
		return strings.Contains(said, "exit code 9") && strings.Contains(said, "no such package"), said
	})
	for _, word := range []string{"first", "second"} {
		c.mr("cluster", "set", "broken", "--bootstrap-action", nodeScript(t, "good.sh", "echo "+word+"\n"))
		c.awaitGroup("broken", "CORE", 1)
	}
	node := c.only("broken", "CORE")
	c.kill(node)
	c.awaitNode("pool-1", "RUNNING", node.num("pid"))
	require.Equal(t, "[bootstrap action 1 of 1: good.sh]\nfirst\n[done]\n", c.mr("node", "logs", "pool-1", "bootstrap"))
	require.Contains(t, strings.Join(c.events("broken"), "\n"), "changed by admin: bootstrap action 1: ")
}

// Administrators run programs on nodes and read nodes' own logs, masters' too; a site can do without programs.
func TestNodesAnswerForThemselves(t *testing.T) {
	c := startCluster(t, "--masters", "3", "--core", "1", "--task", "0")
	voters(c, 3)
	for _, n := range c.jsonList("node", "list") {
		require.Contains(t, c.mr("node", "logs", n.str("id")), "INFO", n)
	}
	core := c.node("CORE", 0)
	r := c.try("node", "exec", core.str("name"), "--", "sh", "-c", "echo $MILLRACE_NODE_ID; echo oh >&2; exit 5")
	require.Equal(t, []any{5, core.str("id") + "\n", "oh\n"}, []any{r.code, r.out, r.err})
	r = c.try("node", "exec", core.str("name"), "--timeout", "500ms", "--", "sleep", "1000")
	require.Equal(t, 124, r.code, r)
	require.Contains(t, r.err, "it took longer than it may")
	r = c.try("node", "exec", leader(c).str("id"), "--", "true")
	require.Equal(t, 2, r.code, r)
	c.mr("site", "set", "--exec", "off")
	r = c.try("node", "exec", core.str("name"), "--", "true")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "node exec is switched off")
}

// A node that is started with --leave-on-term takes its leave when it is told to end: it is drained, nothing of it is missed, and its
// folder is another node's. One that is killed before it is gone, and its leader, too, is an ordinary node when it is started again.
func TestANodeLeavesForGood(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--slots", "1")
	in := newCorpus(1, 1<<20)
	in.put(t, c, "data")
	dir := filepath.Join(c.dir, "by-hand")
	again := func() *exec.Cmd {
		w := exec.Command(binary(t), "worker", "--dir", dir, "--name", "by-hand", "--join", c.server, "--slots", "1", "--leave-on-term")
		w.Env = c.environ()
		w.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		t.Cleanup(func() {
			if w.Process != nil {
				w.Process.Kill()
			}
		})
		return w
	}
	begin := func() *exec.Cmd {
		w := again()
		w.Args = append(w.Args, "--token", "-")
		w.Stdin = strings.NewReader(c.json("join-token", "create", "--role", "core").str("token") + "\n")
		require.NoError(t, w.Start())
		return w
	}
	listed := func() (id string) {
		for _, n := range c.jsonList("node", "list") {
			if n.str("name") == "by-hand" && n.str("state") == "RUNNING" {
				id = n.str("id")
			}
		}
		return id
	}
	w := begin()
	waitFor(t, "it has joined", func() (bool, string) { return listed() != "", "" })
	first := listed()
	require.Zero(t, c.tryIn(strings.NewReader("a word"), "fs", "put", "--replication", "1", "-", "hdfs:///f").code)
	require.NoError(t, w.Process.Signal(syscall.SIGTERM))
	require.NoError(t, w.Wait(), "it ends well")
	require.Equal(t, "a word", c.mr("fs", "cat", "hdfs:///f"))
	for _, n := range c.jsonList("node", "list") {
		require.NotEqual(t, first, n.str("id"))
	}
	w = begin()
	waitFor(t, "it joins anew", func() (bool, string) { return listed() != "", "" })
	second := listed()
	require.NotEqual(t, first, second)

	job := newGated(t).submit(c, "maps")
	waitFor(t, "it is busy", func() (bool, string) {
		n := c.json("node", "show", second)
		return n.num("running") > 0, fmt.Sprint(n)
	})
	require.NoError(t, w.Process.Signal(syscall.SIGTERM))
	c.awaitState(second, "DRAINING")
	require.NoError(t, w.Process.Kill())
	require.Error(t, w.Wait())
	c.kill(leader(c))
	w = again()
	require.NoError(t, w.Start())
	waitFor(t, "it drains no more", func() (bool, string) {
		r := c.try("node", "show", second)
		return r.code == 0 && strings.Contains(r.out, "RUNNING"), r.out + r.err
	})
	c.mr("job", "cancel", job)
	c.waitJob(job)
	require.NoError(t, w.Process.Signal(syscall.SIGTERM))
	require.NoError(t, w.Wait())
}

//go:build cluster

package clustertest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../.."

// build makes a binary of the source in a folder, with what the linker sets.
func build(t *testing.T, source, name string, set ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "millrace")
	flags := "-s -w -X millrace/cmd/cli.Version=" + name
	for _, s := range set {
		flags += " -X '" + s + "'"
	}
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", out, "./cmd/millrace")
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, string(said))
	return out
}

// previous builds the binary of the commit before this one that changed it, or of MILLRACE_UPGRADE_FROM.
func previous(t *testing.T) string {
	t.Helper()
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", append([]string{"-C", root}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	commit := os.Getenv("MILLRACE_UPGRADE_FROM")
	if commit == "" {
		var err error
		if commit, err = git("log", "-1", "--format=%H", "HEAD~1", "--", "*.go", ":!*_test.go", "go.mod"); err != nil || commit == "" {
			t.Skipf("needs the commit before this one, and git does not have it (a shallow clone, or no checkout): %v", err)
		}
	}
	source := t.TempDir()
	archive := exec.Command("bash", "-o", "pipefail", "-c", fmt.Sprintf("git -C %s archive %s | tar -x -C %s", root, commit, source))
	if said, err := archive.CombinedOutput(); err != nil {
		t.Skipf("needs the source of commit %s, which git does not give: %v: %s", commit, err, said)
	}
	t.Logf("from commit %s", commit)
	return build(t, source, "previous")
}

// startOf starts a cluster whose processes are of a binary: of whatever lies at the path that is given back when one is started.
func startOf(t *testing.T, binary string, flags ...string) (c *cluster, path string) {
	t.Helper()
	c = &cluster{t: t, home: t.TempDir(), dir: filepath.Join(t.TempDir(), "dev"), flags: flags}
	c.bin = filepath.Join(t.TempDir(), "millrace")
	install(t, binary, c.bin)
	c.start()
	t.Cleanup(func() {
		c.stop()
		if t.Failed() {
			t.Logf("dev said:\n%s", c.log)
			c.logTails()
		}
	})
	return c, c.bin
}

// install puts a binary in another's place at one stroke, as a package manager does: what runs goes on with the one it has.
func install(t *testing.T, binary, path string) {
	t.Helper()
	data, err := os.ReadFile(binary)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path+".new", data, 0o755))
	require.NoError(t, os.Rename(path+".new", path))
}

// again ends a node in order and waits until it is back as another version.
func (c *cluster) again(n object, version string) {
	c.t.Helper()
	require.Positive(c.t, n.num("pid"), n)
	require.NoError(c.t, syscall.Kill(int(n.num("pid")), syscall.SIGTERM))
	waitFor(c.t, n.str("name")+" is back", func() (bool, string) {
		r := c.try("node", "list", "--json")
		if r.code != 0 {
			return false, r.err
		}
		var nodes []object
		require.NoError(c.t, json.Unmarshal([]byte(r.out), &nodes), r.out)
		for _, now := range nodes {
			if now.str("id") == n.str("id") {
				up := now.str("state") == "RUNNING" && now.num("pid") > 0 && now.num("pid") != n.num("pid") && now.str("version") == version
				return up && (now.str("role") != "MASTER" || now.str("member") == "VOTER"), fmt.Sprint(now)
			}
		}
		return false, r.out
	})
}

// TestUpgrade: a site of three masters goes from the version before this one to this one, node by node, while jobs run. There are slots
// for all of the job that waits, and for others beside it.
func TestUpgrade(t *testing.T) {
	old := previous(t)
	c, path := startOf(t, old, "--masters", "3", "--core", "2", "--task", "1", "--slots", "8")
	in := newCorpus(1, 2<<20)
	in.put(t, c, "data")
	voters(c, 3)
	now := c.json("version")
	version := now.str("version")
	require.NotEqual(t, version, c.node("MASTER", 0).str("version"))

	g := newGated(t)
	id := c.submit(append(g.args(t), "--output", "s3://data/long")...)
	c.waitJobUntil(id, "has some maps done and others running", func(o object) bool {
		return o.num("maps", "completed") > 0 && o.num("maps", "running") > 0
	})
	before := completedAttempts(c, id)
	unchanged := func() {
		t.Helper()
		requireKept(t, c, id, before)
	}
	short := func(name string) {
		t.Helper()
		output := "s3://data/" + name
		r := c.try("run", "wordcount", "s3://data/in", output)
		require.Equal(t, 0, r.code, r.err)
		_, lines := readOutput(t, c, "data", name+"/")
		requireCounts(t, in.counts, lines)
	}

	install(t, binary(t), path)
	last := leader(c)
	for _, m := range c.nodes("MASTER") {
		if m.str("id") != last.str("id") {
			c.again(m, version)
			unchanged()
		}
	}
	short("while-one-is-old")
	c.again(last, version)
	unchanged()
	lost := c.json("job", "show", id)
	c.requireNoneLost(lost) // masters come and go without a running attempt's noticing
	waitFor(t, "the site uses what its masters speak", func() (bool, string) {
		o := c.json("cluster", "show")
		return o.num("protocol") == now.num("protocol"), fmt.Sprint(o)
	})
	short("while-workers-are-old")

	for role, many := range map[string]int{"CORE": 2, "TASK": 1} {
		waitFor(t, "all workers have found the leader", func() (bool, string) { return len(c.nodes(role)) == many, c.try("node", "list").out })
		for _, n := range c.nodes(role) {
			c.again(n, version)
		}
	}
	g.open(t, g.mapGate)
	g.open(t, g.reduceGate)
	job := c.waitJob(id)
	require.Equal(t, "COMPLETED", job.str("state"), job)
	require.Zero(t, job.num("attempts", "failed"), job)
	_, lines := readOutput(t, c, "data", "long/")
	requireCounts(t, in.counts, lines)
	short("all-are-new")
	for _, n := range c.jsonList("node", "list") {
		require.Equal(t, version, n.str("version"), n)
		require.Equal(t, now.num("protocol"), n.num("protocol"), n)
	}
	waitFor(t, "nothing is wrong", func() (bool, string) {
		problems, _ := c.json("cluster", "show")["problems"].([]any)
		return len(problems) == 0, fmt.Sprint(problems)
	})
}

// TestRefusedSkew: versions that cannot work together say so, whichever meets the other, with both versions and what to do.
func TestRefusedSkew(t *testing.T) {
	far := build(t, root, "far", "millrace/pkg/protocol.pretend=99 98")
	c := startCluster(t, "--core", "1", "--task", "0")
	own := c.json("version")
	refused := func(r result, code int, says ...string) {
		t.Helper()
		require.Equal(t, code, r.code, r.out+r.err)
		for _, s := range append(says, "next: ") {
			require.Contains(t, r.err, s)
		}
	}
	both := []string{fmt.Sprintf("/%s speaks protocol %d, and millrace", own.str("version"), own.num("protocol")), "/far serves protocols 98 to 99: they cannot work together"}

	refused(c.tryWith(far, nil, "job", "list"), 3, both...)
	folder := t.TempDir()
	ports := []string{"--listen", "127.0.0.1:0", "--gossip-listen", "127.0.0.1:0"}
	for role, command := range map[string][]string{"core": {"worker"}, "master": {"master", "run", "--raft-listen", "127.0.0.1:0"}} {
		token := c.json("join-token", "create", "--role", role).str("token")
		refused(c.tryWith(far, nil, append(append(command, "--dir", filepath.Join(folder, role), "--join", c.server, "--token", token), ports...)...), 3, both...)
	}

	// A worker that is replaced by such a one waits for its masters, and the site says why it is gone.
	dev, path := startOf(t, binary(t), "--core", "1", "--task", "0")
	worker := dev.node("CORE", 0)
	install(t, far, path)
	require.NoError(t, syscall.Kill(int(worker.num("pid")), syscall.SIGTERM))
	waitFor(t, "the site names it", func() (bool, string) {
		o := fmt.Sprint(dev.json("cluster", "show")["problems"])
		return strings.Contains(o, both[0]) && strings.Contains(o, both[1]) && strings.Contains(o, worker.str("id")), o
	})

	// A site of those masters, and this version's command line and folder.
	dev.stop()
	theirs, _ := startOf(t, far, "--core", "1", "--task", "0")
	refused(theirs.try("job", "list"), 3, both...)
	theirs.stop()
	dir := filepath.Join(theirs.dir, "master-1")
	refused(theirs.try(append([]string{"master", "run", "--dir", dir, "--raft-listen", "127.0.0.1:0"}, ports...)...), 2,
		filepath.Join(dir, "raft"), "written by a newer millrace: it takes one that speaks protocol 99", "next: use the version that wrote it, or a later one")
	theirs.start() // which has done it no harm
	refused(theirs.try("job", "list"), 3, both...)
}

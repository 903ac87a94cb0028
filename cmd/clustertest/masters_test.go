//go:build cluster

package clustertest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// leader is the master that leads.
func leader(c *cluster) object {
	c.t.Helper()
	var found object
	waitFor(c.t, "somebody leads", func() (bool, string) {
		masters := c.nodes("MASTER")
		i := slices.IndexFunc(masters, func(n object) bool { return n["leader"] == true })
		if i >= 0 {
			found = masters[i]
		}
		return i >= 0, ""
	})
	return found
}

// voters waits until so many masters vote, and the leader has heard of each.
func voters(c *cluster, want int) {
	c.t.Helper()
	waitFor(c.t, "the masters vote", func() (bool, string) {
		r := c.try("master", "list", "--json")
		n := 0
		var masters []object
		if r.code == 0 {
			require.NoError(c.t, json.Unmarshal([]byte(r.out), &masters), r.out)
		}
		for _, m := range masters {
			if m.str("state") == "RUNNING" && m.str("member") == "VOTER" && m.num("pid") > 0 { // which is known once it has announced itself
				n++
			}
		}
		return n == want, r.out + r.err
	})
}

// TestThreeMasters: SIGKILL of the leader in each phase, of a follower, and SIGSTOP of the leader. A person sees
// a pause, never an error; what had finished stays finished, what was running goes on.
func TestThreeMasters(t *testing.T) {
	c := startCluster(t, "--masters", "3", "--core", "1", "--task", "1", "--slots", "2")
	in := newCorpus(1, 2<<20)
	in.put(t, c, "data")
	voters(c, 3)
	for _, m := range c.nodes("MASTER") {
		require.Len(t, c.jsonList("node", "list", "--server", m.str("address")), 5, "any master answers: %v", m)
	}
	for name, strike := range map[string]struct {
		phase string
		do    func(t *testing.T)
	}{
		"leader killed in maps":    {"maps", func(*testing.T) { c.kill(leader(c)) }},
		"leader killed in reduces": {"reduces", func(*testing.T) { c.kill(leader(c)) }},
		"follower killed":          {"maps", func(*testing.T) { c.kill(follower(c)) }},
		"leader frozen":            {"maps", func(t *testing.T) { freeze(t, leader(c)) }},
		"majority frozen":          {"maps", func(t *testing.T) { loseMajority(t, c) }},
	} {
		t.Run(name, func(t *testing.T) {
			voters(c, 3)
			g := newGated(t)
			if strike.phase == "reduces" {
				g.open(t, g.mapGate)
			}
			output := "s3://data/" + t.Name() + "/"
			id := c.submit(append(g.args(t), "--output", output)...)
			c.waitJobUntil(id, "has some "+strike.phase+" done and others running", func(o object) bool {
				return o.num(strike.phase, "completed") > 0 && o.num(strike.phase, "running") > 0
			})
			before := completedAttempts(c, id)
			strike.do(t)
			require.Equal(t, id, c.json("job", "show", id).str("id"), "a pause, not an error")
			g.open(t, g.mapGate)
			g.open(t, g.reduceGate)
			job := c.waitJob(id)
			require.Equal(t, "COMPLETED", job.str("state"), job)
			require.Zero(t, job.num("attempts", "failed"))
			c.requireNoneLost(job)
			requireKept(t, c, id, before)
			_, lines := readOutput(t, c, "data", t.Name()+"/")
			requireCounts(t, in.counts, lines)
		})
	}
}

func follower(c *cluster) (found object) {
	c.t.Helper()
	waitFor(c.t, "there are a leader and a follower", func() (bool, string) {
		masters := c.nodes("MASTER")
		i := slices.IndexFunc(masters, func(n object) bool { return n["leader"] != true })
		if i >= 0 && len(masters) > 1 {
			found = masters[i]
		}
		return found != nil, fmt.Sprint(masters)
	})
	return found
}

// freeze stops a process until thaw, or the test's end; the others know nothing of it.
func freeze(t *testing.T, n object) (thaw func()) {
	t.Helper()
	pid := int(n.num("pid"))
	require.Positive(t, pid, n) // 0 would be this test's own processes
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	thaw = func() { syscall.Kill(pid, syscall.SIGCONT) }
	t.Cleanup(thaw)
	return thaw
}

// loseMajority freezes two of three masters: nothing is acknowledged until they are back.
func loseMajority(t *testing.T, c *cluster) {
	t.Helper()
	var thaw []func()
	var out []string
	survivor := ""
	for _, m := range c.nodes("MASTER") {
		if m["leader"] == true {
			survivor = m.str("address")
			continue
		}
		thaw = append(thaw, freeze(t, m))
		out = append(out, fmt.Sprintf("%s (%s, %s)", m.str("name"), m.str("id"), m.str("address")))
	}
	slices.Sort(out)
	for _, command := range [][]string{{"join-token", "create", "--role", "task"}, {"cluster", "show"}, {"cluster", "show", "--server", survivor}} {
		r := c.try(command...)
		require.Equal(t, 3, r.code, "%v: %s%s", command, r.out, r.err)
		require.Contains(t, r.err, "millrace: no leader can be elected: 2 of 3 masters are out ("+strings.Join(out, "; ")+"), and it takes 2", command)
		require.Contains(t, r.err, "next: start those masters again, it is then safe to repeat the command", command)
	}
	for _, f := range thaw {
		f()
	}
	waitFor(t, "the majority is back", func() (bool, string) {
		r := c.try("join-token", "create", "--role", "task")
		return r.code == 0, r.err
	})
}

// TestTheSetOfMasters: members are taken out and back while a job runs, the leader too; what would cost
// the majority is refused.
func TestTheSetOfMasters(t *testing.T) {
	c := startCluster(t, "--masters", "3", "--core", "1", "--task", "0", "--slots", "2")
	newCorpus(1, 1<<20).put(t, c, "data")
	g := newGated(t)
	id := c.submit(append(g.args(t), "--output", "s3://data/o")...)
	voters(c, 3)

	out := follower(c)
	require.Equal(t, "NONE", c.json("master", "remove", out.str("id")).str("member"))
	voters(c, 2)
	require.Contains(t, c.mr("master", "list"), "millrace master add "+out.str("id"))
	require.Equal(t, "VOTER", c.json("master", "add", out.str("name")).str("member"))
	voters(c, 3)

	first := leader(c)
	require.Equal(t, "NONE", c.json("master", "remove", first.str("id")).str("member"))
	require.NotEqual(t, first.str("id"), leader(c).str("id"))
	voters(c, 2)
	c.json("master", "add", first.str("id"))
	voters(c, 3)

	r := c.try("master", "remove", "master-9")
	require.Equal(t, 4, r.code, r.err)
	require.Contains(t, r.err, "no such master: master-9")

	g.open(t, g.mapGate)
	g.open(t, g.reduceGate)
	require.Equal(t, "COMPLETED", c.waitJob(id).str("state"))
	// The next start has as many; fewer would have no majority.
	c.stop()
	fewer := exec.Command(binary(t), "dev", "--masters", "1", "--dir", c.dir)
	fewer.Env = c.environ()
	said, err := fewer.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(said), "the cluster in this folder has more masters: 3")
	c.start()
	voters(c, 3)
	require.Equal(t, "COMPLETED", c.json("job", "show", id).str("state"))

	// Nor does it wait for one that is out.
	c.json("master", "remove", "master-3")
	c.stop()
	c.start()
	voters(c, 2)
}

// TestBackupAndRestore: a backup of a running cluster is the same site on another machine, jobs included; a master that is
// left of three is made the only one.
func TestBackupAndRestore(t *testing.T) {
	c := startCluster(t, "--masters", "3", "--core", "1", "--task", "0", "--slots", "1")
	newCorpus(1, 100_000).put(t, c, "data")
	job := c.json("run", "wordcount", "s3://data/in", "s3://data/wc")
	voters(c, 3)
	folder := t.TempDir()
	file := filepath.Join(folder, "site.backup")
	c.mr("master", "backup", file)
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	require.Equal(t, true, c.json("master", "restore", "--check", file).at("checked"))
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	data[len(data)/2] ^= 1
	damaged := filepath.Join(folder, "damaged.backup")
	require.NoError(t, os.WriteFile(damaged, data, 0o600))
	restored := filepath.Join(folder, "restored")
	for _, args := range [][]string{{"--check", damaged}, {damaged, "--dir", restored}} {
		r := c.try(append([]string{"master", "restore"}, args...)...)
		require.Equal(t, 2, r.code, r.err)
		require.Contains(t, r.err, damaged+": not a backup that can be restored: it is damaged")
		require.NoDirExists(t, restored)
	}
	require.EqualValues(t, 1, c.json("master", "restore", file, "--dir", restored).num("jobs"))
	alone := func(dir string) {
		t.Helper()
		address := c.serve(dir)
		shown := c.json("job", "show", job.str("id"), "--server", address)
		require.Equal(t, job.at("counters"), shown.at("counters"))
		require.Len(t, c.jsonList("master", "list", "--server", address), 1, "the three that were have left nothing behind")
	}
	alone(restored)

	c.stop()
	left := filepath.Join(c.dir, "master-2")
	c.mr("master", "recover", "--dir", left)
	address := c.serve(left)
	require.Equal(t, job.at("counters"), c.json("job", "show", job.str("id"), "--server", address).at("counters"))
	require.Len(t, c.jsonList("master", "list", "--server", address), 1)
}

// serve runs a master on a folder until the test's end, and gives its address.
func (c *cluster) serve(dir string) string {
	c.t.Helper()
	cmd := exec.Command(binary(c.t), "master", "run", "--dir", dir, "--listen", "127.0.0.1:0", "--raft-listen", "127.0.0.1:0", "--gossip-listen", "127.0.0.1:0")
	cmd.Env = c.environ()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	said, err := cmd.StderrPipe()
	require.NoError(c.t, err)
	require.NoError(c.t, cmd.Start())
	address, ended := make(chan string, 1), make(chan struct{})
	c.t.Cleanup(func() { cmd.Process.Signal(os.Interrupt); <-ended })
	var log lockedBuffer
	go func() {
		defer close(ended)
		for s := bufio.NewScanner(said); s.Scan(); {
			fmt.Fprintln(&log, s.Text())
			if _, rest, ok := strings.Cut(s.Text(), `"address": "`); ok {
				address <- rest[:strings.IndexByte(rest, '"')]
			}
		}
		cmd.Wait()
	}()
	select {
	case a := <-address:
		return a
	case <-ended:
		c.t.Fatalf("the master ended:\n%s", log.String())
	case <-time.After(patience):
		c.t.Fatalf("the master does not start:\n%s", log.String())
	}
	return ""
}

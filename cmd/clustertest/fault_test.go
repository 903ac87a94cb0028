//go:build cluster

package clustertest

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// gated is a streaming word count whose map tasks or reduce tasks wait, after what they
// have read, until a file is there: so that a test can strike in mid-job.
type gated struct{ mapGate, reduceGate string }

func newGated(t *testing.T) gated {
	dir := t.TempDir()
	return gated{filepath.Join(dir, "map"), filepath.Join(dir, "reduce")}
}

func (g gated) open(t *testing.T, gate string) {
	t.Helper()
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
}

// args are the job's flags. The first map (and, with it, the first reduce) goes through its gate at once.
func (g gated) args(t *testing.T) []string {
	wait := func(gate, tool string) string {
		return fmt.Sprintf("#!/bin/sh\n%s\nif [ \"$mapreduce_task_partition\" -gt 1 ]; then while [ ! -e %s ]; do sleep 0.05; done; fi\n", tool, gate)
	}
	m := script(t, "m.sh", wait(g.mapGate, `tr -s ' \t\r' '\n\n\n' | sed '/^$/d; s/$/\t1/'`))
	r := script(t, "r.sh", wait(g.reduceGate, `awk -F '\t' '{ if (NR > 1 && ($1 "") != (k "")) { print k "\t" n; n = 0 } k = $1; n += $2 } END { if (NR) print k "\t" n }'`))
	return []string{"--mapper", "./m.sh", "--reducer", "./r.sh", "--file", m, "--file", r,
		"--input", "s3://data/in", "--split-size", "128KiB", "--reduces", "4"}
}

// submit starts the job, with its output below s3://data/o/, and waits until some of its maps, or reduces, are done and others run.
func (g gated) submit(c *cluster, phase string) (id string) {
	t := c.t.(*testing.T)
	t.Helper()
	if phase == "reduces" {
		g.open(t, g.mapGate)
	}
	id = c.submit(append(g.args(t), "--output", "s3://data/o")...)
	c.waitJobUntil(id, "has some "+phase+" done and others running", func(o object) bool {
		return o.num(phase, "completed") > 0 && o.num(phase, "running") > 0
	})
	return id
}

// requireKept: what had finished has not run again.
func requireKept(t *testing.T, c *cluster, id string, before map[string]string) {
	t.Helper()
	after := completedAttempts(c, id)
	if c.heldUp("map output is lost, the map runs again") {
		return
	}
	for task, attempt := range before {
		require.Equal(t, attempt, after[task], "%s ran again", task)
	}
}

// completedAttempts are the attempts that won, by task.
func completedAttempts(c *cluster, id string) map[string]string {
	won := map[string]string{}
	for _, task := range c.jsonList("job", "tasks", id) {
		attempts, _ := task["attempts"].([]any)
		for _, a := range attempts {
			o := object(a.(map[string]any))
			if o.str("state") == "COMPLETED" {
				won[task.str("id")] = o.str("id")
			}
		}
	}
	return won
}

// TestKillWorker: SIGKILL of a worker of each role, while maps and while reduces run.
func TestKillWorker(t *testing.T) {
	for _, role := range []string{"CORE", "TASK"} {
		for _, phase := range []string{"maps", "reduces"} {
			t.Run(role+" while "+phase+" run", func(t *testing.T) {
				c := startCluster(t, small...)
				in := newCorpus(1, 2<<20)
				in.put(t, c, "data")
				g := newGated(t)
				id := g.submit(c, phase)
				c.kill(c.node(role, 0))
				g.open(t, g.mapGate)
				g.open(t, g.reduceGate)
				job := c.waitJob(id)
				require.Equal(t, "COMPLETED", job.str("state"), job)
				require.Zero(t, job.num("attempts", "failed"), "a lost attempt does not count as failed")
				_, lines := readOutput(t, c, "data", "o/")
				requireCounts(t, in.counts, lines)
			})
		}
	}
}

// TestKillMaster: SIGKILL of the only master in each phase. What had finished stays
// finished, what was running goes on.
func TestKillMaster(t *testing.T) {
	for _, phase := range []string{"maps", "reduces"} {
		t.Run("while "+phase+" run", func(t *testing.T) {
			c := startCluster(t, small...)
			in := newCorpus(1, 2<<20)
			in.put(t, c, "data")
			g := newGated(t)
			id := g.submit(c, phase)
			before := completedAttempts(c, id)
			c.kill(c.node("MASTER", 0))
			waitFor(t, "the master is back", func() (bool, string) {
				r := c.try("job", "show", id)
				return r.code == 0, r.err
			})
			g.open(t, g.mapGate)
			g.open(t, g.reduceGate)
			job := c.waitJob(id)
			require.Equal(t, "COMPLETED", job.str("state"), job)
			require.Zero(t, job.num("attempts", "failed"))
			c.requireNoneLost(job)
			requireKept(t, c, id, before)
			_, lines := readOutput(t, c, "data", "o/")
			requireCounts(t, in.counts, lines)
		})
	}
}

// TestKillWorkerEndsItsChildren: what a killed worker's attempts had started ends with it.
func TestKillWorkerEndsItsChildren(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--slots", "2")
	newCorpus(1, 1<<20).put(t, c, "data")
	mark := fmt.Sprintf("78%d", os.Getpid())
	forks := script(t, "forks.sh", "#!/bin/sh\nsetsid sleep "+mark+" &\nsleep "+mark+"\n")
	id := c.submit("--mapper", "./forks.sh", "--file", forks, "--reducer", "cat",
		"--input", "s3://data/in/a-large.txt", "--output", "s3://data/o")
	running := func() []string { return processesNaming("sleep\x00" + mark) }
	waitFor(t, "the program runs", func() (bool, string) { return len(running()) == 2, strings.Join(running(), "\n") })
	first := running()
	c.kill(c.node("CORE", 0))
	waitFor(t, "its processes end", func() (bool, string) {
		for _, p := range running() {
			for _, f := range first {
				if p == f {
					return false, p
				}
			}
		}
		return true, ""
	})
	c.mr("job", "cancel", id)
	c.waitJob(id)
}

// TestDamagedSegments: a flipped byte and a truncated file are found, the maps run again, the result is right.
func TestDamagedSegments(t *testing.T) {
	damage := map[string]func(t *testing.T, path string){
		"flipped byte": func(t *testing.T, path string) {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			data[len(data)*2/3] ^= 1 // in a partition that nobody has fetched yet
			require.NoError(t, os.WriteFile(path, data, 0o600))
		},
		"truncated": func(t *testing.T, path string) {
			info, err := os.Stat(path)
			require.NoError(t, err)
			require.NoError(t, os.Truncate(path, info.Size()/2))
		},
		"removed": func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) },
	}
	for name, do := range damage {
		t.Run(name, func(t *testing.T) {
			c := startCluster(t, "--core", "1", "--task", "1", "--slots", "2")
			in := newCorpus(1, 1<<20)
			in.put(t, c, "data")
			g := newGated(t)
			g.open(t, g.mapGate)
			id := c.submit(append(g.args(t), "--output", "s3://data/o", "--reduces", "12")...)
			c.waitJobUntil(id, "is reducing, with reduces that wait", func(o object) bool {
				return o.num("maps", "completed") == o.num("maps", "total") && o.num("reduces", "pending") > 0 && o.num("reduces", "running") == 4
			})
			segments, err := filepath.Glob(filepath.Join(c.dir, "*", "segments", id, "*.seg"))
			require.NoError(t, err)
			require.NotEmpty(t, segments)
			do(t, segments[0])
			g.open(t, g.reduceGate)
			job := c.waitJob(id)
			require.Equal(t, "COMPLETED", job.str("state"), job)
			require.NotZero(t, job.num("attempts", "lost"), "the map ran again")
			require.Zero(t, job.num("attempts", "failed"))
			_, lines := readOutput(t, c, "data", "o/")
			requireCounts(t, in.counts, lines)
		})
	}
}

// TestNotDeterministic: a program that gives other records when it runs again is
// caught when maps are lost between two reduces: once all reduces start over, the second time the job fails.
func TestNotDeterministic(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--slots", "2")
	newCorpus(1, 300000).put(t, c, "data")
	g := newGated(t)
	g.open(t, g.mapGate)
	args := g.args(t)
	random := script(t, "m.sh", "#!/bin/sh\ncat > /dev/null\nod -An -N400 -tx1 -v /dev/urandom | tr -s ' ' '\\n' | sed '/^$/d; s/$/\\t1/'\n")
	args[5] = random
	id := c.submit(append(args, "--output", "s3://data/o", "--reduces", "6", "--max-attempts", "2")...)
	lose := func() {
		segments, err := filepath.Glob(filepath.Join(c.dir, "*", "segments", id, "*.seg"))
		require.NoError(t, err)
		for _, s := range segments {
			os.Remove(s)
		}
	}
	strike := func() {
		c.waitJobUntil(id, "has reduced some and not all", func(o object) bool {
			return o.num("reduces", "completed") == 2 && o.num("reduces", "running") == 2
		})
		lose()
		// The running reduces have all they need; the next ones find the segments gone.
	}
	strike()
	g.open(t, g.reduceGate)
	var job object
	waitFor(t, "the job ends, its segments taken away whenever reduces run", func() (bool, string) {
		job = c.json("job", "show", id)
		if n := job.num("reduces", "completed"); n > 0 && n < 6 {
			lose()
		}
		return job.str("endedAt") != "", fmt.Sprint(job)
	})
	t.Logf("the job ended %s: %s", job.str("state"), job.str("reason"))
	require.NotZero(t, job.num("attempts", "lost"), "reduces started over")
	if job.str("state") == "COMPLETED" {
		// It got through before its second loss: then what it wrote is one consistent set.
		m, _ := readOutput(t, c, "data", "o/")
		require.Equal(t, m.Ledger.SegmentRecords, m.Ledger.FetchedRecords)
		return
	}
	require.Equal(t, "FAILED", job.str("state"))
	require.Contains(t, job.str("reason"), "deterministic")
	requireNothing(t, c, "data", "o")
}

// TestFurtherNode: a worker started by hand with a join token joins while a job runs, and takes tasks.
func TestFurtherNode(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "0", "--slots", "1")
	in := newCorpus(1, 1<<20)
	in.put(t, c, "data")
	g := newGated(t)
	id := c.submit(append(g.args(t), "--output", "s3://data/o")...)
	c.waitJobUntil(id, "runs", func(o object) bool { return o.num("maps", "running") == 1 && o.num("maps", "completed") > 0 })
	token := c.json("join-token", "create", "--role", "task").str("token")
	require.NotEmpty(t, token)
	w := exec.Command(binary(t), "worker", "--dir", filepath.Join(c.dir, "by-hand"), "--join", c.server, "--token", "-", "--slots", "3")
	w.Env = c.environ()
	w.Stdin = strings.NewReader(token + "\n")
	w.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, w.Start())
	t.Cleanup(func() { w.Process.Signal(syscall.SIGTERM); w.Wait() })
	c.waitJobUntil(id, "runs on the new node", func(o object) bool { return o.num("maps", "running") == 4 })
	g.open(t, g.mapGate)
	g.open(t, g.reduceGate)
	require.Equal(t, "COMPLETED", c.waitJob(id).str("state"))
	_, lines := readOutput(t, c, "data", "o/")
	requireCounts(t, in.counts, lines)

	r := c.try("worker", "--dir", filepath.Join(t.TempDir(), "w"), "--join", c.server, "--token", "mr1.no.such.token")
	require.NotZero(t, r.code)
	require.Contains(t, r.err, "token")
}

// TestStrangers: no port of a cluster answers somebody without the site's certificate.
func TestStrangers(t *testing.T) {
	c := startCluster(t, "--core", "1", "--task", "1")
	var tried int
	for _, n := range c.jsonList("node", "list") {
		u, err := url.Parse(n.str("address"))
		require.NoError(t, err)
		for _, port := range listeningPorts(t, int(n.num("pid"))) {
			tried++
			conn, err := tls.Dial("tcp", net.JoinHostPort(u.Hostname(), port), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
			if err != nil {
				continue // no TLS for strangers at all (gossip is encrypted under a key of its own)
			}
			fmt.Fprintf(conn, "POST /millrace.v1.MillraceService/ListJobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
			var answer [4096]byte
			k, _ := conn.Read(answer[:])
			status, _, _ := strings.Cut(string(answer[:k]), "\r\n")
			require.NotContains(t, status, " 200", "%s port %s", n.str("role"), port)
			conn.Close()
		}
	}
	require.GreaterOrEqual(t, tried, 7, "API, Raft and gossip of the master, API and gossip of two workers")
}

// listeningPorts are the TCP ports that a process listens on.
func listeningPorts(t *testing.T, pid int) []string {
	t.Helper()
	inodes := map[string]bool{}
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		if l, err := os.Readlink(fd); err == nil && strings.HasPrefix(l, "socket:[") {
			inodes[strings.Trim(l, "socket:[]")] = true
		}
	}
	var ports []string
	for _, table := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		require.NoError(t, err)
		for _, line := range strings.Split(string(data), "\n") {
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == "0A" && inodes[f[9]] {
				var p int
				fmt.Sscanf(f[1][strings.LastIndex(f[1], ":")+1:], "%X", &p)
				ports = append(ports, fmt.Sprint(p))
			}
		}
	}
	return ports
}

// TestDemoInterrupted: Ctrl-C in the middle of the demo leaves neither process nor file.
func TestDemoInterrupted(t *testing.T) {
	tmp := t.TempDir()
	demo := exec.Command(binary(t), "demo")
	demo.Env = append(os.Environ(), "TMPDIR="+tmp, "MILLRACE_HOME="+filepath.Join(tmp, "home"))
	log := &lockedBuffer{}
	demo.Stdout, demo.Stderr = log, log
	demo.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	require.NoError(t, demo.Start())
	waitFor(t, "the demo's job runs", func() (bool, string) { return strings.Contains(log.String(), "running"), log.String() })
	require.NoError(t, demo.Process.Signal(os.Interrupt))
	demo.Wait()
	require.Equal(t, 130, demo.ProcessState.ExitCode(), log.String())
	require.Empty(t, processesNaming(tmp))
	left, err := os.ReadDir(tmp)
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestDemo: the demo's whole path, and that it leaves neither process nor file.
func TestDemo(t *testing.T) {
	tmp := t.TempDir()
	demo := exec.Command(binary(t), "demo")
	demo.Env = append(os.Environ(), "TMPDIR="+tmp, "MILLRACE_HOME="+filepath.Join(tmp, "home"))
	log := &lockedBuffer{}
	demo.Stderr = log
	demo.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := demo.Output()
	require.NoError(t, err, "%s%s", out, log)
	for _, said := range []string{"20 most frequent", "s3://demo/output/", "map ", "reduce ", "commit "} {
		require.Contains(t, string(out), said)
	}
	require.Contains(t, log.String(), "queued")
	require.Contains(t, log.String(), "next: ")
	require.Empty(t, processesNaming(tmp))
	left, err := os.ReadDir(tmp)
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestKillObjectStore: a store that is away for a while fails nothing.
func TestKillObjectStore(t *testing.T) {
	c := startCluster(t, small...)
	in := newCorpus(1, 2<<20)
	in.put(t, c, "data")
	g := newGated(t)
	id := c.submit(append(g.args(t), "--output", "s3://data/o")...)
	c.waitJobUntil(id, "has some maps done and others running", func(o object) bool {
		return o.num("maps", "completed") > 0 && o.num("maps", "running") > 0
	})
	killed := false
	for _, p := range processesNaming(filepath.Join(c.dir, "object-store")) {
		var pid int
		var command, role string
		if n, _ := fmt.Sscan(p, &pid, &command, &role); n == 3 && role == "object-store" {
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
			killed = true
		}
	}
	require.True(t, killed)
	g.open(t, g.mapGate)
	g.open(t, g.reduceGate)
	job := c.waitJob(id)
	require.Equal(t, "COMPLETED", job.str("state"), job)
	require.Zero(t, job.num("attempts", "failed"))
	_, lines := readOutput(t, c, "data", "o/")
	requireCounts(t, in.counts, lines)
}

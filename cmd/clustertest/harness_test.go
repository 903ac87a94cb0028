//go:build cluster

package clustertest

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
	"millrace/pkg/ports"
)

// patience bounds every wait of these tests; it is no statement about speed.
const patience = 90 * time.Second

// cluster is one running `millrace dev`.
type cluster struct {
	t      testing.TB
	home   string // MILLRACE_HOME
	dir    string // dev's --dir
	flags  []string
	server string // https://127.0.0.1:PORT
	dev    *exec.Cmd
	ended  chan struct{} // closed when dev has exited
	log    *lockedBuffer
	env    []string // of dev and of every command
	bin    string   // of dev; "" = the one under test, which every command is of
}

// binary is the millrace under test.
func binary(t testing.TB) string {
	t.Helper()
	b := os.Getenv("MILLRACE_BIN")
	if b == "" {
		t.Fatal("MILLRACE_BIN is not set: run these tests with `make test-cluster`")
	}
	return b
}

// startCluster starts a dev cluster in folders of its own and stops it at the test's end.
func startCluster(t testing.TB, flags ...string) *cluster {
	t.Helper()
	return startClusterEnv(t, nil, flags...)
}

// startClusterEnv does so with further environment variables.
func startClusterEnv(t testing.TB, env []string, flags ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, home: t.TempDir(), dir: filepath.Join(t.TempDir(), "dev"), flags: flags, env: env}
	c.start()
	t.Cleanup(func() {
		c.stop()
		if t.Failed() {
			t.Logf("dev said:\n%s", c.log)
			c.logTails()
		}
	})
	return c
}

// start starts dev and waits until it is ready.
func (c *cluster) start() {
	c.t.Helper()
	c.log = &lockedBuffer{}
	c.dev = exec.Command(cmp.Or(c.bin, binary(c.t)), append([]string{"dev", "--dir", c.dir}, c.flags...)...)
	c.dev.Env = c.environ()
	c.dev.Stderr = c.log
	c.dev.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := c.dev.StdoutPipe()
	require.NoError(c.t, err)
	require.NoError(c.t, c.dev.Start())
	ready := make(chan string, 1)
	c.ended = make(chan struct{})
	go func() {
		defer close(c.ended)
		for s := bufio.NewScanner(out); s.Scan(); {
			if url, ok := strings.CutPrefix(s.Text(), "ready: "); ok {
				ready <- url
			}
		}
		c.dev.Wait()
	}()
	select {
	case c.server = <-ready:
	case <-c.ended:
		c.t.Fatalf("dev ended before it was ready:\n%s", c.log)
	case <-time.After(patience):
		c.dev.Process.Kill()
		c.t.Fatalf("dev was not ready after %v:\n%s", patience, c.log)
	}
}

// stop ends dev with Ctrl-C and checks that nothing of it is left running.
func (c *cluster) stop() {
	c.t.Helper()
	select {
	case <-c.ended:
		return
	default:
	}
	c.dev.Process.Signal(os.Interrupt)
	select {
	case <-c.ended:
	case <-time.After(patience):
		c.dev.Process.Kill()
		c.t.Errorf("dev did not end after Ctrl-C:\n%s", c.log)
	}
	c.t.Helper()
	waitFor(c.t, "no process of the cluster is left", func() (bool, string) {
		left := processesNaming(c.dir)
		return len(left) == 0, strings.Join(left, "\n")
	})
}

func (c *cluster) environ() []string {
	env := []string{"MILLRACE_HOME=" + c.home, "PATH=" + os.Getenv("PATH"), "HOME=" + c.home, "TMPDIR=" + os.TempDir(),
		"GOCACHE=" + goEnv("GOCACHE"), "GOMODCACHE=" + goEnv("GOMODCACHE"), "GOFLAGS=" + os.Getenv("GOFLAGS"), "GOPROXY=" + goEnv("GOPROXY")}
	return append(env, c.env...)
}

var goEnv = func() func(string) string {
	var once sync.Once
	var all map[string]string
	return func(name string) string {
		once.Do(func() {
			out, err := exec.Command("go", "env", "-json").Output()
			if err == nil {
				err = json.Unmarshal(out, &all)
			}
			if err != nil {
				all = map[string]string{}
			}
		})
		return all[name]
	}
}()

// logTails shows the ends of the nodes' logs, for a failed test.
func (c *cluster) logTails() {
	logs, _ := filepath.Glob(filepath.Join(c.dir, "logs", "*.log"))
	for _, l := range logs {
		data, _ := os.ReadFile(l)
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		c.t.Logf("%s:\n%s", filepath.Base(l), strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
}

// result is what a command printed and how it ended.
type result struct {
	out, err string
	code     int
}

// try runs a command against the cluster.
func (c *cluster) try(args ...string) result {
	c.t.Helper()
	return c.tryIn(nil, args...)
}

// tryIn does so with standard input.
func (c *cluster) tryIn(stdin io.Reader, args ...string) result {
	c.t.Helper()
	return c.tryWith(binary(c.t), stdin, args...)
}

// tryWith does so with another binary.
func (c *cluster) tryWith(binary string, stdin io.Reader, args ...string) result {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = c.environ()
	cmd.Stdin = stdin
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatalf("run millrace %s: %v", strings.Join(args, " "), err)
	}
	return result{out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}

// mr runs a command that must succeed and returns its standard output.
func (c *cluster) mr(args ...string) string {
	c.t.Helper()
	r := c.try(args...)
	if r.code != 0 {
		c.t.Fatalf("millrace %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// object is a JSON object as printed.
type object map[string]any

func (o object) str(path ...string) string { s, _ := o.at(path...).(string); return s }
func (o object) num(path ...string) int64  { f, _ := o.at(path...).(float64); return int64(f) }
func (o object) at(path ...string) any {
	var v any = map[string]any(o)
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	return v
}

// json runs a command with --json that must succeed.
func (c *cluster) json(args ...string) object {
	c.t.Helper()
	var o object
	out := c.mr(append(args, "--json")...)
	require.NoError(c.t, json.Unmarshal([]byte(out), &o), out)
	return o
}

func (c *cluster) jsonList(args ...string) []object {
	c.t.Helper()
	var l []object
	out := c.mr(append(args, "--json")...)
	require.NoError(c.t, json.Unmarshal([]byte(out), &l), out)
	return l
}

// submit submits a job and returns its id.
func (c *cluster) submit(args ...string) string {
	c.t.Helper()
	return c.json(append([]string{"job", "submit"}, args...)...).str("id")
}

// waitJob waits until the job has ended and returns it; a master may still have to come.
func (c *cluster) waitJob(id string) object {
	c.t.Helper()
	var r result
	waitFor(c.t, "a master tells of job "+id, func() (bool, string) {
		r = c.try("job", "wait", id, "--json")
		return r.code != 3, r.err
	})
	var o object
	require.NoError(c.t, json.Unmarshal([]byte(r.out), &o), "job wait %s: %s%s", id, r.out, r.err)
	return o
}

// waitJobUntil waits until a condition holds of a job.
func (c *cluster) waitJobUntil(id, what string, ok func(object) bool) object {
	c.t.Helper()
	var last object
	waitFor(c.t, "job "+id+" "+what, func() (bool, string) {
		last = c.json("job", "show", id)
		return ok(last), fmt.Sprint(last)
	})
	return last
}

// nodes are those of a role that run now, in the order of their names.
func (c *cluster) nodes(role string) []object {
	c.t.Helper()
	var found []object
	for _, n := range c.jsonList("node", "list") {
		if n.str("role") == role && n.str("state") == "RUNNING" {
			found = append(found, n)
		}
	}
	return found
}

// node finds one by its place among those of its role, and waits for it: a node that this machine has held up may be lost for a moment.
func (c *cluster) node(role string, place int) (found object) {
	c.t.Helper()
	waitFor(c.t, fmt.Sprintf("%d nodes of role %s run", place+1, role), func() (bool, string) {
		nodes := c.nodes(role)
		if place < len(nodes) {
			found = nodes[place]
		}
		return found != nil, fmt.Sprint(nodes)
	})
	return found
}

// heldUp says whether a master's log has a line with the words, and after it a worker that came back: the one that the line names, if it names one. This
// machine has held the worker up for longer than a lease, so that what it had counted as lost.
func (c *cluster) heldUp(words string) bool {
	logs, _ := filepath.Glob(filepath.Join(c.dir, "logs", "master*.log"))
	node := regexp.MustCompile(`\bi-[0-9A-Za-z]+`)
	for _, path := range logs {
		data, _ := os.ReadFile(path)
		lines := strings.Split(string(data), "\n")
		for i, line := range lines {
			if strings.Contains(line, words) && slices.ContainsFunc(lines[i:], func(later string) bool {
				return strings.Contains(later, "worker connected") && strings.Contains(later, node.FindString(line))
			}) {
				return true
			}
		}
	}
	return false
}

// requireNoneLost: no attempt of a job was lost, but by a node that this machine has held up.
func (c *cluster) requireNoneLost(job object) {
	c.t.Helper()
	if job.num("attempts", "lost") == 0 || c.heldUp("nothing heard within the lease") {
		return
	}
	require.Fail(c.t, "running attempts are not lost", "%v\n%s", job, c.mr("job", "tasks", "--failed", job.str("id")))
}

// kill ends a node's process with SIGKILL.
func (c *cluster) kill(n object) {
	c.t.Helper()
	require.NotZero(c.t, n.num("pid"), n)
	require.NoError(c.t, syscall.Kill(int(n.num("pid")), syscall.SIGKILL))
}

// store is a client of the object store that the cluster uses.
func (c *cluster) store() objectstore.Store {
	c.t.Helper()
	var conf objectstore.Config
	for _, line := range strings.Split(c.mr("context", "env"), "\n") {
		name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		if !ok {
			continue
		}
		value = strings.Trim(value, `'"`)
		switch name {
		case "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL":
			conf.Endpoint = value
		case "AWS_ACCESS_KEY_ID":
			conf.AccessKey = value
		case "AWS_SECRET_ACCESS_KEY":
			conf.SecretKey = value
		}
	}
	s, err := objectstore.NewS3(conf)
	require.NoError(c.t, err)
	return s
}

// waitFor waits for a condition and prints the state when it gives up.
func waitFor(t testing.TB, what string, ok func() (bool, string)) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		done, state := ok()
		if done {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("gave up waiting: %s; last state:\n%s", what, state)
		}
	}
}

// processesNaming lists the live processes whose command line or environment contains s, this one aside.
func processesNaming(s string) []string {
	var found []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		if d == fmt.Sprintf("/proc/%d", os.Getpid()) {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		environ, _ := os.ReadFile(filepath.Join(d, "environ"))
		if len(cmdline) > 0 && (bytes.Contains(cmdline, []byte(s)) || bytes.Contains(environ, []byte(s))) {
			found = append(found, filepath.Base(d)+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return found
}

// running lists the live processes of this cluster's attempts that have one of the words in their command line: those whose
// working folder lies in the cluster's.
func (c *cluster) running(words ...string) (found []string) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		cwd, err := os.Readlink(filepath.Join(d, "cwd"))
		if err != nil || !strings.HasPrefix(cwd, c.dir+"/") {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		for _, w := range words {
			if strings.Contains(string(cmdline), w) {
				found = append(found, filepath.Base(d)+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
			}
		}
	}
	return found
}

// minio is one running MinIO.
type minio struct{ endpoint, key, secret string }

// freeAddress is one on loopback at which nothing listens. Its port lies below those that systems give to outgoing connections and to
// port 0, and those that dev takes, and is reserved for the test: it stays free until a store listens there, and while one is killed and
// started again.
func freeAddress(t testing.TB) string {
	t.Helper()
	var reserved ports.Reserved
	t.Cleanup(reserved.Close)
	port, err := reserved.Take(10000, 20000)
	require.NoError(t, err)
	return ports.Address(port)
}

// startMinIO starts a MinIO of its own for the test.
func startMinIO(t testing.TB) minio {
	t.Helper()
	return startMinIOAs(t, "millrace-test", "millrace-test-secret")
}

// startMinIOAs starts one with a key of the test's own.
func startMinIOAs(t testing.TB, key, secret string) minio {
	t.Helper()
	bin := os.Getenv("MILLRACE_MINIO")
	if bin == "" {
		t.Fatal("MILLRACE_MINIO is not set: run these tests with `make test-cluster`")
	}
	addr := freeAddress(t)
	m := minio{"http://" + addr, key, secret}
	cmd := exec.Command(bin, "server", "--quiet", "--address", addr, t.TempDir())
	cmd.Env = append(os.Environ(), "MINIO_ROOT_USER="+m.key, "MINIO_ROOT_PASSWORD="+m.secret, "MINIO_BROWSER=off")
	log := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	s, err := objectstore.NewS3(objectstore.Config{Endpoint: m.endpoint, AccessKey: m.key, SecretKey: m.secret})
	require.NoError(t, err)
	waitFor(t, "MinIO answers", func() (bool, string) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := s.ListBuckets(ctx)
		return err == nil, fmt.Sprint(err, log)
	})
	return m
}

func (m minio) environ() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + m.key, "AWS_SECRET_ACCESS_KEY=" + m.secret, "AWS_ENDPOINT_URL=" + m.endpoint}
}

// stores runs a test once over the embedded store and once over a real MinIO.
func stores(t *testing.T, flags []string, run func(t *testing.T, c *cluster)) {
	t.Run("embedded", func(t *testing.T) { run(t, startCluster(t, flags...)) })
	t.Run("minio", func(t *testing.T) {
		m := startMinIO(t)
		run(t, startClusterEnv(t, m.environ(), append([]string{"--s3", m.endpoint}, flags...)...))
	})
}

// lockedBuffer is a bytes.Buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// peakMemory is the most resident memory that a process had, in 10^6 bytes.
func peakMemory(b testing.TB, pid int) float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(b, err)
	for _, line := range strings.Split(string(data), "\n") {
		var kb int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kb); n == 1 {
			return float64(kb) * 1024 / 1e6
		}
	}
	return 0
}

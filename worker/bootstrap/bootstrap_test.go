package bootstrap

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"millrace/pkg/objectstore"
	"millrace/worker/command"
)

// node is a node with a runner, and a store with scripts.
type node struct {
	t     *testing.T
	store *objectstore.Memory
	r     *Runner
	dir   string
	kept  map[string]string

	mu   sync.Mutex
	told []Status
}

func newNode(t *testing.T) *node {
	n := &node{t: t, store: objectstore.NewMemory(), dir: filepath.Join(t.TempDir(), "bootstrap"), kept: map[string]string{}}
	require.NoError(t, n.store.MakeBucket(t.Context(), "scripts"))
	n.start()
	return n
}

// start is the beginning of a further life.
func (n *node) start() {
	n.r = New(Config{Dir: n.dir, Source: func() (Source, error) { return n.store, nil },
		Keep: func(_ context.Context, name string, f *os.File, size int64) error {
			data, err := io.ReadAll(f)
			n.kept[name] = string(data)
			require.Len(n.t, data, int(size))
			return err
		}})
	n.r.retry = time.Millisecond
	require.NoError(n.t, n.r.Open())
}

// script is an action whose script is in the store.
func (n *node) script(name, text string, args ...string) Action {
	n.t.Helper()
	_, err := n.store.Put(n.t.Context(), "scripts", name, strings.NewReader(text), int64(len(text)), objectstore.PutOptions{})
	require.NoError(n.t, err)
	sum := sha256.Sum256([]byte(text))
	return Action{URL: "s3://scripts/" + name, Args: args, SHA256: hex.EncodeToString(sum[:])}
}

func (n *node) run(digest string, actions ...Action) Status {
	n.t.Helper()
	n.r.Run(n.t.Context(), setOf(digest, actions...), n.tell)
	return n.r.Status()
}

func setOf(digest string, actions ...Action) Set {
	return Set{Digest: digest, Actions: actions, Env: command.Environ("MILLRACE_NODE_ROLE=core")}
}

func (n *node) tell(s Status) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = append(n.told, s)
}

func (n *node) output() string {
	n.t.Helper()
	var out bytes.Buffer
	require.NoError(n.t, n.r.Copy(n.t.Context(), &out, false))
	return out.String()
}

// runs counts how often scripts that say so have run.
func (n *node) counting() (line string, runs func() int) {
	file := filepath.Join(n.t.TempDir(), "runs")
	return "echo x >> " + file + "\n", func() int {
		data, err := os.ReadFile(file)
		if err != nil {
			return 0
		}
		return strings.Count(string(data), "x")
	}
}

func TestActionsRunInOrderOnce(t *testing.T) {
	n := newNode(t)
	count, runs := n.counting()
	set := []Action{
		n.script("first.sh", "#!/bin/sh\n"+count+"echo $0 $1 $2 | sed 's/.*script/script/'; echo role $MILLRACE_NODE_ROLE action $MILLRACE_BOOTSTRAP_ACTION\n", "a b", "c"),
		n.script("second", count+"echo no interpreter; pwd | sed 's/.*bootstrap/bootstrap/'; read x || echo no input >&2\n"),
	}
	require.ErrorIs(t, n.r.Copy(t.Context(), io.Discard, false), ErrNone)
	require.Equal(t, Status{Digest: "d1", State: Done, Of: 2}, n.run("d1", set...))
	require.Equal(t, "[bootstrap action 1 of 2: first.sh]\nscript-first.sh a b c\nrole core action 1\n[done]\n"+
		"[bootstrap action 2 of 2: second]\nno interpreter\nbootstrap/2/work\nno input\n[done]\n", n.output())
	require.Equal(t, []string{"runs bootstrap action 1 of 2 (first.sh)", "runs bootstrap action 2 of 2 (second)", ""},
		[]string{n.told[0].Problem(), n.told[1].Problem(), n.told[2].Problem()})
	require.Equal(t, n.output(), n.kept["1-first.sh.log"]+n.kept["2-second.log"])

	n.start()
	require.Equal(t, Status{Digest: "d1", State: Done, Of: 2}, n.run("d1", set...), "not again after a restart")
	require.Equal(t, 2, runs())
	require.Contains(t, n.output(), "no interpreter", "what they said is still there")

	require.Equal(t, Done, n.run("d2", set[1]).State, "another cluster's")
	require.Equal(t, 3, runs())
	require.NotContains(t, n.output(), "first.sh")
}

func TestScriptsThatCannotBe(t *testing.T) {
	n := newNode(t)
	changed := n.script("changed.sh", "echo one\n")
	n.script("changed.sh", "echo two\n")
	gone := n.script("gone.sh", "echo one\n")
	require.NoError(t, n.store.Delete(t.Context(), "scripts", "gone.sh"))
	elsewhere := gone
	elsewhere.URL = "s3://nowhere/gone.sh"
	hangs := n.script("hangs.sh", "echo I wait; sleep 1000\n")
	hangs.Timeout = 4 * time.Second
	for want, a := range map[string]Action{
		"(empty.sh) failed: it is empty":                        n.script("empty.sh", ""),
		"(blank.sh) failed: it is empty":                        n.script("blank.sh", "\n  \n"),
		`has lines that end with \r\n`:                          n.script("windows.sh", "#!/bin/sh\r\necho hello\r\n"),
		"the script is missing":                                 gone,
		"the script is missing: get s3://nowhere":               elsewhere,
		"is not the script any more that the cluster":           changed,
		"this node has no /nowhere/python -u, which is to":      n.script("odd.sh", "#!/nowhere/python -u\nprint(1)\n"),
		"(fails.sh) failed: exit code 3; it said last: oh | no": n.script("fails.sh", "echo oh; echo no >&2; exit 3\n"),
		"(silent.sh) failed: exit code 4":                       n.script("silent.sh", "exit 4\n"),
		"ended by SIGTERM":                                      n.script("ended.sh", "kill $$\n"),
		"it took longer than it may: 4s; it said last: I":       hangs,
		"is not of the form":                                    {URL: "http://x/y"},
	} {
		s := n.run(want, n.script("well.sh", "true\n"), a, n.script("never.sh", "echo never\n"))
		require.Equal(t, Failed, s.State, want)
		require.Equal(t, 2, s.Action, want)
		if want == "is not of the form" {
			require.NotEmpty(t, s.Reason)
			continue
		}
		require.Contains(t, s.Problem(), want)
		require.NotContains(t, n.output(), "never")
		require.Contains(t, s.Problem(), "bootstrap action 2 of 3 ("+a.named().Name+") failed: ")

		n.start()
		require.Equal(t, s, n.run(want), "what has failed stays so")
	}
}

// A store that is away for a while fails no node.
func TestAStoreThatComesBack(t *testing.T) {
	n := newNode(t)
	a := n.script("a.sh", "echo hello\n")
	asked := 0
	n.r.cfg.Source = func() (Source, error) {
		if asked++; asked < 4 {
			return nil, errors.New("the store does not answer")
		}
		return n.store, nil
	}
	require.Equal(t, Done, n.run("d", a).State)

	n = newNode(t)
	n.r.cfg.Source = func() (Source, error) { return nil, errors.New("the store does not answer") }
	a.Timeout = 50 * time.Millisecond
	require.Contains(t, n.run("d", a).Reason, "it took longer than it may: 50ms; the script could not be fetched: the store does not answer")
}

func TestADaemonKeepsNothing(t *testing.T) {
	n := newNode(t)
	pids := filepath.Join(t.TempDir(), "pid")
	s := n.run("d", n.script("daemon.sh", "setsid sh -c 'echo $$ > "+pids+"; exec sleep 1000' &\nwhile ! [ -s "+pids+" ]; do :; done; echo started\n"))
	require.Equal(t, Done, s.State)
	require.Contains(t, n.output(), "started\n")
	data, err := os.ReadFile(pids)
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	require.NoError(t, err)
	require.NoError(t, unix.Kill(pid, unix.SIGKILL), "it is there to stay")
}

func TestLongOutput(t *testing.T) {
	n := newNode(t)
	n.r.maxOutput = 1000
	require.Equal(t, Done, n.run("d", n.script("long.sh", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done\n")).State)
	out := n.output()
	require.Less(t, len(out), 1200)
	require.Contains(t, out, "line 0\nline 1\n")
	require.Contains(t, out, " bytes are left out here]\n")
	require.True(t, strings.HasSuffix(out, "line 1999\n[done]\n"), out)
}

// A script that is cut short by the node's end is run again, from its beginning; those before it are not.
func TestARestartInTheMiddle(t *testing.T) {
	n := newNode(t)
	count, runs := n.counting()
	gate := filepath.Join(t.TempDir(), "gate")
	set := []Action{n.script("one.sh", count), n.script("two.sh", count+"echo begun; [ -e "+gate+" ] || sleep 1000\n"), n.script("three.sh", count)}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() { defer close(over); n.r.Run(ctx, setOf("d", set...), n.tell) }()
	seen := &watched{seen: make(chan struct{}), what: "begun\n"}
	follow := make(chan error, 1)
	require.Eventually(t, func() bool { return runs() == 2 }, time.Minute, time.Millisecond)
	go func() { follow <- n.r.Copy(t.Context(), seen, true) }()
	<-seen.seen
	cancel()
	<-over
	require.NoError(t, <-follow, "who follows it is let go")
	require.Equal(t, Running, n.r.Status().State)

	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	n.start()
	require.Equal(t, Done, n.run("d", set...).State)
	require.Equal(t, 4, runs())
}

// Whatever keeps the folder from being read is the reason, whether there is an action to name or not.
func TestAFolderThatCannotBeUsed(t *testing.T) {
	for name, actions := range map[string][]Action{"none": nil, "one": {{Name: "a.sh", URL: "s3://scripts/a.sh"}}} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			require.NoError(t, os.WriteFile(n.dir, nil, 0o600))
			s := n.run("d", actions...)
			require.Equal(t, Failed, s.State)
			require.Equal(t, len(actions), s.Action)
			require.Contains(t, s.Reason, "not a directory")
		})
	}
}

// What a script had started when the node died at once is ended before the script runs again.
func TestLeftoversAreEnded(t *testing.T) {
	n := newNode(t)
	require.NoError(t, os.MkdirAll(n.dir, 0o700))
	token, err := markRunning(filepath.Join(n.dir, runningFile))
	require.NoError(t, err)
	ended := make(chan command.End, 1)
	go func() {
		ended <- command.Run(context.Background(), command.Command{Path: "/bin/sleep", Args: []string{"1000"}, Env: command.Environ(runVariable + "=" + token)})
	}()
	require.Eventually(t, func() bool { return carriers(token) == 1 }, time.Minute, time.Millisecond)
	require.Equal(t, Done, n.run("d", n.script("a.sh", "true\n")).State)
	require.Equal(t, "SIGKILL", (<-ended).Signal)
}

func carriers(token string) (n int) {
	paths, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, p := range paths {
		if env, err := os.ReadFile(p); err == nil && bytes.Contains(env, []byte(token)) {
			n++
		}
	}
	return n
}

// A full disk is named, whatever the script makes of it.
func TestAFullDisk(t *testing.T) {
	const small = "/dev/full"
	if _, err := os.Stat(small); err != nil {
		t.Skip("no /dev/full")
	}
	n := newNode(t)
	a := n.script("a.sh", "dd if=/dev/zero of=/dev/full count=1\n")
	s := n.run("d", a)
	require.Equal(t, Failed, s.State)
	require.Contains(t, s.Reason, "No space left on device")

	// The output's own disk: what it does not take is left out, and the reason still has the end.
	full, err := os.OpenFile(small, os.O_WRONLY, 0)
	require.NoError(t, err)
	o := &output{path: small, half: 100, file: full, changed: make(chan struct{})}
	fmt.Fprint(o, "said nevertheless\n")
	require.Equal(t, "said nevertheless", o.tail())
	require.ErrorIs(t, o.close("done"), unix.ENOSPC)
	require.Zero(t, o.size())
}

func TestDamagedMarksAreNamed(t *testing.T) {
	n := newNode(t)
	require.NoError(t, os.MkdirAll(n.dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(n.dir, marksFile), []byte("{"), 0o600))
	require.ErrorContains(t, n.r.Open(), marksFile)
}

func TestNamesOfFiles(t *testing.T) {
	for name, want := range map[string]string{"setup.sh": "setup.sh", "../x y": "_x_y", "": "", strings.Repeat("a", 100): strings.Repeat("a", 64)} {
		require.Equal(t, want, fileName(name))
	}
}

// watched waits for a piece of text.
type watched struct {
	text, what string
	seen       chan struct{}
}

func (w *watched) Write(p []byte) (int, error) {
	had := strings.Contains(w.text, w.what)
	if w.text += string(p); !had && strings.Contains(w.text, w.what) {
		close(w.seen)
	}
	return len(p), nil
}

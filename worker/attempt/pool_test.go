package attempt

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"millrace/pkg/api"
)

type fixture struct {
	t    *testing.T
	dir  string
	pool *Pool
	logs *Logs
}

func newFixture(t *testing.T, change ...func(*Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: t.TempDir()}
	f.logs = NewLogs(filepath.Join(f.dir, "logs"), 64<<10)
	c := Config{Dir: filepath.Join(f.dir, "attempts"), Executable: os.Args[0], Logs: f.logs,
		SpareAfter: time.Millisecond, Idle: time.Minute, Log: zaptest.NewLogger(t)}
	for _, ch := range change {
		ch(&c)
	}
	p, err := New(c)
	require.NoError(t, err)
	require.NoError(t, p.Open(context.Background()))
	t.Cleanup(func() {
		require.NoError(t, p.Close())
		require.NoError(t, p.Close())
		require.Empty(t, (&tree{token: p.prefix, prefix: true}).members(), "processes are left")
		require.Eventually(t, func() bool { return len(zombies()) == 0 }, time.Minute, time.Millisecond, "zombies are left")
	})
	f.pool = p
	return f
}

func zombies() (out []process) {
	for _, p := range processes() {
		if p.state == 'Z' && p.ppid == os.Getpid() {
			out = append(out, p)
		}
	}
	return out
}

func (f *fixture) lease(job, name string, args ...string) *api.ChildLease {
	dir := filepath.Join(f.dir, "work", name)
	require.NoError(f.t, os.MkdirAll(dir, 0o700))
	return &api.ChildLease{Job: job, Attempt: name, WorkDir: dir, Kind: api.TaskKind_TASK_KIND_MAP,
		Program: &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_STREAMING, Args: args}}
}

func (f *fixture) run(job, name string, args ...string) *api.AttemptResult {
	f.t.Helper()
	gone := make(chan struct{})
	r, _ := f.pool.Run(context.Background(), Attempt{Lease: f.lease(job, name, args...), Gone: func() { close(gone) }})
	<-gone
	return r
}

func TestChildrenAreReusedForAJobUntilOneFails(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.NoSpare = true })
	pid := func(r *api.AttemptResult) int32 { return r.OutputParts }
	first := f.run("s-1", "a1")
	require.Nil(t, first.Failure)
	idle := func() bool { f.pool.mu.Lock(); defer f.pool.mu.Unlock(); return len(f.pool.idle) > 0 }
	require.Eventually(t, idle, time.Minute, time.Millisecond)
	second := f.run("s-1", "a2")
	require.Equal(t, pid(first), pid(second), "same job, same child")
	require.EqualValues(t, 2, second.OutputRecords)
	require.Eventually(t, idle, time.Minute, time.Millisecond)
	other := f.run("s-2", "b1")
	require.NotEqual(t, pid(first), pid(other), "another job never shares a child")

	failed := f.run("s-1", "a3", "fail=no good")
	require.Equal(t, pid(first), pid(failed))
	require.Equal(t, "no good", failed.Failure.Message)
	require.NotEqual(t, pid(first), pid(f.run("s-1", "a4")), "a failed attempt's child is not used again")
	once := f.run("s-3", "c1", "once")
	require.NotEqual(t, pid(once), pid(f.run("s-3", "c2")), "a child that says so is not used again")
}

// A program of before cannot be asked for what it does not know of, and says so itself in no way that helps.
func TestAProgramThatKnowsNothingOfFiles(t *testing.T) {
	f := newFixture(t)
	for _, change := range []func(*api.ChildLease){
		func(l *api.ChildLease) { l.Output = &api.Output{Bucket: "hdfs://j-1"} },
		func(l *api.ChildLease) {
			l.Split = &api.Split{Pieces: []*api.Piece{{Bucket: "b"}, {Bucket: "hdfs://j-1"}}}
		},
	} {
		l := f.lease("s-1", "a1")
		change(l)
		r, _ := f.pool.Run(context.Background(), Attempt{Lease: l})
		require.Equal(t, api.FailureKind_FAILURE_KIND_PROGRAM, r.Failure.GetKind())
		require.Contains(t, r.Failure.Message, "attempt protocol 1) that cannot reach clusters' files (hdfs://): build it again")
	}
	require.Nil(t, f.run("s-1", "a2").Failure)
}

func TestTheSpareChildTakesTheFirstLeaseOfAJob(t *testing.T) {
	f := newFixture(t)
	spare := func() int {
		f.pool.mu.Lock()
		defer f.pool.mu.Unlock()
		if f.pool.spare == nil {
			return 0
		}
		return f.pool.spare.pid()
	}
	want := spare()
	require.NotZero(t, want)
	require.EqualValues(t, want, f.run("s-1", "a1").OutputParts)
	require.Eventually(t, func() bool { return spare() != 0 && spare() != want }, time.Minute, time.Millisecond)

	t.Run("one that has died meanwhile costs nothing", func(t *testing.T) {
		c := f.pool.spare
		require.NoError(t, unix.Kill(c.pid(), unix.SIGKILL))
		<-c.exited
		require.Nil(t, f.run("s-2", "b1").Failure)
	})
}

func TestIdleChildrenEnd(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Idle = 20 * time.Millisecond; c.NoSpare = true })
	require.Nil(t, f.run("s-1", "a1").Failure)
	none := func() bool { f.pool.mu.Lock(); defer f.pool.mu.Unlock(); return len(f.pool.live) == 0 }
	require.Eventually(t, none, time.Minute, time.Millisecond)
}

func TestHowAChildEndsIsSaid(t *testing.T) {
	for name, c := range map[string]struct {
		args    []string
		code    int32
		signal  string
		message string
	}{
		"exit":    {[]string{"say=last words\n", "exit=3"}, 3, "", "exited with code 3"},
		"zero":    {[]string{"say=last words\n", "exit=0"}, 0, "", "exited with code 0 before"},
		"signal":  {[]string{"say=last words\n", "signal=9"}, 137, "SIGKILL", "out of memory?"},
		"term":    {[]string{"say=last words\n", "signal=15"}, 143, "SIGTERM", "SIGTERM"},
		"close":   {[]string{"say=last words\n", "close"}, 0, "", "closed its socket"},
		"hang":    {[]string{"say=last words\n", "hang"}, 0, "", "said nothing for"},
		"fail":    {[]string{"say=last words\n", "fail=bad record"}, 0, "", "bad record"},
		"killed":  {[]string{"say=last words\n", "killed"}, 143, "SIGTERM", "which this node had not sent"},
		"writer":  {[]string{"grandchild=x", "say=last words\n", "exit=5"}, 5, "", "code 5"},
		"orphans": {[]string{"grandchild=x", "grandchild=y", "say=last words\n", "signal=9"}, 137, "SIGKILL", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(f *Config) {
				if name == "hang" {
					f.Silence = 2 * time.Second
				}
			})
			got := f.run("s-"+name, name, c.args...).Failure
			require.NotNil(t, got)
			require.Equal(t, api.FailureKind_FAILURE_KIND_PROGRAM, got.Kind)
			require.Equal(t, c.code, got.ExitCode, got.Message)
			require.Equal(t, c.signal, got.Signal)
			require.Contains(t, got.Message, c.message)
			require.True(t, strings.HasPrefix(got.StderrTail, "last words"), got.StderrTail)
		})
	}
}

func TestAChildThatIsNoMatchIsAFailure(t *testing.T) {
	for mode, message := range map[string]string{"newer": "it speaks the attempt protocol from 7 on (SDK fake), and this worker (v9) up to 2: upgrade the workers",
		"older": "it speaks the attempt protocol up to 0 (SDK fake), and this worker (v9) from 1 on: build the program again", "crash": "code 4", "mute": "did not begin the attempt protocol within 1s"} {
		f := newFixture(t, func(c *Config) {
			c.Env, c.Hello, c.Version = append(os.Environ(), "FAKE_HELLO="+mode), time.Minute, "v9"
			if mode == "mute" {
				c.Hello = time.Second
			}
		})
		got := f.run("s-1", "a1").Failure
		require.Contains(t, got.GetMessage(), message)
		if mode == "crash" {
			require.Equal(t, "cannot even start\n", got.StderrTail)
			require.Equal(t, api.FailureKind_FAILURE_KIND_NODE, got.Kind)
		}
	}
	f := newFixture(t)
	text := filepath.Join(f.dir, "program")
	require.NoError(t, os.WriteFile(text, []byte("no executable at all"), 0o700))
	r, _ := f.pool.Run(context.Background(), Attempt{Lease: f.lease("s-1", "a1"), Executable: text})
	require.Equal(t, api.FailureKind_FAILURE_KIND_PROGRAM, r.Failure.GetKind())
	require.Contains(t, r.Failure.Message, "exec format error")
}

func TestKillEndsTheWholeTreeInTime(t *testing.T) {
	for name, args := range map[string][]string{
		"polite": {"grandchild=bare", "grandchild=g", "progress=1", "polite"},
		"hang":   {"grandchild=g", "progress=1", "hang"},
		"deaf":   {"grandchild=g", "grandchild=h", "progress=1", "deaf"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			ctx, cancel := context.WithCancelCause(context.Background())
			running, gone := make(chan struct{}, 1), make(chan struct{})
			lease := f.lease("s-1", "a1", args...)
			var begun time.Time
			go func() {
				<-running
				if name == "deaf" {
					for _, err := os.Stat(filepath.Join(lease.WorkDir, "deaf")); err != nil; _, err = os.Stat(filepath.Join(lease.WorkDir, "deaf")) {
						time.Sleep(time.Millisecond)
					}
				}
				begun = time.Now()
				cancel(errors.New("the job was cancelled"))
			}()
			r, _ := f.pool.Run(ctx, Attempt{Lease: lease, Gone: func() { close(gone) },
				Progress: func(*api.ChildProgress) { running <- struct{}{} }})
			<-gone
			require.Less(t, time.Since(begun), time.Minute)
			require.Equal(t, api.FailureKind_FAILURE_KIND_KILLED, r.Failure.GetKind())
			require.Equal(t, "the job was cancelled", r.Failure.Message)
			for _, g := range []string{"g", "h", "bare"} {
				if pid, err := strconv.Atoi(waitFile(filepath.Join(lease.WorkDir, g))); err == nil {
					require.ErrorIs(t, unix.Kill(pid, 0), unix.ESRCH, "a grandchild lives")
				}
			}
			f.pool.mu.Lock()
			require.Empty(t, f.pool.idle)
			f.pool.mu.Unlock()
		})
	}
}

func TestWhatAnAttemptLeavesRunningEndsBeforeTheNext(t *testing.T) {
	f := newFixture(t)
	lease := f.lease("s-1", "a1", "grandchild=g")
	gone := make(chan struct{})
	r, _ := f.pool.Run(context.Background(), Attempt{Lease: lease, Gone: func() { close(gone) }})
	require.Nil(t, r.Failure)
	<-gone
	pid, err := strconv.Atoi(waitFile(filepath.Join(lease.WorkDir, "g")))
	require.NoError(t, err)
	p, alive := readStat(pid)
	require.True(t, !alive || p.state == 'Z', "the grandchild lives")
}

func TestAProcessThatNeverStopsWritingHoldsNothingUp(t *testing.T) {
	f := newFixture(t)
	for _, name := range []string{"a1", "a2"} {
		gone := make(chan struct{})
		r, _ := f.pool.Run(context.Background(), Attempt{Lease: f.lease("s-1", name, "grandchild=chatty1", "grandchild=chatty2", "grandchild=chatty3", "grandchild=chatty4"), Gone: func() { close(gone) }})
		require.Nil(t, r.Failure)
		<-gone
	}
}

func TestAChildThatTakesNothingIsEnded(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Write = time.Second })
	segments := make(chan []*api.ChildSegment)
	frozen, ended := make(chan struct{}), make(chan struct{})
	go func() {
		<-frozen // it has its lease, and takes nothing more
		for {
			select { // more than a socket holds
			case segments <- []*api.ChildSegment{{Path: strings.Repeat("x", 1<<20)}}:
			case <-ended:
				return
			}
		}
	}()
	r, _ := f.pool.Run(context.Background(), Attempt{Lease: f.lease("s-1", "a1", "frozen"), Segments: segments, Progress: func(*api.ChildProgress) { close(frozen) }})
	close(ended)
	require.Contains(t, r.Failure.GetMessage(), "closed its socket")
}

func TestLogsAreSwitchedAtTheBordersOfAttempts(t *testing.T) {
	f := newFixture(t)
	for i, text := range []string{"one\n", "two\n", "", "four\n"} {
		name := "a" + strconv.Itoa(i)
		r, out := f.pool.Run(context.Background(), Attempt{Lease: f.lease("s-1", name, "say="+text)})
		require.Nil(t, r.Failure)
		require.EqualValues(t, len(text), out.Size())
		require.Equal(t, text, waitFile(f.logs.Path("s-1", name)))
	}
}

func TestALongLogIsCutAndItsTailKept(t *testing.T) {
	f := newFixture(t)
	got := f.run("s-1", "a1", "flood=200000", "say=\nthe end\n", "exit=1")
	text := waitFile(f.logs.Path("s-1", "a1"))
	require.Less(t, len(text), 65<<10)
	require.Contains(t, text, "the log is cut here, at 65536 bytes")
	require.LessOrEqual(t, len(got.Failure.StderrTail), 1024)
	require.True(t, strings.HasSuffix(got.Failure.StderrTail, "the end\n"))
}

func TestSegmentsAndProgressPass(t *testing.T) {
	f := newFixture(t)
	segments := make(chan []*api.ChildSegment)
	go func() {
		for i := range 10 {
			segments <- []*api.ChildSegment{{Map: int32(i), Length: 7}}
		}
	}()
	var progress []int64
	r, _ := f.pool.Run(context.Background(), Attempt{Lease: f.lease("s-1", "a1", "progress=5", "segments=10", "progress=6"),
		Segments: segments, Progress: func(p *api.ChildProgress) { progress = append(progress, p.BytesDone) }})
	require.Nil(t, r.Failure)
	require.EqualValues(t, 70, r.OutputBytes)
	require.Equal(t, []int64{5, 6}, progress)
}

func TestANewLifeEndsWhatTheFormerLeft(t *testing.T) {
	f := newFixture(t)
	lease := f.lease("s-1", "a1", "grandchild=g", "progress=1", "hang")
	running := make(chan struct{}, 1)
	done := make(chan *api.AttemptResult, 1)
	go func() {
		r, _ := f.pool.Run(context.Background(), Attempt{Lease: lease, Progress: func(*api.ChildProgress) { running <- struct{}{} }})
		done <- r
	}()
	<-running
	left := filepath.Join(f.dir, "attempts", "a1")
	require.NoError(t, os.MkdirAll(left, 0o700))

	again, err := New(Config{Dir: f.pool.cfg.Dir, Executable: os.Args[0], Logs: f.logs})
	require.NoError(t, err)
	require.NoError(t, again.Open(context.Background()))
	defer again.Close()
	require.NoDirExists(t, left)
	require.NotNil(t, (<-done).Failure)
	require.Equal(t, f.pool.prefix, again.prefix)
	require.Eventually(t, func() bool { return len(zombies()) == 0 }, time.Minute, 10*time.Millisecond, "orphans are reaped")
}

func TestCloseEndsRunningAttempts(t *testing.T) {
	f := newFixture(t)
	running, done := make(chan struct{}, 1), make(chan *api.AttemptResult, 1)
	go func() {
		r, _ := f.pool.Run(context.Background(), Attempt{Lease: f.lease("s-1", "a1", "progress=1", "hang"),
			Progress: func(*api.ChildProgress) { running <- struct{}{} }})
		done <- r
	}()
	<-running
	require.NoError(t, f.pool.Close())
	require.NotNil(t, (<-done).Failure)
	require.NotNil(t, f.run("s-1", "a2").Failure, "closed for good")
}

func TestChildrenAreNicedAndKnowNothingOfTheNode(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Nice = 7 })
	pid := int(f.run("s-1", "a1").OutputParts)
	own, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	require.NoError(t, err)
	tasks, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
	require.NoError(t, err)
	for _, task := range tasks { // every thread of it
		tid, _ := strconv.Atoi(task.Name())
		got, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
		require.NoError(t, err)
		require.Equal(t, min(20-own+7, 19), 20-got)
	}
}

func TestALogCanBeFollowed(t *testing.T) {
	logs := NewLogs(t.TempDir(), 0)
	log := logs.create("s-1", "a1")
	require.ErrorIs(t, logs.Copy(context.Background(), &bytes.Buffer{}, "s-1", "a1", false), ErrNoLog)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	done := make(chan error, 1)
	go func() {
		err := logs.Copy(context.Background(), w, "s-1", "a1", true)
		w.Close()
		done <- err
	}()
	for _, s := range []string{"one", "two", "six"} {
		_, _ = log.Write([]byte(s))
		got := make([]byte, 3)
		_, err := r.Read(got)
		require.NoError(t, err)
		require.Equal(t, s, string(got))
	}
	require.NoError(t, log.Close())
	require.NoError(t, <-done)
	require.NoError(t, logs.Copy(context.Background(), &bytes.Buffer{}, "s-1", "a1", true))
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (a) b) c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 5 9"))
	f.Add([]byte("42 () Z 1"))
	f.Fuzz(func(t *testing.T, b []byte) { parseStat(b) })
}

func TestStatAndEnvironAreReadAsTheyAre(t *testing.T) {
	p, ok := parseStat([]byte("42 (a) b) c) S 1 40 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 5 9"))
	require.True(t, ok)
	require.Equal(t, process{pid: 42, ppid: 1, pgid: 40, state: 'S', start: 777, cpu: 26 * clockTick, memory: 9 * pageSize}, p)
	env := []byte("A=1\x00" + EnvToken + "=abc-12\x00B=2\x00")
	require.True(t, hasToken(env, "abc-12", false))
	require.False(t, hasToken(env, "abc-1", false), "child 1 is not child 12")
	require.True(t, hasToken(env, "abc-", true))
}

// A copy of a node's folder that is started ends nothing of the original's.
func TestACopiedFolderHasAMarkOfItsOwn(t *testing.T) {
	dir, copied := t.TempDir(), t.TempDir()
	file := filepath.Join(dir, tokenFile)
	first, err := tokenPrefix(file)
	require.NoError(t, err)
	again, err := tokenPrefix(file)
	require.NoError(t, err)
	require.Equal(t, first, again)
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(copied, tokenFile), data, 0o600))
	other, err := tokenPrefix(filepath.Join(copied, tokenFile))
	require.NoError(t, err)
	require.NotEqual(t, first, other)
	_, err = tokenPrefix(filepath.Join(dir, "nowhere", tokenFile))
	require.ErrorContains(t, err, "nowhere")
}

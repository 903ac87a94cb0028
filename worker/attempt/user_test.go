package attempt

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"millrace/pkg/api"
)

const anotherUser = "nobody"

// asUser has attempts run as another user, on a node whose folder he can get to, and no further.
func asUser(t *testing.T, change ...func(*Config)) (*fixture, *User) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("attempts as another user need root")
	}
	u, err := LookupUser(anotherUser)
	require.NoError(t, err)
	require.NoError(t, os.Chmod(filepath.Dir(t.TempDir()), 0o711)) // the test's own folder, made 0700
	f := newFixture(t, append(change, func(c *Config) {
		require.NoError(t, os.Chmod(filepath.Dir(c.Dir), 0o700))
		require.NoError(t, u.Passage(filepath.Dir(c.Dir)))
		c.User = u
	})...)
	return f, u
}

// userLease is a lease whose directory is where a worker puts it.
func (f *fixture) userLease(job, name string, args ...string) *api.ChildLease {
	dir := filepath.Join(f.pool.cfg.Dir, name)
	require.NoError(f.t, os.MkdirAll(dir, 0o700))
	l := f.lease(job, name, args...)
	l.WorkDir = dir
	return l
}

func (f *fixture) said(job, attempt string) string {
	data, err := os.ReadFile(f.logs.Path(job, attempt))
	require.NoError(f.t, err)
	return string(data)
}

// What an attempt as another user can reach of its node: its own directory.
func TestAnAttemptOfAnotherUserIsShutOut(t *testing.T) {
	f, u := asUser(t)
	put := func(mode os.FileMode, path ...string) {
		full := filepath.Join(append([]string{f.dir}, path...)...)
		require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o700))
		require.NoError(t, os.WriteFile(full, []byte("secret"), 0o600))
		require.NoError(t, os.Chmod(full, mode))
	}
	put(0o600, "pki", "node.key")
	put(0o644, "blocks", "b-1") // the folder's mode is enough
	put(0o600, "node.json")

	// Another job's attempt, on the same node, as the same user.
	inside, ctx := make(chan struct{}, 1), context.Background()
	ctx, stop := context.WithCancel(ctx)
	other := f.userLease("s-2", "b1", "shell=umask 0; echo mine > mine; mkdir sub; echo mine > sub/mine", "progress=1", "hang")
	ended := make(chan *api.AttemptResult, 1)
	go func() {
		r, _ := f.pool.Run(ctx, Attempt{Lease: other, Progress: func(*api.ChildProgress) { inside <- struct{}{} }})
		ended <- r
	}()
	<-inside
	mine := filepath.Join(other.WorkDir, "mine")
	require.FileExists(t, mine)
	var neighbour *child
	f.pool.mu.Lock()
	for c := range f.pool.live {
		if c.job == "s-2" {
			neighbour = c
		}
	}
	f.pool.mu.Unlock()

	probe := fmt.Sprintf(`
try() { if "$@" > /dev/null 2>&1; then echo "OPEN: $*" >&2; fi; }
node=%s worker=%d neighbour=%d other=%s
try ls $node
try ls $node/attempts
for file in $node/pki/node.key $node/node.json $node/blocks/b-1 $node/attempts/.token $other/mine $other/sub/mine; do try cat $file; try sh -c "echo x >> $file"; done
try touch $node/x; try touch $node/attempts/x; try touch $other/x; try mv $node/attempts/a1 $node/attempts/a2; try ln $other/mine stolen; try ls $other
for pid in $worker $neighbour; do
	for what in environ maps io auxv stack; do try cat /proc/$pid/$what; done
	for what in cwd root exe fd/0; do try readlink /proc/$pid/$what; done
	try ls /proc/$pid/cwd/; try ls /proc/$pid/root/; try cat /proc/$pid/fd/0
	try dd if=/proc/$pid/mem bs=1 count=1 skip=4194304
done
for signal in 0 TERM KILL STOP; do try kill -$signal $worker; done
grep -q 'NoNewPrivs:.*1' /proc/self/status || echo "OPEN: new privileges" >&2
id >&2; ls -ld . >&2; echo own > own && cat own >&2
`, f.dir, os.Getpid(), neighbour.pid(), other.WorkDir)
	hostile := f.userLease("s-1", "a1", fmt.Sprintf("ptrace=%d", os.Getpid()), fmt.Sprintf("ptrace=%d", neighbour.pid()), "shell="+probe)
	r, _ := f.pool.Run(t.Context(), Attempt{Lease: hostile})
	said := f.said("s-1", "a1")
	require.Nil(t, r.Failure, "%v: %s", r.Failure, said)
	require.NotContains(t, said, "OPEN")
	require.Contains(t, said, fmt.Sprintf("uid=%d(%s)", u.uid, anotherUser))
	require.Contains(t, said, "drwxrwx--T")
	require.Contains(t, said, "own\n", "its own directory is its own")
	stop()
	require.Equal(t, api.FailureKind_FAILURE_KIND_KILLED, (<-ended).Failure.GetKind(), "the neighbour has come to no harm")
}

// Processes of an attempt are found and ended by their group, whatever else they shed, and so is what they leave on the disk.
func TestWhatAnAttemptOfAnotherUserLeavesIsEnded(t *testing.T) {
	f, u := asUser(t)
	l := f.userLease("s-1", "a1", "shell="+`
mkdir -p deep/er && touch deep/er/file deep/own && chmod 0 deep/er deep && ln -s /etc/passwd link && mkfifo pipe && chmod 0 pipe
env -i setsid sleep 777 > /dev/null 2>&1 &
env -i setsid sh -c 'sleep 777 & sleep 777' > /dev/null 2>&1 &
`)
	gone := make(chan struct{})
	r, _ := f.pool.Run(t.Context(), Attempt{Lease: l, Gone: func() { close(gone) }})
	require.Nil(t, r.Failure, "%v", r.Failure)
	<-gone
	for _, p := range processes() {
		if f.pool.ids.hold(p.pid) && p.state != 'Z' { // the spare child is one
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
			require.NotContains(t, string(line), "777")
		}
	}
	require.NoError(t, RemoveAll(l.WorkDir))
	require.NoDirExists(t, l.WorkDir)
	require.FileExists(t, "/etc/passwd")

	// A former life's, too.
	left := exec.Command("sleep", "777")
	left.SysProcAttr = &unix.SysProcAttr{Credential: u.credential(f.pool.ids.first + 7), Setsid: true}
	left.Env = []string{"PATH=" + os.Getenv("PATH"), EnvToken + "=another's"}
	require.NoError(t, left.Start())
	defer left.Process.Kill() // should the test end before it is
	mine := &ward{tree: tree{token: "mine", root: 1 << 30, gids: gids{f.pool.ids.first + 7, 1}}}
	another := &ward{tree: tree{token: "another's", root: 1<<30 + 1, gids: gids{f.pool.ids.first + 8, 1}}}
	of := belonging(processes(), []*ward{mine, another})
	require.Len(t, of[mine], 1, "whatever it says in its environment")
	require.Equal(t, left.Process.Pid, of[mine][0].pid)
	require.Empty(t, of[another])
	require.NoError(t, f.pool.Close())
	again, err := New(f.pool.cfg)
	require.NoError(t, err)
	require.NoError(t, again.Open(context.Background()))
	defer again.Close()
	require.Error(t, left.Wait())
}

func TestShippedFilesAreTheUsers(t *testing.T) {
	f, u := asUser(t)
	l := f.userLease("s-1", "a1", "shell=echo more >> file && echo more >> sub/file && ! echo more 2>/dev/null >> linked && ./linked && ! rm -f linked 2>/dev/null; echo $? >&2; cat .shuffle/spool >&2; "+
		"! mv .shuffle away 2>/dev/null; echo $? >&2; ! touch .shuffle/x 2>/dev/null; echo $? >&2")
	cached := filepath.Join(f.dir, "cached")
	require.NoError(t, os.WriteFile(cached, []byte("#!/bin/sh\n"), 0o555))
	require.NoError(t, os.Link(cached, filepath.Join(l.WorkDir, "linked")))
	require.NoError(t, os.WriteFile(filepath.Join(l.WorkDir, "file"), nil, 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(l.WorkDir, "sub"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(l.WorkDir, "sub", "file"), nil, 0o600))
	require.NoError(t, u.Own(l.WorkDir))
	spool := filepath.Join(l.WorkDir, ".shuffle")
	require.NoError(t, os.Mkdir(spool, 0o700))
	require.NoError(t, u.Show(spool))
	require.NoError(t, os.WriteFile(filepath.Join(spool, "spool"), []byte("segments\n"), 0o640))
	r, _ := f.pool.Run(t.Context(), Attempt{Lease: l})
	require.Equal(t, "0\nsegments\n0\n0\n", f.said("s-1", "a1"))
	require.Nil(t, r.Failure, "%v", r.Failure)
	var st unix.Stat_t
	require.NoError(t, unix.Stat(cached, &st))
	require.Zero(t, st.Uid, "the cached file is still the node's")
}

// A child gets four descriptors and what of the environment is nobody's secret.
func TestWhatAChildIsGiven(t *testing.T) {
	t.Setenv("MILLRACE_TOKEN", "secret-1")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret-2")
	t.Setenv("SOME_PASSWORD", "secret-3")
	t.Setenv("LC_ALL", "C.UTF-8")
	r, w, err := os.Pipe() // as somebody may have left it to this process
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	for _, fd := range []uintptr{r.Fd(), w.Fd()} {
		_, err := unix.FcntlInt(fd, unix.F_SETFD, 0)
		require.NoError(t, err)
	}
	f := newFixture(t)
	require.Nil(t, f.run("s-1", "a1", "self").Failure)
	said := f.said("s-1", "a1")
	require.NotContains(t, said, "secret")
	require.Contains(t, said, "LC_ALL=C.UTF-8")
	require.Contains(t, said, `cmdline "`+os.Args[0]+`\x00attempt\x00"`)
	var fds []string
	for line := range strings.Lines(said) {
		_, to, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "fd "), " ")
		if !strings.HasPrefix(line, "fd ") || to == "" || strings.Contains(to, "anon_inode") || strings.HasPrefix(to, "/sys/fs/cgroup") {
			continue // what the list is read by, and what Go's runtime has opened
		}
		fds = append(fds, strings.TrimSpace(line))
	}
	slices.Sort(fds)
	require.Len(t, fds, 4, said)
	require.Equal(t, "fd 0 /dev/null", fds[0])
	require.Contains(t, fds[1], "1 pipe:")
	require.Contains(t, fds[2], "2 pipe:")
	require.Contains(t, fds[3], "socket:")

	u := &User{name: "somebody", home: "/nowhere"}
	require.Equal(t, []string{"PATH=/bin", "HOME=/nowhere", "USER=somebody", "LOGNAME=somebody"},
		childEnv([]string{"PATH=/bin", "HOME=/root", "USER=root", "TMPDIR=/root/tmp", "X=y"}, u))
}

func TestWhoCannotBeTheUser(t *testing.T) {
	u, err := LookupUser("")
	require.NoError(t, err)
	require.Nil(t, u)
	require.Equal(t, os.Geteuid(), u.ID())
	if os.Geteuid() != 0 {
		_, err = LookupUser(anotherUser)
		require.ErrorContains(t, err, "has to run as root")
		return
	}
	_, err = LookupUser("no-such-user")
	require.ErrorContains(t, err, "there is none of that name on this machine: make it (useradd --system --no-create-home --shell /usr/sbin/nologin no-such-user)")
	_, err = LookupUser("root")
	require.ErrorContains(t, err, "it is root")

	// Somebody who cannot get to where attempts run, or who may not start what they run in.
	u, err = LookupUser(anotherUser)
	require.NoError(t, err)
	closed := filepath.Join(t.TempDir(), "closed")
	require.NoError(t, os.Chmod(filepath.Dir(t.TempDir()), 0o711))
	require.NoError(t, os.MkdirAll(closed, 0o700))
	open := func(executable string) error {
		p, err := New(Config{Dir: filepath.Join(closed, "attempts"), Executable: executable, User: u, Logs: NewLogs(t.TempDir(), 0)})
		require.NoError(t, err)
		defer p.Close()
		return p.Open(t.Context())
	}
	require.ErrorContains(t, open(os.Args[0]), "user nobody cannot get to "+closed+"/attempts, where attempts run: "+closed+" (drwx------) is closed to it")
	secret := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(secret, []byte("#!/bin/sh\n"), 0o711))
	require.ErrorContains(t, open(secret), "user nobody may not read and start "+secret+" (mode -rwx--x--x)")
}

// Whether attempts could run as a user is found out by starting a program so.
func TestAUserIsTried(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("attempts as another user need root")
	}
	u, err := LookupUser(anotherUser)
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o711))
	program := filepath.Join(dir, "program")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\n[ \"$(id -un) $(id -g) $1\" = \""+anotherUser+" 1879048192 word\" ] && pwd && ! ls\n"), 0o755))
	node := filepath.Join(dir, "node")
	require.NoError(t, os.Mkdir(node, 0o711))
	require.NoError(t, u.Try(t.Context(), node, program, "word"))
	require.ErrorContains(t, u.Try(t.Context(), node, program, "another"), program+" as user nobody: exit status 1")
	require.NoError(t, os.Chmod(node, 0o700))
	require.ErrorContains(t, u.Try(t.Context(), node, program, "word"), "user nobody cannot get to "+node+", where attempts run: "+node+" (drwx------) is closed to it")
	require.ErrorContains(t, u.Try(t.Context(), dir, filepath.Join(node, "program")), node+" (drwx------) is closed to it")
	require.NoError(t, os.Chmod(program, 0o700))
	require.ErrorContains(t, u.Try(t.Context(), dir, program), "chmod a+rx it")
}

func TestGroupsOfChildren(t *testing.T) {
	a := nodeGroups("00000000ffffffffffffffffffffffff")
	require.Equal(t, gids{lowestGroup, groupsOfNode}, a)
	for _, prefix := range []string{"ffffffff000000000000000000000000", fmt.Sprintf("%08x", 524_031), "89abcdef"} {
		b := nodeGroups(prefix)
		require.Greater(t, b.first, a.first)
		require.LessOrEqual(t, b.first+b.n-1, uint32(highestGroup))
	}
	require.True(t, a.mapped([]byte("         0          0 4294967295\n")))
	require.False(t, a.mapped([]byte("0 100000 65536\n")))
	require.False(t, a.mapped(nil))
	pool := groupPool{gids: a, lent: map[uint32]bool{}}
	first, err := pool.take()
	require.NoError(t, err)
	pool.giveBack(first)
	for range groupsOfNode {
		gid, err := pool.take()
		require.NoError(t, err)
		require.True(t, gid >= a.first && gid < a.first+a.n)
	}
	_, err = pool.take()
	require.ErrorIs(t, err, unix.EAGAIN)
	pool.giveBack(first)
	gid, err := pool.take()
	require.NoError(t, err)
	require.Equal(t, first, gid)
	require.False(t, gids{}.hold(os.Getpid()))
	require.True(t, gids{uint32(os.Getegid()), 1}.hold(os.Getpid()))
}

// Folders that a program has closed do not keep a node that is not root from removing them.
func TestClosedFoldersAreRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "attempt")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a", "b", "file"), nil, 0o400))
	for _, d := range []string{"a/b", "a", ""} {
		require.NoError(t, os.Chmod(filepath.Join(dir, d), 0))
	}
	require.NoError(t, RemoveAll(dir))
	require.NoDirExists(t, dir)
}

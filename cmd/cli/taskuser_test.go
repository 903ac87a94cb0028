package cli

import (
	"flag"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"
)

// What a user has to get through is open to it whatever the umask; what was there stays as it was.
func TestFoldersOnTheWayAreOpen(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	mode := func(path string) fs.FileMode {
		info, err := os.Stat(path)
		require.NoError(t, err)
		return info.Mode().Perm()
	}
	top := filepath.Join(t.TempDir(), "top")
	require.NoError(t, os.Mkdir(top, 0o700))
	dir := filepath.Join(top, "a", "b", "millrace")
	require.NoError(t, makeFolder(dir, 0o711))
	require.Equal(t, fs.FileMode(0o711), mode(dir))
	require.Equal(t, fs.FileMode(0o755), mode(filepath.Join(top, "a")))
	require.Equal(t, fs.FileMode(0o755), mode(filepath.Join(top, "a", "b")))
	require.Equal(t, fs.FileMode(0o700), mode(top))
	require.NoError(t, makeFolder(top, 0o711))
	require.Equal(t, fs.FileMode(0o700), mode(top))

	require.NoError(t, allow(top, 0o011))
	require.Equal(t, fs.FileMode(0o711), mode(top))
	require.NoError(t, allow(filepath.Join(top, "a"), 0o011))
	require.Equal(t, fs.FileMode(0o755), mode(filepath.Join(top, "a")))
	require.ErrorIs(t, allow(filepath.Join(top, "missing"), 0o011), fs.ErrNotExist)
}

func TestWhomAttemptsRunAsIsSaid(t *testing.T) {
	for as, said := range map[attemptsAs]string{
		{}:                      "",
		{User: "millrace-task"}: "jobs' programs run as user millrace-task\n",
		{AsRoot: "there is no useradd"}: "mind: jobs' programs run as root here, and can read all that this node keeps: there is no useradd\n" +
			"      once that is mended: millrace uninstall, and the same command again; --task-user none leaves it as it is\n",
	} {
		var b strings.Builder
		as.say(&b)
		require.Equal(t, said, b.String())
	}
}

// The script hands on what was said of the user, and nothing that was not.
func TestUserDataNamesTheUser(t *testing.T) {
	f := withTokens(t)
	s := newSession(t).serve(f)
	o := s.run("cluster", "user-data", "--role", "task")
	require.Zero(t, o.code, o.err)
	require.NotContains(t, o.out, "--task-user")
	for _, name := range []string{"jobs", "none"} {
		o = s.run("cluster", "user-data", "--role", "task", "--task-user", name)
		require.Zero(t, o.code, o.err)
		require.Contains(t, o.out, ` --dir "$dir" --task-user `+name+" $masters ")
	}
	o = s.run("cluster", "user-data", "--role", "task", "--task-user", "Job's")
	require.Equal(t, exitUsage, o.code)
	require.Contains(t, o.err, `--task-user: user "Job's": a name has lower-case letters`)
	require.Len(t, f.tokens, 3, "a mistake makes no token")
}

// The service's argument is what was found out, not what the flag says.
func TestTheWorkersServiceHasTheUser(t *testing.T) {
	for as, want := range map[attemptsAs]bool{{User: "jobs"}: true, {AsRoot: "no useradd"}: false, {}: false} {
		m := &machine{c: &call{Context: cli.NewContext(cli.NewApp(), flag.NewFlagSet("join", flag.ContinueOnError), nil)}, dir: "/var/lib/millrace", attempts: as}
		line := strings.Join(m.workerServiceOf(netip.MustParseAddr("10.0.0.2")).Exec, " ")
		require.Equal(t, want, strings.HasSuffix(line, " --task-user jobs"), line)
	}
}

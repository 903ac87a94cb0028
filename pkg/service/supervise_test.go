package service

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// shell is a service that is a shell's command line.
func shell(command string) Service {
	return Service{Name: "millrace-x", Exec: []string{"/bin/sh", "-c", command}, EnvFile: "/etc/x.env", LogFile: "/x.log", Final: 4}
}

// bare is a machine without a service manager, on which the supervisor is a goroutine of the test.
func bare(t *testing.T) (Host, func()) {
	h := Host{Root: t.TempDir()}
	require.NoError(t, os.MkdirAll(h.path("/etc"), 0o755))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 10)
	started := 0
	h.Start = func(argv []string, _ string) error {
		require.Equal(t, []string{"/bin/sh", "supervise", "millrace-x"}, argv)
		started++
		go func() { ended <- Supervise(ctx, h, "millrace-x") }()
		return nil
	}
	return h, func() {
		cancel()
		for range started {
			require.NoError(t, <-ended)
		}
	}
}

// until waits for a condition.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func TestAServiceThatEndsIsStartedAgainUnlessForGood(t *testing.T) {
	h, stop := bare(t)
	defer stop()
	runs := filepath.Join(h.Root, "runs")
	require.NoError(t, os.WriteFile(h.path("/etc/x.env"), []byte("# of the admin\nexport WORD='two words'\n\n"), 0o600))
	s := shell(`echo "$WORD" >> ` + runs + `; [ $(wc -l < ` + runs + `) -lt 2 ] && exit 2; exit 4`)
	m := Of(h)
	require.NoError(t, m.Install(t.Context(), s))
	until(t, "it has ended for good", func() bool {
		log, _ := os.ReadFile(h.path("/x.log"))
		return strings.Contains(string(log), "millrace-x ended with exit code 4, for good")
	})
	text, err := os.ReadFile(runs)
	require.NoError(t, err)
	require.Equal(t, "two words\ntwo words\n", string(text))
	until(t, "nobody supervises it", func() bool { running, err := m.Running(t.Context(), s.Name); return err == nil && !running })
}

func TestAServiceHasOneSupervisorAndLeavesNothing(t *testing.T) {
	h, stop := bare(t)
	child := filepath.Join(h.Root, "child")
	s := shell(`trap 'exit 0' TERM; sleep 1000 & echo $! > ` + child + `.new; mv ` + child + `.new ` + child + `; while :; do wait; done`)
	m := Of(h)
	require.NoError(t, m.Install(t.Context(), s))
	require.NoError(t, m.Install(t.Context(), s), "again, it goes on")
	require.ErrorIs(t, Supervise(t.Context(), h, s.Name), ErrSupervised)
	names, err := Names(h)
	require.NoError(t, err)
	require.Equal(t, []string{"millrace-x"}, names)
	var pid int
	until(t, "it has started its child", func() bool {
		text, err := os.ReadFile(child)
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil
	})
	stop()
	until(t, "nothing of it is left", func() bool { return syscall.Kill(pid, 0) != nil || zombie(pid) })
	require.NoError(t, m.Remove(t.Context(), s.Name))
	require.NoDirExists(t, h.path(descriptions))
}

// zombie says whether a process has ended and is only not waited for: by whoever is the first process here.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestCronStartsServicesAtBootWhereItCan(t *testing.T) {
	h, stop := bare(t)
	m := &supervised{h}
	require.Contains(t, m.Boot("millrace-x"), "millrace supervise --all", "busybox's cron, or none")
	for _, f := range []string{"/etc/cron.d/x", "/usr/sbin/cron"} {
		require.NoError(t, os.MkdirAll(filepath.Dir(h.path(f)), 0o755))
		require.NoError(t, os.WriteFile(h.path(f), nil, 0o755))
	}
	require.NoError(t, m.Install(t.Context(), shell("exec sleep 1000")))
	text, err := os.ReadFile(h.path(cronFile))
	require.NoError(t, err)
	require.Contains(t, string(text), "\n@reboot root /bin/sh supervise --all\n")
	require.Empty(t, m.Boot("millrace-x"))
	stop() // Remove would end the supervisor's process, which is this one
	require.NoError(t, m.Remove(t.Context(), "millrace-x"))
	require.NoFileExists(t, h.path(cronFile))
}

func TestALogIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	log, err := openLog(path, 100)
	require.NoError(t, err)
	for range 50 {
		_, err := log.Write([]byte("0123456789"))
		require.NoError(t, err)
	}
	require.NoError(t, log.Close())
	for _, p := range []string{path, path + ".1"} {
		info, err := os.Stat(p)
		require.NoError(t, err)
		require.LessOrEqual(t, info.Size(), int64(100))
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}
}

func TestAnEnvironmentsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "env")
	none, err := readEnv(path)
	require.NoError(t, err)
	require.Empty(t, none)
	require.NoError(t, os.WriteFile(path, []byte("A=b=c\nB=\"x y\"\r\n"), 0o600))
	env, err := readEnv(path)
	require.NoError(t, err)
	require.Equal(t, []string{"A=b=c", "B=x y"}, env)
	require.NoError(t, os.WriteFile(path, []byte("A=b\nnonsense\n"), 0o600))
	_, err = readEnv(path)
	require.ErrorContains(t, err, "env:2: not of the form NAME=VALUE")
}

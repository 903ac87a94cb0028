package service

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"millrace/pkg/nodedir"
)

var update = flag.Bool("update", false, "write the golden files anew")

func example() Service {
	return Service{
		Name: "millrace-worker", Description: "Millrace worker, 100% at work", EnvFile: "/etc/millrace/worker.env", LogFile: "/var/lib/millrace/worker.log", Final: 4,
		Exec: []string{"/usr/local/bin/millrace", "worker", "run", "--dir", "/srv/mill race", "--rack", `a"b$c'd%e\f;g`, "--listen", ":7410"},
	}
}

func golden(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), text)
	return path
}

func TestAUnit(t *testing.T) { golden(t, "millrace-worker.service", Unit(example())) }

func TestAScript(t *testing.T) {
	path := golden(t, "millrace-worker.openrc", Script(example()))
	// As OpenRC does: the script is read, and its functions are called.
	for function, want := range map[string]string{"start": "--start", "stop": "--stop", "status": "--status"} {
		out, err := exec.Command("sh", "-c", `ebegin() { :; }; eend() { return $1; }; . ./`+path+`; supervise=echo; `+function).Output()
		require.NoError(t, err)
		require.Equal(t, "supervise "+want+" millrace-worker\n", string(out), "our own supervisor: OpenRC's knows no exit code that means the end")
		require.Error(t, exec.Command("sh", "-c", `ebegin() { :; }; eend() { return $1; }; . ./`+path+`; supervise=false; `+function).Run())
	}
}

func TestWhatNoServiceIsMadeOf(t *testing.T) {
	for what, change := range map[string]func(*Service){
		"the name has":  func(s *Service) { s.Name = "../x" },
		"needs a path":  func(s *Service) { s.Exec[0] = "millrace" },
		"a line's end":  func(s *Service) { s.Exec[2] = "a\nExecStart=/bin/sh" },
		"a line's end ": func(s *Service) { s.Description = "a\rb" },
	} {
		s := example()
		change(&s)
		require.ErrorContains(t, Of(host(t, nil)).Install(t.Context(), s), strings.TrimSpace(what))
	}
}

// host is a machine with nothing but some files, whose programs only say that they were called.
func host(t *testing.T, calls *[]string, files ...string) Host {
	h := Host{Root: t.TempDir(), Run: func(_ context.Context, program string, args ...string) ([]byte, error) {
		*calls = append(*calls, program+" "+strings.Join(args, " "))
		return nil, nil
	}}
	for _, f := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(h.path(f)), 0o755))
		require.NoError(t, os.WriteFile(h.path(f), nil, 0o755))
	}
	return h
}

func TestWhatKeepsServices(t *testing.T) {
	require.Equal(t, "systemd", Of(host(t, nil, "/run/systemd/system/x", "/usr/bin/systemctl")).Kind())
	require.Equal(t, "supervise", Of(host(t, nil, "/usr/bin/systemctl")).Kind(), "it is installed and does not run")
	require.Equal(t, "OpenRC", Of(host(t, nil, "/run/openrc/softlevel", "/sbin/openrc-run")).Kind())
	require.Equal(t, "supervise", Of(host(t, nil)).Kind())
}

func TestSystemd(t *testing.T) {
	var calls []string
	h := host(t, &calls, "/run/systemd/system/x", "/usr/bin/systemctl")
	m, s := Of(h), example()
	require.NoError(t, m.Install(t.Context(), s))
	require.Equal(t, []string{"systemctl daemon-reload", "systemctl enable millrace-worker", "systemctl restart millrace-worker"}, calls)
	require.True(t, m.Installed(s.Name))

	calls = nil
	require.NoError(t, m.Install(t.Context(), s))
	require.Contains(t, calls, "systemctl start millrace-worker", "what has not changed goes on")

	calls = nil
	require.NoError(t, m.Remove(t.Context(), s.Name))
	require.Equal(t, []string{"systemctl disable --now millrace-worker", "systemctl daemon-reload"}, calls)
	require.False(t, m.Installed(s.Name))
	installed, err := m.Begin(t.Context(), s.Name)
	require.NoError(t, err)
	require.False(t, installed)
	calls = nil
	require.NoError(t, m.Remove(t.Context(), s.Name), "that there is none is no error")
	require.Empty(t, calls)
}

func TestOpenRC(t *testing.T) {
	var calls []string
	h := host(t, &calls, "/run/openrc/softlevel", "/sbin/openrc-run")
	m, s := Of(h), example()
	require.NoError(t, m.Install(t.Context(), s))
	require.Equal(t, []string{"rc-update add millrace-worker default", "rc-service millrace-worker restart"}, calls)
	info, err := os.Stat(h.path("/etc/init.d/millrace-worker"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o755), info.Mode().Perm(), "whatever the umask")
	described, err := Load(h, s.Name)
	require.NoError(t, err)
	require.Equal(t, s, described, "by which the supervisor knows what to run, and which exit code is final")

	calls = nil
	installed, err := m.Begin(t.Context(), s.Name)
	require.NoError(t, err)
	require.True(t, installed)
	require.Equal(t, []string{"rc-service millrace-worker restart"}, calls, "it has ended by itself, of which OpenRC knows nothing")

	supervisor := supervises(t, h, s.Name)
	calls = nil
	require.NoError(t, m.Install(t.Context(), s))
	require.Equal(t, []string{"rc-update add millrace-worker default"}, calls, "what has not changed goes on")
	installed, err = m.Begin(t.Context(), s.Name)
	require.NoError(t, err)
	require.True(t, installed)
	require.Len(t, calls, 1)
	s.Exec = append(s.Exec, "--slots", "2")
	require.NoError(t, m.Install(t.Context(), s))
	require.Contains(t, calls, "rc-service millrace-worker restart", "its script is the same, its arguments are not")
	require.NoError(t, supervisor.Close())

	calls = nil
	require.NoError(t, m.Remove(t.Context(), s.Name))
	require.Equal(t, []string{"rc-service millrace-worker zap", "rc-update del millrace-worker default"}, calls)
	require.False(t, m.Installed(s.Name))
	require.NoDirExists(t, h.path(descriptions))
}

// supervises takes the place of a service's supervisor until it is closed.
func supervises(t *testing.T, h Host, name string) *os.File {
	lock, err := os.OpenFile(h.path(lockPath(name)), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	require.NoError(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	require.NoError(t, nodedir.SignLock(lock))
	return lock
}

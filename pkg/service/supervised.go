package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"millrace/pkg/nodedir"
)

// Where a machine has the descriptions of services that a supervisor of ours runs, and the locks of the supervisors.
const (
	descriptions = "/etc/millrace/services"
	cronFile     = "/etc/cron.d/millrace"
)

const (
	endWithin = 100 * time.Second // for the supervisor, which gives the service 90
	beginsIn  = 10 * time.Second
	lookEvery = 50 * time.Millisecond
)

// supervised keeps services under a supervisor of our own: the program's command supervise.
type supervised struct{ h Host }

func (*supervised) Kind() string { return "supervise" }

func descriptionPath(name string) string { return descriptions + "/" + name + ".json" }
func lockPath(name string) string        { return descriptions + "/" + name + ".lock" }

// describe writes a service's description for its supervisor, and says whether that changed anything.
func (h *Host) describe(s Service) (changed bool, err error) {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return false, err
	}
	if err := os.MkdirAll(h.path(descriptions), 0o700); err != nil {
		return false, err
	}
	return h.write(descriptionPath(s.Name), string(text)+"\n", 0o600)
}

// forget takes a service's description away, and its supervisor's lock: it has ended.
func (h *Host) forget(name string) error {
	for _, p := range []string{descriptionPath(name), lockPath(name)} {
		if _, err := h.remove(p); err != nil {
			return fmt.Errorf("remove service %s: %w", name, err)
		}
	}
	if left, err := Names(*h); err != nil || len(left) > 0 {
		return err
	}
	if err := os.Remove(h.path(descriptions)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove service %s: %w", name, err)
	}
	return nil
}

// Load reads a service's description.
func Load(h Host, name string) (Service, error) {
	var s Service
	if !serviceName.MatchString(name) {
		return s, fmt.Errorf("service %q: no such name", name)
	}
	data, err := os.ReadFile(h.path(descriptionPath(name)))
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err == nil {
		err = s.check()
	}
	if err != nil {
		return s, fmt.Errorf("service %s: %w", name, err)
	}
	return s, nil
}

func (m *supervised) Install(ctx context.Context, s Service) error {
	if err := s.check(); err != nil {
		return err
	}
	changed, err := m.h.describe(s)
	if err != nil {
		return fmt.Errorf("install service %s: %w", s.Name, err)
	}
	if changed {
		if err := m.end(ctx, s.Name); err != nil {
			return err
		}
	}
	if err := m.atBoot(s.Exec[0]); err != nil {
		return fmt.Errorf("install service %s: %w", s.Name, err)
	}
	return m.start(ctx, s)
}

func (m *supervised) Begin(ctx context.Context, name string) (bool, error) {
	if !m.h.there(descriptionPath(name)) {
		return false, nil
	}
	s, err := Load(m.h, name)
	if err != nil {
		return true, err
	}
	return true, m.start(ctx, s)
}

// start starts a service's supervisor, unless there is one.
func (m *supervised) start(ctx context.Context, s Service) error {
	if running, err := m.Running(ctx, s.Name); err != nil || running {
		return err
	}
	if err := m.h.Start([]string{s.Exec[0], "supervise", s.Name}, m.h.path(s.LogFile)); err != nil {
		return fmt.Errorf("start service %s: %w", s.Name, err)
	}
	if !m.await(ctx, s.Name, true, beginsIn) {
		return fmt.Errorf("start service %s: its supervisor did not begin within %s; its log: %s", s.Name, beginsIn, s.LogFile)
	}
	return nil
}

// atBoot has cron start all services, where there is a cron that knows how.
func (m *supervised) atBoot(program string) error {
	if !m.h.cron() {
		return nil
	}
	_, err := m.h.write(cronFile, "# The services of millrace on this machine: it has no service manager that would start them.\n@reboot root "+shellWord(program)+" supervise --all\n", 0o644)
	return err
}

// cron says whether there is one that takes up /etc/cron.d and knows @reboot; busybox's does not.
func (h *Host) cron() bool {
	return h.there("/etc/cron.d") && h.there("/usr/sbin/cron")
}

func (m *supervised) Remove(ctx context.Context, name string) error {
	if err := m.end(ctx, name); err != nil {
		return err
	}
	if err := m.h.forget(name); err != nil {
		return err
	}
	if left, err := Names(m.h); err != nil || len(left) > 0 {
		return err
	}
	_, err := m.h.remove(cronFile)
	return err
}

// StartSupervisor starts a described service's supervisor, unless there is one.
func StartSupervisor(ctx context.Context, h Host, name string) error {
	s, err := Load(h, name)
	if err != nil {
		return err
	}
	return supervisedOn(h).start(ctx, s)
}

// EndSupervisor ends a service's supervisor, if there is one, and with it the service.
func EndSupervisor(ctx context.Context, h Host, name string) error {
	return supervisedOn(h).end(ctx, name)
}

// HasSupervisor says whether a service has one. One that has ended for good has none.
func HasSupervisor(h Host, name string) (bool, error) {
	pid, err := supervisedOn(h).supervisor(name)
	return pid != 0, err
}

func supervisedOn(h Host) *supervised { return &supervised{h.complete()} }

// Names lists the services that are described for supervisors of ours.
func Names(h Host) ([]string, error) {
	entries, err := os.ReadDir(h.path(descriptions))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list services: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok && serviceName.MatchString(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// end ends a service's supervisor, and with it the service.
func (m *supervised) end(ctx context.Context, name string) error {
	pid, err := m.supervisor(name)
	if err != nil || pid == 0 {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("end service %s (pid %d): %w", name, pid, err)
	}
	if m.await(ctx, name, false, endWithin) {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("end service %s: its supervisor (pid %d) has not ended within %s", name, pid, endWithin)
}

// supervisor is the process that holds the service's lock, 0 if none does.
func (m *supervised) supervisor(name string) (pid int, err error) {
	lock, err := os.Open(m.h.path(lockPath(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("service %s: %w", name, err)
	}
	defer lock.Close()
	if unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return 0, nil // closing gives it back
	}
	if pid = nodedir.Signer(lock); pid == 0 {
		return 0, fmt.Errorf("service %s: somebody supervises it without having signed %s", name, lockPath(name))
	}
	return pid, nil
}

func (m *supervised) Installed(name string) bool { return m.h.there(descriptionPath(name)) }

func (m *supervised) Running(_ context.Context, name string) (bool, error) {
	pid, err := m.supervisor(name)
	return pid != 0, err
}

// await waits until a supervisor is there, or is not.
func (m *supervised) await(ctx context.Context, name string, there bool, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		if pid, err := m.supervisor(name); err == nil && (pid != 0) == there {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(lookEvery):
		}
	}
}

func (m *supervised) Logs(name string) string {
	s, err := Load(m.h, name)
	if err != nil {
		return "millrace supervise " + name
	}
	return "tail -f " + s.LogFile
}

func (m *supervised) Boot(name string) string {
	if m.h.there(cronFile) {
		return ""
	}
	return "this machine has neither systemd nor OpenRC nor a cron that knows @reboot: have `millrace supervise --all` run at its boot"
}

// plainEnv is what a service manager would give: nothing of who has called this, whose keys for an object store may be in it.
var plainEnv = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}

// start starts a program in a session of its own.
func start(argv []string, logFile string) error {
	if err := os.MkdirAll(filepath.Dir(logFile), 0o700); err != nil {
		return err
	}
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", plainEnv, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}

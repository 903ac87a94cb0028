package service

import (
	"context"
	"fmt"
	"strings"
)

// openrc is a supervised machine on which OpenRC starts the supervisors: by scripts in /etc/init.d. A supervisor of OpenRC's would start a
// service again whatever its exit code, also the final one, and would let its log grow.
type openrc struct{ supervised }

func (*openrc) Kind() string { return "OpenRC" }

func scriptPath(name string) string { return "/etc/init.d/" + name }

// Script is the text of a service's OpenRC script. What the service is stands in its description, which the supervisor reads. Start-stop-daemon
// is not asked: Debian's is dpkg's, tells OpenRC nothing of what has ended, and finds it a fault to end it.
func Script(s Service) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#!/sbin/openrc-run\n\ndescription=%s\nsupervise=%s\n\ndepend() {\n\tuse net\n\tafter firewall\n}\n", shellWord(s.Description), shellWord(s.Exec[0]))
	for _, f := range []struct{ name, says, flag string }{{"start", "Starting", "--start"}, {"stop", "Stopping", "--stop"}} {
		fmt.Fprintf(&b, "\n%s() {\n\tebegin \"%s $RC_SVCNAME\"\n\tumask 077\n\t\"$supervise\" supervise %s %s\n\teend $?\n}\n", f.name, f.says, f.flag, s.Name)
	}
	fmt.Fprintf(&b, "\nstatus() {\n\t\"$supervise\" supervise --status %s\n}\n", s.Name)
	return b.String()
}

// shellWord quotes a word for a POSIX shell.
func shellWord(w string) string {
	if w != "" && strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,@=") == "" {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}

func (m *openrc) Install(ctx context.Context, s Service) error {
	if err := s.check(); err != nil {
		return err
	}
	described, err := m.h.describe(s)
	if err != nil {
		return fmt.Errorf("install service %s: %w", s.Name, err)
	}
	written, err := m.h.write(scriptPath(s.Name), Script(s), 0o755)
	if err != nil {
		return fmt.Errorf("install service %s: %w", s.Name, err)
	}
	if _, err := m.h.Run(ctx, "rc-update", "add", s.Name, "default"); err != nil {
		return fmt.Errorf("install service %s: %w", s.Name, err)
	}
	if running, err := m.Running(ctx, s.Name); err != nil || running && !described && !written {
		return err
	}
	return m.restart(ctx, s.Name)
}

func (m *openrc) Begin(ctx context.Context, name string) (bool, error) {
	if !m.Installed(name) {
		return false, nil
	}
	if running, err := m.Running(ctx, name); err != nil || running {
		return true, err
	}
	return true, m.restart(ctx, name)
}

// restart starts a service whatever OpenRC holds of it: of one that has ended by itself it thinks that it runs.
func (m *openrc) restart(ctx context.Context, name string) error {
	if _, err := m.h.Run(ctx, "rc-service", name, "restart"); err != nil {
		return fmt.Errorf("start service %s: %w", name, err)
	}
	return nil
}

func (m *openrc) Remove(ctx context.Context, name string) error {
	if !m.Installed(name) {
		return nil
	}
	if err := m.end(ctx, name); err != nil {
		return err
	}
	for _, command := range [][]string{{"rc-service", name, "zap"}, {"rc-update", "del", name, "default"}} { // zap: OpenRC takes note that it has ended
		if _, err := m.h.Run(ctx, command[0], command[1:]...); err != nil && !exited(err) { // an exit code: it was done before, by a removal that was cut short
			return fmt.Errorf("remove service %s: %w", name, err)
		}
	}
	if _, err := m.h.remove(scriptPath(name)); err != nil {
		return fmt.Errorf("remove service %s: %w", name, err)
	}
	return m.h.forget(name)
}

func (m *openrc) Installed(name string) bool { return m.h.there(scriptPath(name)) }

func (*openrc) Boot(string) string { return "" }

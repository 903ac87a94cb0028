package service

import (
	"context"
	"fmt"
	"strings"
)

// systemd keeps services as units.
type systemd struct{ h Host }

func (*systemd) Kind() string { return "systemd" }

func unitPath(name string) string { return "/etc/systemd/system/" + name + ".service" }

// Unit is the text of a service's unit. The main process alone hears SIGTERM: it ends what it started in order, and what
// is left of that is killed. Control groups below its own are the service's to make.
func Unit(s Service) string {
	words := make([]string, len(s.Exec))
	for i, w := range s.Exec {
		words[i] = unitWord(w)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[Unit]\nDescription=%s\nWants=network-online.target\nAfter=network-online.target\nStartLimitIntervalSec=0\n\n", strings.ReplaceAll(s.Description, "%", "%%"))
	fmt.Fprintf(&b, "[Service]\nExecStart=%s\n", strings.Join(words, " "))
	if s.EnvFile != "" {
		fmt.Fprintf(&b, "EnvironmentFile=-%s\n", strings.ReplaceAll(s.EnvFile, "%", "%%"))
	}
	b.WriteString("Restart=always\nRestartSec=1\n")
	if s.Final != 0 {
		fmt.Fprintf(&b, "RestartPreventExitStatus=%d\n", s.Final)
	}
	b.WriteString("KillMode=mixed\nTimeoutStopSec=90\nUMask=0077\nLimitNOFILE=1048576\nTasksMax=infinity\nDelegate=yes\nOOMPolicy=continue\n\n[Install]\nWantedBy=multi-user.target\n")
	return b.String()
}

// unitWord quotes a word as unit files have it.
func unitWord(w string) string {
	w = strings.NewReplacer("%", "%%", "$", "$$").Replace(w)
	if w != "" && !strings.ContainsAny(w, " \t\"'\\;") {
		return w
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w) + `"`
}

func (m *systemd) Install(ctx context.Context, s Service) error {
	if err := s.check(); err != nil {
		return err
	}
	changed, err := m.h.write(unitPath(s.Name), Unit(s), 0o644)
	if err != nil {
		return fmt.Errorf("install service %s: %w", s.Name, err)
	}
	begin := "start"
	if changed {
		begin = "restart"
	}
	for _, args := range [][]string{{"daemon-reload"}, {"enable", s.Name}, {begin, s.Name}} {
		if _, err := m.h.Run(ctx, "systemctl", args...); err != nil {
			return fmt.Errorf("install service %s: %w", s.Name, err)
		}
	}
	return nil
}

func (m *systemd) Begin(ctx context.Context, name string) (bool, error) {
	if !m.h.there(unitPath(name)) {
		return false, nil
	}
	if _, err := m.h.Run(ctx, "systemctl", "start", name); err != nil {
		return true, fmt.Errorf("start service %s: %w", name, err)
	}
	return true, nil
}

func (m *systemd) Remove(ctx context.Context, name string) error {
	if !m.h.there(unitPath(name)) {
		return nil
	}
	if _, err := m.h.Run(ctx, "systemctl", "disable", "--now", name); err != nil {
		return fmt.Errorf("remove service %s: %w", name, err)
	}
	if _, err := m.h.remove(unitPath(name)); err != nil {
		return fmt.Errorf("remove service %s: %w", name, err)
	}
	_, err := m.h.Run(ctx, "systemctl", "daemon-reload")
	return err
}

func (m *systemd) Installed(name string) bool { return m.h.there(unitPath(name)) }

func (m *systemd) Running(ctx context.Context, name string) (bool, error) {
	_, err := m.h.Run(ctx, "systemctl", "is-active", "--quiet", name)
	if exited(err) {
		return false, nil
	}
	return err == nil, err
}

func (*systemd) Logs(name string) string { return "journalctl -u " + name }
func (*systemd) Boot(string) string      { return "" }

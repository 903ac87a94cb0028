// Package service installs a program as a service of the machine: as a unit where systemd runs, else as a process
// that a supervisor of ours starts again whenever it ends (Supervise), which OpenRC starts at boot where that is. It makes the user of the machine that such a program
// runs other programs as, too. It knows nothing of what the program does, and keeps no secret: what a service must not show in its
// arguments is in a file that it reads.
package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Service is a program to be kept running.
type Service struct {
	Name        string   `json:"name"`        // millrace-worker: letters, digits, hyphens
	Description string   `json:"description"` // for people
	Exec        []string `json:"exec"`        // program, with its path, and arguments
	EnvFile     string   `json:"envFile"`     // lines NAME=VALUE for its environment, if the file is there
	LogFile     string   `json:"logFile"`     // where its output goes, unless the machine has a journal
	// Final is the exit code after which it is not started again: nothing that another start would change. 0: there is none.
	Final int `json:"final,omitempty"`
}

var serviceName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

func (s *Service) check() error {
	switch {
	case !serviceName.MatchString(s.Name):
		return fmt.Errorf("service %q: the name has lower-case letters, digits and hyphens", s.Name)
	case len(s.Exec) == 0 || !filepath.IsAbs(s.Exec[0]):
		return fmt.Errorf("service %s: its program needs a path from / on", s.Name)
	}
	for _, text := range append([]string{s.Description, s.EnvFile, s.LogFile}, s.Exec...) {
		if strings.ContainsAny(text, "\x00\r\n") {
			return fmt.Errorf("service %s: %q cannot be in a service's description: it has a line's end in it", s.Name, text)
		}
	}
	return nil
}

// Manager is what keeps services running on this machine.
type Manager interface {
	// Kind is systemd, OpenRC or supervise.
	Kind() string
	// Install writes the service's description and has it started now and at every boot. It may run already: it is started again
	// only if its description has changed.
	Install(ctx context.Context, s Service) error
	// Begin starts a service that is installed, unless it runs; false: it is not installed.
	Begin(ctx context.Context, name string) (installed bool, err error)
	// Remove ends the service and takes its description away. That there is none is no error.
	Remove(ctx context.Context, name string) error
	// Installed says whether there is such a service.
	Installed(name string) bool
	// Running says whether it runs now.
	Running(ctx context.Context, name string) (bool, error)
	// Logs is the command that shows what it says.
	Logs(name string) string
	// Boot says what is missing for it to be started at boot, "" = nothing.
	Boot(name string) string
}

// Host is the machine. Tests have another root, and another way of running programs.
type Host struct {
	Root string // "" = /
	// Run runs a program and gives what it printed; nil: it is run.
	Run func(ctx context.Context, program string, args ...string) ([]byte, error)
	// Start starts a program that goes on after this process has ended; nil: it is started.
	Start func(argv []string, logFile string) error
}

// Of picks what keeps services running on a host.
func Of(h Host) Manager {
	h = h.complete()
	switch {
	case h.there("/run/systemd/system") && (h.there("/usr/bin/systemctl") || h.there("/bin/systemctl")):
		return &systemd{h}
	case h.there("/sbin/openrc-run") && h.there("/run/openrc"):
		return &openrc{supervised{h}}
	}
	return &supervised{h}
}

// complete has what is nil done for real.
func (h Host) complete() Host {
	if h.Run == nil {
		h.Run = run
	}
	if h.Start == nil {
		h.Start = start
	}
	return h
}

func (h *Host) path(p string) string { return filepath.Join(h.Root, p) }

func (h *Host) there(p string) bool {
	_, err := os.Stat(h.path(p))
	return err == nil
}

// write replaces a file and says whether that changed anything.
func (h *Host) write(p, content string, mode fs.FileMode) (changed bool, err error) {
	path := h.path(p)
	if old, err := os.ReadFile(path); err == nil && string(old) == content {
		return false, os.Chmod(path, mode)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, err
	}
	temp := path + ".new"
	if err := os.WriteFile(temp, []byte(content), mode); err != nil {
		return false, err
	}
	return true, errors.Join(os.Chmod(temp, mode), os.Rename(temp, path)) // the umask has had its say
}

// remove deletes a file and says whether it was there.
func (h *Host) remove(p string) (bool, error) {
	err := os.Remove(h.path(p))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func run(ctx context.Context, program string, args ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return out, err
}

// exited says whether a program ran and said no.
func exited(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit)
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"millrace/pkg/service"
	"millrace/worker/attempt"
)

// Whom attempts run as on machines that init and join set up.
const (
	usualTaskUser = "millrace-task"
	noTaskUser    = "none" // as the worker, which is root
)

func taskUserFlag() cli.Flag {
	return &cli.StringFlag{Name: "task-user", Usage: "`NAME` of the system's user that jobs' programs run as, made if it is missing; none: they run as root, as the worker does", Value: usualTaskUser}
}

// checkTaskUser says what is wrong with the flag.
func (c *call) checkTaskUser() error {
	if name := c.String("task-user"); name != "" { // a command without the flag has ""
		return service.CheckUser(name)
	}
	return nil
}

// attemptsAs is whom attempts of this machine's worker run as, as far as this command has decided it.
type attemptsAs struct {
	User   string `json:"taskUser,omitempty"`    // "" = root
	AsRoot string `json:"tasksAsRoot,omitempty"` // why that is so, where nobody has asked for it
}

// prepareTaskUser has attempts run as the user that the flag names, where that can be. Where it cannot, a user that was asked for is a mistake; the
// usual one is done without, and said to be.
func (m *machine) prepareTaskUser(ctx context.Context) error {
	name := m.c.String("task-user")
	if m.attempts != (attemptsAs{}) || name == noTaskUser {
		return nil
	}
	err := m.makeTaskUser(ctx, name)
	switch {
	case err == nil:
		m.attempts.User = name
	case ctx.Err() != nil:
		return ctx.Err()
	case m.c.IsSet("task-user"):
		return usagef("mend that, or --task-user none: jobs' programs then run as root", "--task-user %s: %s", name, err)
	default:
		m.attempts.AsRoot = err.Error()
	}
	return nil
}

// makeTaskUser makes the user if it is missing, opens what it has to get through to attempts, and finds out whether that is enough.
func (m *machine) makeTaskUser(ctx context.Context, name string) error {
	if _, err := service.EnsureUser(ctx, service.Host{}, name); err != nil {
		return fmt.Errorf("make user %s: %w", name, err)
	}
	user, err := attempt.LookupUser(name)
	if err != nil {
		return err
	}
	if err := makeFolder(m.dir, 0o711); err != nil {
		return err
	}
	// To pass through the machine's folder is not to list it, and what is in it is closed. What is above it is not ours to open.
	if err := allow(m.dir, 0o011); err != nil {
		return err
	}
	if err := allow(programPath, 0o555); err != nil {
		return err
	}
	return user.Try(ctx, m.dir, programPath, "--version")
}

// allow adds bits to a file's mode, if they are missing.
func allow(path string, bits fs.FileMode) error {
	info, err := os.Stat(path)
	if err != nil || info.Mode()&bits == bits {
		return err
	}
	return os.Chmod(path, info.Mode()|bits)
}

// makeFolder makes a folder with a mode, and with 0755 what is missing above it, whatever the umask. One that is there stays as it is.
func makeFolder(dir string, mode fs.FileMode) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeFolder(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, mode); err != nil {
		return err
	}
	return os.Chmod(dir, mode)
}

// say says whom attempts run as; of a worker that is as it was, nothing.
func (a attemptsAs) say(w io.Writer) {
	switch {
	case a.User != "":
		fmt.Fprintf(w, "jobs' programs run as user %s\n", a.User)
	case a.AsRoot != "":
		fmt.Fprintf(w, "mind: jobs' programs run as root here, and can read all that this node keeps: %s\n"+
			"      once that is mended: millrace uninstall, and the same command again; --task-user none leaves it as it is\n", a.AsRoot)
	}
}

// Package command runs one program of an administrator's on this node: a bootstrap action, or what node exec was given. It has a
// process group of its own, which ends with it, a time limit, and an end: a daemon that it leaves behind, in a session
// of its own, goes on, and is not waited for. It knows nothing of what is run, nor of where the output goes.
package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// drainWithin is how long the output of a program that has ended may still come from what it has left behind.
	drainWithin = 500 * time.Millisecond
	// A file that was just written may be held for a moment by a process that is about to become another program.
	busyWithin = 2 * time.Second
	busyPause  = 10 * time.Millisecond

	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// Command is a program to be run.
type Command struct {
	Path   string   // as the shell finds it, if it has no slash
	Args   []string // without the program
	Dir    string
	Env    []string // all of it
	Stdin  []byte   // nil: nothing, as from /dev/null
	Stdout io.Writer
	Stderr io.Writer     // may be Stdout
	Limit  time.Duration // after which it is ended; 0 = without
}

// End is how it ended. Err, if set, says that it could not be started or was ended from here, and why.
type End struct {
	Code   int
	Signal string // that ended it
	Err    error
}

// Failed says whether it did anything but exit with 0.
func (e End) Failed() bool { return e.Err != nil || e.Code != 0 || e.Signal != "" }

func (e End) String() string {
	switch {
	case e.Err != nil:
		return e.Err.Error()
	case e.Signal != "":
		return "ended by " + e.Signal
	}
	return fmt.Sprintf("exit code %d", e.Code)
}

// ErrLimit ends what takes longer than it may.
var ErrLimit = errors.New("it took longer than it may")

// Environ is the words that every program of an administrator's gets, and further ones.
func Environ(more ...string) []string {
	path, home := os.Getenv("PATH"), os.Getenv("HOME")
	if path == "" {
		path = defaultPath
	}
	if home == "" {
		home = "/"
	}
	return append([]string{"PATH=" + path, "HOME=" + home}, more...)
}

// Run runs it to its end, or to ctx's; then nothing of its process group is alive.
func Run(ctx context.Context, c Command) End {
	if c.Limit > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, c.Limit, fmt.Errorf("%w: %s", ErrLimit, c.Limit))
		defer stop()
	}
	cmd, err := start(ctx, c)
	if err != nil {
		return End{Code: -1, Err: err}
	}
	err = cmd.Wait()
	kill(cmd) // what it has started and left in its group
	return ended(ctx, cmd.ProcessState, err)
}

func ended(ctx context.Context, state *os.ProcessState, err error) End {
	end := End{Code: state.ExitCode()}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		end.Signal = unix.SignalName(status.Signal())
	}
	var exit *exec.ExitError
	switch {
	case end.Signal == "SIGKILL" && ctx.Err() != nil:
		end.Err = context.Cause(ctx)
	case err == nil, errors.As(err, &exit), errors.Is(err, exec.ErrWaitDelay), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	default: // who reads its output has gone, or the like
		end.Err = err
	}
	return end
}

// start starts it, again while its file is held by another process.
func start(ctx context.Context, c Command) (*exec.Cmd, error) {
	for late := time.Now().Add(busyWithin); ; {
		cmd := exec.CommandContext(ctx, c.Path, c.Args...)
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = c.Dir, c.Env, c.Stdout, c.Stderr
		if c.Stdin != nil {
			cmd.Stdin = bytes.NewReader(c.Stdin)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return kill(cmd) }
		cmd.WaitDelay = drainWithin
		err := cmd.Start()
		if !errors.Is(err, unix.ETXTBSY) || time.Now().After(late) {
			return cmd, err
		}
		time.Sleep(busyPause)
	}
}

// kill ends its process group.
func kill(cmd *exec.Cmd) error {
	if err := unix.Kill(-cmd.Process.Pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

package streaming

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"millrace/jobs/task"
)

// pipeBuffer is how many bytes are gathered before they go into or come out of a command.
const pipeBuffer = 64 << 10

// command is one running command: its input is written by the goroutine of the
// task, its output and its standard error are read by goroutines of their own, so
// that no full pipe can stop another.
type command struct {
	what string // mapper, combiner, reducer
	task *task.Context
	cmd  *exec.Cmd
	in   *bufio.Writer
	pipe *os.File
	deaf bool // it has closed its input; the rest is passed over

	out, stderr *os.File

	readers sync.WaitGroup
	readErr error // of its output
	report  *reporter

	ended  chan struct{} // closed once it has been waited for
	failed atomic.Bool   // it ended badly: err is set
	err    error
	stop   func() bool
}

// start starts a command line with the shell, in the attempt's directory.
func start(t *task.Context, what, line string, emit emitter) (*command, error) {
	c := &command{what: what, task: t, report: newReporter(t), ended: make(chan struct{})}
	c.cmd = exec.Command("sh", "-c", line)
	c.cmd.Dir = t.Lease().WorkDir
	c.cmd.Env = environment(t, os.Environ())
	// A group of its own: a pipeline ends as a whole.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipes, err := c.connect()
	if err != nil {
		return nil, fmt.Errorf("start the %s: %w", what, err)
	}
	if err := c.cmd.Start(); err != nil {
		for _, f := range pipes {
			f.Close()
		}
		return nil, fmt.Errorf("start the %s: %w", what, err)
	}
	for _, f := range pipes[:3] { // the command's ends
		f.Close()
	}
	c.pipe, c.in = pipes[3], bufio.NewWriterSize(pipes[3], pipeBuffer)
	c.out, c.stderr = pipes[4], pipes[5]
	c.readers.Go(func() {
		if c.readErr = readLines(c.out, t.Lease().MaxRecordBytes, emit); errors.Is(c.readErr, errLongLine) {
			c.kill() // it may never end its line
		}
		_, _ = io.Copy(io.Discard, c.out) // no full pipe is to stop it
	})
	c.readers.Go(func() { c.report.read(c.stderr) })
	go c.wait() // ends with ended, which close and abort wait for
	c.stop = context.AfterFunc(t.Context(), c.kill)
	return c, nil
}

// connect gives the command its three pipes: first the command's ends, then ours.
// (With those of os/exec one could not wait for the command and go on reading.)
func (c *command) connect() ([]*os.File, error) {
	pipes := make([]*os.File, 6)
	for i := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			for _, f := range pipes {
				f.Close() // of a nil file: an error, and no more
			}
			return nil, err
		}
		if i == 0 {
			pipes[i], pipes[i+3] = r, w
		} else {
			pipes[i], pipes[i+3] = w, r
		}
	}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = pipes[0], pipes[1], pipes[2]
	return pipes, nil
}

// errLongLine says that a command wrote a line over the limit.
var errLongLine = errors.New("it wrote a line longer than the limit")

// readLines hands on each line, without its end, valid during the call.
func readLines(r io.Reader, limit int64, emit emitter) error {
	if limit <= 0 {
		limit = 64 << 20
	}
	b := bufio.NewReaderSize(r, pipeBuffer)
	var long []byte // a line longer than the buffer
	for {
		part, err := b.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			long = append(long, part...)
			if int64(len(long)) > limit {
				return fmt.Errorf("%w of %d bytes; --max-record raises it, up to a quarter of --memory", errLongLine, limit)
			}
			continue
		}
		line := part
		if len(long) > 0 {
			long = append(long, part...)
			line, long = long, long[:0]
		}
		if n := len(line); n > 0 && line[n-1] == '\n' {
			emit(line[:n-1])
		} else if n > 0 {
			emit(line) // the last line, without an end
		}
		if err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read its output: %w", err)
		}
	}
}

// leftover is how long what a command has left in the background may go on writing.
const leftover = 5 * time.Second

// wait waits for the command's end, then for its outputs'. What it has left behind
// in its group with an output open is killed after a while.
func (c *command) wait() {
	defer close(c.ended)
	err := c.cmd.Wait()
	drained := make(chan struct{})
	go func() { c.readers.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-time.After(leftover):
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
		// What has left the group may hold the pipes for ever.
		_ = c.out.SetReadDeadline(time.Now().Add(leftover))
		_ = c.stderr.SetReadDeadline(time.Now().Add(leftover))
		<-drained
	}
	c.out.Close()
	c.stderr.Close()
	switch {
	case err != nil && !errors.Is(c.readErr, errLongLine):
		c.err = c.exitError(err)
	case c.readErr != nil:
		c.err = &task.ProgramError{Message: fmt.Sprintf("%s `%s`", c.what, c.cmd.Args[2]), Err: c.readErr, StderrTail: c.report.tail()}
	}
	if c.err != nil {
		c.failed.Store(true)
	}
}

func (c *command) exitError(err error) error {
	e := &task.ProgramError{StderrTail: c.report.tail()}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("wait for the %s: %w", c.what, err)
	}
	status, _ := exit.Sys().(syscall.WaitStatus)
	name := fmt.Sprintf("%s `%s`", c.what, c.cmd.Args[2])
	switch code := status.ExitStatus(); {
	case status.Signaled():
		e.Signal = signalName(status.Signal())
		e.Message = fmt.Sprintf("%s was ended by signal %d (%s)", name, int(status.Signal()), e.Signal)
	case code > 128 && code < 128+65: // so says a shell whose command was
		e.ExitCode, e.Signal = code, signalName(syscall.Signal(code-128))
		e.Message = fmt.Sprintf("%s exited with code %d (signal %d, %s)", name, code, code-128, e.Signal)
	case code == 127:
		e.ExitCode = code
		e.Message = fmt.Sprintf("%s exited with code 127: command not found", name)
	default:
		e.ExitCode = code
		e.Message = fmt.Sprintf("%s exited with code %d", name, code)
	}
	return e
}

// signalName is SIGKILL and the like; a real-time signal has but its number.
func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return s.String()
}

// write gives the command one line, in pieces. A command that reads no further is
// no failure by itself (head does so): its exit code decides.
func (c *command) write(pieces ...[]byte) error {
	if c.failed.Load() {
		<-c.ended
		return c.err
	}
	if c.deaf {
		return nil
	}
	for _, p := range pieces {
		if _, err := c.in.Write(p); err != nil {
			return c.inputError(err)
		}
	}
	return nil
}

func (c *command) inputError(err error) error {
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, os.ErrClosed) {
		c.deaf = true
		return nil
	}
	return fmt.Errorf("write to the %s: %w", c.what, err)
}

// close ends the command's input and waits for its end.
func (c *command) close() error {
	var err error
	if !c.deaf {
		if e := c.in.Flush(); e != nil {
			err = c.inputError(e)
		}
	}
	if e := c.pipe.Close(); e != nil && err == nil && !errors.Is(e, os.ErrClosed) {
		err = c.inputError(e)
	}
	<-c.ended
	c.stop()
	if c.err != nil {
		return c.err
	}
	return err
}

// abort kills the command and waits for its end. Harmless after close.
func (c *command) abort() {
	c.kill()
	_ = c.pipe.Close() // it is being thrown away
	<-c.ended
	c.stop()
}

// kill kills the command's group. Once the command has been waited for its number may be another's.
func (c *command) kill() {
	select {
	case <-c.ended:
	default:
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
	}
}

package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"millrace/pkg/nodedir"
)

const (
	firstWait = time.Second // before a service that has ended is started again
	longWait  = 30 * time.Second
	settled   = time.Minute // one that ran for so long begins with the first wait again
	grace     = 90 * time.Second
	logBytes  = 16 << 20 // of a log's file; the one before it is kept
	openFiles = 1 << 20  // of the service at a time, as in a unit
)

// ErrSupervised says that a service has a supervisor already.
var ErrSupervised = errors.New("it is supervised already")

// Supervise keeps a service running until ctx ends: then it has it end, and kills it if that takes too long. It says what happens in the service's own log.
func Supervise(ctx context.Context, h Host, name string) error {
	s, err := Load(h, name)
	if err != nil {
		return err
	}
	lock, err := os.OpenFile(h.path(lockPath(name)), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("service %s: %w", name, err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("service %s: %w (pid %d)", name, ErrSupervised, nodedir.Signer(lock))
	}
	if err := nodedir.SignLock(lock); err != nil {
		return fmt.Errorf("service %s: %w", name, err)
	}
	log, err := openLog(h.path(s.LogFile), logBytes)
	if err != nil {
		return fmt.Errorf("service %s: %w", name, err)
	}
	defer log.Close()
	// What it starts has the same limit. Where that may not be raised, it stays as it is.
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: openFiles, Max: openFiles})
	for wait := firstWait; ; wait = min(2*wait, longWait) {
		began := time.Now()
		code, err := once(ctx, h, s, log)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil && s.Final != 0 && code == s.Final {
			fmt.Fprintf(log, "supervise: %s ended with exit code %d, for good\n", name, code)
			return nil
		}
		if time.Since(began) > settled {
			wait = firstWait
		}
		if err == nil {
			err = fmt.Errorf("exit code %d", code)
		}
		fmt.Fprintf(log, "supervise: %s ended: %s; it is started again in %s\n", name, err, wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// once runs the service to its end. It is in a group of its own, of which nothing is left then, and dies with its supervisor.
func once(ctx context.Context, h Host, s Service, log io.Writer) (code int, err error) {
	var env []string
	if s.EnvFile != "" {
		if env, err = readEnv(h.path(s.EnvFile)); err != nil {
			return 0, err
		}
	}
	runtime.LockOSThread() // Pdeathsig is about the thread that started the child
	defer runtime.UnlockOSThread()
	cmd := exec.Command(s.Exec[0], s.Exec[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.WaitDelay = time.Second // for output of what it leaves behind
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid := cmd.Process.Pid
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		syscall.Kill(pid, syscall.SIGTERM)
		select {
		case err = <-ended:
		case <-time.After(grace):
			syscall.Kill(-pid, syscall.SIGKILL)
			err = <-ended
		}
	}
	syscall.Kill(-pid, syscall.SIGKILL) // ESRCH: nothing is left
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// readEnv reads NAME=VALUE lines; a value may be in single or double quotes, which mean nothing more. No file means none.
func readEnv(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var env []string
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%s:%d: not of the form NAME=VALUE", path, i+1)
		}
		if n := len(value); n >= 2 && (value[0] == '\'' || value[0] == '"') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		env = append(env, name+"="+value)
	}
	return env, nil
}

// rotated is a log's file that begins anew when it is full; the one before it stays as NAME.1.
type rotated struct {
	path string
	most int64
	mu   sync.Mutex
	f    *os.File
	size int64
}

func openLog(path string, most int64) (*rotated, error) {
	r := &rotated{path: path, most: most}
	return r, r.open()
}

func (r *rotated) open() error {
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r.f, r.size = f, info.Size()
	return nil
}

// Write never fails: a service does not end because its log's disk is full.
func (r *rotated) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.size+int64(len(p)) > r.most && r.size > 0 {
		old := r.f
		if os.Rename(r.path, r.path+".1") == nil && r.open() == nil {
			old.Close()
		}
	}
	n, err := r.f.Write(p)
	r.size += int64(n)
	_ = err
	return len(p), nil
}

func (r *rotated) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.f.Close()
}

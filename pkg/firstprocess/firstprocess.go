// Package firstprocess is what the first process of a container has to do for the one that it was started for: pass signals on
// to it, wait for the orphans that the kernel gives it, and end as that one ended.
package firstprocess

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// passed are the signals that mean the program, not its first process.
var passed = []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}

// Run starts a program with this process's standard streams, passes signals on to it, and returns when it has ended: its
// exit code, or 128 and the number of the signal that ended it, as shells have it. Every child that ends meanwhile, whoever started
// it, is waited for: nothing else in this process may wait for children of its own.
func Run(program string, args, environ []string) (code int, err error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", program, err)
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, passed...)
	defer signal.Stop(signals)
	p, err := os.StartProcess(path, append([]string{program}, args...), &os.ProcAttr{Env: environ, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", program, err)
	}
	pid := p.Pid
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				syscall.Kill(pid, s.(syscall.Signal)) // it has ended if that fails, which is heard below
			case <-ended:
				return
			}
		}
	}()
	defer close(ended)
	for {
		var status syscall.WaitStatus
		switch one, err := syscall.Wait4(-1, &status, 0, nil); {
		case errors.Is(err, syscall.EINTR), err == nil && one != pid:
		case err != nil:
			return 0, fmt.Errorf("wait for %s: %w", program, err)
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		default:
			return status.ExitStatus(), nil
		}
	}
}

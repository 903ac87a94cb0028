package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// privateEnv says that this process has a network and mounts of its own.
const privateEnv = "MILLRACE_CHAOS_PRIVATE"

func private() bool { return os.Getenv(privateEnv) != "" }

// inPrivate runs this program again with a network and mounts of its own, and gives its exit code: bridges, namespaces and file
// systems that it makes there end with it, however it ends. Where the machine does not allow that, it says so, and done is false.
func inPrivate() (code int, done bool) {
	if private() {
		return 0, false
	}
	if _, err := exec.LookPath("ip"); err != nil {
		fmt.Fprintln(os.Stderr, "chaos: no `ip` (package iproute2) here: the machines get no networks of their own, so there will be no partitions")
		return 0, false
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 2, true
	}
	c := exec.Command(self, os.Args[1:]...)
	c.Env = append(os.Environ(), privateEnv+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
	if id := os.Getuid(); id != 0 {
		c.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(ends)
	if err := c.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "chaos: the machines get no networks of their own, so there will be no partitions: %v\n", err)
		return 0, false
	}
	go func() {
		for s := range ends { // Ctrl-C has reached it by itself
			if s == syscall.SIGTERM {
				_ = c.Process.Signal(s) // it may have ended
			}
		}
	}()
	err = c.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 2, true
	}
	return c.ProcessState.ExitCode(), true
}

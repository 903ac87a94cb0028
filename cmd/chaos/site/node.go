package site

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	restartAfter = 300 * time.Millisecond // a service manager's pause
	stopWithin   = 30 * time.Second       // between SIGTERM and SIGKILL, at the end
)

// node is one machine and the process on it that is started again whenever it ends.
type node struct {
	name, role string
	ip         string
	enter      []string // the command that runs another one on the machine
	disk       string   // the machine's disk
	log        string
	argv, env  []string
	event      func(string, map[string]any)

	mu      sync.Mutex
	process *os.Process
	held    chan struct{} // not nil: it stays down until this is closed
	ending  bool
	done    chan struct{}
}

func (n *node) data() string { return filepath.Join(n.disk, "data") }
func (n *node) url() string  { return "https://" + n.ip + ":7400" }

// start begins to supervise the process.
func (n *node) start() {
	n.done = make(chan struct{})
	go func() {
		defer close(n.done)
		for n.once() {
			time.Sleep(restartAfter)
		}
	}()
}

// once runs the process to its end, and says whether it is to be started again.
func (n *node) once() bool {
	n.mu.Lock()
	for n.held != nil {
		held := n.held
		n.mu.Unlock()
		<-held
		n.mu.Lock()
	}
	if n.ending {
		n.mu.Unlock()
		return false
	}
	c, err := n.launch()
	n.mu.Unlock()
	if err != nil {
		n.event("a node cannot be started", map[string]any{"node": n.name, "error": err.Error()})
		return true
	}
	err = c.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process = nil
	if n.ending {
		return false
	}
	n.event("a node ended", map[string]any{"node": n.name, "pid": c.Process.Pid, "how": fmt.Sprint(err), "struck": n.held != nil})
	return true
}

func (n *node) launch() (*exec.Cmd, error) {
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	argv := append(append([]string{}, n.enter...), n.argv...)
	c := exec.Command(argv[0], argv[1:]...)
	c.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + n.disk, "TMPDIR=" + os.TempDir()}, n.env...)
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		return nil, err
	}
	n.process = c.Process
	return c, nil
}

// signal sends a signal to the process, if there is one.
func (n *node) signal(sig syscall.Signal) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process != nil && n.process.Signal(sig) == nil
}

// is says whether it is the node's own process.
func (n *node) is(pid int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process != nil && n.process.Pid == pid
}

// hold keeps the process down, once it has ended, until release.
func (n *node) hold() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.held == nil {
		n.held = make(chan struct{})
	}
}

func (n *node) release() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.held != nil {
		close(n.held)
		n.held = nil
	}
}

// stop asks the process to end for good.
func (n *node) stop() {
	n.release()
	n.mu.Lock()
	n.ending = true
	n.mu.Unlock()
	n.signal(syscall.SIGCONT)
	n.signal(syscall.SIGTERM)
}

// wait waits for the end that stop asked for.
func (n *node) wait() error {
	if n.done == nil {
		return nil
	}
	timer := time.NewTimer(stopWithin)
	defer timer.Stop()
	select {
	case <-n.done:
		return nil
	case <-timer.C:
	}
	n.signal(syscall.SIGQUIT) // its log then says what it was doing
	timer.Reset(time.Second)
	select {
	case <-n.done:
	case <-timer.C:
		n.signal(syscall.SIGKILL)
		<-n.done
	}
	return fmt.Errorf("%s did not end within %v of SIGTERM: %s says what it was doing", n.name, stopWithin, n.log)
}

package devcluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	firstBackoff = 100 * time.Millisecond
	mostBackoff  = 5 * time.Second
	settled      = 10 * time.Second // a process that ran so long starts with the first backoff again
)

// process is one node, kept running as a service manager would.
type process struct {
	name   string
	binary string
	argv   []string
	env    []string
	log    string                 // file
	stdin  <-chan string          // one text to hand over once it is there; nil: no input
	input  string                 // that text
	files  []*os.File             // inherited: the lifeline, the lock
	say    func(string, ...any)   // to the user
	gaveUp func(p *process) error // asked after each early end; an error ends the supervision
	last   int                    // exit code after which it is not started again; 0: there is none

	stopping chan struct{} // closed: end it
	ended    chan struct{} // closed when nothing of it runs any more
	stopOnce sync.Once
	launched bool // supervise was called

	mu   sync.Mutex
	pid  int
	ends int  // how often it has ended by itself
	left bool // it has ended for good
}

// gone says whether the process has ended for good.
func (p *process) gone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.left
}

func (p *process) init() {
	p.stopping, p.ended = make(chan struct{}), make(chan struct{})
}

// supervise runs the process again and again until stop.
func (p *process) supervise() {
	defer close(p.ended)
	backoff := firstBackoff
	for {
		started := time.Now()
		err := p.once()
		select {
		case <-p.stopping:
			return
		default:
		}
		if time.Since(started) > settled {
			backoff = firstBackoff
		}
		p.mu.Lock()
		p.ends++
		pid := p.pid
		var exit *exec.ExitError
		p.left = p.last != 0 && errors.As(err, &exit) && exit.ExitCode() == p.last
		left := p.left
		p.mu.Unlock()
		if left {
			p.say("%s (pid %d) ended for good: %s", p.name, pid, p.tail())
			return
		}
		if p.gaveUp(p) != nil {
			return
		}
		p.say("%s (pid %d) ended: %s; it is started again in %s, its log: %s", p.name, pid, why(err), backoff, p.log)
		select {
		case <-time.After(backoff):
		case <-p.stopping:
			return
		}
		backoff = min(2*backoff, mostBackoff)
	}
}

func why(err error) string {
	if err == nil {
		return "exit code 0"
	}
	return strings.Replace(err.Error(), "exit status", "exit code", 1)
}

// once starts the process and waits for its end.
func (p *process) once() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.binary, p.argv...)
	cmd.Env, cmd.ExtraFiles = p.env, p.files
	cmd.Stdout, cmd.Stderr = log, log
	// Its own group: Ctrl-C in the terminal reaches us alone, and we end nodes in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var input io.WriteCloser
	if p.stdin != nil {
		if input, err = cmd.StdinPipe(); err != nil {
			return err
		}
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.mu.Lock()
	p.pid = cmd.Process.Pid
	p.mu.Unlock()
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	if input != nil {
		if done, err := p.feed(input, exited); done {
			return err
		}
	}
	select {
	case err := <-exited:
		killGroup(cmd.Process.Pid)
		return err
	case <-p.stopping:
	}
	cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err = <-exited:
	case <-time.After(grace):
		err = fmt.Errorf("it did not end within %s and was killed", grace)
		killGroup(cmd.Process.Pid)
		<-exited
	}
	killGroup(cmd.Process.Pid)
	return err
}

// feed hands over the input when it is there. done means that the process ended, or is to end, before.
func (p *process) feed(w io.WriteCloser, exited chan error) (done bool, err error) {
	defer w.Close()
	if p.input == "" {
		select {
		case p.input = <-p.stdin:
		case err := <-exited:
			return true, err
		case <-p.stopping:
			return false, nil
		}
	}
	io.WriteString(w, p.input) // a process that has ended shows elsewhere
	return false, nil
}

// killGroup ends whatever is left of a process's group.
func killGroup(pid int) {
	if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// stop asks the process to end; ended says when it has.
func (p *process) stop() { p.stopOnce.Do(func() { close(p.stopping) }) }

// tail is the end of the process's log, for an error.
func (p *process) tail() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return filepath.Base(p.log) + ": " + strings.Join(lines[max(0, len(lines)-5):], "\n"+filepath.Base(p.log)+": ")
}

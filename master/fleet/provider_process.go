package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ProcessProvider is the name of the provider whose nodes are processes of this machine.
const ProcessProvider = "process"

const (
	endsWithin = 8 * time.Second // between SIGTERM and SIGKILL
	endsLook   = 20 * time.Millisecond
	startsLook = time.Millisecond
)

// ProcessConfig sets up a Processes.
type ProcessConfig struct {
	Dir    string   // folder of the nodes, one below it for each
	Binary string   // millrace itself
	Args   []string // more of them, for each node
	Env    []string
	Files  []*os.File // that each node inherits, from descriptor 3 on: what ends it with the process that holds their other end
}

// Processes is a provider whose nodes are processes of this machine, each with a folder of its own. They outlive the master that started
// them; all masters that use the folder have to be of this machine. What runs is read from the system's table of processes: each has its
// folder in its arguments, so that there is no record that could be wrong, and no process of somebody else is taken for one.
type Processes struct {
	cfg    ProcessConfig
	starts sync.Mutex // one at a time, so that nothing is started twice

	mu       sync.Mutex
	children map[int]bool // that this process has started and not reaped
}

// NewProcesses makes the folder.
func NewProcesses(c ProcessConfig) (*Processes, error) {
	abs, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("nodes of this machine: %w", err)
	}
	c.Dir = abs
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return nil, fmt.Errorf("nodes of this machine: %w", err)
	}
	return &Processes{cfg: c, children: map[int]bool{}}, nil
}

// Revives says that a node whose process has died is started again on its folder.
func (p *Processes) Revives() bool { return true }

// Launch starts the node of a key, unless it runs. One that has joined before goes on where it was.
func (p *Processes) Launch(ctx context.Context, r Request) (string, error) {
	p.starts.Lock()
	defer p.starts.Unlock()
	running, err := p.running()
	if err != nil {
		return "", err
	}
	dir := p.dir(r.Key)
	if len(running[r.Key]) > 0 {
		return dir, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("start node %s: %w", r.Key, err)
	}
	token := filepath.Join(dir, "token")
	args := append([]string{"worker", "run", "--dir", dir, "--name", r.Role + "-" + strings.ToLower(strings.TrimPrefix(r.Key, "l-"))}, p.listen(r)...)
	for _, m := range r.Masters {
		args = append(args, "--join", m)
	}
	if _, err := os.Stat(filepath.Join(dir, "node.json")); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(token, []byte(r.Token+"\n"), 0o600); err != nil {
			return "", fmt.Errorf("start node %s: %w", r.Key, err)
		}
		args = append(args, "--token", "@"+token)
	} else if err := os.Remove(token); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("start node %s: %w", r.Key, err)
	}
	if err := p.start(ctx, dir, append(args, p.cfg.Args...)); err != nil {
		return "", fmt.Errorf("start node %s: %w", r.Key, err)
	}
	return dir, nil
}

// listen has a node serve where the masters do: on the loopback interface alone if they do.
func (p *Processes) listen(r Request) []string {
	host := ""
	if len(r.Masters) > 0 {
		if u, err := url.Parse(r.Masters[0]); err == nil {
			host = u.Hostname()
		}
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		at := net.JoinHostPort(host, "0")
		return []string{"--listen", at, "--gossip-listen", at}
	}
	return []string{"--listen", ":0", "--gossip-listen", ":0", "--advertise", host}
}

// start starts a node in a session of its own: what ends this master's group does not end it. It waits until the node is to be found
// among the processes.
func (p *Processes) start(ctx context.Context, dir string, args []string) error {
	log, err := os.OpenFile(filepath.Join(dir, "worker.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.cfg.Binary, args...)
	cmd.Dir, cmd.Env, cmd.ExtraFiles = dir, p.cfg.Env, p.cfg.Files
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	p.mu.Lock()
	p.children[pid] = true
	p.mu.Unlock()
	if err := cmd.Process.Release(); err != nil { // it is reaped when the processes are looked at
		return err
	}
	return p.shows(ctx, pid)
}

// shows waits until a child's arguments can be read, or it has ended: what is executed has none for a moment.
func (p *Processes) shows(ctx context.Context, pid int) error {
	for len(arguments(pid)) == 0 {
		p.reap()
		p.mu.Lock()
		runs := p.children[pid]
		p.mu.Unlock()
		if !runs {
			return nil
		}
		select {
		case <-time.After(startsLook):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (p *Processes) dir(key string) string { return filepath.Join(p.cfg.Dir, key) }

// Terminate ends the node of a key and deletes its folder.
func (p *Processes) Terminate(ctx context.Context, key, _ string) error {
	if key != filepath.Base(key) || key == "." || key == ".." {
		return fmt.Errorf("node %q: that is no key", key)
	}
	began := time.Now()
	for signal := syscall.SIGTERM; ; {
		running, err := p.running()
		if err != nil {
			return err
		}
		if len(running[key]) == 0 {
			break
		}
		for _, pid := range running[key] {
			p.signal(pid, key, signal)
		}
		if time.Since(began) > endsWithin {
			signal = syscall.SIGKILL
		}
		select {
		case <-time.After(endsLook):
		case <-ctx.Done():
			return fmt.Errorf("node %s does not end: %w", key, context.Cause(ctx))
		}
	}
	if err := os.RemoveAll(p.dir(key)); err != nil {
		return fmt.Errorf("folder of node %s: %w", key, err)
	}
	return nil
}

// signal signals a process and those of its group, if it is a node's still: the handle is of one process, whoever may get its number next.
func (p *Processes) signal(pid int, key string, signal syscall.Signal) {
	handle, err := os.FindProcess(pid)
	if err != nil {
		return
	}
	defer handle.Release()
	if keyOf(p.cfg.Dir, arguments(pid)) != key || !leads(pid) {
		return
	}
	if signal == syscall.SIGKILL {
		_ = syscall.Kill(-pid, signal) // what is of its group, too
	}
	_ = handle.Signal(signal) // os.ErrProcessDone: so much the better
}

// List says which nodes run.
func (p *Processes) List(context.Context) (map[string]string, error) {
	running, err := p.running()
	if err != nil {
		return nil, err
	}
	machines := map[string]string{}
	for key := range running {
		machines[key] = p.dir(key)
	}
	return machines, nil
}

// running finds the nodes' processes, by key. Those of our own that have ended are reaped on the way.
func (p *Processes) running() (map[string][]int, error) {
	p.reap()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("which nodes run: %w", err)
	}
	found := map[string][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// Just after a fork a child still looks as its parent does; but it leads no group.
		if key := keyOf(p.cfg.Dir, arguments(pid)); key != "" && leads(pid) {
			found[key] = append(found[key], pid)
		}
	}
	return found, nil
}

func (p *Processes) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pid := range p.children {
		if ended, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); ended == pid || err != nil && !errors.Is(err, syscall.EINTR) {
			delete(p.children, pid)
		}
	}
}

// leads says whether a process leads a group, as nodes do.
func leads(pid int) bool {
	group, err := syscall.Getpgid(pid)
	return err == nil && group == pid
}

// arguments are those that a process was started with; none if it is gone, or ended and not reaped.
func arguments(pid int) []string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil || len(data) == 0 {
		return nil
	}
	return strings.Split(string(bytes.TrimSuffix(data, []byte{0})), "\x00")
}

// keyOf is the key of the node that a process with such arguments is; "" if it is none.
func keyOf(dir string, args []string) string {
	i := slices.Index(args, "--dir")
	if i < 2 || i+1 >= len(args) || args[i-2] != "worker" || args[i-1] != "run" {
		return ""
	}
	if parent, key := filepath.Split(args[i+1]); filepath.Clean(parent) == dir && key != "" {
		return key
	}
	return ""
}

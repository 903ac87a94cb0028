package attempt

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protodelim"

	"millrace/pkg/api"
	"millrace/pkg/protocol"
)

const (
	maxMessage   = 64 << 20
	cancelWithin = 500 * time.Millisecond // for the child to end its attempt by itself
	termWithin   = 400 * time.Millisecond // for SIGTERM to work
	killWithin   = 5 * time.Second        // for all of a child to be gone that was killed; a busy machine takes its time
	retireGrace  = 300 * time.Millisecond // for a child that is no longer needed to go by itself
	exitWithin   = 3 * time.Second        // for a child that has closed its socket to be seen to end
)

// child is one process. Its methods are for the one goroutine that has it,
// except over, destroy and pid.
type child struct {
	cmd   *exec.Cmd
	conn  net.Conn
	pump  *pump
	tree  tree
	log   *zap.Logger
	exe   string
	job   string // of its first lease; "" before
	user  bool   // runs a user's executable
	gid   uint32 // its own group; 0: it is the worker's
	leave func() // takes it off the pool's list

	version  string // the worker's
	protocol uint32 // that is spoken, after ready

	helloWithin, writeWithin time.Duration

	ready    chan struct{} // closed after Hello and Welcome, or with helloErr
	helloErr error
	msgs     chan *api.FromChild // closed when the socket is
	gone     chan struct{}       // closed by destroy: nobody reads msgs any more
	exited   chan struct{}
	state    *os.ProcessState // after exited

	hitsMu  sync.Mutex
	hits    hits // not seen off yet
	write   sync.Mutex
	ending  sync.Once
	readers sync.WaitGroup
}

// start starts a child process. It does not wait for its Hello.
func (p *Pool) start(exe string, user bool) (*child, error) {
	p.mu.Lock()
	if p.closed || !p.open {
		p.mu.Unlock()
		return nil, errClosed
	}
	p.serial++
	token := p.prefix + "-" + strconv.Itoa(p.serial)
	gid, err := uint32(0), error(nil)
	if p.cfg.User != nil {
		gid, err = p.ids.take()
	}
	if err != nil {
		p.mu.Unlock()
		return nil, err
	}
	p.wg.Add(1) // Close waits for the start and for the child's end
	p.mu.Unlock()

	c, err := p.launch(exe, user, token, gid)
	if err != nil {
		p.mu.Lock()
		p.ids.giveBack(gid)
		p.mu.Unlock()
		p.wg.Done()
		return nil, err
	}
	p.mu.Lock()
	p.live[c] = struct{}{}
	closed := p.closed
	p.mu.Unlock()
	if closed { // Close has missed this one
		c.destroy(0)
		return nil, errClosed
	}
	return c, nil
}

var errClosed = errors.New("the worker is shutting down")

// launch starts it, where children run as another user in the group gid.
func (p *Pool) launch(exe string, user bool, token string, gid uint32) (*child, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket for a child: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "attempt"), os.NewFile(uintptr(fds[1]), "attempt")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return nil, fmt.Errorf("socket for a child: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("pipe for a child: %w", err)
	}
	defer w.Close()

	cmd := p.command(exe, user, token)
	cmd.SysProcAttr.Credential = p.cfg.User.credential(gid)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = w, w, []*os.File{theirs}
	p.spawn.do(func() { err = startBusy(cmd) })
	if err != nil {
		conn.Close()
		r.Close()
		return nil, fmt.Errorf("start %s: %w", exe, err)
	}
	// The kernel, when short of memory, is to take attempts before nodes.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", cmd.Process.Pid), []byte("500"), 0)

	c := &child{
		cmd: cmd, conn: conn, exe: exe, user: user, pump: startPump(r),
		tree: tree{token: token, root: cmd.Process.Pid}, gid: gid, log: p.cfg.Log,
		hits: hits{}, ready: make(chan struct{}), msgs: make(chan *api.FromChild, 16),
		gone: make(chan struct{}), exited: make(chan struct{}),
		version: p.cfg.Version, helloWithin: p.cfg.Hello, writeWithin: p.cfg.Write,
	}
	if gid != 0 {
		c.tree.gids = gids{gid, 1}
	}
	c.tree.group = p.groups.put(token, c.pid())
	c.leave = func() {
		c.tree.group.remove()
		p.mu.Lock()
		delete(p.live, c)
		p.ids.giveBack(gid)
		p.mu.Unlock()
		p.wg.Done()
	}
	c.readers.Go(c.read)
	c.readers.Go(func() {
		// The error repeats what the state says.
		_ = cmd.Wait()
		c.state = cmd.ProcessState
		close(c.exited)
	})
	return c, nil
}

// ownImage is the file that this process was started from, though another has taken its name since: who upgrades a
// machine replaces the file first, and starts the worker again later.
const ownImage = "/proc/self/exe"

func (p *Pool) command(exe string, user bool, token string) *exec.Cmd {
	var args []string
	if !user {
		args = p.cfg.Args
	}
	cmd := exec.Command(exe, args...)
	if !user && p.self {
		cmd.Path = ownImage
	}
	cmd.Dir = p.cfg.Dir
	cmd.Env = append(append([]string{}, p.cfg.Env...), EnvFD+"=3", EnvToken+"="+token)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// startBusy starts cmd; a file that was just written may be busy for an instant, as
// a process forked meanwhile holds it open until it execs.
func startBusy(cmd *exec.Cmd) (err error) {
	for range 20 {
		again := *cmd
		if err = again.Start(); !errors.Is(err, syscall.ETXTBSY) {
			*cmd = again
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return err
}

// read takes messages from the socket until it closes.
func (c *child) read() {
	defer close(c.msgs)
	r := bufio.NewReader(c.conn)
	opts := protodelim.UnmarshalOptions{MaxSize: maxMessage}
	c.helloErr = c.greet(r, opts)
	close(c.ready)
	if c.helloErr != nil {
		return
	}
	for {
		m := &api.FromChild{}
		if err := opts.UnmarshalFrom(r, m); err != nil {
			return // the exit status says more
		}
		select {
		case c.msgs <- m:
		case <-c.gone:
			return
		}
	}
}

func (c *child) greet(r *bufio.Reader, opts protodelim.UnmarshalOptions) error {
	if err := c.conn.SetReadDeadline(time.Now().Add(c.helloWithin)); err != nil {
		return err
	}
	m := &api.FromChild{}
	if err := opts.UnmarshalFrom(r, m); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("it did not begin the attempt protocol within %v; is it made with the SDK, and does its main call it?", c.helloWithin)
	} else if err != nil {
		return fmt.Errorf("it did not speak the attempt protocol: %w", err)
	}
	h := m.GetHello()
	switch {
	case h == nil:
		return errors.New("it did not begin the attempt protocol with Hello")
	case h.ProtocolMin > protocol.Attempt:
		return fmt.Errorf("it speaks the attempt protocol from %d on (SDK %s), and this worker (%s) up to %d: upgrade the workers, or build the program with their version",
			h.ProtocolMin, h.SdkVersion, c.version, protocol.Attempt)
	case h.ProtocolMax < protocol.OldestAttempt:
		return fmt.Errorf("it speaks the attempt protocol up to %d (SDK %s), and this worker (%s) from %d on: build the program again, with the workers' version",
			h.ProtocolMax, h.SdkVersion, c.version, protocol.OldestAttempt)
	}
	if err := c.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	c.protocol = min(h.ProtocolMax, protocol.Attempt)
	return c.send(&api.ToChild{Message: &api.ToChild_Welcome{Welcome: &api.ChildWelcome{Protocol: c.protocol}}})
}

// send writes one message. Any goroutine may call it. After an error part of a message
// may be on its way: the socket is closed, which ends the child.
func (c *child) send(m *api.ToChild) error {
	c.write.Lock()
	defer c.write.Unlock()
	err := c.conn.SetWriteDeadline(time.Now().Add(c.writeWithin))
	if err == nil {
		_, err = protodelim.MarshalTo(c.conn, m)
	}
	if err != nil {
		c.conn.Close()
	}
	return err
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// over says that the process has ended or is no use any more.
func (c *child) over() bool {
	select {
	case <-c.exited:
		return true
	case <-c.gone:
		return true
	default:
		return false
	}
}

// destroy ends the process and all it started, and waits. The process has grace
// to go by itself. Any goroutine may call it, any number of times.
func (c *child) destroy(grace time.Duration) {
	c.ending.Do(func() {
		close(c.gone)
		c.conn.Close() // it ends itself at this
		if grace > 0 && !c.wait(grace) {
			c.tree.signal(unix.SIGTERM, nil, 0)
			c.wait(termWithin)
		}
		c.kill()
		c.pump.close()
		c.readers.Wait()
		c.leave()
	})
}

// endOthers ends what attempts have left running beside the process.
func (c *child) endOthers() {
	c.hitsMu.Lock()
	defer c.hitsMu.Unlock()
	c.tree.endOthers(killWithin, c.hits)
}

// note remembers what the process has started so far, before it is told to end it.
func (c *child) note() {
	c.hitsMu.Lock()
	defer c.hitsMu.Unlock()
	c.tree.note(c.hits)
}

// kill ends everything at once. Only what sits in the kernel (a dead network
// file system) can outlive it.
func (c *child) kill() {
	c.hitsMu.Lock()
	defer c.hitsMu.Unlock()
	c.tree.endNow(killWithin, c.hits, c.exited)
	if !c.wait(killWithin) {
		c.log.Error("a child process outlives SIGKILL", zap.Int("pid", c.pid()))
		<-c.exited
	}
}

func (c *child) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c.exited:
		return true
	case <-t.C:
		return false
	}
}

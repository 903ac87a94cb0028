// Package attempt owns the child processes in which attempts run: it starts
// them, speaks the attempt protocol's worker end with them, keeps their standard
// error, and ends them with everything they started. It does not know where an
// attempt comes from, what becomes of its output, or who hears of its result.
//
// A process-wide effect: an open Pool makes this process the reaper of orphans
// below it.
package attempt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"millrace/pkg/api"
)

// Environment of a child.
const (
	EnvFD    = "MILLRACE_ATTEMPT_FD"   // the socket's descriptor
	EnvToken = "MILLRACE_NODE_ATTEMPT" // marks the child and all it starts
)

// tokenFile, in the attempts' folder, keeps what marks this node's children over its lives.
const tokenFile = ".token"

// Config sets up a Pool. Zero values mean defaults.
type Config struct {
	Dir        string        // children start here; attempts have their directories in it
	Executable string        // for built-in and streaming programs
	Args       []string      // its arguments; default: "attempt"
	Env        []string      // of children; default: what of this process's is nobody's secret
	User       *User         // whom children run as; nil: as this process
	Nice       int           // added to this process's own; default 5
	Idle       time.Duration // how long a child waits for a further attempt of its job; default 3 s
	SpareAfter time.Duration // how long after one was taken a new spare child is started; default 250 ms
	Silence    time.Duration // a child that says nothing for so long is ended; default 2 min
	Hello      time.Duration // within which a child has to begin the protocol; default 30 s
	Write      time.Duration // a child that takes nothing of a message for so long is ended; default 30 s
	NoSpare    bool
	// Disk gives the size and what is free of the file system that Dir is on, in bytes; nil: nobody looks.
	Disk    func() (total, free int64, err error)
	Version string // of the worker, for people
	Logs    *Logs
	Log     *zap.Logger
}

// Attempt is one attempt to be run.
type Attempt struct {
	Lease      *api.ChildLease
	Executable string // of Go programs; "" = the Pool's own
	// Segments brings a reduce its input; nil for maps. The Pool reads it until the attempt ends.
	Segments <-chan []*api.ChildSegment
	// Progress is called as the child reports; it must not block.
	Progress func(*api.ChildProgress)
	// Gone is called once, after Run has returned, when no process of the attempt
	// is alive any more (a child that will do further attempts apart).
	Gone func()
}

// Pool runs attempts in children, of which it keeps one spare. Safe for concurrent use.
type Pool struct {
	cfg    Config
	prefix string // of every token of this node directory
	self   bool   // Executable is this process's own
	spawn  *spawner
	reap   *reaper
	guard  *guard
	groups *confiner
	ids    groupPool // of children; guarded by mu

	wg sync.WaitGroup

	mu       sync.Mutex
	open     bool
	closed   bool
	serial   int
	live     map[*child]struct{}
	spare    *child
	idle     map[*child]*time.Timer
	replacer *time.Timer
}

// New checks the configuration and starts nothing.
func New(c Config) (*Pool, error) {
	switch {
	case c.Dir == "":
		return nil, errors.New("attempt: no directory")
	case c.Executable == "":
		return nil, errors.New("attempt: no executable")
	case c.Logs == nil:
		return nil, errors.New("attempt: no place for logs")
	}
	if c.Args == nil {
		c.Args = []string{"attempt"}
	}
	if c.Env == nil {
		c.Env = childEnv(os.Environ(), c.User)
	}
	if c.Nice == 0 {
		c.Nice = 5
	}
	if c.Idle == 0 {
		c.Idle = 3 * time.Second
	}
	if c.SpareAfter == 0 {
		c.SpareAfter = 250 * time.Millisecond
	}
	if c.Silence == 0 {
		c.Silence = 2 * time.Minute
	}
	if c.Hello == 0 {
		c.Hello = 30 * time.Second
	}
	if c.Write == 0 {
		c.Write = 30 * time.Second
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	own, err := os.Executable()
	return &Pool{cfg: c, self: err == nil && own == c.Executable, live: map[*child]struct{}{}, idle: map[*child]*time.Timer{}}, nil
}

// Open ends what a former life of this node left behind, clears the attempts'
// directories, and starts the spare child.
func (p *Pool) Open(ctx context.Context) error {
	if err := os.MkdirAll(p.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("attempts: %w", err)
	}
	if err := p.cfg.User.Passage(p.cfg.Dir); err != nil {
		return fmt.Errorf("attempts: %w", err)
	}
	prefix, err := tokenPrefix(filepath.Join(p.cfg.Dir, tokenFile))
	if err != nil {
		return fmt.Errorf("attempts: %w", err)
	}
	p.prefix = prefix
	p.ids = groupPool{gids: nodeGroups(prefix), lent: map[uint32]bool{}}
	if err := p.checkUser(); err != nil {
		return fmt.Errorf("attempts: %w", err)
	}
	left := tree{token: prefix + "-", prefix: true, gids: p.ids.gids}
	patience, cancel := context.WithTimeout(ctx, 2*killWithin)
	defer cancel()
	if n := left.end(patience, hits{}, nil); n > 0 {
		p.cfg.Log.Warn("ended processes of a former life", zap.Int("processes", n))
	}
	if err := p.clearDirs(); err != nil {
		return fmt.Errorf("attempts: clear leftovers: %w", err)
	}
	if p.reap, err = startReaper(p.isLive); err != nil {
		return fmt.Errorf("attempts: %w", err)
	}
	closeOnExec()
	p.spawn = startSpawner(p.cfg.Nice, p.cfg.User != nil)
	p.groups = openConfiner(p.prefix[:12], p.cfg.Nice)
	p.guard = startGuard(p.cfg.Disk)
	p.mu.Lock()
	p.open = true
	p.mu.Unlock()
	if err := p.ensureSpare(); err != nil && p.cfg.User != nil {
		return fmt.Errorf("attempts: %w", p.cfg.User.explain(err, p.cfg.Dir, p.cfg.Executable, p.self))
	}
	return nil
}

// Restore makes the attempts' folder anew after somebody has removed it. Children that run go on
// without their directories.
func (p *Pool) Restore() error {
	if err := os.MkdirAll(p.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("attempts: %w", err)
	}
	if err := p.cfg.User.Passage(p.cfg.Dir); err != nil {
		return fmt.Errorf("attempts: %w", err)
	}
	if err := writeToken(filepath.Join(p.cfg.Dir, tokenFile), p.prefix); err != nil {
		return fmt.Errorf("attempts: %w", err)
	}
	return nil
}

func (p *Pool) clearDirs() error {
	entries, err := os.ReadDir(p.cfg.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == tokenFile {
			continue
		}
		if err := RemoveAll(filepath.Join(p.cfg.Dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// ForgetJob ends the idle children of a job.
func (p *Pool) ForgetJob(job string) {
	for _, c := range p.takeIdle(func(c *child) bool { return c.job == job }, -1) {
		p.retire(c, nil)
	}
}

// Close ends all children, and waits. Attempts still in Run fail. Idempotent.
func (p *Pool) Close() error {
	p.mu.Lock()
	if p.closed || !p.open {
		p.closed = true
		p.mu.Unlock()
		p.wg.Wait()
		return nil
	}
	p.closed = true
	if p.replacer != nil {
		p.replacer.Stop()
	}
	var all []*child
	for c := range p.live {
		all = append(all, c)
	}
	for c, t := range p.idle {
		t.Stop()
		delete(p.idle, c)
	}
	p.spare = nil
	p.mu.Unlock()

	var ends sync.WaitGroup
	for _, c := range all {
		ends.Go(func() { c.destroy(0) })
	}
	ends.Wait()
	p.wg.Wait()
	p.guard.stop()
	p.groups.close()
	p.spawn.stop()
	p.reap.stop()
	return nil
}

// get finds a child for the attempt: an idle one of its job, the spare, or a new one.
func (p *Pool) get(a Attempt) (c *child, fresh bool, err error) {
	exe := a.Executable
	if exe == "" {
		exe = p.cfg.Executable
	}
	if l := p.takeIdle(func(c *child) bool { return c.job == a.Lease.Job && c.exe == exe }, 1); len(l) > 0 {
		return l[0], false, nil
	}
	if a.Executable == "" {
		p.mu.Lock()
		c, p.spare = p.spare, nil
		p.mu.Unlock()
		if c != nil {
			p.replaceLater()
			if !c.over() {
				return c, false, nil
			}
			p.retire(c, nil)
		}
	}
	c, err = p.start(exe, a.Executable != "")
	return c, true, err
}

// takeIdle removes up to max (all, if negative) idle children from the pool.
func (p *Pool) takeIdle(fits func(*child) bool, max int) (taken []*child) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c, t := range p.idle {
		if max >= 0 && len(taken) == max {
			break
		}
		if !fits(c) {
			continue
		}
		t.Stop()
		delete(p.idle, c)
		if c.over() {
			p.wg.Go(func() { p.end(c, nil) })
			continue
		}
		taken = append(taken, c)
	}
	return taken
}

// keep lets a child wait for a further attempt of its job.
func (p *Pool) keep(c *child) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return // Close ends it
	}
	if c.over() {
		p.wg.Go(func() { p.end(c, nil) })
		return
	}
	p.idle[c] = time.AfterFunc(p.cfg.Idle, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if _, still := p.idle[c]; still {
			delete(p.idle, c)
			p.wg.Go(func() { p.end(c, nil) })
		}
	})
}

// retire ends a child in the background; once the pool is closing, at once.
func (p *Pool) retire(c *child, gone func()) {
	p.mu.Lock()
	closed := p.closed
	if !closed { // so that Close, which waits, knows of it
		p.wg.Go(func() { p.end(c, gone) })
	}
	p.mu.Unlock()
	if closed {
		p.end(c, gone)
	}
}

func (p *Pool) end(c *child, gone func()) {
	c.destroy(retireGrace)
	if gone != nil {
		gone()
	}
}

func (p *Pool) isLive(pid int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.live {
		if c.pid() == pid {
			return true
		}
	}
	return false
}

func (p *Pool) replaceLater() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	if p.replacer == nil {
		p.replacer = time.AfterFunc(p.cfg.SpareAfter, func() { _ = p.ensureSpare() }) // it is logged
		return
	}
	p.replacer.Reset(p.cfg.SpareAfter)
}

// ensureSpare starts the spare child if there is none. That it cannot be
// started is for the next attempt to find out.
func (p *Pool) ensureSpare() error {
	p.mu.Lock()
	skip := p.closed || p.spare != nil || p.cfg.NoSpare
	p.mu.Unlock()
	if skip {
		return nil
	}
	c, err := p.start(p.cfg.Executable, false)
	if err != nil {
		if !errors.Is(err, errClosed) {
			p.cfg.Log.Warn("start a spare child", zap.Error(err))
		}
		return err
	}
	p.mu.Lock()
	if !p.closed && p.spare == nil {
		p.spare, c = c, nil
	}
	p.mu.Unlock()
	if c != nil {
		p.retire(c, nil)
	}
	return nil
}

package site

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"millrace/cmd/chaos/schedule"
)

// Strike does a fault, and gives what undoes it and what exactly was struck. ErrNothing says that there was nothing to strike.
func (s *Site) Strike(ctx context.Context, f schedule.Fault) (heal func() error, what string, err error) {
	if f.Target == schedule.Store {
		return s.strikeStore(f)
	}
	target := f.Target
	if target == schedule.Leader {
		target = s.Leader(ctx)
	}
	n := s.byName[target]
	if n == nil {
		return nil, "", fmt.Errorf("%w: nobody leads", ErrNothing)
	}
	switch f.Kind {
	case schedule.Kill, schedule.Crash, schedule.Terminate, schedule.Freeze, schedule.Pause:
		heal, err = s.strikeProcess(n, f.Kind)
	case schedule.Fill:
		heal, err = n.fill()
	case schedule.Inodes:
		heal, err = n.fillInodes()
	case schedule.Damage:
		what, err = n.damage(f.Roll)
		return done, n.name + what, err
	case schedule.Wipe:
		heal, what, err = s.wipeSafely(n, []string{"", "segments", "attempts", "logs", "programs", "pki"}[f.Roll%6])
		return heal, n.name + what, err
	case schedule.WipeBlocks:
		heal, what, err = s.wipeSafely(n, blocksDir)
		return heal, n.name + what, err
	case schedule.DamageBlocks:
		what, err = s.damageBlocks(n, f.Roll)
		return done, n.name + what, err
	case schedule.KillAttempt, schedule.FreezeAttempt:
		return s.strikeAttempt(n, f)
	case schedule.Slow:
		heal, err = n.slow()
	default:
		heal, err = s.strikeNetwork(n, f)
	}
	return heal, n.name, err
}

// ErrNothing says that a fault found nothing to strike.
var ErrNothing = errors.New("nothing to strike")

// done is what undoes a fault that nothing undoes.
func done() error { return nil }

// Leader is the master that leads, or led when somebody last answered.
func (s *Site) Leader(ctx context.Context) string {
	_, _ = s.Members(ctx) // an error: the last one known is as good a target
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lead
}

func (s *Site) strikeProcess(n *node, k schedule.Kind) (func() error, error) {
	resume := func() error { n.release(); return nil }
	switch k {
	case schedule.Freeze:
		if !n.signal(syscall.SIGSTOP) {
			return nil, fmt.Errorf("%w: %s is down", ErrNothing, n.name)
		}
		return func() error { n.signal(syscall.SIGCONT); return nil }, nil
	case schedule.Pause:
		return func() error { return s.signalAll(n, syscall.SIGCONT) }, s.signalAll(n, syscall.SIGSTOP)
	case schedule.Crash:
		n.hold()
		return resume, s.signalAll(n, syscall.SIGKILL)
	case schedule.Terminate:
		n.hold()
		n.signal(syscall.SIGTERM)
	default:
		n.hold()
		n.signal(syscall.SIGKILL)
	}
	return resume, nil
}

// strikeAttempt strikes one of the processes that a worker has started.
func (s *Site) strikeAttempt(n *node, f schedule.Fault) (heal func() error, what string, err error) {
	pids, err := s.net.pids(n.name)
	if err != nil {
		return nil, "", err
	}
	pids = slices.DeleteFunc(pids, n.is)
	if len(pids) == 0 {
		return nil, "", fmt.Errorf("%w: nothing runs on %s", ErrNothing, n.name)
	}
	pid := pids[f.Roll%uint64(len(pids))]
	sig := syscall.SIGKILL
	if f.Kind == schedule.FreezeAttempt {
		sig = syscall.SIGSTOP
	}
	if err := syscall.Kill(pid, sig); err != nil {
		return nil, "", fmt.Errorf("%w: process %d of %s: %w", ErrNothing, pid, n.name, err)
	}
	heal = done
	if sig == syscall.SIGSTOP {
		heal = func() error { _ = syscall.Kill(pid, syscall.SIGCONT); return nil } // it may have ended
	}
	return heal, fmt.Sprintf("process %d of %s", pid, n.name), nil
}

// signalAll reaches all that runs on a machine, until nothing new has come up there.
func (s *Site) signalAll(n *node, sig syscall.Signal) error {
	reached := map[int]bool{}
	for fresh := true; fresh; {
		fresh = false
		pids, err := s.net.pids(n.name)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if !reached[pid] {
				fresh, reached[pid] = true, true
				if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
					return fmt.Errorf("signal %v to %d of %s: %w", sig, pid, n.name, err)
				}
			}
		}
	}
	return nil
}

func (s *Site) strikeNetwork(n *node, f schedule.Fault) (func() error, error) {
	var pairs [][2]string // who does not reach whom
	others := []string{s.net.host()}
	for _, o := range s.nodes {
		if o != n && (f.Kind != schedule.Alone || o.role == "master") {
			others = append(others, o.ip)
		}
	}
	if f.Kind == schedule.Alone {
		others = others[1:]
	}
	switch f.Kind {
	case schedule.Isolate, schedule.Alone:
		for _, o := range others {
			pairs = append(pairs, [2]string{n.ip, o}, [2]string{o, n.ip})
		}
	case schedule.Deaf:
		for _, o := range others {
			pairs = append(pairs, [2]string{o, n.ip})
		}
	case schedule.NoStore:
		pairs = [][2]string{{n.ip, s.net.host()}}
	case schedule.OneWay:
		pairs = [][2]string{{n.ip, s.byName[f.Peer].ip}}
	case schedule.Cut:
		p := s.byName[f.Peer].ip
		pairs = [][2]string{{n.ip, p}, {p, n.ip}}
	default:
		return nil, fmt.Errorf("no such fault: %s", f.Kind)
	}
	set := func(on bool) error {
		var err error
		for _, p := range pairs {
			err = errors.Join(err, s.net.silence(p[0], p[1], on))
		}
		return err
	}
	return func() error { return set(false) }, set(true)
}

// slowly are ways to hold up a machine's packets, the best first: not every kernel has each.
var slowly = []string{"netem delay 120ms 60ms loss 2%", "tbf rate 3mbit burst 16kb latency 300ms"}

// canSlow says whether there is a way.
func (n *node) canSlow() bool {
	heal, err := n.slow()
	return err == nil && heal() == nil
}

func (n *node) slow() (func() error, error) {
	tc := func(command string) error {
		out, err := exec.Command(n.enter[0], append(n.enter[1:len(n.enter):len(n.enter)], strings.Fields("tc qdisc "+command)...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("tc qdisc %s: %w: %s", command, err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	var errs error
	for _, way := range slowly {
		err := tc("add dev eth0 root " + way)
		if err == nil {
			return func() error { return tc("del dev eth0 root") }, nil
		}
		errs = errors.Join(errs, err)
	}
	return nil, errs
}

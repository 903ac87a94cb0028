package attempt

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// tree finds what a child has started: by the token in its environment, by its
// process group, by descent. A process has to shed all three to be missed, and where there are control groups, or attempts
// run as another user, in a group that they cannot leave, it cannot.
type tree struct {
	token  string
	prefix bool // token is the beginning of one
	root   int  // the child's pid, and its process group; 0 = none
	group  group
	gids   gids
}

// members lists the processes of the tree, the root as well, zombies too (by descent and
// group alone: they have no environment any more).
func (t tree) members() []process {
	all := processes()
	self := os.Getpid()
	below := map[int]bool{}
	for _, pid := range t.group.members() {
		below[pid] = true
	}
	if t.root != 0 || len(below) > 0 {
		below[t.root] = t.root != 0
		// Parents may come after their children in the list: until nothing is added.
		for more := true; more; {
			more = false
			for _, p := range all {
				if !below[p.pid] && below[p.ppid] && p.pid != self {
					below[p.pid], more = true, true
				}
			}
		}
	}
	var out []process
	for _, p := range all {
		if p.pid == self || p.pid <= 1 || p.state == 'X' {
			continue
		}
		if below[p.pid] || t.root != 0 && p.pgid == t.root || t.gids.hold(p.pid) || carries(p.pid, t.token, t.prefix) {
			out = append(out, p)
		}
	}
	return out
}

// hits are processes that were killed, or found dead, and have yet to be seen off:
// pid to start time, which tells it from a later process of that number.
type hits map[int]uint64

// signal sends sig to every member but spare and adds them to hit, if that is not nil.
func (t tree) signal(sig unix.Signal, hit hits, spare int) (n int) {
	members := t.members()
	if sig == unix.SIGKILL && spare == 0 && len(members) > 0 {
		killGroups(members, t.root, hit)
	}
	for _, p := range members {
		if p.pid == spare {
			continue
		}
		if p.state != 'Z' && unix.Kill(p.pid, sig) == nil {
			n++
		}
		if hit != nil && p.pid != t.root {
			hit[p.pid] = p.start
		}
	}
	return n
}

// killGroups kills whole process groups at one stroke each: what forks without end in one has no time to. What
// it hits is added to hit, if that is not nil, but for the root.
func killGroups(members []process, root int, hit hits) {
	groups := map[int]bool{}
	for _, p := range members {
		if p.pgid > 1 && p.pgid != ownGroup && !groups[p.pgid] {
			groups[p.pgid] = true
			_ = unix.Kill(-p.pgid, unix.SIGKILL) // each member is killed by itself, too
		}
	}
	if hit == nil || len(members) == 1 {
		return
	}
	for _, p := range processes() { // some are younger than the list of members
		if groups[p.pgid] && p.pid != root {
			hit[p.pid] = p.start
		}
	}
}

// note adds the members to hit, to be ended later even if they have by then cut all
// ties to the root: descent is lost when a parent dies.
func (t tree) note(hit hits) { t.signal(0, hit, 0) }

// endNow kills until nothing is left, or time is up: a process may fork while it is being
// killed. exited, if not nil, is closed when the root is gone and reaped, which is its starter's to do.
func (t tree) endNow(within time.Duration, hit hits, exited <-chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	t.end(ctx, hit, exited)
}

// end is endNow until ctx ends. It gives the number of signals it took.
func (t tree) end(ctx context.Context, hit hits, exited <-chan struct{}) (total int) {
	for {
		n := t.signal(unix.SIGKILL, hit, 0)
		total += n
		if n == 0 && t.reap(hit, false) == 0 {
			return total
		}
		wait := time.NewTimer(5 * time.Millisecond)
		select {
		case <-ctx.Done():
			wait.Stop()
			return total
		case <-wait.C:
		case <-exited:
			wait.Stop()
			exited = nil // look once more at once, then at intervals
		}
	}
}

// endOthers kills everything but the root. What the root does not reap stays in hit.
func (t tree) endOthers(within time.Duration, hit hits) {
	for late := time.Now().Add(within); time.Now().Before(late); {
		if t.signal(unix.SIGKILL, hit, t.root) == 0 && t.reap(hit, true) == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// reap sees off those that are dead: it reaps those that have become this process's
// own, and says how many are still dying. The root is left to exec.Cmd. While the
// root lives, those it is the parent of are its own to reap; after its death they come here.
func (t tree) reap(hit hits, rootLives bool) (left int) {
	self := os.Getpid()
	for pid, start := range hit {
		p, there := readStat(pid)
		if !there || p.start != start {
			delete(hit, pid)
			continue
		}
		if p.state == 'Z' && t.root == 0 {
			delete(hit, pid) // a former life's: init has it
			continue
		}
		if p.state == 'Z' && p.ppid == self {
			if got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err != nil || got == pid {
				delete(hit, pid)
				continue
			}
		}
		if p.state != 'Z' {
			_ = unix.Kill(pid, unix.SIGKILL) // noted before, and no member any more
		}
		if p.state != 'Z' || !rootLives {
			left++
		}
	}
	return left
}

package attempt

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"millrace/jobs"
	"millrace/pkg/bytesize"
	"millrace/pkg/shortage"
)

const (
	// lookEvery is between two looks at what the attempts take of the machine; peekEvery between two at how many processes
	// there are at all. Where those have become so many more meanwhile it looks at once.
	lookEvery = time.Second
	peekEvery = 100 * time.Millisecond
	burst     = 256
	// ownThreads are added to what an attempt may have, as control groups count threads, the child's own, too.
	ownThreads = 64
)

// limits are what an attempt may take of its node; 0 = anything.
type limits struct {
	processes int
	memory    int64 // bytes that its processes hold
}

// limitsOf gives an attempt's. What the engine holds in the child is bounded by the same memory, softly: an
// attempt is ended for what is clearly more.
func limitsOf(a Attempt) limits {
	l := limits{processes: jobs.TaskProcesses(a.Lease.GetProgram())}
	if m := a.Lease.MemoryBytes; m > 0 {
		l.memory = m + m/4 + 64<<20
	}
	return l
}

// guard ends attempts of users' programs that take more of the node than they may: processes, memory, disk. It looks at
// them from outside, so that it needs no rights and nothing of the kernel but /proc; what happens between two looks it
// does not see.
type guard struct {
	disk func() (total, free int64, err error) // of the attempts' directories; nil: not known

	mu      sync.Mutex
	watched map[*ward]struct{}
	wake    chan struct{} // capacity 1
	quit    chan struct{}
	done    chan struct{}
}

// ward is one attempt that is watched. What it has taken is the guard's alone.
type ward struct {
	tree    tree
	dir     string
	memory  int64 // as the job has it
	limits  limits
	shipped map[inode]int64
	room    int64       // bytes that there were on the disk when it began
	over    chan string // capacity 1: why it has to end

	groups map[int]bool // process groups of its processes: they outlive descent
	before int64        // processes that were refused to the child before this attempt
	killed int64        // and those that were killed for memory
}

func startGuard(disk func() (total, free int64, err error)) *guard {
	g := &guard{disk: disk, watched: map[*ward]struct{}{},
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	go g.run()
	return g
}

func (g *guard) stop() {
	close(g.quit)
	<-g.done
}

// watch has an attempt watched until release is called. The ward's over says why it has to end.
func (g *guard) watch(c *child, a Attempt) (w *ward, release func()) {
	w = &ward{tree: c.tree, dir: a.Lease.WorkDir, memory: a.Lease.MemoryBytes, limits: limitsOf(a), shipped: shipped(a.Lease), over: make(chan string, 1), groups: map[int]bool{}, before: c.tree.group.refused(), killed: c.tree.group.killed()}
	w.tree.group.limitMemory(w.limits.memory)
	if w.limits.processes > 0 {
		w.tree.group.limit(w.limits.processes + ownThreads)
	} else {
		w.tree.group.limit(0)
	}
	if g.disk != nil {
		if total, free, err := g.disk(); err == nil {
			w.room = max(0, free-shortage.Reserve(total))
		}
	}
	g.mu.Lock()
	g.watched[w] = struct{}{}
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
	return w, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.watched, w)
		w.tree.group.limit(0)
		w.tree.group.limitMemory(0)
	}
}

func (g *guard) run() {
	defer close(g.done)
	tick := time.NewTicker(peekEvery)
	defer tick.Stop()
	var looked time.Time
	var were int
	for {
		list := g.wards()
		if len(list) == 0 {
			select {
			case <-g.wake:
			case <-g.quit:
				return
			}
			continue
		}
		if now, n := time.Now(), tasksOfTheMachine(); now.Sub(looked) >= lookEvery || n > were+burst {
			g.look(list)
			looked, were = now, n
		}
		select {
		case <-tick.C:
		case <-g.quit:
			return
		}
	}
}

func (g *guard) wards() (list []*ward) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for w := range g.watched {
		list = append(list, w)
	}
	return list
}

// tasksOfTheMachine is how many threads there are, of all processes; 0 if that cannot be read.
func tasksOfTheMachine() int {
	data, err := os.ReadFile("/proc/loadavg") // 0.00 0.00 0.00 1/123 456
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(data), "/")
	number, _, _ := strings.Cut(after, " ")
	n, err := strconv.Atoi(number)
	if err != nil {
		return 0
	}
	return n
}

// look sees what each takes, and says so to those who take too much.
func (g *guard) look(list []*ward) {
	of := belonging(processes(), list)
	for _, w := range list {
		if why := w.excess(of[w]); why != "" {
			w.tell(why)
		}
	}
	total, free, full := g.fullDisk()
	if !full {
		return
	}
	for _, w := range list {
		if why := w.fillsDisk(w.filesOf(of[w]), total, free); why != "" {
			w.tell(why)
		}
	}
}

// missed says what an attempt that has come to its end was refused, though its program may not have minded.
func (w *ward) missed() string { return w.excess(nil) }

func (w *ward) tell(why string) {
	select {
	case w.over <- why:
	default: // it has been told
	}
}

// belonging tells which processes are whose: by descent, by process group, and, of those whose parents have died, by the
// token in their environment, or by their child's own group.
func belonging(all []process, list []*ward) map[*ward][]process {
	children := map[int][]process{}
	groups := map[int]*ward{}
	tokens := map[string]*ward{}
	users := map[gids]*ward{}
	for _, p := range all {
		children[p.ppid] = append(children[p.ppid], p)
	}
	for _, w := range list {
		tokens[w.tree.token] = w
		users[w.tree.gids] = w
		for g := range w.groups {
			groups[g] = w
		}
		w.groups = map[int]bool{} // one that is empty by now may be somebody else's next time
	}
	for _, w := range list {
		groups[w.tree.root] = w
	}
	self := os.Getpid()
	of := map[*ward][]process{}
	taken := map[int]bool{self: true}
	take := func(w *ward, top process) {
		for todo := []process{top}; len(todo) > 0; {
			p := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if taken[p.pid] || p.state == 'Z' || p.state == 'X' {
				continue
			}
			taken[p.pid] = true
			of[w] = append(of[w], p)
			if p.pgid > 1 && p.pgid != ownGroup {
				w.groups[p.pgid], groups[p.pgid] = true, w
			}
			todo = append(todo, children[p.pid]...)
		}
	}
	for _, p := range all {
		if w := groups[p.pgid]; w != nil {
			take(w, p)
		}
	}
	for _, p := range children[self] { // orphans: this process has inherited them
		if !taken[p.pid] && p.state != 'Z' {
			w := tokens[tokenOf(p.pid)]
			if gid, ok := groupOf(p.pid); ok && users[gids{gid, 1}] != nil {
				w = users[gids{gid, 1}] // a token is what it says itself
			}
			if w != nil {
				take(w, p)
			}
		}
	}
	return of
}

// excess says what of its node an attempt takes too much.
func (w *ward) excess(processes []process) string {
	most := w.limits.processes
	if most > 0 && (len(processes) > most || w.tree.group.refused() > w.before) {
		return fmt.Sprintf("it had more than %d processes (or threads) at once (-D %s=N sets another limit, 0 none)", most, jobs.TaskProcessesProperty)
	}
	if w.limits.memory <= 0 {
		return ""
	}
	if w.tree.group.killed() > w.killed {
		return w.outOfMemory(max(w.tree.group.most(), w.limits.memory))
	}
	var held int64
	for _, p := range processes {
		held += p.memory
	}
	if held <= w.limits.memory {
		return ""
	}
	held = 0 // what several share was counted for each, and what can be taken back
	for _, p := range processes {
		held += ownMemory(p)
	}
	if held <= w.limits.memory {
		return ""
	}
	return w.outOfMemory(held)
}

func (w *ward) outOfMemory(held int64) string {
	return fmt.Sprintf("out of memory: its processes held %s, of %s that it may use, program included (--memory sets another limit)",
		bytesize.Format(held), bytesize.Format(w.memory))
}

// fillsDisk says that a ward's program has filled the disk by itself: its files are most of the room that there was when it
// began. files is what they take, and the disk is as good as full.
func (w *ward) fillsDisk(files, total, free int64) string {
	if files <= shortage.Reserve(total) || files < w.room/2 {
		return ""
	}
	return fmt.Sprintf("%s: its files take %s, %s free of %s", DiskFilled, bytesize.Format(files), bytesize.Format(free), bytesize.Format(total))
}

// DiskFilled begins the message of an attempt that has filled its node's disk.
const DiskFilled = "its program has filled the disk"

// fullDisk says whether the disk has no room left but the reserve.
func (g *guard) fullDisk() (total, free int64, full bool) {
	if g.disk == nil {
		return 0, 0, false
	}
	total, free, err := g.disk()
	return total, free, err == nil && free <= shortage.Reserve(total)
}

// filled says of an attempt that has come to its end whether it has filled the disk.
func (g *guard) filled(w *ward) string {
	total, free, full := g.fullDisk()
	if !full {
		return ""
	}
	return w.fillsDisk(w.filesOf(w.tree.members()), total, free)
}

package attempt

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// confiner puts children into control groups of their own, in which the kernel counts processes and threads: where this process
// may make some (cgroup v1 and v2, the controller pids), and with v2, where it may arrange its own group, memory and CPU, too. Elsewhere the
// guard's looks are all there is.
type confiner struct {
	dir    string     // the groups' parent; "" = there are none
	memory bool       // the groups bound that
	mu     sync.Mutex // held while a group that nothing is in yet must stay
}

// cgroupRoot is where the kernel shows control groups.
const cgroupRoot = "/sys/fs/cgroup"

// openConfiner makes the parent, below the group that this process is in. Groups of children have together the CPU that
// the niceness stands for.
func openConfiner(name string, nice int) *confiner {
	membership, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return &confiner{}
	}
	base, unified := pidsGroup(membership, cgroupRoot)
	if base == "" {
		return &confiner{}
	}
	if unified {
		return openUnified(cgroupRoot, base, name, nice)
	}
	c := &confiner{dir: filepath.Join(base, "millrace-"+name)}
	if err := os.Mkdir(c.dir, 0o755); err != nil && !os.IsExist(err) {
		return &confiner{}
	}
	c.sweep()
	return c
}

// pidsGroup is the folder of the group that a process is in which counts processes, by its /proc/PID/cgroup; "" if it is in none.
func pidsGroup(membership []byte, root string) (dir string, unified bool) {
	s := bufio.NewScanner(bytes.NewReader(membership))
	for s.Scan() {
		f := strings.SplitN(s.Text(), ":", 3) // hierarchy:controllers:path
		if len(f) != 3 {
			continue
		}
		for name := range strings.SplitSeq(f[1], ",") {
			if name == "pids" {
				return filepath.Join(root, f[1], f[2]), false
			}
		}
		if f[0] == "0" && f[1] == "" {
			dir, unified = filepath.Join(root, f[2]), true
		}
	}
	if dir == "" {
		return "", false
	}
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil || !strings.Contains(" "+strings.TrimSpace(string(have))+" ", " pids ") {
		return "", false
	}
	return dir, true
}

// sweep removes the groups in which nothing is any more.
func (c *confiner) sweep() {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			_ = unix.Rmdir(filepath.Join(c.dir, e.Name())) // refused while something is in it
		}
	}
}

// close removes what can be removed.
func (c *confiner) close() {
	if c.dir != "" {
		c.sweep()
		_ = unix.Rmdir(c.dir)
	}
}

// put makes a group for a process and all that it will start.
func (c *confiner) put(name string, pid int) group {
	if c.dir == "" {
		return group{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sweep() // those of children whose last processes took their time
	g := group{filepath.Join(c.dir, name), c.memory}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return group{}
	}
	if os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0) != nil {
		g.remove()
		return group{}
	}
	return g
}

// group is one child's control group; the zero value is none.
type group struct {
	dir    string
	memory bool // what its processes hold can be bounded
}

// limit bounds the processes and threads in the group; 0 = any number.
func (g group) limit(n int) {
	if g.dir == "" {
		return
	}
	text := "max"
	if n > 0 {
		text = strconv.Itoa(n)
	}
	_ = os.WriteFile(filepath.Join(g.dir, "pids.max"), []byte(text), 0) // then the guard's looks have to do
}

// refused is how many processes and threads the kernel has refused to the group for its own limit. It counts
// those too that it has refused for a limit of a group above, a whole container's, say: they are not meant where the group never had as many
// as it may.
func (g group) refused() (n int64) {
	if g.dir == "" || !g.reached() {
		return 0
	}
	data, err := os.ReadFile(filepath.Join(g.dir, "pids.events"))
	if err != nil {
		return 0
	}
	if _, err := fmt.Sscanf(string(data), "max %d", &n); err != nil {
		return 0
	}
	return n
}

// reached says whether the group has had as many as it may; false if that is not known.
func (g group) reached() bool {
	most, err := g.number("pids.max")
	if err != nil {
		return false // "max"
	}
	peak, err := g.number("pids.peak")
	if err != nil { // an older kernel
		peak, err = g.number("pids.current")
	}
	return err == nil && peak >= most
}

func (g group) number(file string) (int64, error) {
	data, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
}

// members are the processes in the group.
func (g group) members() (pids []int) {
	if g.dir == "" {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// remove removes the group, if nothing is in it any more.
func (g group) remove() {
	if g.dir != "" {
		_ = unix.Rmdir(g.dir)
	}
}

package attempt

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// nodesGroup is where the node's own processes are, beside its children's groups: in version 2 no processes are in a group whose
// memory is shared out among groups below it.
const nodesGroup = "millrace-node"

// openUnified makes the parent in a hierarchy of version 2. Processes are counted wherever that works; memory and CPU are shared out
// only where the group is this process's to arrange.
func openUnified(root, base, name string, nice int) *confiner {
	if filepath.Base(base) == nodesGroup { // another node, or a former life, has been here
		base = filepath.Dir(base)
	}
	c := &confiner{dir: filepath.Join(base, "millrace-"+name)}
	if err := os.Mkdir(c.dir, 0o755); err != nil && !os.IsExist(err) {
		return &confiner{}
	}
	ours := delegated(root, base)
	if ours {
		vacate(base)
	}
	if !enable("pids", base, c.dir) {
		_ = unix.Rmdir(c.dir) // nothing is in it
		return &confiner{}
	}
	if ours {
		c.memory = enable("memory", base, c.dir)
		if enable("cpu", base, c.dir) {
			_ = os.WriteFile(filepath.Join(c.dir, "cpu.weight"), []byte(strconv.Itoa(weightOf(nice))), 0)
		}
	}
	c.sweep()
	return c
}

// delegated says whether a group is this process's to arrange: a container's own, one that systemd says so of (Delegate=), or that of
// a user who is not root.
func delegated(root, dir string) bool {
	if filepath.Clean(dir) == filepath.Clean(root) {
		return true
	}
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		value := make([]byte, 8)
		if n, err := unix.Getxattr(dir, name, value); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && st.Uid != 0 && int(st.Uid) == os.Geteuid()
}

// vacate moves the processes of a group into one below it. The machine's uppermost group, which has no type, can stay as it is. What
// cannot be moved has the controllers refused, which is seen then.
func vacate(base string) {
	if _, err := os.Stat(filepath.Join(base, "cgroup.type")); err != nil {
		return
	}
	node := filepath.Join(base, nodesGroup)
	if err := os.Mkdir(node, 0o755); err != nil && !os.IsExist(err) {
		return
	}
	for _, pid := range (group{dir: base}).members() {
		_ = os.WriteFile(filepath.Join(node, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
	}
}

// enable has the groups below each folder have a controller.
func enable(controller string, dirs ...string) bool {
	for _, d := range dirs {
		if os.WriteFile(filepath.Join(d, "cgroup.subtree_control"), []byte("+"+controller), 0) != nil {
			return false
		}
	}
	return true
}

// weightOf is the share of the CPU that a niceness stands for, of 100: a step is a quarter more or less, as the kernel has it. Niceness
// itself counts among the processes of one group alone.
func weightOf(nice int) int {
	return min(max(int(math.Round(100*math.Pow(0.8, float64(nice)))), 1), 10_000)
}

// limitMemory bounds what the group's processes hold, without swap; beyond it they are all killed. 0 = any amount.
func (g group) limitMemory(bytes int64) {
	if !g.memory {
		return
	}
	most, swap, together := "max", "max", "0"
	if bytes > 0 {
		most, swap, together = strconv.FormatInt(bytes, 10), "0", "1"
	}
	for _, f := range [][2]string{{"memory.oom.group", together}, {"memory.swap.max", swap}, {"memory.max", most}} {
		_ = os.WriteFile(filepath.Join(g.dir, f[0]), []byte(f[1]), 0) // then the guard's looks have to do
	}
}

// killed is how many processes the kernel has killed because the group had reached its own limit of memory.
func (g group) killed() int64 {
	if !g.memory {
		return 0
	}
	data, err := os.ReadFile(filepath.Join(g.dir, "memory.events"))
	if err != nil {
		return 0
	}
	var reached, killed int64
	for line := range strings.Lines(string(data)) {
		var name string
		var n int64
		if _, err := fmt.Sscan(line, &name, &n); err != nil {
			continue
		}
		switch name {
		case "oom": // for a limit above, a whole container's, it is counted there
			reached = n
		case "oom_kill":
			killed = n
		}
	}
	if reached == 0 {
		return 0
	}
	return killed
}

// most is the most that the group's processes have held, in bytes; 0 if the kernel does not say.
func (g group) most() int64 {
	n, err := g.number("memory.peak")
	if err != nil {
		return 0
	}
	return n
}

package task

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// KillAll kills everything the child has started, then the child's own process
// group, itself included. It does not return.
//
// Outside of a group of its own (a child started by hand) it spares the group.
func KillAll() {
	killAllStarted(os.Getenv(TokenEnv))
	if syscall.Getpgrp() == os.Getpid() {
		_ = syscall.Kill(0, syscall.SIGKILL)
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until the signal is here
}

// killAllStarted kills by descent and by token: what has dropped its environment still
// has parents, as long as they live, and what has lost its parents still has the token.
func killAllStarted(token string) {
	killDescendants(os.Getpid()) // first: who dies is no parent any more
	killStarted(token)
}

// killDescendants kills the children of a process, theirs, and so on. All are stopped before
// the first is killed: what is stopped neither forks nor leaves orphans, so that none escapes.
func killDescendants(root int) {
	seen := map[int]bool{root: true}
	var stopped []int
	for range 100 { // rounds; they end with the first that finds nobody new
		found := descendants(parents(), root)
		before := len(stopped)
		for _, pid := range found {
			if !seen[pid] {
				seen[pid] = true
				_ = syscall.Kill(pid, syscall.SIGSTOP)
				stopped = append(stopped, pid)
			}
		}
		if len(stopped) == before {
			break
		}
	}
	for _, pid := range stopped {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// descendants lists those whose line of parents leads to root.
func descendants(parents map[int]int, root int) []int {
	children := map[int][]int{}
	for pid, parent := range parents {
		children[parent] = append(children[parent], pid)
	}
	found := children[root]
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i]]...)
	}
	return found
}

// parents gives the parent of every process, as far as /proc tells.
func parents() map[int]int {
	all := map[int]int{}
	for _, pid := range processes() {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			continue // gone
		}
		if parent, ok := parentOf(stat); ok {
			all[pid] = parent
		}
	}
	return all
}

// parentOf reads the fourth field of a stat file. The second is a name in brackets in
// which anything may stand, brackets too.
func parentOf(stat []byte) (pid int, ok bool) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0, false
	}
	pid, err := strconv.Atoi(string(fields[1]))
	return pid, err == nil
}

// processes lists the ids of all processes; without /proc, none: the process group has to do.
func processes() (pids []int) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil
	}
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// killStarted kills every process but this one whose environment carries the
// token, until there is none left: one may fork while the others are read. Those
// that cannot be read (other users') are not ours. An empty token kills nothing.
func killStarted(token string) {
	if token == "" {
		return
	}
	want := []byte(TokenEnv + "=" + token)
	for range 100 {
		if killOnce(want) == 0 {
			return
		}
	}
}

// killOnce makes one pass over /proc and returns how many were killed in it.
func killOnce(variable []byte) (killed int) {
	self := os.Getpid()
	for _, pid := range processes() {
		if pid == self || pid <= 1 {
			continue
		}
		env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ") // empty once it is dead
		if err != nil || !hasVariable(env, variable) {
			continue
		}
		if syscall.Kill(pid, syscall.SIGKILL) == nil {
			killed++
		}
	}
	return killed
}

// hasVariable says whether a block of NUL-ended variables holds this one, whole.
func hasVariable(env, variable []byte) bool {
	for v := range bytes.SplitSeq(env, []byte{0}) {
		if bytes.Equal(v, variable) {
			return true
		}
	}
	return false
}

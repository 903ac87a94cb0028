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
	killStarted(os.Getenv(TokenEnv))
	if syscall.Getpgrp() == os.Getpid() {
		_ = syscall.Kill(0, syscall.SIGKILL)
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until the signal is here
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
	proc, err := os.Open("/proc")
	if err != nil {
		return 0 // without /proc the process group has to do
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return 0
	}
	self := os.Getpid()
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == self || pid <= 1 {
			continue
		}
		env, err := os.ReadFile("/proc/" + name + "/environ") // empty once it is dead
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

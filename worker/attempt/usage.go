package attempt

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ownGroup is this process's process group, which no attempt has.
var ownGroup = unix.Getpgrp()

// pageSize is what /proc/PID/stat counts memory in.
var pageSize = int64(os.Getpagesize())

// ownMemory is the memory of a process that the kernel cannot take back, in bytes: not what it has mapped of files. Of what it shares
// with others it has its part, as far as the kernel says so.
func ownMemory(p process) int64 {
	for _, source := range []struct {
		file   string
		fields []string
	}{
		{"smaps_rollup", []string{"Pss_Anon:", "Pss_Shmem:", "SwapPss:"}},
		{"status", []string{"RssAnon:", "RssShmem:", "VmSwap:"}},
	} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.pid, source.file))
		if err != nil {
			continue
		}
		if n, ok := sumOf(string(data), source.fields); ok {
			return n
		}
	}
	return p.memory
}

// sumOf adds fields that count KiB, and says whether the first is there.
func sumOf(text string, fields []string) (bytes int64, ok bool) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || !slices.Contains(fields, f[0]) {
			continue
		}
		if kib, err := strconv.ParseInt(f[1], 10, 64); err == nil {
			bytes += kib << 10
			ok = ok || f[0] == fields[0]
		}
	}
	return bytes, ok
}

// tokenOf is the token of the child that has started a process; "" if it has none.
func tokenOf(pid int) string {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return ""
	}
	for one := range bytes.SplitSeq(env, []byte{0}) {
		if token, ok := bytes.CutPrefix(one, []byte(EnvToken+"=")); ok {
			return string(token)
		}
	}
	return ""
}

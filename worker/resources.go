package worker

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const maxReserve = 1 << 30

// memoryForAttempts is this machine's (or container's) memory less a reserve for the
// node itself and whatever else runs here: a quarter, at most 1 GiB.
func memoryForAttempts() (int64, error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	total, ok := memTotal(string(data))
	if !ok {
		return 0, errors.New("/proc/meminfo does not say how much memory there is")
	}
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if data, err := os.ReadFile(path); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64); err == nil && n > 0 {
				total = min(total, n)
			}
		}
	}
	return total - min(total/4, maxReserve), nil
}

func memTotal(meminfo string) (bytes int64, ok bool) {
	for line := range strings.Lines(meminfo) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == "MemTotal:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err == nil && kib > 0
		}
	}
	return 0, false
}

// diskSpace gives a file system's size, and what is free for others than root.
func diskSpace(path string) (total, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize, nil
}

// diskReserve is what attempts and fetches leave free, in bytes; on a small disk a tenth of it.
const diskReserve = 64 << 20

// roomFor gives a function that says how many bytes of the file system may still be written.
func roomFor(path string) func() (int64, error) {
	return func() (int64, error) {
		total, free, err := diskSpace(path)
		return free - min(diskReserve, total/10), err
	}
}

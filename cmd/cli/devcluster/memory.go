package devcluster

import (
	"os"
	"strconv"
	"strings"
)

// machineMemory is how many bytes this machine, or the container it is, has; 0 if
// that cannot be told.
func machineMemory() int64 {
	var total int64
	if data, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemTotal:" {
				kib, _ := strconv.ParseInt(f[1], 10, 64)
				total = kib << 10
			}
		}
	}
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64); err == nil && limit > 0 && (total == 0 || limit < total) {
			total = limit
		}
	}
	return total
}

// nodeMemory divides the machine over its workers; a quarter is left to masters, the store and
// the system.
func nodeMemory(total int64, workers int) int64 {
	if workers == 0 {
		return 0
	}
	return total * 3 / 4 / int64(workers)
}

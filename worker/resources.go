package worker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"millrace/pkg/shortage"
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
	membership, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		membership = nil // without control groups
	}
	for _, path := range memoryLimits("/sys/fs/cgroup", string(membership)) {
		if data, err := os.ReadFile(path); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64); err == nil && n > 0 {
				total = min(total, n)
			}
		}
	}
	return total - min(total/4, maxReserve), nil
}

// memoryLimits lists the files that bound this process's memory: of the control groups that it is in, one in another, and of the
// one that a container sees as the uppermost.
func memoryLimits(root, membership string) (files []string) {
	for line := range strings.Lines(membership) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3) // hierarchy:controllers:path
		if len(f) != 3 {
			continue
		}
		top, file := root, "memory.max"
		switch {
		case slices.Contains(strings.Split(f[1], ","), "memory"):
			top, file = filepath.Join(root, f[1]), "memory.limit_in_bytes"
		case f[0] != "0" || f[1] != "":
			continue
		}
		for dir := filepath.Join("/", f[2]); ; dir = filepath.Dir(dir) {
			files = append(files, filepath.Join(top, dir, file))
			if dir == "/" {
				break
			}
		}
	}
	return files
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

// diskTrouble says what keeps a file system from taking files, other than bytes; "" = nothing.
func diskTrouble(path string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return "", err
	}
	switch {
	case st.Flags&unix.ST_RDONLY != 0:
		return fmt.Sprintf("the disk of %s is read-only: mount it again for writing", path), nil
	case st.Files > 0 && st.Ffree == 0: // some have no fixed number: 0 of 0
		return fmt.Sprintf("the disk of %s has no inodes left for further files: remove some (df -i)", path), nil
	}
	return "", nil
}

// volumeOf names the file system that a path is on, the same for all processes of a machine; "" if that
// is not known.
func volumeOf(path string) string {
	var st unix.Stat_t
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || unix.Stat(path, &st) != nil {
		return ""
	}
	return fmt.Sprintf("%s/%x", strings.TrimSpace(string(boot)), uint64(st.Dev))
}

// roomFor gives a function that says how many bytes of the file system may still be written.
func roomFor(path string) func() (int64, error) {
	return func() (int64, error) {
		total, free, err := diskSpace(path)
		return free - shortage.Reserve(total), err
	}
}

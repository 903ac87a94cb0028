package attempt

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"millrace/jobs"
	"millrace/pkg/api"
)

// What a worker has in an attempt's directory for itself.
const (
	SegmentFile = ".segment" // a map's output, until the worker has taken it over
	SpoolDir    = ".shuffle" // a reduce's input
)

// ofTheEngine are the names at the top of an attempt's directory that the engine has, and what they are there: what lies below them is
// data of the job, which no program is ended for. All other names are the program's.
var ofTheEngine = map[string]fs.FileMode{SegmentFile: 0, SpoolDir: fs.ModeDir, jobs.SpillDir: fs.ModeDir, jobs.CombineDir: fs.ModeDir}

// mostFiles bounds how many files are looked at to find out what an attempt holds, and how many that its processes have open.
const mostFiles = 100_000

// inode is a file, whatever its names.
type inode struct{ dev, number uint64 }

func inodeOf(st *unix.Stat_t) inode { return inode{uint64(st.Dev), st.Ino} }

func sizeOnDisk(st *unix.Stat_t) int64 { return st.Blocks * 512 }

// shipped are the files that an attempt's directory shares with the node's other folders as it begins, and what they take.
func shipped(l *api.ChildLease) map[inode]int64 {
	all := map[inode]int64{}
	for _, f := range l.GetProgram().GetFiles() {
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(l.WorkDir, f.Name), &st) == nil && st.Nlink > 1 {
			all[inodeOf(&st)] = sizeOnDisk(&st)
		}
	}
	return all
}

// written adds up how much of the disk a program's files take, each once.
type written struct {
	shipped map[inode]int64
	counted map[inode]bool // of those that there is more than one way to
	bytes   int64
}

// filesOf is how much of the disk a program's files take, in bytes: those in its attempt's directory, and those that processes of
// it have open on that disk after they were deleted. What vanishes meanwhile is left out.
func (w *ward) filesOf(processes []process) int64 {
	sum := written{shipped: w.shipped, counted: map[inode]bool{}}
	sum.below(w.dir)
	sum.open(w.dir, processes)
	return sum.bytes
}

func (w *written) add(st *unix.Stat_t) {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	id := inodeOf(st)
	if st.Nlink != 1 {
		if w.counted[id] {
			return
		}
		w.counted[id] = true
	}
	w.bytes += max(0, sizeOnDisk(st)-w.shipped[id])
}

// below adds what is in an attempt's directory.
func (w *written) below(dir string) {
	seen, dir := 0, filepath.Clean(dir)
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // gone, or closed to us
		}
		if seen++; seen > mostFiles {
			return fs.SkipAll
		}
		if is, own := ofTheEngine[d.Name()]; own && d.Type() == is && filepath.Dir(path) == dir {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil {
			w.add(&st)
		}
		return nil
	})
}

// open adds what processes have open of the disk that dir is on and nobody finds there any more.
func (w *written) open(dir string, processes []process) {
	var disk unix.Statfs_t
	if unix.Statfs(dir, &disk) != nil {
		return
	}
	seen := 0
	for _, p := range processes {
		fds := fmt.Sprintf("/proc/%d/fd", p.pid)
		entries, err := os.ReadDir(fds)
		if err != nil {
			continue // gone, or closed to us
		}
		for _, e := range entries {
			if seen++; seen > mostFiles {
				return
			}
			// The file itself is asked only if it is deleted: one of a network that is away may not answer.
			path := filepath.Join(fds, e.Name())
			if to, err := os.Readlink(path); err != nil || !strings.HasSuffix(to, " (deleted)") {
				continue
			}
			var st unix.Stat_t
			var on unix.Statfs_t
			if unix.Stat(path, &st) == nil && st.Nlink == 0 && unix.Statfs(path, &on) == nil && on.Type == disk.Type && on.Fsid == disk.Fsid {
				w.add(&st)
			}
		}
	}
}

package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"millrace/hdfs/blockstore"
)

// mountsFile says where the disk was mounted on which each folder of --data-dir lay, when the node kept blocks there last.
const mountsFile = "data-mounts.json"

// mounts are mount points by the folders that lay on them; those of the root file system are not among them.
type mounts map[string]string

// mayBegin refuses to begin anew in a folder without blocks whose disk is not mounted: they would fill the file system that holds the
// bare mount point, and be hidden when the disk is back. A disk that is mounted elsewhere on the way to the folder will do.
func (m mounts) mayBegin(dir string) error {
	point := m[dir]
	if point == "" {
		return nil
	}
	now, err := mountOf(dir)
	if err != nil {
		return err
	}
	bare, err := mountOf(filepath.Dir(point)) // what the folder is on if nothing is mounted there
	if err != nil {
		return err
	}
	if now != "/" && now != bare {
		return nil
	}
	return fmt.Errorf("nothing is mounted at %s, where its disk was: mount it and start the node again, or name another folder with --data-dir", point)
}

// mountOf is the mount point that a folder lies on, or would: as far as it is there.
func mountOf(dir string) (string, error) {
	for {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil {
			return mountPoint(real, device)
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == "/" {
			return "", err
		}
		dir = filepath.Dir(dir)
	}
}

// with is what is known after these disks have been opened.
func (m mounts) with(disks []blockstore.Disk) mounts {
	all := maps.Clone(m)
	if all == nil {
		all = mounts{}
	}
	for _, d := range disks {
		if d.Problem != "" {
			continue
		}
		if point, err := mountOf(d.Dir); err == nil && point != "/" { // of a folder that was a disk once that is remembered
			all[d.Dir] = point
		}
	}
	return all
}

// openDisks opens the disks, and notes where they are mounted. That it cannot be noted, or read, keeps nobody from blocks.
func (w *Worker) openDisks(c blockstore.Config) (*blockstore.Store, error) {
	if len(w.cfg.DataDirs) == 0 {
		return blockstore.Open(c)
	}
	var known mounts
	unknown := func(err error) {
		if err != nil {
			w.log.Warn("where the disks of --data-dir are mounted cannot be remembered: see that they are before the node is started", zap.Error(err))
		}
	}
	_, err := w.dir.ReadJSON(&known, mountsFile)
	unknown(err)
	c.MayBegin = known.mayBegin
	store, err := blockstore.Open(c)
	if err != nil {
		return nil, err
	}
	if now := known.with(store.Disks()); !maps.Equal(now, known) {
		unknown(w.dir.WriteJSON(now, mountsFile))
	}
	return store, nil
}

// disksAreThere says which disk of --data-dir is not mounted: what is on it cannot be deleted then.
func (w *Worker) disksAreThere() error {
	var known mounts
	if _, err := w.dir.ReadJSON(&known, mountsFile); err != nil {
		return nil // it is not known; the next start says so
	}
	for _, dir := range w.cfg.DataDirs {
		if of, err := blockstore.ClusterOf(dir); err != nil || of != "" {
			continue
		}
		if err := known.mayBegin(dir); err != nil {
			return err
		}
	}
	return nil
}

// mountPoint is the highest folder above path, or path itself, that is on the same device; "/" for the root file system.
func mountPoint(path string, device func(string) (uint64, error)) (string, error) {
	own, err := device(path)
	if err != nil {
		return "", err
	}
	for path != "/" {
		above, err := device(filepath.Dir(path))
		if err != nil {
			return "", err
		}
		if above != own {
			break
		}
		path = filepath.Dir(path)
	}
	return path, nil
}

// device is the number of the file system that a file is on.
func device(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("stat %s: %w", path, err)
	}
	return st.Dev, nil
}

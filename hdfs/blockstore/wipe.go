package blockstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Wipe deletes everything that a disk's folder has of a cluster: afterwards it is as new, and any cluster's. A folder of another
// cluster, or of none, stays as it is. Whose it is goes last, so that a wipe that was cut short can be repeated, and nobody
// takes the folder meanwhile.
func Wipe(dir, cluster string) error {
	if err := wipe(dir, cluster); err != nil {
		return fmt.Errorf("wipe %s: %w", dir, err)
	}
	return nil
}

// Discard is Wipe, for a folder that is not to be used again: nothing of a block store is left in it, and it goes too, unless there is
// something else in it or a disk is mounted there.
func Discard(dir, cluster string) error {
	if of, err := ClusterOf(dir); err != nil || of == "" || of != cluster {
		return err
	}
	if err := Wipe(dir, cluster); err != nil {
		return err
	}
	for _, name := range []string{lockFile, diskFile + ".new"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("discard %s: %w", dir, err)
		}
	}
	switch err := unix.Rmdir(dir); err { // no link to a folder: that is somebody else's
	case nil, unix.ENOENT, unix.ENOTEMPTY, unix.EEXIST, unix.EBUSY, unix.ENOTDIR:
		return nil
	default:
		return fmt.Errorf("discard %s: %w", dir, err)
	}
}

// ClusterOf says of which cluster a folder has blocks; "": it is nobody's.
func ClusterOf(dir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, diskFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var is identity
	if err := json.Unmarshal(data, &is); err != nil {
		return "", fmt.Errorf("%s is damaged (%w): empty the folder", filepath.Join(dir, diskFile), err)
	}
	return is.Cluster, nil
}

func wipe(dir, cluster string) (err error) {
	is, err := ClusterOf(dir)
	if err != nil || is == "" || is != cluster {
		return err
	}
	own := osFS{}
	lock, err := own.Lock(filepath.Join(dir, lockFile))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	for _, name := range []string{blocksDir, writingDir, probeFile} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if err := own.SyncDir(dir); err != nil {
		return err
	}
	if err := own.Remove(filepath.Join(dir, diskFile)); err != nil {
		return err
	}
	return own.SyncDir(dir)
}

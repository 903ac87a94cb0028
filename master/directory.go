package master

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// directory is the node's own folder, locked while the node runs:
//
//	node.json      who the node is; written last at the first start
//	seal.key       opens the secrets in the log; never leaves the masters
//	gossip.key
//	pki/           the node's certificate, its key, the site's CA
//	genesis.json   the site to be made; gone once it is in the log
//	admin.json     the administrator's context
//	raft/          log and snapshots
//	tmp/           files on their way to the store; emptied at each start
type directory struct {
	root string
	lock *os.File
}

// openDirectory makes the folder if need be and locks it.
func openDirectory(root string) (*directory, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("master directory: %w", err)
	}
	d := &directory{root: abs}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return nil, fmt.Errorf("master directory: %w", err)
	}
	lock, err := os.OpenFile(d.path("lock"), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("master directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("master directory %s is in use by another master process", abs)
		}
		return nil, fmt.Errorf("lock master directory %s: %w", abs, err)
	}
	d.lock = lock
	if err := os.RemoveAll(d.path("tmp")); err != nil {
		return nil, errors.Join(fmt.Errorf("master directory: %w", err), d.close())
	}
	for _, sub := range []string{"pki", "raft", "tmp"} {
		if err := os.MkdirAll(d.path(sub), 0o700); err != nil {
			return nil, errors.Join(fmt.Errorf("master directory: %w", err), d.close())
		}
	}
	return d, nil
}

// path is a file in the folder.
func (d *directory) path(elem ...string) string {
	return filepath.Join(append([]string{d.root}, elem...)...)
}

// close gives the lock back; the file stays, as removing it would race with the next owner.
func (d *directory) close() error { return d.lock.Close() }

// write replaces a file atomically and durably, mode 0600.
func (d *directory) write(data []byte, elem ...string) (err error) {
	path := d.path(elem...)
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (d *directory) writeJSON(v any, elem ...string) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", d.path(elem...), err)
	}
	return d.write(append(data, '\n'), elem...)
}

// readJSON says whether the file is there.
func (d *directory) readJSON(v any, elem ...string) (bool, error) {
	data, err := os.ReadFile(d.path(elem...))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", d.path(elem...), err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return false, fmt.Errorf("read %s: %w", d.path(elem...), err)
	}
	return true, nil
}

// remove deletes a file if it is there.
func (d *directory) remove(elem ...string) error {
	if err := os.Remove(d.path(elem...)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", d.path(elem...), err)
	}
	return nil
}

package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"millrace/pkg/nodedir"
)

// directory is the node's own folder, locked while the node runs:
//
//	node.json            who the node is; written last at the first start
//	pki/                 its key, certificate, the site's CA, the gossip key
//	term                 the highest term of a leader seen
//	segments/JOB/        map output
//	attempts/ATTEMPT/    where attempts run
//	logs/JOB/            standard error of attempts, until it is in the object store
//	programs/            shipped files by SHA-256
type directory struct {
	root string
	lock *os.File
}

func openDirectory(root string) (*directory, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("worker directory: %w", err)
	}
	d := &directory{root: abs}
	if err := os.MkdirAll(d.path("pki"), 0o700); err != nil {
		return nil, fmt.Errorf("worker directory: %w", err)
	}
	d.lock, err = os.OpenFile(d.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("worker directory: %w", err)
	}
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		d.lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("worker directory %s is %w", abs, nodedir.ErrInUse)
		}
		return nil, fmt.Errorf("lock worker directory %s: %w", abs, err)
	}
	return d, nil
}

func (d *directory) close() error { return d.lock.Close() }

func (d *directory) path(elem ...string) string {
	return filepath.Join(append([]string{d.root}, elem...)...)
}

// write replaces a file, durably: it is either the old one or the new one.
func (d *directory) write(data []byte, elem ...string) error {
	path := d.path(elem...)
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(data) // a temporary file's mode is 0600
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// read gives nil if there is no such file.
func (d *directory) read(elem ...string) ([]byte, error) {
	data, err := os.ReadFile(d.path(elem...))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.path(elem...), err)
	}
	return data, nil
}

func (d *directory) readJSON(v any, name string) (found bool, err error) {
	data, err := d.read(name)
	if err != nil || data == nil {
		return false, err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return false, fmt.Errorf("read %s: %w", d.path(name), err)
	}
	return true, nil
}

func (d *directory) writeJSON(v any, name string) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return d.write(append(data, '\n'), name)
}

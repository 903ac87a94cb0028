// Package nodedir owns the folder that a node keeps everything in: it belongs to one
// process at a time, and a file in it is the old one or the new one, never half of it,
// whatever happens meanwhile. What the files mean is their owner's business.
package nodedir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Format is the arrangement of a node's folder that this program knows. It changes when an older
// program would misread what a newer one has written; folders of earlier formats are read.
const Format = 1

// Why Open refuses a folder.
var (
	ErrInUse = errors.New("in use by another process")
	ErrNewer = errors.New("written by a newer millrace")
)

// formatFile is format.json: who has written the folder last.
type formatFile struct {
	Format  int    `json:"format"`
	Version string `json:"version"` // of the program
}

// Dir is a folder that is locked for this process.
type Dir struct {
	root    string
	version string // of the program
	below   []string
	mu      sync.Mutex
	lock    *os.File
}

// Open makes the folder and the folders below it that are named, if need be, mode 0700, and
// locks it until Close or the process's end. version is the program's, for people. A folder of a
// newer format is ErrNewer, and stays as it is.
func Open(root, version string, below ...string) (*Dir, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("directory %s: %w", root, err)
	}
	d := &Dir{root: abs, version: version, below: below}
	if d.lock, err = d.open(); err != nil {
		return nil, err
	}
	return d, nil
}

// open makes and locks the folder.
func (d *Dir) open() (*os.File, error) {
	if err := os.MkdirAll(d.root, 0o700); err != nil {
		return nil, fmt.Errorf("directory %s: %w", d.root, err)
	}
	lock, err := os.OpenFile(d.Path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("directory %s: %w", d.root, err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = InUse(lock)
		}
		return nil, errors.Join(fmt.Errorf("directory %s: %w", d.root, err), lock.Close())
	}
	if err := errors.Join(d.checkFormat(d.version), SignLock(lock)); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	for _, b := range d.below {
		if err := os.MkdirAll(d.Path(b), 0o700); err != nil {
			return nil, errors.Join(fmt.Errorf("directory %s: %w", d.root, err), lock.Close())
		}
	}
	return lock, nil
}

// checkFormat refuses a newer format, and says who has the folder now.
func (d *Dir) checkFormat(version string) error {
	var was formatFile
	if _, err := d.ReadJSON(&was, "format.json"); err != nil {
		return fmt.Errorf("%w; it only says which version has written the folder: if this one has, remove the file", err)
	}
	if was.Format > Format {
		return fmt.Errorf("directory %s: %w: it has format %d, of version %s; this is version %s, which knows format %d",
			d.root, ErrNewer, was.Format, was.Version, version, Format)
	}
	if now := (formatFile{Format, version}); now != was {
		return d.WriteJSON(now, "format.json")
	}
	return nil
}

// SignLock writes this process's id into a lock's file, for whoever finds it taken.
func SignLock(lock *os.File) error {
	id := strconv.Itoa(os.Getpid()) + "\n"
	if _, err := lock.WriteAt([]byte(id), 0); err != nil {
		return fmt.Errorf("write %s: %w", lock.Name(), err)
	}
	if err := lock.Truncate(int64(len(id))); err != nil {
		return fmt.Errorf("write %s: %w", lock.Name(), err)
	}
	return nil
}

// Signer is the process that has signed a lock's file, 0 if none has.
func Signer(lock *os.File) int {
	buf := make([]byte, 32)
	n, _ := lock.ReadAt(buf, 0) // io.EOF: it is short
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil || pid < 1 {
		return 0
	}
	return pid
}

// InUse is ErrInUse with the process that has the lock.
func InUse(lock *os.File) error {
	if pid := Signer(lock); pid != 0 {
		return fmt.Errorf("%w (pid %d)", ErrInUse, pid)
	}
	return ErrInUse
}

// Close gives the lock back. The lock's file stays: removing it would race with the next owner.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lock.Close()
}

// Lost says whether the folder, or the lock in it, has been removed or replaced by another since
// it was opened.
func (d *Dir) Lost() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, err := os.Stat(d.Path("lock"))
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	ours, err := d.lock.Stat()
	return err == nil && !os.SameFile(now, ours)
}

// Restore makes and locks a folder that was lost anew; what was in it is for its owner to write
// again. ErrInUse means that another process was quicker.
func (d *Dir) Restore() error {
	lock, err := d.open()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.lock
	d.lock = lock
	return old.Close()
}

// Path is a place in the folder.
func (d *Dir) Path(elem ...string) string {
	return filepath.Join(append([]string{d.root}, elem...)...)
}

// Write replaces a file, mode 0600.
func (d *Dir) Write(data []byte, elem ...string) error { return WriteFile(d.Path(elem...), data) }

// Read gives nil if there is no such file.
func (d *Dir) Read(elem ...string) ([]byte, error) {
	data, err := os.ReadFile(d.Path(elem...))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.Path(elem...), err)
	}
	return data, nil
}

// WriteJSON replaces a file by v's JSON.
func (d *Dir) WriteJSON(v any, elem ...string) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", d.Path(elem...), err)
	}
	return d.Write(append(data, '\n'), elem...)
}

// ReadJSON says whether the file is there.
func (d *Dir) ReadJSON(v any, elem ...string) (bool, error) {
	data, err := d.Read(elem...)
	if err != nil || data == nil {
		return false, err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return false, fmt.Errorf("read %s: %w", d.Path(elem...), err)
	}
	return true, nil
}

// Remove deletes a file if it is there.
func (d *Dir) Remove(elem ...string) error {
	if err := os.Remove(d.Path(elem...)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", d.Path(elem...), err)
	}
	return nil
}

// WriteFile replaces a file, mode 0600, atomically and durably: once it returns, the
// new content survives a crash; before, the old one does. Its folder must be there.
func WriteFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// syncDir makes a rename in the folder durable.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

package blockstore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"go.uber.org/zap"

	"millrace/hdfs"
	"millrace/pkg/shortage"
)

// unreadableLimit is of how many replicas a disk that otherwise works may fail to read some before it counts as dying.
const unreadableLimit = 3

// disk is one folder, which is thought of as one disk.
type disk struct {
	s      *Store
	number uint16
	root   string
	id     string
	lock   io.Closer

	booked atomic.Int64 // bytes that writers are about to write

	// Under Store.mu:
	blocks     int                 // final ones
	used       int64               // bytes of theirs
	problem    error               // why it is out
	unreadable map[string]struct{} // folders of replicas
}

func newDisk(s *Store, number uint16, dir string) (*disk, error) {
	root, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("folder %s: %w", dir, err)
	}
	return &disk{s: s, number: number, root: root, unreadable: map[string]struct{}{}}, nil
}

func (d *disk) close() error {
	if d.lock == nil {
		return nil
	}
	return d.lock.Close()
}

// open takes the folder and looks what is in it. A disk that does not work is taken out here; an error means that
// the folder must not be used at all.
func (d *disk) open(cluster string) (found, error) {
	if _, err := d.s.FS.Stat(filepath.Join(d.root, diskFile)); errors.Is(err, fs.ErrNotExist) {
		if err := d.s.MayBegin(d.root); err != nil {
			_ = d.fail(err)
			return found{}, nil
		}
	}
	f, err := d.take(cluster)
	if err == nil {
		return f, nil
	}
	var met *fs.PathError
	switch kind := shortage.Of(err); {
	case kind == shortage.Descriptors || kind == shortage.Processes: // of this process, not of the disk
		err = shortage.Explained(err)
	case kind != shortage.None || errors.As(err, &met):
		d.fail(err)
		return found{}, nil
	}
	return found{}, fmt.Errorf("folder %s: %w", d.root, err)
}

func (d *disk) take(cluster string) (found, error) {
	if err := d.makeDurably(d.root); err != nil {
		return found{}, err
	}
	var err error
	if d.lock, err = d.s.FS.Lock(filepath.Join(d.root, lockFile)); err != nil {
		return found{}, err
	}
	if err := d.identify(cluster); err != nil {
		return found{}, err
	}
	if _, err := d.makeFolders(); err != nil {
		return found{}, err
	}
	return d.scan()
}

// makeDurably makes a folder and those above it.
func (d *disk) makeDurably(path string) error {
	if _, err := d.s.FS.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(path)
	if err := d.makeDurably(parent); err != nil {
		return err
	}
	if err := d.s.FS.Mkdir(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.s.FS.SyncDir(parent)
}

// makeFolders makes the folders for replicas, and names those that were not there. All are synced each time: a process that died may
// have made them without.
func (d *disk) makeFolders() (made []string, err error) {
	blocks := filepath.Join(d.root, blocksDir)
	folders := []string{blocks, filepath.Join(d.root, writingDir)}
	for i := range 256 {
		folders = append(folders, filepath.Join(blocks, shelf(hdfs.BlockID(i))))
	}
	for _, f := range folders {
		switch err := d.s.FS.Mkdir(f); {
		case err == nil:
			made = append(made, f)
		case !errors.Is(err, fs.ErrExist):
			return made, err
		}
	}
	return made, errors.Join(d.s.FS.SyncDir(blocks), d.s.FS.SyncDir(d.root))
}

// identify reads whose disk it is, or writes it if the folder is new.
func (d *disk) identify(cluster string) error {
	path := filepath.Join(d.root, diskFile)
	data, err := d.readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return d.format(cluster)
	}
	if err != nil {
		return err
	}
	i, err := decodeIdentity(data, cluster)
	if err != nil {
		return fmt.Errorf("%s: %w", diskFile, err)
	}
	d.id = i.Disk
	return nil
}

// format makes a new folder this cluster's.
func (d *disk) format(cluster string) error {
	for _, below := range []string{blocksDir, writingDir} {
		names, err := d.replicas(filepath.Join(d.root, below))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if len(names) > 0 {
			return fmt.Errorf("it has blocks (%s) but no %s, which says whose they are: put that file back, or empty the folder", names[0], diskFile)
		}
	}
	i := identity{Format: Format, Cluster: cluster, Disk: rand.Text()}
	path, part := filepath.Join(d.root, diskFile), filepath.Join(d.root, diskFile+".new")
	if err := d.writeFile(part, i.encode()); err != nil {
		return err
	}
	if err := d.s.FS.Rename(part, path); err != nil {
		return err
	}
	d.id = i.Disk
	return d.s.FS.SyncDir(d.root)
}

// replicas names the replicas in a folder and in the shelves in it.
func (d *disk) replicas(dir string) ([]string, error) {
	names, err := d.s.FS.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, name := range names {
		if _, _, ok := parseReplicaName(name); ok {
			all = append(all, filepath.Join(dir, name))
		} else if len(name) == 2 {
			below, err := d.replicas(filepath.Join(dir, name))
			if err != nil {
				return nil, err
			}
			all = append(all, below...)
		}
	}
	return all, nil
}

func (d *disk) readFile(path string) ([]byte, error) {
	f, err := d.s.FS.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.NewSectionReader(f, 0, 64<<10))
}

func (d *disk) writeFile(path string, data []byte) error {
	f, err := d.s.FS.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// remove deletes a replica's folder. The data goes first: without it, what is left is no replica.
func (d *disk) remove(dir string) error {
	for _, path := range []string{filepath.Join(dir, dataFile), filepath.Join(dir, sumsFile), dir} {
		if err := d.s.FS.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// room is the file system's size and what is free, the reserve not yet taken off.
func (d *disk) room() (capacity, free int64, err error) { return d.s.FS.Room(d.root) }

// book sets room aside for bytes that are about to be written; unbook must follow. What is booked counts until it is
// written, so that many writers together cannot use the reserve up.
func (d *disk) book(n int64) error {
	booked := d.booked.Add(n)
	_, free, err := d.room()
	if err == nil && free-booked < d.s.Reserve {
		err = fmt.Errorf("%s: %w: %d bytes are free, and %d are kept so", d.root, hdfs.ErrNoSpace, free, d.s.Reserve)
	}
	if err != nil {
		d.unbook(n)
	}
	return err
}

func (d *disk) unbook(n int64) { d.booked.Add(-n) }

// judge looks at an error that something on the disk has met, says what it means, and takes a broken disk out.
func (d *disk) judge(err error) error {
	if err == nil || errors.Is(err, hdfs.ErrNoSpace) || errors.Is(err, ErrDisk) {
		return err
	}
	switch shortage.Of(err) {
	case shortage.Disk:
		return fmt.Errorf("%w: %w", hdfs.ErrNoSpace, shortage.Explained(err))
	case shortage.Descriptors, shortage.Processes:
		return shortage.Explained(err)
	case shortage.Broken:
		return d.fail(err)
	}
	if gone := d.probe(); gone != nil {
		return d.fail(gone)
	}
	return err
}

// judgeRead is judge for a block that was being read. One place that cannot be read is the replica's misfortune, not
// the disk's, as long as the disk still takes writes and few replicas have that.
func (d *disk) judgeRead(file string, chunk int64, err error) error {
	if errors.Is(err, fs.ErrNotExist) || shortage.Of(err) == shortage.Broken {
		gone := d.probe()
		if gone == nil && shortage.Of(err) == shortage.Broken && d.unreadableNow(filepath.Dir(file)) >= unreadableLimit {
			gone = fmt.Errorf("%d blocks on it could not be read: %w", unreadableLimit, err)
		}
		if gone != nil {
			return d.fail(gone)
		}
		return &CorruptError{File: file, Chunk: chunk, Reason: err.Error()}
	}
	return d.judge(err)
}

// unreadableNow counts the replicas that could not be read, this one among them.
func (d *disk) unreadableNow(dir string) int {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	d.unreadable[dir] = struct{}{}
	return len(d.unreadable)
}

// probe tries the disk: is the folder still the same, and does it take writes?
func (d *disk) probe() error {
	if err := d.same(); err != nil {
		return err
	}
	err := d.writeFile(filepath.Join(d.root, probeFile), []byte("does it take writes?\n"))
	if shortage.Of(err) == shortage.Disk { // full, not broken
		return nil
	}
	return err
}

// same is nil if the folder is there and still the same disk's.
func (d *disk) same() error {
	data, err := d.readFile(filepath.Join(d.root, diskFile))
	if err != nil {
		return err
	}
	if i, err := decodeIdentity(data, d.s.Cluster); err != nil || i.Disk != d.id {
		return fmt.Errorf("%s is another disk's now: it was replaced while in use", filepath.Join(d.root, diskFile))
	}
	return nil
}

// fail takes the disk out.
func (d *disk) fail(cause error) error {
	if d.s.takeOut(d, shortage.Explained(cause)) {
		d.s.Log.Error("a disk has failed and is taken out: its blocks are gone from this node", zap.String("dir", d.root), zap.Error(cause))
		d.s.Failed(d.s.describe(d))
	}
	return fmt.Errorf("%s: %w: %w", d.root, ErrDisk, cause)
}

// down is nil while the disk is in use.
func (d *disk) down() error {
	d.s.mu.RLock()
	defer d.s.mu.RUnlock()
	if d.problem == nil {
		return nil
	}
	return d.failure()
}

// failure is why a disk that is out is out. The caller has Store.mu.
func (d *disk) failure() error { return fmt.Errorf("%s: %w: %w", d.root, ErrDisk, d.problem) }

// takeOut forgets all that lies on a disk; false if that was done before. Writers on it meet the failure themselves.
func (s *Store) takeOut(d *disk, cause error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.problem != nil {
		return false
	}
	d.problem = cause
	for id, e := range s.final {
		if e.disk == d.number {
			delete(s.final, id)
		}
	}
	for id, u := range s.writing {
		if u.d == d {
			delete(s.writing, id)
		}
	}
	d.blocks, d.used = 0, 0
	return true
}

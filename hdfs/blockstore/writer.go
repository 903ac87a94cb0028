package blockstore

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"

	"millrace/hdfs"
)

// writeBehind is after how many bytes the disk begins to write, so that Finalize has little left to wait for.
const writeBehind = 8 << 20

// Writer writes one unfinished replica. Its methods may be called by many, one after another gets its turn. After an
// error that is not about the arguments it is dead, and says so again. Close must be called in any case.
type Writer struct {
	s *Store
	u *unfinished

	mu         sync.Mutex
	data, sums File
	behind     int64 // up to there the disk was told to write
	short      bool  // the last chunk is no whole one: nothing may follow
	err        error // why it is over
}

// Create begins a replica of b's id and stamp; b's size is how much room shall be there, 0 if that is not known.
// hdfs.ErrExist if the block is there with this stamp or a later one. An unfinished replica goes at once, if it has an
// earlier stamp, or this one and nobody writes it: of a copy that broke off. A final one with an earlier stamp goes when
// this one is final. It takes the next disk that has room, of those that have much.
func (s *Store) Create(b hdfs.Block) (*Writer, error) {
	w, err := s.create(b)
	return w, named("create", b.ID, err)
}

func (s *Store) create(b hdfs.Block) (*Writer, error) {
	defer s.ids.lock(b.ID)()
	old, err := s.mayCreate(b)
	if err != nil {
		return nil, err
	}
	if old != nil {
		if err := s.discard(old, stale(old, b.Stamp)); err != nil && !errors.Is(err, ErrDisk) { // on a failed disk it is gone
			return nil, err
		}
	}
	var errs []error
	for _, d := range s.choose(b.Size) {
		w, err := s.createOn(d, b)
		if err == nil {
			return w, nil
		}
		errs = append(errs, err)
		if !errors.Is(err, ErrDisk) && !errors.Is(err, hdfs.ErrNoSpace) {
			break
		}
	}
	if err := s.usable(); err != nil {
		return nil, err
	}
	if errs == nil {
		return nil, fmt.Errorf("%w: no disk has %d bytes beside the %d that are kept free", hdfs.ErrNoSpace, b.Size, s.Reserve)
	}
	return nil, errors.Join(errs...)
}

func stale(u *unfinished, now hdfs.Stamp) error {
	return fmt.Errorf("block %s: %w: it was at stamp %d, and is being written with %d", u.id, hdfs.ErrStale, u.stamp, now)
}

// mayCreate gives the unfinished replica that must go first.
func (s *Store) mayCreate(b hdfs.Block) (*unfinished, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e, ok := s.final[b.ID]; ok && e.stamp >= b.Stamp {
		return nil, fmt.Errorf("%w: final, with stamp %d", hdfs.ErrExist, e.stamp)
	}
	u := s.writing[b.ID]
	if u != nil && (u.stamp > b.Stamp || u.stamp == b.Stamp && u.w != nil) {
		return nil, fmt.Errorf("%w: unfinished, with stamp %d", hdfs.ErrExist, u.stamp)
	}
	return u, nil
}

// createOn makes the files of a new replica.
func (s *Store) createOn(d *disk, b hdfs.Block) (*Writer, error) {
	u := &unfinished{id: b.ID, stamp: b.Stamp, d: d}
	if err := d.again(func() error { return s.FS.Mkdir(u.path()) }); err != nil {
		return nil, d.judge(err)
	}
	w, err := s.openWriter(u, os.O_CREATE|os.O_TRUNC)
	if err == nil {
		if _, werr := w.sums.WriteAt(encodeHeader(hdfs.Block{ID: b.ID, Stamp: b.Stamp}), 0); werr != nil {
			err = errors.Join(d.judge(werr), w.closeFiles())
		}
	}
	if err == nil {
		err = s.register(w)
	}
	if err != nil {
		return nil, errors.Join(err, d.judge(d.remove(u.path())))
	}
	return w, nil
}

// openWriter opens the files of an unfinished replica.
func (s *Store) openWriter(u *unfinished, flag int) (*Writer, error) {
	w := &Writer{s: s, u: u}
	var err error
	if w.data, err = s.FS.OpenFile(filepath.Join(u.path(), dataFile), os.O_RDWR|flag); err != nil {
		return nil, u.d.judge(err)
	}
	if w.sums, err = s.FS.OpenFile(filepath.Join(u.path(), sumsFile), os.O_RDWR|flag); err != nil {
		return nil, errors.Join(u.d.judge(err), w.data.Close())
	}
	return w, nil
}

// register makes a writer its replica's, unless the store or the disk is gone meanwhile.
func (s *Store) register(w *Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.closed {
		err = ErrClosed
	} else if w.u.d.problem != nil {
		err = w.u.d.failure()
	}
	if err != nil {
		return errors.Join(err, w.closeFiles())
	}
	w.u.w = w
	s.writing[w.u.id] = w.u
	return nil
}

// Size is how many bytes are written.
func (w *Writer) Size() int64 { return w.u.size.Load() }

// Write appends whole chunks, each with its CRC32C; only a block's last chunk may be short, and nothing follows it.
// hdfs.ErrCorrupt if a sum does not match: then nothing was written, and the writer may go on. hdfs.ErrNoSpace before
// the reserve is used: then the replica is gone.
func (w *Writer) Write(data []byte, sums []uint32) error {
	w.mu.Lock()
	err := w.write(data, sums)
	w.mu.Unlock()
	if errors.Is(err, hdfs.ErrNoSpace) {
		err = errors.Join(err, w.Discard())
	}
	return named("write", w.u.id, err)
}

func (w *Writer) write(data []byte, sums []uint32) error {
	size := w.u.size.Load()
	n := int64(len(data))
	switch {
	case w.err != nil:
		return w.err
	case w.short && n > 0:
		return fmt.Errorf("%w: its last chunk is short: nothing may follow", hdfs.ErrInvalid)
	case size+n > hdfs.MaxBlockSize:
		return fmt.Errorf("%w: %d bytes are more than a block may have", hdfs.ErrInvalid, size+n)
	}
	if bad := FirstBad(data, sums); bad >= 0 {
		return &CorruptError{File: "what was sent", Chunk: size/hdfs.ChunkSize + int64(bad), Reason: "its checksum does not match"}
	}
	d := w.u.d
	if err := d.down(); err != nil {
		return w.failed(err)
	}
	if err := d.book(n); err != nil {
		return w.failed(d.judge(err))
	}
	defer d.unbook(n)
	if _, err := w.data.WriteAt(data, size); err != nil {
		return w.failed(d.judge(err))
	}
	if _, err := w.sums.WriteAt(encodeSums(sums), sumOffset(size/hdfs.ChunkSize)); err != nil {
		return w.failed(d.judge(err))
	}
	w.u.size.Store(size + n)
	w.short = n%hdfs.ChunkSize != 0
	if size+n-w.behind >= writeBehind {
		w.data.Written(w.behind, size+n-w.behind)
		w.behind = size + n
	}
	return nil
}

// failed makes an error the writer's last.
func (w *Writer) failed(err error) error {
	w.err = err
	return err
}

// Finalize makes the replica final: when it returns without an error the replica survives a crash. After an error the
// replica is gone. A final replica with an earlier stamp is deleted.
func (w *Writer) Finalize() (hdfs.Block, error) {
	defer w.s.ids.lock(w.u.id)()
	w.mu.Lock()
	b := hdfs.Block{ID: w.u.id, Stamp: w.u.stamp, Size: w.u.size.Load()}
	if err := cmp.Or(w.err, w.u.d.down()); err != nil {
		defer w.mu.Unlock()
		return hdfs.Block{}, named("finalize", b.ID, err)
	}
	err := w.u.d.judge(w.makeFinal(b))
	if err == nil {
		w.err = fmt.Errorf("%w: the block is final", hdfs.ErrInvalid)
	} else {
		w.err = err
	}
	w.mu.Unlock()
	var old *entry
	if err == nil {
		old, err = w.s.finalize(w.u, b)
	}
	if err != nil {
		// What could not be synced must not be tried again: the system may think that it was.
		err = errors.Join(err, w.s.discard(w.u, err), w.u.d.judge(w.u.d.remove(w.u.d.finalPath(b.ID, b.Stamp))))
		return hdfs.Block{}, named("finalize", b.ID, err)
	}
	if old != nil {
		d := w.s.disks[old.disk]
		w.s.drop(d, d.finalPath(b.ID, old.stamp), "a later one is final")
	}
	return b, nil
}

// makeFinal syncs content before names: no crash can leave a final replica without its bytes. The rename takes the
// replica out of one folder and into the other in one step; that step is durable when either folder is.
func (w *Writer) makeFinal(b hdfs.Block) error {
	_, err := w.sums.WriteAt(encodeHeader(b), 0)
	fs, d := w.s.FS, w.u.d
	if err == nil {
		err = atOnce(w.data.Sync, w.sums.Sync, func() error { return fs.SyncDir(w.u.path()) })
	}
	if err = errors.Join(err, w.closeFiles()); err != nil {
		return err
	}
	if err := d.again(func() error { return fs.Rename(w.u.path(), d.finalPath(b.ID, b.Stamp)) }); err != nil {
		return err
	}
	return fs.SyncDir(d.shelfPath(b.ID))
}

// atOnce does all, and waits: syncs that a file system is asked for at once it can do in one.
func atOnce(all ...func() error) error {
	var g errgroup.Group
	for _, f := range all {
		g.Go(f)
	}
	return g.Wait()
}

// finalize moves a replica in the index, and gives the final one that it takes the place of.
func (s *Store) finalize(u *unfinished, b hdfs.Block) (*entry, error) {
	now := s.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.d.problem != nil {
		return nil, u.d.failure()
	}
	delete(s.writing, b.ID)
	old, ok := s.final[b.ID]
	if ok {
		s.removeFinal(b.ID)
	}
	s.addFinal(u.d, b, now)
	if ok {
		return &old, nil
	}
	return nil, nil
}

// Close leaves the replica unfinished, for Recover. It does nothing after Finalize, Discard or a second Close.
func (w *Writer) Close() error {
	return w.end(fmt.Errorf("block %s: %w: its writer is closed", w.u.id, hdfs.ErrInvalid))
}

// Discard deletes the replica; nothing if it is final or somebody else's by now.
func (w *Writer) Discard() error {
	defer w.s.ids.lock(w.u.id)()
	w.s.mu.RLock()
	ours := w.s.writing[w.u.id] == w.u && w.u.w == w
	w.s.mu.RUnlock()
	if !ours {
		return w.Close()
	}
	return named("discard", w.u.id, w.s.discard(w.u, fmt.Errorf("block %s: %w: it was discarded", w.u.id, hdfs.ErrInvalid)))
}

// end closes the files; every method from now on says why, unless it has said something else before.
func (w *Writer) end(why error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = why
	}
	now := w.s.Now()
	w.s.mu.Lock()
	if w.u.w == w {
		w.u.w, w.u.left = nil, now
	}
	w.s.mu.Unlock()
	return w.closeFiles()
}

// closeFiles closes both files once.
func (w *Writer) closeFiles() error {
	var errs []error
	for _, f := range []*File{&w.data, &w.sums} {
		if *f != nil {
			errs = append(errs, (*f).Close())
			*f = nil
		}
	}
	return errors.Join(errs...)
}

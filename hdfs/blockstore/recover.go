package blockstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"millrace/hdfs"
)

// Recover takes up a replica again after a change of the pipeline: cut to length bytes, which are checked first, and
// under stamp `to`. The replica may have any stamp from `from` to `to`: a Recover that nobody heard the answer of is
// repeated, with the same stamp or a later one. It may be unfinished, or final if the last acknowledgement was lost;
// but not final with stamp `to`, which is hdfs.ErrExist. Who wrote it until now is shut out.
//
// hdfs.ErrNoBlock; hdfs.ErrStale if the stamp is another; hdfs.ErrCorrupt if fewer bytes are good: the replica stays
// as it was. At a crash it is found either under the old stamp, with length bytes at least, or under the new one with
// nothing but checked and synced bytes.
func (s *Store) Recover(id hdfs.BlockID, from, to hdfs.Stamp, length int64) (*Writer, error) {
	w, err := s.recover(id, from, to, length)
	return w, named("recover", id, err)
}

func (s *Store) recover(id hdfs.BlockID, from, to hdfs.Stamp, length int64) (*Writer, error) {
	if length < 0 || from > to {
		return nil, fmt.Errorf("%w: %d bytes, from stamp %d to %d", hdfs.ErrInvalid, length, from, to)
	}
	defer s.ids.lock(id)()
	u, final, err := s.recoverable(id, from, to)
	if err != nil {
		return nil, err
	}
	if err := s.stop(u, fmt.Errorf("block %s: %w: it goes on with stamp %d", id, hdfs.ErrStale, to)); err != nil {
		return nil, u.d.judge(err)
	}
	path := u.path()
	if final {
		path = u.d.finalPath(id, u.stamp)
	}
	if err := s.checkPrefix(u, path, length); err != nil {
		return nil, err
	}
	if final {
		if err := s.unfinish(u, path); err != nil {
			return nil, err
		}
	}
	return s.goOn(u, to, length)
}

// recoverable finds the replica; of a final one it gives what it will be when it is unfinished again.
func (s *Store) recoverable(id hdfs.BlockID, from, to hdfs.Stamp) (u *unfinished, final bool, err error) {
	if err := s.usable(); err != nil {
		return nil, false, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, isFinal := s.final[id]
	u = s.writing[id]
	switch {
	case isFinal && e.stamp >= to:
		return nil, false, fmt.Errorf("%w: final, with stamp %d", hdfs.ErrExist, e.stamp)
	case u != nil && from <= u.stamp && u.stamp <= to:
		return u, false, nil
	case u == nil && isFinal && from <= e.stamp:
		u = &unfinished{id: id, stamp: e.stamp, d: s.disks[e.disk]}
		u.size.Store(e.size)
		return u, true, nil
	case u != nil:
		return nil, false, fmt.Errorf("%w: unfinished, with stamp %d, not one from %d to %d", hdfs.ErrStale, u.stamp, from, to)
	case isFinal:
		return nil, false, fmt.Errorf("%w: final, with stamp %d, not one from %d to %d", hdfs.ErrStale, e.stamp, from, to)
	}
	return nil, false, hdfs.ErrNoBlock
}

// checkPrefix reads the first length bytes, from the disk as far as they are there, and checks their sums.
func (s *Store) checkPrefix(u *unfinished, dir string, length int64) error {
	r := &Replica{s: s, d: u.d, block: hdfs.Block{ID: u.id, Stamp: u.stamp, Size: length}, dir: dir}
	defer r.Close()
	dataPath, sumsPath := r.Files()
	var err error
	if r.data, err = s.FS.OpenFile(dataPath, os.O_RDONLY); err != nil {
		return u.d.judgeRead(dataPath, -1, err)
	}
	if r.sums, err = s.FS.OpenFile(sumsPath, os.O_RDONLY); err != nil {
		return u.d.judgeRead(sumsPath, -1, err)
	}
	has, err := r.data.Size()
	switch {
	case err != nil:
		return u.d.judgeRead(dataPath, -1, err)
	case has < length:
		return &CorruptError{dataPath, has / hdfs.ChunkSize, fmt.Sprintf("the file has %d bytes, %d were asked for", has, length)}
	case length%hdfs.ChunkSize != 0 && has != length:
		return fmt.Errorf("%w: it cannot be cut to %d bytes, in the middle of a chunk", hdfs.ErrInvalid, length)
	}
	r.data.Forget()
	r.sums.Forget()
	// While it is unfinished its header says little, and a crash in Finalize may have torn it; but if it is whole
	// it must be this block's.
	header, err := readFull(r.sums, 0, headerSize)
	if err != nil {
		return u.d.judgeRead(sumsPath, -1, err)
	}
	if is, err := decodeHeader(header); err == nil && is.ID != u.id {
		return &CorruptError{sumsPath, -1, fmt.Sprintf("it has the sums of %s: it was exchanged with another", is.ID)}
	}
	buf := verifyBuffers.Get().(*[verifyChunks * hdfs.ChunkSize]byte)
	defer verifyBuffers.Put(buf)
	for first := int64(0); first < chunks(length); first += verifyChunks {
		size := min(int64(len(buf)), length-first*hdfs.ChunkSize)
		data, err := readInto(r.data, first*hdfs.ChunkSize, buf[:size])
		if err != nil {
			return u.d.judgeRead(dataPath, first, err)
		}
		raw, err := readFull(r.sums, sumOffset(first), sumSize*chunks(size))
		if err != nil {
			return u.d.judgeRead(sumsPath, first, err)
		}
		if bad := FirstBad(data, decodeSums(raw)); bad >= 0 || int64(len(data)) < size {
			return &CorruptError{dataPath, first + int64(max(bad, 0)), "its checksum does not match"}
		}
	}
	return nil
}

// readInto fills buf, less where the file ends.
func readInto(f File, offset int64, buf []byte) ([]byte, error) {
	n, err := f.ReadAt(buf, offset)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return buf[:n], err
}

// unfinish makes a final replica an unfinished one, as it is. That must be durable before anything is cut.
func (s *Store) unfinish(u *unfinished, path string) error {
	if err := u.d.judge(u.d.again(func() error { return s.FS.Rename(path, u.path()) })); err != nil {
		return err
	}
	now := s.Now()
	s.mu.Lock()
	if u.d.problem == nil {
		s.removeFinal(u.id)
		u.left = now
		s.writing[u.id] = u
	}
	s.mu.Unlock()
	return u.d.judge(s.FS.SyncDir(u.d.shelfPath(u.id)))
}

// goOn cuts an unfinished replica, syncs what is left of it, and only then gives it the new stamp.
func (s *Store) goOn(u *unfinished, to hdfs.Stamp, length int64) (*Writer, error) {
	w, err := s.openWriter(u, 0)
	if err != nil {
		return nil, err
	}
	if err := u.d.judge(w.cut(length)); err != nil {
		return nil, errors.Join(err, w.closeFiles())
	}
	if u.stamp != to {
		if w.u, err = s.restamp(u, to); err != nil {
			return nil, errors.Join(err, w.closeFiles())
		}
	}
	if err := s.register(w); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *Writer) cut(length int64) error {
	w.behind, w.short = length, length%hdfs.ChunkSize != 0
	for _, step := range []func() error{
		func() error { return w.data.Truncate(length) },
		func() error { return w.sums.Truncate(sumsSize(length)) },
		w.data.Sync,
		w.sums.Sync,
		func() error { return w.s.FS.SyncDir(w.u.path()) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	w.u.size.Store(length)
	return nil
}

// restamp renames an unfinished replica, durably.
func (s *Store) restamp(u *unfinished, to hdfs.Stamp) (*unfinished, error) {
	now := &unfinished{id: u.id, stamp: to, d: u.d, left: s.Now()}
	now.size.Store(u.size.Load())
	if err := u.d.judge(s.FS.Rename(u.path(), now.path())); err != nil {
		return nil, err
	}
	s.mu.Lock()
	if s.writing[u.id] == u {
		s.writing[u.id] = now
	}
	s.mu.Unlock()
	return now, u.d.judge(s.FS.SyncDir(filepath.Dir(now.path())))
}

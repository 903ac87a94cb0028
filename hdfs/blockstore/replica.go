package blockstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"millrace/hdfs"
)

// CorruptError says what is wrong with a replica; it is hdfs.ErrCorrupt.
type CorruptError struct {
	File   string
	Chunk  int64 // of the block, counted from 0; -1: it is about the file as a whole
	Reason string
}

func (e *CorruptError) Error() string {
	if e.Chunk < 0 {
		return fmt.Sprintf("%s is corrupt: %s", e.File, e.Reason)
	}
	return fmt.Sprintf("%s is corrupt: chunk %d (from byte %d): %s", e.File, e.Chunk, e.Chunk*hdfs.ChunkSize, e.Reason)
}

func (e *CorruptError) Unwrap() error { return hdfs.ErrCorrupt }

// Replica is a final replica that is open for reading, by many at once. It stays readable when it is deleted.
type Replica struct {
	s          *Store
	d          *disk
	block      hdfs.Block
	dir        string
	data, sums File
}

// Open opens a final replica of that stamp: hdfs.ErrNoBlock, hdfs.ErrStale. One whose files are gone, of a wrong
// length, or of another block is hdfs.ErrCorrupt (a *CorruptError); its bytes are not looked at yet.
func (s *Store) Open(id hdfs.BlockID, stamp hdfs.Stamp) (*Replica, error) {
	d, b, err := s.find(id, stamp)
	if err != nil {
		return nil, err
	}
	r := &Replica{s: s, d: d, block: b, dir: d.finalPath(id, stamp)}
	if err := r.open(); err != nil {
		return nil, named("open", id, errors.Join(r.explain(err), r.Close()))
	}
	return r, nil
}

func (r *Replica) open() error {
	data, sums := r.Files()
	var err error
	if r.data, err = r.s.FS.OpenFile(data, os.O_RDONLY); err != nil {
		return r.d.judgeRead(data, -1, err)
	}
	if r.sums, err = r.s.FS.OpenFile(sums, os.O_RDONLY); err != nil {
		return r.d.judgeRead(sums, -1, err)
	}
	header, err := readFull(r.sums, 0, headerSize)
	if err != nil {
		return r.d.judgeRead(sums, -1, err)
	}
	is, err := decodeHeader(header)
	if err != nil {
		return &CorruptError{sums, -1, err.Error()}
	}
	if is.ID != r.block.ID || is.Stamp != r.block.Stamp {
		return &CorruptError{sums, -1, fmt.Sprintf("it has the sums of %s: it was exchanged with another", is)}
	}
	for _, f := range []struct {
		File
		path               string
		size, before, each int64 // what precedes the chunks, and what each takes
	}{{r.data, data, is.Size, 0, hdfs.ChunkSize}, {r.sums, sums, sumsSize(is.Size), headerSize, sumSize}} {
		has, err := f.Size()
		if err != nil {
			return r.d.judgeRead(f.path, -1, err)
		}
		if has != f.size {
			return &CorruptError{f.path, (min(has, f.size) - f.before) / f.each, fmt.Sprintf("the file has %d bytes instead of %d", has, f.size)}
		}
	}
	r.block = is
	return nil
}

// readFull reads n bytes, fewer where the file ends.
func readFull(f File, offset, n int64) ([]byte, error) {
	buf := make([]byte, n)
	has, err := f.ReadAt(buf, offset)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return buf[:has], err
}

// explain tells damage from a replica that was deleted or taken up again while it was read.
func (r *Replica) explain(err error) error {
	var bad *CorruptError
	if !errors.As(err, &bad) {
		return err
	}
	defer r.s.ids.lock(r.block.ID)() // until whoever takes it away has said so
	if _, _, gone := r.s.find(r.block.ID, r.block.Stamp); gone != nil {
		return gone
	}
	return err
}

// Size is the block's, in bytes.
func (r *Replica) Size() int64 { return r.block.Size }

// Files are the paths of the data and of the sums.
func (r *Replica) Files() (data, sums string) {
	return filepath.Join(r.dir, dataFile), filepath.Join(r.dir, sumsFile)
}

// ReadChunks reads up to n chunks from chunk first on, into buf if it has the room, and gives them with their sums as
// they are stored: whoever uses the data checks them (FirstBad). Past the last chunk it is io.EOF.
func (r *Replica) ReadChunks(first, n int, buf []byte) (data []byte, sums []uint32, err error) {
	offset := int64(first) * hdfs.ChunkSize
	if first < 0 || n <= 0 {
		return nil, nil, fmt.Errorf("block %s: %w: %d chunks from chunk %d on", r.block.ID, hdfs.ErrInvalid, n, first)
	}
	if offset >= r.block.Size {
		return nil, nil, io.EOF
	}
	data, sums, err = r.readChunks(int64(first), min(int64(n)*hdfs.ChunkSize, r.block.Size-offset), buf)
	return data, sums, named("read", r.block.ID, err)
}

func (r *Replica) readChunks(first, size int64, buf []byte) ([]byte, []uint32, error) {
	if int64(cap(buf)) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	dataPath, sumsPath := r.Files()
	has, err := r.data.ReadAt(buf, first*hdfs.ChunkSize)
	if chunk := first + int64(has)/hdfs.ChunkSize; errors.Is(err, io.EOF) && int64(has) < size {
		return nil, nil, r.explain(&CorruptError{dataPath, chunk, "the file ends in it"})
	} else if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, r.explain(r.d.judgeRead(dataPath, chunk, err))
	}
	raw, err := readFull(r.sums, sumOffset(first), sumSize*chunks(size))
	if err != nil {
		return nil, nil, r.explain(r.d.judgeRead(sumsPath, first, err))
	}
	if int64(len(raw)) < sumSize*chunks(size) {
		return nil, nil, r.explain(&CorruptError{sumsPath, first + int64(len(raw))/sumSize, "the file ends before its sum"})
	}
	return buf, decodeSums(raw), nil
}

// Close gives the files back.
func (r *Replica) Close() error {
	var errs []error
	for _, f := range []*File{&r.data, &r.sums} {
		if *f != nil {
			errs = append(errs, (*f).Close())
			*f = nil
		}
	}
	return errors.Join(errs...)
}

package engine

import (
	"errors"
	"fmt"
	"io"
	"os"

	"millrace/pkg/record"
)

// disk is where spills go. Tests have one that fails.
type disk interface {
	create(dir string) (file, error)
	open(path string) (file, error)
	remove(path string) error
}

type file interface {
	io.Writer
	io.ReaderAt
	io.Closer
	Name() string
}

type osDisk struct{}

func (osDisk) create(dir string) (file, error) {
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	return os.CreateTemp(dir, "spill-*.seg")
}

func (osDisk) open(path string) (file, error) { return os.Open(path) }
func (osDisk) remove(path string) error       { return os.Remove(path) }

// spill is a sorted run on disk: a segment of its own.
type spill struct {
	path  string
	index record.Index
}

// spiller writes spills, with the buffers of one Writer.
type spiller struct {
	disk   disk
	dir    string
	codec  record.Codec
	writer *record.Writer
}

// write makes a spill of what fill appends. It leaves no file behind when it fails.
func (s *spiller) write(partitions int, fill func(*record.Writer) error) (_ spill, err error) {
	f, err := s.disk.create(s.dir)
	if err != nil {
		return spill{}, fmt.Errorf("create spill: %w", err)
	}
	path, closed := f.Name(), false
	defer func() {
		if err == nil {
			return
		}
		if !closed {
			f.Close() // the error that counts is the first
		}
		err = errors.Join(fmt.Errorf("spill %s: %w", path, err), s.remove(path))
	}()
	if s.writer == nil {
		s.writer = record.NewWriter(f, partitions, s.codec)
	} else {
		s.writer.Reset(f, partitions)
	}
	if err := fill(s.writer); err != nil {
		return spill{}, err
	}
	x, err := s.writer.Close()
	if err != nil {
		return spill{}, err
	}
	closed = true
	if err := f.Close(); err != nil {
		return spill{}, err
	}
	return spill{path, x}, nil
}

func (s *spiller) remove(path string) error {
	if err := s.disk.remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove spill: %w", err)
	}
	return nil
}

// removeAll removes the spills' files, all it can.
func (s *spiller) removeAll(spills []spill) error {
	var errs []error
	for _, x := range spills {
		errs = append(errs, s.remove(x.path))
	}
	return errors.Join(errs...)
}

// spillRun reads a spill of one partition, and removes it when closed.
type spillRun struct {
	*record.Reader
	file  file
	spill spill
	owner *spiller
}

func (s *spiller) open(x spill) (*spillRun, error) {
	f, err := s.disk.open(x.path)
	if err != nil {
		return nil, fmt.Errorf("open spill: %w", err)
	}
	return &spillRun{record.NewPartitionReader(f, 0, x.index.Partitions[0]), f, x, s}, nil
}

func (r *spillRun) Next() (key, value []byte, err error) {
	key, value, err = r.Reader.Next()
	if err != nil && err != io.EOF {
		err = fmt.Errorf("spill %s: %w", r.spill.path, err)
	}
	return key, value, err
}

func (r *spillRun) Close() error {
	if r.file == nil {
		return nil
	}
	err := errors.Join(r.Reader.Close(), r.file.Close(), r.owner.remove(r.spill.path))
	r.file = nil
	return err
}

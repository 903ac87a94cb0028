package client

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"

	"millrace/hdfs"
)

const (
	firstWindow = 512 << 10 // bytes read in one go after a Seek; it grows while reading goes on
	aheadWindow = 4 << 20   // from this on, the rest of the file is read ahead
)

// Reader reads one version of a file: what is there when it is opened, whatever becomes of its path. It goes on past
// nodes that fail without its user noticing. ReadAt may be called from many goroutines, beside one that uses the rest.
type Reader struct {
	file   *openFile
	ctx    context.Context
	cancel context.CancelFunc
	closed atomic.Bool

	at     int64
	src    io.ReadCloser // from at on; nil: none is open
	window int64
}

var (
	_ io.ReadSeekCloser = (*Reader)(nil)
	_ io.ReaderAt       = (*Reader)(nil)
	_ io.WriterTo       = (*Reader)(nil)
)

// Open opens a file. The context is the reader's whole life.
func (f *Files) Open(ctx context.Context, path string) (*Reader, error) {
	file, err := f.open(ctx, path)
	if err != nil {
		return nil, err
	}
	r := &Reader{file: file, window: firstWindow}
	r.ctx, r.cancel = context.WithCancel(ctx)
	return r, nil
}

// Info describes the file as it was opened.
func (r *Reader) Info() hdfs.Info { return r.file.info }

func (r *Reader) size() int64 { return r.file.info.Size }

// Read is io.Reader's.
func (r *Reader) Read(p []byte) (int, error) {
	for {
		switch {
		case r.closed.Load():
			return 0, r.named("read", fs.ErrClosed)
		case len(p) == 0:
			return 0, nil
		case r.at >= r.size():
			return 0, io.EOF
		case r.src == nil:
			r.src = r.more()
		}
		n, err := r.src.Read(p)
		r.at += int64(n)
		if err != nil {
			r.drop()
		}
		if n > 0 || err != io.EOF {
			return n, r.ended(err)
		}
	}
}

// more is the next bytes to read: a little after a Seek, more with each time that reading goes on, and at last all.
func (r *Reader) more() io.ReadCloser {
	if r.window >= aheadWindow {
		return r.file.ahead(r.ctx, r.at, r.size())
	}
	end := min(r.at+r.window, r.size())
	r.window *= 4
	return streamCloser{r.file.stream(r.ctx, r.at, end)}
}

type streamCloser struct{ *stream }

func (s streamCloser) Close() error {
	s.close()
	return nil
}

// drop gives up what is open.
func (r *Reader) drop() {
	if r.src != nil {
		r.src.Close()
		r.src = nil
	}
}

// ended is an error as its user shall see it.
func (r *Reader) ended(err error) error {
	switch {
	case err == nil, err == io.EOF && r.at < r.size():
		return nil
	case err != io.EOF && r.closed.Load():
		return r.named("read", fs.ErrClosed)
	}
	return err
}

func (r *Reader) named(op string, err error) error {
	return r.file.files.named(op, r.file.info.Path, err)
}

// ReadAt is io.ReaderAt's.
func (r *Reader) ReadAt(p []byte, offset int64) (int, error) {
	switch {
	case r.closed.Load():
		return 0, r.named("read", fs.ErrClosed)
	case offset < 0:
		return 0, r.named("read", fmt.Errorf("%w: at byte %d", hdfs.ErrInvalid, offset))
	case offset >= r.size():
		return 0, io.EOF
	}
	s := r.file.stream(r.ctx, offset, min(offset+int64(len(p)), r.size()))
	defer s.close()
	n, err := io.ReadFull(s, p[:s.end-offset])
	if err == nil && n < len(p) {
		err = io.EOF
	}
	if err != nil && err != io.EOF && r.closed.Load() {
		err = r.named("read", fs.ErrClosed)
	}
	return n, err
}

// Seek is io.Seeker's. Beyond the end there is nothing to read.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.size()
	default:
		return 0, r.named("seek", fmt.Errorf("%w: whence %d", hdfs.ErrInvalid, whence))
	}
	if offset < 0 {
		return 0, r.named("seek", fmt.Errorf("%w: to byte %d", hdfs.ErrInvalid, offset))
	}
	if r.closed.Load() {
		return 0, r.named("seek", fs.ErrClosed)
	}
	if offset != r.at {
		r.drop()
		r.at, r.window = offset, firstWindow
	}
	return offset, nil
}

// WriteTo is io.WriterTo's: all that is left, with reading ahead.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	if r.closed.Load() {
		return 0, r.named("read", fs.ErrClosed)
	}
	if r.at >= r.size() {
		return 0, nil
	}
	src, ok := r.src.(*readAhead)
	if !ok {
		r.drop()
		src = r.file.ahead(r.ctx, r.at, r.size())
		r.src = src
	}
	n, err := src.WriteTo(w)
	r.at += n
	r.drop()
	return n, r.ended(err)
}

// Close ends what is under way, and waits for reports of bad replicas to get through. It may be called beside a ReadAt, and again.
func (r *Reader) Close() error {
	if r.closed.Swap(true) {
		return nil
	}
	r.cancel()
	r.drop()
	r.file.reports.Wait()
	return nil
}

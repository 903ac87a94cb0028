package input

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
)

// gunzip reads the present piece's chunks as one stream and inflates it. All
// members of a multi-member file are read.
type gunzip struct {
	chunks *chunkStream
	source *bufio.Reader
	zip    gzip.Reader
	out    []byte
}

// chunkStream is the compressed bytes of a Reader's present piece.
type chunkStream struct {
	r    *Reader
	data []byte
	err  error // of the store, as it was: gzip would wrap or hide it
	read int64
}

func (s *chunkStream) Read(p []byte) (int, error) {
	for len(s.data) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if s.r.cur.last {
			return 0, io.EOF
		}
		c, err := s.r.following(s.read)
		if err != nil {
			s.err = err
			return 0, err
		}
		s.data = c.data
	}
	n := copy(p, s.data)
	s.data = s.data[n:]
	s.read += int64(n)
	return n, nil
}

// startGunzip begins a compressed piece with its first chunk.
func (r *Reader) startGunzip() error {
	g := r.idleGz
	if r.idleGz = nil; g == nil {
		g = &gunzip{chunks: &chunkStream{r: r}, source: bufio.NewReaderSize(nil, 64<<10), out: make([]byte, 256<<10)}
	}
	*g.chunks = chunkStream{r: r, data: r.cur.data}
	g.source.Reset(g.chunks)
	r.gz, r.end = g, noEnd
	r.show(nil, 0)
	if err := g.zip.Reset(g.source); err != nil {
		return r.unreadable(err, 0)
	}
	return nil
}

// inflate fills the buffer with the next uncompressed bytes; false at the end.
func (r *Reader) inflate() (bool, error) {
	g, next := r.gz, r.base+int64(len(r.buf))
	n, err := io.ReadFull(&g.zip, g.out)
	r.progress(g.chunks.read - int64(g.source.Buffered()))
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF || n == 0 && err != io.EOF {
		return false, r.unreadable(err, n)
	}
	if n == 0 {
		return false, nil
	}
	r.show(g.out[:n], next)
	return true, nil
}

// unreadable says why the compressed piece cannot be read further, n bytes behind
// the buffer: the store's reason if there is one.
func (r *Reader) unreadable(err error, n int) error {
	g := r.gz
	if g.chunks.err != nil {
		return g.chunks.err
	}
	offset, compressed := r.base+int64(len(r.buf))+int64(n), g.chunks.read-int64(g.source.Buffered())
	switch {
	case err == io.EOF, err == io.ErrUnexpectedEOF:
		err = fmt.Errorf("the gzip file is cut off after %d compressed bytes: %w", compressed, io.ErrUnexpectedEOF)
	case errors.Is(err, gzip.ErrHeader) && offset > 0:
		err = fmt.Errorf("what follows a gzip member, before compressed byte %d, is no gzip member: %w", compressed, err)
	case errors.Is(err, gzip.ErrHeader):
		err = fmt.Errorf("the object is not a gzip file, as its name says: %w", err)
	default:
		err = fmt.Errorf("before compressed byte %d: %w", compressed, err)
	}
	return &ReadError{URL: objectURL(r.piece.Bucket, r.piece.Key), Offset: offset, Err: err}
}

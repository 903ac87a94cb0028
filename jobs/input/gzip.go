package input

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
)

// gunzip reads the present piece's chunks as one stream and inflates it. All
// members of a multi-member file are read, empty ones too; what follows the last one
// may be zeros, and nothing else.
type gunzip struct {
	chunks *chunkStream
	source *bufio.Reader
	zip    gzip.Reader
	out    []byte

	members int // begun so far, in this piece
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
	g.members = 0
	r.gz, r.end = g, noEnd
	r.show(nil, 0)
	if err := g.begin(); err != nil {
		return r.unreadable(err, 0)
	}
	return nil
}

// begin begins a member.
func (g *gunzip) begin() error {
	if b, err := g.source.Peek(1); err == nil && b[0] != 0x1f { // of anything shorter than a header it would be said that it is cut off
		return gzip.ErrHeader
	}
	if err := g.zip.Reset(g.source); err != nil {
		return err
	}
	g.zip.Multistream(false) // what follows a member is for next to judge
	g.members++
	return nil
}

// next goes on to the member that follows the one just ended; io.EOF if none does.
// Zeros up to the end are no error: tapes and block devices pad so, and gzip passes over them, too.
func (g *gunzip) next() error {
	padded := false
	for {
		b, err := g.source.Peek(1)
		switch {
		case err != nil:
			return err
		case b[0] == 0:
			padded = true
			if _, err := g.source.Discard(1); err != nil {
				return err
			}
		case padded:
			return gzip.ErrHeader
		default:
			return g.begin()
		}
	}
}

// read fills p; io.EOF after the last member, and only with the last bytes or none.
func (g *gunzip) read(p []byte) (n int, err error) {
	for n < len(p) {
		m, err := g.zip.Read(p[n:])
		if n += m; err == io.EOF {
			err = g.next()
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// at is how many compressed bytes have been taken.
func (g *gunzip) at() int64 { return g.chunks.read - int64(g.source.Buffered()) }

// inflate fills the buffer with the next uncompressed bytes; false at the end.
func (r *Reader) inflate() (bool, error) {
	g, next := r.gz, r.base+int64(len(r.buf))
	n, err := g.read(g.out)
	r.progress(g.at())
	if err != nil && err != io.EOF {
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
	offset, compressed := r.base+int64(len(r.buf))+int64(n), g.at()
	switch {
	case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("%w: the gzip file is cut off after %d compressed bytes: %w", ErrDamaged, compressed, io.ErrUnexpectedEOF)
	case errors.Is(err, gzip.ErrHeader) && g.members > 0:
		err = fmt.Errorf("%w: what follows gzip member %d, before compressed byte %d, is no gzip member: %w", ErrDamaged, g.members, compressed, err)
	case errors.Is(err, gzip.ErrHeader):
		err = fmt.Errorf("%w: the object is not a gzip file, as its name says: %w", ErrDamaged, err)
	default:
		err = fmt.Errorf("%w: in gzip member %d, before compressed byte %d: %w", ErrDamaged, g.members, compressed, err)
	}
	return &ReadError{URL: objectURL(r.piece.Bucket, r.piece.Key), Offset: offset, Err: err}
}

package input

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync/atomic"

	"millrace/jobs"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// ReadError names where reading failed. For a compressed object the offset
// counts its uncompressed bytes, unless the compressed ones could not be had.
type ReadError struct {
	URL    string
	Offset int64
	Err    error
}

func (e *ReadError) Error() string {
	said := fmt.Sprint(e.Err)
	if of, ok := e.Err.(*objectstore.Error); ok && of.URL == e.URL {
		said = of.Said()
	}
	return fmt.Sprintf("read %s at byte %d: %s", e.URL, e.Offset, said)
}
func (e *ReadError) Unwrap() error { return e.Err }

// Lasting says that the same bytes will fail again, wherever they are read: the input is
// damaged, changed, gone, or has too long a record.
func (e *ReadError) Lasting() bool {
	for _, lasting := range []error{
		ErrDamaged, ErrRecordTooLong, objectstore.ErrDamaged, objectstore.ErrPrecondition, objectstore.ErrNotExist, objectstore.ErrNoSuchBucket,
	} {
		if errors.Is(e.Err, lasting) {
			return true
		}
	}
	return false
}

// ErrDamaged is wrapped by the error for a compressed object that cannot be inflated.
var ErrDamaged = errors.New("damaged input")

// ErrRecordTooLong is wrapped by the error for a record over MaxRecord.
var ErrRecordTooLong = errors.New("record too long")

// ReaderConfig bounds a Reader. Zero values mean defaults.
type ReaderConfig struct {
	MaxRecord int64 // longer ones are an error that names the object, offset and limit; default 64 MiB
	MaxRange  int64 // bytes of one request; default 8 MiB
	ReadAhead int64 // bytes in flight; default 4 ranges. A Reader's memory is this and one range more, and MaxRecord if records are that long
}

// FormatText is lines of text, and the only format so far.
const FormatText = "text"

// Reader yields the records of a split. Not for concurrent use, except for
// InputDone.
//
// Text: a record is a line without its end, which is \n or \r\n; a \r
// elsewhere is data; a last line may have no end. A record belongs to the
// piece that it begins in, whole, however far it goes; a piece that does not
// begin its object begins with the first byte after the first \n at or after
// the byte before its offset.
type Reader struct {
	fetch     *fetcher
	maxRecord int64
	err       error // what Next returns from now on

	cur   *chunk
	piece *api.Piece // nil between pieces
	gz    *gunzip    // of this piece, nil if it is plain

	buf   []byte
	pos   int   // in buf: where the next record begins
	limit int   // in buf: records begin before it
	base  int64 // of buf[0] in the (uncompressed) object
	end   int64 // of the piece
	carry []byte

	beyond int64 // bytes last asked for beyond the piece's planned ranges

	recordPiece  *api.Piece
	recordOffset int64
	bytesRead    int64
	donePieces   int64 // input bytes of finished pieces
	inputDone    atomic.Int64
	idleGz       *gunzip
}

// Open starts reading a split; ranges are read ahead. The caller closes the
// Reader. ctx bounds all of its reading.
func Open(ctx context.Context, s Ranger, split *api.Split, c ReaderConfig) (*Reader, error) {
	if f := split.GetFormat(); f != "" && f != FormatText {
		return nil, fmt.Errorf("open split: no input format %q", f)
	}
	if err := checkSplit(split); err != nil {
		return nil, fmt.Errorf("open split: %w", err)
	}
	if c.MaxRecord < 1 {
		c.MaxRecord = jobs.DefaultMaxRecord
	}
	if c.MaxRange < 1 {
		c.MaxRange = 8 << 20
	}
	if c.ReadAhead < 1 {
		c.ReadAhead = 4 * (c.MaxRange + overshoot)
	}
	r := &Reader{
		fetch:     newFetcher(ctx, s, split.GetPieces(), c.MaxRange, c.ReadAhead),
		maxRecord: c.MaxRecord,
	}
	r.fetch.fill()
	return r, nil
}

// Next returns the next record: key is nil, value the line without its end,
// valid until the next call. At the end it returns io.EOF; an error is a *ReadError.
func (r *Reader) Next() (key, value []byte, err error) {
	// The usual case: the record lies within the buffer.
	if r.pos < r.limit {
		if i := bytes.IndexByte(r.buf[r.pos:], '\n'); i >= 0 && int64(i) <= r.maxRecord {
			line := r.buf[r.pos : r.pos+i]
			r.recordOffset = r.base + int64(r.pos)
			r.recordPiece = r.piece
			r.pos += i + 1
			r.bytesRead += int64(i + 1)
			return nil, withoutCR(line), nil
		}
	}
	if r.err != nil {
		return nil, nil, r.err
	}
	value, err = r.slow()
	if err != nil {
		r.err, r.limit = err, 0
		return nil, nil, err
	}
	return nil, value, nil
}

func withoutCR(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		return line[:n-1]
	}
	return line
}

// slow goes from piece to piece until there is a record.
func (r *Reader) slow() ([]byte, error) {
	for {
		if r.piece == nil {
			more, err := r.enter()
			if err != nil {
				return nil, err
			}
			if !more {
				return nil, io.EOF
			}
		}
		line, ok, err := r.record()
		if err != nil || ok {
			return line, err
		}
		if err := r.leave(); err != nil {
			return nil, err
		}
	}
}

// enter begins the next piece, at the first record that belongs to it.
func (r *Reader) enter() (bool, error) {
	c, err := r.fetch.next()
	if c == nil || err != nil {
		return false, err
	}
	r.cur, r.piece, r.beyond = c, c.piece, 0
	if c.piece.Whole && gzipped(c.piece.Key) {
		return true, r.startGunzip()
	}
	r.end = c.piece.Offset + c.piece.Length
	r.show(c.data, c.offset)
	if c.piece.Offset == 0 {
		return true, nil
	}
	// The end of a record that began before: the piece's own begin after it. A \n
	// that is the piece's last byte leaves it none.
	for {
		stop := min(int64(len(r.buf)), r.end-1-r.base)
		if i := bytes.IndexByte(r.buf[:max(stop, 0)], '\n'); i >= 0 {
			r.pos = i + 1
			return true, nil
		}
		r.pos = len(r.buf)
		if r.base+int64(len(r.buf)) >= r.end-1 {
			r.limit = 0
			r.end = 0 // no record begins in this piece
			return true, nil
		}
		if _, err := r.advance(); err != nil {
			return false, err
		}
	}
}

// show makes data, which lies at base in the object, the buffer.
func (r *Reader) show(data []byte, base int64) {
	r.buf, r.base, r.pos = data, base, 0
	r.limit = int(max(min(int64(len(data)), r.end-base), 0))
}

// record reads the record that begins at pos, across buffers if need be. It
// returns false if none begins in what is left of the piece.
func (r *Reader) record() ([]byte, bool, error) {
	start := r.base + int64(r.pos)
	if start >= r.end {
		return nil, false, nil
	}
	carry := r.carry[:0]
	for {
		rest := r.buf[r.pos:]
		i := bytes.IndexByte(rest, '\n')
		length := int64(len(carry) + len(rest))
		if i >= 0 {
			length = int64(len(carry) + i)
		}
		if length > r.maxRecord+1 { // it may yet end in \r
			return nil, false, r.tooLong(start)
		}
		if i >= 0 {
			line := rest[:i]
			if len(carry) > 0 {
				carry = append(carry, line...)
				line = carry
			}
			r.pos += i + 1
			return r.found(start, withoutCR(line), length+1, carry)
		}
		carry = append(carry, rest...)
		r.pos = len(r.buf)
		more, err := r.advance()
		if err != nil {
			return nil, false, err
		}
		if !more { // the object ends
			if len(carry) == 0 {
				return nil, false, nil
			}
			return r.found(start, carry, length, carry)
		}
	}
}

func (r *Reader) found(start int64, line []byte, length int64, carry []byte) ([]byte, bool, error) {
	if int64(len(line)) > r.maxRecord {
		return nil, false, r.tooLong(start)
	}
	const keep = 1 << 20 // one long record should not hold its memory for ever
	if r.carry = carry; cap(carry) > keep {
		r.carry = nil
	}
	r.recordPiece, r.recordOffset = r.piece, start
	r.bytesRead += length
	return line, true, nil
}

func (r *Reader) tooLong(start int64) error {
	return &ReadError{URL: objectURL(r.piece.Bucket, r.piece.Key), Offset: start,
		Err: fmt.Errorf("%w: the record that begins here is longer than the limit of %d bytes; --max-record raises it, up to a quarter of --memory", ErrRecordTooLong, r.maxRecord)}
}

// advance brings the bytes that follow the buffer, from beyond the piece if
// need be. It returns false at the object's end.
func (r *Reader) advance() (bool, error) {
	if r.gz != nil {
		return r.inflate()
	}
	next := r.base + int64(len(r.buf))
	if next >= r.piece.ObjectSize {
		return false, nil
	}
	c, err := r.following(next)
	if err != nil {
		return false, err
	}
	r.show(c.data, c.offset)
	r.progress(next - r.piece.Offset)
	return true, nil
}

// following replaces the present chunk by the one that begins at offset.
func (r *Reader) following(offset int64) (*chunk, error) {
	last := r.cur.last
	r.drop()
	var c *chunk
	var err error
	if last {
		// Each request asks for twice as much: long records take few.
		r.beyond = min(max(2*r.beyond, 4*overshoot), r.fetch.max)
		c, err = r.fetch.beyond(r.piece, offset, r.beyond)
	} else {
		c, err = r.fetch.next()
	}
	if err != nil {
		return nil, err
	}
	r.cur = c
	return c, nil
}

// drop gives the present chunk's buffer back. What was returned last may lie in it.
func (r *Reader) drop() {
	if r.cur != nil {
		r.fetch.release(r.cur)
		r.cur = nil
	}
}

// leave ends the piece, and passes over what was read ahead of it.
func (r *Reader) leave() error {
	for r.cur != nil && !r.cur.last {
		r.drop()
		c, err := r.fetch.next()
		if err != nil {
			return err
		}
		r.cur = c
	}
	r.drop()
	r.show(nil, 0)
	if r.gz != nil {
		r.idleGz, r.gz = r.gz, nil
	}
	r.donePieces += r.piece.Length
	r.inputDone.Store(r.donePieces)
	r.piece = nil
	return nil
}

// progress says how many input bytes of the present piece are behind us.
func (r *Reader) progress(n int64) {
	r.inputDone.Store(r.donePieces + max(min(n, r.piece.Length), 0))
}

// Position is the object and byte offset (uncompressed) of the record last returned.
func (r *Reader) Position() (url string, offset int64) {
	if r.recordPiece == nil {
		return "", 0
	}
	return objectURL(r.recordPiece.Bucket, r.recordPiece.Key), r.recordOffset
}

// BytesRead is the number of uncompressed bytes of records returned, line ends included.
func (r *Reader) BytesRead() int64 { return r.bytesRead }

// InputDone is the number of (compressed) input bytes passed, for progress. Any
// goroutine may ask.
func (r *Reader) InputDone() int64 { return r.inputDone.Load() }

// Close ends all reading and waits for it. Idempotent.
func (r *Reader) Close() error {
	r.fetch.close()
	r.cur, r.buf, r.carry, r.limit = nil, nil, nil, 0
	if r.err == nil {
		r.err = errors.New("the reader is closed")
	}
	return nil
}

// noEnd is the end of a piece whose uncompressed size is not known.
const noEnd = math.MaxInt64

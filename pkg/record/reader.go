package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
)

// Reader decodes one partition. Not for concurrent use. After an error every call of Next returns it.
type Reader struct {
	src       io.Reader
	partition int
	section   io.SectionReader // what src is, where the index is known
	want      Ledger           // what the index says, where it is known
	indexed   bool

	block, payload []byte
	pos            int    // in block
	left           uint32 // records of block still to come
	seq            uint32 // of the next frame
	ended          bool   // the partition's last frame has been read
	ledger         Ledger
	decompressor   decompressor
	err            error
	head           [headerSize]byte

	file *os.File // if the Reader opened it
	path string
}

var errReaderClosed = errors.New("segment reader is closed")

// NewReader reads the blocks of one partition from r (just its byte range),
// verifying every block. No bytes at all are an empty partition: whoever knows
// the index compares Ledger with it, or uses NewPartitionReader. It does not close r.
func NewReader(r io.Reader, partition int) *Reader {
	return &Reader{src: r, partition: partition}
}

// NewPartitionReader reads one partition of a segment, and at its end compares
// what was decoded with the index: a difference is corrupt. It does not close r.
func NewPartitionReader(r io.ReaderAt, partition int, x PartitionIndex) *Reader {
	z := new(Reader)
	z.Reset(r, partition, x)
	return z
}

// OpenPartition is NewPartitionReader on a file, which Close closes. Errors name the path.
func OpenPartition(path string, partition int, x PartitionIndex) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	r := NewPartitionReader(f, partition, x)
	r.file, r.path = f, path
	return r, nil
}

// Reset makes r a new NewPartitionReader, with the buffers of the one before.
// Not after Close, nor for a Reader of OpenPartition.
func (r *Reader) Reset(src io.ReaderAt, partition int, x PartitionIndex) {
	*r = Reader{
		section:   *io.NewSectionReader(src, x.Offset, x.Length),
		partition: partition, want: x.Ledger, indexed: true,
		block: r.block[:0], payload: r.payload, decompressor: r.decompressor,
	}
	r.src = &r.section
}

// Next returns the next record, or io.EOF. The slices are valid until the next call.
func (r *Reader) Next() (key, value []byte, err error) {
	if r.left == 0 {
		if err := r.nextBlock(); err != nil {
			return nil, nil, err
		}
	}
	b := r.block[r.pos:]
	var k, v uint64
	n := 2
	if len(b) >= 2 && b[0]|b[1] < 0x80 {
		k, v = uint64(b[0]), uint64(b[1])
	} else if k, v, n = lengths(b); n == 0 {
		return nil, nil, r.fail(corrupt("record %d of partition %d has no lengths", r.ledger.Records, r.partition))
	}
	b = b[n:]
	if k > uint64(len(b)) || v > uint64(len(b))-k {
		return nil, nil, r.fail(corrupt("record %d of partition %d is longer than its block", r.ledger.Records, r.partition))
	}
	end := k + v
	key, value = b[:k:k], b[k:end:end]
	r.pos += n + int(end)
	r.left--
	r.ledger.Records++
	r.ledger.Bytes += int64(end)
	r.ledger.Checksum += Sum(r.partition, key, value)
	return key, value, nil
}

// lengths reads a record's two lengths and says how many bytes they take, 0 if they are damaged.
func lengths(b []byte) (k, v uint64, n int) {
	k, i := binary.Uvarint(b)
	if i <= 0 {
		return 0, 0, 0
	}
	v, j := binary.Uvarint(b[i:])
	if j <= 0 {
		return 0, 0, 0
	}
	return k, v, i + j
}

// nextBlock reads, checks and decodes the next frame, or returns io.EOF.
func (r *Reader) nextBlock() error {
	if r.err != nil {
		return r.err
	}
	if r.pos != len(r.block) {
		return r.fail(corrupt("block has bytes after its last record"))
	}
	switch n, err := io.ReadFull(r.src, r.head[:]); {
	case err == io.EOF:
		return r.fail(r.end())
	case err != nil:
		return r.fail(r.readError(n, err))
	}
	h, err := parseHeader(r.head[:])
	if err == nil {
		err = h.follows(r.partition, r.seq, r.ended)
	}
	if err != nil {
		return r.fail(err)
	}
	if err := r.readPayload(int(h.stored)); err != nil {
		return r.fail(err)
	}
	if sum := crc32.Update(crc32.Checksum(r.head[4:], castagnoli), castagnoli, r.payload); sum != h.crc {
		return r.fail(corrupt("frame %d of partition %d does not match its checksum", h.seq, r.partition))
	}
	if h.codec == None {
		r.block, r.payload = r.payload, r.block
	} else {
		r.block = resize(r.block, int(h.raw))
		if err := r.decompressor.decompress(h.codec, r.block, r.payload); err != nil {
			return r.fail(err)
		}
	}
	r.pos, r.left, r.ended = 0, h.records, h.last
	r.seq++
	return nil
}

// end is io.EOF, if this may be the end.
func (r *Reader) end() error {
	if r.seq > 0 && !r.ended {
		return corrupt("partition %d ends after frame %d, which is not its last", r.partition, r.seq-1)
	}
	if r.indexed && r.want != r.ledger {
		return corrupt("partition %d has %d records (%d bytes), its index says %d (%d)",
			r.partition, r.ledger.Records, r.ledger.Bytes, r.want.Records, r.want.Bytes)
	}
	return io.EOF
}

// readPayload reads a frame's payload. It takes memory step by step, as bytes
// really come: the length is not yet verified.
func (r *Reader) readPayload(n int) error {
	r.payload = resize(r.payload, min(n, smallRaw))[:0]
	for len(r.payload) < n {
		step := min(n-len(r.payload), max(smallRaw, len(r.payload)))
		r.payload = slices.Grow(r.payload, step)
		at := len(r.payload)
		r.payload = r.payload[:at+step]
		if got, err := io.ReadFull(r.src, r.payload[at:]); err != nil {
			return r.readError(at+got, err)
		}
	}
	return nil
}

// resize returns a slice of length n, on b's memory if it is large enough, and not far too large.
func resize(b []byte, n int) []byte {
	if cap(b) < n || cap(b) > 2*smallRaw && cap(b) > 4*n {
		return make([]byte, n)
	}
	return b[:n]
}

func (r *Reader) readError(n int, err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return corrupt("frame %d of partition %d is truncated", r.seq, r.partition)
	}
	return fmt.Errorf("read frame %d of partition %d: %w", r.seq, r.partition, err)
}

// fail makes err the Reader's last word.
func (r *Reader) fail(err error) error {
	if r.path != "" && err != io.EOF {
		err = fmt.Errorf("segment %s: %w", r.path, err)
	}
	r.err = err
	r.left, r.pos, r.block = 0, 0, r.block[:0]
	return err
}

// Ledger is what has been decoded so far.
func (r *Reader) Ledger() Ledger { return r.ledger }

// Close gives the reader's buffers back, and closes the file of OpenPartition. Idempotent.
func (r *Reader) Close() error {
	r.decompressor.close()
	r.block, r.payload, r.left, r.pos = nil, nil, 0, 0
	r.err = errReaderClosed
	if r.file == nil {
		return nil
	}
	f := r.file
	r.file = nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("close segment: %w", err)
	}
	return nil
}

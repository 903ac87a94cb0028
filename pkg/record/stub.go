// Package record is the format of segments: framed, compressed, checksummed
// blocks of key/value records, in partitions, with an index at the end.
package record

import (
	"errors"
	"io"
)

// ErrCorrupt is wrapped by every error that says the bytes are not what was written.
var ErrCorrupt = errors.New("corrupt segment")

// Ledger counts records: how many, their key and value bytes, and the sum
// modulo 2^64 of Sum over them. Order does not matter.
type Ledger struct {
	Records, Bytes int64
	Checksum       uint64
}

// Add adds o to l.
func (l *Ledger) Add(o Ledger) { l.Records += o.Records; l.Bytes += o.Bytes; l.Checksum += o.Checksum }

// Sum is one record's term in a Ledger's checksum: xxh3 over partition, key and value, with lengths.
func Sum(partition int, key, value []byte) uint64 { panic("unwritten") }

// Codec compresses blocks.
type Codec uint8

const (
	S2 Codec = iota // the default: fast
	None
	Zstd
	LZ4
)

// PartitionIndex says where one partition lies in a segment, and what is in it.
type PartitionIndex struct {
	Offset, Length int64 // in the file, compressed
	Ledger
}

// Index is a segment's table of contents.
type Index struct{ Partitions []PartitionIndex }

// Total sums all partitions.
func (x Index) Total() Ledger { panic("unwritten") }

// Digest identifies the content, whatever the codec and block borders: a hash
// over each partition's ledger.
func (x Index) Digest() uint64 { panic("unwritten") }

// MapDigest is the term of one map in the digest of a set of map outputs; a set's
// digest is the sum modulo 2^64 of its terms, so that order does not matter.
func MapDigest(mapIndex int, digest uint64) uint64 { panic("unwritten") }

// Writer writes one segment.
type Writer struct{}

// NewWriter starts a segment of the given number of partitions on w.
func NewWriter(w io.Writer, partitions int, c Codec) *Writer { panic("unwritten") }

// Append adds a record. Partitions must not decrease. It keeps neither slice.
func (w *Writer) Append(partition int, key, value []byte) error { panic("unwritten") }

// Close writes what is pending and the index; it does not close the underlying writer.
func (w *Writer) Close() (Index, error) { panic("unwritten") }

// ReadIndex reads the index of a segment of the given size.
func ReadIndex(r io.ReaderAt, size int64) (Index, error) { panic("unwritten") }

// Reader decodes one partition.
type Reader struct{}

// NewReader reads the blocks of one partition from r (just its byte range), verifying every block.
func NewReader(r io.Reader, partition int) *Reader { panic("unwritten") }

// Next returns the next record, or io.EOF. The slices are valid until the next call.
func (r *Reader) Next() (key, value []byte, err error) { panic("unwritten") }

// Ledger is what has been decoded so far.
func (r *Reader) Ledger() Ledger { panic("unwritten") }

// Close gives the reader's buffers back.
func (r *Reader) Close() error { panic("unwritten") }

// Verifier is an io.Writer that checks the frames and CRCs of a partition's
// bytes as they pass, without decoding them. Close says whether they end at a frame's end.
type Verifier struct{}

// NewVerifier returns a Verifier.
func NewVerifier() *Verifier                    { panic("unwritten") }
func (v *Verifier) Write(p []byte) (int, error) { panic("unwritten") }
func (v *Verifier) Close() error                { panic("unwritten") }

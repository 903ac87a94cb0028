package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/zeebo/xxh3"
)

const (
	version    = 1
	magic      = "MRseg\r\n\x1a"
	entrySize  = 40
	footerSize = 32
)

// PartitionIndex says where one partition lies in a segment, and what is in it.
type PartitionIndex struct {
	Offset, Length int64 // in the file, compressed
	Ledger
}

// Index is a segment's table of contents.
type Index struct{ Partitions []PartitionIndex }

// Total sums all partitions.
func (x Index) Total() Ledger {
	var t Ledger
	for _, p := range x.Partitions {
		t.Add(p.Ledger)
	}
	return t
}

// Digest identifies the content, whatever the codec and block borders: a hash
// over each partition's ledger.
func (x Index) Digest() uint64 {
	var b [24]byte
	h := uint64(len(x.Partitions))
	for _, p := range x.Partitions {
		binary.LittleEndian.PutUint64(b[0:], uint64(p.Records))
		binary.LittleEndian.PutUint64(b[8:], uint64(p.Bytes))
		binary.LittleEndian.PutUint64(b[16:], p.Checksum)
		h = xxh3.HashSeed(b[:], h)
	}
	return h
}

// MapDigest is the term of one map in the digest of a set of map outputs; a set's
// digest is the sum modulo 2^64 of its terms, so that order does not matter.
func MapDigest(mapIndex int, digest uint64) uint64 {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[0:], uint64(mapIndex))
	binary.LittleEndian.PutUint64(b[8:], digest)
	return xxh3.Hash(b[:])
}

// tail is the index and the footer of a segment whose frames take dataSize bytes.
//
// The index has 40 bytes for each partition: offset, length, records, bytes,
// checksum. The footer has
//
//	 0 bytes of frames
//	 8 partitions (4 bytes), version (2), 2 zero bytes
//	16 4 zero bytes
//	20 crc32c of the index and the 20 bytes above
//	24 magic
func (x Index) tail(dataSize int64) []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, len(x.Partitions)*entrySize+footerSize)
	for _, p := range x.Partitions {
		b = le.AppendUint64(b, uint64(p.Offset))
		b = le.AppendUint64(b, uint64(p.Length))
		b = le.AppendUint64(b, uint64(p.Records))
		b = le.AppendUint64(b, uint64(p.Bytes))
		b = le.AppendUint64(b, p.Checksum)
	}
	b = le.AppendUint64(b, uint64(dataSize))
	b = le.AppendUint32(b, uint32(len(x.Partitions)))
	b = le.AppendUint16(b, version)
	b = append(b, 0, 0, 0, 0, 0, 0)
	b = le.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return append(b, magic...)
}

// ReadIndex reads the index of a segment of the given size.
func ReadIndex(r io.ReaderAt, size int64) (Index, error) {
	le := binary.LittleEndian
	if size < footerSize {
		return Index{}, corrupt("%d bytes are too few for a segment", size)
	}
	var f [footerSize]byte
	if err := readAt(r, f[:], size-footerSize); err != nil {
		return Index{}, fmt.Errorf("read footer: %w", err)
	}
	if string(f[24:]) != magic {
		return Index{}, corrupt("no segment footer")
	}
	if v := le.Uint16(f[12:]); v != version || le.Uint16(f[14:])|le.Uint16(f[16:])|le.Uint16(f[18:]) != 0 {
		return Index{}, corrupt("segment version %d, not %d", v, version)
	}
	n, data := int64(le.Uint32(f[8:])), int64(le.Uint64(f[:]))
	if data < 0 || data > size || n == 0 || data+n*entrySize+footerSize != size {
		return Index{}, corrupt("footer says %d bytes in %d partitions, the segment has %d", data, n, size)
	}
	b := make([]byte, n*entrySize, n*entrySize+footerSize)
	if err := readAt(r, b, data); err != nil {
		return Index{}, fmt.Errorf("read index: %w", err)
	}
	if crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, f[:20]) != le.Uint32(f[20:]) {
		return Index{}, corrupt("index does not match its checksum")
	}
	return parseEntries(b, data)
}

// parseEntries reads the index's entries and checks that they tile the frames' bytes.
func parseEntries(b []byte, data int64) (Index, error) {
	le := binary.LittleEndian
	x := Index{Partitions: make([]PartitionIndex, 0, len(b)/entrySize)}
	var at int64
	for ; len(b) > 0; b = b[entrySize:] {
		p := PartitionIndex{
			Offset: int64(le.Uint64(b)),
			Length: int64(le.Uint64(b[8:])),
			Ledger: Ledger{Records: int64(le.Uint64(b[16:])), Bytes: int64(le.Uint64(b[24:])), Checksum: le.Uint64(b[32:])},
		}
		empty := p.Records == 0
		if p.Offset != at || p.Length < 0 || p.Length > data-at || p.Records < 0 || p.Bytes < 0 || empty != (p.Length == 0) {
			return Index{}, corrupt("partition %d at %d, %d bytes long, does not fit", len(x.Partitions), p.Offset, p.Length)
		}
		at += p.Length
		x.Partitions = append(x.Partitions, p)
	}
	if at != data {
		return Index{}, corrupt("%d bytes belong to no partition", data-at)
	}
	return x, nil
}

// readAt fills b; bytes that should be there and are not make a corrupt segment.
func readAt(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	switch {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return corrupt("truncated")
	}
	return err
}

package record

import (
	"encoding/binary"
	"hash/crc32"
)

const (
	blockSize  = 256 << 10 // raw bytes at which a block is closed
	headerSize = 32

	// maxRaw is the most a block may hold: one record of MaxRecord.
	maxRaw = MaxRecord + 2*binary.MaxVarintLen32

	// A block above smallRaw never shrinks to less than 1/maxRatio of itself:
	// the Writer stores it instead. So what a Reader allocates is bounded by
	// what it has really read, however the bytes may lie.
	smallRaw = 1 << 20
	maxRatio = 1 << 10

	flagLast = 1 // of the partition
)

// castagnoli is a constant in all but name.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is a frame's head:
//
//	 0 crc32c of everything behind it, payload included
//	 4 codec, flags, 2 zero bytes
//	 8 partition
//	12 sequence number of the frame in its partition
//	16 records
//	20 raw length
//	24 stored length: the payload's
//	28 4 zero bytes
type header struct {
	crc                  uint32
	codec                Codec
	last                 bool
	partition, seq       uint32
	records, raw, stored uint32
}

// put writes h into the first headerSize bytes of frame and sums the whole of it.
func (h header) put(frame []byte) {
	le := binary.LittleEndian
	clear(frame[:headerSize])
	frame[4] = byte(h.codec)
	if h.last {
		frame[5] = flagLast
	}
	le.PutUint32(frame[8:], h.partition)
	le.PutUint32(frame[12:], h.seq)
	le.PutUint32(frame[16:], h.records)
	le.PutUint32(frame[20:], h.raw)
	le.PutUint32(frame[24:], h.stored)
	le.PutUint32(frame, crc32.Checksum(frame[4:], castagnoli))
}

// parseHeader reads a header and refuses what no Writer writes. The CRC is still to be checked.
func parseHeader(b []byte) (header, error) {
	le := binary.LittleEndian
	h := header{
		crc:       le.Uint32(b),
		codec:     Codec(b[4]),
		last:      b[5] == flagLast,
		partition: le.Uint32(b[8:]),
		seq:       le.Uint32(b[12:]),
		records:   le.Uint32(b[16:]),
		raw:       le.Uint32(b[20:]),
		stored:    le.Uint32(b[24:]),
	}
	switch {
	case h.codec > LZ4:
		return h, corrupt("frame of unknown codec %d", h.codec)
	case b[5] > flagLast || b[6]|b[7]|b[28]|b[29]|b[30]|b[31] != 0:
		return h, corrupt("frame header has unknown flags")
	case h.raw > maxRaw || h.stored > h.raw || h.stored == 0 ||
		h.codec == None && h.stored != h.raw:
		return h, corrupt("frame of %d bytes for %d", h.stored, h.raw)
	case h.raw > smallRaw && h.raw/maxRatio > h.stored:
		return h, corrupt("frame of %d bytes for %d is too small", h.stored, h.raw)
	case h.records == 0 || h.records > h.raw/2:
		return h, corrupt("frame of %d bytes for %d records", h.raw, h.records)
	}
	return h, nil
}

// follows checks that h comes where it should: frame number seq of the partition, and none after the last.
func (h header) follows(partition int, seq uint32, ended bool) error {
	switch {
	case ended:
		return corrupt("bytes after partition %d", partition)
	case int64(h.partition) != int64(partition):
		return corrupt("frame of partition %d in partition %d", h.partition, partition)
	case h.seq != seq:
		return corrupt("frame %d of partition %d where %d should be", h.seq, partition, seq)
	}
	return nil
}

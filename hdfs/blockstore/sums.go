package blockstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"millrace/hdfs"
)

// A sums file is a header of 64 bytes and then one CRC32C (Castagnoli, little endian) for each hdfs.ChunkSize bytes
// of the block. The header:
//
//	0  8 bytes  "millsums"
//	8  uint32   version of the format
//	12 uint32   hdfs.ChunkSize
//	16 uint64   block
//	24 uint64   stamp
//	32 uint64   size of the block in bytes
//	40          zeros
//	60 uint32   CRC32C of the 60 bytes before
const (
	sumsMagic   = "millsums"
	sumsVersion = 1
	headerSize  = 64
	sumSize     = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sums gives the CRC32C of each chunk of the data, the last one of which may be short.
func Sums(data []byte) []uint32 {
	sums := make([]uint32, 0, chunks(int64(len(data))))
	for len(data) > 0 {
		n := min(len(data), hdfs.ChunkSize)
		sums = append(sums, crc32.Checksum(data[:n], castagnoli))
		data = data[n:]
	}
	return sums
}

// FirstBad is the first chunk of the data that does not have its sum, -1 if all have. A chunk without a sum is bad,
// and so is a sum without a chunk.
func FirstBad(data []byte, sums []uint32) int {
	for i, want := range sums {
		n := min(len(data), hdfs.ChunkSize)
		if n == 0 || crc32.Checksum(data[:n], castagnoli) != want {
			return i
		}
		data = data[n:]
	}
	if len(data) > 0 {
		return len(sums)
	}
	return -1
}

// chunks is how many chunks so many bytes make.
func chunks(size int64) int64 { return (size + hdfs.ChunkSize - 1) / hdfs.ChunkSize }

// sumsSize is the length of the sums file of a block of so many bytes.
func sumsSize(size int64) int64 { return headerSize + sumSize*chunks(size) }

func sumOffset(chunk int64) int64 { return headerSize + sumSize*chunk }

func encodeHeader(b hdfs.Block) []byte {
	h := make([]byte, headerSize)
	copy(h, sumsMagic)
	binary.LittleEndian.PutUint32(h[8:], sumsVersion)
	binary.LittleEndian.PutUint32(h[12:], hdfs.ChunkSize)
	binary.LittleEndian.PutUint64(h[16:], uint64(b.ID))
	binary.LittleEndian.PutUint64(h[24:], uint64(b.Stamp))
	binary.LittleEndian.PutUint64(h[32:], uint64(b.Size))
	binary.LittleEndian.PutUint32(h[60:], crc32.Checksum(h[:60], castagnoli))
	return h
}

// decodeHeader says whose sums these are. What it takes, encodeHeader gives again.
func decodeHeader(h []byte) (hdfs.Block, error) {
	switch {
	case len(h) < headerSize:
		return hdfs.Block{}, fmt.Errorf("the header has %d of %d bytes", len(h), headerSize)
	case string(h[:8]) != sumsMagic:
		return hdfs.Block{}, errors.New("it is no sums file")
	case crc32.Checksum(h[:60], castagnoli) != binary.LittleEndian.Uint32(h[60:]):
		return hdfs.Block{}, errors.New("the header's own checksum does not match")
	}
	if v := binary.LittleEndian.Uint32(h[8:]); v != sumsVersion {
		return hdfs.Block{}, fmt.Errorf("it has format %d, this program knows %d", v, sumsVersion)
	}
	if c := binary.LittleEndian.Uint32(h[12:]); c != hdfs.ChunkSize {
		return hdfs.Block{}, fmt.Errorf("it has chunks of %d bytes, this program knows %d", c, hdfs.ChunkSize)
	}
	b := hdfs.Block{
		ID:    hdfs.BlockID(binary.LittleEndian.Uint64(h[16:])),
		Stamp: hdfs.Stamp(binary.LittleEndian.Uint64(h[24:])),
		Size:  int64(binary.LittleEndian.Uint64(h[32:])),
	}
	if b.Size < 0 || b.Size > hdfs.MaxBlockSize {
		return hdfs.Block{}, fmt.Errorf("it is for a block of %d bytes, which cannot be", b.Size)
	}
	for _, z := range h[40:60] {
		if z != 0 {
			return hdfs.Block{}, errors.New("the header has bytes that this program does not know")
		}
	}
	return b, nil
}

func encodeSums(sums []uint32) []byte {
	out := make([]byte, 0, sumSize*len(sums))
	for _, s := range sums {
		out = binary.LittleEndian.AppendUint32(out, s)
	}
	return out
}

func decodeSums(raw []byte) []uint32 {
	sums := make([]uint32, len(raw)/sumSize)
	for i := range sums {
		sums[i] = binary.LittleEndian.Uint32(raw[sumSize*i:])
	}
	return sums
}

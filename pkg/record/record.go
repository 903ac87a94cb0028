// Package record owns the format of segments: framed, compressed, checksummed
// blocks of key/value records, in partitions, with an index at the end. It
// knows nothing of sorting, files or the network.
//
// A segment is laid out as
//
//	frames of partition 0 · frames of partition 1 · … · index · footer
//
// A frame is a 32-byte header and a payload: about 256 KiB of records,
// compressed unless that does not help. Its CRC32C covers header and payload,
// and the header carries partition, sequence number and a mark on the
// partition's last frame, so that a range of bytes is proof of itself: frames
// swapped, repeated, left out or of another partition are found without the
// index. An empty partition has no frames and no bytes.
//
// All integers are little-endian. In a block, a record is the lengths of key
// and value (uvarint), then both.
package record

import (
	"errors"
	"fmt"

	"github.com/zeebo/xxh3"
)

// ErrCorrupt is wrapped by every error that says the bytes are not what was written.
var ErrCorrupt = errors.New("corrupt segment")

// ErrTooLarge is wrapped when a record exceeds MaxRecord.
var ErrTooLarge = errors.New("record too large")

// MaxRecord is the most a record's key and value may have together, in bytes.
const MaxRecord = 1 << 30

// CheckSize says whether a record of that many bytes of key and value is allowed.
func CheckSize(size int) error {
	if size > MaxRecord {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, size, MaxRecord)
	}
	return nil
}

// Ledger counts records: how many, their key and value bytes, and the sum
// modulo 2^64 of Sum over them. Order does not matter.
type Ledger struct {
	Records, Bytes int64
	Checksum       uint64
}

// Add adds o to l.
func (l *Ledger) Add(o Ledger) {
	l.Records += o.Records
	l.Bytes += o.Bytes
	l.Checksum += o.Checksum
}

// Odd constants that spread small integers over 64 bits: the fractional parts
// of the golden ratio and of the square roots of 3 and 5.
const (
	mixPartition = 0x9E3779B97F4A7C15
	mixKey       = 0xBB67AE8584CAA73B
	mixValue     = 0x3C6EF372FE94F82B
)

// Sum is one record's term in a Ledger's checksum: xxh3 over partition, key and value, with lengths.
func Sum(partition int, key, value []byte) uint64 {
	seed := uint64(partition)*mixPartition + uint64(len(key))*mixKey
	return xxh3.HashSeed(value, xxh3.HashSeed(key, seed)+uint64(len(value))*mixValue)
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

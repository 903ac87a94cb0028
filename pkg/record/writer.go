package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Writer writes one segment. Not for concurrent use. After an error every call returns it.
type Writer struct {
	w          io.Writer
	compressor compressor
	block      []byte // room for a header, then the raw block
	frame      []byte // room for a header, then the compressed block
	partition  int
	seq        uint32 // of the next frame
	records    uint32 // in block
	at         int64  // bytes written
	index      Index
	err        error
}

var errWriterClosed = errors.New("segment writer is closed")

// NewWriter starts a segment of the given number of partitions on w. Each
// frame is one Write.
func NewWriter(w io.Writer, partitions int, c Codec) *Writer {
	x := &Writer{compressor: compressor{codec: c}}
	x.Reset(w, partitions)
	if c > LZ4 {
		x.err = fmt.Errorf("segment of unknown codec %d", c)
	}
	return x
}

// Reset starts another segment, with the buffers of the one before.
func (w *Writer) Reset(to io.Writer, partitions int) {
	*w = Writer{w: to, compressor: w.compressor, block: w.block, frame: w.frame}
	if partitions < 1 || int64(partitions) > 1<<32-1 {
		w.err = fmt.Errorf("segment of %d partitions", partitions)
		return
	}
	w.index.Partitions = make([]PartitionIndex, partitions)
	w.startBlock()
}

// Append adds a record. Partitions must not decrease. It keeps neither slice.
func (w *Writer) Append(partition int, key, value []byte) error {
	if w.err != nil {
		return w.err
	}
	if partition != w.partition {
		if err := w.moveTo(partition); err != nil {
			return err
		}
	}
	size := len(key) + len(value)
	if need := len(w.block) + size + 2*binary.MaxVarintLen32; need > cap(w.block) || need > headerSize+blockSize {
		if err := w.makeRoom(size); err != nil {
			return err
		}
	}
	b := w.block
	if len(key)|len(value) < 0x80 {
		b = append(b, byte(len(key)), byte(len(value)))
	} else {
		b = binary.AppendUvarint(b, uint64(len(key)))
		b = binary.AppendUvarint(b, uint64(len(value)))
	}
	b = append(b, key...)
	w.block = append(b, value...)
	w.records++
	l := &w.index.Partitions[partition].Ledger
	l.Records++
	l.Bytes += int64(size)
	l.Checksum += Sum(partition, key, value)
	return nil
}

// makeRoom closes the block if it is full, and makes room for a record of the size.
func (w *Writer) makeRoom(size int) error {
	if err := CheckSize(size); err != nil {
		return w.fail(err)
	}
	size += 2 * binary.MaxVarintLen32
	if w.records > 0 && len(w.block)+size > headerSize+blockSize {
		if err := w.flush(false); err != nil {
			return err
		}
	}
	w.block = slices.Grow(w.block, size)
	return nil
}

// moveTo ends the current partition, and those before the given one.
func (w *Writer) moveTo(partition int) error {
	if partition < w.partition || partition >= len(w.index.Partitions) {
		return w.fail(fmt.Errorf("record of partition %d after %d, of %d", partition, w.partition, len(w.index.Partitions)))
	}
	if w.records > 0 {
		if err := w.flush(true); err != nil {
			return err
		}
	}
	p := w.index.Partitions
	p[w.partition].Length = w.at - p[w.partition].Offset
	for w.partition < partition {
		w.partition++
		p[w.partition].Offset = w.at
	}
	w.seq = 0
	return nil
}

// startBlock empties the block and gives back what a huge record needed.
func (w *Writer) startBlock() {
	const most = 2 * (headerSize + blockSize)
	if cap(w.frame) > most {
		w.frame = nil
	}
	if c := cap(w.block); c < headerSize || c > most {
		// A segment is often small: the block grows to its size by doubling.
		w.block = make([]byte, headerSize, headerSize+blockSize/64)
	}
	w.block = w.block[:headerSize]
	w.records = 0
}

// flush writes the block as a frame, compressed if that helps.
func (w *Writer) flush(last bool) error {
	raw := len(w.block) - headerSize
	h := header{codec: None, last: last, partition: uint32(w.partition), seq: w.seq,
		records: w.records, raw: uint32(raw), stored: uint32(raw)}
	frame := w.block
	if w.compressor.codec != None {
		small, err := w.compress()
		if err != nil {
			return w.fail(err)
		}
		n := len(small) - headerSize
		// Less than 1/32 saved is not worth the decoding.
		if n > 0 && n <= raw-raw/32-1 && (raw <= smallRaw || n >= raw/maxRatio) {
			h.codec, h.stored, frame = w.compressor.codec, uint32(n), small
		}
	}
	h.put(frame)
	n, err := w.w.Write(frame)
	if err == nil && n < len(frame) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return w.fail(fmt.Errorf("write partition %d: %w", w.partition, err))
	}
	w.at += int64(len(frame))
	w.seq++
	w.startBlock()
	return nil
}

// compress returns room for a header and the compressed block.
func (w *Writer) compress() ([]byte, error) {
	raw := w.block[headerSize:]
	if need := headerSize + w.compressor.bound(len(raw)); cap(w.frame) < need {
		w.frame = make([]byte, need)
	}
	return w.compressor.compress(w.frame[:headerSize], raw)
}

// Close writes what is pending and the index; it does not close the underlying writer.
func (w *Writer) Close() (Index, error) {
	if w.err != nil {
		return Index{}, w.err
	}
	if err := w.moveTo(len(w.index.Partitions) - 1); err != nil {
		return Index{}, err
	}
	p := &w.index.Partitions[w.partition]
	if w.records > 0 {
		if err := w.flush(true); err != nil {
			return Index{}, err
		}
	}
	p.Length = w.at - p.Offset
	tail := w.index.tail(w.at)
	if n, err := w.w.Write(tail); err != nil || n < len(tail) {
		if err == nil {
			err = io.ErrShortWrite
		}
		return Index{}, w.fail(fmt.Errorf("write index: %w", err))
	}
	w.at += int64(len(tail))
	w.err = errWriterClosed
	return w.index, nil
}

// Size is how many bytes have been written, after Close the whole segment.
func (w *Writer) Size() int64 { return w.at }

func (w *Writer) fail(err error) error {
	w.err = err
	return err
}

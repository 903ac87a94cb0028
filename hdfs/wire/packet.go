package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"millrace/hdfs"
)

// A packet's frame, big-endian: magic 2, kind 1, flags 1, length of the data 4, offset in the block 8, CRC32C of
// these 4; then a CRC32C of each chunk of the data; then the data.
const (
	packetMagic  = 0x4d42 // "MB"
	packetHeader = 20
	maxSums      = MaxData / hdfs.ChunkSize * 4 // bytes
	dataAt       = packetHeader + maxSums       // in a Packet's buffer, so that a frame is one piece of it

	kindData = 1
	kindPing = 2

	flagFinal = 1
)

// Packet is a piece of a block with its checksums. It begins at a border of chunks, and holds whole ones unless
// it is the block's last. One has its buffer for ever: they are made once and used again.
type Packet struct {
	Offset int64 // in the block
	Final  bool  // nothing of the block comes after it
	Ping   bool  // a sign of life only

	buf []byte
	n   int // bytes of data
}

// NewPacket makes an empty packet with room for MaxData.
func NewPacket() *Packet { return &Packet{buf: make([]byte, dataAt+MaxData)} }

// Reset empties the packet for the piece at an offset.
func (p *Packet) Reset(offset int64) { p.Offset, p.Final, p.Ping, p.n = offset, false, false, 0 }

// Append copies as much of data as there is room for, up to limit bytes in all, and says how much.
func (p *Packet) Append(data []byte, limit int) int {
	n := copy(p.buf[dataAt+p.n:dataAt+min(limit, MaxData)], data)
	p.n += n
	return n
}

// Buffer is where a caller may read data into, before it calls Fill.
func (p *Packet) Buffer() []byte { return p.buf[dataAt : dataAt+MaxData] }

// Fill takes data (which may lie in Buffer) with its checksums as they are, right or wrong.
func (p *Packet) Fill(data []byte, sums []uint32) error {
	if len(data) > MaxData || len(sums) != Chunks(len(data)) {
		return fmt.Errorf("%w: packet of %d bytes with %d checksums", ErrProtocol, len(data), len(sums))
	}
	p.n = copy(p.buf[dataAt:], data)
	at := p.buf[dataAt-4*len(sums):]
	for i, s := range sums {
		binary.BigEndian.PutUint32(at[4*i:], s)
	}
	return nil
}

// Seal computes the checksums of what was appended.
func (p *Packet) Seal() {
	data := p.Data()
	at := p.buf[dataAt-4*Chunks(len(data)):]
	for i := 0; len(data) > 0; i++ {
		n := min(len(data), hdfs.ChunkSize)
		binary.BigEndian.PutUint32(at[4*i:], crc(data[:n]))
		data = data[n:]
	}
}

// Data is the packet's piece of the block; valid until the packet is used again.
func (p *Packet) Data() []byte { return p.buf[dataAt : dataAt+p.n] }

// Len is the number of bytes of Data.
func (p *Packet) Len() int { return p.n }

// End is the offset in the block behind the packet.
func (p *Packet) End() int64 { return p.Offset + int64(p.n) }

// Sums appends the chunks' checksums to dst.
func (p *Packet) Sums(dst []uint32) []uint32 {
	n := Chunks(p.n)
	at := p.buf[dataAt-4*n:]
	for i := range n {
		dst = append(dst, binary.BigEndian.Uint32(at[4*i:]))
	}
	return dst
}

// Verify compares data and checksums; hdfs.ErrCorrupt.
func (p *Packet) Verify() error {
	data, at := p.Data(), p.buf[dataAt-4*Chunks(p.n):]
	for i := 0; len(data) > 0; i++ {
		n := min(len(data), hdfs.ChunkSize)
		if crc(data[:n]) != binary.BigEndian.Uint32(at[4*i:]) {
			return fmt.Errorf("%w: %d bytes at offset %d", hdfs.ErrCorrupt, n, p.Offset+int64(i)*hdfs.ChunkSize)
		}
		data = data[n:]
	}
	return nil
}

// WriteTo sends the packet as one frame.
func (p *Packet) WriteTo(w io.Writer) (int64, error) {
	begin := dataAt - 4*Chunks(p.n) - packetHeader
	h := p.buf[begin : begin+packetHeader]
	binary.BigEndian.PutUint16(h, packetMagic)
	h[2], h[3] = kindData, 0
	if p.Ping {
		h[2] = kindPing
	}
	if p.Final {
		h[3] = flagFinal
	}
	binary.BigEndian.PutUint32(h[4:], uint32(p.n))
	binary.BigEndian.PutUint64(h[8:], uint64(p.Offset))
	binary.BigEndian.PutUint32(h[16:], crc(h[:16]))
	n, err := w.Write(p.buf[begin : dataAt+p.n])
	return int64(n), err
}

// ReadPacket reads one frame into p. It checks the frame, not yet the data (Verify). io.EOF is the end between
// frames.
func ReadPacket(r io.Reader, p *Packet) error {
	p.Reset(0)
	var header [packetHeader]byte
	h := header[:]
	if _, err := io.ReadFull(r, h); err != nil {
		return err
	}
	kind, flags, n := h[2], h[3], binary.BigEndian.Uint32(h[4:])
	switch {
	case binary.BigEndian.Uint16(h) != packetMagic || crc(h[:16]) != binary.BigEndian.Uint32(h[16:]):
		return fmt.Errorf("%w: the header of a packet is damaged", ErrProtocol)
	case kind != kindData && kind != kindPing || flags&^flagFinal != 0:
		return fmt.Errorf("%w: packet of an unknown kind %d, flags %#x", ErrProtocol, kind, flags)
	case n > MaxData || kind == kindPing && (n > 0 || flags != 0):
		return fmt.Errorf("%w: packet of %d bytes", ErrProtocol, n)
	}
	p.Offset, p.Ping, p.Final = int64(binary.BigEndian.Uint64(h[8:])), kind == kindPing, flags&flagFinal != 0
	if p.Offset < 0 || p.Offset > hdfs.MaxBlockSize || p.Offset%hdfs.ChunkSize != 0 && n > 0 {
		return fmt.Errorf("%w: packet at offset %d", ErrProtocol, p.Offset)
	}
	if !p.Final && n%hdfs.ChunkSize != 0 {
		return fmt.Errorf("%w: packet of %d bytes, not of whole chunks, and not the last", ErrProtocol, n)
	}
	_, err := io.ReadFull(r, p.buf[dataAt-4*Chunks(int(n)):dataAt+int(n)])
	if err != nil {
		if err == io.EOF && n > 0 {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	p.n = int(n)
	return nil
}

// Chunks is how many chunks n bytes take.
func Chunks(n int) int { return (n + hdfs.ChunkSize - 1) / hdfs.ChunkSize }

// StreamSize is the length in bytes of the frames that carry n bytes of a block from a border of chunks on, each
// full but the last.
func StreamSize(n int64) int64 {
	if n == 0 {
		return packetHeader
	}
	packets := (n + MaxData - 1) / MaxData
	chunks := (n + hdfs.ChunkSize - 1) / hdfs.ChunkSize
	return packets*packetHeader + chunks*4 + n
}

// packets are those that readers of blocks borrow, who come and go by the piece.
var packets = sync.Pool{New: func() any { return NewPacket() }}

// Borrow gives a packet that is to be given back.
func Borrow() *Packet { return packets.Get().(*Packet) }

// Return gives a borrowed packet back.
func (p *Packet) Return() { packets.Put(p) }

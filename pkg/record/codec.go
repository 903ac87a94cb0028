package record

import (
	"fmt"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Codec compresses blocks.
type Codec uint8

// The codecs. A block that does not shrink is stored, whatever the codec.
const (
	S2 Codec = iota // the default: fast
	None
	Zstd
	LZ4
)

// String returns the name that ParseCodec reads.
func (c Codec) String() string {
	switch c {
	case S2:
		return "s2"
	case None:
		return "none"
	case Zstd:
		return "zstd"
	case LZ4:
		return "lz4"
	}
	return fmt.Sprintf("codec(%d)", uint8(c))
}

// ParseCodec reads a codec's name; the empty name is the default.
func ParseCodec(name string) (Codec, error) {
	switch name {
	case "", "s2":
		return S2, nil
	case "none":
		return None, nil
	case "zstd":
		return Zstd, nil
	case "lz4":
		return LZ4, nil
	}
	return 0, fmt.Errorf("unknown codec %q (one of s2, none, zstd, lz4)", name)
}

// compressor holds what one Writer's codec needs between blocks.
type compressor struct {
	codec Codec
	zstd  *zstd.Encoder
	lz4   *lz4.Compressor
}

// bound is the space compress needs beyond the header for n raw bytes.
func (c *compressor) bound(n int) int {
	switch c.codec {
	case S2:
		return s2.MaxEncodedLen(n)
	case LZ4:
		return lz4.CompressBlockBound(n)
	case Zstd:
		return n + n>>7 + 512 // appended to: a wrong guess costs a copy, no more
	}
	return 0
}

// compress appends raw, compressed, to dst, which has room for bound(len(raw))
// more. It returns dst unchanged when the codec gives up.
func (c *compressor) compress(dst, raw []byte) ([]byte, error) {
	room := dst[len(dst):cap(dst)]
	switch c.codec {
	case S2:
		return dst[:len(dst)+len(s2.Encode(room, raw))], nil
	case LZ4:
		if c.lz4 == nil {
			c.lz4 = new(lz4.Compressor)
		}
		n, err := c.lz4.CompressBlock(raw, room)
		if err != nil {
			return dst, fmt.Errorf("lz4: %w", err)
		}
		return dst[:len(dst)+n], nil
	case Zstd:
		if c.zstd == nil {
			e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest),
				zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
			if err != nil {
				return dst, fmt.Errorf("zstd: %w", err)
			}
			c.zstd = e
		}
		return c.zstd.EncodeAll(raw, dst), nil
	}
	return dst, nil
}

// decompressor holds what one Reader needs between blocks.
type decompressor struct{ zstd *zstd.Decoder }

// decompress fills dst, whose length is the block's raw length, from src.
func (d *decompressor) decompress(codec Codec, dst, src []byte) error {
	switch codec {
	case None:
		copy(dst, src)
		return nil
	case S2:
		if n, err := s2.DecodedLen(src); err != nil || n != len(dst) {
			return corrupt("s2 block of %d bytes says %d (%v)", len(dst), n, err)
		}
		if _, err := s2.Decode(dst, src); err != nil {
			return corrupt("s2 block: %v", err)
		}
		return nil
	case LZ4:
		n, err := lz4.UncompressBlock(src, dst)
		if err != nil || n != len(dst) {
			return corrupt("lz4 block of %d bytes gives %d (%v)", len(dst), n, err)
		}
		return nil
	case Zstd:
		return d.unzstd(dst, src)
	}
	return corrupt("unknown codec %d", codec)
}

func (d *decompressor) unzstd(dst, src []byte) error {
	if d.zstd == nil {
		z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxWindow(maxRaw))
		if err != nil {
			return fmt.Errorf("zstd: %w", err)
		}
		d.zstd = z
	}
	got, err := d.zstd.DecodeAll(src, dst[:0:len(dst)])
	if err != nil || len(got) != len(dst) {
		return corrupt("zstd block of %d bytes gives %d (%v)", len(dst), len(got), err)
	}
	return nil
}

func (d *decompressor) close() {
	if d.zstd != nil {
		d.zstd.Close()
		d.zstd = nil
	}
}

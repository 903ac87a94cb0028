package record

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// small is a segment of several frames: three partitions, the middle one empty.
func small(t testing.TB, c Codec) ([]byte, Index) {
	var all []rec
	for _, r := range words(12, 2) {
		r.partition *= 2
		r.value = bytes.Repeat([]byte("abcdefgh"), 4)
		all = append(all, r)
	}
	return segment(t, 3, c, all)
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	for _, c := range codecs {
		data, _ := small(t, c)
		for i := range data {
			for bit := range 8 {
				bad := bytes.Clone(data)
				bad[i] ^= 1 << bit
				_, err := decode(bad)
				require.ErrorIs(t, err, ErrCorrupt, "%s: byte %d bit %d", c, i, bit)
			}
		}
	}
}

func TestEveryTruncationIsFound(t *testing.T) {
	for _, c := range codecs {
		data, x := small(t, c)
		for n := range data {
			_, err := decode(data[:n])
			require.ErrorIs(t, err, ErrCorrupt, "%s: at %d", c, n)
			_, err = ReadIndex(bytes.NewReader(data[:n]), int64(len(data)))
			require.ErrorIs(t, err, ErrCorrupt, "%s: a size that is not there, at %d", c, n)
		}
		p := x.Partitions[0]
		for n := range p.Length {
			_, err := drain(NewPartitionReader(bytes.NewReader(data[:n]), 0, p), 0)
			require.ErrorIs(t, err, ErrCorrupt, "%s: at %d", c, n)
			if n == 0 {
				continue // an empty partition, as far as its bytes can tell
			}
			_, err = drain(NewReader(bytes.NewReader(data[:n]), 0), 0)
			require.ErrorIs(t, err, ErrCorrupt, "%s: at %d", c, n)
			v := NewVerifier()
			_, err = v.Write(data[:n])
			require.NoError(t, err)
			require.ErrorIs(t, v.Close(), ErrCorrupt, "%s: at %d", c, n)
		}
	}
}

func TestTrailingBytesAreFound(t *testing.T) {
	data, x := small(t, S2)
	for _, tail := range [][]byte{{0}, make([]byte, 40), data, data[len(data)-footerSize:]} {
		_, err := decode(append(bytes.Clone(data), tail...))
		require.ErrorIs(t, err, ErrCorrupt)
		part := append(bytes.Clone(data[:x.Partitions[0].Length]), tail...)
		_, err = drain(NewReader(bytes.NewReader(part), 0), 0)
		require.ErrorIs(t, err, ErrCorrupt)
		v := NewVerifier()
		if _, err = v.Write(part); err == nil {
			err = v.Close()
		}
		require.ErrorIs(t, err, ErrCorrupt)
	}
}

func TestSwappedPartitionsAreFound(t *testing.T) {
	data, x := small(t, S2)
	p0, p2 := x.Partitions[0], x.Partitions[2]
	a, b := data[:p0.Length], data[p2.Offset:p2.Offset+p2.Length]
	_, err := decode(slices.Concat(b, a, data[p2.Offset+p2.Length:]))
	require.ErrorIs(t, err, ErrCorrupt)
	_, err = drain(NewReader(bytes.NewReader(b), 0), 0)
	require.ErrorIs(t, err, ErrCorrupt)
	_, err = NewPartitionVerifier(0).Write(b)
	require.ErrorIs(t, err, ErrCorrupt)

	swapped := Index{Partitions: slices.Clone(x.Partitions)}
	swapped.Partitions[0], swapped.Partitions[2] = p2, p0
	_, err = decode(slices.Concat(a, b, swapped.tail(int64(len(a)+len(b)))))
	require.ErrorIs(t, err, ErrCorrupt)
}

func TestFramesOutOfPlaceAreFound(t *testing.T) {
	data, x := segment(t, 1, None, words(46_000, 1))
	var frames [][]byte
	for rest := data[:x.Partitions[0].Length]; len(rest) > 0; {
		n := headerSize + int(binary.LittleEndian.Uint32(rest[24:]))
		frames, rest = append(frames, rest[:n]), rest[n:]
	}
	require.Equal(t, 6, len(frames))
	for name, order := range map[string][]int{
		"swapped":         {0, 2, 1, 3, 4, 5},
		"repeated":        {0, 1, 1, 2, 3, 4, 5},
		"left out":        {0, 1, 3, 4, 5},
		"first left out":  {1, 2, 3, 4, 5},
		"last left out":   {0, 1, 2, 3, 4},
		"served twice":    {0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5},
		"more after last": {0, 1, 2, 3, 4, 5, 5},
	} {
		var bad []byte
		for _, i := range order {
			bad = append(bad, frames[i]...)
		}
		_, err := drain(NewReader(bytes.NewReader(bad), 0), 0)
		require.ErrorIs(t, err, ErrCorrupt, name)
		v := NewVerifier()
		if _, err = v.Write(bad); err == nil {
			err = v.Close()
		}
		require.ErrorIs(t, err, ErrCorrupt, name)
	}
}

func TestAnIndexThatLiesIsFound(t *testing.T) {
	data, x := small(t, S2)
	p := x.Partitions[0]
	for name, lie := range map[string]func(*PartitionIndex){
		"records":  func(p *PartitionIndex) { p.Records++ },
		"bytes":    func(p *PartitionIndex) { p.Bytes-- },
		"checksum": func(p *PartitionIndex) { p.Checksum++ },
	} {
		q := p
		lie(&q)
		_, err := drain(NewPartitionReader(bytes.NewReader(data), 0, q), 0)
		require.ErrorIs(t, err, ErrCorrupt, name)
	}
}

func TestVerifierTakesAnyPieces(t *testing.T) {
	data, x := segment(t, 2, S2, words(40_000, 2))
	p := x.Partitions[1]
	part := data[p.Offset : p.Offset+p.Length]
	for _, step := range []int{1, 7, 31, 32, 33, 1000, len(part)} {
		v := NewVerifier()
		n, err := io.CopyBuffer(struct{ io.Writer }{v}, struct{ io.Reader }{bytes.NewReader(part)}, make([]byte, step))
		require.NoError(t, err)
		require.Equal(t, p.Length, n)
		require.NoError(t, v.Close())
		require.Equal(t, p.Records, v.Records())
	}
	require.NoError(t, NewVerifier().Close(), "an empty partition")
}

func TestLiesAboutLengthsCostNoMemory(t *testing.T) {
	for name, h := range map[string]header{
		"long payload that is not there": {codec: None, last: true, records: 1, raw: 1 << 30, stored: 1 << 30},
		"short payload for a huge block": {codec: S2, last: true, records: 1, raw: 1 << 30, stored: 1 << 10},
		"largest block of few bytes":     {codec: Zstd, last: true, records: 1, raw: smallRaw, stored: 8},
	} {
		frame := make([]byte, headerSize+min(h.stored, 1<<10))
		h.put(frame)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := NewReader(bytes.NewReader(frame), 0).Next()
		runtime.ReadMemStats(&after)
		require.ErrorIs(t, err, ErrCorrupt, name)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(8<<20), name)
	}
}

// resum makes damaged frames' checksums right again, so that fuzzing gets behind them.
func resum(b []byte) []byte {
	b = bytes.Clone(b)
	for rest := b; len(rest) >= headerSize; {
		end := min(headerSize+int64(binary.LittleEndian.Uint32(rest[24:])), int64(len(rest)))
		binary.LittleEndian.PutUint32(rest, crc32.Checksum(rest[4:end], castagnoli))
		rest = rest[end:]
	}
	return b
}

func FuzzReader(f *testing.F) {
	for _, c := range codecs {
		data, x := small(f, c)
		f.Add(data[:x.Partitions[0].Length], false)
		f.Add(data[:x.Partitions[0].Length], true)
	}
	f.Fuzz(func(t *testing.T, data []byte, mend bool) {
		if mend {
			data = resum(data)
		}
		r := NewReader(bytes.NewReader(data), 0)
		records, err := drain(r, 0)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		v := NewVerifier()
		_, err = v.Write(data)
		require.NoError(t, err)
		require.NoError(t, v.Close())
		require.EqualValues(t, len(records), v.Records())
	})
}

func FuzzReadIndex(f *testing.F) {
	data, _ := small(f, S2)
	f.Add(data)
	f.Add(Index{Partitions: make([]PartitionIndex, 3)}.tail(0))
	f.Fuzz(func(t *testing.T, data []byte) {
		if n := len(data) - footerSize; n >= 0 { // mend the checksum
			parts := int(binary.LittleEndian.Uint32(data[n+8:])) * entrySize
			if parts >= 0 && parts <= n {
				data = bytes.Clone(data)
				binary.LittleEndian.PutUint32(data[n+20:], crc32.Checksum(data[n-parts:n+20], castagnoli))
			}
		}
		x, err := ReadIndex(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		last := x.Partitions[len(x.Partitions)-1]
		require.Equal(t, data[last.Offset+last.Length:], x.tail(last.Offset+last.Length))
	})
}

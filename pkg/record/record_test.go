package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

type rec struct {
	partition  int
	key, value []byte
}

var codecs = []Codec{S2, None, Zstd, LZ4}

func segment(t testing.TB, partitions int, c Codec, records []rec) ([]byte, Index) {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b, partitions, c)
	for _, r := range records {
		require.NoError(t, w.Append(r.partition, r.key, r.value))
	}
	x, err := w.Close()
	require.NoError(t, err)
	require.EqualValues(t, b.Len(), w.Size())
	return b.Bytes(), x
}

// decode reads a whole segment through its index, as a user does, and verifies it as a relay does.
func decode(data []byte) (records []rec, err error) {
	x, err := ReadIndex(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	for p, px := range x.Partitions {
		v := NewPartitionVerifier(p)
		if _, err := v.Write(data[px.Offset : px.Offset+px.Length]); err != nil {
			return nil, err
		}
		if err := v.Close(); err != nil {
			return nil, err
		}
		got, err := drain(NewPartitionReader(bytes.NewReader(data), p, px), p)
		if err != nil {
			return nil, err
		}
		records = append(records, got...)
	}
	return records, nil
}

func drain(r *Reader, partition int) (records []rec, err error) {
	defer r.Close()
	for {
		k, v, err := r.Next()
		if err == io.EOF {
			return records, nil
		}
		if err != nil {
			return records, err
		}
		records = append(records, rec{partition, bytes.Clone(k), bytes.Clone(v)})
	}
}

func equal(t require.TestingT, want, got []rec) {
	require.Len(t, got, len(want))
	for i := range want {
		if want[i].partition != got[i].partition || !bytes.Equal(want[i].key, got[i].key) || !bytes.Equal(want[i].value, got[i].value) {
			require.Failf(t, "records differ", "record %d: %v, want %v", i, got[i], want[i])
		}
	}
}

func words(n, partitions int) (records []rec) {
	for i := range n {
		records = append(records, rec{i * partitions / n, fmt.Appendf(nil, "key-%06d", i), fmt.Appendf(nil, "value %d of many", i)})
	}
	return records
}

func TestASegmentGivesBackWhatWasWritten(t *testing.T) {
	for _, c := range codecs {
		t.Run(c.String(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				partitions := rapid.IntRange(1, 5).Draw(t, "partitions")
				var want []rec
				for p := range partitions {
					for range rapid.IntRange(0, 12).Draw(t, "records") {
						size := rapid.SampledFrom([]int{0, 1, 10, 127, 128, 300, 5000, 40000}).Draw(t, "size")
						value := bytes.Repeat(rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(t, "value"), size)
						want = append(want, rec{p, rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "key"), value})
					}
				}
				var b bytes.Buffer
				w := NewWriter(&b, partitions, c)
				twin := make([]Ledger, partitions)
				for _, r := range want {
					require.NoError(t, w.Append(r.partition, r.key, r.value))
					twin[r.partition].Add(Ledger{1, int64(len(r.key) + len(r.value)), Sum(r.partition, r.key, r.value)})
				}
				x, err := w.Close()
				require.NoError(t, err)
				for p := range twin {
					require.Equal(t, twin[p], x.Partitions[p].Ledger)
				}
				y, err := ReadIndex(bytes.NewReader(b.Bytes()), int64(b.Len()))
				require.NoError(t, err)
				require.Equal(t, x, y)
				got, err := decode(b.Bytes())
				require.NoError(t, err)
				equal(t, want, got)
			})
		})
	}
}

func TestHugeRecords(t *testing.T) {
	random := make([]byte, 65<<20)
	rng := rand.NewChaCha8([32]byte{})
	rng.Read(random)
	for _, c := range codecs {
		t.Run(c.String(), func(t *testing.T) {
			random := random
			if c != S2 {
				random = random[:5<<20]
			}
			want := []rec{
				{0, []byte("small"), []byte("before")},
				{0, []byte("zeros"), make([]byte, len(random))}, // compresses beyond what a reader accepts
				{0, []byte("small"), []byte("between")},
				{0, random[:1<<20], random},
				{1, []byte("small"), []byte("after")},
			}
			data, _ := segment(t, 2, c, want)
			got, err := decode(data)
			require.NoError(t, err)
			equal(t, want, got)
		})
	}
}

func TestARecordBeyondTheLimitIsRefused(t *testing.T) {
	require.NoError(t, CheckSize(MaxRecord))
	require.ErrorIs(t, CheckSize(MaxRecord+1), ErrTooLarge)
}

func TestBlocksThatDoNotShrinkAreStored(t *testing.T) {
	random := make([]byte, 100_000)
	rng := rand.NewChaCha8([32]byte{})
	rng.Read(random)
	for _, c := range codecs {
		data, _ := segment(t, 1, c, []rec{{0, nil, random}})
		h, err := parseHeader(data)
		require.NoError(t, err)
		require.Equal(t, None, h.codec, c)

		data, _ = segment(t, 1, c, []rec{{0, nil, make([]byte, 100_000)}})
		h, err = parseHeader(data)
		require.NoError(t, err)
		require.Equal(t, c, h.codec)
	}
}

func TestBlocksAreAbout256KiB(t *testing.T) {
	data, x := segment(t, 1, None, words(100_000, 1))
	frames := 0
	for at := 0; at < int(x.Partitions[0].Length); frames++ {
		h, err := parseHeader(data[at:])
		require.NoError(t, err)
		at += headerSize + int(h.stored)
		require.Equal(t, h.last, at == int(x.Partitions[0].Length))
		if !h.last {
			require.InDelta(t, blockSize, h.raw, 100)
		}
	}
	require.Greater(t, frames, 5)
}

func TestTheDigestIsOfTheContentAlone(t *testing.T) {
	want := words(20_000, 3)
	_, x := segment(t, 3, S2, want)
	for _, c := range codecs {
		_, y := segment(t, 3, c, want)
		require.Equal(t, x.Digest(), y.Digest())
		require.Equal(t, x.Total(), y.Total())
	}
	moved := words(20_000, 3)
	moved[0].value = []byte("another")
	_, y := segment(t, 3, S2, moved)
	require.NotEqual(t, x.Digest(), y.Digest())
	_, y = segment(t, 4, S2, want)
	require.NotEqual(t, x.Digest(), y.Digest())
	require.NotEqual(t, MapDigest(0, 1)+MapDigest(1, 2), MapDigest(0, 2)+MapDigest(1, 1))
}

func TestSumTellsRecordsApart(t *testing.T) {
	seen := map[uint64]string{}
	for _, r := range []rec{
		{0, nil, nil}, {1, nil, nil}, {0, []byte("a"), nil}, {0, nil, []byte("a")}, {1, []byte("a"), nil},
		{0, []byte("ab"), []byte("c")}, {0, []byte("a"), []byte("bc")}, {0, []byte{0}, nil}, {0, nil, []byte{0}}, {0, []byte{0}, []byte{0}},
	} {
		s, name := Sum(r.partition, r.key, r.value), fmt.Sprint(r)
		require.Empty(t, seen[s], name)
		seen[s] = name
	}
}

func TestWriterRefusesWhatMakesNoSegment(t *testing.T) {
	_, err := NewWriter(io.Discard, 0, S2).Close()
	require.Error(t, err)
	_, err = NewWriter(io.Discard, 1, 9).Close()
	require.Error(t, err)
	for _, partition := range []int{-1, 0, 3} {
		w := NewWriter(io.Discard, 3, S2)
		require.NoError(t, w.Append(1, nil, nil))
		require.Error(t, w.Append(partition, nil, nil), partition)
		require.Error(t, w.Append(1, nil, nil), "after an error")
	}
	w := NewWriter(io.Discard, 1, S2)
	_, err = w.Close()
	require.NoError(t, err)
	require.Error(t, w.Append(0, nil, nil))
	w.Reset(io.Discard, 2)
	require.NoError(t, w.Append(1, nil, nil))
}

func TestParseCodec(t *testing.T) {
	for _, c := range codecs {
		got, err := ParseCodec(c.String())
		require.NoError(t, err)
		require.Equal(t, c, got)
	}
	_, err := ParseCodec("rar")
	require.ErrorContains(t, err, "rar")
}

// failAfter fails the n-th write and all after it, or writes short.
type failAfter struct {
	n     int
	short bool
}

var errDisk = errors.New("disk is full")

func (f *failAfter) Write(p []byte) (int, error) {
	if f.n--; f.n >= 0 {
		return len(p), nil
	}
	if f.short {
		return len(p) / 2, nil
	}
	return 0, errDisk
}

func TestWriteErrorsAreNotLost(t *testing.T) {
	records := words(40_000, 2)
	for _, short := range []bool{false, true} {
		want := errDisk
		if short {
			want = io.ErrShortWrite
		}
		for n := range 20 {
			w := NewWriter(&failAfter{n, short}, 2, None)
			for _, r := range records {
				if w.Append(r.partition, r.key, r.value) != nil {
					break
				}
			}
			if _, err := w.Close(); err == nil {
				require.Greater(t, n, 5)
				break
			} else {
				require.ErrorIs(t, err, want)
			}
		}
	}
}

func TestOpenPartitionNamesThePath(t *testing.T) {
	data, x := segment(t, 2, S2, words(10, 2))
	path := filepath.Join(t.TempDir(), "a.seg")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	r, err := OpenPartition(path, 1, x.Partitions[1])
	require.NoError(t, err)
	got, err := drain(r, 1)
	require.NoError(t, err)
	equal(t, words(10, 2)[5:], got)
	require.NoError(t, r.Close(), "idempotent")
	_, _, err = r.Next()
	require.Error(t, err)

	data[x.Partitions[1].Offset+40] ^= 1
	require.NoError(t, os.WriteFile(path, data, 0o600))
	r, err = OpenPartition(path, 1, x.Partitions[1])
	require.NoError(t, err)
	_, err = drain(r, 1)
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, path)

	_, err = OpenPartition(path+"x", 1, x.Partitions[1])
	require.ErrorIs(t, err, os.ErrNotExist)
}

type brokenReader struct{}

func (brokenReader) ReadAt([]byte, int64) (int, error) { return 0, errDisk }
func (brokenReader) Read([]byte) (int, error)          { return 0, errDisk }

func TestReadErrorsAreNotDamage(t *testing.T) {
	_, err := ReadIndex(brokenReader{}, 1000)
	require.ErrorIs(t, err, errDisk)
	require.NotErrorIs(t, err, ErrCorrupt)
	_, _, err = NewReader(brokenReader{}, 0).Next()
	require.ErrorIs(t, err, errDisk)
	require.NotErrorIs(t, err, ErrCorrupt)
}

func TestNoAllocationPerRecord(t *testing.T) {
	const n = 50_000
	key, value := []byte("some key"), []byte("some value")
	for _, c := range codecs {
		w := NewWriter(io.Discard, 1, c)
		write := func() {
			w.Reset(io.Discard, 1)
			for range n {
				_ = w.Append(0, key, value)
			}
			_, _ = w.Close()
		}
		write()
		require.Less(t, testing.AllocsPerRun(3, write), 40.0, c)

		want := make([]rec, n)
		for i := range want {
			want[i] = rec{0, key, value}
		}
		data, x := segment(t, 1, c, want)
		src := bytes.NewReader(data)
		r := NewPartitionReader(src, 0, x.Partitions[0])
		read := func() {
			r.Reset(src, 0, x.Partitions[0])
			for err := error(nil); err == nil; {
				_, _, err = r.Next()
			}
			if r.err != io.EOF {
				t.Fatal(r.err)
			}
		}
		read()
		require.Less(t, testing.AllocsPerRun(3, read), 40.0, c)
	}
}

package input_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"millrace/jobs/input"
	"millrace/pkg/objectstore"
)

// zipped makes a gzip file of one or more members.
func zipped(text string, members int) []byte {
	var out bytes.Buffer
	for i := range members {
		from, to := i*len(text)/members, (i+1)*len(text)/members
		w := gzip.NewWriter(&out)
		_, _ = w.Write([]byte(text[from:to]))
		_ = w.Close()
	}
	return out.Bytes()
}

func TestDamagedGzip(t *testing.T) {
	text := strings.Repeat("some text to be compressed, number 12345\n", 50_000)
	good := zipped(text, 2)
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	for name, c := range map[string]struct {
		data   []byte
		offset int64 // -1: somewhere
		says   string
	}{
		"cut off":       {good[:len(good)-20], -1, fmt.Sprintf("cut off after %d compressed bytes", len(good)-20)},
		"in the header": {good[:5], 0, "cut off after 5 compressed bytes"},
		"short":         {[]byte("hi\n"), 0, "not a gzip file"},
		"short rest":    {append(bytes.Clone(good), "ab"...), int64(len(text)), "what follows gzip member 2"},
		"no gzip":       {[]byte("just text\n"), 0, "not a gzip file"},
		"flipped":       {flipped, -1, "before compressed byte"},
		"rest":          {append(bytes.Clone(good), "more than that"...), int64(len(text)), "what follows gzip member 2"},
	} {
		t.Run(name, func(t *testing.T) {
			b := store(map[string]string{"o.gz": string(c.data)})
			n, err := failsWith(t, b, input.Cut(b.objects("o.gz"), 100, "")[0], input.ReaderConfig{MaxRange: 1000})
			require.Equal(t, "s3://bucket/o.gz", err.URL)
			require.LessOrEqual(t, n, 50_000)
			require.ErrorContains(t, err, c.says)
			if c.offset >= 0 {
				require.Equal(t, c.offset, err.Offset, "in the uncompressed text")
			}
		})
	}
	b := store(map[string]string{"o.gz": string(good)})
	split := input.Cut(b.objects("o.gz"), 100, "")[0]
	require.Len(t, readAll(t, b, split, input.ReaderConfig{}), 50_000)

	b.etag["o.gz"] = "another"
	_, err := failsWith(t, b, split, input.ReaderConfig{})
	require.ErrorIs(t, err, objectstore.ErrPrecondition, "the store's reason is not hidden by gzip's")
}

// TestGzipCutOffAnywhere: whatever is cut off, it is noticed, and said at which compressed byte.
func TestGzipCutOffAnywhere(t *testing.T) {
	text := "one\ntwo\nthree\nand a last line"
	data := zipped(text, 1)
	for n := 1; n < len(data); n++ {
		for _, rangeSize := range []int64{1, 7, 1000} {
			b := store(map[string]string{"o.gz": string(data[:n])})
			_, err := failsWith(t, b, input.Cut(b.objects("o.gz"), 100, "")[0], input.ReaderConfig{MaxRange: rangeSize})
			require.ErrorIs(t, err, input.ErrDamaged, "%d of %d bytes", n, len(data))
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, "%d of %d bytes", n, len(data))
			require.True(t, err.Lasting())
			require.ErrorContains(t, err, fmt.Sprintf("cut off after %d compressed bytes", n))
		}
	}
}

// TestGzipWithAnyBitFlipped: no flipped bit changes what is read unnoticed. (Some say
// nothing about the content: time and system in the header, padding.)
func TestGzipWithAnyBitFlipped(t *testing.T) {
	text := "one\ntwo\nthree\nand a last line"
	data := zipped(text, 1)
	for bit := range 8 * len(data) {
		flipped := bytes.Clone(data)
		flipped[bit/8] ^= 1 << (bit % 8)
		b := store(map[string]string{"o.gz": string(flipped)})
		r, err := input.Open(t.Context(), b, input.Cut(b.objects("o.gz"), 100, "")[0], input.ReaderConfig{})
		require.NoError(t, err)
		var got []string
		for {
			_, value, e := r.Next()
			if err = e; err != nil {
				break
			}
			got = append(got, string(value))
		}
		require.NoError(t, r.Close())
		if err == io.EOF {
			require.Equal(t, text, strings.Join(got, "\n"), "bit %d", bit)
			continue
		}
		require.ErrorIs(t, err, input.ErrDamaged, "bit %d", bit)
	}
}

// TestGzipMembers: whatever members a file has and however it is padded with zeros, all records are read;
// anything else behind the last member is an error that names the place.
func TestGzipMembers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var data bytes.Buffer
		var text strings.Builder
		for range rapid.IntRange(1, 6).Draw(t, "members") {
			part := rapid.StringMatching(`([a-c]{0,3}\n|[a-z]{0,9}|\n){0,8}`).Draw(t, "member")
			text.WriteString(part)
			data.Write(zipped(part, 1))
		}
		size := data.Len()
		data.Write(make([]byte, rapid.IntRange(0, 40).Draw(t, "zeros")))
		garbage := rapid.SliceOfN(rapid.Byte(), 0, 12).Draw(t, "garbage")
		data.Write(garbage)
		b := store(map[string]string{"o.GZ": data.String()})
		split := input.Cut(b.objects("o.GZ"), 100, "")[0]
		c := input.ReaderConfig{MaxRange: rapid.Int64Range(1, 60).Draw(t, "range"), ReadAhead: rapid.Int64Range(1, 100).Draw(t, "ahead")}
		if len(bytes.Trim(garbage, "\x00")) == 0 {
			require.Equal(t, lines("s3://bucket/o.GZ", text.String()), readAll(t, b, split, c))
			return
		}
		_, err := failsWith(t, b, split, c)
		require.ErrorIs(t, err, input.ErrDamaged, "%d bytes, then %x", size, garbage)
		require.EqualValues(t, text.Len(), err.Offset)
	})
}

// TestGzipBorders: a member that ends exactly where a range does.
func TestGzipBorders(t *testing.T) {
	one, two := zipped("one\ntw", 1), zipped("o\nthree", 1)
	b := store(map[string]string{"o.gzip": string(one) + string(two)})
	for _, size := range []int{len(one), len(one) - 1, len(one) + 1, len(two), 1} {
		got := readAll(t, b, input.Cut(b.objects("o.gzip"), 100, "")[0], input.ReaderConfig{MaxRange: int64(size)})
		require.Equal(t, lines("s3://bucket/o.gzip", "one\ntwo\nthree"), got)
	}
}

// TestEmptyGzip: an object of no bytes is no input, as without .gz: S3's folder markers look so.
func TestEmptyGzip(t *testing.T) {
	b := store(map[string]string{"empty.gz": "", "o.gz": string(zipped("x\n", 1)), "members.gz": string(zipped("", 3))})
	var got []record
	splits := input.Cut(b.objects("empty.gz", "members.gz", "o.gz"), 100, "")
	require.Len(t, splits, 2)
	for _, s := range splits {
		got = append(got, readAll(t, b, s, input.ReaderConfig{})...)
	}
	require.Equal(t, lines("s3://bucket/o.gz", "x\n"), got)
}

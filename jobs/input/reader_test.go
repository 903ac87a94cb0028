package input_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"millrace/jobs/input"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// blobs is a Ranger over byte slices: keys to contents.
type blobs struct {
	mu     sync.Mutex
	data   map[string][]byte
	etag   map[string]string
	gets   int
	before func(get int, key string, offset, length int64) (io.ReadCloser, error) // nil, nil: answer as usual
}

func (b *blobs) Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gets++
	if b.before != nil {
		if rc, err := b.before(b.gets, key, offset, length); rc != nil || err != nil {
			return rc, err
		}
	}
	data, ok := b.data[key]
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case !ok:
		return nil, fmt.Errorf("get %s: %w", key, objectstore.ErrNotExist)
	case ifMatch != b.etag[key]:
		return nil, fmt.Errorf("get %s: %w", key, objectstore.ErrPrecondition)
	case offset+length > int64(len(data)):
		return nil, fmt.Errorf("get %s %d+%d: %w", key, offset, length, objectstore.ErrInvalid)
	}
	return io.NopCloser(bytes.NewReader(data[offset : offset+length])), nil
}

func (b *blobs) objects(keys ...string) []input.Object {
	var out []input.Object
	for _, key := range keys {
		out = append(out, input.Object{Bucket: "bucket", Key: key, Size: int64(len(b.data[key])), ETag: b.etag[key]})
	}
	return out
}

func store(contents map[string]string) *blobs {
	b := &blobs{data: map[string][]byte{}, etag: map[string]string{}}
	for key, data := range contents {
		b.data[key], b.etag[key] = []byte(data), "etag of "+key
	}
	return b
}

// patient reads blobs as attempts read a store.
func patient(b *blobs) input.Ranger {
	return objectstore.Retrying(ranges{nil, b}, objectstore.Attempts(nil, nil))
}

type ranges struct {
	objectstore.Store
	*blobs
}

func (r ranges) Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error) {
	return r.blobs.Get(ctx, bucket, key, offset, length, ifMatch)
}

type record struct {
	url    string
	offset int64
	value  string
}

// readAll reads one split to its end.
func readAll(t require.TestingT, s input.Ranger, split *api.Split, c input.ReaderConfig) []record {
	r, err := input.Open(context.Background(), s, split, c)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	var out []record
	for {
		key, value, err := r.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		require.Nil(t, key)
		url, offset := r.Position()
		out = append(out, record{url, offset, string(value)})
	}
	_, _, err = r.Next()
	require.ErrorIs(t, err, io.EOF, "the end stays the end")
	var length int64
	for _, p := range split.Pieces {
		length += p.Length
	}
	require.Equal(t, length, r.InputDone())
	return out
}

// lines is the dumb twin: the records of a text.
func lines(url, text string) (out []record) {
	offset := int64(0)
	for text != "" {
		line, rest, ended := strings.Cut(text, "\n")
		n := int64(len(line))
		if ended {
			n++
			line = strings.TrimSuffix(line, "\r")
		}
		out = append(out, record{url, offset, line})
		offset, text = offset+n, rest
	}
	return out
}

func TestRecordsOfText(t *testing.T) {
	for _, text := range []string{
		"a\n", "a\nb\n", "a\nb", "a\r\nb\r\n", "a\rb\n", "a\r\r\nb\r", "\n", "\n\n\n", "\r\n", "\r", "x", "a\n\nb\n\n", "\na", strings.Repeat("long", 1000) + "\nb",
	} {
		for size := int64(1); size <= 12; size++ {
			b := store(map[string]string{"o": text})
			var got []record
			for _, split := range input.Cut(b.objects("o"), size, "text") {
				got = append(got, readAll(t, b, split, input.ReaderConfig{MaxRange: 3})...)
			}
			require.Equal(t, lines("s3://bucket/o", text), got, "%q in splits of %d", text, size)
		}
	}
}

// However the input is cut and fetched, every record comes exactly once, in order.
func TestEveryRecordOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		contents, keys := map[string]string{}, []string{}
		for i := range rapid.IntRange(0, 6).Draw(t, "objects") {
			key := fmt.Sprintf("o%d", i)
			var text strings.Builder
			for range rapid.IntRange(0, 30).Draw(t, "lines") {
				text.WriteString(rapid.StringMatching(`[a-c\r]{0,3}|[a-z]{0,60}`).Draw(t, "line"))
				text.WriteString(rapid.SampledFrom([]string{"\n", "\r\n", "\n\n", "\r", ""}).Draw(t, "end"))
			}
			if rapid.IntRange(0, 4).Draw(t, "gzip") == 0 {
				key += ".gz"
			}
			contents[key], keys = text.String(), append(keys, key)
		}
		b := store(contents)
		for _, key := range keys {
			if strings.HasSuffix(key, ".gz") {
				b.data[key] = zipped(contents[key], rapid.IntRange(1, 3).Draw(t, "members"))
			}
		}
		size := rapid.Int64Range(1, 200).Draw(t, "split size")
		c := input.ReaderConfig{MaxRange: rapid.Int64Range(1, 50).Draw(t, "range"), ReadAhead: rapid.Int64Range(1, 200).Draw(t, "ahead")}
		var want, got []record
		for _, key := range keys {
			want = append(want, lines("s3://bucket/"+key, contents[key])...)
		}
		for _, split := range input.Cut(b.objects(keys...), size, "text") {
			got = append(got, readAll(t, b, split, c)...)
		}
		require.Equal(t, want, got)
	})
}

func TestBytesReadCountsLineEnds(t *testing.T) {
	b := store(map[string]string{"o": "ab\r\nc\n\nlast"})
	for _, split := range input.Cut(b.objects("o"), 1000, "") {
		r, err := input.Open(t.Context(), b, split, input.ReaderConfig{})
		require.NoError(t, err)
		var at []int64
		for {
			if _, _, err := r.Next(); err != nil {
				require.ErrorIs(t, err, io.EOF)
				break
			}
			at = append(at, r.BytesRead())
		}
		require.Equal(t, []int64{4, 6, 7, 11}, at)
		require.NoError(t, r.Close())
		require.NoError(t, r.Close(), "closing twice is fine")
	}
}

func failsWith(t require.TestingT, b input.Ranger, split *api.Split, c input.ReaderConfig) (records int, failure *input.ReadError) {
	r, err := input.Open(context.Background(), b, split, c)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	for {
		_, _, err := r.Next()
		if err == nil {
			records++
			continue
		}
		require.ErrorAs(t, err, &failure, "%v", err)
		_, _, again := r.Next()
		require.Equal(t, err, again, "an error stays")
		return records, failure
	}
}

func TestRecordOverTheLimit(t *testing.T) {
	for _, rangeSize := range []int64{3, 1000} {
		for text, ok := range map[string]bool{
			"12345678\nx": true, "12345678\r\nx": true, "12345678": true, "12345678\n": true,
			"123456789\nx": false, "123456789": false, "12345678\r": false, "1234567890123456789012345": false,
		} {
			b := store(map[string]string{"o": "ab\n" + text})
			split := input.Cut(b.objects("o"), 1000, "")[0]
			c := input.ReaderConfig{MaxRecord: 8, MaxRange: rangeSize}
			if ok {
				require.Equal(t, lines("s3://bucket/o", "ab\n"+text), readAll(t, b, split, c))
				continue
			}
			n, err := failsWith(t, b, split, c)
			require.Equal(t, 1, n)
			require.ErrorIs(t, err, input.ErrRecordTooLong, "%q", text)
			require.Equal(t, "s3://bucket/o", err.URL)
			require.EqualValues(t, 3, err.Offset)
			require.ErrorContains(t, err, "8 bytes")
		}
	}
}

func TestChangedObject(t *testing.T) {
	b := store(map[string]string{"o": "a\nb\n"})
	split := input.Cut(b.objects("o"), 100, "")[0]
	b.etag["o"] = "another"
	_, err := failsWith(t, b, split, input.ReaderConfig{})
	require.ErrorIs(t, err, objectstore.ErrPrecondition)
	require.ErrorContains(t, err, "s3://bucket/o")
	require.ErrorContains(t, err, "changed since the job was planned")
	require.Equal(t, 1, b.gets, "it is not asked again")

	delete(b.data, "o")
	_, err = failsWith(t, b, split, input.ReaderConfig{})
	require.ErrorIs(t, err, objectstore.ErrNotExist)
	require.ErrorContains(t, err, "gone since the job was planned")
}

// broken is a body that ends before its time.
func broken(data []byte, err error) io.ReadCloser {
	return io.NopCloser(io.MultiReader(bytes.NewReader(data), failing{err}))
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestBodyCutShortIsReadOn(t *testing.T) {
	for _, cause := range []error{io.EOF, io.ErrUnexpectedEOF, fmt.Errorf("connection reset: %w", objectstore.ErrUnreachable)} {
		synctest.Test(t, func(t *testing.T) {
			text := strings.Repeat("0123456789\n", 100)
			b := store(map[string]string{"o": text})
			b.before = func(get int, key string, offset, length int64) (io.ReadCloser, error) {
				switch {
				case get%3 == 0:
					return nil, objectstore.ErrUnreachable
				case offset+length > 1: // never more than 100 bytes in one go
					return broken([]byte(text[offset:offset+min(100, length)]), cause), nil
				}
				return nil, nil
			}
			split := input.Cut(b.objects("o"), 10_000, "")[0]
			require.Equal(t, lines("s3://bucket/o", text), readAll(t, patient(b), split, input.ReaderConfig{}))
		})
	}
}

func TestStoreThatStaysAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := store(map[string]string{"o": "0123456789\n0123456789\n"})
		b.before = func(get int, key string, offset, length int64) (io.ReadCloser, error) {
			if get == 1 {
				return broken([]byte("01234"), io.EOF), nil
			}
			return nil, objectstore.ErrUnreachable
		}
		start := time.Now()
		_, err := failsWith(t, patient(b), input.Cut(b.objects("o"), 100, "")[0], input.ReaderConfig{})
		require.ErrorIs(t, err, objectstore.ErrUnreachable)
		require.InDelta(t, 3*time.Minute, time.Since(start), float64(3*time.Second), "it was waited for")
		require.EqualValues(t, 5, err.Offset, "what came before was not lost")
	})
}

func TestAStoreThatIsAwayForAWhileIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := store(map[string]string{"o": "0123456789\n", "p": "next\n"})
		back := time.Now().Add(170 * time.Second)
		gets := 0
		b.before = func(int, string, int64, int64) (io.ReadCloser, error) {
			gets++
			if time.Now().Before(back) {
				return nil, objectstore.ErrUnreachable
			}
			return nil, nil
		}
		split := input.Cut(b.objects("o"), 100, "")[0]
		require.Equal(t, lines("s3://bucket/o", "0123456789\n"), readAll(t, patient(b), split, input.ReaderConfig{}))
		require.Less(t, time.Since(back), 3*time.Second)
		require.Less(t, gets, 200, "it is not hammered")
		require.Greater(t, gets, 80, "nor given up between")
	})
}

func TestCancelledReader(t *testing.T) {
	b := store(map[string]string{"o": "a\n"})
	ctx, cancel := context.WithCancel(t.Context())
	b.before = func(int, string, int64, int64) (io.ReadCloser, error) {
		cancel()
		return nil, objectstore.ErrUnreachable
	}
	r, err := input.Open(ctx, b, input.Cut(b.objects("o"), 100, "")[0], input.ReaderConfig{})
	require.NoError(t, err)
	_, _, err = r.Next()
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, r.Close())
}

func TestOpenRefuses(t *testing.T) {
	b := store(nil)
	_, err := input.Open(t.Context(), b, &api.Split{Format: "parquet"}, input.ReaderConfig{})
	require.ErrorContains(t, err, `"parquet"`)
	_, err = input.Open(t.Context(), b, &api.Split{Pieces: []*api.Piece{{Key: "o", Offset: 5, Length: 10, ObjectSize: 12}}}, input.ReaderConfig{})
	require.ErrorContains(t, err, "5+10")
	require.Empty(t, readAll(t, b, &api.Split{}, input.ReaderConfig{}))
}

// A big object takes few requests, and none is wasted on what follows a piece.
func TestRequests(t *testing.T) {
	text := strings.Repeat("0123456789abcde\n", 4<<20/16)
	b := store(map[string]string{"o": text})
	splits := input.Cut(b.objects("o"), 2<<20, "")
	require.Len(t, splits, 2)
	n := len(readAll(t, b, splits[0], input.ReaderConfig{}))
	require.Equal(t, 2, b.gets, "1 MiB, and the rest with what follows it")
	require.Equal(t, 4<<20/16, n+len(readAll(t, b, splits[1], input.ReaderConfig{})))
}

func TestNextDoesNotAllocate(t *testing.T) {
	b := store(map[string]string{"o": strings.Repeat("0123456789abcde\n", 1<<20/16)})
	r, err := input.Open(t.Context(), b, input.Cut(b.objects("o"), 2<<20, "")[0], input.ReaderConfig{})
	require.NoError(t, err)
	_, _, err = r.Next()
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(1000, func() { _, _, _ = r.Next() }))
	require.NoError(t, r.Close())
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("a\nb\r\n\rc"), int64(2), int64(3), false)
	f.Add(zipped("a\nb\n", 2), int64(5), int64(2), true)
	f.Fuzz(func(t *testing.T, data []byte, size, rangeSize int64, zip bool) {
		if len(data) > 1<<12 || size < 1 || rangeSize < 1 {
			return
		}
		key := "o"
		if zip {
			key = "o.gz"
		}
		b := store(map[string]string{key: string(data)})
		n := int64(0)
		for _, split := range input.Cut(b.objects(key), size, "") {
			r, err := input.Open(t.Context(), b, split, input.ReaderConfig{MaxRange: rangeSize, MaxRecord: 1 << 20})
			require.NoError(t, err)
			for err == nil {
				_, _, err = r.Next()
			}
			require.NoError(t, r.Close())
			n += r.BytesRead()
			if err != io.EOF {
				require.True(t, zip, "%v", err)
			}
		}
		if !zip {
			require.EqualValues(t, len(data), n)
		}
	})
}

func BenchmarkReader(b *testing.B) {
	for _, width := range []int{16, 100, 1000} {
		b.Run(fmt.Sprintf("lines of %d", width), func(b *testing.B) {
			text := strings.Repeat(strings.Repeat("x", width-1)+"\n", 64<<20/width)
			s := store(map[string]string{"o": text})
			split := input.Cut(s.objects("o"), 128<<20, "")[0]
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				r, err := input.Open(context.Background(), s, split, input.ReaderConfig{})
				if err != nil {
					b.Fatal(err)
				}
				for err == nil {
					_, _, err = r.Next()
				}
				if err != io.EOF {
					b.Fatal(err)
				}
				_ = r.Close()
			}
		})
	}
}

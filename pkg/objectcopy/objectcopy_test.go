package objectcopy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectcopy"
	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/objectstoretest"
)

// world is a store of objects with buckets a and b, and a block store.
func world(t *testing.T) (*objectstore.Memory, *objectstoretest.Files, objectstore.Store) {
	t.Helper()
	s3, files := objectstore.NewMemory(), objectstoretest.NewFiles()
	for _, b := range []string{"aaa", "bbb"} {
		require.NoError(t, s3.MakeBucket(t.Context(), b))
	}
	return s3, files, objectstore.Mux(s3, files)
}

func at(bucket, key string) objectstore.URL { return objectstore.URL{Bucket: bucket, Key: key} }

func put(t *testing.T, s objectstore.Store, u objectstore.URL, data []byte) objectstore.Object {
	t.Helper()
	o, err := s.Put(t.Context(), u.Bucket, u.Key, bytes.NewReader(data), int64(len(data)), objectstore.PutOptions{})
	require.NoError(t, err)
	return o
}

func content(t *testing.T, s objectstore.Store, u objectstore.URL) []byte {
	t.Helper()
	r, err := s.Get(t.Context(), u.Bucket, u.Key, 0, -1, "")
	require.NoError(t, err)
	defer r.Close()
	data, err := io.ReadAll(r)
	require.NoError(t, err)
	return data
}

func request(from objectstore.URL, o objectstore.Object, to objectstore.URL) objectcopy.Request {
	return objectcopy.Request{From: from, To: to, Size: o.Size, ETag: o.ETag}
}

func random(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	return data
}

// Of any size, between any two kinds of stores, the copy has the same bytes; the second time there is nothing to do.
func TestCopies(t *testing.T) {
	const key = "a b/ä/_x.gz"
	for _, size := range []int{0, 1, 1000, objectcopy.Small, objectcopy.Small + 1, 2*objectcopy.Small + 5} {
		for _, way := range [][2]string{{"aaa", "bbb"}, {"aaa", "hdfs://j-1"}, {"hdfs://j-1", "bbb"}, {"hdfs://j-1", "hdfs://j-2"}} {
			_, _, s := world(t)
			from, to := at(way[0], key), at(way[1], "to/"+key)
			data := random(size)
			r := request(from, put(t, s, from, data), to)
			var read int
			r.Read = func(n int) { read += n }
			result, err := objectcopy.Copy(t.Context(), s, s, r)
			require.NoError(t, err, "%d bytes %v", size, way)
			require.True(t, result.Copied)
			require.Equal(t, size, read)
			require.True(t, bytes.Equal(data, content(t, s, to)), "%d bytes %v", size, way)

			read = 0
			result, err = objectcopy.Copy(t.Context(), s, s, r)
			require.NoError(t, err)
			require.False(t, result.Copied)
			require.Equal(t, size, read, "skipped bytes are done, too")
		}
	}
}

// What an object is a copy of is known without reading it.
func TestASkippedObjectIsNotRead(t *testing.T) {
	s3, _, s := world(t)
	r := request(at("aaa", "k"), put(t, s, at("aaa", "k"), random(1000)), at("bbb", "k"))
	_, err := objectcopy.Copy(t.Context(), s, s, r)
	require.NoError(t, err)
	s3.Fault = func(op, _, _ string) error {
		if op != "Head" {
			return errors.New("it was asked to " + op)
		}
		return nil
	}
	result, err := objectcopy.Copy(t.Context(), s, s, r)
	require.NoError(t, err)
	require.False(t, result.Copied)
}

// Another object of the same name is not touched, unless it is to be replaced; one that somebody else has brought there
// and that is the same will do.
func TestWhatIsThere(t *testing.T) {
	for _, bucket := range []string{"bbb", "hdfs://j-1"} {
		for name, there := range map[string]string{"other bytes": "1234X", "another length": "123456"} {
			_, _, s := world(t)
			r := request(at("aaa", "k"), put(t, s, at("aaa", "k"), []byte("12345")), at(bucket, "k"))
			put(t, s, r.To, []byte(there))
			_, err := objectcopy.Copy(t.Context(), s, s, r)
			var differs *objectcopy.DiffersError
			require.ErrorAs(t, err, &differs, name)
			require.Equal(t, there, string(content(t, s, r.To)))

			r.Overwrite = true
			result, err := objectcopy.Copy(t.Context(), s, s, r)
			require.NoError(t, err)
			require.True(t, result.Copied)
			require.Equal(t, "12345", string(content(t, s, r.To)))
		}
		_, _, s := world(t)
		r := request(at("aaa", "k"), put(t, s, at("aaa", "k"), []byte("12345")), at(bucket, "k"))
		put(t, s, r.To, []byte("12345"))
		result, err := objectcopy.Copy(t.Context(), s, s, r)
		require.NoError(t, err)
		require.False(t, result.Copied)
	}
}

// A source that is another one by now, or gone, is an error that names it, and nothing is written.
func TestASourceThatChanges(t *testing.T) {
	for _, size := range []int{1000, objectcopy.Small + 1} {
		_, _, s := world(t)
		r := request(at("aaa", "k"), put(t, s, at("aaa", "k"), random(size)), at("bbb", "k"))
		put(t, s, r.From, []byte("another"))
		_, err := objectcopy.Copy(t.Context(), s, s, r)
		var source *objectcopy.SourceError
		require.ErrorAs(t, err, &source)
		require.ErrorIs(t, err, objectstore.ErrPrecondition)
		_, err = s.Head(t.Context(), "bbb", "k")
		require.ErrorIs(t, err, objectstore.ErrNotExist)
	}
}

// cut is a source whose bodies end, well or not, after some bytes.
type cut struct {
	objectstore.Store
	after int64
	err   error
}

func (c cut) Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error) {
	r, err := c.Store.Get(ctx, bucket, key, offset, length, ifMatch)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(io.MultiReader(io.LimitReader(r, c.after), failing{c.err})), nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// A source that ends early leaves nothing, no unfinished upload either.
func TestASourceThatBreaksOff(t *testing.T) {
	const size = 2*objectcopy.Small + 7
	for _, bucket := range []string{"bbb", "hdfs://j-1"} {
		for _, why := range []error{io.EOF, objectstore.ErrUnreachable} {
			for _, after := range []int64{0, 5, objectcopy.Small, size - 1} {
				_, _, s := world(t)
				r := request(at("aaa", "k"), put(t, s, at("aaa", "k"), random(size)), at(bucket, "k"))
				_, err := objectcopy.Copy(t.Context(), cut{s, after, why}, s, r)
				var source *objectcopy.SourceError
				require.ErrorAs(t, err, &source, "%s after %d: %v", bucket, after, why)
				require.Equal(t, after, source.Offset)
				_, err = s.Head(t.Context(), bucket, "k")
				require.ErrorIs(t, err, objectstore.ErrNotExist)
				if bucket == "bbb" {
					left, err := s.ListUploads(t.Context(), bucket, "k")
					require.NoError(t, err)
					require.Empty(t, left)
				}
			}
		}
	}
}

// Of several who copy the same object at once all succeed, and one has copied it.
func TestCopiersAtOnce(t *testing.T) {
	for _, size := range []int{10, objectcopy.Small + 1} {
		_, _, s := world(t)
		data := random(size)
		r := request(at("aaa", "k"), put(t, s, at("aaa", "k"), data), at("bbb", "k"))
		errs := make(chan error)
		for range 5 {
			go func() {
				_, err := objectcopy.Copy(t.Context(), s, s, r)
				errs <- err
			}()
		}
		for range 5 {
			require.NoError(t, <-errs)
		}
		require.True(t, bytes.Equal(data, content(t, s, r.To)))
	}
}

// An answer that is lost is found out about.
func TestALostAnswer(t *testing.T) {
	s3, _, s := world(t)
	r := request(at("aaa", "k"), put(t, s, at("aaa", "k"), []byte("12345")), at("bbb", "k"))
	lost := false
	s3.Lost = func(op, bucket, _ string) error {
		if op == "Put" && bucket == "bbb" && !lost {
			lost = true
			return &objectstore.Error{Op: "put", Kind: objectstore.ErrPrecondition} // of the repetition
		}
		return nil
	}
	result, err := objectcopy.Copy(t.Context(), s, s, r)
	require.NoError(t, err)
	require.False(t, result.Copied)
	require.Equal(t, "12345", string(content(t, s, r.To)))
}

// lying is a store that keeps other bytes than it was given, and says of no object what its MD5 is.
type lying struct{ objectstore.Store }

func (l lying) Put(ctx context.Context, bucket, key string, r io.Reader, size int64, o objectstore.PutOptions) (objectstore.Object, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return objectstore.Object{}, err
	}
	data[0] ^= 1
	return l.Store.Put(ctx, bucket, key, bytes.NewReader(data), size, o)
}

// What was written is compared with what was read, and is not left there if it differs.
func TestAStoreThatKeepsOtherBytes(t *testing.T) {
	_, _, s := world(t)
	r := request(at("aaa", "k"), put(t, s, at("aaa", "k"), []byte("12345")), at("bbb", "k"))
	_, err := objectcopy.Copy(t.Context(), s, lying{s}, r)
	require.ErrorContains(t, err, "s3://bbb/k was written with 5 bytes of CRC32C")
	_, err = s.Head(t.Context(), "bbb", "k")
	require.ErrorIs(t, err, objectstore.ErrNotExist)
}

// busy is a block store in which somebody else writes for a while.
type busy struct {
	objectstore.Store
	until time.Time
}

func (b busy) Put(ctx context.Context, bucket, key string, r io.Reader, size int64, o objectstore.PutOptions) (objectstore.Object, error) {
	if time.Now().Before(b.until) {
		return objectstore.Object{}, &objectstore.Error{Op: "put", Kind: objectstore.ErrPrecondition, Err: errors.New("is being written by another")}
	}
	return b.Store.Put(ctx, bucket, key, r, size, o)
}

// A name that a dead writer keeps is waited for, and not for ever.
func TestABusyName(t *testing.T) {
	for minutes, copied := range map[int]bool{1: true, 60: false} {
		synctest.Test(t, func(t *testing.T) {
			_, _, s := world(t)
			r := request(at("aaa", "k"), put(t, s, at("aaa", "k"), random(1000)), at("hdfs://j-1", "k"))
			result, err := objectcopy.Copy(t.Context(), s, busy{s, time.Now().Add(time.Duration(minutes) * time.Minute)}, r)
			require.Equal(t, copied, result.Copied)
			if !copied {
				require.ErrorContains(t, err, "is being written by another")
			}
		})
	}
}

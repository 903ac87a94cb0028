// Package objectstoretest is the specification of objectstore.Store as tests:
// every implementation, and every real store, must pass it.
package objectstoretest

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
)

// Subject is a kind of store, to be held against the specification.
type Subject struct {
	// New makes a store, and names a bucket of it in which there is nothing.
	New func(t *testing.T) (s objectstore.Store, bucket string)
	// Files says that its objects are files: written in order, once, by one writer of a path at a time, and without
	// metadata; and that its buckets are not made by requests.
	Files bool
}

// Run holds a store against the specification. It makes buckets of its own,
// with random names, and removes them.
func Run(t *testing.T, newStore func(t *testing.T) objectstore.Store) {
	Subject{New: func(t *testing.T) (objectstore.Store, string) {
		s := newStore(t)
		return s, Bucket(t, s)
	}}.Run(t)
}

// Run holds it against the specification.
func (s Subject) Run(t *testing.T) {
	tests := map[string]func(*testing.T, objectstore.Store, string){
		"objects":                 objects,
		"a big object":            bigObject,
		"strange keys":            strangeKeys,
		"ranges":                  ranges,
		"conditions":              conditions,
		"missing":                 missing,
		"listing":                 listing,
		"listing many":            listingMany,
		"delete":                  deleting,
		"delete if":               deletingIf,
		"invalid names":           invalidNames,
		"upload":                  upload,
		"upload of an empty part": uploadEmpty,
		"upload aborted":          uploadAborted,
		"upload refuses":          uploadRefuses,
		"parts at once":           partsAtOnce,
		"cancelled context":       cancelled,
		"presigned URLs":          presigned,
	}
	further := map[string]func(*testing.T, objectstore.Store, string){
		"buckets":            buckets,
		"metadata":           metadata,
		"parts in any order": partsInAnyOrder,
		"uploads are listed": uploadsListed,
	}
	if s.Files {
		further = map[string]func(*testing.T, objectstore.Store, string){
			"parts in order":    partsInOrder,
			"one upload a path": oneUploadAPath,
			"folders":           folders,
		}
	}
	maps.Copy(tests, further)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			store, bucket := s.New(t)
			test(t, store, bucket)
		})
	}
}

// Bucket makes a bucket that is emptied and removed when the test ends.
func Bucket(t *testing.T, s objectstore.Store) string {
	t.Helper()
	name := "test-" + strings.ToLower(rand.Text())
	require.NoError(t, s.MakeBucket(t.Context(), name))
	t.Cleanup(func() {
		ctx := context.Background()
		var keys []string
		for o, err := range s.List(ctx, name, "", objectstore.ListOptions{}) {
			require.NoError(t, err)
			keys = append(keys, o.Key)
		}
		require.NoError(t, s.Delete(ctx, name, keys...))
		require.NoError(t, s.RemoveBucket(ctx, name))
	})
	return name
}

func put(t *testing.T, s objectstore.Store, bucket, key, data string) objectstore.Object {
	t.Helper()
	o, err := s.Put(t.Context(), bucket, key, strings.NewReader(data), int64(len(data)), objectstore.PutOptions{})
	require.NoError(t, err)
	return o
}

func get(t *testing.T, s objectstore.Store, bucket, key string, offset, length int64) string {
	t.Helper()
	rc, err := s.Get(t.Context(), bucket, key, offset, length, "")
	require.NoError(t, err)
	data, err := io.ReadAll(rc)
	require.NoError(t, err)
	require.NoError(t, rc.Close())
	return string(data)
}

func buckets(t *testing.T, s objectstore.Store, bucket string) {
	ctx := t.Context()
	require.ErrorIs(t, s.MakeBucket(ctx, bucket), objectstore.ErrExists)
	ok, err := s.BucketExists(ctx, bucket)
	require.NoError(t, err)
	require.True(t, ok)
	ok, err = s.BucketExists(ctx, bucket+"-not")
	require.NoError(t, err)
	require.False(t, ok)

	list, err := s.ListBuckets(ctx)
	require.NoError(t, err)
	found := false
	for _, b := range list {
		if b.Name == bucket {
			found = true
			require.False(t, b.CreatedAt.IsZero())
		}
	}
	require.True(t, found, "%v", list)

	put(t, s, bucket, "a", "1")
	require.ErrorIs(t, s.RemoveBucket(ctx, bucket), objectstore.ErrInvalid, "a bucket that is not empty")
	require.ErrorIs(t, s.RemoveBucket(ctx, bucket+"-not"), objectstore.ErrNoSuchBucket)
}

func objects(t *testing.T, s objectstore.Store, bucket string) {
	ctx := t.Context()
	for _, size := range []int{0, 1, 100_000} {
		data := bytes.Repeat([]byte("x"), size)
		key := fmt.Sprintf("dir/of-%d", size)
		o, err := s.Put(ctx, bucket, key, bytes.NewReader(data), int64(size), objectstore.PutOptions{
			ContentType: "text/plain",
		})
		require.NoError(t, err)
		require.NotEmpty(t, o.ETag)
		require.NotContains(t, o.ETag, `"`)

		h, err := s.Head(ctx, bucket, key)
		require.NoError(t, err)
		require.Equal(t, key, h.Key)
		require.EqualValues(t, size, h.Size)
		require.Equal(t, o.ETag, h.ETag)
		require.False(t, h.ModifiedAt.IsZero())
		require.Equal(t, string(data), get(t, s, bucket, key, 0, -1))
	}
	put(t, s, bucket, "dir/of-1", "written again")
	require.Equal(t, "written again", get(t, s, bucket, "dir/of-1", 0, -1))

	_, err := s.Put(ctx, bucket, "short", strings.NewReader("abc"), 4, objectstore.PutOptions{})
	require.Error(t, err, "fewer bytes than were announced")
	_, err = s.Head(ctx, bucket, "short")
	require.ErrorIs(t, err, objectstore.ErrNotExist)
}

func metadata(t *testing.T, s objectstore.Store, bucket string) {
	ctx := t.Context()
	meta := map[string]string{"millrace-job": "s-1", "Millrace-Task": "r-00001"}
	_, err := s.Put(ctx, bucket, "put", strings.NewReader(""), 0, objectstore.PutOptions{Metadata: meta})
	require.NoError(t, err)
	id, err := s.CreateUpload(ctx, bucket, "uploaded", meta)
	require.NoError(t, err)
	p, err := s.UploadPart(ctx, bucket, "uploaded", id, 1, []byte("x"))
	require.NoError(t, err)
	_, err = s.CompleteUpload(ctx, bucket, "uploaded", id, []objectstore.Part{p})
	require.NoError(t, err)
	for _, key := range []string{"put", "uploaded"} {
		h, err := s.Head(ctx, bucket, key)
		require.NoError(t, err)
		require.Equal(t, "s-1", h.Metadata["millrace-job"])
		require.Equal(t, "r-00001", h.Metadata["millrace-task"])
	}
}

// bigObject comes from a reader that can be read once only, as from a pipe.
func bigObject(t *testing.T, s objectstore.Store, bucket string) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 20<<20/16)
	_, err := s.Put(t.Context(), bucket, "big", io.MultiReader(bytes.NewReader(data)), int64(len(data)), objectstore.PutOptions{})
	require.NoError(t, err)
	require.True(t, get(t, s, bucket, "big", 0, -1) == string(data))

	_, err = s.Put(t.Context(), bucket, "short", io.MultiReader(bytes.NewReader(data)), int64(len(data))+1, objectstore.PutOptions{})
	require.Error(t, err, "fewer bytes than were announced")
	_, err = s.Head(t.Context(), bucket, "short")
	require.ErrorIs(t, err, objectstore.ErrNotExist)
}

func strangeKeys(t *testing.T, s objectstore.Store, bucket string) {
	keys := []string{"a b+c", "percent%20", "ünïcode/日本", "q?x=1&y#z", "star*[x]{y}", "quote\"'", "semi;colon:at@", "~tilde"}
	for _, key := range keys {
		put(t, s, bucket, "k/"+key, key)
	}
	got := map[string]bool{}
	for o, err := range s.List(t.Context(), bucket, "k/", objectstore.ListOptions{}) {
		require.NoError(t, err)
		got[o.Key] = true
	}
	for _, key := range keys {
		require.True(t, got["k/"+key], "%q is not listed: %v", key, got)
		require.Equal(t, key, get(t, s, bucket, "k/"+key, 0, -1))
	}
	require.Len(t, got, len(keys))
}

func ranges(t *testing.T, s objectstore.Store, bucket string) {
	ctx := t.Context()
	put(t, s, bucket, "o", "0123456789")
	for _, c := range []struct {
		offset, length int64
		want           string
	}{
		{0, -1, "0123456789"}, {0, 10, "0123456789"}, {0, 1, "0"}, {9, 1, "9"}, {3, 4, "3456"}, {3, -1, "3456789"}, {5, 0, ""},
	} {
		require.Equal(t, c.want, get(t, s, bucket, "o", c.offset, c.length), "%+v", c)
	}

	rc, err := s.Get(ctx, bucket, "o", 8, 5, "")
	require.NoError(t, err)
	data, err := io.ReadAll(rc)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF, "more was asked for than there is")
	require.Equal(t, "89", string(data))
	require.NoError(t, rc.Close())

	_, err = s.Get(ctx, bucket, "o", 11, 1, "")
	require.ErrorIs(t, err, objectstore.ErrInvalid, "beyond the end")
}

func conditions(t *testing.T, s objectstore.Store, bucket string) {
	ctx := t.Context()
	old := put(t, s, bucket, "o", "old")
	rc, err := s.Get(ctx, bucket, "o", 0, -1, old.ETag)
	require.NoError(t, err)
	require.NoError(t, rc.Close())

	put(t, s, bucket, "o", "new")
	for _, length := range []int64{-1, 2, 0} {
		_, err = s.Get(ctx, bucket, "o", 0, length, old.ETag)
		require.ErrorIs(t, err, objectstore.ErrPrecondition)
		require.ErrorContains(t, err, bucket+"/o", "the error names the object")
	}

	_, err = s.Put(ctx, bucket, "o", strings.NewReader("x"), 1, objectstore.PutOptions{IfNoneMatch: true})
	require.ErrorIs(t, err, objectstore.ErrPrecondition)
	require.Equal(t, "new", get(t, s, bucket, "o", 0, -1))
	_, err = s.Put(ctx, bucket, "fresh", strings.NewReader("x"), 1, objectstore.PutOptions{IfNoneMatch: true})
	require.NoError(t, err)
}

func missing(t *testing.T, s objectstore.Store, bucket string) {
	ctx := t.Context()
	_, err := s.Head(ctx, bucket, "no")
	require.ErrorIs(t, err, objectstore.ErrNotExist)
	_, err = s.Get(ctx, bucket, "no", 0, -1, "")
	require.ErrorIs(t, err, objectstore.ErrNotExist)
	require.NoError(t, s.Delete(ctx, bucket, "no"))

	no := bucket + "-not"
	_, err = s.Head(ctx, no, "a")
	require.Error(t, err) // a HEAD has no body: some stores cannot say which of the two is missing
	_, err = s.Get(ctx, no, "a", 0, -1, "")
	require.ErrorIs(t, err, objectstore.ErrNoSuchBucket)
	_, err = s.Put(ctx, no, "a", strings.NewReader(""), 0, objectstore.PutOptions{})
	require.ErrorIs(t, err, objectstore.ErrNoSuchBucket)
	_, err = s.CreateUpload(ctx, no, "a", nil)
	require.ErrorIs(t, err, objectstore.ErrNoSuchBucket)
	require.ErrorIs(t, s.Delete(ctx, no, "a", "b"), objectstore.ErrNoSuchBucket)
	last := error(nil)
	for _, err := range s.List(ctx, no, "", objectstore.ListOptions{}) {
		last = err
	}
	require.ErrorIs(t, last, objectstore.ErrNoSuchBucket)
}

func list(t *testing.T, s objectstore.Store, bucket, prefix string, o objectstore.ListOptions) []string {
	t.Helper()
	var keys []string
	for x, err := range s.List(t.Context(), bucket, prefix, o) {
		require.NoError(t, err)
		key := x.Key
		if x.Prefix {
			key = "[" + key + "]"
		} else {
			require.NotEmpty(t, x.ETag)
			require.NotContains(t, x.ETag, `"`)
			require.False(t, x.ModifiedAt.IsZero())
		}
		keys = append(keys, key)
	}
	return keys
}

func listing(t *testing.T, s objectstore.Store, bucket string) {
	for _, key := range []string{"a", "b/1", "b/2", "b/c/3", "b-x", "c/4", "d"} {
		put(t, s, bucket, key, key)
	}
	type o = objectstore.ListOptions
	for _, c := range []struct {
		prefix string
		o      o
		want   []string
	}{
		{"", o{}, []string{"a", "b-x", "b/1", "b/2", "b/c/3", "c/4", "d"}},
		{"b", o{}, []string{"b-x", "b/1", "b/2", "b/c/3"}},
		{"b/", o{}, []string{"b/1", "b/2", "b/c/3"}},
		{"b/c", o{}, []string{"b/c/3"}},
		{"d", o{}, []string{"d"}},
		{"none", o{}, nil},
		{"", o{Delimiter: true}, []string{"a", "b-x", "[b/]", "[c/]", "d"}},
		{"b/", o{Delimiter: true}, []string{"b/1", "b/2", "[b/c/]"}},
		{"", o{Max: 2}, []string{"a", "b-x"}},
		{"", o{Max: 2, Delimiter: true}, []string{"a", "b-x"}},
		{"", o{StartAfter: "b/1"}, []string{"b/2", "b/c/3", "c/4", "d"}},
		{"b/", o{StartAfter: "b/1", Max: 1}, []string{"b/2"}},
		{"b", o{StartAfter: "b-x"}, []string{"b/1", "b/2", "b/c/3"}},
		{"b", o{StartAfter: "b"}, []string{"b-x", "b/1", "b/2", "b/c/3"}},
		{"b/", o{StartAfter: "a"}, []string{"b/1", "b/2", "b/c/3"}},
		{"b/", o{StartAfter: "b/c/"}, []string{"b/c/3"}},
		{"b/", o{StartAfter: "c"}, nil},
		{"", o{StartAfter: "b-x", Delimiter: true}, []string{"[b/]", "[c/]", "d"}},
		{"", o{StartAfter: "b/", Delimiter: true}, []string{"[c/]", "d"}},
	} {
		require.Equal(t, c.want, list(t, s, bucket, c.prefix, c.o), "prefix %q, %+v", c.prefix, c.o)
	}
	for x, err := range s.List(t.Context(), bucket, "d", o{}) {
		require.NoError(t, err)
		h, err := s.Head(t.Context(), bucket, "d")
		require.NoError(t, err)
		require.Equal(t, h.ETag, x.ETag)
		require.EqualValues(t, 1, x.Size)
	}
}

// More than a page of 1000.
func listingMany(t *testing.T, s objectstore.Store, bucket string) {
	const n = 1100
	var wg sync.WaitGroup
	work := make(chan int)
	for range 16 {
		wg.Go(func() {
			for i := range work {
				_, err := s.Put(t.Context(), bucket, fmt.Sprintf("many/%05d", i), strings.NewReader(""), 0, objectstore.PutOptions{})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wg.Wait()
	keys := list(t, s, bucket, "many/", objectstore.ListOptions{})
	require.Len(t, keys, n)
	for i, key := range keys {
		require.Equal(t, fmt.Sprintf("many/%05d", i), key)
	}
	require.Len(t, list(t, s, bucket, "many/", objectstore.ListOptions{Max: 1050}), 1050)
	require.NoError(t, s.Delete(t.Context(), bucket, keys...))
	require.Empty(t, list(t, s, bucket, "", objectstore.ListOptions{}))
}

func deleting(t *testing.T, s objectstore.Store, bucket string) {
	for _, key := range []string{"a", "b", "c/d"} {
		put(t, s, bucket, key, key)
	}
	require.NoError(t, s.Delete(t.Context(), bucket))
	require.NoError(t, s.Delete(t.Context(), bucket, "a"))
	require.NoError(t, s.Delete(t.Context(), bucket, "a", "c/d", "never"))
	require.Equal(t, []string{"b"}, list(t, s, bucket, "", objectstore.ListOptions{}))
}

func invalidNames(t *testing.T, s objectstore.Store, bucket string) {
	_, err := s.Head(t.Context(), bucket, "")
	require.ErrorIs(t, err, objectstore.ErrInvalid)
	_, err = s.Get(t.Context(), "A B", "x", 0, -1, "")
	require.ErrorIs(t, err, objectstore.ErrInvalid)
	for _, name := range []string{"x", "Capital", "under_score", "-hyphen"} {
		require.ErrorIs(t, s.MakeBucket(t.Context(), name), objectstore.ErrInvalid, name)
	}
}

func cancelled(t *testing.T, s objectstore.Store, bucket string) {
	put(t, s, bucket, "a", "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Head(ctx, bucket, "a")
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, objectstore.ErrUnreachable)
	n := 0
	for _, err := range s.List(ctx, bucket, "", objectstore.ListOptions{}) {
		require.ErrorIs(t, err, context.Canceled, "a listing never just ends")
		n++
	}
	require.Equal(t, 1, n)
	require.ErrorIs(t, s.Delete(ctx, bucket, "a", "b"), context.Canceled)
}

func deletingIf(t *testing.T, s objectstore.Store, bucket string) {
	ctx := t.Context()
	old := put(t, s, bucket, "o", "old")
	require.NoError(t, s.DeleteIf(ctx, bucket, "o", old.ETag))
	_, err := s.Head(ctx, bucket, "o")
	require.ErrorIs(t, err, objectstore.ErrNotExist)
	require.NoError(t, s.DeleteIf(ctx, bucket, "o", old.ETag), "it is gone already")

	put(t, s, bucket, "o", "another one")
	err = s.DeleteIf(ctx, bucket, "o", old.ETag)
	_, head := s.Head(ctx, bucket, "o")
	if err == nil { // a store that knows no conditions there
		require.ErrorIs(t, head, objectstore.ErrNotExist)
		t.Log("the store deletes whatever the ETag")
		return
	}
	require.ErrorIs(t, err, objectstore.ErrPrecondition)
	require.NoError(t, head, "it is still there")
	require.Error(t, s.DeleteIf(ctx, bucket, "", old.ETag))
}

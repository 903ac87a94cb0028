package objectstoretest

import (
	"bytes"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
)

// least is the size below which S3 refuses any part but the last.
const least = 5 << 20

func upload(t *testing.T, s objectstore.Store, bucket string) {
	ctx := t.Context()
	id, err := s.CreateUpload(ctx, bucket, "out/part-r-00000", nil)
	require.NoError(t, err)
	first, last := bytes.Repeat([]byte("a"), least), []byte("the end")
	a, err := s.UploadPart(ctx, bucket, "out/part-r-00000", id, 1, first)
	require.NoError(t, err)
	require.Equal(t, 1, a.Number)
	require.EqualValues(t, least, a.Size)
	require.NotContains(t, a.ETag, `"`)
	b, err := s.UploadPart(ctx, bucket, "out/part-r-00000", id, 2, last)
	require.NoError(t, err)
	again, err := s.UploadPart(ctx, bucket, "out/part-r-00000", id, 2, last)
	require.NoError(t, err, "the answer got lost, and it is sent again")
	require.Equal(t, b, again)

	parts, err := s.ListParts(ctx, bucket, "out/part-r-00000", id)
	require.NoError(t, err)
	require.Equal(t, []objectstore.Part{a, b}, parts)
	_, err = s.Head(ctx, bucket, "out/part-r-00000")
	require.ErrorIs(t, err, objectstore.ErrNotExist, "nothing is seen before it is complete")
	require.Empty(t, list(t, s, bucket, "", objectstore.ListOptions{}))

	etag, err := s.CompleteUpload(ctx, bucket, "out/part-r-00000", id, parts)
	require.NoError(t, err)
	h, err := s.Head(ctx, bucket, "out/part-r-00000")
	require.NoError(t, err)
	require.Equal(t, etag, h.ETag)
	require.EqualValues(t, least+len(last), h.Size)
	require.Equal(t, "athe end", get(t, s, bucket, "out/part-r-00000", least-1, -1))

	// Repeated: MinIO has forgotten the upload, others answer as before. The
	// object is as it was either way.
	if again, err := s.CompleteUpload(ctx, bucket, "out/part-r-00000", id, parts); err != nil {
		require.ErrorIs(t, err, objectstore.ErrNoSuchUpload)
	} else {
		require.Equal(t, etag, again)
	}
	_, err = s.UploadPart(ctx, bucket, "out/part-r-00000", id, 1, last)
	require.ErrorIs(t, err, objectstore.ErrNoSuchUpload, "a late attempt")
}

func partsInAnyOrder(t *testing.T, s objectstore.Store, bucket string) {
	ctx := t.Context()
	id, err := s.CreateUpload(ctx, bucket, "o", nil)
	require.NoError(t, err)
	b, err := s.UploadPart(ctx, bucket, "o", id, 2, []byte("the end"))
	require.NoError(t, err)
	_, err = s.UploadPart(ctx, bucket, "o", id, 1, []byte("to be replaced"))
	require.NoError(t, err)
	a, err := s.UploadPart(ctx, bucket, "o", id, 1, bytes.Repeat([]byte("a"), least))
	require.NoError(t, err)
	parts, err := s.ListParts(ctx, bucket, "o", id)
	require.NoError(t, err)
	require.Equal(t, []objectstore.Part{a, b}, parts)
	etag, err := s.CompleteUpload(ctx, bucket, "o", id, parts)
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(etag, "-2"), etag)
	require.Equal(t, "athe end", get(t, s, bucket, "o", least-1, -1))
}

func uploadEmpty(t *testing.T, s objectstore.Store, bucket string) {
	ctx := t.Context()
	id, err := s.CreateUpload(ctx, bucket, "empty", nil)
	require.NoError(t, err)
	p, err := s.UploadPart(ctx, bucket, "empty", id, 1, nil)
	require.NoError(t, err)
	_, err = s.CompleteUpload(ctx, bucket, "empty", id, []objectstore.Part{p})
	require.NoError(t, err)
	h, err := s.Head(ctx, bucket, "empty")
	require.NoError(t, err)
	require.Zero(t, h.Size)
	require.Equal(t, "", get(t, s, bucket, "empty", 0, -1))
}

func uploadAborted(t *testing.T, s objectstore.Store, bucket string) {
	ctx := t.Context()
	id, err := s.CreateUpload(ctx, bucket, "o", nil)
	require.NoError(t, err)
	p, err := s.UploadPart(ctx, bucket, "o", id, 1, []byte("x"))
	require.NoError(t, err)
	require.NoError(t, s.AbortUpload(ctx, bucket, "o", id))
	_, err = s.ListParts(ctx, bucket, "o", id)
	require.ErrorIs(t, err, objectstore.ErrNoSuchUpload)
	_, err = s.CompleteUpload(ctx, bucket, "o", id, []objectstore.Part{p})
	require.ErrorIs(t, err, objectstore.ErrNoSuchUpload)
	_, err = s.UploadPart(ctx, bucket, "o", id, 2, []byte("x"))
	require.ErrorIs(t, err, objectstore.ErrNoSuchUpload)
	// A repeated abort says NoSuchUpload, or nothing: S3 leaves it open.
	if err := s.AbortUpload(ctx, bucket, "o", id); err != nil {
		require.ErrorIs(t, err, objectstore.ErrNoSuchUpload)
	}
}

func uploadsListed(t *testing.T, s objectstore.Store, bucket string) {
	ctx := t.Context()
	open := map[string]bool{}
	for range 3 {
		id, err := s.CreateUpload(ctx, bucket, "out/p", nil)
		require.NoError(t, err)
		open[id] = true
	}
	other, err := s.CreateUpload(ctx, bucket, "out/p-2", nil)
	require.NoError(t, err)
	list, err := s.ListUploads(ctx, bucket, "out/p")
	require.NoError(t, err)
	require.Len(t, list, 3, "those of the key alone: %v", list)
	for _, u := range list {
		require.Equal(t, "out/p", u.Key)
		require.True(t, open[u.ID])
		require.NoError(t, s.AbortUpload(ctx, bucket, u.Key, u.ID))
	}
	require.NoError(t, s.AbortUpload(ctx, bucket, "out/p-2", other))
	list, err = s.ListUploads(ctx, bucket, "out/p")
	require.NoError(t, err)
	require.Empty(t, list)
}

func uploadRefuses(t *testing.T, s objectstore.Store, bucket string) {
	ctx := t.Context()
	id, err := s.CreateUpload(ctx, bucket, "o", nil)
	require.NoError(t, err)
	_, err = s.CompleteUpload(ctx, bucket, "o", id, nil)
	require.ErrorIs(t, err, objectstore.ErrInvalid, "no parts")
	_, err = s.CompleteUpload(ctx, bucket, "o", id, []objectstore.Part{{Number: 1, ETag: "d41d8cd98f00b204e9800998ecf8427e"}})
	require.ErrorIs(t, err, objectstore.ErrInvalid, "a part that was never sent")
	_, err = s.UploadPart(ctx, bucket, "o", id, 0, nil)
	require.ErrorIs(t, err, objectstore.ErrInvalid, "parts count from 1")
	_, err = s.UploadPart(ctx, bucket, "o", "", 1, nil)
	require.ErrorIs(t, err, objectstore.ErrInvalid, "no upload id")
	require.NoError(t, s.AbortUpload(ctx, bucket, "o", id))
}

func partsAtOnce(t *testing.T, s objectstore.Store, bucket string) {
	ctx := t.Context()
	id, err := s.CreateUpload(ctx, bucket, "o", nil)
	require.NoError(t, err)
	const n = 4
	parts := make([]objectstore.Part, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			p, err := s.UploadPart(ctx, bucket, "o", id, i+1, bytes.Repeat([]byte{byte('a' + i)}, least+i))
			if err != nil {
				t.Error(err)
			}
			parts[i] = p
		})
	}
	wg.Wait()
	_, err = s.CompleteUpload(ctx, bucket, "o", id, parts)
	require.NoError(t, err)
	data := get(t, s, bucket, "o", 0, -1)
	at := 0
	for i := range n {
		require.Equal(t, strings.Repeat(string(rune('a'+i)), least+i), data[at:at+least+i])
		at += least + i
	}
	require.Len(t, data, at)
}

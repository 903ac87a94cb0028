package objectstoretest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
)

// What holds for stores whose objects are files.

func partsInOrder(t *testing.T, s objectstore.Store, bucket string) {
	ctx := t.Context()
	id, err := s.CreateUpload(ctx, bucket, "o", nil)
	require.NoError(t, err)
	second := make(chan error, 1)
	go func() {
		_, err := s.UploadPart(ctx, bucket, "o", id, 2, []byte(" two"))
		second <- err
	}()
	_, err = s.UploadPart(ctx, bucket, "o", id, 1, []byte("one"))
	require.NoError(t, err)
	require.NoError(t, <-second, "it has waited for the first")

	_, err = s.UploadPart(ctx, bucket, "o", id, 1, []byte("other bytes"))
	require.ErrorIs(t, err, objectstore.ErrInvalid)
	parts, err := s.ListParts(ctx, bucket, "o", id)
	require.NoError(t, err)
	require.Len(t, parts, 2)
	_, err = s.CompleteUpload(ctx, bucket, "o", id, parts[:1])
	require.ErrorIs(t, err, objectstore.ErrInvalid, "all of it is the file")
	_, err = s.CompleteUpload(ctx, bucket, "o", id, parts)
	require.NoError(t, err)
	require.Equal(t, "one two", get(t, s, bucket, "o", 0, -1))
}

func oneUploadAPath(t *testing.T, s objectstore.Store, bucket string) {
	ctx := t.Context()
	id, err := s.CreateUpload(ctx, bucket, "out/p", nil)
	require.NoError(t, err)
	_, err = s.CreateUpload(ctx, bucket, "out/p", nil)
	require.ErrorIs(t, err, objectstore.ErrPrecondition, "the second one is told at once")
	other, err := s.CreateUpload(ctx, bucket, "out/p-2", nil)
	require.NoError(t, err)

	list, err := s.ListUploads(ctx, bucket, "out/p")
	require.NoError(t, err)
	require.Equal(t, []objectstore.Upload{{Key: "out/p", ID: id}}, list)
	require.NoError(t, s.AbortUpload(ctx, bucket, "out/p", id))
	require.NoError(t, s.AbortUpload(ctx, bucket, "out/p-2", other))
	list, err = s.ListUploads(ctx, bucket, "out/p")
	require.NoError(t, err)
	require.Empty(t, list)
}

// folders are no objects, and names that no file can have are refused or found not to be there.
func folders(t *testing.T, s objectstore.Store, bucket string) {
	ctx := t.Context()
	put(t, s, bucket, "dir/sub/f", "x")
	for _, key := range []string{"dir", "dir/", "dir/sub", "dir//sub/f", "/dir/sub/f", "dir/sub/f/", "dir/sub/f/below"} {
		_, err := s.Head(ctx, bucket, key)
		require.ErrorIs(t, err, objectstore.ErrNotExist, key)
		_, err = s.Get(ctx, bucket, key, 0, -1, "")
		require.ErrorIs(t, err, objectstore.ErrNotExist, key)
		require.NoError(t, s.Delete(ctx, bucket, key), key)
		_, err = s.Put(ctx, bucket, key, nil, 0, objectstore.PutOptions{})
		require.ErrorIs(t, err, objectstore.ErrInvalid, key)
		require.ErrorContains(t, err, objectstore.URL{Bucket: bucket, Key: key}.String())
	}
	require.Equal(t, []string{"dir/sub/f"}, list(t, s, bucket, "", objectstore.ListOptions{}), "nothing of that has done any harm")
	for _, prefix := range []string{"dir//", "/", "../", "dir/sub/f/", "dir/./"} {
		require.Empty(t, list(t, s, bucket, prefix, objectstore.ListOptions{}), prefix)
	}
	for _, key := range []string{"..", "a/../b", "./a", "a\x00b", "a\nb", "a\xff"} {
		_, err := s.Put(ctx, bucket, key, nil, 0, objectstore.PutOptions{})
		require.ErrorIs(t, err, objectstore.ErrInvalid, "%q", key)
		_, err = s.Head(ctx, bucket, key)
		require.ErrorIs(t, err, objectstore.ErrInvalid, "%q", key)
	}
}

package objectstore_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/objectstoretest"
)

// renamed is a block store for the test: a bucket in memory under another name.
type renamed struct{ objectstore.Store }

func (r renamed) Head(ctx context.Context, _, key string) (objectstore.Object, error) {
	return r.Store.Head(ctx, "files", key)
}

func (r renamed) SealUpload(context.Context, string, string, string) error {
	return objectstore.ErrNoSuchUpload
}

func TestMuxIsTheObjectStore(t *testing.T) {
	objectstoretest.Run(t, func(*testing.T) objectstore.Store { return objectstore.Mux(objectstore.NewMemory(), nil) })
}

func TestMuxSendsEachPlaceToItsStore(t *testing.T) {
	s3, below := objectstore.NewMemory(), objectstore.NewMemory()
	require.NoError(t, s3.MakeBucket(t.Context(), "bucket"))
	require.NoError(t, below.MakeBucket(t.Context(), "files"))
	hdfs := renamed{below}
	_, err := below.Put(t.Context(), "files", "a", strings.NewReader("1"), 1, objectstore.PutOptions{})
	require.NoError(t, err)

	for _, m := range []objectstore.Store{objectstore.Mux(s3, hdfs), objectstore.Once(objectstore.Mux(objectstore.Retrying(s3, objectstore.Retry{}), hdfs))} {
		_, err := m.Head(t.Context(), "hdfs://", "a")
		require.NoError(t, err)
		_, err = m.Head(t.Context(), "bucket", "a")
		require.ErrorIs(t, err, objectstore.ErrNotExist)
		buckets, err := m.ListBuckets(t.Context())
		require.NoError(t, err)
		require.Len(t, buckets, 1, "those of the object store")

		sealer := m.(objectstore.Sealer)
		require.ErrorIs(t, sealer.SealUpload(t.Context(), "hdfs://", "a", "1"), objectstore.ErrNoSuchUpload)
		err = sealer.SealUpload(t.Context(), "bucket", "a", "1")
		require.ErrorIs(t, err, objectstore.ErrInvalid)
		require.ErrorContains(t, err, "s3://bucket/a")
	}
}

func TestMuxWithOneStoreOnly(t *testing.T) {
	m := objectstore.Mux(objectstore.NewMemory(), nil)
	_, err := m.Head(t.Context(), "hdfs://", "a/b")
	require.ErrorIs(t, err, objectstore.ErrInvalid)
	require.ErrorContains(t, err, "head hdfs:///a/b: this needs a cluster with core nodes")
	for _, err := range m.List(t.Context(), "hdfs://other", "x", objectstore.ListOptions{}) {
		require.ErrorContains(t, err, "hdfs://other/x")
	}
	_, err = objectstore.Mux(nil, objectstore.NewMemory()).ListBuckets(t.Context())
	require.ErrorContains(t, err, "no object store is configured")
}

func TestAnObjectStoreRefusesPlacesOfABlockStore(t *testing.T) {
	_, err := objectstore.NewMemory().Head(t.Context(), "hdfs://", "a")
	require.ErrorIs(t, err, objectstore.ErrInvalid)
	require.ErrorContains(t, err, "block store")
}

package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/client"
	"millrace/hdfs/client/clienttest"
	"millrace/pkg/objectstore"
)

func TestStoreIsAnObjectStore(t *testing.T) {
	clienttest.RunStore(t, func(t *testing.T) *client.Files { return files(t, clienttest.New()) })
}

func TestStoreErrors(t *testing.T) {
	for _, c := range []struct {
		cause, kind error
	}{
		{hdfs.ErrUnavailable, objectstore.ErrUnreachable},
		{hdfs.ErrNoNodes, objectstore.ErrUnreachable},
		{hdfs.ErrNoSpace, objectstore.ErrUnreachable},
		{errors.New("connection reset by peer"), objectstore.ErrUnreachable},
		{hdfs.ErrBusy, objectstore.ErrPrecondition},
		{hdfs.ErrIsDir, objectstore.ErrInvalid},
		{hdfs.ErrNotDir, objectstore.ErrInvalid},
		{hdfs.ErrInvalid, objectstore.ErrInvalid},
	} {
		cluster := clienttest.New()
		f, err := client.New(client.Config{Names: cluster, Blocks: cluster, Patience: -1})
		require.NoError(t, err)
		cluster.Asked = func(string) error { return fmt.Errorf("for a reason: %w", c.cause) }
		_, err = store(t, f).Put(t.Context(), own, "a/b", strings.NewReader("x"), 1, objectstore.PutOptions{})
		require.ErrorIs(t, err, c.cause)
		require.ErrorIs(t, err, c.kind)
		require.EqualError(t, err, "put hdfs:///a/b: for a reason: "+c.cause.Error())
	}
}

func TestStoreOfOtherClusters(t *testing.T) {
	s := store(t, files(t, clienttest.New()))
	_, err := s.Head(t.Context(), "hdfs://other", "a")
	require.ErrorIs(t, err, objectstore.ErrNoSuchBucket)
	require.ErrorContains(t, err, "hdfs://other/a")
	ok, err := s.BucketExists(t.Context(), "hdfs://other")
	require.NoError(t, err)
	require.False(t, ok)
	ok, err = s.BucketExists(t.Context(), own)
	require.NoError(t, err)
	require.True(t, ok)
	_, err = s.Head(t.Context(), "bucket", "a")
	require.ErrorIs(t, err, objectstore.ErrInvalid)
}

func TestStoreBodyOfALostBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clienttest.New()
		f := files(t, c)
		write(t, f, "/f", random(2*block))
		s := store(t, f)
		defer s.Close()
		rc, err := s.Get(t.Context(), own, "f", 10, -1, "")
		require.NoError(t, err)
		c.Reads = func(_ string, b hdfs.Block, _ int64) *clienttest.Fault {
			if b.ID == 2 {
				return &clienttest.Fault{After: 10, Err: hdfs.ErrCorrupt}
			}
			return nil
		}
		_, err = io.ReadAll(rc)
		require.NoError(t, err, "each replica gives some of it: ten bytes, and then another one goes on")
		require.NoError(t, rc.Close())

		c.Reads = func(string, hdfs.Block, int64) *clienttest.Fault { return &clienttest.Fault{Err: hdfs.ErrCorrupt} }
		rc, err = s.Get(t.Context(), own, "f", 10, -1, "")
		require.NoError(t, err)
		_, err = io.ReadAll(rc)
		require.ErrorIs(t, err, objectstore.ErrUnreachable)
		require.ErrorIs(t, err, hdfs.ErrNoReplica)
		require.ErrorContains(t, err, "get hdfs:///f: ")
		require.NoError(t, rc.Close())

		c.Settled = true // no node is waited for
		rc, err = s.Get(t.Context(), own, "f", 10, -1, "")
		require.NoError(t, err)
		_, err = io.ReadAll(rc)
		require.ErrorIs(t, err, objectstore.ErrDamaged)
		require.EqualError(t, err, "get hdfs:///f: block b-0000000000000001 at offset 0: no good replica: node i-1: damaged; node i-2: damaged; node i-3: damaged")
		require.NoError(t, rc.Close())
	})
}

// A body is of the version that was there, whatever has come in its place.
func TestStoreBodyKeepsItsFile(t *testing.T) {
	f := files(t, clienttest.New())
	data := random(3 * block)
	write(t, f, "/f", data)
	s := store(t, f)
	rc, err := s.Get(t.Context(), own, "f", 0, -1, "")
	require.NoError(t, err)
	require.NoError(t, f.Rename(t.Context(), "/f", "/g"))
	write(t, f, "/f", []byte("another one"))
	got, err := io.ReadAll(rc)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.NoError(t, rc.Close())
}

func TestStoreDeletes(t *testing.T) {
	c := clienttest.New()
	f := files(t, c)
	write(t, f, "/a", nil)
	write(t, f, "/b", nil)
	require.NoError(t, f.Mkdir(t.Context(), "/folder"))
	s := store(t, f)
	require.NoError(t, s.Delete(t.Context(), own, "a", "folder"))
	_, err := f.Stat(t.Context(), "/.trash")
	require.ErrorIs(t, err, hdfs.ErrNotExist)
	_, err = f.Stat(t.Context(), "/folder")
	require.NoError(t, err, "a folder is no object")

	safe := client.NewStore(client.StoreConfig{Trash: true, Open: func(string) (*client.Files, error) { return f, nil }})
	defer safe.Close()
	require.NoError(t, safe.Delete(t.Context(), own, "b"))
	_, err = f.Stat(t.Context(), "/.trash")
	require.NoError(t, err)
}

// The file that is deleted is the one that was meant, whatever happens between the two requests that this takes.
func TestStoreDeletesNoOtherVersion(t *testing.T) {
	c := clienttest.New()
	f := files(t, c)
	s := store(t, f)
	var between sync.Once
	c.Asked = func(op string) error {
		if op == "RemoveIf" {
			between.Do(func() { write(t, f, "/a", []byte("newer")) })
		}
		return nil
	}
	write(t, f, "/a", []byte("old"))
	old, err := s.Head(t.Context(), own, "a")
	require.NoError(t, err)
	err = s.DeleteIf(t.Context(), own, "a", old.ETag)
	require.ErrorIs(t, err, objectstore.ErrPrecondition)
	require.ErrorIs(t, err, hdfs.ErrChanged)
	newer, err := s.Head(t.Context(), own, "a")
	require.NoError(t, err)
	require.NotEqual(t, old.ETag, newer.ETag)
	require.NoError(t, s.DeleteIf(t.Context(), own, "a", newer.ETag))
	_, err = s.Head(t.Context(), own, "a")
	require.ErrorIs(t, err, objectstore.ErrNotExist)
}

func TestStorePutThatFails(t *testing.T) {
	c := clienttest.New()
	s := store(t, files(t, c))
	full := fmt.Errorf("node i-1: %w", hdfs.ErrNoSpace)
	c.Writes = func(hdfs.Block) error { return full }
	_, err := s.Put(t.Context(), own, "f", strings.NewReader("x"), 1, objectstore.PutOptions{})
	require.ErrorIs(t, err, hdfs.ErrNoSpace)
	require.ErrorIs(t, err, objectstore.ErrUnreachable)
	require.Zero(t, c.Unfinished(), "nothing is left")

	c.Writes = nil
	broken := errors.New("the pipe broke")
	_, err = s.Put(t.Context(), own, "f", io.MultiReader(strings.NewReader("x"), errReader{broken}), 2, objectstore.PutOptions{})
	require.ErrorIs(t, err, broken)
	require.ErrorIs(t, err, objectstore.ErrInvalid)
	require.Zero(t, c.Unfinished())
}

type errReader struct{ error }

func (e errReader) Read([]byte) (int, error) { return 0, e.error }

var ctx = context.Background()

func TestAPutAsksForTheRoomThatItNeeds(t *testing.T) {
	cluster := clienttest.New()
	f := files(t, cluster)
	s := client.NewStore(client.StoreConfig{Open: func(string) (*client.Files, error) { return f, nil }})
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	for _, c := range []struct{ size, want int64 }{{0, hdfs.ChunkSize}, {hdfs.ChunkSize + 1, 2 * hdfs.ChunkSize}} {
		_, err := s.Put(t.Context(), own, "a", bytes.NewReader(make([]byte, c.size)), c.size, objectstore.PutOptions{})
		require.NoError(t, err)
		info, err := cluster.Stat(t.Context(), "/a")
		require.NoError(t, err)
		require.Equal(t, c.want, info.BlockSize)
	}
}

package clienttest

import (
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/client"
	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/objectstoretest"
)

// RunStore holds a Store over a cluster's files against the specification of object stores, and to what these leave open. newFiles
// gives the files of a cluster in which nothing lies.
func RunStore(t *testing.T, newFiles func(t *testing.T) *client.Files) {
	newStore := func(t *testing.T) (objectstore.Store, string) {
		files := newFiles(t)
		s := client.NewStore(client.StoreConfig{Open: func(cluster string) (*client.Files, error) {
			if cluster != "" {
				return nil, hdfs.ErrNotExist
			}
			return files, nil
		}})
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		return s, objectstore.HDFS
	}
	objectstoretest.Subject{Files: true, New: newStore}.Run(t)
	t.Run("a version that is put while the one before is deleted stays", func(t *testing.T) {
		s, own := newStore(t)
		put := func(text string) (objectstore.Object, error) {
			return s.Put(t.Context(), own, "o", strings.NewReader(text), int64(len(text)), objectstore.PutOptions{})
		}
		for range 5 {
			old, err := put("old")
			require.NoError(t, err)
			var deleting sync.WaitGroup
			var deleted error
			deleting.Go(func() { deleted = s.DeleteIf(t.Context(), own, "o", old.ETag) })
			newer, err := put("newer")
			deleting.Wait()
			require.NoError(t, err)
			if deleted != nil { // it came too late
				require.ErrorIs(t, deleted, objectstore.ErrPrecondition)
			}
			head, err := s.Head(t.Context(), own, "o")
			require.NoError(t, err)
			require.Equal(t, newer.ETag, head.ETag)
		}
	})
}

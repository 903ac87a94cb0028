package blockstore_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/blockstore"
)

func TestAWipedFolderIsAnyClusters(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "disk")
	open := func(cluster string) (*blockstore.Store, error) {
		return blockstore.Open(blockstore.Config{Dirs: []string{dir}, Cluster: cluster})
	}
	require.NoError(t, blockstore.Wipe(dir, "j-1"), "there is none yet")
	s, err := open("j-1")
	require.NoError(t, err)
	w, err := s.Create(hdfs.Block{ID: 7, Stamp: 1})
	require.NoError(t, err)
	_, err = w.Finalize()
	require.NoError(t, err)
	require.ErrorContains(t, blockstore.Wipe(dir, "j-1"), "in use", "somebody serves it")
	require.NoError(t, s.Close())

	require.NoError(t, blockstore.Wipe(dir, "j-2"), "nothing there is of that cluster")
	_, err = open("j-2")
	require.ErrorIs(t, err, blockstore.ErrForeign)

	// Cut short: the blocks are gone, whose it was still stands there.
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "blocks")))
	_, err = open("j-2")
	require.ErrorIs(t, err, blockstore.ErrForeign)
	require.NoError(t, blockstore.Wipe(dir, "j-1"))
	require.NoError(t, blockstore.Wipe(dir, "j-1"))

	s, err = open("j-2")
	require.NoError(t, err)
	for b := range s.Blocks() {
		t.Errorf("block %v is still there", b)
	}
	require.NoError(t, s.Close())

	require.NoError(t, os.WriteFile(filepath.Join(dir, "disk.json"), []byte("{"), 0o600))
	require.ErrorContains(t, blockstore.Wipe(dir, "j-2"), "damaged")
}

func TestALinkToADiscardedFolderStays(t *testing.T) {
	dir, link := filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.Symlink(dir, link))
	s, err := blockstore.Open(blockstore.Config{Dirs: []string{link}, Cluster: "j-1"})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, blockstore.Discard(link, "j-1"))
	left, err := os.ReadDir(link)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestADiscardedFolderIsGoneButForWhatIsNotOurs(t *testing.T) {
	for _, foreign := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "disk")
		require.NoError(t, blockstore.Discard(dir, "j-1"), "there is none yet")
		s, err := blockstore.Open(blockstore.Config{Dirs: []string{dir}, Cluster: "j-1"})
		require.NoError(t, err)
		require.NoError(t, s.Close())
		of, err := blockstore.ClusterOf(dir)
		require.NoError(t, err)
		require.Equal(t, "j-1", of)
		before, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.NoError(t, blockstore.Discard(dir, "j-2"), "it is another cluster's: all of it stays")
		after, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Equal(t, before, after)
		if foreign {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "photo.jpg"), nil, 0o600))
		}
		require.NoError(t, blockstore.Discard(dir, ""), "and nobody's cluster is none")
		require.NoError(t, blockstore.Discard(dir, "j-1"))
		of, err = blockstore.ClusterOf(dir)
		require.NoError(t, err)
		require.Empty(t, of)
		if !foreign {
			require.NoDirExists(t, dir)
			continue
		}
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, left, 1)
		require.Equal(t, "photo.jpg", left[0].Name())
	}
}

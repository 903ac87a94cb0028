package blockstore_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/blockstore"
)

// Somebody removes folders of blocks while the store runs: they are made anew when they are needed, and what was in them is listed no more.
func TestFoldersThatAreRemovedAreMadeAnew(t *testing.T) {
	for name, c := range map[string]struct {
		remove string
		then   func(t *testing.T, s *blockstore.Store)
		left   []hdfs.Block
		lost   int
	}{
		"one, and a block is to go there": {"blocks/07", func(t *testing.T, s *blockstore.Store) { put(t, s, 0x107, 1, content(3, 20)) },
			[]hdfs.Block{{ID: 8, Stamp: 1, Size: 10}, {ID: 0x107, Stamp: 1, Size: 20}}, 1},
		"of those being written": {"writing", func(t *testing.T, s *blockstore.Store) { put(t, s, 9, 1, content(3, 20)) },
			[]hdfs.Block{{ID: 7, Stamp: 1, Size: 10}, {ID: 8, Stamp: 1, Size: 10}, {ID: 9, Stamp: 1, Size: 20}}, 0},
		"of those being written, and a whole one goes on": {"writing", func(t *testing.T, s *blockstore.Store) {
			w, err := s.Recover(7, 1, 2, 10)
			require.NoError(t, err)
			_, err = w.Finalize()
			require.NoError(t, err)
		}, []hdfs.Block{{ID: 7, Stamp: 2, Size: 10}, {ID: 8, Stamp: 1, Size: 10}}, 0},
		"all, and nothing happens": {"blocks", func(_ *testing.T, s *blockstore.Store) { s.Disks() }, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir, lost := t.TempDir(), 0
			s := open(t, blockstore.Config{Dirs: []string{dir}, Lost: func() { lost++ }})
			for _, id := range []hdfs.BlockID{7, 8} {
				put(t, s, id, 1, content(uint64(id), 10))
			}
			require.NoError(t, os.RemoveAll(filepath.Join(dir, c.remove)))
			c.then(t, s)
			final, unfinished := listed(s)
			require.Equal(t, c.left, final)
			require.Empty(t, unfinished)
			require.Equal(t, c.lost, lost)
			for _, b := range final {
				require.NoError(t, verify(s, b))
			}
			is := s.Disks()[0]
			require.Empty(t, is.Problem)
			require.Equal(t, len(final), is.Blocks)
			put(t, s, 0x207, 1, content(5, 10))
		})
	}
}

// What is left where a disk was mounted is an empty folder: nothing is made there, whatever is still being written.
func TestNothingIsMadeWhereADiskWasMounted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "disk")
	s := open(t, blockstore.Config{Dirs: []string{dir, t.TempDir()}})
	w, err := s.Create(hdfs.Block{ID: 1, Stamp: 1})
	require.NoError(t, err)
	if _, err := os.Stat(filepath.Join(dir, "writing", blockstore.ReplicaName(1, 1))); err != nil {
		require.NoError(t, w.Close())
		w, err = s.Create(hdfs.Block{ID: 2, Stamp: 1}) // the disks take turns
		require.NoError(t, err)
	}
	require.NoError(t, write(w, content(1, 10)))
	require.NoError(t, os.Rename(dir, dir+"-away"))
	require.NoError(t, os.Mkdir(dir, 0o700))
	_, err = w.Finalize()
	require.ErrorIs(t, err, blockstore.ErrDisk)
	for id := range hdfs.BlockID(4) {
		put(t, s, 100+id, 1, content(1, 10))
	}
	require.NotEmpty(t, s.Disks()[0].Problem)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

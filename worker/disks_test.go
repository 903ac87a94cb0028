package worker

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/hdfs/blockstore"
	"millrace/pkg/api"
)

// Who takes a node away has nothing but its folder to learn from where else it has kept blocks.
func TestDisksAreFoundAgainByTheNodesFolder(t *testing.T) {
	none := t.TempDir()
	disks, err := Disks(none)
	require.NoError(t, err)
	require.Empty(t, disks)
	discarded, err := DiscardDisks(none)
	require.NoError(t, err)
	require.Empty(t, discarded)

	m := newMaster(t)
	own, shared, dropped := filepath.Join(t.TempDir(), "own"), filepath.Join(t.TempDir(), "shared"), filepath.Join(t.TempDir(), "dropped")
	n := m.worker("core", coreRole, func(c *Config) { c.DataDirs, c.BlockReserve = []string{own, dropped}, 1<<20 })
	n.await("both disks", func(g *api.WorkerMessage) bool { return len(g.GetBlocks().GetDisks()) == 2 })
	cluster := n.w.id.Cluster
	n.end()
	n.run(func(c *Config) { c.DataDirs, c.BlockReserve = []string{own, shared}, 1<<20 })
	n.await("both disks", func(g *api.WorkerMessage) bool { return len(g.GetBlocks().GetDisks()) == 2 })
	disks, err = Disks(n.dir)
	require.NoError(t, err)
	require.Equal(t, []string{own, dropped, shared}, disks, "also the one that is named no more: its blocks are still there")
	n.end()

	require.NoError(t, os.WriteFile(filepath.Join(shared, "photo.jpg"), []byte("x"), 0o600))
	require.NoError(t, os.RemoveAll(dropped))
	discarded, err = DiscardDisks(n.dir)
	require.NoError(t, err)
	require.Equal(t, []Discarded{
		{Dir: own, Gone: true},
		{Dir: dropped, Kept: "no blocks are in it; is its disk mounted?"},
		{Dir: shared, Gone: true, Kept: "there are files in it that are not millrace's"},
	}, discarded)
	require.NoDirExists(t, own)
	left, err := filepath.Glob(filepath.Join(shared, "*"))
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(shared, "photo.jpg")}, left)

	// What is not the node's, or not to be had, stays, and keeps nobody from the rest.
	store, err := blockstore.Open(blockstore.Config{Dirs: []string{own}, Cluster: "j-another"})
	require.NoError(t, err)
	require.NoError(t, store.Close())
	require.NoError(t, os.Mkdir(dropped, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dropped, "disk.json"), []byte("{"), 0o600))
	store, err = blockstore.Open(blockstore.Config{Dirs: []string{shared}, Cluster: cluster})
	require.NoError(t, err)
	discarded, err = DiscardDisks(n.dir)
	require.NoError(t, err)
	require.Equal(t, Discarded{Dir: own, Kept: "its blocks are another cluster's, j-another"}, discarded[0])
	require.NoError(t, discarded[0].Err)
	require.ErrorContains(t, discarded[1].Err, "damaged")
	require.ErrorContains(t, discarded[2].Err, "in use by another process")
	require.FileExists(t, filepath.Join(own, "disk.json"))
	require.FileExists(t, filepath.Join(shared, "disk.json"))
	require.NoError(t, store.Close())

	require.NoError(t, os.WriteFile(filepath.Join(n.dir, disksFile), []byte("["), 0o600))
	_, err = DiscardDisks(n.dir)
	require.ErrorContains(t, err, filepath.Join(n.dir, disksFile)+": unexpected end of JSON input: put back a copy, or delete it")
	require.FileExists(t, filepath.Join(shared, "disk.json"))
}

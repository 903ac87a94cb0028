package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/hdfs/blockstore"
)

func TestUninstallSpeaksOfFurtherDisks(t *testing.T) {
	m := &machine{dir: t.TempDir()}
	disk, shared := filepath.Join(t.TempDir(), "disk1"), filepath.Join(t.TempDir(), "disk2")
	worker := m.nodeDir("worker")
	require.NoError(t, os.MkdirAll(worker, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(worker, "node.json"), []byte(`{"id": "i-1", "cluster": "j-1"}`), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(worker, "data-dirs.json"), []byte(`["`+disk+`", "`+shared+`"]`), 0o600))
	store, err := blockstore.Open(blockstore.Config{Dirs: []string{disk, shared}, Cluster: "j-1"})
	require.NoError(t, err)
	require.NoError(t, store.Close())
	require.NoError(t, os.WriteFile(filepath.Join(shared, "photo.jpg"), nil, 0o600))

	out := uninstalled{why: map[string]string{}}
	require.NoError(t, m.disks(&out, false))
	require.Empty(t, out.Removed)
	require.Equal(t, []string{disk, shared}, out.Kept)
	require.Equal(t, "blocks of the node; --data deletes them", out.why[disk])
	require.FileExists(t, filepath.Join(disk, "disk.json"))

	store, err = blockstore.Open(blockstore.Config{Dirs: []string{disk}, Cluster: "j-1"})
	require.NoError(t, err)
	held := &machine{dir: t.TempDir()}
	require.NoError(t, os.CopyFS(held.nodeDir("worker"), os.DirFS(worker)))
	require.NoError(t, os.WriteFile(filepath.Join(held.nodeDir("worker"), "data-dirs.json"), []byte(`["`+disk+`"]`), 0o600))
	out = uninstalled{why: map[string]string{}}
	require.ErrorContains(t, held.disks(&out, true), disk+": ")
	require.FileExists(t, filepath.Join(held.nodeDir("worker"), "data-dirs.json"), "by it the command finds the blocks when it is repeated")
	require.NoError(t, store.Close())

	out = uninstalled{why: map[string]string{}}
	require.NoError(t, m.disks(&out, true))
	require.Equal(t, []string{"blocks in " + disk, "blocks in " + shared}, out.Removed)
	require.Equal(t, []string{shared}, out.Kept)
	require.Equal(t, "there are files in it that are not millrace's", out.why[shared])
	require.NoDirExists(t, disk)
	require.FileExists(t, filepath.Join(shared, "photo.jpg"))
	require.NoFileExists(t, filepath.Join(shared, "disk.json"))
}

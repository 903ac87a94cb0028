package cli

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUninstallEmptiesAFolderThatIsADisk(t *testing.T) {
	dir := t.TempDir()
	disk, file := filepath.Join(dir, "worker"), filepath.Join(dir, "worker.log")
	require.NoError(t, os.Mkdir(disk, 0o700))
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, ""); err != nil {
		t.Skip("mounting a disk: ", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(disk, 0)) })
	for _, f := range []string{filepath.Join(disk, "node.json"), file} {
		require.NoError(t, os.WriteFile(f, nil, 0o600))
	}
	out := uninstalled{why: map[string]string{}}
	require.NoError(t, out.remove([]string{filepath.Join(dir, "nothing"), disk, file}))
	require.Equal(t, []string{file}, out.Removed)
	require.Equal(t, []string{disk}, out.Kept)
	require.Contains(t, out.why[disk], "a disk is mounted there")
	require.NoFileExists(t, filepath.Join(disk, "node.json"))
}

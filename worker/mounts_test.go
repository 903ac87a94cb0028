package worker

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"millrace/pkg/api"
)

func TestWhereAFolderIsMounted(t *testing.T) {
	device := func(path string) (uint64, error) {
		switch path {
		case "/", "/mnt", "/mnt/plain":
			return 1, nil
		case "/mnt/disk", "/mnt/disk/a", "/mnt/disk/a/blocks":
			return 2, nil
		case "/mnt/disk/a/inner":
			return 1, nil // a file system that is mounted twice
		}
		return 0, errors.New("stat " + path)
	}
	for path, want := range map[string]string{
		"/": "/", "/mnt/plain": "/", "/mnt/disk": "/mnt/disk", "/mnt/disk/a/blocks": "/mnt/disk", "/mnt/disk/a/inner": "/mnt/disk/a/inner",
	} {
		point, err := mountPoint(path, device)
		require.NoError(t, err)
		require.Equal(t, want, point, path)
	}
	_, err := mountPoint("/gone", device)
	require.ErrorContains(t, err, "stat /gone")
}

// mountAt mounts an empty disk.
func mountAt(t *testing.T, point string) {
	t.Helper()
	if err := unix.Mount("millrace-test", point, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("nothing can be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(point, unix.MNT_DETACH) })
}

// A disk need not be where it was, but there must be one: the root file system, or another that the mount point itself is on, is none.
func TestWhereAFolderMayBegin(t *testing.T) {
	root := t.TempDir()
	a, b, link := filepath.Join(root, "a"), filepath.Join(root, "b"), filepath.Join(root, "link")
	inner := filepath.Join(a, "inner")
	for _, dir := range []string{a, b} {
		require.NoError(t, os.Mkdir(dir, 0o755))
	}
	mountAt(t, a)
	require.NoError(t, os.Mkdir(inner, 0o755))
	require.NoError(t, os.Symlink(b, link))
	known := mounts{filepath.Join(a, "blocks"): a, filepath.Join(b, "blocks"): b, filepath.Join(inner, "blocks"): inner, filepath.Join(link, "blocks"): a}

	require.NoError(t, known.mayBegin(filepath.Join(a, "blocks")))
	require.NoError(t, known.mayBegin(filepath.Join(root, "never")), "of which nothing is known")
	require.ErrorContains(t, known.mayBegin(filepath.Join(b, "blocks")), "nothing is mounted at "+b)
	require.ErrorContains(t, known.mayBegin(filepath.Join(inner, "blocks")), "nothing is mounted at "+inner, "though the folder that it was mounted in is on a disk")
	require.ErrorContains(t, known.mayBegin(filepath.Join(link, "blocks")), "nothing is mounted at "+a)
	mountAt(t, b)
	require.NoError(t, known.mayBegin(filepath.Join(link, "blocks")), "the link leads to another disk")
	mountAt(t, inner)
	require.NoError(t, known.mayBegin(filepath.Join(inner, "blocks")))
}

// A node whose disk is not mounted does not take the bare mount point for a new disk.
func TestADiskThatIsNotMounted(t *testing.T) {
	point, other := filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "other")
	require.NoError(t, os.Mkdir(point, 0o755))
	mount := func() { mountAt(t, point) }
	unmount := func() { require.NoError(t, unix.Unmount(point, 0)) }
	mount()
	blocks := filepath.Join(point, "blocks")
	m := newMaster(t)
	n := m.worker("core", coreRole, func(c *Config) { c.DataDirs, c.BlockReserve = []string{blocks, other}, 1<<20 })
	problems := func() map[string]string {
		found := map[string]string{}
		n.await("both disks", func(g *api.WorkerMessage) bool {
			for _, d := range g.GetBlocks().GetDisks() {
				found[d.GetDir()] = d.GetProblem()
			}
			return len(g.GetBlocks().GetDisks()) == 2
		})
		return found
	}
	require.Equal(t, map[string]string{blocks: "", other: ""}, problems())
	n.end()
	unmount()

	again := func() { n.run(func(c *Config) { c.DataDirs, c.BlockReserve = []string{blocks, other}, 1<<20 }) }
	again()
	require.Equal(t, map[string]string{other: "",
		blocks: "nothing is mounted at " + point + ", where its disk was: mount it and start the node again, or name another folder with --data-dir"}, problems())
	n.end()
	require.NoDirExists(t, blocks, "nothing is made below a bare mount point")

	mount() // an empty disk, as one that was replaced
	again()
	require.Equal(t, map[string]string{blocks: "", other: ""}, problems())
	n.end()
	unmount()
}

package shuffle

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

// A reader who cannot get to the store has its segments by another name, as the group that the folder is of, and nothing is copied.
func TestASegmentIsLent(t *testing.T) {
	n := newNode(t, "i-self")
	n.add(0, 2, 50)
	n.add(1, 2, 0)
	dir := t.TempDir()
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chown(dir, 0, 12345))
	}
	r := startReduce(t, n, 2, func(c *FetcherConfig) { c.Store, c.Lend, c.Dir = n.store, true, dir })
	r.Update(n.locs, nil)
	r.check(n.want)
	lent := filepath.Join(dir, attemptOf(0)+suffix)
	require.Equal(t, lent, r.got[0].Path)
	info, err := os.Stat(lent)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), info.Mode().Perm())
	folder, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, folder.Sys().(*syscall.Stat_t).Gid, info.Sys().(*syscall.Stat_t).Gid)
	original, err := os.Stat(n.path(0))
	require.NoError(t, err)
	require.True(t, os.SameFile(info, original))

	// Dropped between its being found and lent, it is missing.
	s := &source{f: r.Fetcher}
	require.NoError(t, n.store.Drop(job, attemptOf(0)))
	require.NoError(t, os.Remove(lent))
	require.ErrorIs(t, s.lend(&api.ChildSegment{MapAttempt: attemptOf(0), Path: n.path(0)}), os.ErrNotExist)
}

// What an attempt has left in a segment's place is taken for nothing else: not for what a link leads to, not for a pipe that nobody
// writes to.
func TestWhatIsNoFileIsNoSegment(t *testing.T) {
	n := newNode(t, "i-a")
	n.add(0, 2, 50)
	secret := n.path(0) // another job's, say
	for name, make := range map[string]func(path string) error{
		"a link":   func(p string) error { return os.Symlink(secret, p) },
		"a pipe":   func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"a folder": func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "seg")
			require.NoError(t, make(path))
			_, err := n.store.Adopt(job, attemptOf(1), path)
			require.Error(t, err)
			require.Error(t, Push(t.Context(), n.srv.Client(), n.srv.URL, job, attemptOf(1), path, 1))
			require.Len(t, n.store.Held(), 1)
		})
	}
}

package files

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/client"
	"millrace/hdfs/client/clienttest"
)

// fakeCluster is a block store in memory. Its trash is a folder.
type fakeCluster struct {
	*clienttest.Cluster
	files *client.Files
}

func (c *fakeCluster) Create(ctx context.Context, want hdfs.Create) (Writer, error) {
	return c.files.Create(ctx, want)
}

func (c *fakeCluster) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	return c.files.Open(ctx, path)
}

func (c *fakeCluster) Discard(ctx context.Context, path string, recursive, skipTrash bool) (string, error) {
	if skipTrash {
		return "", c.Remove(ctx, path, recursive, true)
	}
	return "/.trash" + path, c.Rename(ctx, path, "/.trash"+path)
}

func newFakeCluster(t *testing.T) *fakeCluster {
	c := &fakeCluster{Cluster: clienttest.New("i-1", "i-2", "i-3")}
	var err error
	c.files, err = client.New(client.Config{Names: c.Cluster, Blocks: c.Cluster, Patience: -1})
	require.NoError(t, err)
	return c
}

// withHDFS is files with an empty block store beside the object store.
func withHDFS(t *testing.T) (*Files, *fakeCluster) {
	f, _ := newFiles(t)
	c := newFakeCluster(t)
	f.Cluster = func(bucket string) (Cluster, error) {
		require.Equal(t, "hdfs://", bucket)
		return c, nil
	}
	return f, c
}

func fill(t *testing.T, f *Files, names ...string) {
	t.Helper()
	for _, name := range names {
		require.NoError(t, f.Write(t.Context(), parse(t, "hdfs:///"+name), strings.NewReader(name), int64(len(name))))
	}
}

func listed(t *testing.T, f *Files, where string, recursive bool) (names []string) {
	t.Helper()
	for e, err := range f.List(t.Context(), parse(t, where), recursive) {
		require.NoError(t, err)
		names = append(names, e.Place.String())
	}
	return names
}

// What goes from a local folder to a block store, from there to an object store and back again, is the same.
func TestATreeGoesThroughABlockStore(t *testing.T) {
	f, _ := withHDFS(t)
	want := map[string]string{"a.txt": "a", "deep/er/b.txt": "b", "empty": "", "ümläut x": "u"}
	copyAll := func(from, to Place) {
		t.Helper()
		tasks, err := f.Plan(t.Context(), []Place{from}, to, true)
		require.NoError(t, err)
		require.NoError(t, f.Copy(t.Context(), tasks, nil))
	}
	copyAll(Place{Path: tree(t, want)}, parse(t, "hdfs:///in/x"))
	copyAll(parse(t, "hdfs:///in/x"), parse(t, "s3://bkt/y"))
	copyAll(parse(t, "s3://bkt/y"), parse(t, "hdfs:///z"))
	back := t.TempDir()
	copyAll(parse(t, "hdfs:///z"), Place{Path: back})
	require.Equal(t, want, read(t, back))
	bytes, n, err := f.Usage(t.Context(), parse(t, "hdfs:///z"))
	require.NoError(t, err)
	require.EqualValues(t, []int64{3, 4}, []int64{bytes, n})
}

// A node with less room than a usual block has takes small files.
func TestAFileAsksForTheRoomThatItNeeds(t *testing.T) {
	f, c := withHDFS(t)
	for name, size := range map[string]int64{"known": 5, "stream": -1} {
		require.NoError(t, f.Write(t.Context(), parse(t, "hdfs:///"+name), strings.NewReader("12345"), size))
	}
	for name, want := range map[string]int64{"/known": hdfs.ChunkSize, "/stream": hdfs.DefaultBlockSize} {
		info, err := c.Stat(t.Context(), name)
		require.NoError(t, err)
		require.EqualValues(t, 5, info.Size)
		require.Equal(t, want, info.BlockSize, name)
	}
	require.ErrorContains(t, f.Write(t.Context(), parse(t, "hdfs:///grown"), strings.NewReader(strings.Repeat("x", 2*hdfs.ChunkSize)), 5), "5 were expected")
	_, err := c.Stat(t.Context(), "/grown")
	require.ErrorIs(t, err, hdfs.ErrNotExist)
}

func TestAFolderOfABlockStoreIsThereInItsOwnRight(t *testing.T) {
	f, _ := withHDFS(t)
	fill(t, f, "a/b/c", "a/d", "e")
	require.NoError(t, f.Mkdir(t.Context(), parse(t, "hdfs:///a/empty")))
	require.Equal(t, []string{"hdfs:///a/", "hdfs:///e"}, listed(t, f, "hdfs:///", false))
	require.Equal(t, []string{"hdfs:///a/b/", "hdfs:///a/d", "hdfs:///a/empty/"}, listed(t, f, "hdfs:///a", false))
	require.Equal(t, []string{"hdfs:///a/b/c", "hdfs:///a/d", "hdfs:///a/empty/", "hdfs:///e"}, listed(t, f, "hdfs:///", true))
	require.Equal(t, []string{"hdfs:///e"}, listed(t, f, "hdfs:///e", false))

	e, err := f.Stat(t.Context(), parse(t, "hdfs:///a/empty"))
	require.NoError(t, err)
	require.True(t, e.Dir)
	var missing *NotFoundError
	_, err = f.Stat(t.Context(), parse(t, "hdfs:///a/none"))
	require.ErrorAs(t, err, &missing)
	require.Equal(t, "hdfs:///a/none", missing.Place)
}

func TestTheRootAndTheTrashStay(t *testing.T) {
	f, _ := withHDFS(t)
	fill(t, f, "a/b", ".trash/old/c")
	root, trash := parse(t, "hdfs:///"), parse(t, "hdfs:///.trash/")
	_, err := f.Rename(t.Context(), root, parse(t, "hdfs:///x"))
	require.EqualError(t, err, "hdfs:/// is the root, which stays")
	_, err = f.Rename(t.Context(), trash, parse(t, "hdfs:///x"))
	require.EqualError(t, err, "hdfs:///.trash/ is the trash, which stays")
	_, _, err = f.Discard(t.Context(), root, true)
	require.EqualError(t, err, "hdfs:/// is the root, which stays")
	_, err = f.Rename(t.Context(), parse(t, "hdfs:///.trash/old/c"), parse(t, "hdfs:///a/"))
	require.NoError(t, err, "what is in it comes back")
	require.NoError(t, f.RemoveEmpty(t.Context(), root))
	require.Equal(t, []string{"hdfs:///.trash/old/", "hdfs:///a/b", "hdfs:///a/c"}, listed(t, f, "hdfs:///", true))
	f.SkipTrash = true
	_, _, err = f.Discard(t.Context(), trash, true)
	require.NoError(t, err, "so it is emptied")
}

func TestWhenAFolderWasMade(t *testing.T) {
	f, _ := withHDFS(t)
	require.NoError(t, f.Mkdir(t.Context(), parse(t, "hdfs:///a/empty")))
	require.Zero(t, hdfsEntry(parse(t, "hdfs:///"), hdfs.Info{Path: "/", Directory: true, ModifiedAt: time.UnixMicro(0).UTC()}).ModifiedAt, "nobody has made the root")
	for e, err := range f.List(t.Context(), parse(t, "hdfs:///"), true) {
		require.NoError(t, err)
		require.Equal(t, "hdfs:///a/empty/", e.Place.String())
		require.False(t, e.ModifiedAt.IsZero())
	}
}

func TestGlobsInABlockStore(t *testing.T) {
	f, _ := withHDFS(t)
	fill(t, f, ".trash/old", "logs/.hidden",
		"logs/a.txt", "logs/b.txt", "logs/c.gz", "logs/old/a.txt", "logs/[x]")
	for glob, want := range map[string][]string{
		"hdfs:///logs/*.txt":      {"hdfs:///logs/a.txt", "hdfs:///logs/b.txt"},
		"hdfs:///logs/{a,c}*":     {"hdfs:///logs/a.txt", "hdfs:///logs/c.gz"},
		"hdfs:///logs/**/a.txt":   {"hdfs:///logs/a.txt", "hdfs:///logs/old/a.txt"},
		"hdfs:///*":               {"hdfs:///logs/"},
		"hdfs:///logs/[x]":        {"hdfs:///logs/[x]"},
		"hdfs:///l*/o*/?.txt":     {"hdfs:///logs/old/a.txt"},
		"hdfs:///logs/a.txt":      {"hdfs:///logs/a.txt"},
		"hdfs:///logs/{old,none}": {"hdfs:///logs/old/"},
		"hdfs:///.t*":             {"hdfs:///.trash/"},
		"hdfs:///logs/.*":         {"hdfs:///logs/.hidden"},
	} {
		places, err := f.Expand(t.Context(), parse(t, glob))
		require.NoError(t, err, glob)
		var got []string
		for _, p := range places {
			got = append(got, p.String())
		}
		require.ElementsMatch(t, want, got, glob)
	}
	var missing *NotFoundError
	_, err := f.Expand(t.Context(), parse(t, "hdfs:///none/*"))
	require.ErrorAs(t, err, &missing)
}

func TestRemovingGoesToTheTrash(t *testing.T) {
	f, c := withHDFS(t)
	fill(t, f, "a/b", "a/c", "d")
	var folder *FolderError
	_, _, err := f.Discard(t.Context(), parse(t, "hdfs:///a"), false)
	require.ErrorAs(t, err, &folder)
	n, trash, err := f.Discard(t.Context(), parse(t, "hdfs:///a"), true)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Equal(t, "hdfs:///.trash/a", trash)
	f.SkipTrash = true
	n, trash, err = f.Discard(t.Context(), parse(t, "hdfs:///d"), false)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Empty(t, trash)
	_, err = c.Stat(t.Context(), "/.trash/a/b")
	require.NoError(t, err)
	_, err = c.Stat(t.Context(), "/d")
	require.ErrorIs(t, err, hdfs.ErrNotExist)
}

func TestMovesWithinABlockStore(t *testing.T) {
	f, _ := withHDFS(t)
	fill(t, f, "a/b", "c")
	move := func(from, to string) (string, error) {
		at, err := f.Rename(t.Context(), parse(t, from), parse(t, to))
		return at.String(), err
	}
	at, err := move("hdfs:///c", "hdfs:///a")
	require.NoError(t, err)
	require.Equal(t, "hdfs:///a/c", at, "into a folder that is there")
	at, err = move("hdfs:///a/c", "hdfs:///new/")
	require.NoError(t, err)
	require.Equal(t, "hdfs:///new/c", at, "into a folder that is meant")
	at, err = move("hdfs:///a", "hdfs:///z")
	require.NoError(t, err)
	require.Equal(t, "hdfs:///z", at)

	var itself *OntoItselfError
	_, err = move("hdfs:///z", "hdfs:///z/y")
	require.ErrorAs(t, err, &itself)
	_, err = move("hdfs:///z/b", "hdfs:///z/b")
	require.ErrorAs(t, err, &itself)
	require.EqualError(t, err, "hdfs:///z/b would be moved onto itself")
	_, err = move("hdfs:///z", "hdfs:///new/c/d")
	require.EqualError(t, err, "hdfs:///new/c/d lies below hdfs:///new/c, which is a file")
	_, err = move("hdfs:///z/b", "hdfs:///new/c")
	require.EqualError(t, err, "hdfs:///new/c is there already")
	var missing *NotFoundError
	_, err = move("hdfs:///none", "hdfs:///x")
	require.ErrorAs(t, err, &missing)
	require.Equal(t, []string{"hdfs:///new/c", "hdfs:///z/b"}, listed(t, f, "hdfs:///", true))
}

func TestAFileThatChangesWhileItIsReadLeavesNothing(t *testing.T) {
	f, c := withHDFS(t)
	err := f.Write(t.Context(), parse(t, "hdfs:///x"), strings.NewReader("short"), 10)
	require.ErrorContains(t, err, "it changed while it was read")
	require.Empty(t, listed(t, f, "hdfs:///", true))
	require.Zero(t, c.Unfinished())
}

func TestReplicationOfFilesThatAreThere(t *testing.T) {
	f, _ := withHDFS(t)
	fill(t, f, "a/b", "a/c/d", "e")
	n, err := f.SetReplication(t.Context(), parse(t, "hdfs:///a"), 2, true)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	var folder *FolderError
	_, err = f.SetReplication(t.Context(), parse(t, "hdfs:///a"), 2, false)
	require.ErrorAs(t, err, &folder)
	for path, want := range map[string]int{"hdfs:///a/c/d": 2, "hdfs:///e": 3} {
		e, err := f.Stat(t.Context(), parse(t, path))
		require.NoError(t, err)
		require.Equal(t, want, e.Replication, path)
	}
}

// What is no file of its own on this machine stays what it is: a link, a pipe.
func TestWritingThroughLinksAndPipes(t *testing.T) {
	f, _ := withHDFS(t)
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(target, []byte("old"), 0o644))
	require.NoError(t, os.Symlink(target, link))
	require.NoError(t, f.Write(t.Context(), Place{Path: link}, strings.NewReader("new"), 3))
	st, err := os.Lstat(link)
	require.NoError(t, err)
	require.NotZero(t, st.Mode()&os.ModeSymlink)
	got, err := os.ReadFile(target)
	require.NoError(t, err)
	require.Equal(t, "new", string(got))

	require.NoError(t, f.Write(t.Context(), Place{Path: os.DevNull}, strings.NewReader("gone"), 4))
	st, err = os.Lstat(os.DevNull)
	require.NoError(t, err)
	require.NotZero(t, st.Mode()&os.ModeDevice)
}

package client_test

import (
	"fmt"
	"io"
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"millrace/hdfs/client/clienttest"
)

func TestFS(t *testing.T) {
	f := files(t, clienttest.New())
	names := []string{"a", "b-x", "b/1", "b/c/2", "b.c", "ünïcode/日本", "sp ace", "empty"}
	for _, name := range names {
		write(t, f, "/root/"+name, random(len(name)*20))
	}
	write(t, f, "/root/two blocks", random(block+10))
	require.NoError(t, f.Mkdir(t.Context(), "/root/nothing"))

	for _, root := range []string{"/root", "/"} {
		fsys, err := f.FS(t.Context(), root)
		require.NoError(t, err)
		if root == "/" {
			fsys, err = fs.Sub(fsys, "root")
			require.NoError(t, err)
		}
		require.NoError(t, fstest.TestFS(fsys, append([]string{"nothing", "two blocks"}, names...)...))
	}
}

func TestFSOfALargeFolder(t *testing.T) {
	f := files(t, clienttest.New())
	const n = 1100 // more than a page
	for i := range n {
		write(t, f, fmt.Sprintf("/many/%04d", i), nil)
	}
	fsys, err := f.FS(t.Context(), "/")
	require.NoError(t, err)
	all, err := fs.ReadDir(fsys, "many")
	require.NoError(t, err)
	require.Len(t, all, n)
	require.Equal(t, "1099", all[n-1].Name())

	dir, err := fsys.Open("many")
	require.NoError(t, err)
	defer dir.Close()
	for _, want := range []int{500, 500, 100} {
		some, err := dir.(fs.ReadDirFile).ReadDir(500)
		require.NoError(t, err)
		require.Len(t, some, want)
	}
	_, err = dir.(fs.ReadDirFile).ReadDir(500)
	require.Equal(t, io.EOF, err)
}

func TestFSRefuses(t *testing.T) {
	f := files(t, clienttest.New())
	write(t, f, "/f", []byte("x"))
	_, err := f.FS(t.Context(), "/f")
	require.Error(t, err)
	_, err = f.FS(t.Context(), "/no")
	require.ErrorIs(t, err, fs.ErrNotExist)

	fsys, err := f.FS(t.Context(), "/")
	require.NoError(t, err)
	for name, want := range map[string]error{"no": fs.ErrNotExist, "f/x": fs.ErrNotExist, "/f": fs.ErrInvalid, "../f": fs.ErrInvalid, "a\x00b": fs.ErrNotExist} {
		for what, err := range map[string]error{
			"open": second(fsys.Open(name)), "stat": second(fs.Stat(fsys, name)), "read": second(fs.ReadFile(fsys, name)), "list": second(fs.ReadDir(fsys, name)),
		} {
			require.ErrorIs(t, err, want, "%s %q", what, name)
			var named *fs.PathError
			require.ErrorAs(t, err, &named)
			require.Equal(t, name, named.Path)
		}
	}
	_, err = fs.ReadDir(fsys, "f")
	require.ErrorContains(t, err, "not a folder")
}

func second[T any](_ T, err error) error { return err }

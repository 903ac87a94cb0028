package nodedir

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOneProcessAtATime(t *testing.T) {
	root := filepath.Join(t.TempDir(), "a", "node")
	d, err := Open(root, "pki", "raft")
	require.NoError(t, err)
	require.DirExists(t, d.Path("pki"))
	require.DirExists(t, d.Path("raft"))

	_, err = Open(root)
	require.ErrorIs(t, err, ErrInUse)
	require.ErrorContains(t, err, root)

	require.NoError(t, d.Close())
	again, err := Open(root)
	require.NoError(t, err)
	require.NoError(t, again.Close())
}

func TestAFolderThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := Open(filepath.Join(file, "node"))
	require.ErrorContains(t, err, file)

	d, err := Open(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, d.Close())
	require.NoError(t, os.WriteFile(d.Path("pki"), nil, 0o600))
	_, err = Open(d.Path(), "pki")
	require.ErrorContains(t, err, "pki")
}

func TestFiles(t *testing.T) {
	d, err := Open(t.TempDir(), "sub")
	require.NoError(t, err)
	defer d.Close()

	data, err := d.Read("sub", "none")
	require.NoError(t, err)
	require.Nil(t, data)
	require.NoError(t, d.Remove("sub", "none"))

	require.NoError(t, d.Write([]byte("old"), "sub", "f"))
	require.NoError(t, d.Write([]byte("new"), "sub", "f"))
	data, err = d.Read("sub", "f")
	require.NoError(t, err)
	require.Equal(t, "new", string(data))
	info, err := os.Stat(d.Path("sub", "f"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	type doc struct{ A int }
	require.NoError(t, d.WriteJSON(doc{7}, "doc.json"))
	var got doc
	found, err := d.ReadJSON(&got, "doc.json")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, doc{7}, got)
	found, err = d.ReadJSON(&got, "none.json")
	require.NoError(t, err)
	require.False(t, found)
	require.NoError(t, d.Write([]byte("{"), "doc.json"))
	_, err = d.ReadJSON(&got, "doc.json")
	require.ErrorContains(t, err, "doc.json")
}

func TestAFolderThatIsRemovedIsMadeAnew(t *testing.T) {
	root := filepath.Join(t.TempDir(), "node")
	d, err := Open(root, "pki")
	require.NoError(t, err)
	require.False(t, d.Lost())
	require.NoError(t, os.RemoveAll(root))
	require.True(t, d.Lost())
	require.NoError(t, d.Restore())
	require.False(t, d.Lost())
	require.DirExists(t, filepath.Join(root, "pki"))
	_, err = Open(root)
	require.ErrorIs(t, err, ErrInUse, "it is locked again")

	require.NoError(t, os.RemoveAll(root))
	other, err := Open(root)
	require.NoError(t, err)
	require.True(t, d.Lost(), "it is another one now")
	require.ErrorIs(t, d.Restore(), ErrInUse)
	require.NoError(t, other.Close())
	require.NoError(t, d.Restore())
	require.NoError(t, d.Close())
}

func TestAWriteThatFailsLeavesTheOldFileAndNoOther(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	require.NoError(t, os.MkdirAll(filepath.Join(path, "full"), 0o700)) // a folder in the way of the rename
	require.ErrorContains(t, WriteFile(path, []byte("x")), path)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1)
	require.ErrorContains(t, WriteFile(filepath.Join(dir, "no", "such", "f"), nil), "no/such/f")
}

package nodedir

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOneProcessAtATime(t *testing.T) {
	root := filepath.Join(t.TempDir(), "a", "node")
	d, err := Open(root, "v1", "pki", "raft")
	require.NoError(t, err)
	require.DirExists(t, d.Path("pki"))
	require.DirExists(t, d.Path("raft"))

	_, err = Open(root, "v1")
	require.ErrorIs(t, err, ErrInUse)
	require.EqualError(t, err, fmt.Sprintf("directory %s: in use by another process (pid %d)", root, os.Getpid()))

	require.NoError(t, d.Close())
	again, err := Open(root, "v1")
	require.NoError(t, err)
	require.NoError(t, again.Close())
}

func TestAFolderThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := Open(filepath.Join(file, "node"), "v1")
	require.ErrorContains(t, err, file)

	d, err := Open(t.TempDir(), "v1")
	require.NoError(t, err)
	require.NoError(t, d.Close())
	require.NoError(t, os.WriteFile(d.Path("pki"), nil, 0o600))
	_, err = Open(d.Path(), "v1", "pki")
	require.ErrorContains(t, err, "pki")
}

func TestAFolderOfANewerFormatIsLeftAsItIs(t *testing.T) {
	root := t.TempDir()
	d, err := Open(root, "v1.1")
	require.NoError(t, err)
	require.NoError(t, d.Close())
	data, err := os.ReadFile(d.Path("format.json"))
	require.NoError(t, err)
	require.JSONEq(t, `{"format":1,"version":"v1.1"}`, string(data))

	newer := []byte(`{"format":2,"version":"v2.0","more":true}`)
	require.NoError(t, os.WriteFile(d.Path("format.json"), newer, 0o600))
	_, err = Open(root, "v1.2", "pki")
	require.ErrorIs(t, err, ErrNewer)
	require.EqualError(t, err, "directory "+root+": written by a newer millrace: it has format 2, of version v2.0; this is version v1.2, which knows format 1")
	data, err = os.ReadFile(d.Path("format.json"))
	require.NoError(t, err)
	require.Equal(t, newer, data)
	require.NoDirExists(t, d.Path("pki"))

	require.NoError(t, os.WriteFile(d.Path("format.json"), []byte("{"), 0o600))
	_, err = Open(root, "v1.2")
	require.ErrorContains(t, err, "format.json")
	require.ErrorContains(t, err, "remove the file")

	// From before there were formats.
	require.NoError(t, os.Remove(d.Path("format.json")))
	d, err = Open(root, "v1.2")
	require.NoError(t, err)
	require.NoError(t, d.Close())
	require.FileExists(t, d.Path("format.json"))
}

func TestALockThatNobodySigned(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "lock"))
	require.NoError(t, err)
	defer f.Close()
	require.Equal(t, ErrInUse, InUse(f))
	require.NoError(t, SignLock(f))
	require.Equal(t, os.Getpid(), Signer(f))
	require.ErrorIs(t, InUse(f), ErrInUse)
}

func TestFiles(t *testing.T) {
	d, err := Open(t.TempDir(), "v1", "sub")
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
	d, err := Open(root, "v1", "pki")
	require.NoError(t, err)
	require.False(t, d.Lost())
	require.NoError(t, os.RemoveAll(root))
	require.True(t, d.Lost())
	require.NoError(t, d.Restore())
	require.False(t, d.Lost())
	require.DirExists(t, filepath.Join(root, "pki"))
	_, err = Open(root, "v1")
	require.ErrorIs(t, err, ErrInUse, "it is locked again")

	require.NoError(t, os.RemoveAll(root))
	other, err := Open(root, "v1")
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

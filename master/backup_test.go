package master

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"millrace/master/server"
)

// What is no backup, or not all of one, restores nothing.
func TestWhatIsNoBackup(t *testing.T) {
	backup := newSite(t, 1).backup()
	newer := bytes.Replace(backup, []byte(`"version":1`), []byte(`"version":2`), 1)
	for name, data := range map[string][]byte{
		"nothing": nil, "something else": []byte("hello\n"), "cut short": backup[:len(backup)-20], "of the future": newer,
		"header only": backup[:bytes.IndexByte(backup, '\n')+1], "without its key": bytes.Replace(backup, []byte(`"sealKey":"`), []byte(`"sealKex":"`), 1),
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "new")
			_, err := Restore(dir, "", "test", bytes.NewReader(data))
			require.ErrorIs(t, err, ErrBackup)
			require.NoFileExists(t, filepath.Join(dir, "node.json"))
		})
	}
}

// Whatever bit of a backup is another one, and wherever it is cut: it is refused, before anything is written.
func TestADamagedBackupIsRefused(t *testing.T) {
	backup := newSite(t, 1).backup()
	r, err := CheckBackup(bytes.NewReader(backup))
	require.NoError(t, err)
	require.True(t, r.Checked)
	_, err = CheckBackup(iotest.OneByteReader(bytes.NewReader(backup)))
	require.NoError(t, err)

	for i := range backup {
		damaged := bytes.Clone(backup)
		damaged[i] ^= 1 << (i % 8)
		_, err := readBackup(bytes.NewReader(damaged))
		require.ErrorIs(t, err, ErrDamaged, "byte %d", i)
	}
	header := bytes.IndexByte(backup, '\n') + 1
	for i := range backup {
		_, err := readBackup(bytes.NewReader(backup[:i]))
		require.ErrorIs(t, err, ErrBackup, "%d bytes", i)
		if i >= header {
			require.ErrorIs(t, err, ErrDamaged, "%d bytes", i)
		}
	}
	_, err = CheckBackup(bytes.NewReader(append(bytes.Clone(backup), '\n')))
	require.ErrorIs(t, err, ErrDamaged)

	dir := filepath.Join(t.TempDir(), "new")
	_, err = Restore(dir, "", "test", bytes.NewReader(backup[:len(backup)-1]))
	require.ErrorIs(t, err, ErrDamaged)
	require.NoDirExists(t, dir)

	broken := fmt.Errorf("input/output error")
	_, err = CheckBackup(io.MultiReader(bytes.NewReader(backup[:len(backup)-1]), iotest.ErrReader(broken)))
	require.ErrorIs(t, err, broken)
}

// A backup of an earlier version has no SHA-256. What is sealed in it can be held against its key all the same.
func TestABackupFromBeforeThereWasASum(t *testing.T) {
	backup := newSite(t, 1).backup()
	backup = backup[:bytes.LastIndex(backup, []byte(server.BackupEndStart))]
	backup = bytes.Replace(backup, []byte(`,"sum":"sha256"`), nil, 1)
	r, err := CheckBackup(bytes.NewReader(backup))
	require.NoError(t, err)
	require.False(t, r.Checked)
	_, err = CheckBackup(iotest.OneByteReader(bytes.NewReader(backup)))
	require.NoError(t, err)
	r, err = Restore(t.TempDir(), "", "test", bytes.NewReader(backup))
	require.NoError(t, err)
	require.False(t, r.Checked)

	settings := bytes.Index(backup, []byte(`"sealedStore":"`)) + len(`"sealedStore":"`) + 20
	require.Greater(t, settings, 100)
	backup[settings] ^= 1 // another letter of base64
	_, err = CheckBackup(bytes.NewReader(backup))
	require.ErrorIs(t, err, ErrBackup)
}

// A folder in which a restore was cut short, by a full disk say, is no empty one: no master makes a site there.
func TestARestoreThatWasCutShort(t *testing.T) {
	old := newSite(t, 1)
	backup := old.backup()
	dir := t.TempDir()
	inTheWay := filepath.Join(dir, "pki", "key.pem")
	require.NoError(t, os.MkdirAll(filepath.Join(inTheWay, "full"), 0o700))
	_, err := Restore(dir, "", "test", bytes.NewReader(backup))
	require.ErrorContains(t, err, "key.pem")
	require.NoFileExists(t, filepath.Join(dir, "node.json"))
	require.NoError(t, os.RemoveAll(inTheWay))

	for _, join := range []string{"", "https://127.0.0.1:1"} {
		for _, log := range []string{"with the log", "from before there was a log"} {
			if log != "with the log" {
				require.NoError(t, os.RemoveAll(filepath.Join(dir, "raft")))
			}
			c := testConfig(t, dir, old.store)
			if join != "" {
				c.Join, c.Token = []string{join}, "mr1.x.y.z"
			}
			m, err := New(c)
			require.NoError(t, err)
			require.ErrorIs(t, m.Open(t.Context()), ErrUnfinished, join+" "+log)
			require.NoError(t, m.Close())
			require.NoFileExists(t, filepath.Join(dir, "node.json"))
		}
	}

	r, err := Restore(dir, "", "test", bytes.NewReader(backup))
	require.NoError(t, err)
	require.NoFileExists(t, filepath.Join(dir, restoringFile))
	c := testConfig(t, dir, old.store)
	c.Store = nil
	require.Equal(t, r.Node, openMaster(t, c).ID())
}

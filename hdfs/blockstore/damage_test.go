package blockstore_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/blockstore"
)

// files are where a final block lies.
func files(dir string, b hdfs.Block) (data, sums string) {
	at := filepath.Join(dir, "blocks", fmt.Sprintf("%02x", byte(b.ID)), fmt.Sprintf("%s.%d", b.ID, b.Stamp))
	return filepath.Join(at, "data"), filepath.Join(at, "sums")
}

// flip changes one byte.
func flip(t *testing.T, path string, at int) {
	t.Helper()
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	raw[at] ^= 0x40
	require.NoError(t, os.WriteFile(path, raw, 0o600))
}

func TestDamageIsFoundAndNamed(t *testing.T) {
	const size = 4*chunk + 100
	for name, c := range map[string]struct {
		damage func(t *testing.T, data, sums string)
		chunk  int64
		says   string
	}{
		"a byte flipped":        {func(t *testing.T, data, _ string) { flip(t, data, 2*chunk+5) }, 2, "its checksum does not match"},
		"the last byte flipped": {func(t *testing.T, data, _ string) { flip(t, data, size-1) }, 4, "its checksum does not match"},
		"a sum flipped":         {func(t *testing.T, _, sums string) { flip(t, sums, 64+4*3) }, 3, "its checksum does not match"},
		"the header flipped":    {func(t *testing.T, _, sums string) { flip(t, sums, 17) }, -1, "the header's own checksum does not match"},
		"a newer format": {func(t *testing.T, _, sums string) {
			raw, err := os.ReadFile(sums)
			require.NoError(t, err)
			binary.LittleEndian.PutUint32(raw[8:], 2)
			binary.LittleEndian.PutUint32(raw[60:], blockstore.Sums(raw[:60])[0])
			require.NoError(t, os.WriteFile(sums, raw, 0o600))
		}, -1, "it has format 2, this program knows 1"},
		"truncated":          {func(t *testing.T, data, _ string) { require.NoError(t, os.Truncate(data, 3*chunk+1)) }, 3, "the file has 196609 bytes instead of 262244"},
		"emptied":            {func(t *testing.T, data, _ string) { require.NoError(t, os.Truncate(data, 0)) }, 0, "the file has 0 bytes"},
		"longer":             {func(t *testing.T, data, _ string) { require.NoError(t, os.Truncate(data, size+1)) }, 4, "the file has 262245 bytes instead of 262244"},
		"sums truncated":     {func(t *testing.T, _, sums string) { require.NoError(t, os.Truncate(sums, 64+8)) }, 2, "the file has 72 bytes instead of 84"},
		"header truncated":   {func(t *testing.T, _, sums string) { require.NoError(t, os.Truncate(sums, 63)) }, -1, "the header has 63 of 64 bytes"},
		"data gone":          {func(t *testing.T, data, _ string) { require.NoError(t, os.Remove(data)) }, -1, "no such file"},
		"sums gone":          {func(t *testing.T, _, sums string) { require.NoError(t, os.Remove(sums)) }, -1, "no such file"},
		"the whole one gone": {func(t *testing.T, data, _ string) { require.NoError(t, os.RemoveAll(filepath.Dir(data))) }, -1, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, blockstore.Config{Dirs: []string{dir}})
			b := put(t, s, 7, 3, content(1, size))
			other := put(t, s, 8, 3, content(2, size))
			c.damage(t, first(files(dir, b)), second(files(dir, b)))
			err := verify(s, b)
			require.ErrorIs(t, err, hdfs.ErrCorrupt)
			require.ErrorContains(t, err, c.says)
			var bad *blockstore.CorruptError
			require.ErrorAs(t, err, &bad)
			require.Equal(t, c.chunk, bad.Chunk)
			require.Contains(t, bad.File, filepath.Join(dir, "blocks", "07"))
			_, err = get(s, b.ID, b.Stamp)
			require.ErrorIs(t, err, hdfs.ErrCorrupt, "reading finds it too")
			require.NoError(t, verify(s, other), "the block beside is as it was")
			require.Empty(t, s.Disks()[0].Problem, "and so is the disk")
			require.NoError(t, s.Delete(b.ID, b.Stamp))
		})
	}
}

func first(a, _ string) string  { return a }
func second(_, b string) string { return b }

func TestExchangedFilesAreFound(t *testing.T) {
	const size = 2 * chunk
	for name, of := range map[string]func(string, string) string{
		"data":  first,
		"sums":  second,
		"whole": func(data, _ string) string { return filepath.Dir(data) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, blockstore.Config{Dirs: []string{dir}})
			a, b := put(t, s, 0x101, 1, content(1, size)), put(t, s, 0x201, 1, content(2, size))
			x, y := of(files(dir, a)), of(files(dir, b))
			require.NoError(t, os.Rename(x, x+".was"))
			require.NoError(t, os.Rename(y, x))
			require.NoError(t, os.Rename(x+".was", y))
			require.ErrorIs(t, verify(s, a), hdfs.ErrCorrupt)
			require.ErrorIs(t, verify(s, b), hdfs.ErrCorrupt)
		})
	}
}

func TestAnOlderVersionOfTheBlockIsNotTakenForTheNewer(t *testing.T) {
	dir := t.TempDir()
	s := open(t, blockstore.Config{Dirs: []string{dir}})
	old := put(t, s, 1, 1, content(1, chunk))
	kept := filepath.Join(t.TempDir(), "kept")
	require.NoError(t, os.CopyFS(kept, os.DirFS(filepath.Dir(first(files(dir, old))))))
	now := put(t, s, 1, 2, content(2, chunk))
	require.NoError(t, os.RemoveAll(filepath.Dir(first(files(dir, now)))))
	require.NoError(t, os.Rename(kept, filepath.Dir(first(files(dir, now)))))
	err := verify(s, now)
	require.ErrorIs(t, err, hdfs.ErrCorrupt)
	require.ErrorContains(t, err, "it has the sums of b-0000000000000001 (stamp 1, 65536 bytes): it was exchanged with another")
}

func TestRecoverBelievesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, blockstore.Config{Dirs: []string{dir}})
	w, err := s.Create(hdfs.Block{ID: 9, Stamp: 1})
	require.NoError(t, err)
	require.NoError(t, write(w, content(1, 3*chunk)))
	require.NoError(t, w.Close())
	flip(t, filepath.Join(dir, "writing", "b-0000000000000009.1", "data"), chunk+1)

	_, err = s.Recover(9, 1, 2, 3*chunk)
	require.ErrorIs(t, err, hdfs.ErrCorrupt)
	require.ErrorContains(t, err, "chunk 1 (from byte 65536)")
	_, err = s.Recover(9, 1, 2, 4*chunk)
	require.ErrorIs(t, err, hdfs.ErrCorrupt)
	require.ErrorContains(t, err, "the file has 196608 bytes, 262144 were asked for")
	_, unfinished := listed(s)
	require.Equal(t, []hdfs.Block{{ID: 9, Stamp: 1, Size: 3 * chunk}}, unfinished, "it is as it was")

	w, err = s.Recover(9, 1, 2, chunk)
	require.NoError(t, err, "what is before the damage is good")
	require.NoError(t, write(w, content(2, chunk)))
	b, err := w.Finalize()
	require.NoError(t, err)
	require.NoError(t, verify(s, b))

	for name, c := range map[string]struct {
		from, to hdfs.Stamp
		length   int64
		want     error
	}{
		"in the middle of a chunk": {2, 3, chunk + 1, hdfs.ErrInvalid},
		"less than nothing":        {2, 3, -1, hdfs.ErrInvalid},
		"backwards":                {3, 2, 0, hdfs.ErrInvalid},
		"final already":            {1, 2, chunk, hdfs.ErrExist},
		"older than asked for":     {3, 4, chunk, hdfs.ErrStale},
	} {
		_, err := s.Recover(9, c.from, c.to, c.length)
		require.ErrorIs(t, err, c.want, name)
	}
	require.NoError(t, verify(s, b), "none of them has touched it")
}

func TestWhatIsSentIsChecked(t *testing.T) {
	s := open(t, blockstore.Config{Dirs: []string{t.TempDir()}})
	w, err := s.Create(hdfs.Block{ID: 1, Stamp: 1})
	require.NoError(t, err)
	data := content(1, 2*chunk)
	sums := blockstore.Sums(data)
	require.NoError(t, w.Write(data, sums))
	sums[1]++
	err = w.Write(data, sums)
	require.ErrorIs(t, err, hdfs.ErrCorrupt)
	require.ErrorContains(t, err, "write block b-0000000000000001: what was sent is corrupt: chunk 3 (from byte 196608)")
	sums[1]--
	require.ErrorIs(t, w.Write(data, sums[:1]), hdfs.ErrCorrupt, "a sum is missing")
	require.ErrorIs(t, w.Write(data[:chunk], sums), hdfs.ErrCorrupt, "data is missing")
	require.Equal(t, int64(2*chunk), w.Size(), "nothing of it was written")
	require.NoError(t, write(w, data[:10]), "and it goes on")
	require.ErrorIs(t, write(w, data[10:20]), hdfs.ErrInvalid, "but not after a short chunk")
	b, err := w.Finalize()
	require.NoError(t, err)
	require.Equal(t, int64(2*chunk+10), b.Size)
	require.NoError(t, verify(s, b))
	require.Error(t, write(w, data))
	_, err = w.Finalize()
	require.Error(t, err)
	require.NoError(t, w.Discard(), "a final one stays")
	require.NoError(t, w.Close())
	require.NoError(t, verify(s, b))
}

package blockstore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/blockstore"
)

const chunk = hdfs.ChunkSize

// content is bytes that look like no others.
func content(seed uint64, size int) []byte {
	out := make([]byte, size)
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	_, _ = src.Read(out)
	return out
}

func open(t *testing.T, c blockstore.Config) *blockstore.Store {
	t.Helper()
	if c.Cluster == "" {
		c.Cluster = "j-TEST"
	}
	s, err := blockstore.Open(c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func write(w *blockstore.Writer, data []byte) error { return w.Write(data, blockstore.Sums(data)) }

// put makes a final block.
func put(t *testing.T, s *blockstore.Store, id hdfs.BlockID, stamp hdfs.Stamp, data []byte) hdfs.Block {
	t.Helper()
	w, err := s.Create(hdfs.Block{ID: id, Stamp: stamp})
	require.NoError(t, err)
	require.NoError(t, write(w, data))
	b, err := w.Finalize()
	require.NoError(t, err)
	require.Equal(t, hdfs.Block{ID: id, Stamp: stamp, Size: int64(len(data))}, b)
	return b
}

// get reads a final block and checks every sum.
func get(s *blockstore.Store, id hdfs.BlockID, stamp hdfs.Stamp) ([]byte, error) {
	r, err := s.Open(id, stamp)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	out := []byte{}
	for first := 0; ; first += 3 {
		data, sums, err := r.ReadChunks(first, 3, nil)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if blockstore.FirstBad(data, sums) >= 0 {
			return nil, hdfs.ErrCorrupt
		}
		out = append(out, data...)
	}
}

// listed is what Blocks gives.
func listed(s *blockstore.Store) (final, unfinished []hdfs.Block) {
	for b, un := range s.Blocks() {
		if un {
			unfinished = append(unfinished, b)
		} else {
			final = append(final, b)
		}
	}
	return final, unfinished
}

func verify(s *blockstore.Store, b hdfs.Block) error {
	return s.Verify(context.Background(), b.ID, b.Stamp, nil)
}

func TestABlockIsWhatWasWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "hdfs")
	s := open(t, blockstore.Config{Dirs: []string{dir}})
	var all []hdfs.Block
	for i, size := range []int{0, 1, chunk - 1, chunk, chunk + 1, 20*chunk + 7} {
		b := put(t, s, hdfs.BlockID(i), 1, content(uint64(i), size))
		all = append(all, b)
		got, err := get(s, b.ID, 1)
		require.NoError(t, err)
		require.True(t, bytes.Equal(content(uint64(i), size), got))
		require.NoError(t, verify(s, b))
	}
	require.NoError(t, s.Close())

	s = open(t, blockstore.Config{Dirs: []string{dir}})
	final, unfinished := listed(s)
	require.Equal(t, all, final)
	require.Empty(t, unfinished)
	for i, b := range all {
		got, err := get(s, b.ID, 1)
		require.NoError(t, err)
		require.True(t, bytes.Equal(content(uint64(i), int(b.Size)), got))
	}
	d := s.Disks()[0]
	require.Equal(t, 6, d.Blocks)
	require.Equal(t, int64(1+chunk-1+chunk+chunk+1+20*chunk+7), d.Used)
	require.Positive(t, d.Free)
	require.Greater(t, d.Capacity, d.Free)
	require.Empty(t, d.Problem)
}

func TestAskingForWhatIsNotThere(t *testing.T) {
	s := open(t, blockstore.Config{Dirs: []string{t.TempDir()}})
	put(t, s, 1, 5, content(1, 10))
	for want, err := range map[error]error{
		hdfs.ErrNoBlock: s.Delete(2, 5),
		hdfs.ErrStale:   s.Delete(1, 4),
	} {
		require.ErrorIs(t, err, want)
	}
	_, err := s.Open(2, 5)
	require.ErrorIs(t, err, hdfs.ErrNoBlock)
	_, err = s.Open(1, 6)
	require.ErrorIs(t, err, hdfs.ErrStale)
	require.ErrorIs(t, verify(s, hdfs.Block{ID: 2}), hdfs.ErrNoBlock)
	_, err = s.Create(hdfs.Block{ID: 1, Stamp: 5})
	require.ErrorIs(t, err, hdfs.ErrExist)
	_, err = s.Create(hdfs.Block{ID: 1, Stamp: 4})
	require.ErrorIs(t, err, hdfs.ErrExist)
	_, err = s.Recover(2, 1, 2, 0)
	require.ErrorIs(t, err, hdfs.ErrNoBlock)
}

func TestRecoverCutsAndGoesOn(t *testing.T) {
	s := open(t, blockstore.Config{Dirs: []string{t.TempDir()}})
	data := content(3, 5*chunk+9)
	w, err := s.Create(hdfs.Block{ID: 3, Stamp: 1})
	require.NoError(t, err)
	require.NoError(t, write(w, data[:3*chunk]))

	again, err := s.Recover(3, 1, 2, 2*chunk)
	require.NoError(t, err)
	require.Equal(t, int64(2*chunk), again.Size())
	require.ErrorIs(t, write(w, data[3*chunk:4*chunk]), hdfs.ErrStale, "the first writer is shut out")
	require.NoError(t, w.Discard(), "and can do no harm")
	require.NoError(t, write(again, data[2*chunk:]))
	_, err = again.Finalize()
	require.NoError(t, err)
	got, err := get(s, 3, 2)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))

	// The last acknowledgement was lost: the final one goes on.
	w, err = s.Recover(3, 2, 3, 4*chunk)
	require.NoError(t, err)
	_, err = s.Open(3, 2)
	require.ErrorIs(t, err, hdfs.ErrNoBlock)
	require.NoError(t, write(w, data[4*chunk:]))
	b, err := w.Finalize()
	require.NoError(t, err)
	require.Equal(t, hdfs.Block{ID: 3, Stamp: 3, Size: int64(len(data))}, b)
	require.NoError(t, verify(s, b))
}

func TestDeletingLeavesReadersAlone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, blockstore.Config{Dirs: []string{dir}})
	data := content(1, 3*chunk)
	put(t, s, 1, 1, data)
	r, err := s.Open(1, 1)
	require.NoError(t, err)
	defer r.Close()
	path, _ := r.Files()
	require.NoError(t, s.Delete(1, 1))
	_, err = os.Stat(filepath.Dir(path))
	require.ErrorIs(t, err, os.ErrNotExist)
	got, sums, err := r.ReadChunks(0, 3, nil)
	require.NoError(t, err)
	require.Equal(t, -1, blockstore.FirstBad(got, sums))
	require.True(t, bytes.Equal(data, got))
}

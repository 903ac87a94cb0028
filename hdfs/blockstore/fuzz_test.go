package blockstore_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/blockstore"
)

// FuzzSumsHeader: what is taken for a header is one, byte for byte.
func FuzzSumsHeader(f *testing.F) {
	f.Add(blockstore.EncodeHeader(hdfs.Block{ID: 1, Stamp: 2, Size: 3}))
	f.Add(blockstore.EncodeHeader(hdfs.Block{ID: 1 << 63, Stamp: 1<<64 - 1, Size: hdfs.MaxBlockSize}))
	f.Add([]byte("millsums"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := blockstore.DecodeHeader(raw)
		if err != nil {
			return
		}
		require.Equal(t, raw[:64], blockstore.EncodeHeader(b))
	})
}

// FuzzSumsFile puts any bytes in the place of a block's sums: the block is read as it was written, or corrupt.
func FuzzSumsFile(f *testing.F) {
	data := content(1, chunk+10)
	d := onDisks(1 << 30)
	s, err := blockstore.Open(d.config)
	if err != nil {
		f.Fatal(err)
	}
	w, err := s.Create(hdfs.Block{ID: 1, Stamp: 1})
	if err != nil || write(w, data) != nil {
		f.Fatal(err)
	}
	if _, err := w.Finalize(); err != nil {
		f.Fatal(err)
	}
	_, path := (func() (string, string) {
		r, err := s.Open(1, 1)
		if err != nil {
			f.Fatal(err)
		}
		defer r.Close()
		return r.Files()
	})()
	sums, err := d.fs.OpenFile(path, os.O_RDWR)
	if err != nil {
		f.Fatal(err)
	}
	size, _ := sums.Size()
	good := make([]byte, size)
	if _, err := sums.ReadAt(good, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:64])
	f.Add(append(bytes.Clone(good), 0))
	f.Fuzz(func(t *testing.T, raw []byte) {
		require.NoError(t, sums.Truncate(0))
		_, err := sums.WriteAt(raw, 0)
		require.NoError(t, err)
		err = verify(s, hdfs.Block{ID: 1, Stamp: 1})
		if bytes.Equal(raw, good) {
			require.NoError(t, err)
			return
		}
		require.ErrorIs(t, err, hdfs.ErrCorrupt)
		_, err = get(s, 1, 1)
		require.ErrorIs(t, err, hdfs.ErrCorrupt)
	})
}

// FuzzDiskFile: a disk.json that is taken is this cluster's and this format's, and is taken again as it is written.
func FuzzDiskFile(f *testing.F) {
	f.Add([]byte(`{"format":1,"cluster":"j-TEST","disk":"X"}`))
	f.Add([]byte(`{"format":2,"cluster":"j-TEST","disk":"X"}`))
	f.Add([]byte(`{"format":-1}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		written, err := blockstore.DecodeIdentity(raw, "j-TEST")
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		require.Contains(t, string(written), `"cluster": "j-TEST"`)
		require.Contains(t, string(written), `"format": 1,`)
		again, err := blockstore.DecodeIdentity(written, "j-TEST")
		require.NoError(t, err)
		require.Equal(t, written, again)
	})
}

// FuzzReplicaName: a folder's name that is taken for a replica's is the one that the replica would get.
func FuzzReplicaName(f *testing.F) {
	f.Add("b-00000000000000ff.7")
	f.Add("b-00000000000000FF.7")
	f.Add("b-ff.07")
	f.Add("b-.")
	f.Fuzz(func(t *testing.T, name string) {
		if id, stamp, ok := blockstore.ParseReplicaName(name); ok {
			require.Equal(t, name, blockstore.ReplicaName(id, stamp))
		}
	})
}

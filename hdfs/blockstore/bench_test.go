package blockstore_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"millrace/hdfs"
	"millrace/hdfs/blockstore"
	"millrace/hdfs/blockstore/faultyfs"
)

const (
	benchBlock  = hdfs.DefaultBlockSize
	benchPacket = 256 << 10
)

// BenchmarkWrite writes blocks of 128 MiB in packets of 256 KiB until they are durable, beside a plain file with the
// same writes and a sync. The disk's mood is most of it: compare what was measured in one run.
func BenchmarkWrite(b *testing.B) {
	data := content(1, benchPacket)
	sums := blockstore.Sums(data)
	b.Run("file", func(b *testing.B) {
		dir := b.TempDir()
		b.SetBytes(benchBlock)
		for b.Loop() {
			f, err := os.Create(filepath.Join(dir, "f"))
			for n := 0; err == nil && n < benchBlock; n += benchPacket {
				_, err = f.Write(data)
			}
			if err == nil {
				err = f.Sync()
			}
			if err != nil || f.Close() != nil || os.Remove(f.Name()) != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("block", func(b *testing.B) {
		s := benchStore(b)
		b.SetBytes(benchBlock)
		for id := hdfs.BlockID(1); b.Loop(); id++ {
			if err := benchPut(s, id, data, sums, benchBlock); err != nil || s.Delete(id, 1) != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkSmall makes durable blocks of 64 KiB: what a block costs beside its bytes.
func BenchmarkSmall(b *testing.B) {
	data := content(1, chunk)
	sums := blockstore.Sums(data)
	b.Run("file", func(b *testing.B) {
		dir := b.TempDir()
		for i := 0; b.Loop(); i++ {
			f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
			if err == nil {
				_, err = f.Write(data)
			}
			if err == nil {
				err = f.Sync()
			}
			if err != nil || f.Close() != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("block", func(b *testing.B) {
		s := benchStore(b)
		for id := hdfs.BlockID(1); b.Loop(); id++ {
			if err := benchPut(s, id, data, sums, chunk); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchStore(b *testing.B) *blockstore.Store {
	s, err := blockstore.Open(blockstore.Config{Dirs: []string{b.TempDir()}, Cluster: "j-BENCH"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

func benchPut(s *blockstore.Store, id hdfs.BlockID, data []byte, sums []uint32, size int) error {
	w, err := s.Create(hdfs.Block{ID: id, Stamp: 1})
	for n := 0; err == nil && n < size; n += len(data) {
		err = w.Write(data, sums)
	}
	if err == nil {
		_, err = w.Finalize()
	}
	return err
}

// BenchmarkRead reads a block of 128 MiB that memory holds, a packet at a time: plainly, as the store gives it, and
// with its sums checked; and verifies it from the disk.
func BenchmarkRead(b *testing.B) {
	s := benchStore(b)
	data := content(1, benchPacket)
	if err := benchPut(s, 1, data, blockstore.Sums(data), benchBlock); err != nil {
		b.Fatal(err)
	}
	r, err := s.Open(1, 1)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	buf := make([]byte, benchPacket)
	b.Run("file", func(b *testing.B) {
		path, _ := r.Files()
		b.SetBytes(benchBlock)
		for b.Loop() {
			f, err := os.Open(path)
			for err == nil {
				_, err = f.Read(buf)
			}
			if err != io.EOF || f.Close() != nil {
				b.Fatal(err)
			}
		}
	})
	for name, check := range map[string]bool{"block": false, "block and check": true} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(benchBlock)
			for b.Loop() {
				for first := 0; first < benchBlock/chunk; first += benchPacket / chunk {
					got, sums, err := r.ReadChunks(first, benchPacket/chunk, buf)
					if err != nil || check && blockstore.FirstBad(got, sums) >= 0 {
						b.Fatal(err)
					}
				}
			}
		})
	}
	b.Run("verify", func(b *testing.B) {
		b.SetBytes(benchBlock)
		for b.Loop() {
			if err := s.Verify(context.Background(), 1, 1, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkOpen starts a store with 100,000 blocks, and says what one of them costs in memory.
func BenchmarkOpen(b *testing.B) {
	const blocks = 100_000
	dir := b.TempDir()
	open := func() *blockstore.Store {
		s, err := blockstore.Open(blockstore.Config{Dirs: []string{dir}, Cluster: "j-BENCH"})
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	_ = open().Close()
	header := blockstore.EncodeHeader(hdfs.Block{})
	for id := range hdfs.BlockID(blocks) {
		at := filepath.Join(dir, "blocks", fmt.Sprintf("%02x", byte(id)), blockstore.ReplicaName(id, 1))
		if os.Mkdir(at, 0o700) != nil || os.WriteFile(filepath.Join(at, "data"), nil, 0o600) != nil || os.WriteFile(filepath.Join(at, "sums"), header, 0o600) != nil {
			b.Fatal(at)
		}
	}
	for b.Loop() {
		_ = open().Close()
	}
	b.ReportMetric(perBlock(open, blocks), "memory-B/block")
}

func perBlock(open func() *blockstore.Store, blocks int) float64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := open()
	runtime.GC()
	runtime.ReadMemStats(&after)
	_ = s.Close()
	return float64(after.HeapAlloc-before.HeapAlloc) / float64(blocks)
}

// BenchmarkScrub is what it takes to find the next blocks to verify among 100,000.
func BenchmarkScrub(b *testing.B) {
	now := time.Unix(1_800_000_000, 0)
	d := faultyfs.New(1, func() time.Time { return now })
	s, err := blockstore.Open(blockstore.Config{Dirs: []string{"/d"}, Cluster: "j-BENCH", FS: d})
	if err != nil {
		b.Fatal(err)
	}
	for id := range hdfs.BlockID(100_000) {
		if err := benchPut(s, id, nil, nil, 0); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		for range s.Scrub(time.Now().Add(time.Hour)) {
			break
		}
	}
}

package namespace

import (
	"fmt"
	"runtime"
	"testing"
)

// heap is how many bytes are in use.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// fileName is the path of the ith file: a thousand to a folder, with names as long as those of jobs' parts.
func fileName(i int) string {
	return fmt.Sprintf("/data/events/2026/set-%06d/part-r-%05d.zst", i/1000, i%1000)
}

// populated has so many files, of so many full blocks each, made as the log makes them.
func populated(b failer, files, blocks int) *bench {
	n := newBench(b)
	for i := range files {
		id := n.begin(fileName(i), "w")
		n.do(CompleteFile{File: id, Lease: "w", Last: n.fill(id, "w", int64(blocks)*chunk), At: t0})
	}
	return n
}

// taken is how many bytes each of so many things takes that make makes.
func taken(things int, make func() *bench) float64 {
	before := heap()
	made := make()
	after := heap()
	runtime.KeepAlive(made)
	return float64(after-before) / float64(things)
}

// footprint is what a file takes that has no blocks, and what a block takes in files of a thousand.
func footprint(f failer, things int) (file, block float64) {
	file = taken(things, func() *bench { return populated(f, things, 0) })
	block = taken(things, func() *bench { return populated(f, things/1000, 1000) })
	return file, block
}

// A million files and a million blocks.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		file, block := footprint(b, 1_000_000)
		b.ReportMetric(file, "B/file")
		b.ReportMetric(block, "B/block")
	}
}

// What docs promise of a master's memory; a file of one block takes both.
func TestMemory(t *testing.T) {
	file, block := footprint(t, 20_000)
	t.Logf("%.0f bytes a file, %.0f bytes a block", file, block)
	if file > 400 || block > 400 {
		t.Errorf("%.0f bytes a file, %.0f bytes a block", file, block)
	}
}

// What a command costs in a name space of a hundred thousand files: the life of a file of one block is three.
func BenchmarkApply(b *testing.B) {
	n := populated(b, 100_000, 1)
	for _, c := range []struct {
		name string
		do   func(i int)
	}{
		{"file", func(i int) { n.write(fmt.Sprintf("/new/%d", i), 1) }},
		{"mkdir", func(i int) { n.do(Mkdir{Path: fmt.Sprintf("/folder/%d", i), At: t0}) }},
		{"rename a folder there and back", func(int) {
			n.do(Rename{From: "/data/events/2026/set-000000", To: "/moved", At: t0})
			n.do(Rename{From: "/moved", To: "/data/events/2026/set-000000", At: t0})
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			start := n.Tree
			for b.Loop() {
				c.do(i)
				i++
			}
			n.Tree = start
		})
	}
}

// A file of 100,000 blocks: what one of them costs, of all.
func BenchmarkAddBlock(b *testing.B) {
	const blocks = 100_000
	for b.Loop() {
		n := newBench(b)
		id := n.begin("/large", "w")
		n.do(CompleteFile{File: id, Lease: "w", Last: n.fill(id, "w", blocks*chunk), At: t0})
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/blocks, "µs/block")
	b.ReportMetric(0, "ns/op")
}

// A job of 100,000 parts: publishing them, replacing them by others, listing them, deleting them.
func BenchmarkManyParts(b *testing.B) {
	const parts = 100_000
	n := newBench(b)
	for g := range 2 {
		for i := range parts {
			n.upload(fmt.Sprint("g", g), fmt.Sprintf("/out/part-r-%06d", i), 1)
		}
	}
	n.do(Publish{Group: "g0", Prefix: "/out", Count: parts, At: t0})
	start := n.Tree
	b.Run("publish", func(b *testing.B) {
		for b.Loop() {
			n.Tree = start
			n.do(Publish{Group: "g1", Prefix: "/out", Count: parts, Replace: true, At: t0})
		}
	})
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			for after, more := "", true; more; {
				page, err := n.List("/out", after, 1000)
				if err != nil {
					b.Fatal(err)
				}
				if more = len(page) == 1000; more {
					after = page[999].Path[len("/out/"):]
				}
			}
		}
	})
	b.Run("remove", func(b *testing.B) {
		for b.Loop() {
			n.Tree = start
			n.do(Remove{Path: "/out", Recursive: true})
		}
	})
}

// A snapshot of a million files of one block.
func BenchmarkSnapshot(b *testing.B) {
	n := populated(b, 1_000_000, 1)
	var all [][]byte
	size := 0
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			all, size = nil, 0
			for piece := range n.Pieces() {
				all = append(all, append([]byte(nil), piece...))
				size += len(piece)
			}
		}
		b.ReportMetric(float64(size)/1e6, "MB")
	})
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			var l Loader
			for _, piece := range all {
				if err := l.Add(piece); err != nil {
					b.Fatal(err)
				}
			}
			if _, err := l.Tree(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

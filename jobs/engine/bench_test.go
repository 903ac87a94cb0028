package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"millrace/pkg/record"
)

// zipfWords is a stream of words as natural text has them: few are most of it.
func zipfWords(n, distinct int) [][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	z := rand.NewZipf(rng, 1.1, 2, uint64(distinct-1))
	vocabulary := make([][]byte, distinct)
	for i := range vocabulary {
		w := make([]byte, 2+rng.IntN(4)+rng.IntN(6))
		for j := range w {
			w[j] = byte('a' + rng.IntN(26))
		}
		vocabulary[i] = w
	}
	words := make([][]byte, n)
	for i := range words {
		words[i] = vocabulary[z.Uint64()]
	}
	return words
}

func addFold(acc, value []byte) []byte {
	binary.LittleEndian.PutUint64(acc, binary.LittleEndian.Uint64(acc)+binary.LittleEndian.Uint64(value))
	return acc
}

func BenchmarkCollectFold(b *testing.B) {
	one := binary.LittleEndian.AppendUint64(nil, 1)
	for _, distinct := range []int{1000, 200_000, 5_000_000} {
		b.Run(fmt.Sprintf("distinct=%d", distinct), func(b *testing.B) {
			words := zipfWords(1<<20, distinct)
			c, _ := NewCollector(Config{Partitions: 8, Fold: addFold, Dir: b.TempDir()})
			defer c.Close()
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				w := words[i&(1<<20-1)]
				i++
				if err := c.CollectHashed(w, one); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCollectSort collects, sorts, spills and merges records of 100 bytes (a key of 10), 200 MB at a time.
func BenchmarkCollectSort(b *testing.B) {
	rng := rand.NewChaCha8([32]byte{1})
	data := make([]byte, 100<<16)
	rng.Read(data)
	for i := range data {
		if i%100 >= 10 { // values of printable text, which compresses to half
			data[i] = "0123456789abcdef"[data[i]&15]
		}
	}
	for _, mode := range []struct {
		name   string
		memory int64
		total  int
	}{{"memory", 512 << 20, 2_000_000}, {"spills", 64 << 20, 2_000_000}} {
		b.Run(mode.name, func(b *testing.B) {
			c, _ := NewCollector(Config{Partitions: 8, Memory: mode.memory, Dir: b.TempDir()})
			defer c.Close()
			b.ReportAllocs()
			b.SetBytes(int64(mode.total * 100))
			key := make([]byte, 10)
			for b.Loop() {
				x := uint64(1)
				for range mode.total {
					x = x*6364136223846793005 + 1442695040888963407
					binary.BigEndian.PutUint64(key, x^x>>31)
					r := data[x>>48*100:][:100]
					if err := c.Collect(int(x>>61), key, r[10:]); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := c.Finish(context.Background(), io.Discard); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*mode.total), "ns/record")
		})
	}
}

// BenchmarkCollectWords is a word count without a combiner.
func BenchmarkCollectWords(b *testing.B) {
	words := zipfWords(1<<20, 200_000)
	c, _ := NewCollector(Config{Partitions: 8, Dir: b.TempDir()})
	defer c.Close()
	b.ReportAllocs()
	one := []byte{'1'}
	for b.Loop() {
		for _, w := range words {
			if err := c.Collect(HashPartition(w, 8), w, one); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := c.Finish(context.Background(), io.Discard); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(words)), "ns/record")
}

// sliceRun is a run in memory.
type sliceRun struct {
	keys, values [][]byte
	i            int
}

func (r *sliceRun) Next() (key, value []byte, err error) {
	if r.i == len(r.keys) {
		return nil, nil, io.EOF
	}
	r.i++
	return r.keys[r.i-1], r.values[r.i-1], nil
}

func (r *sliceRun) Close() error { return nil }

func BenchmarkMerge(b *testing.B) {
	for _, runs := range []int{2, 16, 64} {
		b.Run(fmt.Sprintf("runs=%d", runs), func(b *testing.B) {
			const total = 1 << 18
			rng := rand.New(rand.NewPCG(1, 2))
			all := make([]sliceRun, runs)
			var key uint64
			for range total {
				key += 1 + rng.Uint64N(1<<40)
				k := binary.BigEndian.AppendUint64(nil, key)
				r := &all[rng.IntN(runs)]
				r.keys, r.values = append(r.keys, append(k, "tail"...)), append(r.values, k)
			}
			openers := make([]Opener, runs)
			for i := range all {
				openers[i] = func() (Run, error) { all[i].i = 0; return &all[i], nil }
			}
			b.ReportAllocs()
			for b.Loop() {
				m, err := Merge(context.Background(), openers, MergeConfig{})
				if err != nil {
					b.Fatal(err)
				}
				for err == nil {
					_, _, err = m.Next()
				}
				m.Close()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*total), "ns/record")
		})
	}
}

func BenchmarkGroups(b *testing.B) {
	words := zipfWords(1<<16, 100)
	r := &sliceRun{}
	for i := range 100 {
		for range len(words) / 100 {
			r.keys = append(r.keys, fmt.Appendf(nil, "key-%04d", i))
			r.values = append(r.values, words[i])
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		r.i = 0
		g := NewGroups(r, nil)
		for {
			_, values, err := g.Next()
			if err != nil {
				break
			}
			for _, ok := values.Next(); ok; _, ok = values.Next() {
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(r.keys)), "ns/record")
}

var _ Run = (*record.Reader)(nil)

// BenchmarkMergeSegments is what a reduce does: it decodes, merges and groups 16 map outputs.
func BenchmarkMergeSegments(b *testing.B) {
	words := zipfWords(1<<20, 200_000)
	var openers []Opener
	const maps = 16
	for m := range maps {
		c, _ := NewCollector(Config{Partitions: 1})
		for i := m; i < len(words); i += maps {
			if err := c.Collect(0, words[i], []byte("1")); err != nil {
				b.Fatal(err)
			}
		}
		var segment bytes.Buffer
		x, err := c.Finish(context.Background(), &segment)
		if err != nil {
			b.Fatal(err)
		}
		openers = append(openers, func() (Run, error) {
			return record.NewPartitionReader(bytes.NewReader(segment.Bytes()), 0, x.Partitions[0]), nil
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		m, err := Merge(context.Background(), openers, MergeConfig{})
		if err != nil {
			b.Fatal(err)
		}
		g := NewGroups(m, nil)
		for err == nil {
			var values *Values
			if _, values, err = g.Next(); err == nil {
				for _, ok := values.Next(); ok; _, ok = values.Next() {
				}
			}
		}
		if err != io.EOF {
			b.Fatal(err)
		}
		m.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(words)), "ns/record")
}

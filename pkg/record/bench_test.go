package record

import (
	"bytes"
	"io"
	"testing"
)

func BenchmarkWriter(b *testing.B) {
	records := words(1<<14, 1)
	for _, c := range codecs {
		b.Run(c.String(), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(records[0].key) + len(records[0].value)))
			w := NewWriter(io.Discard, 1, c)
			for i := 0; b.Loop(); i++ {
				r := &records[i&(1<<14-1)]
				if err := w.Append(0, r.key, r.value); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReader(b *testing.B) {
	for _, c := range codecs {
		b.Run(c.String(), func(b *testing.B) {
			data, x := segment(b, 1, c, words(1<<16, 1))
			src := bytes.NewReader(data)
			r := NewPartitionReader(src, 0, x.Partitions[0])
			b.ReportAllocs()
			b.SetBytes(x.Partitions[0].Bytes / x.Partitions[0].Records)
			for b.Loop() {
				_, _, err := r.Next()
				if err == io.EOF {
					r.Reset(src, 0, x.Partitions[0])
				} else if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSum(b *testing.B) {
	key, value := []byte("word"), []byte("1")
	for b.Loop() {
		Sum(3, key, value)
	}
}

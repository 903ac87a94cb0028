package state

import (
	"fmt"
	"testing"
)

// BenchmarkEndTasks: one entry of 64 completions, of a job of 100,000 maps.
func BenchmarkEndTasks(b *testing.B) {
	const maps, batch = 100_000, 64
	var s *bench
	next := maps
	b.ReportAllocs()
	for b.Loop() {
		if next+batch > maps {
			s, next = newBench(b), 0
			s.plan("s-A", maps, 1)
		}
		items := make([]EndTask, batch)
		for i := range items {
			items[i] = mapWin("s-A", next, fmt.Sprint("a", next), 1)
			next++
		}
		s.do(EndTasks{Items: items})
	}
}

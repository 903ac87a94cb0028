package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestPrefixOrdersAsKeysDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 255}), 0, 10).Draw(t, "key")
		var padded [8]byte
		copy(padded[:], key)
		require.Equal(t, binary.BigEndian.Uint64(padded[:]), prefix(key))
	})
}

// TestSortIsStableAndBytewise sorts kinds of keys that each take another way through the sort.
func TestSortIsStableAndBytewise(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	random := func(n, alphabet int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.IntN(alphabet))
		}
		return b
	}
	kinds := map[string]func() []byte{
		"random":             func() []byte { return random(10, 256) },
		"few":                func() []byte { return random(1, 3) },
		"one":                func() []byte { return []byte("a key that is longer than its prefix") },
		"zeros":              func() []byte { return random(rng.IntN(30), 1) },
		"zeros and ones":     func() []byte { return random(rng.IntN(14), 2) },
		"common prefix":      func() []byte { return append([]byte("http://example.org/"), random(4, 256)...) },
		"prefix of another":  func() []byte { return []byte("http://example.org/a/very/long/path")[:rng.IntN(35)] },
		"deep common prefix": func() []byte { return append(bytes.Repeat([]byte("x"), 100), random(rng.IntN(4), 10)...) },
	}
	for name, key := range kinds {
		for _, n := range []int{0, 1, 2, fewEntries, fewEntries + 1, 200, 5000} {
			for _, partitions := range []int{1, 5} {
				var b buffer
				b.allocate(4<<20, partitions)
				var want []rec
				for i := range n {
					r := rec{rng.IntN(partitions), key(), fmt.Appendf(nil, "%d", i)}
					want = append(want, r)
					if !b.fits(headSize + len(r.key) + len(r.value)) {
						require.True(t, b.grow())
					}
					b.add(r.partition, r.key, r.value, len(r.value))
				}
				b.sort(nil)
				var got []rec
				for p := range partitions {
					run := b.partition(p)
					for {
						k, v, err := run.Next()
						if err != nil {
							break
						}
						got = append(got, rec{p, k, v})
					}
				}
				want = sorted(want, nil)
				require.True(t, slices.EqualFunc(want, got, func(a, b rec) bool {
					return a.partition == b.partition && bytes.Equal(a.key, b.key) && bytes.Equal(a.value, b.value)
				}), "%s: %d records in %d partitions", name, n, partitions)
			}
		}
	}
}

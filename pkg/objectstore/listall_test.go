package objectstore_test

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"millrace/pkg/objectstore"
)

// names is a Lister over sorted keys that counts its pages of 1000.
type names struct {
	keys  []string
	pages atomic.Int64
	fail  string // at this key
}

func (n *names) List(ctx context.Context, bucket, prefix string, o objectstore.ListOptions) iter.Seq2[objectstore.Object, error] {
	return func(yield func(objectstore.Object, error) bool) {
		i, _ := slices.BinarySearch(n.keys, max(prefix, o.StartAfter))
		n.pages.Add(1)
		for sent := 0; i < len(n.keys) && strings.HasPrefix(n.keys[i], prefix); i++ {
			if n.keys[i] == o.StartAfter {
				continue
			}
			if sent++; sent%1000 == 0 {
				n.pages.Add(1)
			}
			if n.keys[i] == n.fail {
				yield(objectstore.Object{}, objectstore.ErrDenied)
				return
			}
			if !yield(objectstore.Object{Key: n.keys[i]}, ctx.Err()) {
				return
			}
		}
	}
}

func all(t require.TestingT, n *names, prefix string) []string {
	keys, err := objectstore.ListAll(context.Background(), n, "b", prefix, func(o objectstore.Object) (string, bool) { return o.Key, true })
	require.NoError(t, err)
	return keys
}

// However names are made, each comes once and in order, and few requests are for nothing.
func TestListAll(t *testing.T) {
	shapes := map[string]func(i int) string{
		"flat":         func(i int) string { return fmt.Sprintf("in/%07d", i) },
		"folders":      func(i int) string { return fmt.Sprintf("in/%03d/%07d.txt", i/500, i) },
		"one deep":     func(i int) string { return fmt.Sprintf("in/year=2024/month=01/day=31/part-%07d-of-50000.gz", i) },
		"hex":          func(i int) string { return fmt.Sprintf("in/%08x", uint32(i)*2654435761) },
		"unicode":      func(i int) string { return fmt.Sprintf("in/日本/%c/%05d", rune(0x4e00+i%100), i) },
		"no pattern":   func(i int) string { return "in/" + strings.Repeat("x", i%50) + fmt.Sprint(i*7919) },
		"all the same": func(i int) string { return "in/" + strings.Repeat("~", i%900) + fmt.Sprint(i) },
	}
	for name, key := range shapes {
		t.Run(name, func(t *testing.T) {
			n := &names{keys: []string{"a", "in", "in0", "z"}}
			for i := range 50_000 {
				n.keys = append(n.keys, key(i))
			}
			slices.Sort(n.keys)
			n.keys = slices.Compact(n.keys)
			got := all(t, n, "in/")
			require.Len(t, got, len(n.keys)-4)
			require.True(t, slices.IsSorted(got))
			t.Logf("%d requests for %d pages", n.pages.Load(), len(got)/1000)
			require.Less(t, n.pages.Load(), int64(1000), "for 50 pages, most of them for one name")
		})
	}
	t.Run("few", func(t *testing.T) {
		n := &names{keys: []string{"in/1", "in/2"}}
		require.Equal(t, n.keys, all(t, n, "in/"))
		require.EqualValues(t, 1, n.pages.Load())
		require.Empty(t, all(t, n, "none/"))
	})
	t.Run("trouble", func(t *testing.T) {
		n := &names{fail: "in/0040000"}
		for i := range 50_000 {
			n.keys = append(n.keys, fmt.Sprintf("in/%07d", i))
		}
		_, err := objectstore.ListAll(t.Context(), n, "b", "in/", func(o objectstore.Object) (string, bool) { return o.Key, true })
		require.ErrorIs(t, err, objectstore.ErrDenied)
	})
}

func TestListAllIsList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		alphabet := rapid.SampledFrom([]string{"01", "0123456789", "abcdef", "aZ~/", "日本a", "\x01\x7f é"}).Draw(t, "alphabet")
		width := rapid.IntRange(11, 14).Draw(t, "width")
		step := rapid.IntRange(1, 1000).Draw(t, "step")
		runes := []rune(alphabet)
		n := &names{}
		for i := range 5000 {
			var key []rune
			for x := i * step; len(key) < width; x /= len(runes) {
				key = append(key, runes[x%len(runes)])
			}
			slices.Reverse(key)
			n.keys = append(n.keys, string(key))
		}
		slices.Sort(n.keys)
		n.keys = slices.Compact(n.keys)
		require.Equal(t, n.keys, all(t, n, ""))
	})
}

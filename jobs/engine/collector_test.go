package engine

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"millrace/pkg/record"
)

type rec struct {
	partition  int
	key, value []byte
}

func (r rec) String() string { return fmt.Sprintf("%d %q=%q", r.partition, r.key, r.value) }

// decode reads a segment, verifying all of it.
func decode(t require.TestingT, segment []byte, x record.Index) (records []rec) {
	y, err := record.ReadIndex(bytes.NewReader(segment), int64(len(segment)))
	require.NoError(t, err)
	require.Equal(t, x, y)
	for p, px := range x.Partitions {
		r := record.NewPartitionReader(bytes.NewReader(segment), p, px)
		for {
			k, v, err := r.Next()
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			records = append(records, rec{p, bytes.Clone(k), bytes.Clone(v)})
		}
	}
	return records
}

func collect(t require.TestingT, c *Collector, records []rec) []rec {
	for _, r := range records {
		require.NoError(t, c.Collect(r.partition, r.key, r.value))
	}
	var b bytes.Buffer
	x, err := c.Finish(context.Background(), &b)
	require.NoError(t, err)
	return decode(t, b.Bytes(), x)
}

func requireRecords(t require.TestingT, want, got []rec) {
	require.Equal(t, len(want), len(got))
	for i := range want {
		require.Equal(t, want[i].String(), got[i].String(), "record %d", i)
	}
}

// reversed is an order other than bytewise; insensitive takes different keys for equal.
func reversed(a, b []byte) int    { return bytes.Compare(b, a) }
func insensitive(a, b []byte) int { return bytes.Compare(bytes.ToLower(a), bytes.ToLower(b)) }

var orders = map[string]func(a, b []byte) int{"bytes": nil, "reversed": reversed, "insensitive": insensitive}

// sorted is the twin of it all: a stable sort.
func sorted(records []rec, compare func(a, b []byte) int) []rec {
	if compare == nil {
		compare = bytes.Compare
	}
	s := slices.Clone(records)
	slices.SortStableFunc(s, func(a, b rec) int {
		return cmp.Or(cmp.Compare(a.partition, b.partition), compare(a.key, b.key))
	})
	return s
}

// joined maps each key to its values, one after the other.
func joined(records []rec) map[string]string {
	m := map[string]string{}
	for _, r := range records {
		m[fmt.Sprintf("%d %q", r.partition, r.key)] += string(r.value)
	}
	return m
}

func drawRecords(t *rapid.T, partitions int) []rec {
	key := rapid.OneOf(
		rapid.SliceOfN(rapid.SampledFrom([]byte{0, 'a', 'A', 'b', 255}), 0, 12),
		rapid.Custom(func(t *rapid.T) []byte { // long common prefixes
			return append(bytes.Repeat([]byte("ab"), rapid.IntRange(0, 50).Draw(t, "prefix")), rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "end")...)
		}),
	)
	size := rapid.SampledFrom([]int{0, 1, 3, 8, 9, 40, 40, 700, 3000})
	records := make([]rec, rapid.IntRange(0, 300).Draw(t, "records"))
	for i := range records {
		value := fmt.Appendf(nil, "<%d>", i)
		value = append(value, bytes.Repeat([]byte{'.'}, size.Draw(t, "size"))...)
		records[i] = rec{rapid.IntRange(0, partitions-1).Draw(t, "partition"), key.Draw(t, "key"), value}
	}
	return records
}

func drawConfig(t *rapid.T, dir string) (Config, string) {
	order := rapid.SampledFrom([]string{"bytes", "reversed", "insensitive"}).Draw(t, "order")
	return Config{
		Partitions: rapid.IntRange(1, 4).Draw(t, "partitions"),
		Memory:     rapid.SampledFrom([]int64{1, 2 << 10, 8 << 10, 64 << 10, 1 << 20, 4 << 20}).Draw(t, "memory"),
		Codec:      rapid.SampledFrom([]record.Codec{record.S2, record.None, record.Zstd, record.LZ4}).Draw(t, "codec"),
		Compare:    orders[order],
		Dir:        dir,
	}, order
}

func requireEmpty(t require.TestingT, dir string) {
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestCollectorSorts(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		config, _ := drawConfig(t, dir)
		c, err := NewCollector(config)
		require.NoError(t, err)
		defer c.Close()
		for range 2 { // it can be used again
			records := drawRecords(t, config.Partitions)
			requireRecords(t, sorted(records, config.Compare), collect(t, c, records))
			require.Zero(t, c.Stats().CombineInputRecords)
			requireEmpty(t, dir)
		}
	})
}

func TestCollectorCombines(t *testing.T) {
	dir := t.TempDir()
	join := func(key []byte, values *Values, emit EmitFunc) error {
		var all []byte
		for v, ok := values.Next(); ok; v, ok = values.Next() {
			if !bytes.Equal(key, values.Key()) {
				return fmt.Errorf("key %q among %q", values.Key(), key)
			}
			all = append(all, v...)
		}
		return emit(key, all)
	}
	rapid.Check(t, func(t *rapid.T) {
		config, order := drawConfig(t, dir)
		config.Combine = join
		c, err := NewCollector(config)
		require.NoError(t, err)
		defer c.Close()
		records := drawRecords(t, config.Partitions)
		got := collect(t, c, records)
		require.Equal(t, joined(records), joined(got))
		requireRecords(t, sorted(got, config.Compare), got)
		if order != "insensitive" {
			require.Equal(t, len(joined(records)), len(got), "each key once")
		}
		requireEmpty(t, dir)
	})
}

func TestCollectorFolds(t *testing.T) {
	dir := t.TempDir()
	folds := map[string]FoldFunc{
		"append":  func(acc, value []byte) []byte { return append(acc, value...) },
		"replace": func(acc, value []byte) []byte { return slices.Concat(acc, value) },
	}
	bag := func(m map[string]string) map[string]string { // order does not matter to a fold
		for k, v := range m {
			b := []byte(v)
			slices.Sort(b)
			m[k] = string(b)
		}
		return m
	}
	rapid.Check(t, func(t *rapid.T) {
		config, order := drawConfig(t, dir)
		config.Fold = folds[rapid.SampledFrom([]string{"append", "replace"}).Draw(t, "fold")]
		c, err := NewCollector(config)
		require.NoError(t, err)
		defer c.Close()
		for range 2 {
			records := drawRecords(t, config.Partitions)
			got := collect(t, c, records)
			require.Equal(t, bag(joined(records)), bag(joined(got)))
			requireRecords(t, sorted(got, config.Compare), got)
			if order != "insensitive" {
				require.Equal(t, len(joined(records)), len(got), "each key once")
			}
			requireEmpty(t, dir)
		}
	})
}

func TestFoldMayReturnWhatItLikes(t *testing.T) {
	for name, x := range map[string]struct {
		fold FoldFunc
		want string
	}{
		"the value":      {func(acc, value []byte) []byte { return value }, "v9"},
		"the acc":        {func(acc, value []byte) []byte { return acc }, "v0"},
		"nothing":        {func(acc, value []byte) []byte { return nil }, ""},
		"a part of acc":  {func(acc, value []byte) []byte { return acc[len(acc)/2:] }, "0"},
		"something else": {func(acc, value []byte) []byte { return []byte("a longer constant") }, "a longer constant"},
	} {
		for _, memory := range []int64{1 << 10, 1 << 20} {
			c, err := NewCollector(Config{Partitions: 1, Memory: memory, Fold: x.fold, Dir: t.TempDir()})
			require.NoError(t, err)
			var records []rec
			for i := range 10 {
				records = append(records, rec{0, []byte("key"), fmt.Appendf(nil, "v%d", i)})
				for j := range 10 {
					records = append(records, rec{0, fmt.Appendf(nil, "other %d.%d", i, j), []byte("filler")})
				}
			}
			got := collect(t, c, records)
			require.Equal(t, "key", string(got[0].key))
			require.Equal(t, x.want, string(got[0].value), name)
			require.NoError(t, c.Close())
		}
	}
}

func TestManyWordsAreCounted(t *testing.T) {
	words := zipfWords(300_000, 50_000)
	want := map[string]uint64{}
	for _, memory := range []int64{256 << 10, 16 << 20} {
		c, err := NewCollector(Config{Partitions: 3, Memory: memory, Fold: addFold, Dir: t.TempDir()})
		require.NoError(t, err)
		clear(want)
		one := binary.LittleEndian.AppendUint64(nil, 1)
		for _, w := range words {
			want[string(w)]++
			if memory < 1<<20 {
				require.NoError(t, c.Collect(HashPartition(w, 3), w, one))
			} else {
				require.NoError(t, c.CollectHashed(w, one))
			}
		}
		var b bytes.Buffer
		x, err := c.Finish(context.Background(), &b)
		require.NoError(t, err)
		got := map[string]uint64{}
		for _, r := range decode(t, b.Bytes(), x) {
			require.Equal(t, HashPartition(r.key, 3), r.partition)
			require.Zero(t, got[string(r.key)])
			got[string(r.key)] = binary.LittleEndian.Uint64(r.value)
		}
		require.Equal(t, want, got)
		s := c.Stats()
		require.Equal(t, s.SpilledRecords > 0, memory < 1<<20)
		require.EqualValues(t, len(words)-len(want), s.CombineInputRecords-s.CombineOutputRecords, "what is folded away is counted")
		require.NoError(t, c.Close())
	}
}

func TestOneRecordMayExceedTheMemory(t *testing.T) {
	huge := make([]byte, 70<<20)
	rng := rand.NewChaCha8([32]byte{})
	rng.Read(huge[:1<<20])
	records := []rec{{0, []byte("b"), huge}, {0, []byte("a"), nil}, {1, huge[:5<<20], []byte("v")}, {0, []byte("b"), []byte("small")}}
	for name, config := range map[string]Config{
		"sort": {}, "fold": {Fold: func(acc, value []byte) []byte { return append(acc, value...) }},
	} {
		config.Partitions, config.Memory, config.Dir = 2, 1<<20, t.TempDir()
		c, err := NewCollector(config)
		require.NoError(t, err)
		got := collect(t, c, records)
		if name == "sort" {
			require.Equal(t, 4, len(got))
			require.True(t, bytes.Equal(huge, got[1].value))
		} else {
			require.Equal(t, 3, len(got))
			require.Equal(t, len(huge)+5, len(got[1].value))
		}
		require.NoError(t, c.Close())
		requireEmpty(t, config.Dir)
	}
}

func TestMemoryIsTheConfigured(t *testing.T) {
	for name, config := range map[string]Config{
		"sort": {}, "fold": {Fold: addFold},
		"growing": {Fold: func(acc, value []byte) []byte { return append(acc[:len(acc):len(acc)], value...) }},
	} {
		config.Partitions, config.Memory, config.Dir = 2, 128<<10, t.TempDir()
		c, err := NewCollector(config)
		require.NoError(t, err)
		for i := range 20_000 {
			key := fmt.Appendf(nil, "%d", i*7919%15000)
			require.NoError(t, c.Collect(i%2, key, []byte("12345678")))
			require.LessOrEqual(t, c.buffer.used+max(2*entrySize*c.buffer.live, 8*len(c.table.slots)), 128<<10, name)
		}
		require.Equal(t, 128<<10, len(c.buffer.mem))
		require.Zero(t, c.buffer.later)
		require.NotEmpty(t, c.spills)
		require.NoError(t, c.Close())
		requireEmpty(t, config.Dir)
	}
}

func TestASmallOutputTakesLittleMemory(t *testing.T) {
	const memory = 64 << 20
	for name, fold := range map[string]FoldFunc{"sort": nil, "fold": addFold} {
		c, err := NewCollector(Config{Partitions: 1, Memory: memory, Fold: fold, Dir: t.TempDir()})
		require.NoError(t, err)
		require.NoError(t, c.Collect(0, []byte("key"), make([]byte, 8)))
		first := len(c.buffer.mem)
		require.Equal(t, memory/firstStep, first)
		for i := range 20_000 {
			require.NoError(t, c.Collect(0, fmt.Appendf(nil, "%d", i), make([]byte, 8)))
		}
		require.Equal(t, memory, first+len(c.buffer.mem), name)
		require.Empty(t, c.spills)
		require.Equal(t, 20_001, len(collect(t, c, nil)))
		require.NoError(t, c.Close())
	}
}

func TestNoAllocationPerRecord(t *testing.T) {
	for name, fold := range map[string]FoldFunc{"sort": nil, "fold": addFold} {
		c, err := NewCollector(Config{Partitions: 2, Memory: 4 << 20, Fold: fold, Dir: t.TempDir()})
		require.NoError(t, err)
		key, value := make([]byte, 8), make([]byte, 8)
		run := func() {
			for i := range uint64(200_000) {
				binary.BigEndian.PutUint64(key, i*0x9E3779B97F4A7C15)
				if err := c.Collect(int(i&1), key, value); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := c.Finish(context.Background(), io.Discard); err != nil {
				t.Fatal(err)
			}
		}
		require.Less(t, testing.AllocsPerRun(2, run), 1000.0, name)
		require.NoError(t, c.Close())
	}
}

func TestCombinerErrors(t *testing.T) {
	boom := errors.New("boom")
	for name, x := range map[string]struct {
		combine CombineFunc
		want    string
	}{
		"its own":     {func([]byte, *Values, EmitFunc) error { return boom }, `combine key "k": boom`},
		"another key": {func(_ []byte, _ *Values, emit EmitFunc) error { return emit([]byte("z"), nil) }, `emitted key "z" for key "k"`},
	} {
		c, err := NewCollector(Config{Partitions: 1, Combine: x.combine})
		require.NoError(t, err)
		require.NoError(t, c.Collect(0, []byte("k"), nil))
		_, err = c.Finish(context.Background(), io.Discard)
		require.ErrorContains(t, err, x.want, name)
		require.Error(t, c.Collect(0, nil, nil), "the error stays")
		require.NoError(t, c.Close())
	}
}

func TestCombinerNeedNotReadAll(t *testing.T) {
	c, err := NewCollector(Config{Partitions: 1, Combine: func(key []byte, values *Values, emit EmitFunc) error {
		v, _ := values.Next()
		return emit(key, v)
	}})
	require.NoError(t, err)
	got := collect(t, c, []rec{{0, []byte("a"), []byte("1")}, {0, []byte("b"), []byte("2")}, {0, []byte("a"), []byte("3")}})
	requireRecords(t, []rec{{0, []byte("a"), []byte("1")}, {0, []byte("b"), []byte("2")}}, got)
	require.Equal(t, Stats{CombineInputRecords: 3, CombineOutputRecords: 2}, c.Stats())
}

func TestCollectorRefuses(t *testing.T) {
	for _, config := range []Config{{}, {Partitions: -1}, {Partitions: 1, Memory: -1}, {Partitions: 1, Codec: 9}} {
		_, err := NewCollector(config)
		require.Error(t, err)
	}
	for _, partition := range []int{-1, 2} {
		c, err := NewCollector(Config{Partitions: 2})
		require.NoError(t, err)
		require.ErrorContains(t, c.Collect(partition, nil, nil), "of 2")
		require.NoError(t, c.Close())
		require.NoError(t, c.Close())
		require.Error(t, c.Collect(0, nil, nil))
		_, err = c.Finish(context.Background(), io.Discard)
		require.Error(t, err)
	}
}

func TestFinishHeedsTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, memory := range []int64{1 << 10, 1 << 20} {
		c, err := NewCollector(Config{Partitions: 1, Memory: memory, Dir: t.TempDir()})
		require.NoError(t, err)
		for range 1000 {
			require.NoError(t, c.Collect(0, []byte("key"), []byte("value")))
		}
		_, err = c.Finish(ctx, io.Discard)
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, c.Close())
		requireEmpty(t, c.config.Dir)
	}
}

func TestHashPartitionSpreads(t *testing.T) {
	var n [7]int
	for i := range 70_000 {
		n[HashPartition(fmt.Appendf(nil, "key %d", i), 7)]++
	}
	for _, x := range n {
		require.InDelta(t, 10_000, x, 500)
	}
	require.Zero(t, HashPartition([]byte("any"), 1))
}

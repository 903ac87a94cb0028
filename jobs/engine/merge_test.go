package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"millrace/pkg/record"
)

// countedRun counts what is open, and fails where it is told to.
type countedRun struct {
	sliceRun
	open   *int
	failAt int // -1: never
}

var errRun = errors.New("run broke")

func (r *countedRun) Next() (key, value []byte, err error) {
	if r.i == r.failAt {
		return nil, nil, errRun
	}
	return r.sliceRun.Next()
}

func (r *countedRun) Close() error {
	*r.open--
	return nil
}

// makeRuns sorts records into runs, one after the other.
func makeRuns(records [][]rec, compare func(a, b []byte) int, open, most *int) (runs []Opener) {
	for _, rs := range records {
		runs = append(runs, func() (Run, error) {
			*open++
			*most = max(*most, *open)
			r := &countedRun{open: open, failAt: -1}
			for _, x := range sorted(rs, compare) {
				r.keys, r.values = append(r.keys, x.key), append(r.values, x.value)
			}
			return r, nil
		})
	}
	return runs
}

func readRun(r Run) (records []rec, err error) {
	for {
		k, v, err := r.Next()
		if err == io.EOF {
			return records, nil
		}
		if err != nil {
			return records, err
		}
		records = append(records, rec{0, bytes.Clone(k), bytes.Clone(v)})
	}
}

func TestMergeIsAStableSort(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		compare := orders[rapid.SampledFrom([]string{"bytes", "reversed", "insensitive"}).Draw(t, "order")]
		var all []rec
		parts := make([][]rec, rapid.IntRange(0, 20).Draw(t, "runs"))
		for i := range parts {
			for range rapid.IntRange(0, 6).Draw(t, "records") {
				key := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 'a', 'A', 255}), 0, 10).Draw(t, "key")
				parts[i] = append(parts[i], rec{0, key, fmt.Appendf(nil, "%d", len(all))})
				all = append(all, parts[i][len(parts[i])-1])
			}
		}
		open, most := 0, 0
		config := MergeConfig{Compare: compare, FanIn: rapid.IntRange(0, 6).Draw(t, "fanIn"), Dir: dir}
		m, err := Merge(context.Background(), makeRuns(parts, compare, &open, &most), config)
		require.NoError(t, err)
		got, err := readRun(m)
		require.NoError(t, err)
		requireRecords(t, sorted(all, compare), got)
		_, _, err = m.Next()
		require.Equal(t, io.EOF, err, "the end stays")
		require.NoError(t, m.Close())
		require.NoError(t, m.Close())
		_, _, err = m.Next()
		require.Error(t, err)
		require.Zero(t, open)
		if config.FanIn > 0 {
			require.LessOrEqual(t, most, max(config.FanIn, 2))
		}
		requireEmpty(t, dir)
	})
}

func TestMergeRewritesNoMoreThanNeeded(t *testing.T) {
	for _, x := range []struct{ runs, fanIn, rewritten int }{{64, 64, 0}, {65, 64, 2}, {10, 4, 8}, {128, 64, 66}} {
		open, most := 0, 0
		parts := make([][]rec, x.runs)
		for i := range parts {
			parts[i] = []rec{{0, []byte("k"), fmt.Appendf(nil, "%d", i)}}
		}
		m, err := Merge(context.Background(), makeRuns(parts, nil, &open, &most), MergeConfig{FanIn: x.fanIn, Dir: t.TempDir()})
		require.NoError(t, err)
		require.EqualValues(t, x.rewritten, m.(*Merged).Stats().SpilledRecords, "%d runs", x.runs)
		require.NoError(t, m.Close())
		require.Zero(t, open)
	}
}

func TestPlanReachesTheFanIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, fanIn := rapid.IntRange(1, 500).Draw(t, "n"), rapid.IntRange(2, 70).Draw(t, "fanIn")
		passes := 0
		for n > fanIn {
			next, covered := 0, 0
			for at, size := range plan(n, fanIn) {
				require.Equal(t, covered, at)
				require.True(t, size >= 1 && size <= fanIn)
				covered += size
				next++
			}
			require.Equal(t, n, covered)
			require.Less(t, next, n)
			require.GreaterOrEqual(t, next, min(fanIn, n))
			n = next
			passes++
		}
		require.LessOrEqual(t, passes, 9)
	})
}

func TestMergeClosesEverythingWhateverFails(t *testing.T) {
	var parts [][]rec
	for i := range 9 {
		parts = append(parts, []rec{{0, []byte("a"), fmt.Appendf(nil, "%d", i)}, {0, []byte("b"), nil}})
	}
	for _, fanIn := range []int{2, 3, 64} {
		for bad := range parts {
			for _, how := range []string{"open", "first", "second"} {
				dir := t.TempDir()
				open, most := 0, 0
				runs := makeRuns(parts, nil, &open, &most)
				good := runs[bad]
				runs[bad] = func() (Run, error) {
					if how == "open" {
						return nil, errRun
					}
					r, err := good()
					r.(*countedRun).failAt = map[string]int{"first": 0, "second": 1}[how]
					return r, err
				}
				m, err := Merge(context.Background(), runs, MergeConfig{FanIn: fanIn, Dir: dir})
				if err == nil {
					_, err = readRun(m)
					require.NoError(t, m.Close())
				}
				require.ErrorIs(t, err, errRun)
				require.Zero(t, open, "%s of run %d, fan-in %d", how, bad, fanIn)
				requireEmpty(t, dir)
			}
		}
	}
}

func TestMergeHeedsTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	open, most := 0, 0
	part := make([]rec, 3*checkEvery)
	m, err := Merge(ctx, makeRuns([][]rec{part, part}, nil, &open, &most), MergeConfig{})
	require.NoError(t, err)
	_, _, err = m.Next()
	require.NoError(t, err)
	cancel()
	_, err = readRun(m)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, m.Close())
	_, err = Merge(ctx, makeRuns([][]rec{part}, nil, &open, &most), MergeConfig{})
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, open)
}

func TestADamagedRunIsNotTheEnd(t *testing.T) {
	var b bytes.Buffer
	w := record.NewWriter(&b, 1, record.S2)
	for i := range 1000 {
		require.NoError(t, w.Append(0, fmt.Appendf(nil, "%04d", i), nil))
	}
	x, err := w.Close()
	require.NoError(t, err)
	b.Bytes()[x.Partitions[0].Length/2] ^= 1
	run := func() (Run, error) {
		return record.NewPartitionReader(bytes.NewReader(b.Bytes()), 0, x.Partitions[0]), nil
	}
	m, err := Merge(context.Background(), []Opener{run, run}, MergeConfig{})
	require.NoError(t, err)
	_, err = readRun(m)
	require.ErrorIs(t, err, record.ErrCorrupt)
	require.NoError(t, m.Close())
}

package workload

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func newWorkload(t *testing.T, seed uint64) *Workload {
	t.Helper()
	w, err := New(seed, filepath.Join(t.TempDir(), "programs"))
	require.NoError(t, err)
	return w
}

func next(l *Lane, n int) (all []Order) {
	for range n {
		all = append(all, l.Next())
	}
	return all
}

// TestOrders: what holds of every order.
func TestOrders(t *testing.T) {
	w := newWorkload(t, 1)
	kinds, names := map[string]bool{}, map[string]bool{}
	for number, overwrites := range []string{"", "", "shared/", "shared/"} {
		for _, o := range next(w.Lane(number, overwrites), 80) {
			kinds[o.Kind] = true
			require.False(t, names[o.Name], "%s comes twice", o.Name)
			names[o.Name] = true
			require.Equal(t, overwrites != "", slices.Contains(o.Args, "--overwrite"))
			require.Equal(t, overwrites != "", o.MayBeRefused)
			if overwrites == "" {
				require.Equal(t, o.Name+"/", o.Prefix)
			}
			require.Equal(t, o.Name, valueOf(t, o.Args, "--request-id"), "a repeated submit is the same job")
			require.Equal(t, "s3://"+OutputBucket+"/"+o.Prefix, valueOf(t, o.Args, "--output"))
			require.NotEmpty(t, o.Ends)
			require.Equal(t, slices.Contains(o.Ends, "COMPLETED"), o.Want != nil, "what may complete has a truth: %s", o.Kind)
			require.NotEmpty(t, o.Parts)
			for _, p := range o.Parts {
				require.True(t, strings.HasPrefix(p, o.Prefix), p)
			}
			require.Positive(t, o.InputRecords)
			if i := slices.Index(o.Args, "--file"); i >= 0 {
				_, err := os.Stat(o.Args[i+1])
				require.NoError(t, err)
			}
		}
	}
	for _, k := range w.Kinds() {
		require.True(t, kinds[k], "no %s in 320 orders", k)
	}
}

func valueOf(t *testing.T, args []string, flag string) string {
	t.Helper()
	i := slices.Index(args, flag)
	require.GreaterOrEqual(t, i, 0, "%s in %v", flag, args)
	return args[i+1]
}

// TestASeedMakesTheSameOrders, but for where the scripts lie.
func TestASeedMakesTheSameOrders(t *testing.T) {
	names := func(seed uint64) (all []string) {
		for _, o := range next(newWorkload(t, seed).Lane(0, ""), 20) {
			all = append(all, o.Name+" "+valueOf(t, o.Args, "--input"))
		}
		return all
	}
	require.Equal(t, names(1), names(1))
	require.NotEqual(t, names(1), names(2))
}

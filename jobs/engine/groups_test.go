package engine

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// runOf makes a run of "key=value" words.
func runOf(s string) *sliceRun {
	r := &sliceRun{}
	for _, w := range strings.Fields(s) {
		k, v, _ := strings.Cut(w, "=")
		r.keys, r.values = append(r.keys, []byte(k)), append(r.values, []byte(v))
	}
	return r
}

func TestGroups(t *testing.T) {
	first := func(a, b []byte) bool { return a[0] == b[0] }
	for _, x := range []struct {
		name, run string
		same      func(a, b []byte) bool
		read      int // values of each group
		want      string
	}{
		{"no records", "", nil, 9, ""},
		{"one", "a=1", nil, 9, "a[a1]"},
		{"many", "a=1 a=2 b=3 c=4 c=5", nil, 9, "a[a1 a2] b[b3] c[c4 c5]"},
		{"values are not read", "a=1 a=2 b=3 c=4 c=5", nil, 0, "a[] b[] c[]"},
		{"one value is read", "a=1 a=2 a=3 b=4 c=5", nil, 1, "a[a1] b[b4] c[c5]"},
		{"secondary sort", "a1=1 a2=2 b1=3", first, 9, "a1[a11 a22] b1[b13]"},
		{"keys that come again", "a=1 b=2 a=3", nil, 9, "a[a1] b[b2] a[a3]"},
	} {
		t.Run(x.name, func(t *testing.T) {
			g := NewGroups(runOf(x.run), x.same)
			var got []string
			for {
				key, values, err := g.Next()
				if err == io.EOF {
					break
				}
				require.NoError(t, err)
				var read []string
				for range x.read {
					v, ok := values.Next()
					if !ok {
						_, again := values.Next()
						require.False(t, again)
						break
					}
					read = append(read, string(values.Key())+string(v))
				}
				require.NoError(t, values.Err())
				got = append(got, fmt.Sprint(string(key), read))
			}
			require.Equal(t, x.want, strings.Join(got, " "))
			_, _, err := g.Next()
			require.Equal(t, io.EOF, err)
		})
	}
}

func TestGroupsGiveTheRunsError(t *testing.T) {
	for n := range 4 {
		open := 1
		r := &countedRun{sliceRun: *runOf("a=1 a=2 b=3 b=4"), open: &open, failAt: n}
		g := NewGroups(r, nil)
		var err error
		for err == nil {
			var values *Values
			if _, values, err = g.Next(); err == nil {
				for _, ok := values.Next(); ok; _, ok = values.Next() {
				}
				if e := values.Err(); e != nil {
					require.ErrorIs(t, e, errRun)
				}
			}
		}
		require.ErrorIs(t, err, errRun)
		_, _, err = g.Next()
		require.ErrorIs(t, err, errRun, "the error stays")
	}
}

// endlessRun has one key, and reuses its memory as runs do.
type endlessRun struct{ n int }

func (r *endlessRun) Next() (key, value []byte, err error) {
	if r.n--; r.n < 0 {
		return nil, nil, io.EOF
	}
	return []byte("hot"), bytes.Repeat([]byte{byte(r.n)}, 1), nil
}

func (r *endlessRun) Close() error { return nil }

func TestAHotKeyIsStreamed(t *testing.T) {
	const n = 1_000_000
	r := &endlessRun{n}
	g := NewGroups(r, nil)
	_, values, err := g.Next()
	require.NoError(t, err)
	count := 0
	for _, ok := values.Next(); ok; _, ok = values.Next() {
		count++
		require.Equal(t, n-count, r.n, "values are read as they are asked for")
	}
	require.Equal(t, n, count)
}

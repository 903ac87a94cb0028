package input

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/jobs"
	"millrace/pkg/objectstore"
)

// Files to be copied have the names that they have below their input, whatever these are; empty ones are some, too.
func TestFilesToCopy(t *testing.T) {
	s := objectstore.NewMemory()
	require.NoError(t, s.MakeBucket(t.Context(), "data"))
	for _, key := range []string{"in/_x", "in/.y/z", "in/a b", "in/e.gz", "in/marker/", "other/f", "top"} {
		size := len(key) % 4
		_, err := s.Put(t.Context(), "data", key, strings.NewReader(strings.Repeat("x", size)), int64(size), objectstore.PutOptions{})
		require.NoError(t, err)
	}
	for in, want := range map[string][]string{
		"s3://data/in/":     {".y/z", "_x", "a b", "e.gz"},
		"s3://data/in":      {".y/z", "_x", "a b", "e.gz"},
		"s3://data/in/a b":  {"a b"},
		"s3://data/in/*":    {"_x", "a b", "e.gz"},
		"s3://data/*/[a-f]": {"other/f"},
		"s3://data/":        {"in/.y/z", "in/_x", "in/a b", "in/e.gz", "other/f", "top"},
	} {
		objects, err := ListFor(t.Context(), s, []string{in}, jobs.FormatFiles)
		require.NoError(t, err, in)
		var names []string
		for _, split := range Cut(objects, 5, jobs.FormatFiles) {
			var bytes int64
			for _, p := range split.Pieces {
				require.True(t, p.Whole && p.Offset == 0 && p.Length == p.ObjectSize, p)
				names = append(names, p.Name)
				bytes += p.Length
			}
			require.LessOrEqual(t, bytes, int64(5))
			require.NotEmpty(t, split.Pieces)
		}
		require.Equal(t, want, names, in)
		plan := NewPlan(Cut(objects, 5, jobs.FormatFiles))
		data, digest, err := plan.Encode()
		require.NoError(t, err)
		again, err := Decode(data, digest)
		require.NoError(t, err)
		require.Len(t, again.Splits, len(plan.Splits))
	}
	_, err := ListFiles(t.Context(), s, []string{"s3://data/in/", "s3://data/in/*"})
	require.NoError(t, err, "the same object, once")
	_, err = s.Put(t.Context(), "data", "other/_x", strings.NewReader(""), 0, objectstore.PutOptions{})
	require.NoError(t, err)
	_, err = ListFiles(t.Context(), s, []string{"s3://data/in/", "s3://data/other/"})
	require.ErrorContains(t, err, "s3://data/in/_x and s3://data/other/_x would both be called _x")
}

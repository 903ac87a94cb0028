package task

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/jobs"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// copyLease is of a task that copies all of s3://data/in/ to s3://data/out/.
func copyLease(t *testing.T, s objectstore.Store) *api.ChildLease {
	t.Helper()
	split := &api.Split{Format: jobs.FormatFiles}
	for o, err := range s.List(t.Context(), "data", "in/", objectstore.ListOptions{}) {
		require.NoError(t, err)
		split.Pieces = append(split.Pieces, &api.Piece{Bucket: "data", Key: o.Key, Etag: o.ETag, Length: o.Size, ObjectSize: o.Size,
			Whole: true, Name: strings.TrimPrefix(o.Key, "in/")})
	}
	return &api.ChildLease{Attempt: "a", Kind: api.TaskKind_TASK_KIND_MAP, WorkDir: t.TempDir(), Split: split,
		Output: &api.Output{Bucket: "data", Key: "out/", Format: jobs.FormatFiles}}
}

func copyTask(t *testing.T, s objectstore.Store, l *api.ChildLease) *api.AttemptResult {
	t.Helper()
	return Run(t.Context(), Config{Lease: l, Program: &Program{Name: "distcp", MapOnly: true, CopiesFiles: true}, Store: s})
}

func counts(r *api.AttemptResult) map[string]int64 {
	found := map[string]int64{}
	for _, c := range r.Counters {
		found[c.Name] = c.Value
	}
	return found
}

// A task copies its files, and says how many and of how many bytes; the second time it skips them.
func TestACopyingTask(t *testing.T) {
	s := objectstore.NewMemory()
	require.NoError(t, s.MakeBucket(t.Context(), "data"))
	put := func(key, text string) {
		_, err := s.Put(t.Context(), "data", key, strings.NewReader(text), int64(len(text)), objectstore.PutOptions{})
		require.NoError(t, err)
	}
	for i := range 40 {
		put(fmt.Sprintf("in/%d/_f", i), strings.Repeat("x", i))
	}
	put("in/big", strings.Repeat("0123456789", 1<<20))
	total := int64(10<<20 + 39*40/2)
	l := copyLease(t, s)
	for i, counter := range []string{"filesCopied", "filesSkipped"} {
		r := copyTask(t, s, l)
		require.Nil(t, r.Failure, "%v", r.Failure)
		require.Equal(t, []int64{41, total, 0}, []int64{r.OutputRecords, r.OutputBytes, int64(r.OutputParts)}, i)
		require.Equal(t, int64(41), counts(r)[counter], counts(r))
		require.Equal(t, total, counts(r)["mapInputBytes"])
	}

	// One that is another by now is the input's fault, wherever it is tried, and so is one that is there and differs.
	put("in/big", "another")
	r := copyTask(t, s, copyLease(t, s))
	require.Equal(t, api.FailureKind_FAILURE_KIND_INPUT, r.Failure.GetKind(), r.Failure)
	require.Contains(t, r.Failure.Message, "s3://data/out/big is there already and differs from s3://data/in/big")
	require.NoError(t, s.Delete(t.Context(), "data", "out/big"))
	r = copyTask(t, s, l)
	require.Equal(t, api.FailureKind_FAILURE_KIND_INPUT, r.Failure.GetKind(), r.Failure)
	require.Equal(t, "s3://data/in/big", r.Failure.Input)
	_, err := s.Head(t.Context(), "data", "out/big")
	require.ErrorIs(t, err, objectstore.ErrNotExist)

	l.Output.Format = ""
	r = copyTask(t, s, l)
	require.Contains(t, r.Failure.GetMessage(), "older version", "a leader that would have it write a part")
}

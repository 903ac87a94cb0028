package checker

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// result is a completed job with its result in two parts, as a right cluster makes it.
type result struct {
	Job
	Status
	Manifest
	parts [][]byte
}

func right(want Want, parts ...string) *result {
	r := &result{Job: Job{Want: want, InputRecords: 5}, Status: Status{ID: "s-j", State: "COMPLETED", Counters: map[string]map[string]int64{"millrace": {"mapInputRecords": 5}}}}
	r.Manifest.Job = "s-j"
	for i, p := range parts {
		n := int64(strings.Count(p, "\n"))
		r.Manifest.Parts = append(r.Manifest.Parts, Part{Key: fmt.Sprintf("p%d", i), Size: int64(len(p)), Records: n})
		r.Manifest.Records += n
		r.Status.OutputRecords += n
		r.parts = append(r.parts, []byte(p))
	}
	return r
}

func (r *result) verify() string {
	return strings.Join(Verify(r.Job, r.Status, r.Manifest, r.parts), "; ")
}

func TestARightResult(t *testing.T) {
	require.Empty(t, right(Bag{"a": 2, "b": 1}, "a\nb\n", "a\n").verify())
	require.Empty(t, right(Bag{}, "", "").verify())
	require.Empty(t, right(Sorted{"a": 2, "b": 1}, "a\na\n", "b\n").verify())
	require.Empty(t, right(Counts{"a": 2, "b": 1}, "b\t1\n", "a\t2\n").verify())
}

// TestPlantedInResults: each record and each sum that is not as it must be is seen.
func TestPlantedInResults(t *testing.T) {
	for name, c := range map[string]struct {
		r    *result
		want string
	}{
		"a missing record":         {right(Bag{"a": 2, "b": 1}, "a\nb\n", ""), `1 records are missing, 0 are too many; "a" is there 1 times, not 2`},
		"a record twice":           {right(Bag{"a": 1}, "a\n", "a\n"), `0 records are missing, 1 are too many; "a" is there 2 times, not 1`},
		"a record from nowhere":    {right(Bag{"a": 1}, "a\nx\n"), `"x" is there 1 times, not 0`},
		"a spoilt record":          {right(Bag{"ab": 1}, "aa\n"), "1 records are missing, 1 are too many"},
		"an empty record too many": {right(Bag{"a": 1}, "a\n\n"), `"" is there 1 times, not 0`},
		"no order":                 {right(Sorted{"a": 1, "b": 1}, "b\na\n"), "part 0 is not in order"},
		"an order with a loss":     {right(Sorted{"a": 1, "b": 1}, "b\n"), "1 records are missing"},
		"a wrong count":            {right(Counts{"a": 2}, "a\t1\n"), "1 records are missing, 1 are too many"},
		"a key in two parts":       {right(Counts{"a": 2}, "a\t2\n", "a\t2\n"), `"a" comes 2 times`},
		"a key counted in halves":  {right(Counts{"a": 2}, "a\t1\n", "a\t1\n"), `"a" comes 2 times`},
	} {
		t.Run(name, func(t *testing.T) { require.Contains(t, c.r.verify(), c.want) })
	}
	for name, c := range map[string]struct {
		plant func(r *result)
		want  string
	}{
		"another job's _SUCCESS":      {func(r *result) { r.Manifest.Job = "s-x" }, "_SUCCESS is of job s-x"},
		"a part that was not read":    {func(r *result) { r.parts = r.parts[:1] }, "1 parts were read, 2 are named"},
		"a part that is gone":         {func(r *result) { r.parts[0] = nil }, "p0 has 0 bytes, and is named with 2"},
		"a part cut short":            {func(r *result) { r.parts[0] = []byte("a"); r.Manifest.Parts[0].Size = 1 }, "p0 does not end with a newline"},
		"records of a part":           {func(r *result) { r.Manifest.Parts[0].Records = 9 }, "p0 has 1 records, and is named with 9"},
		"records of the set":          {func(r *result) { r.Manifest.Records = 9 }, "2 records in the parts, 9 in _SUCCESS, 2 in the job"},
		"records of the job":          {func(r *result) { r.Status.OutputRecords = 9 }, "2 in _SUCCESS, 9 in the job"},
		"a ledger that is not even":   {func(r *result) { r.Ledger.FetchedRecords = 1 }, "0 records written and 1 fetched"},
		"input that was read twice":   {func(r *result) { r.Counters["millrace"]["mapInputRecords"] = 10 }, "the maps counted 10 records of input, there are 5"},
		"input that was not all read": {func(r *result) { r.Counters = nil }, "the maps counted 0 records of input, there are 5"},
	} {
		t.Run(name, func(t *testing.T) {
			r := right(Bag{"a": 1, "b": 1}, "a\n", "b\n")
			c.plant(r)
			require.Contains(t, r.verify(), c.want)
		})
	}
}

// TestAnInputIsWhatIsSaidOfIt: the objects hold the lines, whatever their form.
func TestAnInputIsWhatIsSaidOfIt(t *testing.T) {
	in := NewInput(7, "in/", 20_000)
	require.Equal(t, in, NewInput(7, "in/", 20_000), "a seed says it all")
	require.NotEqual(t, in, NewInput(8, "in/", 20_000))
	var lines []string
	for key, content := range in.Objects {
		if strings.HasSuffix(key, ".gz") {
			z, err := gzip.NewReader(bytes.NewReader(content))
			require.NoError(t, err)
			content, err = io.ReadAll(z)
			require.NoError(t, err)
		}
		lines = append(lines, Lines(content)...)
	}
	require.ElementsMatch(t, in.Lines, lines)
	require.EqualValues(t, len(lines), in.Records())

	words := 0
	for _, n := range in.Words() {
		words += int(n)
	}
	require.Equal(t, len(strings.Fields(strings.Join(lines, " "))), words)
	slices.Sort(lines)
	require.Len(t, in.Distinct(), len(slices.Compact(lines)))
	require.Less(t, len(in.Distinct()), len(in.Lines), "some lines come often")
	require.Equal(t, in.All(), in.Matching(func(string) bool { return true }))
	require.Empty(t, in.Matching(func(string) bool { return false }))
}

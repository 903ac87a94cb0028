package mapreduce_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"millrace/jobs/local"
	"millrace/jobs/mapreduce"
	"millrace/jobs/mapreduce/mrtest"
)

func TestNumbersKeepTheirValueAndOrder(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		a, b := rapid.Int64().Draw(r, "a"), rapid.Int64().Draw(r, "b")
		x, y := mapreduce.AppendInt(nil, a), mapreduce.AppendInt(nil, b)
		if mapreduce.Int(x) != a || (a < b) != (bytes.Compare(x, y) < 0) {
			r.Fatalf("%d is %x, %d is %x", a, x, b, y)
		}
		fold := func(f func(acc, v []byte) []byte) int64 { return mapreduce.Int(f(bytes.Clone(x), y)) }
		if fold(mapreduce.Sum) != a+b || fold(mapreduce.Min) != min(a, b) || fold(mapreduce.Max) != max(a, b) {
			r.Fatalf("sum %d, min %d, max %d", fold(mapreduce.Sum), fold(mapreduce.Min), fold(mapreduce.Max))
		}
	})
	if mapreduce.Int(mapreduce.One) != 1 {
		t.Error("One is not 1")
	}
}

// perKey is a map with state: it counts lines by first letter, and emits in the end.
type perKey struct {
	counts map[string]int64
	ready  bool
}

func (p *perKey) Setup(*mapreduce.Context) error {
	p.counts, p.ready = map[string]int64{}, true
	return nil
}

func (p *perKey) Map(_ *mapreduce.Context, _, line []byte) error {
	if !p.ready {
		return errors.New("not set up")
	}
	p.counts[string(line[:1])]++
	return nil
}

func (p *perKey) Cleanup(ctx *mapreduce.Context) error {
	for k, n := range p.counts {
		ctx.EmitInt([]byte(k), n)
	}
	return nil
}

func TestMapsWithState(t *testing.T) {
	job := mapreduce.Job{NewMapper: func() mapreduce.Mapper { return &perKey{} }, Fold: mapreduce.Sum, Reduce: mapreduce.SumText}
	got := mrtest.RunWith(t, job, mrtest.Options{Splits: 3, Reduces: 1}, "ax", "bx", "ay", "az", "by").Lines
	if want := []string{"a\t3", "b\t2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A number is read by a reduce, or by people.
func TestNumbersInTheOutputAreText(t *testing.T) {
	count := func(ctx *mapreduce.Context, _, line []byte) error {
		ctx.EmitInt(line, int64(len(line)))
		return nil
	}
	job := mapreduce.Job{Map: count, Fold: mapreduce.Sum, Reduce: func(ctx *mapreduce.Context, key []byte, values *mapreduce.Values) error {
		for v := range values.All() {
			ctx.EmitInt(key, -mapreduce.Int(v))
		}
		return nil
	}}
	for reduces, want := range map[int][]string{1: {"ab\t-4", "c\t-1"}, -1: {"ab\t2", "c\t1", "ab\t2"}} {
		if got := mrtest.RunWith(t, job, mrtest.Options{Splits: 1, Reduces: reduces}, "ab", "c", "ab").Lines; !slices.Equal(got, want) {
			t.Errorf("%d reduces: got %q, want %q", reduces, got, want)
		}
	}
}

func TestCombine(t *testing.T) {
	longest := func(ctx *mapreduce.Context, key []byte, values *mapreduce.Values) error {
		var best []byte
		for v := range values.All() {
			if len(v) > len(best) {
				best = append(best[:0], v...)
			}
		}
		ctx.Emit(key, best)
		return values.Err()
	}
	job := mapreduce.Job{
		Map: func(ctx *mapreduce.Context, _, line []byte) error {
			k, v, _ := bytes.Cut(line, []byte(" "))
			ctx.Emit(k, v)
			return nil
		},
		Combine: longest, Reduce: longest,
	}
	r := mrtest.RunWith(t, job, mrtest.Options{Splits: 2, Reduces: 1}, "a x", "a xxx", "b y", "a xx", "b", "a x")
	if want := []string{"a\txxx", "b\ty"}; !slices.Equal(r.Lines, want) {
		t.Errorf("got %q, want %q", r.Lines, want)
	}
	if r.Counters["millrace.combineInputRecords"] == 0 || r.Counters["millrace.segmentRecords"] >= r.Counters["millrace.mapOutputRecords"] {
		t.Errorf("nothing was combined: %v", r.Counters)
	}
}

func TestSecondarySort(t *testing.T) {
	first := func(key []byte) []byte { b, _, _ := bytes.Cut(key, []byte(" ")); return b }
	job := mapreduce.Job{
		Map:       func(ctx *mapreduce.Context, _, line []byte) error { ctx.Emit(line, nil); return nil },
		Group:     func(a, b []byte) bool { return bytes.Equal(first(a), first(b)) },
		Partition: func(key []byte, n int) int { return int(key[0]) % n },
		Reduce: func(ctx *mapreduce.Context, key []byte, values *mapreduce.Values) error {
			name := bytes.Clone(first(key))
			var rest []string
			for range values.All() {
				rest = append(rest, string(values.Key()[len(name)+1:]))
			}
			ctx.Emit(name, []byte(strings.Join(rest, ",")))
			return nil
		},
	}
	got := mrtest.RunWith(t, job, mrtest.Options{Splits: 3, Reduces: 2}, "b 2", "a 3", "a 1", "b 1", "a 2").Lines
	slices.Sort(got)
	if want := []string{"a\t1,2,3", "b\t1,2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOrderOfKeys(t *testing.T) {
	job := mapreduce.Job{
		Map:     func(ctx *mapreduce.Context, _, line []byte) error { ctx.Emit(line, nil); return nil },
		Compare: func(a, b []byte) int { return bytes.Compare(b, a) },
		Reduce:  mapreduce.Keys,
	}
	if got := mrtest.Run(t, job, "a", "c", "b", "c"); !slices.Equal(got, []string{"c", "b", "a"}) {
		t.Errorf("got %q", got)
	}
}

func TestWhatAContextKnows(t *testing.T) {
	job := mapreduce.Job{
		Configure: func(args []string) (mapreduce.Job, error) {
			if len(args) != 1 {
				return mapreduce.Job{}, errors.New("one argument, please")
			}
			return mapreduce.Job{Map: func(ctx *mapreduce.Context, _, line []byte) error {
				url, offset := ctx.Position()
				ctx.Count("Seen", "lines", 1)
				ctx.Emit(fmt.Appendf(nil, "%s %s %v %d %v %s", args[0], line, ctx.IsMap(), offset, strings.HasSuffix(url, "/input.txt"), ctx.Property("p")), nil)
				return nil
			}}, nil
		},
	}
	r := mrtest.RunWith(t, job, mrtest.Options{Splits: 1, Reduces: -1, Args: []string{"arg"}, Properties: map[string]string{"p": "q"}}, "x", "yy")
	if want := []string{"arg x true 0 true q", "arg yy true 2 true q"}; !slices.Equal(r.Lines, want) {
		t.Errorf("got %q, want %q", r.Lines, want)
	}
	if r.Counters["Seen.lines"] != 2 {
		t.Errorf("counters %v", r.Counters)
	}
	if _, err := mrtest.Try(t, job, mrtest.Options{}, "x"); err == nil || err.Error() != "one argument, please" {
		t.Errorf("got %v", err)
	}
}

func TestJobsThatCannotBe(t *testing.T) {
	m := func(*mapreduce.Context, []byte, []byte) error { return nil }
	for name, j := range map[string]mapreduce.Job{
		"no map":           {Reduce: mapreduce.Keys},
		"two combiners":    {Map: m, Reduce: mapreduce.Keys, Fold: mapreduce.Sum, Combine: mapreduce.Keys},
		"fold of map-only": {Map: m, Fold: mapreduce.Sum},
		"configured twice": {Configure: func([]string) (mapreduce.Job, error) {
			return mapreduce.Job{Configure: func([]string) (mapreduce.Job, error) { return mapreduce.Job{}, nil }}, nil
		}},
	} {
		if _, err := j.Program(nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := (mapreduce.Job{Name: "n", Map: m}).Program([]string{"x"}); err == nil || !strings.Contains(err.Error(), "n takes no arguments") {
		t.Errorf("got %v", err)
	}
}

func TestFailuresOfFunctions(t *testing.T) {
	emit := func(ctx *mapreduce.Context, _, line []byte) error { ctx.Emit(line, []byte("v")); return nil }
	boom := func(*mapreduce.Context, []byte, *mapreduce.Values) error { panic("boom") }
	for name, test := range map[string]struct {
		job  mapreduce.Job
		want string
	}{
		"reduce panics":  {mapreduce.Job{Map: emit, Reduce: boom}, `reduce key "x": panic: boom`},
		"combine panics": {mapreduce.Job{Map: emit, Reduce: mapreduce.Keys, Combine: boom}, "panic: boom"},
		"combine fails": {mapreduce.Job{Map: emit, Reduce: mapreduce.Keys, Combine: func(*mapreduce.Context, []byte, *mapreduce.Values) error { return errors.New("no") }},
			`combine key "x": no`},
		"not a number": {mapreduce.Job{Map: emit, Reduce: mapreduce.SumText}, "is not a number"},
		"partition": {mapreduce.Job{Map: emit, Reduce: mapreduce.Keys, Partition: func([]byte, int) int { return 9 }},
			`chose 9 of 2 partitions for key "x"`},
	} {
		_, err := mrtest.Try(t, test.job, mrtest.Options{}, "x", "x")
		var e *local.TaskError
		if !errors.As(err, &e) || !strings.Contains(e.Failure.Message, test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

func TestSpillingChangesNothing(t *testing.T) {
	job := mapreduce.Job{
		Map: func(ctx *mapreduce.Context, _, line []byte) error {
			for range 2000 {
				ctx.Emit(line, bytes.Repeat(line, 10))
			}
			return nil
		},
		Reduce: func(ctx *mapreduce.Context, key []byte, values *mapreduce.Values) error {
			n := 0
			for range values.All() {
				n++
			}
			ctx.Emit(key, fmt.Append(nil, n))
			return values.Err()
		},
	}
	var lines []string
	for i := range 300 {
		lines = append(lines, fmt.Sprintf("line %03d", i%50))
	}
	r := mrtest.RunWith(t, job, mrtest.Options{Memory: 1, Splits: 2, Reduces: 1}, lines...)
	if len(r.Lines) != 50 || r.Lines[7] != "line 007\t12000" {
		t.Errorf("%d lines, %q", len(r.Lines), r.Lines[7])
	}
	if r.Counters["millrace.spilledRecords"] == 0 {
		t.Error("nothing was spilled: the test tests nothing")
	}
}

// More segments than are merged at once go through disk, and are counted.
func TestAReduceCountsWhatItSpills(t *testing.T) {
	var lines []string
	for i := range 200 {
		lines = append(lines, strconv.Itoa(i))
	}
	job := mapreduce.Job{Map: func(ctx *mapreduce.Context, _, line []byte) error { ctx.EmitInt(line, 1); return nil }, Reduce: mapreduce.SumText}
	r := mrtest.RunWith(t, job, mrtest.Options{Splits: 100, Reduces: 1}, lines...)
	if n := r.Counters["millrace.spilledRecords"]; n == 0 || n > 200 || len(r.Lines) != 200 {
		t.Errorf("%d records spilled, %d lines", n, len(r.Lines))
	}
}

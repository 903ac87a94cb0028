package local_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"millrace/jobs/input"
	"millrace/jobs/local"
	"millrace/jobs/mapreduce"
	"millrace/jobs/task"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

var wordcount = mapreduce.Job{
	Name: "wordcount",
	Map: func(ctx *mapreduce.Context, _, line []byte) error {
		for w := range bytes.FieldsSeq(line) {
			if string(w) == "POISON" {
				return errors.New("poisoned")
			}
			ctx.Emit(w, mapreduce.One)
		}
		return nil
	},
	Fold:   mapreduce.Sum,
	Reduce: mapreduce.SumText,
}

func program(t testing.TB, j mapreduce.Job) *task.Program {
	t.Helper()
	p, err := j.Program(nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// count is the naive twin.
func count(text string) map[string]string {
	n := map[string]int{}
	for _, w := range strings.Fields(text) {
		n[w]++
	}
	all := map[string]string{}
	for w, c := range n {
		all[w] = fmt.Sprint(c)
	}
	return all
}

func pairs(text string) map[string]string {
	all := map[string]string{}
	for l := range strings.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimSuffix(l, "\n"), "\t")
		all[k] += v
	}
	return all
}

func TestAJobOnFilesAgreesWithANaiveCount(t *testing.T) {
	word := rapid.SampledFrom([]string{"a", "bb", "ccc", "é", " ", "\n", "\r\n", "\t", "dddddddddd"})
	rapid.Check(t, func(r *rapid.T) {
		dir := t.TempDir()
		var all string
		for i := range rapid.IntRange(1, 4).Draw(r, "files") {
			text := strings.Join(rapid.SliceOfN(word, 0, 60).Draw(r, "text"), "")
			write(t, filepath.Join(dir, "in", fmt.Sprintf("f%d", i)), text)
			all += text + "\n"
		}
		reduces := int32(rapid.IntRange(1, 3).Draw(r, "reduces"))
		out := filepath.Join(dir, "a", "out")
		result, err := local.Run(t.Context(), local.Config{Program: program(t, wordcount), Dir: dir, Parallel: 3, Spec: &api.JobSpec{
			Input: []string{filepath.Join(dir, "in")}, Output: out, Reduces: &reduces, SplitSize: int64(rapid.IntRange(1, 64).Draw(r, "split"))}})
		if err != nil {
			r.Fatal(err)
		}
		var text string
		for _, p := range result.Parts {
			data, err := os.ReadFile(p.Key)
			if err != nil {
				r.Fatal(err)
			}
			text += string(data)
		}
		if got, want := pairs(text), count(all); !maps.Equal(got, want) {
			r.Fatalf("got %v, want %v", got, want)
		}
		if n := int64(len(strings.Fields(all))); result.Counters["millrace"]["mapOutputRecords"] != n {
			r.Fatalf("mapOutputRecords %v, want %d", result.Counters, n)
		}
		if got := names(t, dir); !slices.Equal(got, []string{"a", "in"}) {
			r.Fatalf("left behind: %v", got)
		}
	})
}

func TestTheOutputDirectory(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/in.txt", "b a b\n")
	out := filepath.Join(dir, "out")
	two := int32(2)
	spec := func() *api.JobSpec { return &api.JobSpec{Input: []string{dir + "/in.txt"}, Output: out, Reduces: &two} }
	run := func(s *api.JobSpec) (*local.Result, error) {
		return local.Run(t.Context(), local.Config{Spec: s, Program: program(t, wordcount), Dir: dir})
	}
	result, err := run(spec())
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, out); !slices.Equal(got, []string{"_SUCCESS", "part-r-00000", "part-r-00001"}) {
		t.Fatalf("output %v", got)
	}
	var success struct {
		Job, Program string
		Parts        []struct {
			Key     string
			Size    int64
			Records int64
		}
		Records int64
		Ledger  struct {
			SegmentRecords, FetchedRecords int64
			Checksum                       string
		}
	}
	data, err := os.ReadFile(out + "/_SUCCESS")
	if err == nil {
		err = json.Unmarshal(data, &success)
	}
	if err != nil {
		t.Fatal(err)
	}
	if success.Job != result.ID || success.Program != "wordcount" || success.Records != 2 || len(success.Parts) != 2 ||
		success.Parts[0].Key != out+"/part-r-00000" || success.Ledger.SegmentRecords != 2 || success.Ledger.FetchedRecords != 2 || len(success.Ledger.Checksum) != 16 {
		t.Errorf("_SUCCESS %s", data)
	}

	if _, err := run(spec()); !errors.Is(err, local.ErrRefused) || !strings.Contains(err.Error(), out+" is not empty") {
		t.Errorf("a taken output: %v", err)
	}
	again := spec()
	again.Overwrite = true
	one := int32(1)
	again.Reduces = &one
	if _, err := run(again); err != nil {
		t.Fatal(err)
	}
	if got := names(t, out); !slices.Equal(got, []string{"_SUCCESS", "part-r-00000"}) {
		t.Errorf("overwritten output %v", got)
	}
	write(t, out+"/letters/mine.txt", "x")
	if _, err := run(again); !errors.Is(err, local.ErrRefused) || !strings.Contains(err.Error(), "has more in it than a result ("+out+"/letters/mine.txt)") {
		t.Errorf("a folder with other people's files is overwritten: %v", err)
	}
}

func TestAFailedRunLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/in/a.txt", strings.Repeat("fine\n", 1000)+"with POISON in it\n")
	for _, output := range []string{dir + "/new/deep/out", dir + "/there"} {
		if err := os.MkdirAll(dir+"/there", 0o700); err != nil {
			t.Fatal(err)
		}
		_, err := local.Run(t.Context(), local.Config{Program: program(t, wordcount), Dir: dir,
			Spec: &api.JobSpec{Input: []string{dir + "/in/*.txt"}, Output: output, SplitSize: 100}})
		var e *local.TaskError
		if !errors.As(err, &e) || e.Failure.Input != dir+"/in/a.txt" || e.Failure.Offset != 5000 {
			t.Errorf("got %v, want the record at byte 5000 of a.txt", err)
		}
		if got := append(names(t, dir), names(t, dir+"/there")...); !slices.Equal(got, []string{"in", "there"}) {
			t.Errorf("left behind: %v", got)
		}
	}
}

func TestAnUnreadableFileIsNamedByItsPath(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/in/a.gz"
	write(t, path, "not gzip")
	_, err := local.Run(t.Context(), local.Config{Program: program(t, wordcount), Dir: dir,
		Spec: &api.JobSpec{Input: []string{dir + "/in"}, Output: dir + "/out"}})
	if err == nil || !strings.Contains(err.Error(), "read "+path+" at byte 0") || strings.Contains(err.Error(), "s3://") {
		t.Errorf("got %v, want the file's path", err)
	}
}

func TestACancelledRunLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/in", "one\ntwo\n")
	ctx, cancel := context.WithCancel(t.Context())
	j := mapreduce.Job{Map: func(c *mapreduce.Context, _, _ []byte) error { cancel(); <-c.Context().Done(); return nil }}
	_, err := local.Run(ctx, local.Config{Program: program(t, j), Dir: dir, Spec: &api.JobSpec{Input: []string{dir + "/in"}, Output: dir + "/out"}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"in"}) {
		t.Errorf("left behind: %v", got)
	}
}

func TestWhatCannotRunIsRefused(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/in/a", "x\n")
	store := objectstore.NewMemory()
	for name, test := range map[string]struct {
		in, out, want string
	}{
		"no match":         {dir + "/nothing", dir + "/out", "input " + dir + "/nothing matches nothing"},
		"no bucket":        {"s3://nosuch/x", dir + "/out", "no such bucket"},
		"output in input":  {dir + "/in", dir + "/in/out", "overlaps"},
		"input in output":  {dir + "/in/a", dir, "overlaps"},
		"glob in output":   {dir + "/in/*", dir + "/in", "overlaps"},
		"output is a file": {dir + "/in/a", dir + "/file", "is a file"},
		"hdfs":             {"hdfs:///x", dir + "/out", "hdfs"},
	} {
		write(t, dir+"/file", "")
		_, err := local.Run(t.Context(), local.Config{Program: program(t, wordcount), Store: store, Spec: &api.JobSpec{Input: []string{test.in}, Output: test.out}})
		if !errors.Is(err, local.ErrRefused) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "Local.Files") {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
	_, err := local.Run(t.Context(), local.Config{Program: program(t, wordcount), Spec: &api.JobSpec{Input: []string{dir + "/none"}, Output: dir + "/out"}})
	var none *input.NoMatchError
	if !errors.As(err, &none) {
		t.Errorf("got %v, want a NoMatchError", err)
	}
}

func TestAnObjectStore(t *testing.T) {
	ctx := t.Context()
	store := objectstore.NewMemory()
	if err := store.MakeBucket(ctx, "bucket"); err != nil {
		t.Fatal(err)
	}
	put := func(key, text string) {
		if _, err := store.Put(ctx, "bucket", key, strings.NewReader(text), int64(len(text)), objectstore.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	put("in/a", "x y\n")
	put("in/b", "x")
	put("out/old", "to go")
	put("out/_SUCCESS", "{}")
	run := func(text string) error {
		put("in/c", text)
		_, err := local.Run(ctx, local.Config{Program: program(t, wordcount), Store: store, Dir: t.TempDir(),
			Spec: &api.JobSpec{Input: []string{"s3://bucket/in"}, Output: "s3://bucket/out/", Overwrite: true, SplitSize: 1 << 20}})
		return err
	}
	list := func() map[string]string {
		all := map[string]string{}
		for o, err := range store.List(ctx, "bucket", "out/", objectstore.ListOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			r, err := store.Get(ctx, "bucket", o.Key, 0, -1, "")
			if err != nil {
				t.Fatal(err)
			}
			data, _ := io.ReadAll(r)
			r.Close()
			all[o.Key] = string(data)
		}
		return all
	}
	if err := run("POISON"); err == nil {
		t.Fatal("a poisoned job succeeds")
	}
	if got := slices.Sorted(maps.Keys(list())); !slices.Equal(got, []string{"out/_SUCCESS", "out/old"}) {
		t.Errorf("after a failure: %v", got)
	}
	if uploads, err := store.ListUploads(ctx, "bucket", "out/part-r-00000"); err != nil || len(uploads) > 0 {
		t.Errorf("uploads left: %v, %v", uploads, err)
	}
	if err := run("y y"); err != nil {
		t.Fatal(err)
	}
	got := list()
	if !slices.Equal(slices.Sorted(maps.Keys(got)), []string{"out/_SUCCESS", "out/part-r-00000"}) || got["out/part-r-00000"] != "x\t2\ny\t3\n" {
		t.Errorf("output %v", got)
	}
}

func TestAnEmptyInputGivesEmptyParts(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/in", "")
	var seen []local.Progress
	r, err := local.Run(t.Context(), local.Config{Program: program(t, wordcount), Dir: dir,
		Spec: &api.JobSpec{Input: []string{dir + "/in"}, Output: dir + "/out"}, Progress: func(p local.Progress) { seen = append(seen, p) }})
	if err != nil || len(r.Parts) != 1 || r.OutputBytes != 0 {
		t.Fatalf("got %+v, %v", r, err)
	}
	if len(seen) == 0 || seen[len(seen)-1].ReducesDone != 1 {
		t.Errorf("progress %v", seen)
	}
	if got := names(t, dir+"/out"); !slices.Equal(got, []string{"_SUCCESS", "part-r-00000"}) {
		t.Errorf("output %v", got)
	}
}

func TestCompressedOutputHasItsNameAndCode(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/in", "x x\n")
	r, err := local.Run(t.Context(), local.Config{Program: program(t, wordcount), Dir: dir,
		Spec: &api.JobSpec{Input: []string{dir + "/in"}, Output: dir + "/out", Compress: "gzip"}})
	if err != nil || !strings.HasSuffix(r.Parts[0].Key, "part-r-00000.gz") {
		t.Fatalf("got %+v, %v", r, err)
	}
	// What was written can be read: by a job that copies.
	two, err := local.Run(t.Context(), local.Config{Program: program(t, mapreduce.Job{Map: func(c *mapreduce.Context, _, line []byte) error { c.Emit(line, nil); return nil }}), Dir: dir,
		Spec: &api.JobSpec{Input: []string{dir + "/out"}, Output: dir + "/copy"}})
	if err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(two.Parts[0].Key); string(data) != "x\t2\n" || !strings.HasSuffix(two.Parts[0].Key, "part-m-00000") {
		t.Errorf("%s has %q", two.Parts[0].Key, data)
	}
}

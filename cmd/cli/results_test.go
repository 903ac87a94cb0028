package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"millrace/cmd/cli/view"
	"millrace/pkg/objectstore"
)

func gz(s string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(s))
	w.Close()
	return b.Bytes()
}

func zst(s string) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err) // a test's own mistake
	}
	return w.EncodeAll([]byte(s), nil)
}

type part struct {
	name string
	data []byte
}

// outputSet puts parts and a _SUCCESS that names them, in that order.
func outputSet(t require.TestingT, parts ...part) objectstore.Store {
	ctx := context.Background()
	store := objectstore.NewMemory()
	require.NoError(t, store.MakeBucket(ctx, "output"))
	put := func(key string, data []byte) objectstore.Object {
		o, err := store.Put(ctx, "output", key, bytes.NewReader(data), int64(len(data)), objectstore.PutOptions{})
		require.NoError(t, err)
		return o
	}
	put("words/part-r-99999", []byte("left over by somebody\t1\n"))
	s := success{Job: "s-1"}
	for _, p := range parts {
		o := put("words/"+p.name, p.data)
		s.Parts = append(s.Parts, successPart{Key: "words/" + p.name, Size: int64(len(p.data)), ETag: o.ETag})
	}
	data, err := json.Marshal(s)
	require.NoError(t, err)
	put("words/_SUCCESS", data)
	return store
}

// showAs runs results over a store with flags.
func showAs(t *testing.T, store objectstore.Store, args ...string) output {
	t.Helper()
	var out, errs bytes.Buffer
	a := newApp(Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }, Home: t.TempDir()})
	a.json = wantsJSON(args)
	command := a.resultsCommand()
	a.commands = append(a.commands, a.leaf(spec{name: "probe", usage: "u", flags: command.Flags, do: func(c *call) error {
		return c.showResults(t.Context(), store, view.Job{ID: "s-1", Output: "s3://output/words/"})
	}}))
	inv, err := parse(a.commands, a.globals, append([]string{"probe"}, args...))
	require.NoError(t, err)
	code := 0
	if err := a.run(t.Context(), inv); err != nil {
		code = a.report(t.Context(), err)
	}
	return output{out.String(), errs.String(), code}
}

func TestResultsAreDecodedInTheOrderOfSUCCESS(t *testing.T) {
	store := outputSet(t, part{"part-r-00001.gz", gz("b\t2\n")}, part{"part-r-00000", []byte("a\t10\n")}, part{"part-r-00002.zst", zst("c\t9\n")}, part{"part-r-00003.gz", nil})
	require.Equal(t, "b\t2\na\t10\nc\t9\n", showAs(t, store).out)
	require.Equal(t, "a\t10\n", showAs(t, store, "--part", "1").out)
	require.Equal(t, "a\t10\nc\t9\n", showAs(t, store, "--top", "2").out, "by value as a number")
	require.JSONEq(t, `[{"key":"b","value":"2"},{"key":"a","value":"10"},{"key":"c","value":"9"}]`, showAs(t, store, "--json").out)
	require.JSONEq(t, `[{"key":"a","value":"10"}]`, showAs(t, store, "--top", "1", "--json").out)
	require.JSONEq(t, `[]`, showAs(t, outputSet(t), "--json").out)
	require.Equal(t, 4, showAs(t, store, "--part", "4").code)

	dir := t.TempDir()
	for range 2 { // again into the same folder: the same files
		require.Equal(t, 0, showAs(t, store, "--to", dir).code)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "part-r-00009"), nil, 0o644))
	o := showAs(t, store, "--to", dir)
	require.Equal(t, 2, o.code)
	require.Contains(t, o.err, "part-r-00009 in it, which is not of this result")
	for name, want := range map[string]string{"part-r-00000": "a\t10\n", "part-r-00001": "b\t2\n", "part-r-00002": "c\t9\n", "part-r-00003": ""} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
}

// A result that is not the one that was committed is an error, never silence.
func TestResultsThatChangedAreAnError(t *testing.T) {
	store := outputSet(t, part{"part-r-00000", []byte("a\t10\n")}, part{"part-r-00001.gz", gz(strings.Repeat("b\t2\n", 100))[:20]})
	o := showAs(t, store, "--part", "1")
	require.Equal(t, 1, o.code, "a truncated part")
	require.Contains(t, o.err, "millrace: ")

	_, err := store.Put(t.Context(), "output", "words/part-r-00000", strings.NewReader("z"), 1, objectstore.PutOptions{})
	require.NoError(t, err)
	o = showAs(t, store)
	require.Equal(t, 1, o.code)
	require.Contains(t, o.err, "s3://output/words/part-r-00000 is not what _SUCCESS names")

	require.NoError(t, store.Delete(t.Context(), "output", "words/_SUCCESS"))
	require.Contains(t, showAs(t, store).err, "has no _SUCCESS")
}

// The result of a job that was printed by run … - is not kept.
func TestResultsThatWerePrinted(t *testing.T) {
	store := objectstore.NewMemory()
	require.NoError(t, store.MakeBucket(t.Context(), "sys"))
	for output, want := range map[string]string{
		"s3://sys/stdout/output-abc/":      "the result of job s-1 went to standard output, and was not kept",
		"s3://sys/here/stdout/output-abc/": "the result of job s-1 went to standard output, and was not kept",
		"s3://sys/_millrace/output-abc/":   "the result of job s-1 went to standard output, and was not kept",
		"s3://sys/mystdout/output-abc/":    "has no _SUCCESS any more",
		"s3://sys/output-abc/":             "has no _SUCCESS any more",
	} {
		_, _, err := listParts(t.Context(), store, "s-1", output, -1)
		require.ErrorContains(t, err, want, output)
	}
}

// topRecords against a sort of everything.
func TestTopRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []keyValue
		var text strings.Builder
		for i := range rapid.IntRange(0, 50).Draw(t, "records") {
			n := rapid.IntRange(-5, 5).Draw(t, "n")
			kv := keyValue{fmt.Sprintf("k%02d", i), fmt.Sprint(n), float64(n)}
			all = append(all, kv)
			fmt.Fprintf(&text, "%s\t%s\n", kv.Key, kv.Value)
			if i%7 == 0 {
				text.WriteString("no number\tx\nno value\n")
			}
		}
		n := rapid.IntRange(1, 20).Draw(t, "top")
		store := outputSet(t, part{"part-r-00000", []byte(text.String())})
		bucket, parts, err := listParts(context.Background(), store, "s-1", "s3://output/words", -1)
		require.NoError(t, err)
		got, err := topRecords(context.Background(), store, bucket, parts, n)
		require.NoError(t, err)
		slices.SortStableFunc(all, func(a, b keyValue) int { return int(b.number - a.number) })
		require.Equal(t, append([]keyValue{}, all[:min(n, len(all))]...), got)
	})
}

func TestEachRecordTakesLongLinesAndALastOneWithoutNewline(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	var got []string
	require.NoError(t, eachRecord(strings.NewReader(long+"\tv\n\nalone\nk\ta\tb"), func(k, v []byte) error {
		got = append(got, string(k)+"="+string(v))
		return nil
	}))
	require.Equal(t, []string{long + "=v", "=", "alone=", "k=a\tb"}, got)
}

func TestAResultThatAnotherJobHasReplaced(t *testing.T) {
	store := outputSet(t, part{"part-r-00000", []byte("a\t1\n")})
	data := []byte(`{"job":"s-2","parts":[]}`)
	_, err := store.Put(t.Context(), "output", "words/_SUCCESS", bytes.NewReader(data), int64(len(data)), objectstore.PutOptions{})
	require.NoError(t, err)
	o := showAs(t, store)
	require.Equal(t, 1, o.code)
	require.Contains(t, o.err, "the result of job s-1 was replaced: s3://output/words/ is that of job s-2 now\nnext: millrace results s-2")
}

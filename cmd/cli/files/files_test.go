package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"millrace/pkg/objectstore"
)

func newFiles(t require.TestingT) (*Files, objectstore.Store) {
	s := objectstore.NewMemory()
	require.NoError(t, s.MakeBucket(context.Background(), "bkt"))
	return &Files{Store: func() (objectstore.Store, error) { return s, nil }}, s
}

func put(t require.TestingT, s objectstore.Store, key, data string) {
	_, err := s.Put(context.Background(), "bkt", key, strings.NewReader(data), int64(len(data)), objectstore.PutOptions{})
	require.NoError(t, err)
}

func parse(t require.TestingT, s string) Place {
	p, err := Parse(s)
	require.NoError(t, err)
	return p
}

// tree writes files below a new folder.
func tree(t *testing.T, files map[string]string) string {
	dir := t.TempDir()
	for name, data := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(data), 0o644))
	}
	return dir
}

func read(t *testing.T, dir string) map[string]string {
	out := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		rel, relErr := filepath.Rel(dir, path)
		out[filepath.ToSlash(rel)] = string(data)
		return errors.Join(err, relErr)
	}))
	return out
}

func TestParse(t *testing.T) {
	for s, want := range map[string]Place{
		"s3://bkt/a/b": {Bucket: "bkt", Path: "a/b"}, "s3a://bkt": {Bucket: "bkt"}, "s3n://bkt/": {Bucket: "bkt"},
		"s3://": {all: true}, "a/b": {Path: "a/b"}, "file:///x": {Path: "/x"},
	} {
		require.Equal(t, want, parse(t, s), s)
	}
	for _, s := range []string{"", "ftp://x", "s3:///x", "s3://UP CASE/x"} {
		_, err := Parse(s)
		require.Error(t, err, s)
	}
	require.Equal(t, Place{Bucket: "hdfs://", Path: "x/y"}, parse(t, "hdfs:///x//y"))
	require.Equal(t, Place{Bucket: "hdfs://other", Path: "x/"}, parse(t, "hdfs://other/x/"))
	_, err := new(Files).Stat(t.Context(), parse(t, "hdfs:///x"))
	require.ErrorIs(t, err, ErrNoHDFS)
}

// What put -r stores, get -r restores.
func TestATreeGoesThereAndBack(t *testing.T) {
	f, _ := newFiles(t)
	want := map[string]string{"a.txt": "a", "deep/er/b.txt": "b", "empty": "", "ümläut x": "u"}
	from := tree(t, want)
	var done atomic.Int64
	copyAll := func(from, to Place) {
		tasks, err := f.Plan(t.Context(), []Place{from}, to, true)
		require.NoError(t, err)
		require.NoError(t, f.Copy(t.Context(), tasks, &done))
	}
	copyAll(Place{Path: from}, parse(t, "s3://bkt/x/"))
	copyAll(parse(t, "s3://bkt/x"), parse(t, "s3://bkt/y/z"))
	back := filepath.Join(t.TempDir(), "back")
	copyAll(parse(t, "s3://bkt/y/z/"), Place{Path: back})
	require.Equal(t, want, read(t, back))
	require.EqualValues(t, 9, done.Load())
	bytes, n, err := f.Usage(t.Context(), parse(t, "s3://bkt"))
	require.NoError(t, err)
	require.EqualValues(t, []int64{6, 8}, []int64{bytes, n})
}

func TestPlan(t *testing.T) {
	f, s := newFiles(t)
	put(t, s, "d/a", "1")
	put(t, s, "d/sub/b", "2")
	put(t, s, "e/a", "3")
	put(t, s, "marker/", "")
	dir := t.TempDir()
	for _, test := range []struct {
		name string
		from []string
		to   string
		want map[string]string
	}{
		{"a file to a name", []string{"s3://bkt/d/a"}, "s3://bkt/new", map[string]string{"s3://bkt/d/a": "s3://bkt/new"}},
		{"a file to a folder", []string{"s3://bkt/d/a"}, "s3://bkt/new/", map[string]string{"s3://bkt/d/a": "s3://bkt/new/a"}},
		{"a file to a bucket", []string{"s3://bkt/d/a"}, "s3://bkt", map[string]string{"s3://bkt/d/a": "s3://bkt/a"}},
		{"a file to a folder that is there", []string{"s3://bkt/d/a"}, dir, map[string]string{"s3://bkt/d/a": dir + "/a"}},
		{"a file to a name that is not", []string{"s3://bkt/d/a"}, dir + "/x", map[string]string{"s3://bkt/d/a": dir + "/x"}},
		{"a folder: its content", []string{"s3://bkt/d"}, dir, map[string]string{"s3://bkt/d/a": dir + "/a", "s3://bkt/d/sub/b": dir + "/sub/b"}},
		{"folders: each under its name", []string{"s3://bkt/d", "s3://bkt/e"}, "s3://bkt/n", map[string]string{"s3://bkt/d/a": "s3://bkt/n/d/a", "s3://bkt/d/sub/b": "s3://bkt/n/d/sub/b", "s3://bkt/e/a": "s3://bkt/n/e/a"}},
		{"the marker of an empty folder", []string{"s3://bkt/marker"}, dir, map[string]string{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var from []Place
			for _, s := range test.from {
				from = append(from, parse(t, s))
			}
			tasks, err := f.Plan(t.Context(), from, parse(t, test.to), true)
			require.NoError(t, err)
			got := map[string]string{}
			for _, task := range tasks {
				got[task.From.String()] = task.To.String()
			}
			require.Equal(t, test.want, got)
		})
	}
}

// A key from a store must not write outside of the folder asked for.
func TestKeysCannotLeadOutOfTheFolder(t *testing.T) {
	f, s := newFiles(t)
	put(t, s, "d/../../evil", "x")
	_, err := f.Plan(t.Context(), []Place{parse(t, "s3://bkt/d/")}, Place{Path: t.TempDir()}, true)
	require.ErrorContains(t, err, "would lead out of")
}

func TestWhatIsNotThere(t *testing.T) {
	f, s := newFiles(t)
	put(t, s, "d/a", "1")
	var missing *NotFoundError
	var bucket *MissingBucketError
	var folder *FolderError
	for _, p := range []string{"s3://bkt/nope", "s3://bkt/nope/", "s3://bkt/d/a/", "./nope"} {
		_, err := f.Stat(t.Context(), parse(t, p))
		require.ErrorAs(t, err, &missing, p)
		_, err = f.Open(t.Context(), parse(t, "s3://bkt/nope"))
		require.ErrorAs(t, err, &missing, p)
	}
	for e, err := range f.List(t.Context(), parse(t, "s3://other/"), false) {
		require.ErrorAs(t, err, &bucket, e)
	}
	_, err := f.Stat(t.Context(), parse(t, "s3://other/x"))
	require.ErrorAs(t, err, &bucket)
	require.ErrorAs(t, f.Write(t.Context(), parse(t, "s3://other/x"), strings.NewReader("x"), 1), &bucket)
	_, err = f.Plan(t.Context(), []Place{parse(t, "s3://bkt/d")}, Place{Path: "x"}, false)
	require.ErrorAs(t, err, &folder)
	_, err = f.Remove(t.Context(), parse(t, "s3://bkt/d"), false)
	require.ErrorAs(t, err, &folder)
	_, err = f.Stat(t.Context(), parse(t, "s3://bkt"))
	require.NoError(t, err, "a bucket is there even when it is empty")
}

func TestRemove(t *testing.T) {
	f, s := newFiles(t)
	for i := range 2500 {
		put(t, s, "many/"+strings.Repeat("x", i%7)+string(rune('a'+i%26))+strings.Repeat("y", i/26), "")
	}
	put(t, s, "manyother", "")
	n, err := f.Remove(t.Context(), parse(t, "s3://bkt/many"), true)
	require.NoError(t, err)
	require.Greater(t, n, 1000)
	var left []string
	for e, err := range f.List(t.Context(), parse(t, "s3://bkt"), true) {
		require.NoError(t, err)
		left = append(left, e.Place.String())
	}
	require.Equal(t, []string{"s3://bkt/manyother"}, left)
}

func TestExpand(t *testing.T) {
	f, s := newFiles(t)
	for _, k := range []string{"o/part-0", "o/part-1", "o/_SUCCESS", "o/sub/part-2", "o/[x]"} {
		put(t, s, k, "")
	}
	for pattern, want := range map[string]string{
		"s3://bkt/o/part-*":              "s3://bkt/o/part-0 s3://bkt/o/part-1",
		"s3://bkt/o/**/part-*":           "s3://bkt/o/part-0 s3://bkt/o/part-1 s3://bkt/o/sub/part-2",
		"s3://bkt/o/{part-1,_SUCC*}":     "s3://bkt/o/_SUCCESS s3://bkt/o/part-1",
		"s3://bkt/o/[x]":                 "s3://bkt/o/[x]",
		"s3://bkt/o/part-0":              "s3://bkt/o/part-0",
		"local/*":                        "local/*",
		"s3://bkt/o/nothing-of-the-name": "s3://bkt/o/nothing-of-the-name",
	} {
		got, err := f.Expand(t.Context(), parse(t, pattern))
		require.NoError(t, err)
		var words []string
		for _, p := range got {
			words = append(words, p.String())
		}
		require.Equal(t, want, strings.Join(words, " "), pattern)
	}
	var missing *NotFoundError
	_, err := f.Expand(t.Context(), parse(t, "s3://bkt/z*"))
	require.ErrorAs(t, err, &missing)
}

// A stream of unknown length comes out as it went in, whatever its length around a part's border.
func TestStreams(t *testing.T) {
	f, _ := newFiles(t)
	for _, n := range []int{0, 1, firstPart - 1, firstPart, firstPart + 1, 3*firstPart + 5} {
		data := bytes.Repeat([]byte{byte(n), 1, 2}, n/3+1)[:n]
		for _, size := range []int64{-1, int64(n)} {
			require.NoError(t, f.Write(t.Context(), parse(t, "s3://bkt/stream"), iotest.HalfReader(bytes.NewReader(data)), size))
			r, err := f.Open(t.Context(), parse(t, "s3://bkt/stream"))
			require.NoError(t, err)
			got, err := io.ReadAll(r)
			require.NoError(t, err)
			require.True(t, bytes.Equal(data, got), n)
		}
	}
}

// A copy that fails leaves nothing: no object, no upload, no file.
func TestAFailedCopyLeavesNothing(t *testing.T) {
	f, s := newFiles(t)
	broken := func(n int) io.Reader {
		return io.MultiReader(bytes.NewReader(make([]byte, n)), iotest.ErrReader(errors.New("the disk is gone")))
	}
	for _, n := range []int{0, 10, 2*firstPart + 1} {
		err := f.Write(t.Context(), parse(t, "s3://bkt/x"), broken(n), -1)
		require.ErrorContains(t, err, "the disk is gone")
	}
	require.ErrorContains(t, f.Write(t.Context(), parse(t, "s3://bkt/x"), strings.NewReader("short"), 99), "it changed while it was read")
	require.Error(t, f.Write(t.Context(), parse(t, "s3://bkt/x"), bytes.NewReader(make([]byte, firstPart+1)), firstPart+9))
	_, err := s.Head(t.Context(), "bkt", "x")
	require.ErrorIs(t, err, objectstore.ErrNotExist)
	uploads, err := s.ListUploads(t.Context(), "bkt", "x")
	require.NoError(t, err)
	require.Empty(t, uploads)
	dir := t.TempDir()
	require.Error(t, f.Write(t.Context(), Place{Path: filepath.Join(dir, "x")}, broken(10), -1))
	require.Empty(t, read(t, dir))
}

func TestAFileIsNotCopiedOntoItself(t *testing.T) {
	f, _ := newFiles(t)
	dir := tree(t, map[string]string{"a": "precious"})
	var itself *OntoItselfError
	_, err := f.Plan(t.Context(), []Place{{Path: dir + "/a"}}, Place{Path: dir}, false)
	require.ErrorAs(t, err, &itself)
	require.ErrorAs(t, f.Copy(t.Context(), []Task{{From: Place{Path: dir + "/a"}, To: Place{Path: dir + "/a"}}}, nil), &itself)
	require.Equal(t, map[string]string{"a": "precious"}, read(t, dir))
}

func TestAFolderIsNotCopiedIntoItself(t *testing.T) {
	f, s := newFiles(t)
	_, err := s.Put(t.Context(), "bkt", "x/a", strings.NewReader("1"), 1, objectstore.PutOptions{})
	require.NoError(t, err)
	dir := tree(t, map[string]string{"a": "precious", "b/c": "too"})
	for _, test := range []struct {
		from, to string
		refused  bool
	}{
		{"s3://bkt/x/", "s3://bkt/x/sub/", true},
		{"s3://bkt/x", "s3://bkt/x", true},
		{"s3://bkt/", "s3://bkt/y/", true},
		{"s3://bkt/x/", "s3://bkt/xy/", false},
		{dir, dir + "/new/deep", true},
		{dir, dir + "/", true},
		{dir + "/b", dir + "/bc", false},
	} {
		_, err := f.Plan(t.Context(), []Place{parse(t, test.from)}, parse(t, test.to), true)
		var itself *OntoItselfError
		require.Equal(t, test.refused, errors.As(err, &itself), "%s to %s: %v", test.from, test.to, err)
	}
}

func TestASchemeWithoutItsSlashesIsNoLocalFile(t *testing.T) {
	for in, meant := range map[string]string{"s3:/b": "s3://b", "s3:b/k": "s3://b/k", "hdfs:/x": "hdfs:///x"} {
		_, err := Parse(in)
		var scheme *SchemeError
		require.ErrorAs(t, err, &scheme)
		require.Equal(t, meant, scheme.Meant)
	}
	p, err := Parse("./s3:/b")
	require.NoError(t, err)
	require.Equal(t, "./s3:/b", p.Path)
}

// 10,000 parts hold S3's largest object, and no part is larger than S3 takes.
func TestPartSizes(t *testing.T) {
	var sum int64
	for n := 1; n <= maxParts; n++ {
		require.LessOrEqual(t, partSize(n, -1), int64(5<<30))
		sum += partSize(n, -1)
	}
	require.GreaterOrEqual(t, sum, int64(5<<40))
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(0, 5<<40).Draw(t, "size")
		require.GreaterOrEqual(t, partSize(1, size)*maxParts, size)
	})
}

// More than one page, more than one batch.
func TestFoldersOfManyFilesAreCountedAndRemoved(t *testing.T) {
	m := objectstore.NewMemory()
	if err := m.MakeBucket(t.Context(), "bucket"); err != nil {
		t.Fatal(err)
	}
	for i := range 3500 {
		if _, err := m.Put(t.Context(), "bucket", fmt.Sprintf("in/%d/%d", i%7, i), strings.NewReader("xx"), 2, objectstore.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	f := &Files{Store: func() (objectstore.Store, error) { return m, nil }}
	p := Place{Bucket: "bucket", Path: "in/"}
	if bytes, n, err := f.Usage(t.Context(), p); bytes != 7000 || n != 3500 || err != nil {
		t.Errorf("%d bytes, %d files, %v", bytes, n, err)
	}
	m.Fault = func(op, _, _ string) error {
		if op == "Delete" {
			return objectstore.ErrDenied
		}
		return nil
	}
	if n, err := f.Remove(t.Context(), p, true); n != 0 || !errors.Is(err, objectstore.ErrDenied) {
		t.Errorf("%d removed, %v", n, err)
	}
	m.Fault = nil
	if n, err := f.Remove(t.Context(), p, true); n != 3500 || err != nil {
		t.Errorf("%d removed, %v", n, err)
	}
	if _, _, err := f.Usage(t.Context(), p); err == nil {
		t.Error("something is left")
	}
}

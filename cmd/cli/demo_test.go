package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
)

// What lies in the store is text, of several objects, and enough of it, however little was found.
func TestDemoTextIsEnough(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.go"), []byte("package a"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "b.go"), []byte("a\x00binary"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "c.bin"), []byte("not wanted"), 0o644))
	for name, sources := range map[string][]textSource{
		"a small folder": {{"nowhere", filepath.Join(dir, "none"), extension(".go")}, {"a small folder", dir, extension(".go")}},
		"no text was":    nil,
	} {
		store := objectstore.NewMemory()
		require.NoError(t, store.MakeBucket(t.Context(), "demo"))
		what, n, total, err := uploadText(t.Context(), store, "demo", "input/", sources)
		require.NoError(t, err)
		require.Contains(t, what, name)
		require.GreaterOrEqual(t, total, int64(enough))
		var sum int64
		keys := 0
		for o, err := range store.List(t.Context(), "demo", "input/", objectstore.ListOptions{}) {
			require.NoError(t, err)
			sum, keys = sum+o.Size, keys+1
		}
		require.Equal(t, total, sum)
		require.Equal(t, n, keys)
		require.Greater(t, keys, 2)
	}
}

func TestDemoTextEndsWithItsContext(t *testing.T) {
	store := objectstore.NewMemory()
	require.NoError(t, store.MakeBucket(t.Context(), "demo"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, _, err := uploadText(ctx, store, "demo", "input/", []textSource{{"here", ".", extension(".go")}})
	require.ErrorIs(t, err, context.Canceled)
}

func TestLocalJobs(t *testing.T) {
	s := newSession(t)
	dir := t.TempDir()
	in := filepath.Join(dir, "in.txt")
	require.NoError(t, os.WriteFile(in, []byte("b a\na\n"), 0o644))
	o := s.run("run", "wordcount", in, "-", "--local")
	require.Equal(t, 0, o.code, o.err)
	require.Equal(t, "a\t2\nb\t1\n", o.out)
	o = s.run("run", "--mapper", "tr ' ' '\\n'", "--reducer", "uniq -c", in, "-", "--local")
	require.Equal(t, 0, o.code, o.err)
	require.Equal(t, []string{"2", "a", "1", "b"}, strings.Fields(o.out))

	out := filepath.Join(dir, "out")
	job := s.run("run", "grep", in, out, "--local", "--json", "--", "-F", "b").json(t).(map[string]any)
	require.Equal(t, "COMPLETED", job["state"])
	require.EqualValues(t, 1, job["outputRecords"])
	o = s.run("run", "grep", in, out, "--local", "--", "b")
	require.Equal(t, 2, o.code, "the output is taken: %s", o.err)
	require.Equal(t, 2, s.run("run", "cat", filepath.Join(dir, "none"), filepath.Join(dir, "x"), "--local").code)
	o = s.run("run", "--mapper", "echo sorry >&2; exit 3", in, filepath.Join(dir, "x"), "--local")
	require.Equal(t, 1, o.code, o.err)
	require.Contains(t, o.err, "sorry")
	require.NoFileExists(t, filepath.Join(dir, "x"))
	o = s.run("run", "--mapper", "sleep 100", in, filepath.Join(dir, "x"), "--local", "--timeout", "50ms")
	require.Equal(t, 124, o.code, o.err)
}

func TestFilesOnThisMachine(t *testing.T) {
	s := newSession(t)
	s.in = "from stdin\n"
	dir := t.TempDir()
	require.Equal(t, 0, s.run("fs", "cp", "-", filepath.Join(dir, "a")).code)
	require.Equal(t, 0, s.run("fs", "cp", "-r", dir, filepath.Join(dir, "..", "copy")).code)
	require.Equal(t, "from stdin\n", s.run("fs", "cat", filepath.Join(dir, "..", "copy", "a")).out)
	list := s.run("fs", "ls", dir, "--json").json(t).([]any)
	require.Len(t, list, 1)
	entry := list[0].(map[string]any)
	require.Equal(t, filepath.Join(dir, "a"), entry["path"])
	require.EqualValues(t, 11, entry["size"])
	require.Equal(t, false, entry["directory"])
	require.Equal(t, 0, s.run("fs", "mv", filepath.Join(dir, "a"), filepath.Join(dir, "b")).code)
	require.Equal(t, 4, s.run("fs", "cat", filepath.Join(dir, "a")).code)
	require.Equal(t, 2, s.run("fs", "rm", dir).code, "a folder, without -r")
	require.Equal(t, 0, s.run("fs", "rm", filepath.Join(dir, "b")).code)
	require.Equal(t, 2, s.run("fs", "put", dir, dir).code, "not in object storage")
	require.Equal(t, 2, s.run("fs", "rm", "-r", "s3://", "--s3", "http://127.0.0.1:9", "--s3-access-key", "a", "--s3-secret-key", "b").code)
}

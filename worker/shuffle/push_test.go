package shuffle

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"
	"pgregory.net/rapid"

	"millrace/pkg/api"
)

func TestAPushedSegmentIsVerifiedAndServed(t *testing.T) {
	n := newNode(t, "i-a")
	path := filepath.Join(t.TempDir(), "seg")
	want, x := segment(t, path, 2, 300, 0)
	ctx := context.Background()
	push := func() error { return Push(ctx, n.srv.Client(), n.srv.URL, job, attemptOf(0), path, x.Digest()) }
	require.NoError(t, push())
	require.NoError(t, push(), "again is no harm: an answer may get lost")
	require.Equal(t, []*api.HeldSegment{{Job: job, Map: 0, Attempt: attemptOf(0)}}, n.store.Held())
	r := startReduce(t, n, 1)
	r.Update([]*api.SegmentLocation{{Map: 0, Attempt: attemptOf(0), Node: "i-a", Address: n.srv.URL, Digest: x.Digest()}}, nil)
	r.check(map[int][][]string{0: want})

	require.NoError(t, Discard(ctx, n.srv.Client(), n.srv.URL, job, attemptOf(0)))
	require.Empty(t, n.store.Held())
	require.NoError(t, Discard(ctx, n.srv.Client(), n.srv.URL, job, attemptOf(0)))
}

func TestAPushThatIsNotRightIsRefusedAndLeavesNothing(t *testing.T) {
	n := newNode(t, "i-a")
	path := filepath.Join(t.TempDir(), "seg")
	_, x := segment(t, path, 2, 300, 0)
	ctx := context.Background()
	require.ErrorContains(t, Push(ctx, n.srv.Client(), n.srv.URL, job, attemptOf(0), path, x.Digest()+1), "another digest")
	require.Error(t, Push(ctx, n.srv.Client(), n.srv.URL, job, "s-OTHER-m-00000-1-1", path, x.Digest()))
	require.Error(t, Push(ctx, n.srv.Client(), n.srv.URL, job, job+"-r-00000-1-1", path, x.Digest()))

	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, data[:len(data)-1], 0o600))
	require.ErrorContains(t, Push(ctx, n.srv.Client(), n.srv.URL, job, attemptOf(0), path, x.Digest()), "corrupt")

	// Bytes that change on their way do not match the sum.
	flip := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Set(headerSize, "5")
			h.ServeHTTP(w, r)
		})
	}
	n.wrap.Store(&flip)
	require.ErrorContains(t, Push(ctx, n.srv.Client(), n.srv.URL, job, attemptOf(0), path, x.Digest()), "not the 5 announced")
	n.wrap.Store(nil)
	req := httptest.NewRequest("PUT", "/v1/segments/"+job+"/"+attemptOf(0), strings.NewReader("abc"))
	req.Header.Set(headerSize, "3")
	req.Header.Set(headerDigest, "0")
	req.Trailer = http.Header{headerSum: {"12345"}}
	w := httptest.NewRecorder()
	mux := http.NewServeMux()
	NewServer(n.store, zaptest.NewLogger(t)).Register(mux)
	mux.ServeHTTP(w, req)
	require.Equal(t, http.StatusUnprocessableEntity, w.Code)
	require.Contains(t, w.Body.String(), "checksum")

	require.Empty(t, n.store.Held())
	left, err := os.ReadDir(filepath.Join(n.store.dir, incoming))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestAStoreIsFoundAgain(t *testing.T) {
	n := newNode(t, "i-a")
	for m := range 3 {
		n.add(m, 1, 1)
	}
	require.NoError(t, n.store.Drop(job, attemptOf(1)))
	for _, litter := range []string{incoming + "/half", job + "/half.tmp", job + "/readme.seg"} {
		require.NoError(t, os.WriteFile(filepath.Join(n.store.dir, litter), nil, 0o600))
	}
	again := NewStore(n.store.dir)
	require.NoError(t, again.Open())
	require.Equal(t, n.store.Held(), again.Held())
	require.Len(t, again.Held(), 2)
	require.NoError(t, again.Forget(job))
	require.Empty(t, again.Held())
	require.NoDirExists(t, filepath.Join(again.dir, job))
	require.NoError(t, again.Forget("../x"))
}

func TestIndexesInMemoryAreBounded(t *testing.T) {
	n := newNode(t, "i-a")
	n.store.entries = maxIndexes - 5
	n.add(0, 3, 1)
	n.add(1, 3, 1)
	n.add(2, 3, 1)
	require.LessOrEqual(t, n.store.entries, maxIndexes)
	for m := range 3 {
		_, err := n.store.Locate(job, attemptOf(m), 2)
		require.NoError(t, err)
	}
}

func TestNamesFromTheNetworkStayInTheirDirectory(t *testing.T) {
	for name, ok := range map[string]bool{
		"s-ABC": true, "s-A-m-00001-7-1": true, "": false, ".": false, "..": false, "a/b": false, ".incoming": false,
		"a\x00b": false, strings.Repeat("a", 129): false, "i-0.x": true,
	} {
		require.Equal(t, ok, ValidName(name), "%q", name)
	}
	for attempt, want := range map[string]int32{
		job + "-m-00012-3-1": 12, job + "-m-x": -1, job + "-r-00001-1-1": -1, "s-OTHER-m-00001-1-1": -1, job + "-m--1": -1,
	} {
		got, ok := MapOf(job, attempt)
		require.Equal(t, want >= 0, ok, attempt)
		if ok {
			require.Equal(t, want, got)
		}
	}
}

func TestFramesAreReadAsTheyWereWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var buf strings.Builder
		var want []frame
		for range rapid.IntRange(0, 5).Draw(t, "frames") {
			f := frame{Map: rapid.Int32Min(0).Draw(t, "map"), Attempt: rapid.StringN(0, 40, 80).Draw(t, "attempt"),
				Length: rapid.Int64Min(0).Draw(t, "length"), Digest: rapid.Uint64().Draw(t, "digest"), Checksum: rapid.Uint64().Draw(t, "sum")}
			want = append(want, f)
			if err := writeLine(&buf, f); err != nil {
				t.Fatal(err)
			}
		}
		r := bufio.NewReaderSize(strings.NewReader(buf.String()), maxLine)
		for _, w := range want {
			got, err := readFrame(r)
			if err != nil || got != w {
				t.Fatalf("%+v is read as %+v, %v", w, got, err)
			}
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte(`{"map":1,"attempt":"a","length":5}` + "\nhello"))
	f.Add([]byte("{}\n"))
	f.Add([]byte(strings.Repeat("x", maxLine+1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := readFrame(bufio.NewReaderSize(strings.NewReader(string(data)), maxLine))
		if err == nil && (h.Length < h.Offset || h.Offset < 0 || h.Map < 0) {
			t.Fatalf("%+v is taken", h)
		}
	})
}

//go:build cluster

package clustertest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
)

// text makes n bytes of text from a seed: words of a skewed vocabulary, lines of
// many lengths, some of them with carriage returns, a last line without newline.
func text(seed int64, n int) []byte {
	r := rand.New(rand.NewSource(seed))
	zipf := rand.NewZipf(r, 1.2, 4, 50000)
	var b bytes.Buffer
	for b.Len() < n {
		for range r.Intn(20) {
			fmt.Fprintf(&b, "w%d", zipf.Uint64())
			b.WriteString([]string{" ", "  ", "\t"}[r.Intn(3)])
		}
		b.WriteString([]string{"\n", "\n", "\r\n"}[r.Intn(3)])
	}
	b.WriteString("the end")
	return b.Bytes()
}

// corpus is input of many shapes, and the truth about it.
type corpus struct {
	objects map[string][]byte // by key, as stored
	counts  map[string]int64  // of words
	lines   int64
}

// newCorpus makes several objects: large, small, empty, gzipped, without a last newline.
func newCorpus(seed int64, size int) corpus {
	c := corpus{objects: map[string][]byte{}, counts: map[string]int64{}}
	add := func(key string, content []byte) {
		for _, line := range strings.Split(strings.TrimSuffix(string(content), "\n"), "\n") {
			if len(content) > 0 {
				c.lines++
			}
			for _, w := range strings.Fields(line) {
				c.counts[w]++
			}
		}
		c.objects[key] = content
	}
	add("in/a-large.txt", text(seed, size*6/10))
	add("in/b-large.txt", text(seed+1, size*3/10))
	for i := range 5 {
		add(fmt.Sprintf("in/small/%d.txt", i), text(seed+10+int64(i), size/100))
	}
	add("in/empty", nil)
	zipped := text(seed+2, size/10)
	add("in/z.gz", zipped)
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(zipped)
	w.Close()
	c.objects["in/z.gz"] = z.Bytes()
	c.objects["in/_hidden"] = []byte("not to be read")
	c.objects["in/.hidden"] = []byte("not to be read")
	return c
}

// put stores the corpus in a bucket, made if missing.
func (p corpus) put(t testing.TB, c *cluster, bucket string) {
	t.Helper()
	ctx := context.Background()
	s := c.store()
	if err := s.MakeBucket(ctx, bucket); err != nil {
		require.ErrorIs(t, err, objectstore.ErrExists)
	}
	for key, content := range p.objects {
		_, err := s.Put(ctx, bucket, key, bytes.NewReader(content), int64(len(content)), objectstore.PutOptions{})
		require.NoError(t, err)
	}
}

// manifest is _SUCCESS.
type manifest struct {
	Job     string         `json:"job"`
	Parts   []manifestPart `json:"parts"`
	Records int64          `json:"records"`
	Ledger  struct {
		SegmentRecords, FetchedRecords int64
		Checksum                       string
	} `json:"ledger"`
}

type manifestPart struct {
	Key     string `json:"key"`
	Size    int64  `json:"size"`
	ETag    string `json:"etag"`
	Records int64  `json:"records"`
}

// readOutput reads the output set below a prefix as a careful reader does: what
// _SUCCESS names; and checks that nothing else is there, no unfinished upload neither.
func readOutput(t testing.TB, c *cluster, bucket, prefix string) (manifest, []string) {
	t.Helper()
	return readSet(t, c.store(), bucket, prefix)
}

// readSet does so with a client of the store.
func readSet(t testing.TB, s objectstore.Store, bucket, prefix string) (manifest, []string) {
	t.Helper()
	ctx := context.Background()
	var m manifest
	require.NoError(t, json.Unmarshal(get(t, s, bucket, prefix+"_SUCCESS"), &m))
	named := map[string]bool{prefix + "_SUCCESS": true}
	var lines []string
	for _, p := range m.Parts {
		named[p.Key] = true
		data := get(t, s, bucket, p.Key)
		require.EqualValues(t, p.Size, len(data), p.Key)
		head, err := s.Head(ctx, bucket, p.Key)
		require.NoError(t, err)
		require.Equal(t, head.ETag, p.ETag, p.Key)
		here := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
		if len(data) == 0 {
			here = nil
		}
		require.EqualValues(t, p.Records, len(here), p.Key)
		lines = append(lines, here...)
		requireNoUploads(t, s, bucket, p.Key)
	}
	require.EqualValues(t, m.Records, len(lines))
	for o, err := range s.List(ctx, bucket, prefix, objectstore.ListOptions{}) {
		require.NoError(t, err)
		require.True(t, named[o.Key], "%s is there, and _SUCCESS does not name it", o.Key)
	}
	return m, lines
}

// requireNothing checks that neither objects nor unfinished uploads lie below a prefix.
func requireNothing(t testing.TB, c *cluster, bucket, prefix string) {
	t.Helper()
	ctx := context.Background()
	s := c.store()
	for o, err := range s.List(ctx, bucket, prefix, objectstore.ListOptions{}) {
		require.NoError(t, err)
		t.Errorf("%s is left", o.Key)
	}
	for i := range 16 {
		for _, name := range []string{"part-r-%05d", "part-m-%05d", "part-%05d"} {
			requireNoUploads(t, s, bucket, prefix+fmt.Sprintf(name, i))
		}
	}
}

// requireNoUploads checks that no upload of a key is unfinished. A MinIO that dies between putting an
// object in its place and removing what the upload was made of lists that for a day, and says
// of it that there is no such upload: nobody can abort it, and it holds nothing.
func requireNoUploads(t testing.TB, s objectstore.Store, bucket, key string) {
	t.Helper()
	ctx := context.Background()
	left, err := s.ListUploads(ctx, bucket, key)
	require.NoError(t, err)
	for _, u := range left {
		_, err := s.ListParts(ctx, bucket, key, u.ID)
		require.ErrorIs(t, err, objectstore.ErrNoSuchUpload, "unfinished upload %s of %s", u.ID, key)
		if err := s.AbortUpload(ctx, bucket, key, u.ID); err != nil { // else it has come round to removing it
			require.ErrorIs(t, err, objectstore.ErrNoSuchUpload, key)
		}
		t.Logf("the store lists upload %s of %s, of which it knows nothing", u.ID, key)
	}
}

// requireCounts compares lines of "word TAB count" with the truth.
func requireCounts(t testing.TB, want map[string]int64, lines []string) {
	t.Helper()
	got := map[string]int64{}
	for _, l := range lines {
		word, count, ok := strings.Cut(l, "\t")
		require.True(t, ok, "no tab in %q", l)
		_, twice := got[word]
		require.False(t, twice, "%q comes twice", word)
		n, err := strconv.ParseInt(count, 10, 64)
		require.NoError(t, err)
		got[word] = n
	}
	if len(got) == len(want) {
		same := true
		for w, n := range want {
			same = same && got[w] == n
		}
		if same {
			return
		}
	}
	var wrong []string
	for w, n := range want {
		if got[w] != n {
			wrong = append(wrong, fmt.Sprintf("%s: want %d, got %d", w, n, got[w]))
		}
	}
	sort.Strings(wrong)
	t.Fatalf("%d words, want %d; %d differ, as %v", len(got), len(want), len(wrong), wrong[:min(5, len(wrong))])
}

func get(t testing.TB, s objectstore.Store, bucket, key string) []byte {
	t.Helper()
	r, err := s.Get(context.Background(), bucket, key, 0, -1, "")
	require.NoError(t, err, key)
	defer r.Close()
	data, err := io.ReadAll(r)
	require.NoError(t, err, key)
	return data
}

// script writes an executable file and returns its path.
func script(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o755))
	return path
}

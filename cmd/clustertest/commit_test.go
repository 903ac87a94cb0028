//go:build cluster

package clustertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/faultproxy"
)

// commitWatch holds one request of the commit of one output set.
type commitWatch struct {
	mu      sync.Mutex
	prefix  string // of the output being watched
	begun   bool   // the commit has made its first request
	over    bool   // … and has put its _SUCCESS: what comes then are readers
	count   int
	target  int // the request to hold; 0: none
	after   bool
	held    chan string   // tells that it is held, and what it is
	release chan struct{} // closed to let it go
}

// masters are the requests that only a leader makes; the first two begin a commit.
var masters = []faultproxy.Op{faultproxy.ListParts, faultproxy.Delete, faultproxy.CompleteUpload, faultproxy.Head, faultproxy.Put,
	faultproxy.DeleteObjects, faultproxy.List, faultproxy.ListUploads, faultproxy.AbortUpload}

func (w *commitWatch) aim(prefix string, target int, after bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.prefix, w.target, w.after = prefix, target, after
	w.begun, w.over, w.count = false, false, 0
	w.held, w.release = make(chan string, 1), make(chan struct{})
}

func (w *commitWatch) hook(r faultproxy.Request) faultproxy.Fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.prefix == "" || w.over || r.Bucket != "data" || !slices.Contains(masters, r.Op) ||
		r.Op != faultproxy.DeleteObjects && !strings.HasPrefix(r.Key+r.Prefix, w.prefix) {
		return faultproxy.Fault{}
	}
	w.begun = w.begun || r.Op == faultproxy.ListParts || r.Op == faultproxy.Delete
	if !w.begun {
		return faultproxy.Fault{}
	}
	w.count++
	w.over = w.target == 0 && r.Op == faultproxy.Put
	if w.count != w.target {
		return faultproxy.Fault{}
	}
	held, release, what := w.held, w.release, fmt.Sprintf("%s %s", r.Op, r.Key+r.Prefix)
	hold := func(ctx context.Context) error {
		held <- what
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if w.after {
		return faultproxy.Fault{After: hold}
	}
	return faultproxy.Fault{Before: hold}
}

func (w *commitWatch) requests() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

// truths are the right output sets, by job.
type truths struct {
	mu   sync.Mutex
	sets map[string]map[string]string // job → key → content
}

func (x *truths) of(job, key string) (string, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	set, ok := x.sets[job]
	return set[key], ok
}

// reader lists an output prefix and reads what _SUCCESS names, over and over, until stop is
// closed. It counts its checks and returns the first wrong thing it saw.
type outputReader struct {
	store  objectstore.Store
	truths *truths
	checks atomic.Int64
}

func (r *outputReader) run(ctx context.Context, prefix string) error {
	for ctx.Err() == nil {
		if err := r.look(ctx, prefix); err != nil && ctx.Err() == nil && !errors.Is(err, objectstore.ErrUnreachable) {
			return err
		}
	}
	return nil
}

func (r *outputReader) read(ctx context.Context, key string) (string, string, error) {
	h, err := r.store.Head(ctx, "data", key)
	if err != nil {
		return "", "", err
	}
	body, err := r.store.Get(ctx, "data", key, 0, -1, h.ETag)
	if err != nil {
		return "", "", err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	return string(data), h.ETag, err
}

// look reads the set once. A part may differ from what _SUCCESS says only if _SUCCESS, read
// again, is gone or another.
func (r *outputReader) look(ctx context.Context, prefix string) error {
	for _, err := range r.store.List(ctx, "data", prefix, objectstore.ListOptions{}) {
		if err != nil {
			return err
		}
	}
	text, etag, err := r.read(ctx, prefix+"_SUCCESS")
	if errors.Is(err, objectstore.ErrNotExist) || errors.Is(err, objectstore.ErrPrecondition) {
		return nil
	}
	if err != nil {
		return err
	}
	wrong := func(what string) error {
		switch _, again, err := r.read(ctx, prefix+"_SUCCESS"); {
		case errors.Is(err, objectstore.ErrNotExist), errors.Is(err, objectstore.ErrPrecondition), err == nil && again != etag:
			return nil
		case err != nil:
			return err
		}
		return fmt.Errorf("a reader saw %s, and _SUCCESS was %s all the time", what, text)
	}
	var m manifest
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return fmt.Errorf("a reader saw a _SUCCESS that is no JSON: %q", text)
	}
	for _, p := range m.Parts {
		data, partTag, err := r.read(ctx, p.Key)
		if errors.Is(err, objectstore.ErrNotExist) || errors.Is(err, objectstore.ErrPrecondition) {
			return wrong("no " + p.Key)
		}
		if err != nil {
			return err
		}
		want, known := r.truths.of(m.Job, p.Key)
		if int64(len(data)) != p.Size || partTag != p.ETag || known && data != want {
			return wrong(fmt.Sprintf("another %s: %q", p.Key, data))
		}
	}
	r.checks.Add(1)
	return nil
}

// commitKind is a kind of job whose commit is struck.
type commitKind struct {
	name      string
	args      []string
	overwrite bool
}

func commitKinds() []commitKind {
	return []commitKind{
		{"overwrite", []string{"wordcount", "--reduces", "2", "--overwrite"}, true},
		{"plain", []string{"wordcount", "--reduces", "3"}, false},
		{"map only", []string{"cat", "--split-size", "16"}, false},
	}
}

// commitInput gives each word once in two lines of 16 bytes: two splits.
const commitInput, oldInput = "one two three 4\nfive six seven 8\n", "quite another te\n"

// want is the truth about a job's output, made without the engine: a set of lines.
func (k commitKind) want(input string) []string {
	var lines []string
	for line := range strings.Lines(input) {
		if k.name == "map only" {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
			continue
		}
		for _, w := range strings.Fields(line) {
			lines = append(lines, w+"\t1")
		}
	}
	slices.Sort(lines)
	return lines
}

// TestKillAtEveryRequestOfACommit: the master, or the store, is killed at each request of a commit in turn, once
// before the store has heard of it and once after it was carried out and before its answer is known. The
// job completes, with the right set and nothing else, and a reader never sees a wrong one.
// CI strikes the commit that has every kind of request, and the others with MILLRACE_NIGHTLY set.
func TestKillAtEveryRequestOfACommit(t *testing.T) {
	for _, store := range []string{"embedded", "minio"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			w := &commitWatch{}
			s := startStore(t, store, w.hook)
			require.NoError(t, s.direct.MakeBucket(t.Context(), "data"))
			s.put("data", "in/a", commitInput)
			s.put("data", "old/a", oldInput)
			for _, kind := range commitKinds() {
				if kind.name != "overwrite" && os.Getenv("MILLRACE_NIGHTLY") == "" {
					continue
				}
				t.Run(kind.name, func(t *testing.T) {
					strikes, checks := strikeCommits(t, s, w, kind)
					t.Logf("%s, %s: struck at %d requests; a reader looked %d times", store, kind.name, strikes, checks)
				})
			}
		})
	}
}

func strikeCommits(t *testing.T, s *storeProcess, w *commitWatch, kind commitKind) (strikes int, checks int64) {
	total, flags := 0, []string{"--core", "1", "--task", "0", "--slots", "2"}
	c := s.cluster(flags...)
	t.Run("undisturbed", func(t *testing.T) {
		checks += oneCommit(t, c, s, w, kind, 0, false, nil)
		total = w.requests()
	})
	require.Positive(t, total)
	for _, victim := range []string{"master", "store"} {
		for k := 1; k <= total; k++ {
			for _, after := range []bool{false, true} {
				when := map[bool]string{false: "before", true: "after"}[after]
				t.Run(fmt.Sprintf("%s killed %s request %d of %d", victim, when, k, total), func(t *testing.T) {
					c := c
					if victim == "master" { // one that died before is started again after a pause
						c = s.cluster(flags...)
					}
					checks += oneCommit(t, c, s, w, kind, k, after, func() {
						if victim == "master" {
							c.kill(c.nodes("MASTER")[0])
							return
						}
						s.kill()
						s.start()
					})
				})
				strikes++
			}
		}
	}
	return strikes, checks
}

var outputs atomic.Int64 // numbers the output prefixes

// oneCommit runs a job, strikes at its k-th request of the commit (0: not at all) and holds the outcome
// against the truth.
func oneCommit(t *testing.T, c *cluster, s *storeProcess, w *commitWatch, kind commitKind, k int, after bool, strike func()) int64 {
	prefix := fmt.Sprintf("out-%d/", outputs.Add(1))
	x := &truths{sets: map[string]map[string]string{}}
	if kind.overwrite {
		old := c.waitJob(c.submit("wordcount", "--input", "s3://data/old/", "--output", "s3://data/"+prefix, "--reduces", "3"))
		require.Equal(t, "COMPLETED", old.str("state"), old)
		x.sets[old.str("id")] = contents(t, s, prefix)
		s.put("data", prefix+"stale", "what else was there")
	}
	reader := &outputReader{store: s.direct, truths: x}
	ctx, cancel := context.WithCancel(t.Context())
	read := make(chan error, 1)
	go func() { read <- reader.run(ctx, prefix) }()
	defer func() {
		cancel()
		require.NoError(t, <-read)
	}()

	w.aim(prefix, k, after)
	id := c.submit(append(slices.Clone(kind.args), "--input", "s3://data/in/", "--output", "s3://data/"+prefix)...)
	if strike != nil {
		ended := make(chan object, 1)
		go func() { ended <- c.waitJob(id) }()
		select {
		case what := <-w.held:
			t.Logf("held: %s", what)
			strike()
			close(w.release)
		case job := <-ended:
			t.Fatalf("this commit made fewer requests: %v", job)
		}
		<-ended
	}
	job := c.waitJob(id)
	require.Equal(t, "COMPLETED", job.str("state"), job)
	require.Zero(t, job.num("attempts", "failed"), job)
	m, lines := readOutput(t, c, "data", prefix)
	require.Equal(t, id, m.Job)
	slices.Sort(lines)
	require.Equal(t, kind.want(commitInput), lines)
	for _, p := range m.Parts {
		h, err := s.direct.Head(t.Context(), "data", p.Key)
		require.NoError(t, err)
		require.Equal(t, h.ETag, p.ETag)
	}
	x.mu.Lock()
	x.sets[id] = contents(t, s, prefix)
	x.mu.Unlock()
	return reader.checks.Load()
}

// contents are the objects below a prefix.
func contents(t *testing.T, s *storeProcess, prefix string) map[string]string {
	t.Helper()
	set := map[string]string{}
	for o, err := range s.direct.List(t.Context(), "data", prefix, objectstore.ListOptions{}) {
		require.NoError(t, err)
		set[o.Key] = string(get(t, s.direct, "data", o.Key))
	}
	return set
}

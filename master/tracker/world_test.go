package tracker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/objectstoretest"
)

const testJob = "s-AAAAAAAAAAAAA"

// world is a site in memory: a log, a store, workers, and one leader at a time.
type world struct {
	t     *testing.T
	mem   *objectstore.Memory
	files *objectstoretest.Files
	mute  func(name string) bool // a leader does not hear that this was done to the files
	deny  func(name string) error

	locator Locator
	loses   func(key string) bool // a file that is copied is not there all the same

	prefix string // the system prefix's key

	mu      sync.Mutex
	log     *state.Store
	index   uint64
	workers map[string]*worker
	ops     int                            // of leaders: entries and requests
	before  func(op int, name string) bool // the leader dies before this one is carried out
	after   func(op int, name string) bool // … after it was, without knowing
	names   []string
	wrap    func(objectstore.Store) objectstore.Store // what a job's leader has of it
	dead    map[string]bool                           // nodes that nobody sees
	applied func(name string)                         // an entry was applied, and its proposer has not heard of it yet
	slow    func(name string) time.Duration           // how long an entry takes; set before it is made

	leader *leader
	term   uint64
}

// leader is one term's tracker.
type leader struct {
	*Tracker
	w      *world
	ctx    context.Context
	cancel context.CancelFunc
	over   chan error
}

var errDied = errors.New("the leader died")

func newWorld(t *testing.T) *world {
	w := &world{t: t, mem: objectstore.NewMemory(), files: objectstoretest.NewFiles(), log: state.New(), workers: map[string]*worker{}}
	ctx := t.Context()
	require.NoError(t, w.mem.MakeBucket(ctx, "data"))
	require.NoError(t, w.mem.MakeBucket(ctx, "system"))
	w.must(state.CreateSite{
		Site:    state.Site{ID: "site", SystemPrefix: "s3://system/"},
		Cluster: state.Cluster{ID: "j-1", Name: "default", Groups: []state.Group{{ID: "ig-c", Role: state.RoleCore}, {ID: "ig-t", Role: state.RoleTask}}},
	})
	return w
}

func (w *world) must(c state.Command) any {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.index++
	r, err := w.log.Apply(w.index, c)
	require.NoError(w.t, err)
	return r
}

func (w *world) put(key, text string) {
	_, err := w.mem.Put(w.t.Context(), "data", key, strings.NewReader(text), int64(len(text)), objectstore.PutOptions{})
	require.NoError(w.t, err)
}

func (w *world) job() *state.Job {
	j, ok := w.log.View().Job(testJob)
	require.True(w.t, ok)
	return j
}

// submit logs a job over maps splits of ten bytes.
func (w *world) submit(maps, reduces int, change func(*state.Job, *api.JobSpec)) {
	w.put("in/text", strings.Repeat("123456789\n", maps))
	spec := &api.JobSpec{
		Program: &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_BUILTIN, Name: "wordcount"},
		Input:   []string{"s3://data/in/"}, Output: "s3://data/out/", SplitSize: 10, InputFormat: "text", MaxAttempts: 4,
		Reduces: proto.Int32(int32(reduces)),
	}
	j := state.Job{ID: testJob, Cluster: "j-1", Name: "test", Program: "wordcount", Input: spec.Input, Output: spec.Output, SubmittedAt: time.Now()}
	if change != nil {
		change(&j, spec)
	}
	j.Spec, _ = proto.Marshal(spec)
	w.must(state.SubmitJob{Job: j})
	if w.leader != nil {
		w.leader.Submitted(testJob)
	}
}

// lead starts a new leader.
func (w *world) lead() {
	w.term++
	l := &leader{w: w, over: make(chan error, 1)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	var err error
	l.Tracker, err = New(Config{
		Term: w.term, View: w.log.View, Apply: l.apply, Workers: l, Stores: l, Locator: w.locator,
		UploadBatch: 4, Alive: func(node string) bool { return !w.dead[node] },
	})
	require.NoError(w.t, err)
	w.mu.Lock()
	w.leader = l
	w.mu.Unlock()
	go func() { l.over <- l.Run(l.ctx) }()
	for _, k := range w.sorted() {
		k.hello()
	}
}

// depose ends the leader and waits for it.
func (w *world) depose() error {
	l := w.leader
	l.cancel()
	err := <-l.over
	w.mu.Lock()
	w.leader = nil
	w.mu.Unlock()
	return err
}

func (w *world) sorted() []*worker {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []*worker
	for _, k := range w.workers {
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b *worker) int { return strings.Compare(a.id, b.id) })
	return list
}

// count counts an operation of a leader; true if the leader dies of it.
func (l *leader) count(name string) (dieBefore, dieAfter bool) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	l.w.ops++
	l.w.names = append(l.w.names, name)
	return l.w.before != nil && l.w.before(l.w.ops, name), l.w.after != nil && l.w.after(l.w.ops, name)
}

func (l *leader) around(name string, f func() error) error {
	if l.ctx.Err() != nil {
		return errDied
	}
	before, after := l.count(name)
	if before {
		l.cancel()
		return errDied
	}
	err := f()
	if after {
		l.cancel()
		return errDied
	}
	return err
}

func (l *leader) apply(_ context.Context, c state.Command) (result any, err error) {
	if l.w.slow != nil {
		time.Sleep(l.w.slow(c.CommandName()))
	}
	err = l.around(c.CommandName(), func() error {
		l.w.mu.Lock()
		defer l.w.mu.Unlock()
		l.w.index++
		var err error
		result, err = l.w.log.Apply(l.w.index, c)
		return err
	})
	if l.w.applied != nil {
		l.w.applied(c.CommandName())
	}
	return result, err
}

func (l *leader) For(*state.Job) (objectstore.Store, *api.ObjectStore, error) {
	var s objectstore.Store = &leaderStore{l.w.mem, l}
	if l.w.wrap != nil {
		s = l.w.wrap(s)
	}
	return objectstore.Mux(s, &leaderFiles{Files: l.w.files, l: l}), &api.ObjectStore{Endpoint: "memory"}, nil
}

func (l *leader) Publisher(*state.Job) (Publisher, error) {
	return &leaderFiles{Files: l.w.files, l: l}, nil
}

func (l *leader) System() (objectstore.Store, string, string, error) {
	return &leaderStore{l.w.mem, l}, "system", l.w.prefix, nil
}

func (l *leader) Send(node string, m *api.MasterMessage) bool {
	l.w.mu.Lock()
	k := l.w.workers[node]
	mine := l.w.leader == l
	l.w.mu.Unlock()
	return k != nil && mine && k.post(m)
}

func (l *leader) Connected(node string) bool {
	l.w.mu.Lock()
	k := l.w.workers[node]
	l.w.mu.Unlock()
	return k != nil && k.up()
}

// leaderStore is the store as a leader sees it.
type leaderStore struct {
	*objectstore.Memory
	l *leader
}

func (s *leaderStore) List(ctx context.Context, b, p string, o objectstore.ListOptions) iter.Seq2[objectstore.Object, error] {
	if err := s.l.around("List", func() error { return nil }); err != nil {
		return func(yield func(objectstore.Object, error) bool) { yield(objectstore.Object{}, err) }
	}
	return s.Memory.List(ctx, b, p, o)
}

func (s *leaderStore) Head(ctx context.Context, b, k string) (o objectstore.Object, err error) {
	err = s.l.around("Head", func() (err error) { o, err = s.Memory.Head(ctx, b, k); return err })
	return o, err
}

func (s *leaderStore) Get(ctx context.Context, b, k string, off, n int64, m string) (r io.ReadCloser, err error) {
	err = s.l.around("Get", func() (err error) { r, err = s.Memory.Get(ctx, b, k, off, n, m); return err })
	return r, err
}

func (s *leaderStore) Put(ctx context.Context, b, k string, r io.Reader, n int64, p objectstore.PutOptions) (o objectstore.Object, err error) {
	err = s.l.around("Put", func() (err error) { o, err = s.Memory.Put(ctx, b, k, r, n, p); return err })
	return o, err
}

func (s *leaderStore) Delete(ctx context.Context, b string, keys ...string) error {
	return s.l.around("Delete", func() error { return s.Memory.Delete(ctx, b, keys...) })
}

func (s *leaderStore) DeleteIf(ctx context.Context, b, key, etag string) error {
	return s.l.around("DeleteIf", func() error { return s.Memory.DeleteIf(ctx, b, key, etag) })
}

func (s *leaderStore) CreateUpload(ctx context.Context, b, k string, m map[string]string) (id string, err error) {
	err = s.l.around("CreateUpload", func() (err error) { id, err = s.Memory.CreateUpload(ctx, b, k, m); return err })
	return id, err
}

func (s *leaderStore) ListParts(ctx context.Context, b, k, id string) (p []objectstore.Part, err error) {
	err = s.l.around("ListParts", func() (err error) { p, err = s.Memory.ListParts(ctx, b, k, id); return err })
	return p, err
}

func (s *leaderStore) CompleteUpload(ctx context.Context, b, k, id string, p []objectstore.Part) (etag string, err error) {
	err = s.l.around("CompleteUpload", func() (err error) { etag, err = s.Memory.CompleteUpload(ctx, b, k, id, p); return err })
	return etag, err
}

func (s *leaderStore) AbortUpload(ctx context.Context, b, k, id string) error {
	return s.l.around("AbortUpload", func() error { return s.Memory.AbortUpload(ctx, b, k, id) })
}

func (s *leaderStore) ListUploads(ctx context.Context, b, k string) (u []objectstore.Upload, err error) {
	err = s.l.around("ListUploads", func() (err error) { u, err = s.Memory.ListUploads(ctx, b, k); return err })
	return u, err
}

// await waits until the job has ended; a leader that dies is followed by the next.
func (w *world) await() *state.Job {
	w.t.Helper()
	for range 3000 {
		synctest.Wait()
		if w.leader != nil && w.leader.ctx.Err() != nil {
			w.depose()
			w.lead()
			continue
		}
		if w.job().Ended() {
			return w.job()
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.t.Fatalf("the job has not ended: %+v\n%v", w.job(), w.names[max(0, len(w.names)-60):])
	return nil
}

// until waits for a condition.
func (w *world) until(what string, f func() bool) {
	w.t.Helper()
	for range 20000 {
		synctest.Wait()
		if f() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.t.Fatalf("never: %s; %+v", what, w.job())
}

// close ends everything, so that the bubble can end.
func (w *world) close() {
	if w.leader != nil {
		w.depose()
	}
	for _, k := range w.sorted() {
		k.close()
	}
}

func (w *world) keys(prefix string) (keys []string) {
	for o, err := range w.mem.List(w.t.Context(), "data", prefix, objectstore.ListOptions{}) {
		require.NoError(w.t, err)
		keys = append(keys, o.Key)
	}
	return keys
}

func (w *world) read(key string) string {
	r, err := w.mem.Get(w.t.Context(), "data", key, 0, -1, "")
	require.NoError(w.t, err, key)
	defer r.Close()
	b, err := io.ReadAll(r)
	require.NoError(w.t, err)
	return string(b)
}

// noUploads checks that no unfinished upload is left.
func (w *world) noUploads() {
	w.t.Helper()
	for i := range 40 {
		for _, kind := range "mr" {
			key := fmt.Sprintf("out/part-%c-%05d", kind, i)
			left, err := w.mem.ListUploads(w.t.Context(), "data", key)
			require.NoError(w.t, err)
			require.Empty(w.t, left, key)
		}
	}
}

// committed checks the whole output set: exactly once each, and nothing else.
func (w *world) committed(also ...string) Success {
	w.t.Helper()
	j := w.job()
	require.Equal(w.t, state.JobCompleted, j.State, j.Reason)
	var s Success
	require.NoError(w.t, json.Unmarshal([]byte(w.read("out/_SUCCESS")), &s))
	want := append([]string{"out/_SUCCESS"}, also...)
	n, kind := j.Reduces, state.Reduce
	if j.MapOnly() {
		n, kind = j.Maps, state.Map
	}
	require.Len(w.t, s.Parts, n)
	for i, p := range s.Parts {
		require.Equal(w.t, fmt.Sprintf("out/part-%s-%05d", kind, i), p.Key)
		text := partText(kind, i, j.Maps)
		require.Equal(w.t, text, w.read(p.Key))
		require.EqualValues(w.t, len(text), p.Size)
		head, err := w.mem.Head(w.t.Context(), "data", p.Key)
		require.NoError(w.t, err)
		require.Equal(w.t, head.ETag, p.ETag)
		want = append(want, p.Key)
	}
	slices.Sort(want)
	require.Equal(w.t, want, w.keys("out/"))
	require.Equal(w.t, j.MapLedger, j.Fetched, "the ledger balances")
	w.noUploads()
	require.Equal(w.t, n, j.Parts)
	return s
}

// nothing checks that a job left nothing.
func (w *world) nothing(finalState string) {
	w.t.Helper()
	require.Equal(w.t, finalState, w.job().State, w.job().Reason)
	require.Empty(w.t, w.keys("out/"))
	w.noUploads()
}

func partText(kind string, index, maps int) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %d:", kind, index)
	if kind == state.Reduce {
		for i := range maps {
			fmt.Fprintf(&b, " %d", i)
		}
	}
	return b.String()
}

package tracker

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"millrace/master/state"
	"millrace/pkg/objectstore"
)

// watcher looks at the store and the log after every single step.
type watcher struct {
	m          *model
	before     []objectstore.Object // below the output prefix, when the job was submitted
	committing bool                 // was seen in the log
	success    string               // what _SUCCESS said when it was first there
	clock      int
	ended      int             // when the job had
	swept      map[string]int  // by key: when its uploads were last listed
	strays     map[string]int  // by id: uploads that came to be when nobody waited for them any more
	copies     map[string]bool // those of them that come of a request with a clear answer, repeated on the way
	broken     string          // what must never be, and is
	replaced   map[string]bool // parts of the old set: the job's are in their place, or were
}

func (w *watcher) begin() { w.before = w.objects() }

func (w *watcher) fault(format string, args ...any) {
	if w.broken == "" {
		w.broken = fmt.Sprintf(format, args...)
	}
}

func (w *watcher) sweeps(key string) {
	w.clock++
	w.swept[key] = w.clock
}

// landed notes the uploads that are there since a late request was carried out.
func (w *watcher) landed(known map[string]bool, repeated bool) {
	w.clock++
	for _, u := range w.uploads() {
		if !known[u.ID] {
			w.strays[u.ID] = w.clock
			w.copies[u.ID] = repeated
		}
	}
}

func (w *watcher) objects() (list []objectstore.Object) {
	for o, err := range w.m.mem.List(carried, "data", "out/", objectstore.ListOptions{}) {
		if err != nil {
			panic(err)
		}
		list = append(list, o)
	}
	return list
}

func (w *watcher) uploads() (list []objectstore.Upload) {
	for i := range 4 {
		for _, kind := range "mr" {
			list = append(list, w.m.uploadsOf(fmt.Sprintf("out/part-%c-%05d", kind, i))...)
		}
	}
	return list
}

func (w *watcher) read(key string) string {
	r, err := w.m.mem.Get(carried, "data", key, 0, -1, "")
	if err != nil {
		return ""
	}
	defer r.Close()
	data, _ := io.ReadAll(r)
	return string(data)
}

// ours says whether an object was written by the job.
func (w *watcher) ours(key string) bool {
	head, err := w.m.mem.Head(carried, "data", key)
	return err == nil && head.Metadata[metaJob] == testJob
}

// look is what must be true after every step.
func (w *watcher) look() {
	j, objects := w.m.job(), w.objects()
	w.committing = w.committing || j.Phase == state.PhaseCommitting
	same := slices.EqualFunc(objects, w.before, func(a, b objectstore.Object) bool { return a.Key == b.Key && a.ETag == b.ETag })
	if !w.committing && !same {
		w.fault("the output changes though the job does not commit: %v", keysOf(objects))
	}
	there := slices.ContainsFunc(objects, func(o objectstore.Object) bool { return o.Key == "out/_SUCCESS" })
	ours := there && w.ours("out/_SUCCESS")
	switch {
	case ours:
		w.whole(j, objects)
	case w.success != "":
		w.fault("_SUCCESS was there and is not any more")
	case there && !same:
		w.fault("the old _SUCCESS is there, but not the old set: %v", keysOf(objects))
	}
	for _, o := range w.before {
		part := int(strings.TrimPrefix(o.Key, "out/part-r-0000")[0] - '0')
		if o.Key == "out/_SUCCESS" || part >= j.Reduces || w.replaced[o.Key] {
			continue
		}
		if w.replaced[o.Key] = w.ours(o.Key); !w.replaced[o.Key] && !slices.Contains(keysOf(objects), o.Key) {
			w.fault("%s of the old set is gone, and nothing is in its place", o.Key)
		}
	}
}

// whole is what must be true while the job's _SUCCESS can be read.
func (w *watcher) whole(j *state.Job, objects []objectstore.Object) {
	m, text := w.m, w.read("out/_SUCCESS")
	if w.success == "" {
		w.success = text
	}
	if text != w.success {
		w.fault("_SUCCESS has changed")
	}
	if j.MapsDone != j.Maps || j.ReducesDone != j.Reduces || !j.MapOnly() && j.MapLedger != j.Fetched {
		w.fault("_SUCCESS is there, but the log has %d maps, %d reduces, wrote %v and read %v", j.MapsDone, j.ReducesDone, j.MapLedger, j.Fetched)
	}
	var s Success
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		w.fault("_SUCCESS cannot be read: %v", err)
	}
	want := []string{"out/_SUCCESS"}
	for i := range max(j.Reduces, j.Maps*b2i(j.MapOnly())) {
		want = append(want, fmt.Sprintf("out/part-%s-%05d", j.OutputKind(), i))
	}
	if have := keysOf(objects); !slices.Equal(have, want) {
		w.fault("_SUCCESS is there, and the set is %v", have)
	}
	if len(s.Parts) != len(want)-1 {
		w.fault("_SUCCESS names %d parts", len(s.Parts))
		return
	}
	for i, p := range s.Parts {
		head, err := m.mem.Head(carried, "data", p.Key)
		if err != nil || p.Key != want[i+1] || head.ETag != p.ETag || head.Size != p.Size {
			w.fault("_SUCCESS names %v, the store has %v (%v)", p, head, err)
		}
		k, _ := m.log.View().Task(testJob, state.TaskID{Kind: j.OutputKind(), Index: i})
		if k == nil || !k.Done || w.read(p.Key) != modelText(m.attempt(k.Win.Attempt).name) {
			w.fault("%s holds %q, which is not its winner's", p.Key, w.read(p.Key))
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func keysOf(objects []objectstore.Object) (keys []string) {
	for _, o := range objects {
		keys = append(keys, o.Key)
	}
	return keys
}

// over is what must be true when the job has ended: the whole set, or nothing of it.
func (w *watcher) over() {
	j, m := w.m.job(), w.m
	if w.ended == 0 {
		w.clock++
		w.ended = w.clock
	}
	if j.State == state.JobCompleted && !w.ours("out/_SUCCESS") {
		w.fault("the job is completed, without _SUCCESS")
	}
	if j.State != state.JobCompleted {
		for _, o := range w.objects() {
			if w.ours(o.Key) && !m.denied {
				w.fault("the job is %s (%s), and has left %s", j.State, j.Reason, o.Key)
			}
		}
	}
	if j.State == state.JobFailed && len(m.failing) == 0 && !m.short && !m.noSuccess && !m.denied && m.spent.Faults <= 1 {
		w.fault("the job has failed (%s) for what it must survive", j.Reason)
	}
	for _, a := range m.attempts {
		if m.spent.Faults == 0 && !m.short && len(m.failing) == 0 && !strings.HasSuffix(a.name, ".1") {
			w.fault("%s was needed, though a leader's end is no attempt's", a.name)
		}
	}
	for _, u := range w.uploads() {
		born, stray := w.strays[u.ID]
		parts, _ := m.parts(u.Key, u.ID)
		switch {
		case m.denied: // who may not abort leaves what it cannot abort
		case !stray, born < w.swept[u.Key], w.swept[u.Key] == 0 && born < w.ended && !w.copies[u.ID]:
			w.fault("the job is %s (%s), and has left upload %s of %s", j.State, j.Reason, u.ID, u.Key)
		case len(parts) > 0:
			w.fault("upload %s of %s, which nobody knows, has parts", u.ID, u.Key)
		}
	}
}

// later has a later job write below the same prefix, and then a request of this one come
// late: it must not touch that. A bulk delete does, as docs/design.md says.
func (w *watcher) later(late []*request) {
	theirs := func(key string) string { return "a later job's " + key }
	written := []string{"out/_SUCCESS"}
	for i := range 3 {
		written = append(written, fmt.Sprintf("out/part-%s-%05d", w.m.job().OutputKind(), i))
	}
	for _, key := range written {
		w.m.store(key, theirs(key))
	}
	for _, r := range late {
		if r.op == "CreateUpload" || r.op == "Delete" && slices.Equal(r.keys, []string{"out/part-r-00002"}) {
			continue // an empty upload; the old key that the new set does not replace
		}
		_, _ = r.do() // nobody hears of it
		for _, key := range written {
			if w.read(key) != theirs(key) {
				w.fault("%s, late, has changed what a later job wrote to %s", r.name, key)
			}
		}
	}
}

var timestamps = regexp.MustCompile(`"\d{4}-\d\d-\d\dT[^"]*"`)

// digest tells states apart: the log, the store, what is still to come, and what
// each leader has learnt, because that is what its next steps follow from.
func (w *watcher) digest() [32]byte {
	m, view, h := w.m, w.m.log.View(), sha256.New()
	text, _ := json.Marshal([]any{m.job(), view.Tasks(testJob, state.Map), view.Tasks(testJob, state.Reduce), view.Uploads(testJob)})
	fmt.Fprintf(h, "%s\n", m.rename(timestamps.ReplaceAllString(string(text), "")))
	for _, o := range w.objects() {
		fmt.Fprintln(h, o.Key, o.ETag, w.ours(o.Key))
	}
	for _, u := range w.uploads() {
		parts, _ := m.parts(u.Key, u.ID)
		born, stray := w.strays[u.ID]
		fmt.Fprintln(h, u, parts, stray && born > w.swept[u.Key], w.swept[u.Key] == 0, w.copies[u.ID])
	}
	for _, list := range m.hanging() {
		fmt.Fprintln(h, sorted(list, func(r *request) string { return r.name }))
	}
	fmt.Fprintln(h, sorted(m.attempts, func(a *modelAttempt) string {
		return fmt.Sprint(a.name, a.node.id, a.over, a.upload != nil, a.report != nil, a.report.GetResult().GetFailure().GetMessage())
	}))
	for _, n := range m.nodes {
		fmt.Fprintln(h, n.id, n.away)
	}
	for _, l := range m.leaders {
		if l.dead {
			continue
		}
		fmt.Fprintln(h, l.name, l.heard, sorted(l.read, func(s string) string { return s }))
	}
	fmt.Fprintln(h, m.left, m.cancelled, m.denied, w.success, w.committing)
	return [32]byte(h.Sum(nil))
}

var attemptNames = regexp.MustCompile(testJob + `-[mr]-\d+-\d+-\d+`)

// rename gives attempts names that do not tell of the order between tasks.
func (m *model) rename(text string) string {
	return attemptNames.ReplaceAllStringFunc(text, func(id string) string {
		if a := m.attempt(id); a != nil {
			return a.name
		}
		return id[:strings.LastIndexByte(id, '-')] // not leased yet
	})
}

func sorted[T any](list []T, name func(T) string) (names []string) {
	for _, x := range list {
		names = append(names, name(x))
	}
	slices.Sort(names)
	return names
}

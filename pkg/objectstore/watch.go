package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// errStalled ends a request that makes no progress: nothing came, or nothing was taken.
var errStalled = errors.New("no progress")

// watched is a transport that ends requests which make no progress. TCP's keepalive
// notices a machine that is gone, and never a store that is there and does nothing.
type watched struct {
	base      http.RoundTripper
	stall     time.Duration // between two pieces of a body, either way
	firstByte time.Duration // from the end of the request to the answer's header
	waiting   func()        // Config's
}

// WaitingAfter is how long nothing of a request may move before Config.Waiting is called.
const WaitingAfter = 5 * time.Second

// firstByteOfRead bounds the wait for the answer to a GET or HEAD: a store has nothing to put together.
const firstByteOfRead = time.Minute

// answered is what the package wants to know of an answer beyond its body; minio-go keeps
// it to itself. A request's context carries one.
type answered struct {
	date       atomic.Pointer[time.Time]
	retryAfter atomic.Int64 // ns
}

type answeredKey struct{}

// listen gives the context of one call of a Store.
func listen(ctx context.Context) context.Context {
	return context.WithValue(ctx, answeredKey{}, &answered{})
}

// heard is what has been heard under listen's context, if anything.
func heard(ctx context.Context) (date time.Time, retryAfter time.Duration) {
	a, ok := ctx.Value(answeredKey{}).(*answered)
	if !ok {
		return time.Time{}, 0
	}
	if at := a.date.Load(); at != nil {
		date = *at
	}
	return date, time.Duration(a.retryAfter.Load())
}

func (w *watched) RoundTrip(r *http.Request) (*http.Response, error) {
	wait := w.wait()
	defer wait.end()
	ctx, cancel := context.WithCancelCause(r.Context())
	guard := &guard{cancel: cancel}
	first := w.firstByte
	switch {
	case r.Body != nil:
		first = w.stall
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		first = min(first, firstByteOfRead)
	}
	guard.start(first)
	out := r.Clone(ctx)
	if r.Body != nil {
		out.Body = &sending{r.Body, guard, w, wait}
	}
	resp, err := w.base.RoundTrip(out)
	guard.stop()
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
			err = cause
		}
		cancel(nil)
		return nil, err
	}
	if a, ok := ctx.Value(answeredKey{}).(*answered); ok {
		a.note(resp.Header)
	}
	resp.Body = &receiving{resp.Body, ctx, guard, w.stall}
	return resp, nil
}

// waiter tells, once, that nothing moves for WaitingAfter: neither is more of a request taken, nor does its answer come.
type waiter struct {
	tell func()

	mu    sync.Mutex
	timer *time.Timer
	moved time.Time
	over  bool
}

func (w *watched) wait() *waiter {
	t := &waiter{tell: w.waiting, moved: time.Now(), over: w.waiting == nil}
	if !t.over {
		t.mu.Lock()
		t.timer = time.AfterFunc(WaitingAfter, t.look)
		t.mu.Unlock()
	}
	return t
}

func (t *waiter) look() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return
	}
	if left := WaitingAfter - time.Since(t.moved); left > 0 {
		t.timer.Reset(left)
		return
	}
	t.over = true
	t.tell()
}

func (t *waiter) moves() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.moved = time.Now()
}

// end returns when nothing will be told any more.
func (t *waiter) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	if t.timer != nil {
		t.timer.Stop()
	}
}

func (a *answered) note(h http.Header) {
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		a.date.Store(&date)
	}
	wait := time.Duration(0)
	if s := h.Get("Retry-After"); s != "" {
		if seconds, err := strconv.Atoi(s); err == nil {
			wait = time.Duration(seconds) * time.Second
		} else if at, err := http.ParseTime(s); err == nil {
			wait = time.Until(at)
		}
	}
	a.retryAfter.Store(int64(wait))
}

// guard cancels a request whose time runs out.
type guard struct {
	cancel context.CancelCauseFunc

	mu       sync.Mutex
	timer    *time.Timer
	within   time.Duration
	answered bool // what is still being sent does not count any more
}

func (g *guard) start(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reset(d)
}

func (g *guard) reset(d time.Duration) {
	g.within = d
	if g.timer != nil {
		g.timer.Reset(d)
		return
	}
	g.timer = time.AfterFunc(d, func() {
		g.mu.Lock()
		within := g.within
		g.mu.Unlock()
		g.cancel(fmt.Errorf("%w for %v", errStalled, within))
	})
}

// sent is start for what is on its way to the store.
func (g *guard) sent(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.answered {
		g.reset(d)
	}
}

// stop says that an answer is there, or that nothing is being waited for.
func (g *guard) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answered = true
	g.timer.Stop()
}

// sending is a request's body: the transport reads it as the store takes it.
type sending struct {
	io.ReadCloser
	guard *guard
	w     *watched
	wait  *waiter
}

func (s *sending) Read(p []byte) (int, error) {
	s.wait.moves()
	n, err := s.ReadCloser.Read(p)
	if err != nil {
		s.guard.sent(s.w.firstByte)
	} else {
		s.guard.sent(s.w.stall)
	}
	return n, err
}

// receiving is an answer's body. Only waiting for the store counts, not the time that
// the reader takes.
type receiving struct {
	io.ReadCloser
	ctx   context.Context
	guard *guard
	stall time.Duration
}

func (r *receiving) Read(p []byte) (int, error) {
	r.guard.start(r.stall)
	n, err := r.ReadCloser.Read(p)
	r.guard.stop()
	if err != nil && err != io.EOF {
		if cause := context.Cause(r.ctx); errors.Is(cause, errStalled) {
			err = cause
		}
	}
	return n, err
}

func (r *receiving) Close() error {
	err := r.ReadCloser.Close()
	r.guard.stop()
	r.guard.cancel(nil)
	return err
}

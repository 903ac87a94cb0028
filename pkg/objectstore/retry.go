package objectstore

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Retry says how long and how often a store is asked again when it does not answer.
// The zero value is a command's patience: 2 s, under no budget.
type Retry struct {
	// Patience is how long one request is repeated in a row without success. Then its error
	// is ErrUnreachable. 0 means 2 s, less than 0 no repetition.
	Patience time.Duration
	// Budget bounds the repetitions of all who share it; nil: no bound.
	Budget *Budget
	// Tally counts them; may be nil.
	Tally *Tally
}

// Backoff between two tries: doubling, with jitter, or longer where the store says so.
const (
	usualPatience   = 2 * time.Second
	longPatience    = 3 * time.Minute
	firstPause      = 100 * time.Millisecond // less up to the half
	longestPause    = 2 * time.Second
	longestDictated = 30 * time.Second // of what a store may ask for with Retry-After
)

// Attempts is how attempts sit out a store that does not answer: a store that is restarted, or
// a network that is mended, should cost a job a pause of up to three minutes, and no attempt.
func Attempts(b *Budget, t *Tally) Retry { return Retry{Patience: longPatience, Budget: b, Tally: t} }

// Budget is a token bucket for repetitions: so many per second, and one more for every
// five requests that succeed. Who finds it empty waits, so that a store that is
// short of breath is not asked more by those it has refused. Safe for concurrent use.
//
// A budget splits: processes that each hold a share of the rate repeat, together,
// no more than one that holds all of it. That is how a node's attempts share one.
type Budget struct {
	rate, burst float64

	mu     sync.Mutex
	tokens float64
	filled time.Time
}

// earned is what a request that succeeds adds to the budget.
const earned = 0.2

// NewBudget allows perSecond repetitions, and bursts of 2 s of them (at least one).
func NewBudget(perSecond float64) *Budget {
	burst := max(2*perSecond, 1)
	return &Budget{rate: perSecond, burst: burst, tokens: burst, filled: time.Now()}
}

func (b *Budget) add(n float64) {
	now := time.Now()
	b.tokens = min(b.burst, b.tokens+n+now.Sub(b.filled).Seconds()*b.rate)
	b.filled = now
}

// Earn notes a request that succeeded.
func (b *Budget) Earn() {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.add(earned)
	b.mu.Unlock()
}

// Wait takes one repetition out of the budget, when there is one.
func (b *Budget) Wait(ctx context.Context) error {
	if b == nil {
		return ctx.Err()
	}
	b.mu.Lock()
	b.add(-1)
	missing := -b.tokens
	b.mu.Unlock()
	if missing <= 0 {
		return ctx.Err()
	}
	err := sleep(ctx, time.Duration(missing/b.rate*float64(time.Second)))
	if err != nil {
		b.mu.Lock()
		b.add(1) // not used
		b.mu.Unlock()
	}
	return err
}

// Tally counts repetitions and keeps what the last one was made for. The zero
// value is ready. Safe for concurrent use.
type Tally struct {
	n    atomic.Int64
	last atomic.Pointer[string]
}

// Count is how many repetitions there have been.
func (t *Tally) Count() int64 { return t.n.Load() }

// Last is the cause of the last one in a few words, such as "503 SlowDown".
func (t *Tally) Last() string {
	if s := t.last.Load(); s != nil {
		return *s
	}
	return ""
}

// Add counts a repetition after err. t may be nil.
func (t *Tally) Add(err error) {
	if t == nil {
		return
	}
	reason := Reason(err)
	t.last.Store(&reason)
	t.n.Add(1)
}

// Reason says in a few words why a request got no good answer.
func Reason(err error) string {
	var (
		e     *Error
		errno syscall.Errno
		dns   *net.DNSError
	)
	switch {
	case errors.As(err, &e) && e.Status != 0:
		code := e.Code
		if code == "" || code == strconv.Itoa(e.Status)+" "+http.StatusText(e.Status) {
			code = http.StatusText(e.Status)
		}
		return strconv.Itoa(e.Status) + " " + code
	case errors.Is(err, errStalled):
		return errStalled.Error()
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &dns):
		return "no such host"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "answer cut short"
	}
	for next := err; next != nil; next = errors.Unwrap(next) {
		err = next
	}
	return err.Error()
}

// streak is the failures of one request in a row. The zero value is ready.
type streak struct {
	since time.Time // the first; zero: none
	pause time.Duration
}

func (s *streak) over() { *s = streak{} }

// again says whether a request that ended with err is to be made again, after it has
// waited for that. safe: it does no harm if the store has already carried it out.
func (r *Retry) again(ctx context.Context, s *streak, err error, safe bool) bool {
	var e *Error
	known := errors.As(err, &e)
	switch {
	case !errors.Is(err, ErrUnreachable), known && e.Final, ctx.Err() != nil, !safe && !untouched(err):
		return false
	}
	if s.since.IsZero() {
		s.since, s.pause = time.Now(), firstPause
	}
	patience := r.Patience
	if patience == 0 {
		patience = usualPatience
	}
	wait := s.pause/2 + rand.N(s.pause/2)
	if known {
		wait = max(wait, min(e.retryAfter, longestDictated))
	}
	if time.Since(s.since)+wait > patience {
		return false
	}
	s.pause = min(2*s.pause, longestPause)
	r.Tally.Add(err)
	return sleep(ctx, wait) == nil && r.Budget.Wait(ctx) == nil
}

// untouched says that a request has surely not been carried out: nobody was there to
// take it, or the store says that it had no time for it.
func untouched(err error) bool {
	var e *Error
	if errors.As(err, &e) && e.Status != 0 {
		return slices.Contains([]string{"SlowDown", "SlowDownRead", "SlowDownWrite", "Throttling", "ServiceUnavailable", "XMinioServerNotInitialized"}, e.Code) ||
			e.Status == http.StatusTooManyRequests
	}
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func sleep(ctx context.Context, d time.Duration) error {
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

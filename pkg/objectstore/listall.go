package objectstore

import (
	"context"
	"iter"
	"sync"
)

// Lister is what ListAll needs of a Store.
type Lister interface {
	List(ctx context.Context, bucket, prefix string, o ListOptions) iter.Seq2[Object, error]
}

const (
	listRanges = 16    // of keys, listed at once
	listPage   = 1_000 // a store's page: after each, a range may be split
	listGuess  = 4     // splits after a page, most of which may be wrong guesses
)

// ListAll lists all below prefix, and gives what keep makes of the objects it wants, in
// key order. Where there is more than a few pages it lists ranges of keys at once: keep is then
// called by many goroutines, each object once. A store gives a thousand names per request, so
// that a million of them, one after the other, are a thousand round trips.
//
// A range that has brought a page splits in two while fewer than 16 are being listed, at a
// name halfway between its last one and its end. That is a guess: a half without names costs a
// request for one name. Each range goes on by the store's own continuation, never by a name.
func ListAll[T any](ctx context.Context, s Lister, bucket, prefix string, keep func(Object) (T, bool)) ([]T, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &listing[T]{ctx: ctx, cancel: cancel, store: s, bucket: bucket, prefix: prefix, keep: keep}
	first := &keyRange[T]{}
	l.start(first)
	l.wg.Wait()
	if l.err != nil {
		return nil, l.err
	}
	if first.next == nil {
		return first.out, nil
	}
	n := 0
	for r := first; r != nil; r = r.next {
		n += len(r.out)
	}
	all := make([]T, 0, n)
	for r := first; r != nil; r = r.next {
		all = append(all, r.out...)
		r.out = nil
	}
	return all, nil
}

type listing[T any] struct {
	ctx            context.Context
	cancel         context.CancelFunc
	store          Lister
	bucket, prefix string
	keep           func(Object) (T, bool)
	wg             sync.WaitGroup

	mu      sync.Mutex
	running int
	err     error // the first
}

// keyRange is the names after one and up to another. It belongs to the goroutine that lists it.
type keyRange[T any] struct {
	after, to string // "" = no bound
	out       []T
	next      *keyRange[T] // the one that follows
}

func (l *listing[T]) start(r *keyRange[T]) {
	l.mu.Lock()
	l.running++
	l.mu.Unlock()
	l.wg.Go(func() {
		err := l.list(r)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.running--
		if err != nil && l.err == nil {
			l.err = err
			l.cancel()
		}
	})
}

// empty asks for one name: most guesses are wrong, and a page is long.
func (l *listing[T]) empty(r *keyRange[T]) (bool, error) {
	for o, err := range l.store.List(l.ctx, l.bucket, l.prefix, ListOptions{StartAfter: r.after, Max: 1}) {
		return r.to != "" && o.Key > r.to, err
	}
	return true, l.ctx.Err()
}

func (l *listing[T]) list(r *keyRange[T]) error {
	if r.after != "" {
		if empty, err := l.empty(r); empty || err != nil {
			return err
		}
	}
	n := 0
	for o, err := range l.store.List(l.ctx, l.bucket, l.prefix, ListOptions{StartAfter: r.after}) {
		if err != nil {
			return err
		}
		switch {
		case r.after != "" && o.Key <= r.after:
			continue // a Lister that knows no StartAfter
		case r.to != "" && o.Key > r.to:
			return nil
		}
		if x, ok := l.keep(o); ok {
			r.out = append(r.out, x)
		}
		if n++; n%listPage == 0 {
			l.split(r, o.Key)
		}
	}
	return nil
}

// split gives away what lies behind in a range that has come to at, as long as there are too few.
func (l *listing[T]) split(r *keyRange[T], at string) {
	for range listGuess {
		l.mu.Lock()
		full := l.running >= listRanges || l.err != nil
		l.mu.Unlock()
		if full {
			return
		}
		middle, ok := between(at, r.to, len(l.prefix))
		if !ok {
			return
		}
		behind := &keyRange[T]{after: middle, to: r.to, next: r.next}
		r.to, r.next = middle, behind
		l.start(behind)
	}
}

// between is a name after at and before to ("" = the end), which share their first n bytes:
// about halfway, as names go, so that 2 is halfway between 0 and the end of digits.
func between(at, to string, n int) (string, bool) {
	for n < len(at) && n < len(to) && at[n] == to[n] {
		n++
	}
	bounded := to != ""
	for ; n < len(at); n++ {
		from, end := int(at[n]), endOfClass(at[n])
		if bounded {
			if n >= len(to) {
				return "", false
			}
			end = min(end, int(to[n]))
			bounded = false // from the next byte on at is before to, whatever follows
		}
		if middle := (from + end) / 2; middle > from && middle < 0x7f && from < 0x7f {
			return at[:n] + string(rune(middle)), true
		}
	}
	return "", false
}

// endOfClass is the byte after the last one of c's kind.
func endOfClass(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return '9' + 1
	case c >= 'A' && c <= 'Z':
		return 'Z' + 1
	case c >= 'a' && c <= 'z':
		return 'z' + 1
	}
	return 0x7f
}

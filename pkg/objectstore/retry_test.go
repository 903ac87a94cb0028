package objectstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/objectstoretest"
)

func slowDown() error {
	return &objectstore.Error{Kind: objectstore.ErrUnreachable, Status: 503, Code: "SlowDown", Err: errors.New("reduce your request rate")}
}

// failing is a Memory each of whose operations fails so many times before it succeeds.
func failing(t *testing.T, times int, err error) *objectstore.Memory {
	m := objectstore.NewMemory()
	var mu sync.Mutex
	failed := map[string]int{}
	m.Fault = func(op, bucket, key string) error {
		mu.Lock()
		defer mu.Unlock()
		if id := op + "/" + bucket + "/" + key; failed[id] < times {
			failed[id]++
			return err
		}
		return nil
	}
	return m
}

// A store that refuses every other request is as good as any.
func TestConformanceOfAStoreThatIsShortOfBreath(t *testing.T) {
	objectstoretest.Run(t, func(t *testing.T) objectstore.Store {
		m := objectstore.NewMemory()
		var mu sync.Mutex
		refused := map[string]bool{}
		m.Fault = func(op, bucket, key string) error {
			mu.Lock()
			defer mu.Unlock()
			if id := op + "/" + bucket; key != "big" && !refused[id] { // which comes from a pipe
				refused[id] = true
				return slowDown()
			}
			return nil
		}
		return objectstore.Retrying(m, objectstore.Retry{})
	})
}

func TestWhatIsRepeated(t *testing.T) {
	refused := &objectstore.Error{Kind: objectstore.ErrUnreachable, Err: &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}}
	lost := fmt.Errorf("connection reset: %w", objectstore.ErrUnreachable)
	internal := &objectstore.Error{Kind: objectstore.ErrUnreachable, Status: 500, Code: "InternalError"}
	final := &objectstore.Error{Kind: objectstore.ErrUnreachable, Final: true}
	ops := map[string]struct {
		safe bool
		do   func(ctx context.Context, s objectstore.Store) error
	}{
		"Head": {true, func(ctx context.Context, s objectstore.Store) error { _, err := s.Head(ctx, "bucket", "o"); return err }},
		"Get": {true, func(ctx context.Context, s objectstore.Store) error {
			_, err := s.Get(ctx, "bucket", "o", 0, -1, "")
			return err
		}},
		"Put": {true, func(ctx context.Context, s objectstore.Store) error {
			_, err := s.Put(ctx, "bucket", "p", strings.NewReader("x"), 1, objectstore.PutOptions{})
			return err
		}},
		"Put of a new one": {false, func(ctx context.Context, s objectstore.Store) error {
			_, err := s.Put(ctx, "bucket", "n", strings.NewReader("x"), 1, objectstore.PutOptions{IfNoneMatch: true})
			return err
		}},
		"Delete": {true, func(ctx context.Context, s objectstore.Store) error { return s.Delete(ctx, "bucket", "p") }},
		"CreateUpload": {false, func(ctx context.Context, s objectstore.Store) error {
			_, err := s.CreateUpload(ctx, "bucket", "u", nil)
			return err
		}},
		"MakeBucket": {false, func(ctx context.Context, s objectstore.Store) error { return s.MakeBucket(ctx, "another") }},
		"List": {true, func(ctx context.Context, s objectstore.Store) error {
			for _, err := range s.List(ctx, "bucket", "", objectstore.ListOptions{}) {
				return err
			}
			return nil
		}},
	}
	for name, op := range ops {
		for cause, c := range map[error]bool{slowDown(): true, refused: true, lost: op.safe, internal: op.safe, final: false, objectstore.ErrDenied: false} {
			t.Run(fmt.Sprint(name, " after ", cause), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := objectstore.NewMemory()
					require.NoError(t, m.MakeBucket(t.Context(), "bucket"))
					_, err := m.Put(t.Context(), "bucket", "o", strings.NewReader("x"), 1, objectstore.PutOptions{})
					require.NoError(t, err)
					times := 0
					m.Fault = func(string, string, string) error {
						if times++; times == 1 {
							return cause
						}
						return nil
					}
					var tally objectstore.Tally
					start := time.Now()
					err = op.do(t.Context(), objectstore.Retrying(m, objectstore.Retry{Tally: &tally}))
					if !c {
						require.ErrorIs(t, err, cause)
						require.Equal(t, 1, times)
						require.Zero(t, tally.Count())
						return
					}
					require.NoError(t, err)
					require.Equal(t, 2, times)
					require.EqualValues(t, 1, tally.Count())
					require.Equal(t, objectstore.Reason(cause), tally.Last())
					require.GreaterOrEqual(t, time.Since(start), 50*time.Millisecond)
				})
			})
		}
	}
}

func TestPatienceEnds(t *testing.T) {
	for patience, longest := range map[time.Duration]time.Duration{0: 2 * time.Second, 3 * time.Minute: 3 * time.Minute, -1: 0} {
		synctest.Test(t, func(t *testing.T) {
			m := failing(t, 1_000_000, slowDown())
			start := time.Now()
			_, err := objectstore.Retrying(m, objectstore.Retry{Patience: patience}).Head(t.Context(), "bucket", "o")
			require.ErrorIs(t, err, objectstore.ErrUnreachable)
			require.LessOrEqual(t, time.Since(start), longest)
			require.GreaterOrEqual(t, time.Since(start), longest/4, "no pause is longer than what has gone before")

			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err = objectstore.Retrying(m, objectstore.Retry{Patience: time.Hour}).Head(ctx, "bucket", "o")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NotErrorIs(t, err, objectstore.ErrUnreachable)
		})
	}
}

// However many ask at once: what is repeated stays within the budget, shared out or not.
func TestBudget(t *testing.T) {
	for _, shares := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			m := objectstore.NewMemory()
			asked := 0
			var mu sync.Mutex
			m.Fault = func(string, string, string) error {
				mu.Lock()
				asked++
				mu.Unlock()
				return slowDown()
			}
			const rate, workers = 8, 32
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var wg sync.WaitGroup
			for range shares {
				s := objectstore.Retrying(m, objectstore.Retry{Patience: time.Hour, Budget: objectstore.NewBudget(rate / float64(shares))})
				for range workers / shares {
					wg.Go(func() { _, _ = s.Head(ctx, "bucket", "o") })
				}
			}
			wg.Wait()
			require.LessOrEqual(t, asked, workers+2*rate+20*rate)
			require.Greater(t, asked, workers+15*rate, "nor less than it allows")
		})
	}
	synctest.Test(t, func(t *testing.T) { // who succeeds may repeat more
		b := objectstore.NewBudget(1)
		for range 2 {
			require.NoError(t, b.Wait(t.Context()))
		}
		for range 10 {
			b.Earn()
		}
		start := time.Now()
		for range 2 {
			require.NoError(t, b.Wait(t.Context()))
		}
		require.Zero(t, time.Since(start))
		require.NoError(t, b.Wait(t.Context()))
		require.Equal(t, time.Second, time.Since(start))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, b.Wait(ctx), context.Canceled)
	})
}

// breaking is a Store whose listings and bodies break off after so many items or bytes.
type breaking struct {
	objectstore.Store
	after int
	cause error
	asked int
}

func (b *breaking) List(ctx context.Context, bucket, prefix string, o objectstore.ListOptions) iter.Seq2[objectstore.Object, error] {
	return func(yield func(objectstore.Object, error) bool) {
		b.asked++
		n := 0
		for x, err := range b.Store.List(ctx, bucket, prefix, o) {
			if n++; n > b.after {
				yield(objectstore.Object{}, b.cause)
				return
			}
			if !yield(x, err) {
				return
			}
		}
	}
}

func (b *breaking) Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error) {
	b.asked++
	rc, err := b.Store.Get(ctx, bucket, key, offset, length, ifMatch)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(io.MultiReader(io.LimitReader(rc, int64(b.after)), iotestErr{b.cause})), nil
}

type iotestErr struct{ err error }

func (e iotestErr) Read([]byte) (int, error) { return 0, e.err }

func TestAListingGoesOnWhereItBroke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := objectstore.NewMemory()
		require.NoError(t, m.MakeBucket(t.Context(), "bucket"))
		for i := range 30 {
			key := fmt.Sprintf("k/%02d/x", i)
			for _, k := range []string{key, fmt.Sprintf("k/%02d/y", i)} {
				_, err := m.Put(t.Context(), "bucket", k, strings.NewReader(""), 0, objectstore.PutOptions{})
				require.NoError(t, err)
			}
		}
		for _, o := range []objectstore.ListOptions{{}, {Delimiter: true}, {Max: 17}, {StartAfter: "k/11/x"}, {Delimiter: true, Max: 17}} {
			collect := func(s objectstore.Store) (keys []string) {
				for x, err := range s.List(t.Context(), "bucket", "k/", o) {
					require.NoError(t, err)
					keys = append(keys, x.Key)
				}
				return keys
			}
			b := &breaking{Store: m, after: 4, cause: slowDown()}
			require.Equal(t, collect(m), collect(objectstore.Retrying(b, objectstore.Retry{})), "%+v", o)
			require.Greater(t, b.asked, 3)
		}
	})
}

func TestABodyGoesOnWhereItBroke(t *testing.T) {
	text := strings.Repeat("0123456789", 100)
	for _, cause := range []error{io.EOF, io.ErrUnexpectedEOF, fmt.Errorf("%w: %w", objectstore.ErrUnreachable, syscall.ECONNRESET)} {
		synctest.Test(t, func(t *testing.T) {
			m := objectstore.NewMemory()
			require.NoError(t, m.MakeBucket(t.Context(), "bucket"))
			o, err := m.Put(t.Context(), "bucket", "o", strings.NewReader(text), int64(len(text)), objectstore.PutOptions{})
			require.NoError(t, err)
			b := &breaking{Store: m, after: 90, cause: cause}
			var tally objectstore.Tally
			s := objectstore.Retrying(b, objectstore.Retry{Tally: &tally})
			rc, err := s.Get(t.Context(), "bucket", "o", 50, 900, o.ETag)
			require.NoError(t, err)
			data, err := io.ReadAll(rc)
			require.NoError(t, err)
			require.Equal(t, text[50:950], string(data))
			require.EqualValues(t, 9, tally.Count(), "the tenth brought the rest; it ends where it was to end")

			rc, err = s.Get(t.Context(), "bucket", "o", 950, 60, o.ETag)
			require.NoError(t, err)
			data, err = io.ReadAll(rc)
			require.Error(t, err, "there is not that much")
			require.Equal(t, text[950:], string(data))

			rc, err = s.Get(t.Context(), "bucket", "o", 0, 1000, o.ETag)
			require.NoError(t, err)
			_, err = io.ReadFull(rc, make([]byte, 10))
			require.NoError(t, err)
			_, err = m.Put(t.Context(), "bucket", "o", strings.NewReader(text+"!"), int64(len(text))+1, objectstore.PutOptions{})
			require.NoError(t, err)
			_, err = io.ReadAll(rc)
			require.ErrorIs(t, err, objectstore.ErrPrecondition, "the rest of another object is no rest")
		})
	}
}

func TestPutAgainSendsAllOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := failing(t, 3, slowDown())
		s := objectstore.Retrying(m, objectstore.Retry{Patience: time.Minute})
		require.NoError(t, s.MakeBucket(t.Context(), "bucket"))
		big := bytes.Repeat([]byte("0123456789abcdef"), 17<<20/16) // more than is kept in memory
		for name, r := range map[string]io.Reader{"small": io.MultiReader(strings.NewReader("text")), "rewound": bytes.NewReader(big)} {
			size := int64(4)
			if name == "rewound" {
				size = int64(len(big))
			}
			_, err := s.Put(t.Context(), "bucket", name, r, size, objectstore.PutOptions{})
			require.NoError(t, err)
			h, err := s.Head(t.Context(), "bucket", name)
			require.NoError(t, err)
			require.Equal(t, size, h.Size)
		}
		_, err := s.Put(t.Context(), "bucket", "pipe", io.MultiReader(bytes.NewReader(big)), int64(len(big)), objectstore.PutOptions{})
		require.ErrorIs(t, err, objectstore.ErrUnreachable, "it cannot be read again")
	})
}

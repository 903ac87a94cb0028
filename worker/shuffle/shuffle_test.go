package shuffle

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

func TestOneRequestBringsANodesSegmentsAsTheyComeToBe(t *testing.T) {
	n := newNode(t, "i-a")
	for m := range 5 {
		n.add(m, 3, 200)
	}
	r := startReduce(t, n, 10, func(c *FetcherConfig) { c.Idle = time.Minute })
	r.Update(n.locs, nil)
	r.Update(n.locs, nil) // said again: nothing new
	have := func(k int) func() bool {
		return func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.got) == k }
	}
	require.Eventually(t, have(5), time.Minute, time.Millisecond)
	for m := 5; m < 10; m++ {
		n.add(m, 3, 0) // empty partitions too
		r.Update(n.locs[m:], nil)
	}
	r.check(n.want)
	require.EqualValues(t, 1, n.requests.Load())
}

func TestAnIdleRequestEndsAndANewOneFollows(t *testing.T) {
	n := newNode(t, "i-a")
	n.add(0, 2, 10)
	r := startReduce(t, n, 2, func(c *FetcherConfig) { c.Idle = time.Millisecond; c.Limit = NewLimit(1) })
	r.Update(n.locs, nil)
	require.Eventually(t, func() bool { return len(r.cfg.Limit) == 0 && n.requests.Load() == 1 }, time.Minute, time.Millisecond)
	n.add(1, 2, 10)
	r.Update(n.locs[1:], nil)
	r.check(n.want)
}

func TestCutConnectionsAreResumed(t *testing.T) {
	n := newNode(t, "i-a")
	n.cutAfter.Store(200_000)
	for m := range 4 {
		n.add(m, 2, 3000) // about 450 KB a partition: no connection carries a whole one
	}
	r := startReduce(t, n, 4)
	r.Update(n.locs, nil)
	r.check(n.want)
	require.Greater(t, n.requests.Load(), int64(8))
	require.Empty(t, r.problems)
}

func TestWhatIsOnThisNodeIsReadInPlace(t *testing.T) {
	n := newNode(t, "i-self")
	n.add(0, 2, 50)
	n.add(1, 2, 0)
	r := startReduce(t, n, 2, func(c *FetcherConfig) { c.Store = n.store })
	r.Update(n.locs, nil)
	r.check(n.want)
	require.Zero(t, n.requests.Load())
	require.Equal(t, n.path(0), r.got[0].Path)
	require.FileExists(t, r.got[1].Path, "an empty partition has a file to open")
}

// TestDamageIsFoundAndAnotherPlaceTaken spoils a segment in each way, here and at a distance.
func TestDamageIsFoundAndAnotherPlaceTaken(t *testing.T) {
	spoil := map[string]struct {
		do     func(t *testing.T, path string)
		reason string
	}{
		"missing": {func(t *testing.T, p string) { require.NoError(t, os.Remove(p)) }, "missing: "},
		"truncated": {func(t *testing.T, p string) {
			st, _ := os.Stat(p)
			require.NoError(t, os.Truncate(p, st.Size()/3))
		}, "damaged: "},
		"empty": {func(t *testing.T, p string) { require.NoError(t, os.Truncate(p, 0)) }, "damaged: "},
		"flipped byte": {func(t *testing.T, p string) {
			data, err := os.ReadFile(p)
			require.NoError(t, err)
			data[len(data)/2+1000] ^= 4 // in the second half: partition 1
			require.NoError(t, os.WriteFile(p, data, 0o600))
		}, "damaged: "},
		"flipped byte in the index": {func(t *testing.T, p string) {
			data, err := os.ReadFile(p)
			require.NoError(t, err)
			data[len(data)-40] ^= 4
			require.NoError(t, os.WriteFile(p, data, 0o600))
		}, "damaged: "},
		"another segment": {func(t *testing.T, p string) { segment(t, p, 2, 7, 99) }, "damaged: "},
	}
	for name, c := range spoil {
		for _, id := range []string{"i-a", "i-self"} {
			for _, again := range []bool{false, true} { // with the index in memory, and without
				t.Run(fmt.Sprintf("%s/%s/%v", name, id, again), func(t *testing.T) {
					n := newNode(t, id)
					n.add(0, 2, 500)
					n.add(1, 2, 500)
					c.do(t, n.path(1))
					if again {
						s := NewStore(n.store.dir)
						require.NoError(t, s.Open())
						n.store.indexes = s.indexes
						n.store.entries = 0
					} else if name == "another segment" || name == "flipped byte in the index" {
						t.Skip("what the memory holds is right")
					}
					r := startReduce(t, n, 2, func(f *FetcherConfig) {
						if id == "i-self" {
							f.Store = n.store
						}
					})
					r.Update(n.locs, nil)
					p := <-r.problems
					require.Equal(t, attemptOf(1), p.MapAttempt)
					require.Equal(t, id, p.SegmentNode)
					require.Equal(t, int32(1), p.Map)
					require.Contains(t, p.Reason, c.reason)
					require.Len(t, r.Problems(), 1)

					// The map is run again, elsewhere, under another attempt.
					b := newNode(t, "i-b")
					path := filepath.Join(t.TempDir(), "seg")
					want, x := segment(t, path, 2, 500, 1)
					attempt := job + "-m-00001-1-2"
					_, err := b.store.Adopt(job, attempt, path)
					require.NoError(t, err)
					r.Update(nil, []int32{1})
					r.Update([]*api.SegmentLocation{{Map: 1, Attempt: attempt, Node: "i-b", Address: b.srv.URL, Digest: x.Digest()}}, nil)
					n.want[1] = want
					r.check(n.want)
					require.Empty(t, r.Problems())
				})
			}
		}
	}
}

func TestAFrameSentTwiceIsTakenOnce(t *testing.T) {
	n := newNode(t, "i-a")
	for m := range 3 {
		n.add(m, 2, 100)
	}
	double := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(&doubling{ResponseWriter: w}, r)
		})
	}
	n.wrap.Store(&double)
	r := startReduce(t, n, 3)
	r.Update(n.locs, nil)
	r.check(n.want)
}

// doubling sends each frame twice: a frame is a write of a line and one of its bytes.
type doubling struct {
	http.ResponseWriter
	line []byte // of the frame under way
}

func (d *doubling) Unwrap() http.ResponseWriter { return d.ResponseWriter }
func (d *doubling) Write(p []byte) (int, error) {
	if bytes.HasPrefix(p, []byte(`{"map"`)) {
		d.line = bytes.Clone(p)
		return len(p), nil
	}
	for range 2 {
		if _, err := d.ResponseWriter.Write(append(bytes.Clone(d.line), p...)); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func TestAnUnreachableNodeIsGivenUpAndComesBack(t *testing.T) {
	n := newNode(t, "i-a")
	n.add(0, 2, 100)
	r := startReduce(t, n, 1, func(c *FetcherConfig) { c.GiveUp = 300 * time.Millisecond })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	dead := "https://" + l.Addr().String()
	require.NoError(t, l.Close())
	r.Update([]*api.SegmentLocation{{Map: 0, Attempt: attemptOf(0), Node: "i-a", Address: dead, Digest: n.locs[0].Digest}}, nil)
	p := <-r.problems
	require.Contains(t, p.Reason, "unreachable: ")
	r.Update(n.locs, nil) // it has started again, on another port
	r.check(n.want)
}

func TestANodeThatMovesIsFollowedAtOnce(t *testing.T) {
	n := newNode(t, "i-a")
	n.add(0, 2, 100)
	hang := newNode(t, "i-a") // takes the request and says nothing
	silent := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	}
	hang.wrap.Store(&silent)
	r := startReduce(t, n, 1, func(c *FetcherConfig) { c.Stall = time.Hour })
	old := &api.SegmentLocation{Map: 0, Attempt: attemptOf(0), Node: "i-a", Address: hang.srv.URL, Digest: n.locs[0].Digest}
	r.Update([]*api.SegmentLocation{old}, nil)
	require.Eventually(t, func() bool { return hang.requests.Load() > 0 }, time.Minute, time.Millisecond)
	r.Update(n.locs, nil)
	r.check(n.want)
}

func TestASilentNodeIsGivenUp(t *testing.T) {
	n := newNode(t, "i-a")
	n.add(0, 2, 100)
	silent := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	}
	n.wrap.Store(&silent)
	r := startReduce(t, n, 1, func(c *FetcherConfig) { c.GiveUp, c.Stall = 100*time.Millisecond, 50*time.Millisecond })
	r.Update(n.locs, nil)
	require.Contains(t, (<-r.problems).Reason, "stalled")
	n.wrap.Store(nil)
	r.Update(n.locs, nil) // the leader insists
	go func() {
		for { // and again, should this machine be slow for once
			select {
			case <-r.problems:
				r.Update(n.locs, nil)
			case <-r.taken:
				return
			}
		}
	}()
	r.check(n.want)
}

func TestALostMapIsNotFetchedAndOneFetchedStays(t *testing.T) {
	n := newNode(t, "i-a")
	n.add(0, 2, 100)
	n.add(1, 2, 100)
	r := startReduce(t, n, 2)
	r.Update(n.locs[:1], nil)
	require.Eventually(t, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.got) == 1 }, time.Minute, time.Millisecond)
	other := &api.SegmentLocation{Map: 0, Attempt: job + "-m-00000-1-9", Node: "i-z", Address: "https://127.0.0.1:1"}
	r.Update([]*api.SegmentLocation{other}, []int32{0})
	r.Update(n.locs[1:], nil)
	r.check(n.want)
	require.Empty(t, r.problems)
}

func TestAFullDiskHoldsTheFetchUpAndThenFailsIt(t *testing.T) {
	n := newNode(t, "i-a")
	n.add(0, 2, 100)
	var free atomic.Int64
	room := func(c *FetcherConfig) {
		c.Room = func() (int64, error) { return free.Load(), nil }
		c.Stall = 100 * time.Millisecond
	}
	r := startReduce(t, n, 1, room)
	r.Update(n.locs, nil)
	select {
	case err := <-r.done:
		t.Fatal(err)
	case <-time.After(300 * time.Millisecond): // longer than Stall: the sender is not to blame
	}
	free.Store(1 << 30)
	r.check(n.want)

	free.Store(0)
	r = startReduce(t, n, 1, room, func(c *FetcherConfig) { c.NoRoom = time.Millisecond })
	r.Update(n.locs, nil)
	require.ErrorIs(t, r.wait(), ErrNoRoom)
	require.Empty(t, r.problems)
}

func TestCancelEndsAFetch(t *testing.T) {
	n := newNode(t, "i-a")
	r := startReduce(t, n, 1)
	r.cancel()
	require.ErrorIs(t, r.wait(), context.Canceled)
}

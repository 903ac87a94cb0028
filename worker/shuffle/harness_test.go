package shuffle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"millrace/pkg/api"
	"millrace/pkg/record"
)

const job = "s-TEST"

func attemptOf(m int) string { return fmt.Sprintf("%s-m-%05d-1-1", job, m) }

// segment writes one segment and gives what each partition holds.
func segment(t *testing.T, path string, partitions, records int, seed uint64) ([][]string, record.Index) {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	rng := rand.New(rand.NewPCG(seed, 1))
	w := record.NewWriter(f, partitions, record.S2)
	want := make([][]string, partitions)
	for p := range want {
		for i := range records {
			k, v := fmt.Sprintf("key-%05d", i), make([]byte, rng.IntN(300))
			for j := range v {
				v[j] = byte(rng.Uint32())
			}
			require.NoError(t, w.Append(p, []byte(k), v))
			want[p] = append(want[p], k+"="+string(v))
		}
	}
	x, err := w.Close()
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return want, x
}

// node is a core node with a store and a server, whose connections can be cut.
type node struct {
	t     *testing.T
	id    string
	store *Store
	srv   *httptest.Server
	// cutAfter, if positive, is how many response bytes each connection carries before it is cut.
	cutAfter atomic.Int64
	requests atomic.Int64
	wrap     atomic.Pointer[func(http.Handler) http.Handler]
	want     map[int][][]string
	locs     []*api.SegmentLocation
}

func newNode(t *testing.T, id string) *node {
	n := &node{t: t, id: id, store: NewStore(t.TempDir()), want: map[int][][]string{}}
	require.NoError(t, n.store.Open())
	mux := http.NewServeMux()
	NewServer(n.store, zaptest.NewLogger(t)).Register(mux)
	n.srv = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.requests.Add(1)
		var h http.Handler = mux
		if f := n.wrap.Load(); f != nil {
			h = (*f)(h)
		}
		h.ServeHTTP(w, r)
	}))
	n.srv.Listener = cutting{n.srv.Listener, &n.cutAfter}
	n.srv.StartTLS()
	t.Cleanup(n.srv.CloseClientConnections)
	t.Cleanup(n.srv.Close)
	return n
}

// add makes the segment of a map on this node.
func (n *node) add(m, partitions, records int) {
	path := filepath.Join(n.t.TempDir(), "seg")
	want, x := segment(n.t, path, partitions, records, uint64(m))
	_, err := n.store.Adopt(job, attemptOf(m), path)
	require.NoError(n.t, err)
	n.want[m] = want
	n.locs = append(n.locs, &api.SegmentLocation{Map: int32(m), Attempt: attemptOf(m), Node: n.id, Address: n.srv.URL, Digest: x.Digest()})
}

func (n *node) path(m int) string { return n.store.path(key{job, attemptOf(m)}) }

// Client makes the test's nodes Clients; the test servers' certificates are all alike.
type clients struct{ c *http.Client }

func (c clients) Client(string) (*http.Client, error) { return c.c, nil }

type cutting struct {
	net.Listener
	after *atomic.Int64
}

func (l cutting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if n := l.after.Load(); n > 0 {
		return &cutConn{Conn: c, left: n}, nil
	}
	return c, nil
}

type cutConn struct {
	net.Conn
	left int64
}

func (c *cutConn) Write(p []byte) (int, error) {
	if c.left -= int64(len(p)); c.left < 0 {
		c.Conn.Close()
		return 0, errors.New("cut")
	}
	return c.Conn.Write(p)
}

// reduce is a fetch under test.
type reduce struct {
	*Fetcher
	t        *testing.T
	problems chan *api.SegmentProblem
	done     chan error
	cancel   context.CancelFunc
	got      map[int32]*api.ChildSegment
	mu       sync.Mutex
	doubled  int
	taken    chan struct{} // closed when everything handed over is in got
}

func startReduce(t *testing.T, n *node, maps int, change ...func(*FetcherConfig)) *reduce {
	t.Helper()
	r := &reduce{t: t, problems: make(chan *api.SegmentProblem, 100), done: make(chan error, 1), taken: make(chan struct{}), got: map[int32]*api.ChildSegment{}}
	c := FetcherConfig{Job: job, Attempt: job + "-r-00001-1-1", Partition: 1, Maps: maps, Dir: t.TempDir(), Node: "i-self",
		Store: NewStore(t.TempDir()), Clients: clients{n.srv.Client()}, Problem: func(p *api.SegmentProblem) { r.problems <- p },
		GiveUp: 20 * time.Second, Stall: 20 * time.Second, Idle: 50 * time.Millisecond, Log: zaptest.NewLogger(t)}
	for _, ch := range change {
		ch(&c)
	}
	f, err := NewFetcher(c)
	require.NoError(t, err)
	r.Fetcher = f
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	t.Cleanup(cancel)
	go func() {
		defer close(r.taken)
		for {
			select {
			case list := <-f.Segments():
				r.mu.Lock()
				for _, g := range list {
					if r.got[g.Map] != nil {
						r.doubled++
					}
					r.got[g.Map] = g
				}
				r.mu.Unlock()
			case <-ctx.Done():
				return
			}
		}
	}()
	go func() { r.done <- f.Run(ctx) }()
	return r
}

func (r *reduce) wait() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(2 * time.Minute):
		r.t.Fatalf("the fetch hangs: %d of %d, problems %v", len(r.got), r.cfg.Maps, r.Problems())
		return nil
	}
}

// check reads everything that was fetched and compares it with what was written.
func (r *reduce) check(want map[int][][]string) {
	r.t.Helper()
	require.NoError(r.t, r.wait())
	r.cancel()
	<-r.taken
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Zero(r.t, r.doubled, "a segment came twice")
	require.Len(r.t, r.got, len(want))
	for m, parts := range want {
		g := r.got[int32(m)]
		require.NotNil(r.t, g, "map %d", m)
		require.Equal(r.t, parts[r.cfg.Partition], decode(r.t, g, r.cfg.Partition), "map %d", m)
	}
}

func decode(t *testing.T, g *api.ChildSegment, partition int) (out []string) {
	t.Helper()
	f, err := os.Open(g.Path)
	require.NoError(t, err)
	defer f.Close()
	rd := record.NewReader(io.NewSectionReader(f, g.Offset, g.Length), partition)
	defer rd.Close()
	for {
		k, v, err := rd.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		out = append(out, string(k)+"="+string(v))
	}
	l := rd.Ledger()
	require.Equal(t, g.Ledger.Records, l.Records)
	require.Equal(t, g.Ledger.Checksum, l.Checksum)
	return out
}

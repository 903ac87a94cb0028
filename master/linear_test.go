package master

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api/apiconnect"
	"millrace/pkg/client"
	"millrace/pkg/objectstore"
)

var (
	linearFaults = flag.Int("linear.faults", 5, "how often the leadership is troubled in TestLinearizable")
	linearSeed   = flag.Uint64("linear.seed", 1, "what clients do in TestLinearizable; 0: something else each time")
)

const (
	linearClients = 5
	callsBetween  = 40 // answered calls between two faults
	callWithin    = 2 * time.Second
)

// Clients of all three masters make, read and end tokens and jobs while the leadership is handed over, leaders are closed and opened again
// and cut off from the others, though not from clients. There is one order of all calls, each between its beginning and its
// answer, that explains what everybody was told.
func TestLinearizable(t *testing.T) {
	s, n := cuttable(t)
	require.NoError(t, s.store.MakeBucket(t.Context(), "data-in"))
	require.NoError(t, s.store.MakeBucket(t.Context(), "data-out"))
	_, err := s.store.Put(t.Context(), "data-in", "a", strings.NewReader("text\n"), 5, objectstore.PutOptions{})
	require.NoError(t, err)

	seed := *linearSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Log("seed", seed)
	w := newWatchers(s, seed)
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for id := range linearClients {
		clients.Go(func() { w.client(ctx, id) })
	}
	f := troubles{t: t, s: s, n: n, w: w}
	for i := range *linearFaults {
		w.more(callsBetween)
		f.next(i)
	}
	w.more(callsBetween)
	stop()
	clients.Wait()
	t.Logf("%d calls, %d of them unclear", w.calls.Load(), w.unclear.Load())
	if found := w.all.violation(); found != "" {
		t.Fatal("no order explains this:\n" + found)
	}
}

// cuttable is a site of three masters, any of which the network may cut off.
func cuttable(t *testing.T) (*site, *network) {
	t.Helper()
	s := &site{t: t, store: objectstore.NewMemory()}
	n := &network{cut: -1}
	for i := range 3 {
		s.dial = n.dialer(i)
		if i == 0 {
			s.first()
		} else {
			s.join()
		}
		n.places[i].Store(string(s.masters[i].raft.address))
	}
	return s, n
}

// network is what Raft's connections go over; one master at a time may be cut off.
type network struct {
	places [3]atomic.Value // where each master listens: string

	mu    sync.Mutex
	cut   int // -1: none
	conns []connection
}

type connection struct {
	net.Conn
	from, to int
}

func (n *network) at(address string) int {
	for i := range n.places {
		if n.places[i].Load() == address {
			return i
		}
	}
	return -2 // it is new, and nobody has cut it off
}

// dialer makes the connections of one master.
func (n *network) dialer(from int) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		to := n.at(address)
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.cut == from || n.cut == to {
			conn.Close()
			return nil, fmt.Errorf("master %d is cut off", n.cut)
		}
		n.conns = append(n.conns, connection{conn, from, to})
		return conn, nil
	}
}

// isolate cuts one master off; -1 heals.
func (n *network) isolate(i int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = i
	n.conns = slices.DeleteFunc(n.conns, func(c connection) bool {
		if c.from != i && c.to != i {
			return false
		}
		c.Close()
		return true
	})
}

// troubles trouble the leadership, each kind in its turn.
type troubles struct {
	t *testing.T
	s *site
	n *network
	w *watchers
}

func (f *troubles) next(i int) {
	leader := f.s.leader()
	at := slices.Index(f.s.masters, leader)
	switch i % 4 {
	case 0:
		if err := leader.raft.LeadershipTransfer().Error(); err != nil {
			f.t.Logf("hand over: %v", err) // it had lost it already
		}
	case 1:
		f.n.isolate(at)
		f.s.eventually("another leads", func() bool {
			return slices.ContainsFunc(f.s.masters, func(m *Master) bool { return m != leader && m.server.Leads() })
		})
		f.w.more(callsBetween)
		f.n.isolate(-1)
	case 2:
		f.restart(at)
	case 3: // back and forth: the first is perhaps in office again before it has heard that it was not
		for range 3 {
			_ = f.s.leader().raft.LeadershipTransfer().Error()
		}
	}
	f.s.leader()
	for _, m := range f.s.masters {
		select {
		case err := <-m.failed:
			f.t.Fatalf("master %s gave up: %v", m.ID(), err)
		default:
		}
	}
}

// restart closes a master, lets the others go on, and opens it again.
func (f *troubles) restart(i int) {
	old := f.s.masters[i]
	require.NoError(f.t, old.Close())
	f.s.masters = slices.Delete(f.s.masters, i, i+1)
	f.w.serve(f.s.masters)
	f.s.leader()
	f.w.more(callsBetween)
	c := testConfig(f.t, old.cfg.Dir, f.s.store)
	c.Store, c.Log, c.dial = nil, old.cfg.Log, old.cfg.dial
	again, err := New(c)
	require.NoError(f.t, err)
	f.t.Cleanup(func() { again.Close() })
	require.NoError(f.t, again.Open(f.t.Context()))
	f.n.places[i].Store(string(again.raft.address))
	f.s.masters = slices.Insert(f.s.masters, i, again)
	f.s.votes(again)
	f.w.serve(f.s.masters)
}

// watchers are the clients, and what they all saw.
type watchers struct {
	s       *site
	seed    uint64
	began   time.Time
	calls   atomic.Int64 // that were answered
	unclear atomic.Int64
	apis    atomic.Pointer[[]apiconnect.MillraceServiceClient] // of the masters that are up

	mu     sync.Mutex
	all    chronicle
	unsure map[string]int // calls without an answer, by key
	tokens []*thing
	jobs   []*thing
}

// thing is a token or a job that somebody has begun to make.
type thing struct{ key, id string }

func newWatchers(s *site, seed uint64) *watchers {
	w := &watchers{s: s, seed: seed, began: time.Now(), unsure: map[string]int{}}
	w.serve(s.masters)
	return w
}

func (w *watchers) serve(masters []*Master) {
	var apis []apiconnect.MillraceServiceClient
	for _, m := range masters {
		c, err := client.New(client.Config{Servers: []string{m.Address()}, Credential: w.s.admin.Credential(), RetryFor: -1})
		require.NoError(w.s.t, err)
		w.s.t.Cleanup(func() { c.Close() })
		apis = append(apis, c.API())
	}
	w.apis.Store(&apis)
}

// more waits for so many more answers.
func (w *watchers) more(n int64) {
	w.s.t.Helper()
	until := w.calls.Load() + n
	w.s.eventually("clients are answered", func() bool { return w.calls.Load() >= until })
}

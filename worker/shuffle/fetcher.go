package shuffle

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"millrace/pkg/api"
)

// Clients gives an HTTP/1.1 client that connects to one node and checks that it is it.
type Clients interface {
	Client(node string) (*http.Client, error)
}

// Limit bounds the shuffle requests that a node has open, over all its reduces.
type Limit chan struct{}

// NewLimit allows n at once.
func NewLimit(n int) Limit { return make(Limit, n) }

// FetcherConfig sets up a Fetcher. Zero durations mean defaults.
type FetcherConfig struct {
	Job, Attempt string // of the reduce
	Partition    int
	Maps         int    // how many segments there will be
	Dir          string // for the spools; exists, and is removed by its owner
	Node         string // this one, whose segments are read in place
	Store        *Store
	Lend         bool // the reader, of the group of Dir, cannot get to where they are
	Clients      Clients
	Limit        Limit
	// Room says how many bytes may still be spooled; nil: no bound.
	Room func() (int64, error)
	// Problem is told of each segment that cannot be had; it must not block.
	Problem func(*api.SegmentProblem)
	GiveUp  time.Duration // with a node that does not answer; default 4 s
	Stall   time.Duration // without a byte that is due, a request is cut off; default 10 s
	Idle    time.Duration // after which a request that wants nothing is ended; default 2 s
	NoRoom  time.Duration // how long to wait for disk space; default 20 s: there may be room elsewhere
	Log     *zap.Logger
}

// ErrNoRoom says that a disk was too full: this node's, to spool, for too long; or that of a node
// which was to take a segment.
var ErrNoRoom = errors.New("no room on the disk")

// Fetcher brings one reduce's partition of every map's segment to this machine:
// each once, verified, whatever breaks on the way.
type Fetcher struct {
	cfg FetcherConfig
	out chan []*api.ChildSegment

	kick chan struct{} // something in the fields below has changed

	mu       sync.Mutex
	places   map[int32]*place // of maps that are not done
	done     map[int32]bool
	ready    []*api.ChildSegment
	problems map[int32]*api.SegmentProblem // that the leader has not answered
	sources  map[string]*source
	addrs    map[string]string // of nodes: the one last heard of
	fresh    bool              // places have come that sources do not know of
	failed   error
}

// place is where a map's segment is said to be.
type place struct {
	loc *api.SegmentLocation
	bad bool // tried in vain: waits for another
}

// NewFetcher checks the configuration and starts nothing.
func NewFetcher(c FetcherConfig) (*Fetcher, error) {
	if c.Maps < 0 || c.Partition < 0 || c.Dir == "" || c.Store == nil || c.Clients == nil || c.Problem == nil {
		return nil, errors.New("shuffle: incomplete configuration")
	}
	if c.Limit == nil {
		c.Limit = NewLimit(maxTransfers)
	}
	for d, v := range map[*time.Duration]time.Duration{
		&c.GiveUp: 4 * time.Second, &c.Stall: 10 * time.Second, &c.Idle: 2 * time.Second, &c.NoRoom: 20 * time.Second} {
		if *d == 0 {
			*d = v
		}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return &Fetcher{cfg: c, out: make(chan []*api.ChildSegment), kick: make(chan struct{}, 1),
		places: map[int32]*place{}, done: map[int32]bool{},
		problems: map[int32]*api.SegmentProblem{}, sources: map[string]*source{}, addrs: map[string]string{}}, nil
}

// Segments brings what has been fetched. It is never closed.
func (f *Fetcher) Segments() <-chan []*api.ChildSegment { return f.out }

// Update takes in new places, and maps whose old one is void. A place for a map that has
// been fetched changes nothing: the bytes are here and were verified.
func (f *Fetcher) Update(locations []*api.SegmentLocation, lost []int32) {
	f.mu.Lock()
	for _, m := range lost {
		delete(f.places, m)
		delete(f.problems, m)
	}
	for _, l := range locations {
		if f.done[l.Map] || l.Map < 0 || int(l.Map) >= f.cfg.Maps {
			continue
		}
		if f.addrs[l.Node] != l.Address { // it has started anew: that holds for all it has
			f.addrs[l.Node], f.fresh = l.Address, true
		}
		if p := f.places[l.Map]; p != nil && !p.bad && p.loc.Attempt == l.Attempt && p.loc.Node == l.Node {
			continue
		}
		f.fresh = true
		f.places[l.Map] = &place{loc: l}
		delete(f.problems, l.Map)
	}
	f.mu.Unlock()
	f.wake()
}

// Problems lists those that nothing has come of yet, to be said again to a new leader.
func (f *Fetcher) Problems() []*api.SegmentProblem {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*api.SegmentProblem
	for _, p := range f.problems {
		out = append(out, p)
	}
	return out
}

func (f *Fetcher) wake() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// Run fetches until every map's segment has been handed over (nil), ctx ends, or this
// node's disk fails it.
func (f *Fetcher) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	empty := filepath.Join(f.cfg.Dir, "empty")
	if err := os.WriteFile(empty, nil, readable); err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	delivered := 0
	for delivered < f.cfg.Maps {
		f.mu.Lock()
		f.start(ctx, &wg, empty)
		batch, failed := f.ready, f.failed
		f.mu.Unlock()
		if failed != nil {
			return failed
		}
		var out chan []*api.ChildSegment
		if len(batch) > 0 {
			out = f.out
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.kick:
		case out <- batch:
			delivered += len(batch)
			f.mu.Lock()
			f.ready = f.ready[len(batch):]
			f.mu.Unlock()
		}
	}
	return nil
}

// start sees to it that every node with something to fetch has a source at work,
// which it tells. Called with mu held.
func (f *Fetcher) start(ctx context.Context, wg *sync.WaitGroup, empty string) {
	if !f.fresh {
		return
	}
	f.fresh = false
	for _, p := range f.places {
		if p.bad {
			continue
		}
		s := f.sources[p.loc.Node]
		if s == nil {
			s = &source{f: f, node: p.loc.Node, empty: empty, news: make(chan struct{}, 1)}
			f.sources[p.loc.Node] = s
			wg.Go(func() { s.run(ctx) })
		}
		select {
		case s.news <- struct{}{}:
		default:
		}
	}
}

func (f *Fetcher) address(node string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.addrs[node]
}

// wanted lists the places at a node that are still to be fetched from, by map.
func (f *Fetcher) wanted(node string) []*api.SegmentLocation {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*api.SegmentLocation
	for _, p := range f.places {
		if p.loc.Node == node && !p.bad {
			out = append(out, p.loc)
		}
	}
	slices.SortFunc(out, func(a, b *api.SegmentLocation) int { return int(a.Map) - int(b.Map) })
	return out
}

// current says whether a place is still the one to fetch from.
func (f *Fetcher) current(l *api.SegmentLocation) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.places[l.Map]
	return p != nil && !p.bad && p.loc == l
}

// arrived takes a segment in, unless it is not wanted any more.
func (f *Fetcher) arrived(l *api.SegmentLocation, g *api.ChildSegment) (taken bool) {
	f.mu.Lock()
	if p := f.places[l.Map]; p != nil && p.loc.Attempt == l.Attempt && !f.done[l.Map] {
		f.done[l.Map], taken = true, true
		delete(f.places, l.Map)
		delete(f.problems, l.Map)
		f.ready = append(f.ready, g)
	}
	f.mu.Unlock()
	f.wake()
	return taken
}

// problem gives a place up and tells of it.
func (f *Fetcher) problem(l *api.SegmentLocation, reason string) {
	f.mu.Lock()
	p := f.places[l.Map]
	if p == nil || p.loc != l || p.bad {
		f.mu.Unlock()
		return
	}
	p.bad = true
	m := &api.SegmentProblem{Job: f.cfg.Job, Map: l.Map, MapAttempt: l.Attempt, SegmentNode: l.Node,
		ReduceAttempt: f.cfg.Attempt, Reason: reason}
	f.problems[l.Map] = m
	f.mu.Unlock()
	f.cfg.Log.Warn("a segment cannot be had", zap.String("job", f.cfg.Job), zap.String("attempt", f.cfg.Attempt),
		zap.String("segment", l.Attempt), zap.String("segmentNode", l.Node), zap.String("reason", reason))
	f.cfg.Problem(m)
}

// fail ends the fetch for a reason of this node's own.
func (f *Fetcher) fail(err error) {
	f.mu.Lock()
	if f.failed == nil {
		f.failed = err
	}
	f.mu.Unlock()
	f.wake()
}

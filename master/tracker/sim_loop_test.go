package tracker

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// sim is a large site in one goroutine: the tracker, the scheduler and the state are the real ones; the log, the
// store and the nodes are played. Time is a number, and what happens next is the first of a heap of events, ordered
// by time, then by whom it concerns, then by how many concerned him before. So a seed gives the same run each time,
// to the last message: nothing hangs on goroutines, on the machine's clock or on the order of a map.
type sim struct {
	seed  uint64
	r     *rand.Rand // drawn from by events alone, whose order is given
	now   time.Duration
	queue simQueue
	count map[int]uint64 // events so far, by whom they concern
	trace hash.Hash64

	log    *state.Store
	mu     sync.Mutex // of the log: a flight's entries come together
	index  uint64
	store  *simStore
	nodes  []*simNode
	byID   map[string]*simNode
	leader *simLeader
	term   uint64
	jobs   map[string]*simJob
	check  *simCheck

	// By the machine's clock, and no part of what happens:
	rounds  int           // of the leader's loop
	busy    time.Duration // that they took
	slow    string        // the log's entry that took longest
	slowest time.Duration
}

// Whom an event concerns, if it is no node.
const (
	simWeather = -2
	simOffice  = -1
)

const (
	simTick = time.Millisecond     // times are whole ticks, so that what comes together is settled together
	simLog  = 3 * time.Millisecond // an entry, or a request to the store
)

var simStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newSim(seed uint64) *sim {
	s := &sim{seed: seed, r: rand.New(rand.NewPCG(seed, 7)), count: map[int]uint64{}, trace: fnv.New64a(),
		log: state.New(), store: newSimStore(), byID: map[string]*simNode{}, jobs: map[string]*simJob{}}
	s.check = newSimCheck(s)
	s.must(state.CreateSite{
		Site:    state.Site{ID: "site", SystemPrefix: "s3://system/"},
		Cluster: state.Cluster{ID: "j-1", Name: "default", Groups: []state.Group{{ID: "ig-c", Role: state.RoleCore}, {ID: "ig-t", Role: state.RoleTask}}},
	})
	return s
}

func (s *sim) clock() time.Time { return simStart.Add(s.now) }

func (s *sim) must(c state.Command) {
	if _, err := s.apply(c); err != nil {
		panic(err)
	}
}

func (s *sim) apply(c state.Command) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index++
	began := time.Now()
	result, err := s.log.Apply(s.index, c)
	if took := time.Since(began); took > s.slowest {
		s.slow, s.slowest = c.CommandName(), took
	}
	if err == nil {
		s.check.applied(c, result)
	}
	return result, err
}

// simEvent is something that will happen.
type simEvent struct {
	at   time.Duration
	whom int
	nth  uint64
	do   func()
}

type simQueue []simEvent

func (q simQueue) Len() int      { return len(q) }
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(x any)   { *q = append(*q, x.(simEvent)) }
func (q simQueue) Less(i, j int) bool {
	a, b := &q[i], &q[j]
	if a.at != b.at {
		return a.at < b.at
	}
	if a.whom != b.whom {
		return a.whom < b.whom
	}
	return a.nth < b.nth
}
func (q *simQueue) Pop() any {
	last := (*q)[len(*q)-1]
	(*q)[len(*q)-1] = simEvent{}
	*q = (*q)[:len(*q)-1]
	return last
}

// in has something happen after a while.
func (s *sim) in(d time.Duration, whom int, do func()) {
	s.count[whom]++
	at := (s.now + d + simTick - 1) / simTick * simTick
	heap.Push(&s.queue, simEvent{at: at, whom: whom, nth: s.count[whom], do: do})
}

// note makes something that happened part of the trace.
func (s *sim) note(what string, whom int, about string) {
	fmt.Fprintf(s.trace, "%d %s %d %s\n", s.now, what, whom, about)
}

// run lets things happen until over says so, or nothing is left.
func (s *sim) run(over func() bool) {
	for len(s.queue) > 0 && !over() {
		s.now = s.queue[0].at
		for len(s.queue) > 0 && s.queue[0].at == s.now {
			heap.Pop(&s.queue).(simEvent).do()
			if len(s.leader.events) >= simBatch {
				s.leader.turn()
			}
		}
		for len(s.leader.events) > 0 {
			s.leader.turn()
		}
	}
}

// simLeader is one term's tracker. Its loop is turned by the simulation.
type simLeader struct {
	*Tracker
	s       *sim
	since   time.Duration
	dead    bool
	errands []func() // beside the loop, on their way
}

// simBatch is how many events one round of the loop takes in, as drain does.
const simBatch = 257

// lead puts a leader into office; the nodes turn to it as they find it.
func (s *sim) lead() {
	s.term++
	l := &simLeader{s: s, since: s.now}
	var err error
	l.Tracker, err = New(Config{Term: s.term, View: s.log.View, Apply: l.apply, Workers: l, Stores: l, Now: s.clock})
	if err != nil {
		panic(err)
	}
	l.beside, l.alarm = l.errand, l.wake
	s.leader = l
	l.begin(context.Background())
}

// depose ends the leader. What it has asked for may be carried out, or not; it hears nothing of it.
func (s *sim) depose() {
	l := s.leader
	for _, f := range l.errands {
		if f != nil && s.r.IntN(2) == 0 {
			f()
		}
	}
	l.dead = true
	close(l.done)
	for _, n := range s.nodes {
		n.unlink()
	}
	s.note("deposed", simOffice, "")
}

// turn is one round of the tracker's loop.
func (l *simLeader) turn() {
	began := time.Now()
	for range simBatch {
		select {
		case e := <-l.events:
			e.do()
			continue
		default:
		}
		break
	}
	l.settle()
	l.s.busy += time.Since(began)
	l.s.rounds++
	if l.fatal != nil {
		panic(l.fatal)
	}
}

func (l *simLeader) errand(f func()) {
	i := len(l.errands)
	l.errands = append(l.errands, f)
	l.s.in(simLog, simOffice, func() {
		if l.dead {
			return
		}
		l.errands[i] = nil
		for len(l.errands) > 0 && l.errands[len(l.errands)-1] == nil {
			l.errands = l.errands[:len(l.errands)-1]
		}
		f()
	})
}

func (l *simLeader) wake(d time.Duration, f func()) func() bool {
	stopped := false
	l.s.in(d, simOffice, func() {
		if !stopped && !l.dead {
			f()
		}
	})
	return func() bool { stopped = true; return true }
}

func (l *simLeader) apply(_ context.Context, c state.Command) (any, error) { return l.s.apply(c) }

func (l *simLeader) For(*state.Job) (objectstore.Store, *api.ObjectStore, error) {
	return l.s.store, &api.ObjectStore{Endpoint: "simulated"}, nil
}

func (l *simLeader) Publisher(*state.Job) (Publisher, error) {
	return nil, errors.New("there is no block store")
}

func (l *simLeader) System() (objectstore.Store, string, string, error) {
	return l.s.store, "system", "", nil
}

func (l *simLeader) Send(node string, m *api.MasterMessage) bool {
	n := l.s.byID[node]
	if l.dead || n == nil || !n.linked {
		return false
	}
	session := n.session
	l.s.in(n.delay, n.number, func() {
		if n.session == session && n.linked {
			n.hear(m)
		}
	})
	return true
}

func (l *simLeader) Connected(node string) bool { return l.s.byID[node].linked }

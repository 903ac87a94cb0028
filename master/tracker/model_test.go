package tracker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// model is a site of which nothing happens by itself: each request to the store
// and each log entry hangs until somebody outside says what becomes of it. The
// tracker in it is the real one, and so are the log's state and the store in
// memory. Time passes when nothing else can.
type model struct {
	*scenario
	mem *objectstore.Memory

	mu       sync.Mutex
	log      *state.Store
	index    uint64
	leaders  []*modelLeader // the last one is in office
	nodes    []*modelNode
	attempts []*modelAttempt
	pending  []*request
	late     []*request // given up by who asked; may still be carried out
	chores   []func()   // what workers do at once
	named    map[string]int
	uploads  map[string]string // the store's ids by ours, which tell nothing of the order between keys
	halved   map[string]bool   // uploads that have lost their second part
	ticks    int               // how often time has passed

	left      budget
	cancelled bool
	denied    bool // the store has refused something for good
	spent     budget
	watch     watcher
}

// budget is what may go wrong in one run.
type budget struct {
	Faults  int // of requests, uploads, attempts, nodes
	Changes int // of leader
}

// scenario is a job that things go wrong for.
type scenario struct {
	name          string
	maps, reduces int
	overwrite     bool
	cancel        bool           // somebody cancels it, at any moment
	failing       map[int32]bool // output tasks whose attempts all fail
	short         bool           // a second attempt of a reduce has read less than the maps wrote
	refusals      bool           // the store may refuse a request for good
	noSuccess     bool           // it refuses _SUCCESS: the commit fails when all parts are there
	budgets       []budget       // what is tried in `make test`
}

// request hangs until it is answered or given up.
type request struct {
	who, op  string
	what     string // who asks for what, in words; the same for a repeated one
	name     string // what, told apart from its repetitions
	write    bool
	entry    bool // of the log
	repeated bool // it had an answer before
	keys     []string
	do       func() (string, error) // carries it out, and gives the answer in words; may be called again
	answer   func(said string, err error)
}

type modelLeader struct {
	*Tracker
	m      *model
	name   string
	cancel context.CancelFunc
	over   chan error
	dead   bool
	heard  []string // what its loop was told, in order
	read   []string // what the store has answered
}

type modelNode struct {
	id, role string
	slots    int
	away     bool
	segments []*api.HeldSegment
}

// modelAttempt writes its two parts in one request, then reports.
type modelAttempt struct {
	name   string // by task, and which attempt at it: the tracker's own name tells of the order between tasks
	lease  *api.Lease
	node   *modelNode
	over   bool
	upload *request           // under way
	report *api.AttemptReport // not acknowledged
}

func newModel(sc *scenario, b budget) *model {
	m := &model{scenario: sc, left: b, mem: objectstore.NewMemory(), log: state.New(), named: map[string]int{}, halved: map[string]bool{}, uploads: map[string]string{}}
	m.watch = watcher{m: m, swept: map[string]int{}, strays: map[string]int{}, replaced: map[string]bool{}, copies: map[string]bool{}}
	ctx := context.Background()
	_, _ = m.mem.MakeBucket(ctx, "data"), m.mem.MakeBucket(ctx, "system")
	m.apply(state.CreateSite{
		Site:    state.Site{ID: "site", SystemPrefix: "s3://system/"},
		Cluster: state.Cluster{ID: "j-1", Name: "default", Groups: []state.Group{{ID: "ig-c", Role: state.RoleCore}, {ID: "ig-t", Role: state.RoleTask}}},
	})
	for _, n := range []*modelNode{{id: "i-a", role: state.RoleCore, slots: 0}, {id: "i-b", role: state.RoleTask, slots: 2}, {id: "i-c", role: state.RoleTask, slots: 2}} {
		group := map[string]string{state.RoleCore: "ig-c", state.RoleTask: "ig-t"}[n.role]
		m.apply(state.PutNode{Node: state.Node{ID: n.id, Name: n.id, Cluster: "j-1", Group: group, Role: n.role, State: state.NodeAdmitted}})
		m.nodes = append(m.nodes, n)
	}
	m.store("in/text", strings.Repeat("123456789\n", sc.maps))
	if sc.overwrite {
		m.store("out/_SUCCESS", "the old set")
		for i := range 3 {
			m.store(fmt.Sprintf("out/part-r-%05d", i), strings.Repeat("o", len(modelText("r-00000.1")))) // as long as the new one
		}
	}
	spec := &api.JobSpec{
		Program: &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_BUILTIN, Name: "wordcount"},
		Input:   []string{"s3://data/in/"}, Output: "s3://data/out/", SplitSize: 10, InputFormat: "text", MaxAttempts: 2,
		Reduces: proto.Int32(int32(sc.reduces)),
	}
	j := state.Job{ID: testJob, Cluster: "j-1", Name: "test", Input: spec.Input, Output: spec.Output, Overwrite: sc.overwrite, SubmittedAt: time.Now()}
	j.Spec, _ = proto.Marshal(spec)
	m.apply(state.SubmitJob{Job: j})
	m.watch.begin()
	m.lead()
	return m
}

func (m *model) store(key, text string) {
	if _, err := m.mem.Put(context.Background(), "data", key, strings.NewReader(text), int64(len(text)), objectstore.PutOptions{}); err != nil {
		panic(err)
	}
}

func (m *model) apply(c state.Command) (any, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index++
	return m.log.Apply(m.index, c)
}

func (m *model) job() *state.Job {
	j, _ := m.log.View().Job(testJob)
	return j
}

func (m *model) office() *modelLeader { return m.leaders[len(m.leaders)-1] }

// lead puts the next leader into office; the workers turn to it.
func (m *model) lead() {
	l := &modelLeader{m: m, name: fmt.Sprintf("leader %d", len(m.leaders)+1), over: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	var err error
	l.Tracker, err = New(Config{Term: uint64(len(m.leaders) + 1), View: m.log.View, Apply: l.apply, Workers: l, Stores: l, UploadBatch: 4})
	if err != nil {
		panic(err)
	}
	m.mu.Lock()
	m.leaders = append(m.leaders, l)
	m.mu.Unlock()
	go func() { l.over <- l.Run(ctx) }()
	for _, n := range m.nodes {
		if !n.away {
			m.hello(n)
		}
	}
}

// ask hangs a request of a leader and waits for what becomes of it.
func (m *model) ask(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", r.op, err)
	}
	answered := make(chan error, 1)
	r.answer = func(said string, err error) {
		m.heard(r, said, err)
		answered <- err
	}
	m.hang(r)
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
		if m.giveUp(r) {
			return fmt.Errorf("%s: %w", r.op, ctx.Err())
		}
		return <-answered
	}
}

// heard notes what a leader has learnt: with it, what it does next is given.
func (m *model) heard(r *request, said string, err error) {
	for _, l := range m.leaders {
		switch {
		case l.name != r.who:
		case r.entry:
			l.heard = append(l.heard, fmt.Sprint(r.name, " ", err))
		default:
			l.read = append(l.read, fmt.Sprint(m.ticks, " ", r.name, " ", said, " ", err))
		}
	}
}

func (m *model) hang(r *request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.what = strings.TrimSpace(fmt.Sprintf("%s's %s %s", r.who, r.op, strings.Join(r.keys, " ")))
	m.named[r.what]++
	if r.name = r.what; m.named[r.what] > 1 {
		r.name = fmt.Sprintf("%s (%d)", r.what, m.named[r.what])
	}
	m.pending = append(m.pending, r)
}

// giveUp: who asked does not wait any more. What it asked for may still be done.
func (m *model) giveUp(r *request) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.Index(m.pending, r)
	if i < 0 {
		return false
	}
	m.pending = slices.Delete(m.pending, i, i+1)
	if r.write && !r.entry {
		m.late = append(m.late, r)
	}
	return true
}

// hanging gives the requests that wait for an answer and those that are late, by name.
func (m *model) hanging() (lists [2][]*request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, list := range [][]*request{m.pending, m.late} {
		lists[i] = slices.SortedFunc(slices.Values(list), func(a, b *request) int { return strings.Compare(a.name, b.name) })
	}
	return lists
}

// setAway cuts a node off, or lets it come back.
func (m *model) setAway(n *modelNode, away bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n.away = away
}

// take takes a request off a list.
func (m *model) take(list *[]*request, r *request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := slices.Index(*list, r); i >= 0 {
		*list = slices.Delete(*list, i, i+1)
	}
}

func (l *modelLeader) apply(ctx context.Context, c state.Command) (any, error) {
	r := &request{who: l.name, op: c.CommandName(), entry: true, write: true}
	var result any
	var refusal error
	r.do = func() (string, error) {
		if l.m.office() != l {
			return "", errDied // deposed: the log takes nothing from it
		}
		result, refusal = l.m.apply(c)
		return "", refusal
	}
	if err := l.m.ask(ctx, r); err != nil {
		return nil, err
	}
	return result, nil
}

func (l *modelLeader) For(*state.Job) (objectstore.Store, *api.ObjectStore, error) {
	return &modelStore{Memory: l.m.mem, m: l.m, who: l.name}, &api.ObjectStore{Endpoint: "memory"}, nil
}

func (l *modelLeader) Publisher(*state.Job) (Publisher, error) {
	return nil, errors.New("there is no block store")
}

func (l *modelLeader) System() (objectstore.Store, string, string, error) {
	return &modelStore{Memory: l.m.mem, m: l.m, who: l.name}, "system", "", nil
}

func (l *modelLeader) Connected(node string) bool {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return slices.ContainsFunc(l.m.nodes, func(n *modelNode) bool { return n.id == node && !n.away && l.m.office() == l })
}

func (l *modelLeader) Send(node string, msg *api.MasterMessage) bool {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	i := slices.IndexFunc(l.m.nodes, func(n *modelNode) bool { return n.id == node })
	if i < 0 || l.m.nodes[i].away || l.m.office() != l {
		return false
	}
	n := l.m.nodes[i]
	l.m.chores = append(l.m.chores, func() { l.m.hear(n, msg) })
	return true
}

// settle lets everything happen that nobody decides on.
func (m *model) settle() {
	for {
		synctest.Wait()
		m.mu.Lock()
		chores := m.chores
		m.chores = nil
		m.mu.Unlock()
		if len(chores) == 0 {
			m.work()
			return
		}
		for _, f := range chores {
			f()
		}
	}
}

// end ends all that runs.
func (m *model) end() {
	for _, l := range m.leaders {
		l.cancel()
		l.over <- <-l.over
	}
}

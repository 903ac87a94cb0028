package tracker

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"millrace/jobs"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/record"
)

// worker behaves as a worker node does, without doing any work.
type worker struct {
	w           *world
	id, role    string
	slots       int
	incarnation int

	mu        sync.Mutex
	connected bool
	inbox     chan *api.MasterMessage
	done      chan struct{}
	queue     []*api.Lease
	running   map[string]*run
	held      map[string]*api.HeldSegment // by attempt
	unacked   map[string]*api.AttemptReport
	places    map[int32]*api.SegmentLocation
	moved     chan struct{} // closed when places change
	most      int           // attempts that ran at once
	started   []string
	leased    int // leases that it was sent

	// What to play.
	pace   time.Duration
	play   func(l *api.Lease) *api.Failure // nil: succeeds
	digest func(l *api.Lease) uint64       // of a map's output
	broken map[string]bool                 // segments held that cannot be read, by attempt
	denied bool                            // it may not open the segments that it holds
	blind  bool                            // whatever it reads of segments is damaged
	mute   bool                            // reports nothing
	late   time.Duration                   // between a hello and the reports that follow it
	short  bool                            // its reduces miss a record
	spoil  string                          // what becomes of the first segment of map 0
	disk   *disk                           // nil: it does not say
	ill    string                          // why it takes no tasks
	hang   func(*api.Lease) bool           // it stands still until it is killed
	apart  map[string]bool                 // nodes that it does not reach
}

type run struct {
	lease *api.Lease
	stop  context.CancelFunc
	since time.Time
}

const usualPace = 20 * time.Millisecond

func (w *world) join(id, role string, slots int) *worker { return w.joinAt(usualPace, id, role, slots) }

// joinAt joins a node whose attempts take that time, from its first one on.
func (w *world) joinAt(pace time.Duration, id, role string, slots int) *worker {
	group := map[string]string{state.RoleCore: "ig-c", state.RoleTask: "ig-t"}[role]
	w.must(state.PutNode{Node: state.Node{ID: id, Name: id, Cluster: "j-1", Group: group, Role: role, State: state.NodeAdmitted}})
	return w.startAt(pace, id, role, slots)
}

// start starts the worker of a node that the log knows.
func (w *world) start(id, role string, slots int) *worker {
	return w.startAt(usualPace, id, role, slots)
}

func (w *world) startAt(pace time.Duration, id, role string, slots int) *worker {
	k := &worker{
		w: w, id: id, role: role, slots: slots, incarnation: 1, connected: true,
		inbox: make(chan *api.MasterMessage, 4096), done: make(chan struct{}),
		running: map[string]*run{}, held: map[string]*api.HeldSegment{}, unacked: map[string]*api.AttemptReport{},
		places: map[int32]*api.SegmentLocation{}, moved: make(chan struct{}), pace: pace,
		broken: map[string]bool{},
	}
	w.mu.Lock()
	w.workers[id] = k
	w.mu.Unlock()
	go k.loop()
	if w.leader != nil {
		k.hello()
	}
	return k
}

func (k *worker) close() {
	k.mu.Lock()
	for _, r := range k.running {
		r.stop()
	}
	k.mu.Unlock()
	close(k.done)
}

// at sets the time an attempt takes.
func (k *worker) at(pace time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pace = pace
}

// starts lists the attempts that were started, in order.
func (k *worker) starts() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.started)
}

func (k *worker) up() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.connected
}

func (k *worker) post(m *api.MasterMessage) bool {
	if !k.up() {
		return false
	}
	k.inbox <- m
	return true
}

func (k *worker) tell(m *api.WorkerMessage) {
	k.w.mu.Lock()
	l := k.w.leader
	k.w.mu.Unlock()
	if l != nil && k.up() {
		l.Message(k.id, m)
	}
}

// hello opens the session with the present leader.
func (k *worker) hello() {
	k.mu.Lock()
	if !k.connected {
		k.mu.Unlock()
		return
	}
	h := &api.WorkerHello{NodeId: k.id, Address: "https://" + k.id, Slots: int32(k.slots), Incarnation: fmt.Sprint(k.incarnation), Problem: k.ill}
	if k.disk != nil {
		h.DiskBytes, h.DiskFreeBytes, h.Volume = k.disk.total, k.disk.left(), k.disk.volume
	}
	for id, r := range k.running {
		h.Running = append(h.Running, &api.RunningAttempt{Job: r.lease.Job, Attempt: id, Kind: r.lease.Kind, Index: r.lease.Index, Started: true, StartedUnixMs: r.since.UnixMilli()})
	}
	for _, l := range k.queue {
		h.Running = append(h.Running, &api.RunningAttempt{Job: l.Job, Attempt: l.Attempt, Kind: l.Kind, Index: l.Index})
	}
	for _, s := range k.held {
		h.Segments = append(h.Segments, s)
	}
	var reports []*api.AttemptReport
	for _, r := range k.unacked {
		reports = append(reports, r)
	}
	k.mu.Unlock()
	k.w.mu.Lock()
	l := k.w.leader
	k.w.mu.Unlock()
	l.Up(k.id, h)
	time.Sleep(k.late)
	for _, r := range reports {
		k.tell(&api.WorkerMessage{Message: &api.WorkerMessage_Report{Report: r}})
	}
	k.beat()
}

// beat sends a heartbeat.
func (k *worker) beat() {
	k.mu.Lock()
	h := &api.WorkerHeartbeat{Problem: k.ill}
	if k.disk != nil {
		h.DiskFreeBytes = k.disk.left()
	}
	k.mu.Unlock()
	k.tell(&api.WorkerMessage{Message: &api.WorkerMessage_Heartbeat{Heartbeat: h}})
}

// beats sends heartbeats until the worker ends.
func (k *worker) beats() {
	go func() {
		for tick := time.NewTicker(500 * time.Millisecond); ; {
			select {
			case <-tick.C:
				k.beat()
			case <-k.done:
				tick.Stop()
				return
			}
		}
	}()
}

// cut breaks the connection; what is in the air is lost.
func (k *worker) cut() {
	k.mu.Lock()
	k.connected = false
	k.mu.Unlock()
	for {
		select {
		case <-k.inbox:
		default:
			return
		}
	}
}

func (k *worker) reconnect() {
	k.mu.Lock()
	k.connected = true
	k.mu.Unlock()
	k.hello()
}

// die ends the worker's process; with keep its segments stay on disk.
func (k *worker) die(keep bool) {
	k.cut()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.running {
		r.stop()
	}
	k.queue, k.running, k.unacked = nil, map[string]*run{}, map[string]*api.AttemptReport{}
	k.places, k.incarnation = map[int32]*api.SegmentLocation{}, k.incarnation+1
	if !keep {
		k.held = map[string]*api.HeldSegment{}
	}
}

func (k *worker) loop() {
	for {
		select {
		case m := <-k.inbox:
			k.handle(m)
		case <-k.done:
			return
		}
	}
}

func (k *worker) handle(m *api.MasterMessage) {
	switch v := m.Message.(type) {
	case *api.MasterMessage_Lease:
		k.mu.Lock()
		k.queue = append(k.queue, v.Lease)
		k.leased++
		k.mu.Unlock()
		k.next()
	case *api.MasterMessage_Kill:
		k.kill(v.Kill.Attempt)
	case *api.MasterMessage_Revoke:
		k.mu.Lock()
		i := slices.IndexFunc(k.queue, func(l *api.Lease) bool { return l.Attempt == v.Revoke.Attempt })
		if i >= 0 {
			k.queue = slices.Delete(k.queue, i, i+1)
		}
		k.mu.Unlock()
		if i >= 0 {
			k.tell(&api.WorkerMessage{Message: &api.WorkerMessage_Returned{Returned: &api.LeaseReturned{Attempt: v.Revoke.Attempt}}})
		}
	case *api.MasterMessage_Locations:
		k.mu.Lock()
		for _, i := range v.Locations.Lost {
			delete(k.places, i)
		}
		for _, s := range v.Locations.Segments {
			k.places[s.Map] = s
		}
		close(k.moved)
		k.moved = make(chan struct{})
		k.mu.Unlock()
	case *api.MasterMessage_Ack:
		k.mu.Lock()
		delete(k.unacked, v.Ack.Attempt)
		if !v.Ack.Accepted {
			delete(k.held, v.Ack.Attempt)
		}
		k.mu.Unlock()
	case *api.MasterMessage_Forget:
		k.forget(v.Forget.Job)
	}
}

func (k *worker) forget(job string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.running {
		r.stop()
	}
	if k.disk != nil {
		k.disk.give(nil)
	}
	k.queue, k.running = nil, map[string]*run{}
	k.held, k.unacked = map[string]*api.HeldSegment{}, map[string]*api.AttemptReport{}
	k.places = map[int32]*api.SegmentLocation{}
}

func (k *worker) kill(id string) {
	k.mu.Lock()
	if i := slices.IndexFunc(k.queue, func(l *api.Lease) bool { return l.Attempt == id }); i >= 0 {
		l := k.queue[i]
		k.queue = slices.Delete(k.queue, i, i+1)
		k.mu.Unlock()
		k.report(l, time.Now(), killedResult())
		return
	}
	r := k.running[id]
	k.mu.Unlock()
	if r != nil {
		r.stop()
	}
}

func killedResult() *api.AttemptResult {
	return &api.AttemptResult{Failure: &api.Failure{Kind: api.FailureKind_FAILURE_KIND_KILLED, Message: "killed"}}
}

// next starts queued leases while there are slots.
func (k *worker) next() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.running) < k.slots && len(k.queue) > 0 {
		l := k.queue[0]
		k.queue = k.queue[1:]
		ctx, stop := context.WithCancel(context.Background())
		r := &run{lease: l, stop: stop, since: time.Now()}
		k.running[l.Attempt] = r
		k.most = max(k.most, len(k.running))
		k.started = append(k.started, l.Attempt)
		go func() {
			k.tell(&api.WorkerMessage{Message: &api.WorkerMessage_Started{Started: &api.AttemptStarted{Attempt: l.Attempt, UnixMs: r.since.UnixMilli()}}})
			res := k.work(ctx, l)
			stop()
			k.mu.Lock()
			if k.running[l.Attempt] != r {
				k.mu.Unlock()
				return // forgotten, or the process died
			}
			delete(k.running, l.Attempt)
			k.mu.Unlock()
			k.report(l, r.since, res)
			k.next()
		}()
	}
}

func (k *worker) report(l *api.Lease, since time.Time, res *api.AttemptResult) {
	r := &api.AttemptReport{Job: l.Job, Attempt: l.Attempt, Kind: l.Kind, Index: l.Index, Result: res,
		StartedUnixMs: since.UnixMilli(), EndedUnixMs: time.Now().UnixMilli()}
	if l.Kind == api.TaskKind_TASK_KIND_MAP && res.Failure == nil && l.Partitions > 0 {
		keeper := k
		if len(l.PushTo) > 0 {
			k.w.mu.Lock()
			keeper = k.w.workers[l.PushTo[0].Node]
			k.w.mu.Unlock()
		}
		keeper.mu.Lock()
		keeper.held[l.Attempt] = &api.HeldSegment{Job: l.Job, Map: l.Index, Attempt: l.Attempt}
		if keeper.spoil != "" && l.Index == 0 {
			if keeper.broken[l.Attempt] = true; keeper.spoil == "missing" {
				delete(keeper.held, l.Attempt)
			}
			keeper.spoil = ""
		}
		keeper.mu.Unlock()
		r.SegmentNode = keeper.id
	}
	k.mu.Lock()
	mute := k.mute
	if !mute {
		k.unacked[l.Attempt] = r
	}
	k.mu.Unlock()
	if !mute {
		k.tell(&api.WorkerMessage{Message: &api.WorkerMessage_Report{Report: r}})
	}
}

// work plays one attempt.
func (k *worker) work(ctx context.Context, l *api.Lease) *api.AttemptResult {
	var consumed uint64
	if l.Kind == api.TaskKind_TASK_KIND_REDUCE {
		var ok bool
		if consumed, ok = k.fetch(ctx, l); !ok {
			return killedResult()
		}
	}
	k.mu.Lock()
	pace := k.pace
	k.mu.Unlock()
	if k.hang != nil && k.hang(l) {
		pace = time.Hour
	}
	select {
	case <-time.After(pace):
	case <-ctx.Done():
		return killedResult()
	}
	if k.disk != nil {
		if f := k.disk.take(l); f != nil {
			return &api.AttemptResult{Failure: f}
		}
		if l.Kind == api.TaskKind_TASK_KIND_REDUCE {
			defer k.disk.give(l)
		}
	}
	if k.play != nil {
		if f := k.play(l); f != nil {
			return &api.AttemptResult{Failure: f}
		}
	}
	res := &api.AttemptResult{Counters: []*api.Counter{{Group: "test", Name: "tasks", Value: 1}}}
	if l.Kind == api.TaskKind_TASK_KIND_MAP {
		res.Digest = uint64(l.Index) + 1000
		if k.digest != nil {
			res.Digest = k.digest(l)
		}
	}
	switch {
	case l.Kind == api.TaskKind_TASK_KIND_REDUCE:
		res.Digest = consumed
		res.Segment = &api.Ledger{}
		if l.Index == 0 { // it decodes everything, the others nothing
			for i := range l.Maps {
				res.Segment.Records += int64(i) + 1
				res.Segment.Bytes += 10
			}
		}
		if k.short {
			res.Segment.Records--
		}
	case l.Partitions > 0:
		res.Segment = &api.Ledger{Records: int64(l.Index) + 1, Bytes: 10}
	}
	if l.Output.GetFormat() == jobs.FormatFiles {
		if err := k.w.copy(l, res); err != nil {
			return &api.AttemptResult{Failure: &api.Failure{Kind: api.FailureKind_FAILURE_KIND_NODE, Message: err.Error()}}
		}
		return res
	}
	if l.Output != nil {
		kind := map[api.TaskKind]string{api.TaskKind_TASK_KIND_MAP: state.Map, api.TaskKind_TASK_KIND_REDUCE: state.Reduce}[l.Kind]
		text := partText(kind, int(l.Index), int(l.Maps))
		if err := k.w.upload(l.Output, text); err != nil {
			return &api.AttemptResult{Failure: &api.Failure{Kind: api.FailureKind_FAILURE_KIND_NODE, Message: err.Error()}}
		}
		res.OutputParts, res.OutputBytes, res.OutputRecords = 1, int64(len(text)), 1
	}
	return res
}

// fetch waits for every segment and reads it where it lies.
func (k *worker) fetch(ctx context.Context, l *api.Lease) (digest uint64, ok bool) {
	have := map[int32]bool{}
	told := map[*api.SegmentLocation]bool{} // each place once, and again when the leader has named it anew
	for {
		k.mu.Lock()
		moved := k.moved
		var all []*api.SegmentLocation
		for _, p := range k.places {
			all = append(all, p)
		}
		k.mu.Unlock()
		for _, p := range all {
			if have[p.Map] {
				continue
			}
			if why := k.readable(p); why != "" {
				if !told[p] {
					told[p] = true
					k.tell(&api.WorkerMessage{Message: &api.WorkerMessage_Problem{Problem: &api.SegmentProblem{
						Job: l.Job, Map: p.Map, MapAttempt: p.Attempt, SegmentNode: p.Node, ReduceAttempt: l.Attempt, Reason: why,
					}}})
				}
				continue
			}
			have[p.Map] = true
			digest += record.MapDigest(int(p.Map), p.Digest)
		}
		if len(have) == int(l.Maps) {
			return digest, true
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return 0, false
		}
	}
}

// readable says what is wrong with a segment; "" = nothing.
func (k *worker) readable(p *api.SegmentLocation) string {
	k.w.mu.Lock()
	other := k.w.workers[p.Node]
	k.w.mu.Unlock()
	other.mu.Lock()
	defer other.mu.Unlock()
	switch {
	case !other.connected || k.apart[p.Node]:
		return "unreachable: connection refused"
	case other.held[p.Attempt] == nil:
		return "missing"
	case other.broken[p.Attempt] || k.blind:
		return "damaged: block 3"
	case other.denied:
		return "missing: open segment: permission denied"
	}
	return ""
}

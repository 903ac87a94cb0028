package tracker

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"millrace/jobs/input"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/bytesize"
	"millrace/pkg/shortage"
)

// Disk is reserved with each lease: as much as the task is taken to need, on the disk of its node, and
// for a segment that is to be pushed on the core node's. What a node says is free, less what is
// reserved and less a reserve, is its room. A node without room for a task does not get it, and where
// no node has room the job waits. The need is an estimate: what maps of the job have written so far
// mends it, and so does an attempt for which it was too small.
const (
	leastDisk = 1 << 20 // of any attempt, for its logs and files
	margin    = 1.25    // over what maps have written so far
	// A job that nothing runs of, as no node has the room its tasks are taken to need, takes
	// them to need half as much after so long, down to the least factor.
	stuckFor    = 15 * time.Second
	leastFactor = 1.0 / 8
	mostFactor  = 16
)

// volume is one disk that workers keep their data on; workers of one machine may share it.
type volume struct {
	id          string
	total, free int64 // bytes, as last heard; total 0: not known
	reserved    int64 // for attempts that are not over
	settling    int64 // was reserved for attempts that ended after free was heard
}

// holding is disk that is reserved for an attempt.
type holding struct {
	volume *volume
	bytes  int64
}

// room is how many bytes may still be promised.
func (v *volume) room() int64 {
	if v.total <= 0 {
		return math.MaxInt64
	}
	return v.free - shortage.Reserve(v.total) - v.reserved - v.settling
}

// heard takes in how many bytes are free.
func (v *volume) heard(free int64) { v.free, v.settling = free, 0 }

// mount finds the disk of a node that says hello.
func (t *Tracker) mount(n *node, hello *api.WorkerHello) {
	id := hello.Volume
	if id == "" {
		id = n.id
	}
	if n.volume == nil || n.volume.id != id {
		if t.volumes[id] == nil {
			t.volumes[id] = &volume{id: id}
		}
		n.volume = t.volumes[id]
	}
	n.volume.total = hello.DiskBytes
	n.volume.heard(hello.DiskFreeBytes)
}

// learnt is what is known of the disk that a kind of a job's tasks needs.
type learnt struct {
	factor       float64 // of the estimate: it was found too small, or nobody has so much
	taken, wrote int64   // maps that are done: the estimates, and their segments' bytes
	spilled      bool    // a map has spilled: its spills and its segment lie there together
}

// learn takes in what a map has written.
func (j *job) learn(k *task, win *state.Completion) {
	l := j.learnt[state.Map]
	for _, c := range win.Counters {
		switch {
		case c.Group != "millrace":
		case c.Name == "segmentBytes" && k.disk > 0:
			l.taken += k.disk
			l.wrote += c.Value
		case c.Name == "spilledRecords" && c.Value > 0:
			l.spilled = true
		}
	}
}

// need estimates the disk that an attempt of the task takes, in bytes.
func (t *Tracker) need(j *job, k *task) int64 {
	if j.rec.MapOnly() {
		return leastDisk
	}
	maps := j.learnt[state.Map]
	base := float64(k.disk)
	if k.id.Kind == state.Reduce {
		base = float64(input.ReduceDisk(j.disk, j.rec.Reduces))
	}
	if maps.taken > 0 {
		base *= margin * float64(maps.wrote) / float64(maps.taken)
	}
	if k.id.Kind == state.Map && maps.spilled {
		base *= 2
	}
	return leastDisk + int64(base*j.learnt[k.id.Kind].factor)
}

// leastNeed is the least that a waiting task of the kind needs, of the first of them.
func (t *Tracker) leastNeed(j *job, kind string) int64 {
	const looked = 16
	least := int64(math.MaxInt64)
	for _, k := range j.waiting[kind].first(looked, func(*task) bool { return true }) {
		least = min(least, t.need(j, k))
	}
	return least
}

// isKept says whether what a kind of the job's tasks writes is kept by core nodes: a task node has room
// for such a task only if one of them has.
func (j *job) isKept(kind string) bool { return kind == state.Map && !j.rec.MapOnly() }

// reserve holds disk of the attempt's own node for it.
func (t *Tracker) reserve(n *node, a *attempt) {
	a.factor = a.job.learnt[a.task.id.Kind].factor
	a.hold(n.volume, t.need(a.job, a.task))
}

// reserveAnew reserves for an attempt that was taken over before it was known what it needs.
func (t *Tracker) reserveAnew(a *attempt) {
	n := t.nodes[a.node]
	if n == nil || a.ending {
		return
	}
	for _, h := range a.holds {
		h.volume.reserved -= h.bytes
	}
	a.holds = nil
	if a.job.isKept(a.task.id.Kind) && n.role != state.RoleCore {
		if at := t.keepers(a.job, a.task); len(at) > 0 { // the likeliest
			t.reserveAt(at[0].Node, a)
		}
	}
	t.reserve(n, a)
}

// held is how much of a disk is reserved for the attempt.
func (a *attempt) held(v *volume) (bytes int64) {
	for _, h := range a.holds {
		if h.volume == v {
			bytes += h.bytes
		}
	}
	return bytes
}

// reserveAt holds disk of the core node that is to keep the attempt's segment.
func (t *Tracker) reserveAt(core string, a *attempt) {
	if n := t.nodes[core]; n != nil {
		a.hold(n.volume, t.need(a.job, a.task))
	}
}

func (a *attempt) hold(v *volume, bytes int64) {
	v.reserved += bytes
	a.holds = append(a.holds, holding{v, bytes})
}

// release gives an attempt's disk back; until the node has said what is free it counts as taken.
func (a *attempt) release() {
	for _, h := range a.holds {
		h.volume.reserved -= h.bytes
		h.volume.settling += h.bytes
	}
	a.holds = nil
}

// starve notes which jobs wait because no node has the disk for their tasks.
func (t *Tracker) starve() {
	idle := t.starving > 0
	for _, r := range t.rooms {
		idle = idle || r.sums[roomFree] > 0
	}
	if !idle {
		return // a long queue is not looked through
	}
	for _, j := range t.order {
		kind := state.Map
		if j.tasked && j.waiting[state.Map].count == 0 {
			kind = state.Reduce
		}
		was := j.noRoom
		j.noRoom = ""
		if len(j.live) == 0 && j.waiting[kind].count > 0 && t.leasing(j) {
			j.noRoom = t.whoIsFull(j, kind)
		}
		switch {
		case j.noRoom == "" && !j.stuck.IsZero():
			j.stuck = time.Time{}
			t.starving--
		case j.noRoom != "" && j.stuck.IsZero():
			j.stuck = t.cfg.Now()
			t.starving++
			j.log.Warn("no node has room for the job's tasks", zap.String("reason", j.noRoom))
			t.after(stuckFor, func() { t.unstick(j, kind) })
		}
		if was != j.noRoom {
			t.changes.tell(j.id)
		}
	}
}

// unstick takes a job's tasks to need less, so that an estimate alone never keeps one waiting.
func (t *Tracker) unstick(j *job, kind string) {
	if t.jobs[j.id] != j || j.stuck.IsZero() || t.cfg.Now().Sub(j.stuck) < stuckFor {
		return
	}
	l := j.learnt[kind]
	l.factor = max(l.factor/2, leastFactor)
	j.stuck = t.cfg.Now()
	t.after(stuckFor, func() { t.unstick(j, kind) })
	t.touch(j)
}

// whoIsFull names the nodes that have a slot for a job's waiting tasks of a kind, but not the disk, and
// the core nodes that have not the disk for what a task node with both would write; "" if there are none,
// or if a node has all that is needed.
func (t *Tracker) whoIsFull(j *job, kind string) string {
	need := t.leastNeed(j, kind)
	if need == math.MaxInt64 || t.hasRoom(j, kind, need) { // or none could be leased yet, for another reason
		return ""
	}
	r := t.roomsOf(j.rec.Cluster)
	full, unkept := map[string]*node{}, false
	for _, n := range r.rankings[roomFree].list {
		switch {
		case !n.takes(t.cfg.Now()):
		case n.volume.room() < need:
			full[n.id] = n
		default:
			unkept = true
		}
	}
	for _, n := range r.cores {
		if unkept && n.takes(t.cfg.Now()) {
			full[n.id] = n
		}
	}
	return fullNodes(full, need)
}

// fullNodes says of nodes how full their disks are.
func fullNodes(nodes map[string]*node, need int64) string {
	if len(nodes) == 0 {
		return ""
	}
	var full []string
	for id, n := range nodes {
		full = append(full, id+": "+n.volume.full(need))
	}
	slices.Sort(full)
	const named = 3
	if len(full) > named {
		full = append(full[:named], fmt.Sprintf("%d more nodes", len(full)-named))
	}
	return "no node has room on its disk for the tasks that wait: " + strings.Join(full, "; ")
}

// full says how full a disk is, and what tasks need of it (0: none waits).
func (v *volume) full(need int64) string {
	s := fmt.Sprintf("disk full: %s free of %s, %s of it kept free", bytesize.Format(v.free), bytesize.Format(v.total), bytesize.Format(shortage.Reserve(v.total)))
	if v.reserved > 0 {
		s += fmt.Sprintf(", %s promised to running tasks", bytesize.Format(v.reserved))
	}
	if need > 0 {
		s += fmt.Sprintf("; a task needs %s", bytesize.Format(need))
	}
	return s
}

// wanted is the least disk that a task waiting in the node's cluster needs; 0 if none waits.
func (t *Tracker) wanted(n *node) int64 {
	least := int64(math.MaxInt64)
	for _, j := range t.order {
		if j.rec.Cluster != n.cluster || !t.leasing(j) {
			continue
		}
		least = min(least, t.leastNeed(j, state.Map))
		if t.mapsStarted(j) {
			least = min(least, t.leastNeed(j, state.Reduce))
		}
	}
	if least == math.MaxInt64 {
		return 0
	}
	return least
}

package blockmanager

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"millrace/hdfs"
	"millrace/hdfs/placement"
)

// The simulation: nodes that join, die, come back, lose disks, rot, lie, and do what they are told, late or never; blocks
// that are written, re-replicated and removed; leaders that change; events that get lost. The twin (twin_test.go) is told
// all that the manager is told, remembers it in the dumbest way there is, and judges each order. In the end all faults
// cease, and everything must become as it should.

// held is a replica as it lies on a node's disk.
type held struct {
	hdfs.Block
	unfinished bool
	rotten     bool
}

// datanode is a node as it is, whatever the manager believes.
type datanode struct {
	hdfs.Node
	up       bool
	draining bool
	disk     map[hdfs.BlockID]held
	outbox   []func() // reports on their way to the leader
	inbox    []func() // orders not yet carried out
}

type simulation struct {
	*rapid.T
	m      *Manager
	log    *log
	twin   *twin
	clock  time.Time
	nodes  []*datanode
	nextID hdfs.BlockID
	stamp  hdfs.Stamp
	born   int
	step   time.Duration // between two Ticks
}

func TestSimulation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &simulation{T: t, log: &log{blocks: map[hdfs.BlockID]Block{}, leases: map[string]bool{}}, clock: time.Unix(1_000_000, 0), nextID: 1, step: time.Second}
		for range rapid.IntRange(1, 7).Draw(t, "nodes") {
			s.join()
		}
		s.newLeader()
		t.Repeat(map[string]func(*rapid.T){
			"":           func(*rapid.T) {},
			"write":      func(*rapid.T) { s.write() },
			"write too":  func(*rapid.T) { s.write() },
			"remove":     func(*rapid.T) { s.remove() },
			"replicate":  func(*rapid.T) { s.setReplication() },
			"join":       func(*rapid.T) { s.join() },
			"die":        func(*rapid.T) { s.die() },
			"return":     func(*rapid.T) { s.comeBack() },
			"disk":       func(*rapid.T) { s.loseDisk() },
			"rot":        func(*rapid.T) { s.rot() },
			"accuse":     func(*rapid.T) { s.accuse() },
			"lie":        func(*rapid.T) { s.lie() },
			"drain":      func(*rapid.T) { s.drain() },
			"new leader": func(*rapid.T) { s.newLeader() },
			"a second":   func(*rapid.T) { s.pass(1) },
			"a minute":   func(*rapid.T) { s.pass(60) },
			"long":       func(*rapid.T) { s.pass(400) },
		})
		s.heal()
	})
}

func (s *simulation) chance(name string, oneIn int) bool {
	return rapid.IntRange(1, oneIn).Draw(s.T, name) == 1
}

func (s *simulation) pick(which func(*datanode) bool) *datanode {
	var fit []*datanode
	for _, n := range s.nodes {
		if which(n) {
			fit = append(fit, n)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	return rapid.SampledFrom(fit).Draw(s.T, "node")
}

func isUp(n *datanode) bool { return n.up }

func (s *simulation) node(id string) *datanode {
	i := slices.IndexFunc(s.nodes, func(n *datanode) bool { return n.ID == id })
	if i < 0 {
		return nil
	}
	return s.nodes[i]
}

// newLeader begins a term: the same nodes, which report as they get to it; those that are not up are expected in vain.
func (s *simulation) newLeader() {
	var expected []string
	for _, n := range s.nodes {
		expected = append(expected, n.ID)
	}
	s.m = New(Config{
		Names: s.log, Now: func() time.Time { return s.clock }, Rand: rand.New(rand.NewPCG(rapid.Uint64().Draw(s.T, "seed"), 1)),
		Rate: -1, Expected: expected,
	})
	s.twin = newTwin(s)
	for _, n := range s.nodes {
		s.m.Drain(n.ID, n.draining)
		if n.up {
			s.openSession(n)
		}
	}
}

func (s *simulation) openSession(n *datanode) {
	n.outbox, n.inbox = nil, nil
	s.twin.nodeUp(n.ID, s.m.nodes.byID[n.ID] == nil)
	s.m.NodeUp(n.Node)
	s.m.Disks(n.ID, []Disk{{Dir: "/d", Capacity: 1 << 40, Free: 1 << 39}})
	var all []Replica
	for _, id := range slices.Sorted(maps.Keys(n.disk)) {
		h := n.disk[id]
		all = append(all, Replica{Block: h.Block, Unfinished: h.unfinished})
	}
	cut := rapid.IntRange(0, len(all)).Draw(s.T, "first piece")
	s.send(n, func() { s.report(n, all[:cut], false) })
	s.send(n, func() { s.report(n, all[cut:], true) })
}

func (s *simulation) report(n *datanode, piece []Replica, last bool) {
	s.m.Report(n.ID, piece, last)
	s.twin.report(n.ID, piece, last)
}

// send puts a message on its way.
func (s *simulation) send(n *datanode, f func()) { n.outbox = append(n.outbox, f) }

func (s *simulation) received(n *datanode, b hdfs.Block) {
	s.send(n, func() {
		s.m.Received(n.ID, b)
		s.twin.received(n.ID, b)
	})
}

func (s *simulation) deleted(n *datanode, b hdfs.Block) {
	s.send(n, func() {
		s.m.Deleted(n.ID, b)
		s.twin.deleted(n.ID, b)
	})
}

func (s *simulation) join() {
	s.born++
	n := &datanode{Node: member(fmt.Sprintf("%c/n%d", 'a'+rune(s.born%3), s.born)), up: true, disk: map[hdfs.BlockID]held{}}
	if len(s.nodes) >= 9 {
		return
	}
	s.nodes = append(s.nodes, n)
	if s.m != nil {
		s.openSession(n)
	}
}

// die takes a node's session; sometimes its disks too, sometimes the node leaves for good.
func (s *simulation) die() {
	n := s.pick(isUp)
	if n == nil {
		return
	}
	n.up, n.outbox, n.inbox = false, nil, nil
	s.m.NodeDown(n.ID)
	s.twin.nodeDown(n.ID)
	if s.chance("disks die too", 4) {
		n.disk = map[hdfs.BlockID]held{}
	}
	if s.chance("for good", 4) && len(s.nodes) > 1 {
		if s.chance("and the log says so", 2) {
			s.m.NodeGone(n.ID)
		}
		s.nodes = slices.DeleteFunc(s.nodes, func(o *datanode) bool { return o == n })
	}
}

func (s *simulation) comeBack() {
	if n := s.pick(func(n *datanode) bool { return !n.up }); n != nil {
		n.up = true
		s.openSession(n)
	}
}

// write has a block written, by a pipeline that may lose a member on the way, and by a writer that may give up.
func (s *simulation) write() {
	id := s.nextID
	s.nextID++
	s.stamp++
	b := Block{Block: hdfs.Block{ID: id, Stamp: s.stamp}, File: hdfs.FileID(id), Wanted: rapid.IntRange(1, 5).Draw(s.T, "wanted")}
	s.log.blocks[id] = b
	targets, err := s.m.Targets(Write{Block: id, Size: blockSize, Count: b.Wanted})
	if err != nil {
		require.ErrorIs(s, err, hdfs.ErrNoNodes)
		delete(s.log.blocks, id)
		return
	}
	if len(targets) > 1 && s.chance("a member dies", 3) {
		if n := s.node(targets[0].ID); n != nil {
			n.disk[id] = held{Block: hdfs.Block{ID: id, Stamp: s.stamp, Size: 7}, unfinished: true}
		}
		s.stamp++
		b.Stamp = s.stamp
		s.log.blocks[id] = b
		var survivors []string
		for _, n := range targets[1:] {
			survivors = append(survivors, n.ID)
		}
		targets = s.m.Pipeline(id, survivors)
		for _, t := range targets {
			if n := s.node(t.ID); n != nil && s.chance("it was whole before", 3) {
				s.received(n, hdfs.Block{ID: id, Stamp: s.stamp - 1, Size: blockSize})
			}
		}
	}
	b.Size = blockSize
	for _, t := range targets {
		if n := s.node(t.ID); n != nil {
			n.disk[id] = held{Block: b.Block}
			s.received(n, b.Block)
		}
	}
	if s.chance("the writer gives up", 6) {
		s.unlog(id)
		return
	}
	s.deliver(s.chance("reports come first", 2))
	b.Final = true
	s.log.blocks[id] = b
	if !s.chance("the event is lost", 5) {
		s.m.BlockFinal(id)
	}
}

func (s *simulation) remove() {
	if id, ok := s.someBlock(); ok {
		s.unlog(id)
	}
}

func (s *simulation) unlog(id hdfs.BlockID) {
	delete(s.log.blocks, id)
	s.twin.gone(id)
	if !s.chance("the event is lost", 5) {
		s.m.BlocksGone([]hdfs.BlockID{id})
	}
}

func (s *simulation) setReplication() {
	id, ok := s.someBlock()
	if !ok {
		return
	}
	b := s.log.blocks[id]
	b.Wanted = rapid.IntRange(1, 5).Draw(s.T, "wanted")
	s.log.blocks[id] = b
	if !s.chance("the event is lost", 5) {
		s.m.ReplicationChanged([]hdfs.BlockID{id})
	}
}

func (s *simulation) someBlock() (hdfs.BlockID, bool) {
	ids := slices.Sorted(maps.Keys(s.log.blocks))
	if len(ids) == 0 {
		return 0, false
	}
	return rapid.SampledFrom(ids).Draw(s.T, "block"), true
}

// loseDisk takes some of a node's blocks, which it notices.
func (s *simulation) loseDisk() {
	n := s.pick(isUp)
	if n == nil {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(n.disk)) {
		if s.chance("on that disk", 2) {
			h := n.disk[id]
			delete(n.disk, id)
			s.deleted(n, h.Block)
		}
	}
}

// rot spoils a replica; nobody notices yet.
func (s *simulation) rot() {
	if n := s.pick(func(n *datanode) bool { return len(n.disk) > 0 }); n != nil {
		id := rapid.SampledFrom(slices.Sorted(maps.Keys(n.disk))).Draw(s.T, "block")
		h := n.disk[id]
		h.rotten = true
		n.disk[id] = h
	}
}

// accuse calls a replica bad, which it may not be.
func (s *simulation) accuse() {
	if n := s.pick(func(n *datanode) bool { return n.up && len(n.disk) > 0 }); n != nil {
		h := n.disk[rapid.SampledFrom(slices.Sorted(maps.Keys(n.disk))).Draw(s.T, "block")]
		if s.chance("unseen", 2) {
			s.m.Accused(h.Block, n.ID, "accused")
			return
		}
		s.m.Bad(h.Block, n.ID, "accused")
		s.twin.bad(n.ID, h.Block)
	}
}

// lie says that a node has what it has not: a block that is elsewhere, one with another size, one that never was.
func (s *simulation) lie() {
	n := s.pick(isUp)
	id, ok := s.someBlock()
	if n == nil || !ok {
		return
	}
	b := s.log.blocks[id].Block
	switch rapid.IntRange(0, 3).Draw(s.T, "lie") {
	case 0:
		b.Size--
	case 1:
		b.Stamp--
	case 2:
		b.ID = s.nextID
		s.nextID++
		s.twin.gone(b.ID)
	}
	if _, has := n.disk[b.ID]; !has {
		s.received(n, b)
	}
}

func (s *simulation) drain() {
	if n := s.pick(func(*datanode) bool { return true }); n != nil {
		n.draining = !n.draining
		s.m.Drain(n.ID, n.draining)
	}
}

// deliver hands over the messages on their way: all, or some from each node.
func (s *simulation) deliver(all bool) {
	for _, n := range s.nodes {
		k := len(n.outbox)
		if !all && k > 0 {
			k = rapid.IntRange(0, k).Draw(s.T, "delivered")
		}
		for ; k > 0; k-- {
			f := n.outbox[0]
			n.outbox = n.outbox[1:]
			f()
		}
	}
}

func (s *simulation) pass(seconds int) {
	faithful := s.chance("all goes well", 2)
	for range seconds {
		s.second(faithful)
	}
}

// second lets one pass, or what a step is. If it is not a faithful one, orders are carried out late or never, and reports are late.
func (s *simulation) second(faithful bool) {
	s.clock = s.clock.Add(s.step)
	s.deliver(faithful || s.chance("all reports arrive", 3))
	s.order(s.m.Tick())
	s.carryOut(faithful)
	if faithful || s.chance("more at once", 3) {
		s.deliver(faithful)
		s.order(s.m.MoreCopies())
		s.carryOut(faithful)
	}
}

// order gives nodes their orders.
func (s *simulation) order(orders map[string]*Orders) {
	s.twin.judge(orders)
	for _, id := range slices.Sorted(maps.Keys(orders)) {
		n := s.node(id)
		for _, b := range orders[id].Delete {
			n.inbox = append(n.inbox, func() { s.carryOutDelete(n, b) })
		}
		for _, c := range orders[id].Copy {
			n.inbox = append(n.inbox, func() { s.carryOutCopy(n, c) })
		}
		for _, b := range orders[id].Verify {
			n.inbox = append(n.inbox, func() { s.carryOutVerify(n, b) })
		}
	}
}

func (s *simulation) carryOut(faithful bool) {
	for _, n := range s.nodes {
		for len(n.inbox) > 0 && (faithful || s.chance("carried out", 3)) {
			f := n.inbox[0]
			n.inbox = n.inbox[1:]
			if faithful || !s.chance("dropped", 4) {
				f()
			}
		}
	}
}

func (s *simulation) carryOutDelete(n *datanode, b hdfs.Block) {
	if h, ok := n.disk[b.ID]; ok && h.Stamp > b.Stamp {
		return
	}
	delete(n.disk, b.ID)
	s.deleted(n, b)
}

func (s *simulation) carryOutVerify(n *datanode, b hdfs.Block) {
	if h, ok := n.disk[b.ID]; ok && h.Stamp == b.Stamp {
		s.send(n, func() { s.scrub(n, h) })
	}
}

func (s *simulation) carryOutCopy(n *datanode, c Copy) {
	h, ok := n.disk[c.ID]
	to := s.node(c.To.ID)
	switch {
	case !ok || h.Stamp != c.Stamp || h.unfinished:
		s.deleted(n, c.Block)
	case h.rotten:
		s.send(n, func() {
			s.m.Bad(c.Block, n.ID, "checksum")
			s.twin.bad(n.ID, c.Block)
		})
	case to != nil && to.up:
		if old, there := to.disk[c.ID]; there && old.Stamp >= c.Stamp {
			break
		}
		to.disk[c.ID] = held{Block: c.Block}
		s.received(to, c.Block)
		return
	}
	s.send(n, func() {
		s.m.CopyFailed(c.Block, c.To.ID, "it would not")
		s.twin.copyFailed(c.Block, c.To.ID)
	})
}

// heal ends all faults: every node is up and truthful, the scrubbers have been everywhere. Then time passes.
func (s *simulation) heal() {
	for _, n := range s.nodes {
		n.up = true
		s.openSession(n)
	}
	s.deliver(true)
	s.scrubAll()
	alive := map[hdfs.BlockID]bool{}
	for id, b := range s.log.blocks {
		alive[id] = b.Final && slices.ContainsFunc(s.nodes, func(n *datanode) bool { return n.has(b) })
	}
	s.step = 10 * time.Second
	for i := 0; ; i++ {
		for range 12 {
			s.second(true)
		}
		problem := s.problem(alive)
		if problem == "" && i > 6 { // nodes that went for good have been given up by then
			break
		}
		if i == 30 {
			s.Fatalf("after an hour of peace: %s\n%s", problem, s.describe())
		}
	}
	for range 30 { // and it stays so
		s.clock = s.clock.Add(s.step)
		require.Empty(s, s.m.Tick(), "orders though all is well")
	}
	for id, x := range s.m.suspects {
		require.NotEqual(s, well, x.state, "%s is remembered though all is well", id)
	}
	require.Empty(s, s.m.copies)
	require.Empty(s, s.m.writing)
	for _, n := range s.m.nodes.byID {
		require.Zero(s, n.promised, "room promised to nobody")
		require.Zero(s, n.writing+n.sending.open+n.taking.open)
	}
	s.anotherLeaderAgrees()
}

// anotherLeaderAgrees has a fresh manager learn all, which must find nothing to do and see the same.
func (s *simulation) anotherLeaderAgrees() {
	before := s.m.Status()
	s.newLeader()
	s.deliver(true)
	s.scrubAll()
	for range 30 {
		s.clock = s.clock.Add(s.step)
		require.Empty(s, s.m.Tick(), "another leader finds something to do")
	}
	after := s.m.Status()
	before.Counters, after.Counters = Counters{}, Counters{}
	require.Equal(s, before, after)
}

func (s *simulation) scrubAll() {
	for _, n := range s.nodes {
		for _, id := range slices.Sorted(maps.Keys(n.disk)) {
			s.scrub(n, n.disk[id])
		}
	}
}

// scrub has a node read a replica, and say what it found.
func (s *simulation) scrub(n *datanode, h held) {
	switch {
	case h.unfinished:
	case h.rotten:
		s.m.Bad(h.Block, n.ID, "scrubbed")
		s.twin.bad(n.ID, h.Block)
	default:
		s.m.Verified(n.ID, h.Block)
		delete(s.twin.accused[n.ID], h.ID)
	}
}

// has tells whether a node has a good replica of a block.
func (n *datanode) has(b Block) bool {
	h, ok := n.disk[b.ID]
	return ok && h.Block == b.Block && !h.rotten && !h.unfinished
}

// problem says what is not yet as it should be in the end.
func (s *simulation) problem(alive map[hdfs.BlockID]bool) string {
	st := s.m.Status()
	if !st.Complete {
		return "the status is not complete"
	}
	staying := 0
	var all []placement.Node
	for _, n := range s.nodes {
		if !n.draining {
			staying++
			all = append(all, placement.Node{ID: n.ID, Rack: n.Rack})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.log.blocks)) {
		b := s.log.blocks[id]
		var on []placement.Node
		leaving := 0
		for _, n := range s.nodes {
			switch {
			case n.has(b) && n.draining:
				leaving++
			case n.has(b):
				on = append(on, placement.Node{ID: n.ID, Rack: n.Rack})
			}
		}
		listed := slices.ContainsFunc(slices.Concat(st.Missing, st.Corrupt), func(c Concern) bool { return c.Block == id })
		short := slices.ContainsFunc(st.UnderReplicated, func(c Concern) bool { return c.Block == id })
		switch {
		case !alive[id]:
			if !listed {
				return fmt.Sprintf("%s is lost and not listed", id)
			}
		case listed:
			return fmt.Sprintf("%s is listed as lost", id)
		case len(on) != min(b.Wanted, staying):
			return fmt.Sprintf("%s has %d replicas, not %d", id, len(on), min(b.Wanted, staying))
		case placement.Racks(on) < min(2, b.Wanted, placement.Racks(all)):
			return fmt.Sprintf("%s is on one rack", id)
		case short != (len(on) < min(b.Wanted, len(on)+leaving)):
			return fmt.Sprintf("%s is listed as short: %v", id, short)
		}
	}
	return s.orphan(alive)
}

// orphan finds a replica that should not be there.
func (s *simulation) orphan(alive map[hdfs.BlockID]bool) string {
	for _, n := range s.nodes {
		for id, h := range n.disk {
			b, known := s.log.blocks[id]
			switch {
			case !known:
				return fmt.Sprintf("%s has an orphan: %s", n.ID, id)
			case alive[id] && !n.has(b):
				return fmt.Sprintf("%s has a worthless replica: %s", n.ID, h.Block)
			}
		}
	}
	return ""
}

func (s *simulation) describe() string {
	out := ""
	for _, n := range s.nodes {
		out += fmt.Sprintf("%s up=%v draining=%v %v\n", n.ID, n.up, n.draining, n.disk)
	}
	for id, x := range s.m.suspects {
		out += fmt.Sprintf("%s %+v queued %v in log %+v\n", id, *x, x.queued, s.log.blocks[id])
	}
	return out
}

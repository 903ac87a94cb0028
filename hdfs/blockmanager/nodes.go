package blockmanager

import (
	"slices"
	"time"

	"millrace/hdfs"
	"millrace/hdfs/placement"
)

// moment is a time since the manager began.
type moment = time.Duration

// standing is how much a node's replicas are worth.
type standing uint8

const (
	lost   standing = iota // not there: its replicas are to be replaced
	waited                 // not there, or has not reported yet: nothing is done about its replicas yet, for or against
	live                   // up, and its full report is in
)

// node is one core node, as far as this term knows it.
type node struct {
	hdfs.Node
	index    nodeIndex
	up       bool
	reported bool   // the full report of this session is in
	changed  moment // when it came up or went down; 0 if it has never been up
	standing standing

	reporting map[hdfs.BlockID]bool // blocks that the report under way has named; nil if none is
	disks     []Disk
	draining  bool

	writing  int   // pipelines through it
	promised int64 // bytes of blocks on their way to it
	sending  stream
	taking   stream
	maySend  bool // another copy, as of this Tick
	mayTake  bool
	deletes  []deletion // to be ordered
	verifies []hdfs.BlockID
}

// stream bounds the copies that a node sends, or takes.
type stream struct {
	open   int
	bytes  int64 // of those
	budget int64 // bytes that may still be begun; what is begun may overdraw it, which then takes its time
	at     moment
}

const (
	// wholeStreams is how many copies a node sends, or takes, at once whatever their size.
	wholeStreams = 2
	// streamBytes is how many bytes all have together when there are more of them.
	streamBytes = wholeStreams * hdfs.DefaultBlockSize
)

// free tells whether another copy may begin.
func (s *stream) free(now moment, limit int, rate int64) bool {
	if s.open >= limit || s.open >= wholeStreams && s.bytes >= streamBytes {
		return false
	}
	if rate <= 0 {
		return true
	}
	s.budget = min(s.budget+int64(float64(rate)*(now-s.at).Seconds()), rate/4)
	s.at = now
	return s.budget >= 0
}

func (s *stream) begin(bytes int64) {
	s.open++
	s.bytes += bytes
	s.budget -= bytes
}

func (s *stream) end(bytes int64) {
	s.open--
	s.bytes -= bytes
}

// nodes is the table of nodes.
type nodes struct {
	byID    map[string]*node
	byIndex []*node // nil: free to be given again
	awaited map[string]bool
	drained map[string]bool // asked to drain, whether up or not

	// What follows from them, kept by refresh.
	holders int      // nodes that may hold replicas: not draining, and up or waited for
	racks   []string // of those
}

func (t *nodes) init() {
	t.byID, t.awaited, t.drained = map[string]*node{}, map[string]bool{}, map[string]bool{}
}

// expect makes a node known that is not up yet.
func (t *nodes) expect(id string) {
	t.awaited[id] = true
	t.get(id).standing = waited
}

// get gives a node, a new one if it is not known.
func (t *nodes) get(id string) *node {
	if n := t.byID[id]; n != nil {
		return n
	}
	n := &node{Node: hdfs.Node{ID: id}, draining: t.drained[id]}
	i := slices.Index(t.byIndex, nil)
	if i < 0 {
		i = len(t.byIndex)
		t.byIndex = append(t.byIndex, nil)
	}
	n.index = nodeIndex(i)
	t.byIndex[i] = n
	t.byID[id] = n
	return n
}

func (t *nodes) forget(n *node) {
	delete(t.byID, n.ID)
	t.byIndex[n.index] = nil
}

// refresh brings up to date what follows from the nodes; it tells whether that changed.
func (t *nodes) refresh() bool {
	holders, racks := 0, []string(nil)
	for _, n := range t.byIndex {
		if n == nil || n.draining || n.standing == lost {
			continue
		}
		holders++
		if n.up && !slices.Contains(racks, n.Rack) {
			racks = append(racks, n.Rack)
		}
	}
	changed := holders != t.holders || len(racks) != len(t.racks)
	t.holders, t.racks = holders, racks
	return changed
}

// room is how many bytes the node may still take in blocks of a size: whole blocks, as no block lies on two disks.
func (n *node) room(size int64) int64 {
	if len(n.disks) == 0 {
		return size // it has not said yet; the node itself refuses what it cannot take
	}
	size = max(size, 1)
	var room int64
	for _, d := range n.disks {
		if d.Problem == "" && d.Free > 0 {
			room += d.Free / size * size
		}
	}
	return room - n.promised
}

// placed is the node as placement sees it, for blocks of a size.
func (n *node) placed(size int64) placement.Node {
	return placement.Node{
		ID: n.ID, Rack: n.Rack, Room: n.room(size), Load: n.writing + n.sending.open + n.taking.open, Draining: n.draining,
		Failing: slices.ContainsFunc(n.disks, func(d Disk) bool { return d.Problem != "" }),
	}
}

// giveUpNodes settles what each node's replicas are worth by now, and forgets nodes that were waited for in vain.
func (m *Manager) giveUpNodes() {
	many := m.manyDown()
	changed := false
	for _, n := range m.nodes.byIndex {
		if n == nil {
			continue
		}
		was := n.standing
		n.standing = m.standing(n, many)
		if n.standing == was {
			continue
		}
		changed = true
		if n.standing == lost && !n.up {
			m.forget(n)
			m.counts.NodesGivenUp++
		}
	}
	if m.nodes.refresh() || changed {
		m.sweep.all()
	}
}

func (m *Manager) standing(n *node, many bool) standing {
	patience := m.cfg.DownWait
	switch {
	case n.up && n.reported:
		return live
	case n.up:
		patience = m.cfg.ReportWait
	case many:
		patience = m.cfg.ManyDownWait
	}
	if m.now < n.changed+patience {
		return waited
	}
	return lost
}

// manyDown tells whether so many nodes are down, and waited for, that it is likelier their network or their power that
// failed than they.
func (m *Manager) manyDown() bool {
	down, all := 0, 0
	for _, n := range m.nodes.byIndex {
		if n == nil || n.draining {
			continue
		}
		all++
		if !n.up {
			down++
		}
	}
	return down >= 2 && down*3 > all // nodes that drain are not counted: they are expected to go
}

// forget drops all that is known of a node that is gone.
func (m *Manager) forget(n *node) {
	m.abandon(n, "the node is gone")
	m.places.dropNode(n.index)
	for id, s := range m.suspects {
		if s.dropNode(n.index) {
			m.tidy(id, s)
		}
	}
	m.nodes.forget(n)
}

// becomeReady decides when a new leader knows enough to copy and to delete.
func (m *Manager) becomeReady() {
	if m.ready {
		return
	}
	all := true
	for _, n := range m.nodes.byIndex {
		if n != nil && n.up && !n.reported {
			all = false
		}
	}
	switch {
	case !all:
		m.quiet = -1
	case m.quiet < 0:
		m.quiet = m.now
	}
	switch {
	case len(m.nodes.awaited) == 0 && all:
	case m.now >= m.cfg.ManyDownWait:
	case m.quiet >= 0 && m.now >= m.quiet+m.cfg.ReportWait && !m.manyDown():
	default:
		return
	}
	m.ready = true
	m.sweep.all()
	m.cfg.Log.Info("block reports are in: blocks are copied and deleted from now on")
}

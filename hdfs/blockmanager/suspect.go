package blockmanager

import (
	"slices"

	"millrace/hdfs"
)

// suspect is what is known of a block that is not simply well: being written, short of replicas, with bad or stale
// ones, with deletions under way, or of no file.
type suspect struct {
	marks  []mark
	state  state
	good   int    // live good replicas when it was last looked at
	why    string // why nothing is done about it just now; "" if something is
	queued *shortage

	unknown bool   // no file has it
	since   moment // that it is unknown
}

// state is what a block's readers should know.
type state uint8

const (
	well    state = iota
	under         // fewer replicas than wanted, and than the nodes could hold
	missing       // no replica is on a node that is up
	corrupt       // replicas are known, all of them bad, and none is waited for
)

// mark is something about one node's replica of a block.
type mark struct {
	node       nodeIndex
	kind       kind
	cause      cause // of a doom
	unfinished bool  // of an odd one
	sent       bool  // of a doom, and of what is accused: the node was told
	block      hdfs.Block
	until      moment // when a shy one, or a doom that was sent, is over; how long it is waited for that an odd one is told of as whole
	why        string // of a bad one
}

type kind uint8

const (
	odd     kind = iota // a replica of another stamp or size than the log's, or of a block that is not final or unknown
	bad                 // somebody found it damaged; the block is also in places
	doomed              // to be deleted: it counts for nothing
	shy                 // a copy to the node failed: others are tried first until then
	accused             // a reader called it bad: the node shall look
)

// cause is why a replica is deleted.
type cause uint8

const (
	surplus  cause = iota // there are more than wanted
	damaged               // and good ones are there
	stale                 // and good ones are there
	orphaned              // no file has the block
	causes
)

func (c cause) String() string { return [...]string{"surplus", "bad", "stale", "orphaned"}[c] }

// awaited tells whether a replica of a final block was begun under its stamp, and its node has time yet to say that it is whole.
func (k *mark) awaited(b Block, now moment) bool {
	return k.kind == odd && k.unfinished && k.block.Stamp == b.Stamp && (k.until == 0 || k.until > now)
}

// suspect gives what is known of a block, a new record if there is none; tidy is to be called afterwards.
func (m *Manager) suspect(id hdfs.BlockID) *suspect {
	s := m.suspects[id]
	if s == nil {
		s = &suspect{}
		m.suspects[id] = s
	}
	return s
}

// tidy drops the record of a block with which nothing is the matter.
func (m *Manager) tidy(id hdfs.BlockID, s *suspect) {
	if len(s.marks) == 0 && s.state == well && s.queued == nil && !s.unknown {
		delete(m.suspects, id)
	}
}

func (s *suspect) find(n nodeIndex, k kind) *mark {
	if s == nil {
		return nil
	}
	for i := range s.marks {
		if s.marks[i].node == n && s.marks[i].kind == k {
			return &s.marks[i]
		}
	}
	return nil
}

// put sets the mark of its kind for its node.
func (s *suspect) put(k mark) {
	if old := s.find(k.node, k.kind); old != nil {
		*old = k
		return
	}
	s.marks = append(s.marks, k)
}

func (s *suspect) drop(n nodeIndex, kinds ...kind) {
	if s == nil {
		return
	}
	s.marks = slices.DeleteFunc(s.marks, func(k mark) bool { return k.node == n && slices.Contains(kinds, k.kind) })
}

// dropNode drops all marks of a node and tells whether there were some.
func (s *suspect) dropNode(n nodeIndex) bool {
	before := len(s.marks)
	s.marks = slices.DeleteFunc(s.marks, func(k mark) bool { return k.node == n })
	return len(s.marks) < before
}

package blockmanager

import (
	"cmp"
	"slices"
	"time"

	"millrace/hdfs"
)

// sweep is a walk over all blocks, in the order of their ids, again and again: it finds what no event told. After
// something that may concern any of them, as when a node went or came, it goes one full round in large steps.
type sweep struct {
	next   hdfs.BlockID
	burst  bool         // a round in large steps is under way
	until  hdfs.BlockID // where that began, and ends
	turned bool         // it has been at the end of all blocks since
	ran    moment       // when the last step was made
	began  bool
}

// sweepEvery is how often a step is made, however often Tick is called.
const sweepEvery = time.Second

// all asks for a round in large steps from here.
func (s *sweep) all() { s.burst, s.until, s.turned = true, s.next, false }

// sweepSome makes one step.
func (m *Manager) sweepSome() {
	if m.sweep.began && m.now < m.sweep.ran+sweepEvery {
		return
	}
	m.sweep.ran, m.sweep.began = m.now, true
	limit := m.cfg.SweepBlocks
	if m.sweep.burst {
		limit = m.cfg.SweepBurst
	}
	m.sweepStep(limit)
}

// sweepStep looks at the next blocks, limit of those in the log and as many of those that nodes have.
func (m *Manager) sweepStep(limit int) {
	s := &m.sweep
	from := s.next
	blocks := make([]Block, 0, min(limit, 4096))
	for b := range m.cfg.Names.Blocks(from) {
		if blocks = append(blocks, b); len(blocks) == limit {
			break
		}
	}
	held := m.heldFrom(from, limit)
	// The step ends where the first of both lists that was cut ends.
	end, cut := hdfs.BlockID(0), false
	if len(blocks) == limit {
		end, cut = blocks[limit-1].ID, true
	}
	if len(held) == limit && (!cut || held[limit-1] < end) {
		end, cut = held[limit-1], true
	}
	for _, b := range blocks {
		if !cut || b.ID <= end {
			m.lookAt(b.ID, b, true)
		}
	}
	for _, id := range held {
		if _, inLog := slices.BinarySearchFunc(blocks, id, byID); !inLog && (!cut || id <= end) {
			m.look(id)
		}
	}
	if cut {
		s.next = end + 1
		if s.burst && s.turned && s.next > s.until {
			s.burst = false
		}
		return
	}
	m.endRound()
}

// endRound goes back to the first block; what is remembered outside of the order of blocks is looked at here.
func (m *Manager) endRound() {
	s := &m.sweep
	s.next = 0
	if s.burst && (s.turned || s.until == 0) {
		s.burst = false
	}
	s.turned = true
	for id := range m.suspects {
		m.checks.add(m.now, id)
	}
	for id := range m.writing {
		m.checks.add(m.now, id)
	}
}

// heldFrom lists blocks of which some node has a good replica.
func (m *Manager) heldFrom(from hdfs.BlockID, limit int) []hdfs.BlockID {
	ids := make([]hdfs.BlockID, 0, min(limit, 4096))
	m.places.byID.Ascend(from, func(id hdfs.BlockID, _ place) bool {
		ids = append(ids, id)
		return len(ids) < limit
	})
	return ids
}

func byID(b Block, id hdfs.BlockID) int { return cmp.Compare(b.ID, id) }

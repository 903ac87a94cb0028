package blockmanager

import (
	"cmp"
	"slices"
	"strings"

	"millrace/hdfs"
)

// Concern is a block that is not as it should be.
type Concern struct {
	Block  hdfs.BlockID
	File   hdfs.FileID
	Size   int64
	Wanted int    // replicas
	Good   int    // live good replicas
	Why    string // what a copy waits for; "" if one is under way or next
}

// Status is how the cluster's blocks are. The lists are in the order of the blocks' ids.
type Status struct {
	// Complete says that the full reports are in and all blocks have been looked at since a node last came or went.
	Complete bool

	Missing         []Concern // no good replica is on a node that is up; Why names those that are down and have one
	Corrupt         []Concern // replicas are known, all of them bad, and none is waited for
	UnderReplicated []Concern // fewer replicas than wanted, though there are nodes for more
	// Holders is how many core nodes may hold replicas: a block of which more are wanted has as many as there can be,
	// and gets more as nodes come.
	Holders int

	Copying  int // copies under way
	Deleting int // replicas that are to be deleted
	Counters Counters
}

// Counters count since the leader's term began.
type Counters struct {
	CopiesBegun, CopiesDone, CopiesFailed int64
	BytesCopied                           int64
	BadReplicas                           int64
	Accusations                           int64
	NodesGivenUp                          int64
	Deletes                               [causes]int64 // ordered, by cause
}

// Status tells how the blocks are. It costs as much as there are blocks that are not well.
func (m *Manager) Status() Status {
	defer m.lock()()
	st := Status{
		Complete: m.ready && !m.sweep.burst, Holders: m.nodes.holders, Counters: m.counts,
	}
	for id, s := range m.suspects {
		for _, k := range s.marks {
			if k.kind == doomed {
				st.Deleting++
			}
		}
		if s.state == well {
			continue
		}
		b, known := m.cfg.Names.Block(id)
		if !known || !b.Final {
			continue
		}
		c := Concern{Block: id, File: b.File, Size: b.Size, Wanted: b.Wanted, Good: s.good, Why: s.why}
		switch s.state {
		case missing:
			c.Why = m.whereMissing(b)
			st.Missing = append(st.Missing, c)
		case corrupt:
			st.Corrupt = append(st.Corrupt, c)
		case under:
			st.UnderReplicated = append(st.UnderReplicated, c)
		}
	}
	for _, cs := range m.copies {
		st.Copying += len(cs)
	}
	for _, list := range [][]Concern{st.Missing, st.Corrupt, st.UnderReplicated} {
		slices.SortFunc(list, func(a, b Concern) int { return cmp.Compare(a.Block, b.Block) })
	}
	return st
}

// whereMissing names the nodes that are down and have a block, as far as that is known.
func (m *Manager) whereMissing(b Block) string {
	_, _, absent := m.readable(b, m.writing[b.ID])
	var names []string
	for _, n := range absent {
		names = append(names, n.Called())
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return "it is on what is down: node " + strings.Join(names, ", ")
}

// Counters gives the counters alone, which costs nothing.
func (m *Manager) Counters() Counters {
	defer m.lock()()
	return m.counts
}

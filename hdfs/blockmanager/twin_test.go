package blockmanager

import (
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
)

// twin remembers what the manager was told, and what it ordered, without any thought for cost.
type twin struct {
	s        *simulation
	began    time.Time
	up       map[string]bool
	reported map[string]bool
	named    map[string]map[hdfs.BlockID]bool
	told     map[string]map[hdfs.BlockID]hdfs.Block // what each node said it has
	unfin    map[string]map[hdfs.BlockID]bool
	accused  map[string]map[hdfs.BlockID]bool
	ordered  map[string]map[hdfs.BlockID]time.Time // deletions not confirmed
	copies   []orderedCopy
	removed  map[hdfs.BlockID]time.Time
}

type orderedCopy struct {
	block    hdfs.Block
	from, to string
	at       time.Time
}

func newTwin(s *simulation) *twin {
	t := &twin{s: s, began: s.clock, up: map[string]bool{}, reported: map[string]bool{}, removed: map[hdfs.BlockID]time.Time{}}
	if s.twin != nil {
		t.removed = s.twin.removed
	}
	t.named, t.told, t.unfin = map[string]map[hdfs.BlockID]bool{}, map[string]map[hdfs.BlockID]hdfs.Block{}, map[string]map[hdfs.BlockID]bool{}
	t.accused, t.ordered = map[string]map[hdfs.BlockID]bool{}, map[string]map[hdfs.BlockID]time.Time{}
	return t
}

// nodeUp is told whether the node is a new one to the manager; if it had been given up, nothing is left of it.
func (t *twin) nodeUp(n string, unknown bool) {
	t.endCopies(func(c orderedCopy) bool { return c.from == n || c.to == n })
	t.up[n], t.reported[n] = true, false
	t.named[n] = map[hdfs.BlockID]bool{}
	if unknown || t.told[n] == nil {
		t.told[n], t.unfin[n] = map[hdfs.BlockID]hdfs.Block{}, map[hdfs.BlockID]bool{}
		t.accused[n], t.ordered[n] = map[hdfs.BlockID]bool{}, map[hdfs.BlockID]time.Time{}
	}
}

func (t *twin) nodeDown(n string) {
	t.up[n], t.reported[n] = false, false
	t.endCopies(func(c orderedCopy) bool { return c.from == n || c.to == n })
}

func (t *twin) report(n string, piece []Replica, last bool) {
	for _, r := range piece {
		t.named[n][r.ID] = true
		t.told[n][r.ID], t.unfin[n][r.ID] = r.Block, r.Unfinished
	}
	if !last {
		return
	}
	for id := range t.told[n] {
		if !t.named[n][id] {
			t.forget(n, id)
		}
	}
	t.reported[n] = true
}

func (t *twin) received(n string, b hdfs.Block) {
	t.named[n][b.ID] = true
	if t.told[n][b.ID].Stamp > b.Stamp {
		return
	}
	t.told[n][b.ID], t.unfin[n][b.ID] = b, false
	delete(t.accused[n], b.ID)
	t.endCopies(func(c orderedCopy) bool { return c.block.ID == b.ID && c.to == n })
}

func (t *twin) deleted(n string, b hdfs.Block) {
	if t.told[n][b.ID].Stamp <= b.Stamp {
		delete(t.named[n], b.ID)
		t.forget(n, b.ID)
	}
}

func (t *twin) forget(n string, id hdfs.BlockID) {
	delete(t.told[n], id)
	delete(t.unfin[n], id)
	delete(t.accused[n], id)
	delete(t.ordered[n], id)
}

func (t *twin) bad(n string, b hdfs.Block) {
	if t.told[n][b.ID] == b {
		t.accused[n][b.ID] = true
		t.endCopies(func(c orderedCopy) bool { return c.block.ID == b.ID && c.from == n })
	}
}

func (t *twin) copyFailed(b hdfs.Block, to string) {
	t.endCopies(func(c orderedCopy) bool { return c.block.ID == b.ID && c.to == to })
}

func (t *twin) gone(id hdfs.BlockID) { t.removed[id] = t.s.clock }

func (t *twin) endCopies(which func(orderedCopy) bool) {
	var left []orderedCopy
	for _, c := range t.copies {
		if !which(c) {
			left = append(left, c)
		}
	}
	t.copies = left
}

// right tells whether a node said that it has the replica that the log wants.
func (t *twin) right(n string, b Block) bool {
	has, ok := t.told[n][b.ID]
	return ok && has == b.Block && !t.unfin[n][b.ID]
}

// good counts the nodes but one that are known to have a good replica.
func (t *twin) good(b Block, but string) int {
	good := 0
	for n := range t.told {
		at, doomed := t.ordered[n][b.ID]
		doomed = doomed && t.s.clock.Before(at.Add(time.Minute))
		if n != but && t.up[n] && t.reported[n] && t.right(n, b) && !t.accused[n][b.ID] && !doomed {
			good++
		}
	}
	return good
}

// judge holds the rules over the orders of a Tick.
func (t *twin) judge(orders map[string]*Orders) {
	now := t.s.clock
	t.endCopies(func(c orderedCopy) bool { return !now.Before(c.at.Add(time.Minute)) })
	for n, o := range orders {
		require.True(t.s, t.up[n], "an order for a node that is not there")
		for _, b := range o.Delete {
			t.judgeDelete(n, b)
		}
		for _, c := range o.Copy {
			t.judgeCopy(n, c)
		}
	}
	for n := range t.up {
		sends, takes := 0, 0
		for _, c := range t.copies {
			if c.from == n {
				sends++
			}
			if c.to == n {
				takes++
			}
		}
		require.LessOrEqual(t.s, sends, 10, "copies from %s", n)
		require.LessOrEqual(t.s, takes, 10, "copies to %s", n)
	}
}

func (t *twin) judgeDelete(n string, b hdfs.Block) {
	require.True(t.s, t.reported[n], "a deletion on a node whose full report is not in")
	t.ordered[n][b.ID] = t.s.clock
	in, known := t.s.log.blocks[b.ID]
	switch {
	case !known:
		require.False(t.s, t.s.clock.Before(t.removed[b.ID].Add(time.Minute)), "%s is deleted before its grace is over", b)
	case !in.Final:
		t.s.Fatalf("%s is deleted while it is written", b)
	case t.right(n, in) && !t.accused[n][b.ID]:
		require.GreaterOrEqual(t.s, t.good(in, n), in.Wanted, "a good replica of %s is deleted on %s", b, n)
	default:
		require.GreaterOrEqual(t.s, t.good(in, n), 1, "a replica of %s is deleted though no good one is there", b)
	}
}

func (t *twin) judgeCopy(n string, c Copy) {
	in, known := t.s.log.blocks[c.ID]
	require.True(t.s, known && in.Final && in.Block == c.Block, "a copy of what is not final")
	require.True(t.s, t.right(n, in) && !t.accused[n][c.ID], "a copy of what %s has not", n)
	require.True(t.s, t.up[c.To.ID] && t.reported[c.To.ID], "a copy to a node that is not there")
	require.NotContains(t.s, t.told[c.To.ID], c.ID, "a copy to a node that has it")
	require.False(t.s, t.s.node(c.To.ID).draining, "a copy to a node that drains")
	t.copies = append(t.copies, orderedCopy{block: c.Block, from: n, to: c.To.ID, at: t.s.clock})
}

package datanode

import (
	"cmp"
	"maps"
	"slices"

	"millrace/hdfs"
)

// bad is the replicas that were found damaged. A leader forgets them with its term, and the one that comes next would take
// them for good until the scrubber comes by again: so every full list is followed by them.
type bad map[hdfs.BlockID]Change

// note takes up a change.
func (b bad) note(c Change) {
	switch c.State {
	case Bad:
		b[c.Block.ID] = c
	case Final, Gone, Verified:
		delete(b, c.Block.ID)
	}
}

func (b bad) all() []Change {
	return slices.SortedFunc(maps.Values(b), func(x, y Change) int { return cmp.Compare(x.Block.ID, y.Block.ID) })
}

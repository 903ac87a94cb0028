package checker

import (
	"fmt"
	"slices"
)

// StoredFile is a file as `fs stat --json` prints it.
type StoredFile struct {
	Path        string
	Size        int64
	Directory   bool
	Replication int
	Blocks      []StoredBlock
}

// StoredBlock is one of its blocks.
type StoredBlock struct {
	ID       string
	Size     int64
	Replicas []string // ids of nodes
}

// Replica is what lies on a node's disk of a block.
type Replica struct {
	Node, Block string
	Size        int64 // bytes of data
	Unfinished  bool
}

// Lacking names the blocks that lie on fewer disks than the cluster says.
func Lacking(files []StoredFile, disks []Replica) (blocks []string) {
	lie := map[string]int{}
	for _, r := range disks {
		if !r.Unfinished {
			lie[r.Block]++
		}
	}
	for _, f := range files {
		for _, b := range f.Blocks {
			if lie[b.ID] < len(b.Replicas) {
				blocks = append(blocks, b.ID)
			}
		}
	}
	return blocks
}

// JudgeBlocks says how the disks of all nodes differ from what the files' blocks say, when all is well: each block must lie on as many
// nodes as are wanted, in its size, and nothing else may lie there.
func JudgeBlocks(files []StoredFile, disks []Replica) (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	at := map[string][]Replica{}
	for _, r := range disks {
		if r.Unfinished {
			say("%s has an unfinished replica of %s", r.Node, r.Block)
			continue
		}
		at[r.Block] = append(at[r.Block], r)
	}
	for _, f := range files {
		var size int64
		for _, b := range f.Blocks {
			size += b.Size
			lie := at[b.ID]
			delete(at, b.ID)
			if len(lie) != f.Replication || len(b.Replicas) != f.Replication {
				say("%s: %s lies on %d disks, is said to lie on %d, shall on %d", f.Path, b.ID, len(lie), len(b.Replicas), f.Replication)
			}
			for _, r := range lie {
				if r.Size != b.Size {
					say("%s: %s has %d bytes on %s, and shall have %d", f.Path, b.ID, r.Size, r.Node, b.Size)
				}
			}
			if nodes := slices.CompactFunc(slices.Clone(lie), func(a, b Replica) bool { return a.Node == b.Node }); len(nodes) != len(lie) {
				say("%s: %s lies twice on a node", f.Path, b.ID)
			}
		}
		if size != f.Size {
			say("%s has %d bytes, its blocks %d", f.Path, f.Size, size)
		}
	}
	for block, lie := range at {
		for _, r := range lie {
			say("%s has a replica of %s, which no file has", r.Node, block)
		}
	}
	slices.Sort(wrong)
	return wrong
}

package namespace

import (
	"strings"

	"github.com/tidwall/btree"
)

// remembered is how many requests, and how many published groups, are known again when they are repeated: the latest ones.
const remembered = 8192

// memory is what was done, so that a command that is repeated is known again.
type memory struct {
	byName *btree.BTreeG[deed]
	byAge  *btree.BTreeG[deed] // the oldest first
}

// deed is something that was done, by its name.
type deed struct {
	name string
	seq  uint64 // they are counted
}

func newMemory(o btree.Options) memory {
	return memory{
		byName: btree.NewBTreeGOptions(func(a, b deed) bool { return a.name < b.name }, o),
		byAge:  btree.NewBTreeGOptions(func(a, b deed) bool { return a.seq < b.seq }, o),
	}
}

// next is a copy to write to.
func (m memory) next() memory { return memory{m.byName.Copy(), m.byAge.Copy()} }

func (m memory) has(name string) bool {
	_, ok := m.byName.Get(deed{name: name})
	return ok
}

// add remembers a deed, the latest so far, and forgets the oldest if there are too many.
func (m memory) add(d deed) {
	m.byName.Set(d)
	m.byAge.Set(d)
	if m.byAge.Len() > remembered {
		oldest, _ := m.byAge.PopMin()
		m.byName.Delete(oldest)
	}
}

// remember counts a deed and puts it into one of the tree's memories.
func (t *Tree) remember(m memory, name string) {
	t.last.deed++
	m.add(deed{strings.Clone(name), t.last.deed})
}

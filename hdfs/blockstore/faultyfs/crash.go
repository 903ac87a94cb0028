package faultyfs

import (
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
)

// entry is a name in a folder.
type entry struct {
	dir  *node
	name string
}

// change is what one operation did to names: at a crash all of it is kept or nothing, as journals have it. Changes of
// other names may be kept or lost in any combination.
type change struct {
	path  string
	names []named
}

type named struct {
	entry
	to *node // nil: the name is gone
}

func (c change) touches(any func(entry) bool) bool {
	for _, e := range c.names {
		if any(e.entry) {
			return true
		}
	}
	return false
}

func (f *FS) change(path string, names ...named) {
	c := change{path, names}
	for _, e := range names {
		put(e.dir.entries, e.name, e.to)
	}
	f.journal = append(f.journal, c)
}

// put sets or deletes a name.
func put(names map[string]*node, name string, to *node) {
	if to == nil {
		delete(names, name)
		return
	}
	names[name] = to
}

func (c change) keep() {
	for _, e := range c.names {
		put(e.dir.synced, e.name, e.to)
	}
}

// commit makes the names of a folder durable, and what they depend on: earlier changes of the same names.
func (f *FS) commit(dir *node) {
	needed := map[entry]bool{}
	kept := make([]bool, len(f.journal))
	for i, c := range slices.Backward(f.journal) {
		if kept[i] = c.touches(func(e entry) bool { return e.dir == dir || needed[e] }); kept[i] {
			for _, e := range c.names {
				needed[e.entry] = true
			}
		}
	}
	var rest []change
	for i, c := range f.journal {
		if kept[i] {
			c.keep()
		} else {
			rest = append(rest, c)
		}
	}
	f.journal = rest
}

// settle decides what the disk gets of a file's unsynced bytes: each write whole, torn, or not at all.
func (f *FS) settle(n *node) {
	for _, e := range n.unsynced {
		switch f.rnd.IntN(3) {
		case 0:
			continue
		case 1:
			e.data = e.data[:f.rnd.IntN(len(e.data)+1)]
		}
		n.kept = e.apply(n.kept)
	}
	n.unsynced = nil
}

// Restart crashes the machine, if it has not crashed yet, and starts it again with what the disks have kept. Files
// that are open are dead, locks are free, Fail's function is gone.
func (f *FS) Restart() {
	f.mu.Lock()
	defer f.mu.Unlock()
	lost, nth := map[entry]bool{}, map[string]uint64{}
	for _, c := range f.journal {
		nth[c.path]++
		if f.forgets(c.path, nth[c.path]) || c.touches(func(e entry) bool { return lost[e] }) {
			for _, e := range c.names {
				lost[e.entry] = true
			}
			continue
		}
		c.keep()
	}
	f.journal = nil
	f.reread(f.root)
	f.life++
	f.crashed = false
	f.locks = map[string]bool{}
	f.fail = func(Op) error { return nil }
}

// forgets decides on the nth change of a path. It goes by the seed alone: what was done at once, in an order that no
// seed decides, is forgotten alike in each run.
func (f *FS) forgets(path string, nth uint64) bool {
	h := fnv.New64a()
	_, _ = h.Write([]byte(path))
	return rand.New(rand.NewPCG(f.seed+uint64(f.life), h.Sum64()+nth)).IntN(2) == 0
}

// reread makes programs see what the disk has.
func (f *FS) reread(n *node) {
	if !n.folder {
		f.settle(n)
		n.content = slices.Clone(n.kept)
		return
	}
	n.entries = map[string]*node{}
	for _, name := range slices.Sorted(maps.Keys(n.synced)) {
		n.entries[name] = n.synced[name]
		f.reread(n.synced[name])
	}
}

// Vanish takes a disk's folder away, as unmounting does; what lay in it is gone.
func (f *FS) Vanish(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	in, name, err := f.parent("vanish", dir)
	if err != nil {
		return err
	}
	if in.entries[name] == nil {
		return syscall.ENOENT
	}
	f.change(dir, named{entry{in, name}, nil})
	f.commit(in)
	return nil
}

package namespace

import (
	"maps"
	"slices"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"millrace/hdfs"
)

func (m *machine) same(what string, want, got any) {
	m.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		m.Fatalf("%s (-twin, +tree):\n%s", what, d)
	}
}

// check compares all that the views say.
func (m *machine) check() {
	m.Helper()
	var want []hdfs.Info
	blocks := map[hdfs.BlockID]Block{}
	for _, p := range inOrder(slices.Collect(maps.Keys(m.twin.paths))) {
		f := m.twin.paths[p]
		want = append(want, f.info(p))
		f.addTo(blocks)
		m.checkPath(p, f)
	}
	all, err := m.tree.Walk("/")
	m.same("walk", nil, err)
	m.same("walk", want, slices.Collect(all))
	m.checkHidden(blocks)
	var found []Block
	for _, id := range slices.Sorted(maps.Keys(blocks)) {
		found = append(found, blocks[id])
		got, ok := m.tree.Block(id)
		m.same("is the block there", true, ok)
		m.same("block", blocks[id], got)
	}
	m.same("blocks", found, slices.Collect(m.tree.Blocks(0)))
	m.same("totals", Totals{m.twin.usage("/"), len(blocks), len(m.twin.hidden)}, m.tree.Totals())
	if _, ok := m.tree.Block(m.twin.block + 1); ok {
		m.Fatalf("there is a block of the future")
	}
}

// addTo adds the blocks of a file.
func (f *twinFile) addTo(blocks map[hdfs.BlockID]Block) {
	for _, b := range f.blocks {
		final := b.Size >= 0
		b.Size = max(b.Size, 0)
		blocks[b.ID] = Block{b, f.id, f.Create.Replication, final}
	}
}

// checkPath compares what is said of a path and what is below it.
func (m *machine) checkPath(p string, f *twinFile) {
	m.Helper()
	info, err := m.tree.Stat(p)
	m.same("stat "+p, nil, err)
	m.same("stat "+p, f.info(p), info)
	info, err = m.tree.StatID(f.id)
	m.same("stat by id", nil, err)
	m.same("stat by id", f.info(p), info)
	usage, err := m.tree.Usage(p)
	m.same("usage of "+p, nil, err)
	m.same("usage of "+p, m.twin.usage(p), usage)
	if f.folder {
		var entries []hdfs.Info
		for _, c := range inOrder(m.twin.below(p)) {
			if folders := above(c); folders[len(folders)-1] == p {
				entries = append(entries, m.twin.paths[c].info(c))
			}
		}
		m.same("list "+p, entries, m.list(p))
		return
	}
	var located []hdfs.Located
	offset := int64(0)
	for _, b := range f.blocks {
		located = append(located, hdfs.Located{Block: b, Offset: offset})
		offset += b.Size
	}
	_, got, err := m.tree.Locate(f.id, 0, 1<<62)
	m.same("locate "+p, nil, err)
	m.same("locate "+p, located, got)
}

// list goes through a folder two entries at a time.
func (m *machine) list(p string) (all []hdfs.Info) {
	m.Helper()
	for after := ""; ; {
		page, err := m.tree.List(p, after, 2)
		m.same("list "+p, nil, err)
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
		_, after = split(page[len(page)-1].Path)
	}
}

// checkHidden compares what is said of files that are being written, and of uploads.
func (m *machine) checkHidden(blocks map[hdfs.BlockID]Block) {
	m.Helper()
	var want []Hidden
	leases, groups := map[string]bool{}, map[string]bool{}
	for _, f := range m.twin.hiddenByID() {
		f.addTo(blocks)
		c := f.Create
		want = append(want, Hidden{f.info(c.Path), c.Lease, c.Group, c.Task, c.Overwrite, f.sealed})
		got, ok := m.tree.Hidden(f.id)
		m.same("is it hidden", true, ok)
		m.same("hidden file", want[len(want)-1], got)
		if c.Group == "" {
			leases[c.Lease] = true
		} else {
			groups[c.Group] = true
		}
		if _, err := m.tree.StatID(f.id); err == nil {
			m.Fatalf("a hidden file is seen")
		}
	}
	m.same("hidden files", want, slices.Collect(m.tree.HiddenFiles()))
	m.same("leases", slices.Sorted(maps.Keys(leases)), slices.Collect(m.tree.Leases()))
	m.same("groups", slices.Sorted(maps.Keys(groups)), slices.Collect(m.tree.Groups()))
	for _, g := range []string{"g1", "g2", "g3", ""} {
		var uploads []hdfs.Upload
		for _, f := range m.twin.uploads(g) {
			uploads = append(uploads, hdfs.Upload{ID: f.id, Path: f.Create.Path, Lease: f.Create.Lease, Group: g, Task: f.Create.Task, Size: f.size(), Sealed: f.sealed})
		}
		m.same("uploads of "+g, uploads, m.tree.Uploads(g))
		m.same("is it published", m.twin.done["group "+g], m.tree.Published(g))
	}
}

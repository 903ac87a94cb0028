package namespace

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"millrace/hdfs"
)

// machine drives a tree and its twin by the same random commands, legal and illegal ones.
type machine struct {
	*rapid.T
	tree *Tree
	twin *twin
	log  []Command
	kept map[*Tree]string // trees of before, and what was in them
	came map[string]int   // names of commands, "!" before those that were refused
}

// actions are what a history is made of; one that is there twice comes twice as often.
var actions = []func(*machine) Command{
	(*machine).create, (*machine).create, (*machine).create, (*machine).upload, (*machine).upload,
	(*machine).addBlock, (*machine).addBlock, (*machine).addBlock, (*machine).restamp,
	(*machine).complete, (*machine).complete, (*machine).complete, (*machine).complete, (*machine).abandon, (*machine).expire,
	(*machine).mkdir, (*machine).rename, (*machine).rename, (*machine).remove, (*machine).setReplication,
	(*machine).publish, (*machine).publish, (*machine).abort, (*machine).again,
}

// Whatever comes in whatever order: the tree takes and refuses what the twin does, and says what the twin says; a snapshot
// in between changes nothing; and no tree of before ever changes.
func TestLikeTwin(t *testing.T) {
	came := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{T: t, tree: New(), twin: newTwin(), kept: map[*Tree]string{}, came: came}
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(actions)-1), 40, 80).Draw(t, "actions") {
			m.step(actions[i](m))
			if m.rare(10, "restore") {
				m.tree = reload(t, m.tree)
			}
			if len(m.log)%3 == 0 { // it takes more time than all else
				m.check()
			}
		}
		m.check()
		for tree, was := range m.kept {
			if now := whole(tree); now != was {
				t.Fatalf("a tree of before has changed:\n%s", cmp.Diff(was, now))
			}
		}
		m.replay()
	})
	for _, name := range []string{
		"CreateFile", "AddBlock", "Restamp", "CompleteFile", "AbandonFile", "ExpireLeases", "Mkdir", "Rename", "Remove", "SetReplication", "Publish", "AbortUploads",
		"!CreateFile", "!AddBlock", "!Restamp", "!CompleteFile", "!AbandonFile", "!Mkdir", "!Rename", "!Remove", "!SetReplication", "!Publish", "!AbortUploads",
		"published with uploads", "published in the place of others", "overwritten, sealed or completed twice",
	} {
		if came[name] == 0 {
			t.Errorf("no history has this: %s", name)
		}
	}
	t.Log(came)
}

func (m *machine) step(c Command) {
	m.Helper()
	m.Logf("%s %+v", c.CommandName(), c)
	m.log = append(m.log, c)
	before := m.tree
	if len(m.kept) < 3 || m.rare(20, "keep") {
		m.kept[before] = whole(before)
	}
	files := len(m.twin.paths)
	next, got, err := m.tree.Apply(c)
	wantResult, want := m.twin.apply(c)
	m.tree = next
	if sentinel(err) != sentinel(want) {
		m.Fatalf("%s %+v: %v; the twin says: %v", c.CommandName(), c, err, want)
	}
	if err != nil {
		m.came["!"+c.CommandName()]++
		if next != before {
			m.Fatalf("%s %+v was refused, and gave another tree", c.CommandName(), c)
		}
		return
	}
	m.came[c.CommandName()]++
	m.count(c, files)
	if d := cmp.Diff(wantResult, got); d != "" {
		m.Fatalf("%s %+v (-twin, +tree):\n%s", c.CommandName(), c, d)
	}
}

// count notes what else histories must have; so many paths there were before.
func (m *machine) count(c Command, paths int) {
	switch c := c.(type) {
	case Publish:
		if c.Count > 0 {
			m.came["published with uploads"]++
		}
		if c.Count > 0 && len(m.twin.paths) < paths+c.Count {
			m.came["published in the place of others"]++
		}
	case CompleteFile:
		if len(m.twin.paths) == paths {
			m.came["overwritten, sealed or completed twice"]++
		}
	}
}

// sentinel is the one error of package hdfs that an error wraps.
func sentinel(err error) error {
	for _, s := range []error{
		hdfs.ErrNotExist, hdfs.ErrExist, hdfs.ErrIsDir, hdfs.ErrNotDir, hdfs.ErrNotEmpty, hdfs.ErrBusy, hdfs.ErrChanged, hdfs.ErrLease, hdfs.ErrStale, hdfs.ErrInvalid,
	} {
		if errors.Is(err, s) {
			return s
		}
	}
	return err
}

func one[V any](m *machine, label string, of ...V) V { return rapid.SampledFrom(of).Draw(m.T, label) }

// rare is true once in n times.
func (m *machine) rare(n int, label string) bool {
	return rapid.IntRange(0, n-1).Draw(m.T, label) == n-1
}

func (m *machine) path() string {
	if m.rare(20, "odd path") {
		return one(m, "path", "/", "", "a", "/a/../b", "//a//x/", "/a\x00")
	}
	return one(m, "path", "/a", "/a/x", "/a/y", "/a/x/deep", "/b", "/b/x", "/a b", "/A", "/ä")
}

func (m *machine) lease() string { return one(m, "lease", "l1", "l1", "l2") }

// hidden draws a file that is being written or was sealed; sometimes another one.
func (m *machine) hidden() *twinFile {
	all := m.twin.hiddenByID()
	if len(all) == 0 || m.rare(15, "no such file") {
		return &twinFile{id: hdfs.FileID(rapid.IntRange(0, int(m.twin.file)+1).Draw(m.T, "id"))}
	}
	return one(m, "file", all...)
}

// holder is the lease of a file; sometimes another one.
func (m *machine) holder(f *twinFile) string {
	if f.Create.Lease == "" || m.rare(15, "another's") {
		return m.lease()
	}
	return f.Create.Lease
}

// lastOf is a file's last block at some size; sometimes with something wrong.
func (m *machine) lastOf(f *twinFile, size int64) *hdfs.Block {
	if f.last() == nil || m.rare(20, "no block") {
		return nil
	}
	b := *f.last()
	b.Size = size
	switch rapid.IntRange(0, 19).Draw(m.T, "wrong") {
	case 17:
		b.Stamp--
	case 18:
		b.Size = one(m, "size", -1, 0, chunk+1, 5)
	case 19:
		b = one(m, "block", f.blocks...)
	}
	return &b
}

func (m *machine) create() Command {
	c := CreateFile{Path: m.path(), Lease: m.lease(), BlockSize: chunk, Overwrite: rapid.Bool().Draw(m.T, "overwrite")}
	if m.rare(12, "odd") {
		c.Lease = one(m, "lease", "", "l1")
		c.Replication = one(m, "replication", 0, 1, 64, 65, -1)
		c.BlockSize = one(m, "blockSize", 0, chunk, 2*chunk, chunk+1, 1, 1<<62)
		c.Task = one(m, "task", "", "t")
	}
	return c
}

func (m *machine) upload() Command {
	return CreateFile{Path: m.path(), Lease: m.lease(), BlockSize: chunk, Group: one(m, "group", "g1", "g2", "g3"), Task: one(m, "task", "", "t")}
}

func (m *machine) addBlock() Command {
	f := m.hidden()
	return AddBlock{File: f.id, Lease: m.holder(f), Prev: m.lastOf(f, chunk)}
}

func (m *machine) restamp() Command {
	f := m.hidden()
	if b := m.lastOf(f, 0); b != nil {
		return Restamp{File: f.id, Lease: m.holder(f), Block: *b}
	}
	return Restamp{File: f.id, Lease: m.holder(f), Block: hdfs.Block{ID: 1, Stamp: 1}}
}

func (m *machine) complete() Command {
	f := m.hidden()
	if m.rare(10, "visible") {
		f = m.twin.paths[one(m, "one of", inOrder(slices.Collect(maps.Keys(m.twin.paths)))...)]
	}
	return CompleteFile{File: f.id, Lease: m.holder(f), Last: m.lastOf(f, one(m, "size", chunk, 1, 7)), At: t0}
}

func (m *machine) abandon() Command {
	f := m.hidden()
	return AbandonFile{File: f.id, Lease: m.holder(f)}
}

func (m *machine) expire() Command {
	return ExpireLeases{Leases: rapid.SliceOfN(rapid.SampledFrom([]string{"l1", "l2", "none"}), 0, 2).Draw(m.T, "leases")}
}

func (m *machine) mkdir() Command { return Mkdir{Path: m.path(), At: t0} }

func (m *machine) rename() Command {
	return Rename{From: m.path(), To: m.path(), At: t0, Request: one(m, "request", "", "", "r1", "r2")}
}

func (m *machine) remove() Command {
	c := Remove{Path: m.path(), Recursive: rapid.Bool().Draw(m.T, "recursive"), Request: one(m, "request", "", "", "", "q1")}
	if f := m.twin.paths[c.Path]; f != nil {
		c.File = one(m, "file", 0, f.id, f.id+1)
	}
	return c
}

func (m *machine) setReplication() Command {
	return SetReplication{Path: m.path(), Replication: one(m, "replication", 1, 2, 64, 0, 65)}
}

func (m *machine) publish() Command {
	c := Publish{Group: one(m, "group", "g1", "g2", "g3", ""), Prefix: one(m, "prefix", "/a", "/a", "/a/x", "/b", "/", "x"), Replace: rapid.Bool().Draw(m.T, "replace"), At: t0}
	if m.rare(2, "prepared") { // or nearly nothing would ever be published
		c.Prefix = "/a"
		for _, f := range m.twin.uploads(c.Group) {
			if !f.sealed || !inside(f.Create.Path, c.Prefix) {
				m.step(AbortUploads{Group: c.Group, Files: []hdfs.FileID{f.id}})
			}
		}
	}
	c.Count = len(m.twin.uploads(c.Group))
	if m.rare(10, "miscounted") {
		c.Count++
	}
	return c
}

func (m *machine) abort() Command {
	c := AbortUploads{Group: one(m, "group", "g1", "g2", "g3", "")}
	if rapid.Bool().Draw(m.T, "some") {
		c.Files = []hdfs.FileID{m.hidden().id}
	}
	return c
}

// again repeats a command, as one whose answer was lost.
func (m *machine) again() Command {
	if len(m.log) == 0 {
		return m.mkdir()
	}
	return m.log[max(0, len(m.log)-1-rapid.IntRange(0, 5).Draw(m.T, "back"))]
}

// replay: the log gives the same tree again, whole or from a snapshot in its midst.
func (m *machine) replay() {
	m.Helper()
	at := rapid.IntRange(0, len(m.log)).Draw(m.T, "snapshot after")
	tree := New()
	for i, c := range m.log {
		if i == at {
			tree = reload(m.T, tree)
		}
		tree, _, _ = tree.Apply(c)
	}
	if want, got := whole(m.tree), whole(tree); want != got {
		m.Fatalf("the log gives another tree, with a snapshot after %d of %d entries:\n%s", at, len(m.log), cmp.Diff(want, got))
	}
}

// whole is all that is in a tree, as its snapshot has it.
func whole(t *Tree) string {
	var all strings.Builder
	for piece := range t.Pieces() {
		fmt.Fprintf(&all, "%q\n", piece)
	}
	return all.String()
}

func reload(f failer, t *Tree) *Tree {
	f.Helper()
	var l Loader
	for piece := range t.Pieces() {
		if err := l.Add(piece); err != nil {
			f.Fatalf("load: %v", err)
		}
	}
	loaded, err := l.Tree()
	if err != nil {
		f.Fatalf("load: %v", err)
	}
	return loaded
}

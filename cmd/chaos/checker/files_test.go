package checker

import (
	"testing"

	"github.com/stretchr/testify/require"
)

var one, two = Version{"one", 1000}, Version{"two", 70_000}

func text(v Version) Outcome { return Outcome{Out: string(v.Bytes())} }

func failed(code int, said string) Outcome { return Outcome{Code: code, Said: said} }

// read is a whole reading, when nothing is going on.
func read(f *Files, o Outcome) { f.Read("p").End(o, false) }

func TestContentIsWorkedOutFromItsName(t *testing.T) {
	require.Len(t, two.Bytes(), 70_000)
	require.Equal(t, one.Bytes(), Version{"one", 1000}.Bytes())
	require.NotEqual(t, one.Bytes(), two.Bytes()[:1000])
	require.Empty(t, Version{"empty", 0}.Bytes())
}

// removed begins a removal, and gives what notes that it was acknowledged.
func removed(f *Files, path string) func(trash string) {
	acknowledged, _ := f.Remove(path)
	return acknowledged
}

// TestFiles: what a reader may meet, by what was asked for and answered before.
func TestFiles(t *testing.T) {
	away := failed(1, "b-1: no replica can be read")
	for name, c := range map[string]struct {
		do    func(f *Files)
		rules []string
	}{
		"what was acknowledged":     {func(f *Files) { f.Put("p", one)(); read(f, text(one)); read(f, away) }, nil},
		"an empty file":             {func(f *Files) { v := Version{"e", 0}; f.Put("p", v)(); read(f, text(v)) }, nil},
		"another content":           {func(f *Files) { f.Put("p", one)(); read(f, text(two)) }, []string{"a file reads as it was written"}},
		"a part, as if it were all": {func(f *Files) { f.Put("p", one)(); read(f, Outcome{Out: string(one.Bytes()[:5])}) }, []string{"a file reads as it was written"}},
		"a part, then an error": {func(f *Files) {
			f.Put("p", one)()
			read(f, Outcome{1, string(one.Bytes()[:5]), "no replica can be read"})
		}, nil},
		"wrong bytes, then an error":            {func(f *Files) { f.Put("p", one)(); read(f, Outcome{1, "xx", "no replica can be read"}) }, []string{"no wrong byte is ever read"}},
		"none, that was acknowledged":           {func(f *Files) { f.Put("p", one)(); read(f, failed(4, "")) }, []string{"what was acknowledged survives"}},
		"an error of another kind":              {func(f *Files) { f.Put("p", one)(); read(f, failed(1, "checksum does not match")) }, []string{"reads fail only as something is away"}},
		"an error when all is well":             {func(f *Files) { f.Put("p", one)(); f.Read("p").End(away, true) }, []string{"a file can be read when all is well"}},
		"whole or absent without an answer":     {func(f *Files) { f.Put("p", one); read(f, text(one)); read(f, failed(4, "")) }, nil},
		"old or new without an answer":          {func(f *Files) { f.Put("p", one)(); f.Put("p", two); read(f, text(one)); read(f, text(two)) }, nil},
		"the old one after the new":             {func(f *Files) { f.Put("p", one)(); f.Put("p", two)(); read(f, text(one)) }, []string{"a file reads as it was written"}},
		"the old one, begun before the new":     {func(f *Files) { f.Put("p", one)(); r := f.Read("p"); f.Put("p", two)(); r.End(text(one), false) }, nil},
		"one that goes while it is read":        {func(f *Files) { f.Put("p", one)(); r := f.Read("p"); removed(f, "p")(""); r.End(failed(4, ""), false) }, nil},
		"one that was removed":                  {func(f *Files) { f.Put("p", one)(); removed(f, "p")(""); read(f, text(one)) }, []string{"a file reads as it was written"}},
		"one that was never written":            {func(f *Files) { read(f, text(one)) }, []string{"a file reads as it was written"}},
		"one that lies in the trash":            {func(f *Files) { f.Put("q", one)(); removed(f, "q")("p"); read(f, text(one)) }, nil},
		"one that should lie in the trash":      {func(f *Files) { f.Put("q", one)(); removed(f, "q")("p"); read(f, failed(4, "")) }, []string{"what was acknowledged survives"}},
		"one that was moved here":               {func(f *Files) { f.Put("q", one)(); done, _ := f.Move("q", "p"); done(); read(f, text(one)) }, nil},
		"one that was moved here, but is not":   {func(f *Files) { f.Put("q", one)(); done, _ := f.Move("q", "p"); done(); read(f, failed(4, "")) }, []string{"what was acknowledged survives"}},
		"one that may have been moved here":     {func(f *Files) { f.Put("q", one)(); f.Move("q", "p"); read(f, text(one)); read(f, failed(4, "")) }, nil},
		"one that was moved away":               {func(f *Files) { f.Put("p", one)(); done, _ := f.Move("p", "q"); done(); read(f, text(one)) }, []string{"a file reads as it was written"}},
		"a client that had to be killed":        {func(f *Files) { f.Put("p", one)(); read(f, failed(-1, "")) }, nil},
		"a cluster that nobody answers for":     {func(f *Files) { f.Put("p", one)(); read(f, failed(3, "")) }, nil},
		"one that went, and is read in the end": {func(f *Files) { f.Put("p", one)(); f.Remove("p"); f.Read("p").End(failed(4, ""), true) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook()
			c.do(NewFiles(b))
			require.Equal(t, c.rules, rules(b))
		})
	}
}

// TestJudgeListing: which paths must be there in the end, and which must not.
func TestJudgeListing(t *testing.T) {
	for name, c := range map[string]struct {
		do     func(f *Files)
		listed []string
		rules  []string
	}{
		"what was acknowledged":         {func(f *Files) { f.Put("p", one)() }, []string{"p"}, nil},
		"what was lost":                 {func(f *Files) { f.Put("p", one)() }, nil, []string{"what was acknowledged survives"}},
		"what may be there":             {func(f *Files) { f.Put("p", one) }, []string{"p"}, nil},
		"what may be there, and is not": {func(f *Files) { f.Put("p", one) }, nil, nil},
		"what was removed":              {func(f *Files) { f.Put("p", one)(); removed(f, "p")("") }, []string{"p"}, []string{"what never was acknowledged whole, or was removed, stays away"}},
		"what may be in the trash":      {func(f *Files) { f.Put(root+"d/p", one)(); _, unknown := f.Remove(root + "d/p"); unknown() }, []string{root + ".trash/now/d/p"}, nil},
		"another path's in the trash":   {func(f *Files) { f.Put(root+"d/p", one)(); _, unknown := f.Remove(root + "d/p"); unknown() }, []string{root + ".trash/now/d/q"}, []string{"nothing is there that nobody wrote"}},
		"what nobody wrote":             {func(*Files) {}, []string{"p"}, []string{"nothing is there that nobody wrote"}},
		"a move that may have been":     {func(f *Files) { f.Put("p", one)(); _, unknown := f.Move("p", "q"); unknown() }, []string{"q"}, nil},
		"a move that was torn":          {func(f *Files) { f.Put("p", one)(); _, unknown := f.Move("p", "q"); unknown() }, nil, []string{"a move happens whole or not at all"}},
		"a move that copied":            {func(f *Files) { f.Put("p", one)(); _, unknown := f.Move("p", "q"); unknown() }, []string{"p", "q"}, []string{"a move happens whole or not at all"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook()
			f := NewFiles(b)
			c.do(f)
			listed := map[string]int64{}
			for _, p := range c.listed {
				listed[p] = 1000
			}
			f.JudgeListing(listed)
			require.Equal(t, c.rules, rules(b))
		})
	}
}

func TestLacking(t *testing.T) {
	files := []StoredFile{{Blocks: []StoredBlock{{"b-1", 7, []string{"i-1", "i-2"}}, {"b-2", 7, []string{"i-1", "i-2"}}, {"b-3", 7, []string{"i-1", "i-2"}}}}}
	require.Equal(t, []string{"b-2", "b-3"}, Lacking(files, []Replica{
		{"n1", "b-1", 7, false}, {"n2", "b-1", 7, false}, {"n1", "b-2", 7, false}, {"n1", "b-3", 7, false}, {"n2", "b-3", 7, true},
	}))
}

// TestJudgeBlocks: one thing that is wrong on the disks is said.
func TestJudgeBlocks(t *testing.T) {
	type stored = []StoredFile
	type disks = []Replica
	for name, c := range map[string]struct {
		spoil func(f stored, d disks) (stored, disks)
		says  string
	}{
		"nothing":               {func(f stored, d disks) (stored, disks) { return f, d }, ""},
		"a replica is missing":  {func(f stored, d disks) (stored, disks) { return f, d[1:] }, "p: b-1 lies on 1 disks, is said to lie on 2, shall on 2"},
		"one is unfinished":     {func(f stored, d disks) (stored, disks) { d[0].Unfinished = true; return f, d }, "n1 has an unfinished replica of b-1"},
		"one is too short":      {func(f stored, d disks) (stored, disks) { d[0].Size--; return f, d }, "p: b-1 has 6 bytes on n1, and shall have 7"},
		"both are on one node":  {func(f stored, d disks) (stored, disks) { d[1].Node = "n1"; return f, d }, "p: b-1 lies twice on a node"},
		"nobody has it":         {func(f stored, d disks) (stored, disks) { return nil, d }, "n1 has a replica of b-1, which no file has"},
		"a file without a part": {func(f stored, d disks) (stored, disks) { f[0].Size = 9; return f, d }, "p has 9 bytes, its blocks 7"},
	} {
		t.Run(name, func(t *testing.T) {
			f := StoredFile{Path: "p", Size: 7, Replication: 2, Blocks: []StoredBlock{{"b-1", 7, []string{"i-1", "i-2"}}}}
			wrong := JudgeBlocks(c.spoil(stored{f}, disks{{"n1", "b-1", 7, false}, {"n2", "b-1", 7, false}}))
			if c.says == "" {
				require.Empty(t, wrong)
				return
			}
			require.Contains(t, wrong, c.says)
		})
	}
}

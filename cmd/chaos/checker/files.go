package checker

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
)

// Version is what a file may hold: a content of its own name and size in bytes. The zero value is no file at all.
type Version struct {
	Content string
	Size    int
}

func (v Version) String() string {
	if v == (Version{}) {
		return "nothing"
	}
	return fmt.Sprintf("%s of %d bytes", v.Content, v.Size)
}

// Bytes are the version's: anybody can work them out.
func (v Version) Bytes() []byte {
	out := make([]byte, v.Size)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(v.Content))).Read(out) // it never fails
	return out
}

// Files keeps what each path of the block store may hold, by what was asked for and what was answered: between the two, and ever after a
// request without an answer, a path may hold either. One writer has a path at a time. It may be used from many goroutines.
type Files struct {
	book *Book

	mu    sync.Mutex
	at    map[string]*file
	torn  [][2]string                 // moves that nobody knows of whether they were done: the file is at one of both places
	maybe map[string]map[Version]bool // what may lie in the trash, by the path it had: nobody knows of whether it was removed
	reads int
}

// file is one path.
type file struct {
	may      map[Version]bool
	readings map[*Reading]bool // under way: they may meet whatever it may hold meanwhile
}

// NewFiles makes empty ones; what is wrong goes into the book.
func NewFiles(b *Book) *Files {
	return &Files{book: b, at: map[string]*file{}, maybe: map[string]map[Version]bool{}}
}

func (f *Files) of(path string) *file {
	if f.at[path] == nil {
		f.at[path] = &file{may: map[Version]bool{{}: true}, readings: map[*Reading]bool{}}
		if rest, ok := strings.CutPrefix(path, root+".trash/"); ok {
			_, was, _ := strings.Cut(rest, "/") // the time of the removal, and the path
			f.at[path].widen(f.maybe[root+was])
		}
	}
	return f.at[path]
}

func (p *file) widen(versions map[Version]bool) {
	maps.Copy(p.may, versions)
	for r := range p.readings {
		maps.Copy(r.may, versions)
	}
}

func (p *file) narrow(v Version) {
	p.widen(map[Version]bool{v: true})
	p.may = map[Version]bool{v: true}
}

var nothing = map[Version]bool{{}: true}

// Put notes that a file is about to be written, and gives what notes that this was acknowledged. Without that it is whole, or not there.
func (f *Files) Put(path string, v Version) (acknowledged func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.of(path).widen(map[Version]bool{v: true})
	return f.answer(func() { f.of(path).narrow(v) })
}

// Remove does so for a removal; in the trash, "" if it goes for good, is where it lies then. Unknown notes that no answer came from one
// that may have brought it there.
func (f *Files) Remove(path string) (acknowledged func(trash string), unknown func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := maps.Clone(f.of(path).may)
	f.of(path).widen(nothing)
	acknowledged = func(trash string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.of(path).narrow(Version{})
		if trash != "" {
			f.moved(trash, was)
		}
	}
	return acknowledged, f.answer(func() { f.maybe[path] = was })
}

// Move does so for a move to a path where nothing is; unknown notes that no answer came.
func (f *Files) Move(from, to string) (acknowledged, unknown func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := maps.Clone(f.of(from).may)
	f.of(from).widen(nothing)
	f.of(to).widen(was)
	acknowledged = f.answer(func() {
		f.of(from).narrow(Version{})
		f.moved(to, was)
	})
	return acknowledged, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.torn = append(f.torn, [2]string{from, to})
	}
}

// moved notes that a path holds one of these.
func (f *Files) moved(path string, versions map[Version]bool) {
	p := f.of(path)
	p.widen(versions)
	p.may = maps.Clone(versions)
	delete(p.may, Version{})
}

func (f *Files) answer(do func()) func() {
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		do()
	}
}

// Paths are all that were ever named.
func (f *Files) Paths() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.at))
}

// Reads is how many files were read.
func (f *Files) Reads() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reads
}

// Reading is one reading of a file.
type Reading struct {
	f    *Files
	path string
	may  map[Version]bool
}

// Read begins to read a file.
func (f *Files) Read(path string) *Reading {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &Reading{f, path, maps.Clone(f.of(path).may)}
	f.of(path).readings[r] = true
	return r
}

// Outcome is how a command ended.
type Outcome struct {
	Code      int // -1: it did not end by itself
	Out, Said string
}

// unavailable are the words of the errors with which a file may fail to be read or written while faults are on.
var unavailable = []string{"no replica can be read", "not available now", "no core node can take the block"}

// Unavailable says whether a command failed as it may while faults are on.
func (o Outcome) Unavailable() bool {
	return o.Code < 0 || o.Code == 3 || slices.ContainsFunc(unavailable, func(words string) bool { return strings.Contains(o.Said, words) })
}

// End judges what came of the reading. With calm no fault was on: then it must not fail.
func (r *Reading) End(o Outcome, calm bool) {
	r.f.mu.Lock()
	delete(r.f.of(r.path).readings, r)
	r.f.reads++
	r.f.mu.Unlock()
	say := func(rule, format string, args ...any) { r.f.book.Note(r.path, rule, format, args...) }
	whole, begun := r.compare([]byte(o.Out))
	got := fmt.Sprintf("%d bytes (%x)", len(o.Out), sha256.Sum256([]byte(o.Out)))
	switch {
	case o.Code == 0 && !whole:
		say("a file reads as it was written", "%s, it may hold %s", got, list(r.may))
	case o.Code == 0:
	case !begun:
		say("no wrong byte is ever read", "%s before exit code %d, it may hold %s: %s", got, o.Code, list(r.may), o.Said)
	case o.Code == 4 && len(r.may) == 1 && !r.may[Version{}]:
		say("what was acknowledged survives", "exit code 4, it holds %s: %s", list(r.may), o.Said)
	case o.Code == 4:
	case calm:
		say("a file can be read when all is well", "exit code %d: %s", o.Code, o.Said)
	case !o.Unavailable():
		say("reads fail only as something is away", "exit code %d: %s", o.Code, o.Said)
	}
}

// compare says whether the bytes are one of the versions, and whether they are the beginning of one.
func (r *Reading) compare(out []byte) (whole, begun bool) {
	begun = len(out) == 0
	for v := range r.may {
		if v != (Version{}) {
			is := v.Bytes()
			whole, begun = whole || bytes.Equal(is, out), begun || bytes.HasPrefix(is, out)
		}
	}
	return whole, begun
}

// list names versions.
func list(may map[Version]bool) string {
	var all []string
	for v := range may {
		all = append(all, v.String())
	}
	slices.Sort(all)
	return strings.Join(all, " or ")
}

// JudgeListing holds a listing of all files, path by size, against what must be there when nothing is going on.
func (f *Files) JudgeListing(listed map[string]int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	note := f.book.Note
	for path := range listed {
		if p := f.at[path]; p == nil && len(f.of(path).may) == 1 {
			note(path, "nothing is there that nobody wrote", "it is listed with %d bytes", listed[path])
		} else if maps.Equal(f.at[path].may, nothing) {
			note(path, "what never was acknowledged whole, or was removed, stays away", "it is listed with %d bytes", listed[path])
		}
	}
	for path, p := range f.at {
		if _, there := listed[path]; !there && !p.may[Version{}] {
			note(path, "what was acknowledged survives", "it is not listed, and holds %s", list(p.may))
		}
	}
	for _, t := range f.torn {
		_, from := listed[t[0]]
		_, to := listed[t[1]]
		if from == to {
			note(t[0], "a move happens whole or not at all", "it is at both places, or at none (%v): the other is %s", from, t[1])
		}
	}
}

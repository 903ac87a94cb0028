package workload

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"millrace/cmd/chaos/checker"
)

// The folders in the block store.
const (
	FilesRoot   = "hdfs:///chaos/"      // of those who write and read files
	FilesOfJobs = "hdfs:///chaos-jobs/" // of inputs and outputs of jobs
)

// Deed is what a Change does.
type Deed string

// Deeds.
const (
	Put       Deed = "put"
	PutKilled Deed = "put that is killed" // with half of the content given: it must never show
	Move      Deed = "move"
	Trash     Deed = "remove"
	Remove    Deed = "remove for good"
	SetRep    Deed = "set replication"
)

// Change is one change of a file.
type Change struct {
	Deed    Deed
	Path    string          // a URL
	To      string          // of Move
	Version checker.Version // of Put and PutKilled: the content
	Args    []string        // of `millrace`; standard input is the content
}

// FileLane is one series of changes, of files that no other series has. One goroutine uses it.
type FileLane struct {
	name string
	r    *rand.Rand
	n    int               // changes made
	have []checker.Version // by place in paths
	path []string          // of the files that are there for certain
}

// FileLane makes a series; number tells it from the others.
func (w *Workload) FileLane(number int) *FileLane {
	return &FileLane{name: fmt.Sprintf("w%d", number), r: rand.New(rand.NewPCG(w.seed, uint64(1000+number)))}
}

const (
	filesKept  = 12      // about as many files does a lane have
	trashUpTo  = 200_000 // bytes of files that go to the trash, where they stay
	fileUpTo   = 3 << 20
	fewerBytes = 70_000
)

// Next is the series' next change. Done tells it what became of that, before the one after.
func (l *FileLane) Next() Change {
	l.n++
	deed := []Deed{Put, Put, Put, Put, PutKilled, Move, Move, Remove, Remove, SetRep}[l.r.IntN(10)]
	if len(l.path) == 0 && deed != PutKilled {
		deed = Put
	}
	if len(l.path) >= filesKept && deed == Put {
		deed = Remove
	}
	fresh := fmt.Sprintf("%s%s/d%d/f%04d", FilesRoot, l.name, l.n%5, l.n)
	switch deed {
	case Put, PutKilled:
		c := Change{Deed: deed, Path: fresh, Version: checker.Version{Content: fmt.Sprintf("%s %d", l.name, l.n), Size: l.size()}}
		if deed == PutKilled {
			c.Version.Size = max(c.Version.Size, 1<<20)
		} else if len(l.path) > 0 && l.r.IntN(4) == 0 {
			c.Path = l.path[l.r.IntN(len(l.path))] // over the one that is there
		}
		blocks := []string{"64KiB", "256KiB", "1MiB", "4MiB"}[l.r.IntN(4)]
		c.Args = []string{"fs", "put", "-", c.Path, "--replication", fmt.Sprint(2 + min(1, l.r.IntN(4))), "--block-size", blocks}
		return c
	}
	i := l.r.IntN(len(l.path))
	c := Change{Deed: deed, Path: l.path[i]}
	switch deed {
	case Move:
		c.To = fresh
		c.Args = []string{"fs", "mv", c.Path, c.To}
	case SetRep:
		c.Args = []string{"fs", "setrep", fmt.Sprint(2 + l.r.IntN(2)), c.Path}
	case Remove:
		c.Args = []string{"fs", "rm", "--skip-trash", c.Path}
		if l.have[i].Size <= trashUpTo && l.r.IntN(2) == 0 {
			c.Deed, c.Args = Trash, []string{"fs", "rm", c.Path}
		}
	}
	return c
}

// size is a file's: often small, often about a whole number of chunks.
func (l *FileLane) size() int {
	const chunk = 64 << 10
	switch l.r.IntN(6) {
	case 0:
		return l.r.IntN(3)
	case 1:
		return chunk*(1+l.r.IntN(8)) + l.r.IntN(3) - 1
	case 2, 3:
		return l.r.IntN(fewerBytes)
	}
	return l.r.IntN(fileUpTo)
}

// Done tells what became of a change: acknowledged, or not known, or known not to have happened. What is not known to be there is left alone.
func (l *FileLane) Done(c Change, acknowledged, happenedNot bool) {
	if happenedNot {
		return
	}
	i := slices.Index(l.path, c.Path)
	var was checker.Version
	if i >= 0 && c.Deed != SetRep {
		was = l.have[i]
		l.path, l.have = slices.Delete(l.path, i, i+1), slices.Delete(l.have, i, i+1)
	}
	switch {
	case !acknowledged:
	case c.Deed == Put:
		l.path, l.have = append(l.path, c.Path), append(l.have, c.Version)
	case c.Deed == Move:
		l.path, l.have = append(l.path, c.To), append(l.have, was)
	}
}

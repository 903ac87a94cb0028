package site

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Replica is what lies on a core node's disk of a block.
type Replica struct {
	Node, Block string
	Stamp       string
	Size        int64 // bytes of its data
	Unfinished  bool

	path string // of its folder
}

// Replicas are all on the disks.
func (s *Site) Replicas() ([]Replica, error) {
	var all []Replica
	for _, n := range s.nodes {
		if n.role != "core" {
			continue
		}
		for _, where := range []string{"blocks/*", "writing"} {
			found, err := filepath.Glob(filepath.Join(n.data(), blocksDir, where, "b-*"))
			if err != nil {
				return nil, err
			}
			for _, path := range found {
				block, stamp, _ := strings.Cut(filepath.Base(path), ".")
				r := Replica{Node: n.name, Block: block, Stamp: stamp, Unfinished: where == "writing", path: path}
				if info, err := os.Stat(filepath.Join(path, "data")); err == nil {
					r.Size = info.Size()
				}
				all = append(all, r)
			}
		}
	}
	return all, nil
}

// spoilt is a replica that was damaged: while its folder holds the same, nobody has replaced it.
type spoilt struct {
	node, block string
	dir         string
	was         [2]os.FileInfo // its files since; nil: removed
}

var replicaFiles = [2]string{"data", "sums"}

func look(dir string) (files [2]os.FileInfo) {
	for i, name := range replicaFiles {
		files[i], _ = os.Stat(filepath.Join(dir, name)) // nil: it is not there
	}
	return files
}

// stands says whether the replica is still what the damage made it.
func (d spoilt) stands() bool {
	if _, err := os.Stat(d.dir); err != nil {
		return false
	}
	now := look(d.dir)
	for i := range now {
		if (now[i] == nil) != (d.was[i] == nil) || now[i] != nil && (!os.SameFile(now[i], d.was[i]) || now[i].Size() != d.was[i].Size()) {
			return false
		}
	}
	return true
}

// Spoilt names the blocks that have a damaged replica on a disk.
func (s *Site) Spoilt() (blocks []string) {
	s.blocks.Lock()
	defer s.blocks.Unlock()
	for _, d := range s.stillSpoilt() {
		blocks = append(blocks, d.block)
	}
	slices.Sort(blocks)
	return slices.Compact(blocks)
}

func (s *Site) stillSpoilt() []spoilt {
	s.spoilt = slices.DeleteFunc(s.spoilt, func(d spoilt) bool { return !d.stands() })
	return s.spoilt
}

// spares says whether, without a node's replica, a whole one with the same stamp and size lies on another node's disk.
func (s *Site) spares(all []Replica, r Replica) bool {
	return slices.ContainsFunc(all, func(o Replica) bool {
		return o.Node != r.Node && o.Block == r.Block && o.Stamp == r.Stamp && o.Size == r.Size && !o.Unfinished &&
			!slices.ContainsFunc(s.spoilt, func(d spoilt) bool { return d.dir == o.path }) && look(o.path)[1] != nil
	})
}

// damageBlocks spoils a few replicas on a node: never one that nobody else has whole.
func (s *Site) damageBlocks(n *node, roll uint64) (what string, err error) {
	s.blocks.Lock()
	defer s.blocks.Unlock()
	s.stillSpoilt()
	all, err := s.Replicas()
	if err != nil {
		return "", err
	}
	mine := slices.DeleteFunc(slices.Clone(all), func(r Replica) bool { return r.Node != n.name || r.Unfinished || !s.spares(all, r) })
	r := rand.New(rand.NewPCG(roll, 0))
	r.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
	for _, one := range mine[:min(len(mine), 1+r.IntN(4))] {
		how, err := spoilReplica(one.path, r)
		if errors.Is(err, os.ErrNotExist) {
			continue // it was deleted meanwhile
		}
		if err != nil {
			return "", fmt.Errorf("damage %s: %w", one.path, err)
		}
		s.spoilt = append(s.spoilt, spoilt{n.name, one.Block, one.path, look(one.path)})
		what += fmt.Sprintf(", %s %s", filepath.Base(one.path), how)
	}
	if what == "" {
		return "", fmt.Errorf("%w: %s has no replica of which there is another", ErrNothing, n.name)
	}
	return what, nil
}

// spoilReplica spoils one of a replica's files, mostly its data, or removes both.
func spoilReplica(dir string, r *rand.Rand) (string, error) {
	if r.IntN(6) == 0 {
		return "removed", os.RemoveAll(dir)
	}
	file := replicaFiles[r.IntN(8)/7]
	how, err := spoil(filepath.Join(dir, file), r)
	return file + " " + how, err
}

// blocksDir is where a core node's blocks lie, in its folder.
const blocksDir = "blocks"

// wipeSafely removes a node's folder, or one in it. Where blocks are in that it does so while the node stands still, and only if each
// that it has lies whole on another node, too; healing starts the node again, as whoever has replaced a disk would.
func (s *Site) wipeSafely(n *node, folder string) (heal func() error, what string, err error) {
	if n.role != "core" || folder != "" && folder != blocksDir {
		what, err = n.wipe(folder)
		return done, what, err
	}
	s.blocks.Lock()
	defer s.blocks.Unlock()
	n.signal(syscall.SIGSTOP)
	defer n.signal(syscall.SIGCONT)
	s.stillSpoilt()
	all, err := s.Replicas()
	if err != nil {
		return nil, "", err
	}
	for _, r := range all {
		if r.Node == n.name && !r.Unfinished && !s.spares(all, r) {
			return nil, "", fmt.Errorf("%w: %s alone has %s whole", ErrNothing, n.name, r.Block)
		}
	}
	what, err = n.wipe(folder)
	return func() error { n.signal(syscall.SIGTERM); return nil }, what, err
}

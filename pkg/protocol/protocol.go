// Package protocol owns the numbers by which binaries of different versions know whether they understand
// each other, and what is said when they do not. What the numbers stand for is written down where the messages are:
// pkg/api, master/fsm, master/state.
package protocol

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Version is what this binary speaks: with masters, workers and people's tools, and in the log and its snapshots.
// Raise it by one when a binary of the number before would misread, or miss, something that this one may say
// or write: a new command or a new field of one (fsm.needs says from which number on it may be logged), a record's field in a
// snapshot, a message that must not be ignored. A field or message that old readers may ignore does not need it.
//
//	1  everything before masters and workers said what they speak
//	2  RaiseSite; Site.Protocol, Node.Protocol; RetireJobs, ForgetJobs, jobs of the history in snapshots
//	3  the commands of hdfs/namespace, and name spaces in snapshots; DrainNode, Node.DrainBy, RemoveNode.Shrink
//	4  clusters that come and go: CreateCluster, ResizeCluster, SetTarget, SetCluster, TerminateCluster, EndCluster, SuspendGroup, AddEvents;
//	   AssignNode, LeaveNode, ReleaseNode, FindNode, NoteBootstrap, PutLaunch, DropLaunch, nodes of a pool; CreateUser, PutLoginCode, RemoveUser, LoginUser;
//	   SetSite, PutCA; DrainNode.Bye; the fields of records that these change
const Version = 4

// Oldest is the oldest that this binary serves, reads and can lead a site in. Raise it when what is only
// there for older ones is taken out. Somebody who upgrades from below it has to go by way of a version in between.
const Oldest = 1

// Attempt and OldestAttempt are the same for the attempt protocol, between a worker and the programs it runs. They are
// numbers of their own, as programs are built once and run for years. Raise Attempt when a program built with the SDK of before
// would misread what a worker says, or the other way round.
//
//	1  leases, segments, results
//	2  a child reaches clusters' files by ChildLease.files_socket: buckets that begin with hdfs://
const (
	Attempt       = 2
	OldestAttempt = 1
)

// pretend is "VERSION OLDEST": set by the linker, in tests of what happens between versions that are not there yet.
var pretend string

// Header carries who speaks, in requests and answers.
const Header = "Millrace-Protocol"

// Speaker is a binary as it introduces itself.
type Speaker struct {
	Name   string // for people: millrace-worker/v1.2.3
	Speaks int
	Oldest int // that it serves
}

// Own is this binary, under a name.
func Own(name string) Speaker {
	s := Speaker{name, Version, Oldest}
	if speaks, oldest, ok := strings.Cut(pretend, " "); ok {
		s.Speaks, s.Oldest = number(speaks), number(oldest)
	}
	return s
}

// Silent is somebody who says nothing: of a version from before that was done.
func Silent(name string) Speaker { return Speaker{name, 1, 1} }

// ErrNewer says that something was written by a newer version.
var ErrNewer = errors.New("written by a newer millrace")

// Readable is nil if this binary reads what is written in a protocol, else ErrNewer with what it takes.
func Readable(what string, written int) error {
	if own := Own("").Speaks; written > own {
		return fmt.Errorf("%s: %w: it takes one that speaks protocol %d, and this one speaks up to %d", what, ErrNewer, written, own)
	}
	return nil
}

// String is the header's value.
func (s Speaker) String() string { return fmt.Sprintf("%d %d %s", s.Speaks, s.Oldest, s.Name) }

// Parse reads a header's value; one that is missing or malformed is Silent, by the name given.
func Parse(value, name string) Speaker {
	f := strings.SplitN(value, " ", 3)
	if len(f) < 3 || number(f[0]) < 1 || number(f[1]) < 1 {
		return Silent(name)
	}
	return Speaker{f[2], number(f[0]), number(f[1])}
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

// Skew says that two binaries cannot work together, as the newer one does not serve what the older one speaks.
type Skew struct{ Old, New Speaker }

// Meet is nil if two binaries can work together, else a *Skew.
func Meet(a, b Speaker) error {
	switch {
	case a.Speaks < b.Oldest:
		return &Skew{Old: a, New: b}
	case b.Speaks < a.Oldest:
		return &Skew{Old: b, New: a}
	}
	return nil
}

func (s *Skew) Error() string {
	return fmt.Sprintf("%s speaks protocol %d, and %s serves %s: they cannot work together", s.Old.Name, s.Old.Speaks, s.New.Name, s.New.serves())
}

// serves is the range that a speaker serves, in words.
func (s Speaker) serves() string {
	if s.Oldest == s.Speaks {
		return fmt.Sprintf("protocol %d alone", s.Speaks)
	}
	return fmt.Sprintf("protocols %d to %d", s.Oldest, s.Speaks)
}

// Next says what mends it.
func (s *Skew) Next() string {
	return fmt.Sprintf("upgrade %s to the version of %s (masters first, then workers, then what people use)", s.Old.Name, s.New.Name)
}

// Joins is nil if a master can be one of a site that uses a protocol: it must read what the log may hold, and
// write nothing that the others cannot read. The site's name is for people.
func (s Speaker) Joins(site string, uses int) error {
	uses = max(uses, 1)
	switch other := (Speaker{site, uses, uses}); {
	case s.Speaks < uses:
		return &Skew{Old: s, New: other}
	case uses < s.Oldest:
		return &Skew{Old: other, New: s}
	}
	return nil
}

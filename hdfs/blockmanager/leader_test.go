package blockmanager

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
)

func TestANewLeaderWaitsForTheNodesItExpects(t *testing.T) {
	s := newColdScene(t, "a", "b", "c")
	b := s.block(1, 3)
	s.up("a", b)
	s.up("b", b)
	s.up("d")
	s.pass(59 * time.Second)
	s.quiet("c may have it")
	require.False(t, s.Status().Complete)
	s.up("c", b)
	s.pass(5 * time.Minute)
	s.quiet("as it has")
	require.True(t, s.Status().Complete)
	require.Empty(t, s.Status().UnderReplicated)
}

func TestANewLeaderDoesNotWaitForEver(t *testing.T) {
	s := newColdScene(t, "a", "b", "c")
	b := s.block(1, 3)
	s.up("a", b)
	s.up("b", b)
	s.up("d")
	s.pass(59 * time.Second)
	s.quiet("")
	s.pass(5 * time.Second)
	require.Equal(t, []hdfs.BlockID{1}, s.copies())
}

func TestANewLeaderWithManyNodesMissingWaitsAsForNodesThatVanished(t *testing.T) {
	s := newColdScene(t, "a", "b", "c", "d")
	b := s.block(1, 3)
	s.up("a", b)
	s.up("b", b)
	s.pass(9 * time.Minute)
	s.quiet("")
	s.up("e")
	s.pass(2 * time.Minute)
	require.Contains(t, s.copies(), hdfs.BlockID(1))
}

func TestAReportThatDoesNotEndKeepsALeaderFromItsWorkForTenMinutesAtMost(t *testing.T) {
	s := newColdScene(t, "a", "b", "c")
	b := s.block(1, 3)
	s.up("a", b)
	s.up("b", b)
	s.NodeUp(member("c"))
	s.Report("c", []Replica{{Block: b}}, false)
	s.up("d")
	s.pass(10*time.Minute - time.Second)
	s.quiet("")
	s.pass(5 * time.Second)
	require.Equal(t, []hdfs.BlockID{1}, s.copies(), "what c has does not count")
	require.Equal(t, []string{"a", "b", "c"}, s.at(1), "though it may be read")
}

// A new leader has seen no pipeline. What it knows of a block that becomes final is that its nodes began it.
func TestABlockThatWasBegunUnderAnotherLeader(t *testing.T) {
	s := newColdScene(t, "a", "b", "c", "d")
	begun := hdfs.Block{ID: 1, Stamp: 1}
	s.log.blocks[1] = Block{Block: begun, Wanted: 3}
	for _, n := range []string{"a", "b", "c"} {
		s.NodeUp(member(n))
		s.Report(n, []Replica{{Block: begun, Unfinished: true}}, true)
	}
	s.up("d")
	s.tick()
	b := s.close(1)
	require.Equal(t, []string{"a", "b", "c"}, s.at(1), "all have acknowledged it")
	s.tick()
	require.Empty(t, s.Status().Missing)
	s.Received("a", b)
	s.pass(20 * time.Second)
	s.quiet("the others are about to say it")
	require.Equal(t, []string{"a"}, s.at(1), "who is certain comes before them")
	s.Received("b", b)
	s.pass(15 * time.Second)
	require.Equal(t, []hdfs.BlockID{1}, s.copies(), "one never said so")
}

func TestANewLeaderAllocatesAtOnce(t *testing.T) {
	s := newColdScene(t, "a", "b", "c")
	s.NodeUp(member("a"))
	s.log.blocks[1] = Block{Block: hdfs.Block{ID: 1, Stamp: 1}, Wanted: 3}
	got, err := s.Targets(Write{Block: 1, Size: blockSize, Count: 3})
	require.NoError(t, err)
	require.Equal(t, []hdfs.Node{member("a")}, got)
}

func TestANewSessionOfANodeIsTakenAtItsWord(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	b1, b2 := s.block(1, 2, "a", "b"), s.block(2, 2, "a", "b")
	s.up("a", b1)
	require.Equal(t, []string{"b"}, s.at(2), "it has that one no more")
	s.tick()
	require.Equal(t, []hdfs.BlockID{2}, s.copies())

	s.NodeUp(member("b"))
	s.Report("b", []Replica{{Block: b1}}, false)
	s.Received("b", b2)
	s.Deleted("b", b1)
	s.Report("b", nil, true)
	require.Equal(t, []string{"a"}, s.at(1), "deleted while the report came in")
	require.Contains(t, s.at(2), "b", "received while the report came in")
}

func TestReportsOfNodesThatAreNotUpAreIgnored(t *testing.T) {
	s := newScene(t, "a")
	b := s.block(1, 1)
	s.Report("x", []Replica{{Block: b}}, true)
	s.Received("x", b)
	s.Deleted("x", b)
	s.Disks("x", nil)
	s.NodeDown("x")
	require.Empty(t, s.at(1))
}

// When a disk fails nobody knows what went with it: all that is left is listed again, in the session that there is.
func TestANodeReportsInFullAgain(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	b1, b2, b3 := s.block(1, 2, "a", "b"), s.block(2, 2, "a", "b"), hdfs.Block{ID: 3, Stamp: 1, Size: blockSize}
	s.Report("a", []Replica{{Block: b1}}, false)
	require.Equal(t, []string{"a", "b"}, s.at(2), "it is not at its end")
	s.log.blocks[3] = Block{Block: b3, Wanted: 1, Final: true}
	s.Received("a", b3)
	s.Report("a", nil, true)
	require.Equal(t, []string{"a", "b"}, s.at(1))
	require.Equal(t, []string{"b"}, s.at(2), "it went with the disk")
	require.Equal(t, []string{"a"}, s.at(3), "it came while the list was made")
	s.tick()
	require.Equal(t, []hdfs.BlockID{b2.ID}, s.copies())
}

func TestAManagerIsCalledByMany(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	b := s.block(1, 3, "a", "b")
	var all sync.WaitGroup
	for _, f := range []func(){
		func() { s.Tick() },
		func() { s.Locate(1, "a", "") },
		func() { s.Received("c", b) },
		func() { s.Deleted("c", b) },
		func() { s.Bad(b, "b", "checksum") },
		func() { s.Accused(b, "b", "checksum") },
		func() { s.Verified("b", b) },
		func() { s.Status() },
		func() { s.DrainStatus("a") },
		func() { _, _ = s.CanDrain("a") },
		func() { s.Renew("node a", []string{"l"}); s.ExpiredLeases() },
		func() { _, _ = s.Targets(Write{Block: 2, Size: blockSize, Count: 2}) },
		func() { s.NodeDown("b"); s.up("b", b) },
	} {
		all.Go(func() {
			for range 100 {
				f()
			}
		})
	}
	all.Wait()
	require.Contains(t, s.at(1), "a")
}

func TestLeases(t *testing.T) {
	s := newScene(t)
	wait := func(d time.Duration) (expired []string) {
		for range int(d / time.Second) {
			s.tick()
			expired = s.ExpiredLeases()
		}
		return expired
	}
	s.log.leases = map[string]bool{"l1": true, "l2": true}
	require.Empty(t, wait(59*time.Second), "a new leader gives each a whole term")
	require.Equal(t, []string{"unheard-of"}, s.Renew("node a", []string{"l1", "unheard-of"}))
	require.Equal(t, []string{"l2"}, wait(5*time.Second))
	require.Equal(t, []string{"l2"}, s.Renew("node a", []string{"l2"}), "too late")
	require.Equal(t, []string{"l2"}, wait(time.Second), "until its end is logged")

	delete(s.log.leases, "l2")
	s.log.leases["l3"] = true
	require.Empty(t, s.Renew("node a", []string{"l3"}), "a lease may be renewed before it was ever listed")
	require.Empty(t, wait(20*time.Second))
	require.Equal(t, []string{"l1"}, wait(35*time.Second))
	delete(s.log.leases, "l1")
	s.clock = s.clock.Add(time.Hour)
	require.Empty(t, s.ExpiredLeases(), "a leader that was paused has not read the renewals yet")
	require.Equal(t, []string{"l3"}, wait(60*time.Second))
}

// Whoever finds a path being written learns by whom, and until when at most.
func TestTheWriterOfALease(t *testing.T) {
	s := newScene(t)
	s.log.leases["l"] = true
	s.tick()
	require.Equal(t, Writer{Heard: 2 * time.Second, Left: s.cfg.LeaseTerm}, s.Writer("l"), "a new leader has heard of nobody")
	s.ExpiredLeases()
	s.tick()
	require.Equal(t, Writer{Heard: 3 * time.Second, Left: s.cfg.LeaseTerm - time.Second}, s.Writer("l"))
	s.Renew("user ana", []string{"l"})
	for range 20 {
		s.tick()
		s.ExpiredLeases()
	}
	require.Equal(t, Writer{Who: "user ana", Heard: 20 * time.Second, Left: s.cfg.LeaseTerm - 20*time.Second}, s.Writer("l"))
}

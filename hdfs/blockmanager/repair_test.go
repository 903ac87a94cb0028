package blockmanager

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
)

func TestABlockThatLostAReplicaIsCopied(t *testing.T) {
	s := newScene(t, "a", "b", "c", "d")
	b := s.block(1, 3, "a", "b", "c")
	s.pass(5 * time.Second)
	s.quiet("nothing is lacking")

	s.NodeDown("a")
	s.pass(29 * time.Second)
	s.quiet("a node that is down may come back")
	require.Equal(t, []string{"b", "c"}, s.at(1), "but is not read from")
	require.Len(t, s.Status().UnderReplicated, 1)

	s.pass(5 * time.Second)
	require.Equal(t, []hdfs.BlockID{1}, s.copies())
	s.obey()
	require.Equal(t, []string{"b", "c", "d"}, s.at(1))
	require.Empty(t, s.Status().UnderReplicated)

	s.up("a", b)
	s.tick()
	require.Len(t, s.deletes(), 1, "when it comes back there is one too many")
	s.obey()
	require.Len(t, s.at(1), 3)
}

func TestANodeThatComesBackInTimeCostsNothing(t *testing.T) {
	s := newScene(t, "a", "b", "c", "d")
	b := s.block(1, 3, "a", "b", "c")
	s.NodeDown("a")
	s.pass(20 * time.Second)
	s.up("a", b)
	s.pass(2 * time.Minute)
	s.quiet("")
	require.Len(t, s.at(1), 3)
}

func TestTheMostEndangeredBlocksAreCopiedFirst(t *testing.T) {
	s := newScene(t, "a", "b", "c", "d", "e")
	s.Manager.cfg.Streams = 1
	s.block(1, 3, "a", "b")
	s.block(2, 4, "a", "b")
	s.block(3, 2, "a")
	s.block(4, 3, "a")
	var order []hdfs.BlockID
	for len(order) < 2 {
		s.tick()
		order = append(order, s.orders["a"].Copy[0].ID)
		s.obey()
	}
	require.Equal(t, []hdfs.BlockID{4, 3}, order, "one replica left; of those first the one that should have more")
}

func TestFewerNodesHoldFewerReplicasAndMoreAreMadeUp(t *testing.T) {
	s := newScene(t, "a", "b")
	s.block(1, 3, "a", "b")
	s.pass(30 * time.Second)
	s.quiet("there is no third node")
	st := s.Status()
	require.True(t, st.Complete)
	require.Empty(t, st.UnderReplicated, "it has as many as there can be")
	require.Equal(t, 2, st.Holders)

	s.up("c")
	s.tick()
	require.Equal(t, []hdfs.BlockID{1}, s.copies())
	s.obey()
	require.Equal(t, []string{"a", "b", "c"}, s.at(1))
	s.pass(5 * time.Second)
	require.Equal(t, 3, s.Status().Holders)
}

func TestWhenManyNodesVanishAtOnceTheyAreWaitedFor(t *testing.T) {
	s := newScene(t, "a", "b", "c", "d", "e")
	b := s.block(1, 3, "a", "b", "c")
	s.NodeDown("a")
	s.NodeDown("b")
	s.pass(9 * time.Minute)
	s.quiet("two of five are a power strip, not two dead disks")
	require.Equal(t, []string{"c"}, s.at(1))

	s.up("a", b)
	s.pass(5 * time.Second)
	require.Equal(t, []hdfs.BlockID{1}, s.copies(), "the one that is still away has been away for long enough")
}

func TestWhenManyNodesStayAwayTheyAreGivenUp(t *testing.T) {
	s := newScene(t, "a", "b", "c", "d", "e")
	s.block(1, 3, "a", "b", "c")
	s.NodeDown("a")
	s.NodeDown("b")
	s.pass(10*time.Minute - time.Second)
	s.quiet("")
	for len(s.at(1)) < 3 {
		s.tick()
		s.obey()
	}
	require.Equal(t, []string{"c", "d", "e"}, s.at(1))
}

func TestANodeThatLeftForGoodIsNotWaitedFor(t *testing.T) {
	s := newScene(t, "a", "b", "c", "d")
	s.block(1, 3, "a", "b", "c")
	s.NodeGone("a")
	s.NodeGone("a")
	s.tick()
	require.Equal(t, []hdfs.BlockID{1}, s.copies())
}

func TestDrainedNodesThatGoAreNoPowerFailure(t *testing.T) {
	s := newScene(t, "a", "b", "c", "d", "e", "f")
	s.block(1, 3, "c", "d", "e")
	s.Drain("a", true)
	s.Drain("b", true)
	s.NodeDown("a")
	s.NodeDown("b")
	s.NodeDown("c")
	s.pass(35 * time.Second)
	require.Equal(t, []hdfs.BlockID{1}, s.copies())
}

func TestACopyThatIsNotHeardOfIsOrderedElsewhere(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	s.block(1, 2, "a")
	s.tick()
	first := s.orders["a"].Copy[0].To.ID
	s.pass(59 * time.Second)
	s.quiet("it is waited for")
	s.pass(2 * time.Second)
	require.Len(t, s.copies(), 1)
	second := s.orders["a"].Copy[0].To.ID
	require.NotEqual(t, first, second)

	s.CopyFailed(s.log.blocks[1].Block, second, "disk full")
	s.tick()
	s.quiet("both have failed just now")
	s.pass(restFor)
	require.Len(t, s.copies(), 1, "one is tried again")
	require.EqualValues(t, 2, s.Counters().CopiesFailed)
}

func TestCopiesAreBoundedPerNode(t *testing.T) {
	s := newScene(t, "a", "b", "c", "d", "e", "f")
	for id := range hdfs.BlockID(20) {
		s.block(id+1, 2, "a")
	}
	s.tick()
	require.Len(t, s.orders["a"].Copy, 10, "ten at once from one node")
	require.Empty(t, s.MoreCopies())
	s.obey()
	s.orders = s.MoreCopies()
	require.Len(t, s.orders["a"].Copy, 10, "the others as soon as it is free for them")
	s.obey()
	require.Empty(t, s.MoreCopies(), "nothing is left to do")
	require.Empty(t, s.Status().UnderReplicated)
}

func TestLargeBlocksAreCopiedTwoAtOnce(t *testing.T) {
	s := newScene(t, "a", "b", "c", "d", "e", "f")
	for id := range hdfs.BlockID(20) {
		b := hdfs.Block{ID: id + 1, Stamp: 1, Size: hdfs.DefaultBlockSize}
		if id == 0 {
			b.Size = 1
		}
		s.log.blocks[b.ID] = Block{Block: b, Wanted: 2, Final: true}
		s.Received("a", b)
	}
	s.tick()
	require.Len(t, s.orders["a"].Copy, 3, "and a small one before")
	s.Received(s.orders["a"].Copy[0].To.ID, s.orders["a"].Copy[0].Block)
	require.Empty(t, s.MoreCopies())
	s.Received(s.orders["a"].Copy[1].To.ID, s.orders["a"].Copy[1].Block)
	require.Len(t, s.MoreCopies()["a"].Copy, 1)
}

func TestCopiesToANodeAreBounded(t *testing.T) {
	s := newScene(t, "a", "b", "c", "d", "e")
	for id := range hdfs.BlockID(14) {
		s.block(id+1, 5, "a", "b", "c", "d")
	}
	s.tick()
	require.Len(t, s.copies(), 10, "ten at once to one node")
}

func TestCopiesKeepToTheRate(t *testing.T) {
	s := newScene(t, "a", "b", "c", "d", "e", "f")
	s.Manager.cfg.Rate = blockSize / 2
	for id := range hdfs.BlockID(20) {
		s.block(id+1, 2, "a")
	}
	bytes := int64(0)
	for range 20 {
		s.tick()
		for _, o := range s.orders {
			for _, c := range o.Copy {
				bytes += c.Size
				require.Equal(t, int64(blockSize/2), c.Rate, "one at a time has all of it")
			}
		}
		s.obey()
	}
	require.InDelta(t, 20*blockSize/2, bytes, blockSize)
}

func TestABlockThatNoNodeCanTakeWaitsAndSaysSo(t *testing.T) {
	s := newScene(t, "a", "b")
	s.Disks("b", []Disk{{Dir: "/d", Capacity: 10 * blockSize, Free: blockSize - 1}})
	s.block(1, 2, "a")
	s.pass(15 * time.Second)
	s.quiet("")
	require.Equal(t, []Concern{{Block: 1, File: 1001, Size: blockSize, Wanted: 2, Good: 1, Why: "no other core node can take it"}}, s.Status().UnderReplicated)

	s.Disks("b", []Disk{{Dir: "/d", Capacity: 10 * blockSize, Free: blockSize - 1}, {Dir: "/e", Capacity: blockSize, Free: blockSize}})
	s.pass(15 * time.Second)
	require.Len(t, s.copies(), 1, "there is another disk")
}

func TestRoomIsPromisedOnce(t *testing.T) {
	s := newScene(t, "a", "b")
	s.Disks("b", []Disk{{Dir: "/d", Capacity: 10 * blockSize, Free: 3*blockSize - 1}})
	for id := range hdfs.BlockID(4) {
		s.block(id+1, 2, "a")
	}
	s.log.blocks[99] = Block{Block: hdfs.Block{ID: 99, Stamp: 1}, Wanted: 1}
	_, err := s.Targets(Write{Block: 99, Size: blockSize, Count: 1, Writer: "b"})
	require.NoError(t, err)
	s.tick()
	require.Len(t, s.copies(), 1, "one is promised to the writer, and the rest is less than a block")
}

func TestReplicasAllOnOneRackAreSpread(t *testing.T) {
	s := newScene(t, "r1/a", "r1/b", "r1/c", "r2/d")
	s.block(1, 3, "r1/a", "r1/b", "r1/c")
	s.pass(30 * time.Second)
	require.Equal(t, []hdfs.BlockID{1}, s.copies())
	s.obey()
	s.tick()
	require.Len(t, s.deletes(), 1)
	s.obey()
	require.Contains(t, s.at(1), "r2/d")
	require.Len(t, s.at(1), 3)
	s.pass(time.Minute)
	s.quiet("and there it stays")
}

func TestABlockOfManyReplicas(t *testing.T) {
	s := newScene(t)
	var on []string
	for i := range 12 {
		on = append(on, fmt.Sprint("n", i))
		s.up(on[i])
	}
	s.block(1, 10, on...)
	s.tick()
	require.Len(t, s.deletes(), 2)
	s.obey()
	require.Len(t, s.at(1), 10)
	s.log.blocks[1] = Block{Block: s.log.blocks[1].Block, Wanted: 2, Final: true}
	s.ReplicationChanged([]hdfs.BlockID{1})
	s.tick()
	s.obey()
	require.Len(t, s.at(1), 2)
}

// A leader that has not seen a block's pipeline hears that it is final before the nodes have said that it is whole: what they
// said of it before is no reason to delete it. What stays unfinished is.
func TestAReplicaThatWasUnfinishedIsNotDeletedForIt(t *testing.T) {
	s := newColdScene(t, "a", "b", "c")
	s.log.blocks[7] = Block{Block: hdfs.Block{ID: 7, Stamp: 1}, File: 7, Wanted: 3}
	for _, n := range []string{"a", "b", "c"} {
		s.NodeUp(member(n))
		s.Report(n, []Replica{{Block: hdfs.Block{ID: 7, Stamp: 1}, Unfinished: true}}, true)
	}
	s.tick()
	whole := s.block(7, 3, "a")
	s.tick()
	s.quiet("the others are about to speak")
	s.Received("b", whole)
	s.pass(10 * time.Second)
	require.Empty(t, s.deletes())
	require.Equal(t, []string{"a", "b"}, s.at(7))
	s.pass(s.cfg.DownWait)
	require.Equal(t, []string{"c:" + hdfs.Block{ID: 7, Stamp: 1}.String()}, s.deletes(), "c has had its time")
}

// A block is missing as soon as no node that is up has it, and is not when one comes back.
func TestABlockIsMissingAsSoonAsItsLastNodeIsDown(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	one, two := s.block(1, 1, "a"), s.block(2, 2, "a", "b")
	s.tick()
	s.NodeDown("a")
	s.tick()
	st := s.Status()
	require.Equal(t, []Concern{{Block: 1, File: 1001, Size: blockSize, Wanted: 1, Why: "it is on what is down: node a"}}, st.Missing)
	require.Len(t, st.UnderReplicated, 1, "the other one has a replica left")
	alone, err := s.Alone("b")
	require.NoError(t, err)
	require.Len(t, alone, 1, "without b the second one is lost, and the first may come back with a")

	s.up("a", one, two)
	s.tick()
	require.Empty(t, s.Status().Missing)

	s.Bad(one, "a", "flipped")
	s.tick()
	require.Len(t, s.Status().Corrupt, 1)
	require.Empty(t, s.Status().Missing)
	s.NodeDown("a")
	s.pass(s.cfg.DownWait + 2*time.Second)
	require.Len(t, s.Status().Missing, 1, "and none at all")
	require.Empty(t, s.Status().Missing[0].Why, "nobody who is known has it")
}

// One that has just been written is not missing though none of its nodes has spoken of it yet.
func TestABlockThatIsNewIsNotMissing(t *testing.T) {
	s := newScene(t, "a", "b")
	s.log.blocks[1] = Block{Block: hdfs.Block{ID: 1, Stamp: 1}, Wanted: 2}
	_, err := s.Targets(Write{Block: 1, Size: blockSize, Count: 2})
	require.NoError(t, err)
	s.log.blocks[1] = Block{Block: hdfs.Block{ID: 1, Stamp: 1, Size: blockSize}, Wanted: 2, Final: true}
	s.BlockFinal(1)
	s.tick()
	require.Empty(t, s.Status().Missing)
	s.NodeDown("a")
	s.NodeDown("b")
	s.tick()
	require.Len(t, s.Status().Missing, 1)
}

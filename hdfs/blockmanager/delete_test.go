package blockmanager

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
)

func (s *scene) remove(id hdfs.BlockID) {
	delete(s.log.blocks, id)
	s.BlocksGone([]hdfs.BlockID{id})
}

func TestReplicasOfADeletedBlockGoAfterAGrace(t *testing.T) {
	s := newScene(t, "a", "b")
	s.block(1, 2, "a", "b")
	s.remove(1)
	s.pass(59 * time.Second)
	s.quiet("somebody may still read it")
	s.pass(3 * time.Second)
	require.Len(t, s.deletes(), 2)
	s.obey()
	require.Empty(t, s.suspects)
	require.Zero(t, s.places.byID.Len())
}

func TestADeletionNobodyToldOfIsFound(t *testing.T) {
	s := newScene(t, "a", "b")
	s.block(1, 2, "a", "b")
	s.pass(5 * time.Second)
	delete(s.log.blocks, 1)
	s.pass(70 * time.Second)
	require.Len(t, s.deletes(), 2)
}

func TestAnUnknownBlockOfAReportGoesAfterTheGraceToo(t *testing.T) {
	s := newScene(t, "a")
	foreign := hdfs.Block{ID: 77, Stamp: 3, Size: 5}
	s.NodeUp(member("b"))
	s.Report("b", []Replica{{Block: foreign}, {Block: hdfs.Block{ID: 78, Stamp: 1, Size: 9}, Unfinished: true}}, true)
	s.pass(59 * time.Second)
	s.quiet("")
	s.pass(3 * time.Second)
	require.Equal(t, []hdfs.Block{foreign, {ID: 78, Stamp: 1, Size: 9}}, s.orders["b"].Delete)
}

func TestABlockThatIsBeingWrittenIsLeftAlone(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	s.log.blocks[1] = Block{Block: hdfs.Block{ID: 1, Stamp: 2}, Wanted: 3}
	s.Received("a", hdfs.Block{ID: 1, Stamp: 2, Size: blockSize})
	s.Received("b", hdfs.Block{ID: 1, Stamp: 1, Size: 100})
	s.pass(5 * time.Minute)
	s.quiet("neither copied nor deleted")
}

func TestStaleReplicasGoOnceAGoodOneIsThere(t *testing.T) {
	for name, stale := range map[string]Replica{
		"an older stamp":       {Block: hdfs.Block{ID: 1, Stamp: 1, Size: blockSize}},
		"another size":         {Block: hdfs.Block{ID: 1, Stamp: 2, Size: blockSize - 1}},
		"one never made whole": {Block: hdfs.Block{ID: 1, Stamp: 2, Size: blockSize}, Unfinished: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, "a", "b")
			s.log.blocks[1] = Block{Block: hdfs.Block{ID: 1, Stamp: 2, Size: blockSize}, Wanted: 1, Final: true}
			s.NodeUp(member("a"))
			s.Report("a", []Replica{stale}, true)
			s.pass(5 * time.Minute)
			s.quiet("it is all there is")
			require.Len(t, s.Status().Missing, 1)

			s.Received("b", s.log.blocks[1].Block)
			s.pass(s.cfg.DownWait + 2*time.Second) // in which one that was unfinished might be said to be whole
			require.Equal(t, []hdfs.Block{stale.Block}, s.orders["a"].Delete)
			require.Equal(t, []string{"b"}, s.at(1))
		})
	}
}

func TestABadReplicaIsReplacedAndThenDeleted(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	b := s.block(1, 2, "a", "b")
	s.Bad(b, "a", "checksum of chunk 3")
	require.Equal(t, []string{"b"}, s.at(1), "it is not read")
	s.tick()
	require.Equal(t, []hdfs.BlockID{1}, s.copies(), "first there is another one")
	require.Empty(t, s.deletes())
	require.Contains(t, s.orders, "b", "copied from the good one")
	s.obey()
	s.tick()
	require.Contains(t, s.orders["a"].Delete, b)
	s.obey()
	require.Equal(t, []string{"b", "c"}, s.at(1))
}

func TestABadReplicaMakesWayWhenThereIsNoOtherNode(t *testing.T) {
	s := newScene(t, "a", "b")
	b := s.block(1, 2, "a", "b")
	s.Bad(b, "a", "checksum")
	s.tick()
	require.Contains(t, s.orders["a"].Delete, b)
	s.obey()
	s.pass(15 * time.Second)
	require.Equal(t, "a", s.orders["b"].Copy[0].To.ID)
}

func TestWhenAllReplicasAreBadTheyAreKept(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	b := s.block(1, 2, "a", "b")
	s.Bad(b, "a", "checksum")
	s.Bad(b, "b", "checksum")
	s.pass(5 * time.Minute)
	s.quiet("one may yet be of use")
	require.Equal(t, []Concern{{Block: 1, File: 1001, Size: blockSize, Wanted: 2}}, s.Status().Corrupt)
	require.Equal(t, []string{"a", "b"}, s.at(1), "whoever wants to try may")

	s.Verified("a", b)
	require.Empty(t, s.Status().Corrupt, "one was accused falsely")
	s.tick()
	require.Len(t, s.copies(), 1)
}

func TestABadReplicaOfAnOlderStampSaysNothing(t *testing.T) {
	s := newScene(t, "a", "b")
	b := s.block(1, 2, "a", "b")
	s.Bad(hdfs.Block{ID: 1, Stamp: b.Stamp + 1, Size: b.Size}, "a", "checksum")
	s.Bad(hdfs.Block{ID: 9, Stamp: 1}, "a", "checksum")
	s.Bad(b, "nobody", "checksum")
	s.pass(time.Minute)
	s.quiet("")
	require.Zero(t, s.Counters().BadReplicas)
}

func TestNothingIsDeletedOfANodeWhoseReportIsNotIn(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	b := s.block(1, 2, "a", "b")
	s.NodeUp(member("d"))
	s.Received("d", b)
	s.Report("d", []Replica{{Block: hdfs.Block{ID: 50, Stamp: 1}}}, false)
	s.pass(2 * time.Minute)
	s.quiet("d does not count yet, and is told nothing")
	s.Report("d", nil, true)
	s.pass(5 * time.Second)
	require.Len(t, s.deletes(), 2, "one of three, and the unknown one")
}

func TestADeletionIsGivenUpWhenOthersAreLostMeanwhile(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	b := s.block(1, 2, "a", "b", "c")
	s.tick()
	require.Len(t, s.deletes(), 1)
	var told, others = "", []string{}
	for _, n := range []string{"a", "b", "c"} {
		if s.orders[n] != nil {
			told = n
		} else {
			others = append(others, n)
		}
	}
	s.Deleted(others[0], b)
	s.pass(30 * time.Second)
	require.Empty(t, s.deletes())
	require.Equal(t, []string{others[1]}, s.at(1), "the one that may be gone is not counted on")
	s.pass(45 * time.Second)
	require.Contains(t, s.at(1), told, "it did not go: it counts again")
	require.Empty(t, s.deletes())
}

func TestADeletionThatIsNotConfirmedIsOrderedAgain(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	s.block(1, 2, "a", "b", "c")
	s.tick()
	first := s.deletes()
	require.Len(t, first, 1)
	s.pass(70 * time.Second)
	require.Equal(t, first, s.deletes(), "of the same node: never two of them")
}

func TestDeletionsAreToldInPortions(t *testing.T) {
	s := newScene(t, "a")
	s.Manager.cfg.Deletes = 10
	for id := range hdfs.BlockID(25) {
		s.block(id+1, 1, "a")
	}
	for id := range hdfs.BlockID(25) {
		s.remove(id + 1)
	}
	s.pass(61 * time.Second)
	var portions []int
	for range 4 {
		portions = append(portions, len(s.deletes()))
		s.obey()
		s.tick()
	}
	require.Equal(t, []int{10, 10, 5, 0}, portions)
}

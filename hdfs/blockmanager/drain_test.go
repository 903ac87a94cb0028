package blockmanager

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/placement"
)

func TestDrainingANode(t *testing.T) {
	s := newScene(t, "a", "b", "c", "d")
	s.Manager.cfg.Rate = blockSize
	s.block(1, 3, "a", "b", "c")
	s.block(2, 1, "a")
	s.block(3, 2, "b", "c")
	s.tick()

	plan, err := s.CanDrain("a")
	require.NoError(t, err)
	require.Equal(t, placement.Plan{Blocks: 2, Bytes: 2 * blockSize, Estimate: 1050 * time.Millisecond}, plan, "only a can send one of them")

	s.Drain("a", true)
	require.False(t, s.DrainStatus("a").Done, "not all has been looked at")
	s.pass(2 * time.Second)
	st := s.DrainStatus("a")
	require.True(t, st.Draining && st.Complete)
	require.Equal(t, 2, st.Blocks)
	require.EqualValues(t, 2*blockSize, st.Bytes)
	require.Contains(t, s.at(1), "a", "it is still read from")
	require.NotContains(t, s.open(9, Write{Count: 4}), "a", "and not written to")

	for range 10 {
		s.obey()
		s.tick()
	}
	st = s.DrainStatus("a")
	require.True(t, st.Done)
	require.Zero(t, st.Blocks)
	require.Equal(t, []string{"a", "b", "c", "d"}, s.at(1), "what it has it keeps until it leaves")
	s.pass(time.Minute)
	require.Empty(t, s.deletes())

	s.NodeDown("a")
	s.pass(time.Minute)
	s.quiet("nothing is lacking without it")
	require.Empty(t, s.Status().UnderReplicated)
}

func TestADrainThatIsTakenBack(t *testing.T) {
	s := newScene(t, "a", "b", "c", "d")
	s.block(1, 3, "a", "b", "c")
	s.Drain("a", true)
	s.tick()
	s.obey()
	s.Drain("a", false)
	s.tick()
	require.Len(t, s.deletes(), 1, "there is one too many now")
	require.False(t, s.DrainStatus("a").Draining)
}

func TestADrainThatNoNodeCanTakeTheBlocksOfIsRefused(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	s.block(1, 3, "a", "b", "c")
	s.tick()
	_, err := s.CanDrain("a")
	require.ErrorIs(t, err, ErrCannotDrain)
	require.EqualError(t, err, "the blocks there cannot be kept: replication 3 needs 3 core nodes; 2 would be left")

	s.Drain("a", true) // by somebody who did not ask
	s.pass(30 * time.Second)
	st := s.DrainStatus("a")
	require.False(t, st.Done)
	require.Equal(t, []Concern{{Block: 1, File: 1001, Size: blockSize, Wanted: 3, Good: 3, Why: "no other core node can take it"}}, st.Waiting)

	s.up("d")
	s.pass(15 * time.Second)
	s.obey()
	s.tick()
	require.True(t, s.DrainStatus("a").Done)
}

func TestADrainNeedsRoom(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	s.block(1, 2, "a", "b")
	s.block(2, 2, "a", "b")
	s.Disks("b", []Disk{{Free: 0}})
	s.Disks("c", []Disk{{Free: blockSize}})
	s.tick()
	_, err := s.CanDrain("a")
	require.ErrorIs(t, err, ErrCannotDrain)
	require.ErrorContains(t, err, "2 MiB must be copied to the other core nodes, which lack 1 MiB of room for it")
}

func TestABlockThatHasFewerThanWantedNeedsNoMoreForADrain(t *testing.T) {
	s := newScene(t, "a", "b")
	s.block(1, 3, "a")
	s.block(2, 3, "b")
	_, err := s.CanDrain("a")
	require.NoError(t, err, "one replica there is, one there will be")
}

func TestDrainsAddUp(t *testing.T) {
	s := newScene(t, "a", "b", "c", "d")
	s.block(1, 3, "a", "b", "c")
	s.Drain("b", true)
	s.tick()
	_, err := s.CanDrain("a")
	require.ErrorContains(t, err, "replication 3 needs 3 core nodes; 2 would be left")
}

func TestADrainIsNotPlannedBeforeReportsAreIn(t *testing.T) {
	s := newColdScene(t, "a", "b")
	s.up("a")
	s.tick()
	_, err := s.CanDrain("a")
	require.ErrorIs(t, err, hdfs.ErrUnavailable)
	s.Drain("a", true)
	require.False(t, s.DrainStatus("a").Done)
}

func TestADrainWaitsForWhatIsBeingWritten(t *testing.T) {
	s := newScene(t, "a", "b")
	s.open(1, Write{Count: 1, Writer: "a"})
	s.Drain("a", true)
	s.pass(5 * time.Second)
	st := s.DrainStatus("a")
	require.Equal(t, 1, st.Writing)
	require.False(t, st.Done)
	s.Received("a", s.close(1))
	s.pass(2 * time.Second)
	require.Equal(t, 1, s.DrainStatus("a").Blocks, "now it is to be copied")
	s.obey()
	s.tick()
	require.True(t, s.DrainStatus("a").Done)
}

// A block that lies on a draining node and is not final is counted until it is: also when the whole of it is there, and by a leader
// that has not seen its pipeline.
func TestADrainAwaitsWhatIsBeingWritten(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	begun := hdfs.Block{ID: 7, Stamp: 1}
	s.log.blocks[7] = Block{Block: begun, File: 7, Wanted: 2}
	_, err := s.Targets(Write{Block: 7, Size: blockSize, Count: 3})
	require.NoError(t, err)
	s.Drain("a", true)
	s.tick()
	require.Equal(t, 1, s.DrainStatus("a").Writing)

	whole := hdfs.Block{ID: 7, Stamp: 1, Size: blockSize}
	s.Received("a", whole)
	s.tick()
	require.Equal(t, 1, s.DrainStatus("a").Writing, "it is whole, and not final")
	require.False(t, s.DrainStatus("a").Done)

	later := newColdScene(t, "a", "b", "c")
	later.log.blocks[7] = s.log.blocks[7]
	later.Drain("a", true)
	for _, n := range []string{"a", "b", "c"} {
		later.NodeUp(member(n))
		later.Report(n, []Replica{{Block: begun, Unfinished: true}}, true)
	}
	later.pass(2 * time.Second)
	require.Equal(t, DrainStatus{Draining: true, Complete: true, Writing: 1}, later.DrainStatus("a"))

	later.log.blocks[7] = Block{Block: whole, File: 7, Wanted: 2, Final: true}
	later.BlockFinal(7)
	later.pass(2 * time.Second)
	require.Equal(t, DrainStatus{Draining: true, Complete: true, Writing: 1}, later.DrainStatus("a"), "it has not said yet that it is whole")
	for _, n := range []string{"a", "b", "c"} {
		later.Received(n, whole)
	}
	later.BlockFinal(7)
	later.pass(2 * time.Second)
	require.True(t, later.DrainStatus("a").Done)
}

func TestADrainDoesNotRelyOnAnAccusedReplica(t *testing.T) {
	for _, c := range []struct {
		name   string
		settle func(*scene, hdfs.Block)
		done   bool
	}{
		{"it is well", func(s *scene, b hdfs.Block) { s.Verified("b", b) }, true},
		{"it is bad", func(s *scene, b hdfs.Block) { s.Bad(b, "b", "checksum") }, false},
		{"nobody says", func(*scene, hdfs.Block) {}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t, "a", "b", "c")
			b := s.block(1, 1, "a")
			s.Drain("a", true)
			s.Received("b", b)
			s.pass(2 * time.Second)
			require.True(t, s.DrainStatus("a").Done)
			s.Accused(b, "b", "checksum")
			require.Equal(t, 1, s.DrainStatus("a").Blocks)
			c.settle(s, b)
			s.tick()
			require.Equal(t, c.done, s.DrainStatus("a").Done)
		})
	}
}

// Of a node that is lost it is told which blocks only it had, before it is given up and afterwards.
func TestWhatOnlyALostNodeHad(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	s.block(1, 1, "a")
	s.block(2, 2, "a", "b")
	s.block(3, 1, "b")
	s.tick()
	alone := func(of string) (ids []hdfs.BlockID) {
		list, err := s.Alone(of)
		require.NoError(t, err)
		for _, c := range list {
			ids = append(ids, c.Block)
		}
		return ids
	}
	require.Equal(t, []hdfs.BlockID{3}, alone("b"))
	s.NodeDown("a")
	_, err := s.Alone("a")
	require.ErrorIs(t, err, hdfs.ErrUnavailable, "the blocks are looked at again first")
	s.tick()
	require.Equal(t, []hdfs.BlockID{1}, alone("a"))
	s.pass(time.Minute)
	require.Equal(t, []hdfs.BlockID{1}, alone("a"), "nobody has it, and it may be where it was")
}

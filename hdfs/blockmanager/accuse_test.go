package blockmanager

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
)

// order is where a reader on a node is sent to, in the order in which it tries.
func (s *scene) order(id hdfs.BlockID, reader string) (out []string) {
	for _, n := range s.Locate(id, reader, "") {
		out = append(out, n.ID)
	}
	return out
}

// verifies is what a node was told to look at.
func (s *scene) verifies(node string) []hdfs.Block {
	if o := s.orders[node]; o != nil {
		return o.Verify
	}
	return nil
}

// Whoever may read may accuse, and the fault may be the reader's own: nothing is condemned unseen.
func TestAnAccusedReplicaIsLookedAt(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	b := s.block(1, 2, "a", "b")
	require.Equal(t, []string{"a", "b"}, s.order(1, "a"))
	s.Accused(b, "a", "checksum of chunk 3")
	s.Accused(b, "a", "again")
	require.Equal(t, []string{"b", "a"}, s.order(1, "a"), "meanwhile it is the last to be read, though it is the nearest")
	require.Empty(t, s.Status().UnderReplicated, "it counts")

	s.tick()
	require.Equal(t, []hdfs.Block{b}, s.verifies("a"))
	s.quiet("")
	s.pass(50 * time.Second)
	require.Empty(t, s.orders, "it is told once")
	s.pass(15 * time.Second)
	require.Equal(t, []hdfs.Block{b}, s.verifies("a"), "and again when it says nothing")

	s.Verified("a", b)
	require.Equal(t, []string{"a", "b"}, s.order(1, "a"))
	s.pass(5 * time.Minute)
	require.Empty(t, s.orders)
	require.Zero(t, s.Counters().BadReplicas)
	require.EqualValues(t, 1, s.Counters().Accusations)

	s.Accused(b, "a", "checksum")
	s.tick()
	s.Bad(b, "a", "checksum of chunk 3")
	require.Equal(t, []string{"b"}, s.order(1, "a"), "the accuser was right")
	s.pass(5 * time.Second)
	require.Equal(t, []hdfs.BlockID{1}, s.copies())
	require.Empty(t, s.verifies("a"))
}

func TestAccusationsOfWhatIsNotThere(t *testing.T) {
	s := newScene(t, "a", "b")
	b := s.block(1, 1, "a")
	s.Accused(hdfs.Block{ID: 1, Stamp: b.Stamp + 1, Size: b.Size}, "a", "another stamp")
	s.Accused(hdfs.Block{ID: 9, Stamp: 1}, "a", "no block")
	s.Accused(b, "b", "no replica")
	s.Accused(b, "nobody", "no node")
	s.pass(time.Minute)
	require.Empty(t, s.orders)
	require.Empty(t, s.suspects, "nothing is remembered of them")
}

func TestWhileAReplicaIsAccusedNoOtherIsDeleted(t *testing.T) {
	for _, c := range []struct {
		name   string
		settle func(*scene, hdfs.Block)
		left   int
	}{
		{"it is well", func(s *scene, b hdfs.Block) { s.Verified("a", b) }, 2},
		{"it is bad", func(s *scene, b hdfs.Block) { s.Bad(b, "a", "checksum") }, 2},
		{"it is gone", func(s *scene, b hdfs.Block) { s.Deleted("a", b) }, 2},
		{"nobody says", func(*scene, hdfs.Block) {}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t, "a", "b", "c")
			b := s.block(1, 3, "a", "b", "c")
			s.Accused(b, "a", "checksum")
			in := s.log.blocks[1]
			in.Wanted = 2
			s.log.blocks[1] = in
			s.ReplicationChanged([]hdfs.BlockID{1})
			s.pass(10 * time.Second)
			s.quiet("which one is too much?")
			c.settle(s, b)
			s.tick()
			s.obey()
			require.Len(t, s.at(1), c.left)
		})
	}
}

func TestADeletionThatWaitsIsGivenUpForAnAccusation(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	b := s.block(1, 2, "a", "b", "c") // from now on one is doomed
	for _, n := range s.at(1) {
		s.Accused(b, n, "checksum")
	}
	s.tick()
	s.quiet("")
	require.Len(t, s.at(1), 3)
}

func TestAccusedReplicasOfANodeThatComesBack(t *testing.T) {
	s := newScene(t, "a", "b")
	b := s.block(1, 2, "a", "b")
	s.Accused(b, "a", "checksum")
	s.NodeDown("a")
	s.tick()
	require.Empty(t, s.orders, "it cannot be told")
	s.up("a", b)
	s.tick()
	require.Equal(t, []hdfs.Block{b}, s.verifies("a"))
	s.Deleted("a", b)
	s.pass(2 * time.Minute)
	require.Empty(t, s.verifies("a"), "there is nothing left to look at")
}

func TestAccusationsAreBounded(t *testing.T) {
	s := newScene(t, "a", "b")
	for id := range hdfs.BlockID(maxAccusations + 100) {
		b := s.block(id+1, 2, "a", "b")
		s.Accused(b, "a", "checksum")
	}
	require.EqualValues(t, maxAccusations, s.Counters().Accusations)
	s.tick()
	require.Len(t, s.verifies("a"), verifiesPerTick)
	s.pass(5 * time.Second)
	require.Len(t, s.verifies("a"), 5*verifiesPerTick)
}

// A copy whose source is damaged is no fault of the node that was to take it.
func TestADamagedSourceEndsItsCopies(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	b := s.block(1, 3, "a", "b")
	s.tick()
	var from string
	for from = range s.orders {
	}
	require.Len(t, s.copies(), 1)
	s.Bad(b, from, "checksum")
	s.tick()
	require.Len(t, s.copies(), 1, "from the other one, at once")
	require.NotContains(t, s.orders, from)
}

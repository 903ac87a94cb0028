package blockmanager

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
)

// TestWhatAWriterThatIsGoneHasBegunIsDeleted: its nodes have said that they began, and say nothing more.
func TestWhatAWriterThatIsGoneHasBegunIsDeleted(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	begun := hdfs.Block{ID: 1, Stamp: 1}
	on := s.open(1, Write{Count: 2})
	for _, n := range on {
		s.Unfinished(n, begun)
	}
	s.pass(5 * time.Minute)
	s.quiet("it is being written")
	s.remove(1)
	s.pass(59 * time.Second)
	s.quiet("a grace")
	s.pass(3 * time.Second)
	slices.Sort(on)
	require.Equal(t, []string{on[0] + ":" + begun.String(), on[1] + ":" + begun.String()}, s.deletes())
	s.obey()
	require.Empty(t, s.suspects)
}

// TestABlockThatIsFinalIsNotStaleBeforeItsNodesSaySo: the first that says so must not have the others deleted, which began under the
// same stamp; one that never says so goes in the end.
func TestABlockThatIsFinalIsNotStaleBeforeItsNodesSaySo(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	on := s.open(1, Write{Count: 3})
	for _, n := range on {
		s.Unfinished(n, hdfs.Block{ID: 1, Stamp: 1})
	}
	s.pass(time.Minute)
	b := s.close(1)
	s.Received(on[0], b)
	s.pass(20 * time.Second)
	s.quiet("the others are about to say it")
	require.ElementsMatch(t, on, s.at(1))
	s.Received(on[1], b)
	s.pass(15 * time.Second)
	require.Len(t, s.deletes(), 1, "one never said so")
	require.ElementsMatch(t, on[:2], s.at(1))
}

// TestACopyThatHasBegunIsNoStaleReplica: what a node begins to write of a final block is the copy that was ordered.
func TestACopyThatHasBegunIsNoStaleReplica(t *testing.T) {
	s := newScene(t, "a", "b")
	b := s.block(1, 2, "a")
	s.tick()
	require.Equal(t, []hdfs.BlockID{1}, s.copies())
	s.Unfinished("b", hdfs.Block{ID: 1, Stamp: b.Stamp})
	s.pass(10 * time.Second)
	require.Empty(t, s.deletes())
	s.Received("b", b)
	require.ElementsMatch(t, []string{"a", "b"}, s.at(1))
}

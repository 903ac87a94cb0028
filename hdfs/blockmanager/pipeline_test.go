package blockmanager

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
)

// open puts a block into the log that is being written, and gives its pipeline.
func (s *scene) open(id hdfs.BlockID, w Write) []string {
	s.Helper()
	s.log.blocks[id] = Block{Block: hdfs.Block{ID: id, Stamp: 1}, File: hdfs.FileID(id + 1000), Wanted: w.Count}
	w.Block, w.Size = id, blockSize
	nodes, err := s.Targets(w)
	require.NoError(s, err)
	return names(nodes)
}

func names(nodes []hdfs.Node) (out []string) {
	for _, n := range nodes {
		out = append(out, n.ID)
	}
	return out
}

// close fixes a block in the log.
func (s *scene) close(id hdfs.BlockID) hdfs.Block {
	b := s.log.blocks[id]
	b.Size, b.Final = blockSize, true
	s.log.blocks[id] = b
	s.BlockFinal(id)
	return b.Block
}

func TestAPipelineBeginsWithTheWriter(t *testing.T) {
	s := newScene(t, "r1/a", "r1/b", "r2/c", "r2/d")
	got := s.open(1, Write{Count: 3, Writer: "r1/b"})
	require.Equal(t, "r1/b", got[0])
	require.ElementsMatch(t, []string{"r2/c", "r2/d"}, got[1:])
	require.Equal(t, got, names(s.Locate(1, "r2/d", "")), "while it is written, in its order")
}

func TestNoNodesForABlock(t *testing.T) {
	s := newScene(t)
	_, err := s.Targets(Write{Block: 1, Size: blockSize, Count: 3})
	require.ErrorIs(t, err, hdfs.ErrNoNodes)
	require.ErrorContains(t, err, "b-0000000000000001: no core node can take the block: none is up")

	for _, n := range []string{"a", "b", "c"} {
		s.up(n)
	}
	s.Drain("a", true)
	s.Disks("b", []Disk{{Free: blockSize - 1}})
	_, err = s.Targets(Write{Block: 1, Size: blockSize, Count: 3, Avoid: []string{"c"}})
	require.ErrorIs(t, err, hdfs.ErrNoNodes)
	require.ErrorContains(t, err, "of 3 that are up 1 have no room for 1048576 bytes, 1 are draining, 1 have failed the writer")
}

func TestABlockThatIsFinalCountsWhereItWasWrittenBeforeTheNodesSaySo(t *testing.T) {
	s := newScene(t, "a", "b", "c", "d")
	on := s.open(1, Write{Count: 3})
	b := s.close(1)
	s.pass(20 * time.Second)
	s.quiet("all have acknowledged it")
	require.ElementsMatch(t, on, s.at(1), "it can be read at once")
	s.Received(on[0], b)
	s.Received(on[1], b)
	require.ElementsMatch(t, on, s.at(1))
	s.pass(15 * time.Second)
	require.Equal(t, []hdfs.BlockID{1}, s.copies(), "one never said so")
}

func TestAChangedPipeline(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	on := s.open(1, Write{Count: 3})
	got := s.Pipeline(1, []string{on[2], "nobody", on[0]})
	require.Equal(t, []string{on[2], on[0]}, names(got))
	require.Equal(t, []string{on[2], on[0]}, names(s.Locate(1, "", "")))
	require.Zero(t, s.nodes.byID[on[1]].writing)
	require.Equal(t, 1, s.nodes.byID[on[0]].writing)
	require.Empty(t, s.Pipeline(1, []string{"nobody"}))
}

// restamp has the log give a block a later stamp, under which its pipeline goes on.
func (s *scene) restamp(id hdfs.BlockID, survivors ...string) (old, now hdfs.Block) {
	b := s.log.blocks[id]
	old = b.Block
	b.Stamp++
	s.log.blocks[id] = b
	s.Pipeline(id, survivors)
	return old, b.Block
}

// A node that has the whole block may say so when the pipeline has changed already: that was not this pipeline.
func TestWhatANodeSaysOfThePipelineBeforeIsNotTakenForThisOne(t *testing.T) {
	s := newScene(t, "a", "b", "c")
	s.open(1, Write{Count: 3})
	old, now := s.restamp(1, "a", "b")
	old.Size = blockSize
	s.Drain("a", true)
	s.Received("a", old)
	s.Received("b", old)
	s.pass(2 * time.Second)
	require.Equal(t, DrainStatus{Draining: true, Complete: true, Writing: 1}, s.DrainStatus("a"))

	later := newScene(t, "a", "b", "c") // a leader that has not seen the pipeline
	later.log.blocks[1] = s.log.blocks[1]
	later.Drain("a", true)
	later.Unfinished("a", now)
	later.Received("a", old) // a message tells first what has begun
	later.pass(2 * time.Second)
	require.Equal(t, DrainStatus{Draining: true, Complete: true, Writing: 1}, later.DrainStatus("a"))

	b := s.close(1)
	require.Equal(t, []string{"a", "b"}, s.at(1), "both have acknowledged it")
	s.Received("a", b)
	s.Received("b", b)
	require.Empty(t, s.writing)
}

func TestALoadedNodeGetsFewerBlocks(t *testing.T) {
	s := newScene(t, "a", "b")
	for id := range hdfs.BlockID(20) {
		s.open(id+1, Write{Count: 1, Writer: "a"})
	}
	onB := 0
	for id := range hdfs.BlockID(20) {
		if s.open(id+100, Write{Count: 1})[0] == "b" {
			onB++
		}
	}
	require.Greater(t, onB, 11)
}

func TestAPipelineIsForgottenWithItsBlock(t *testing.T) {
	s := newScene(t, "a")
	s.open(1, Write{Count: 1})
	s.open(2, Write{Count: 1})
	s.open(3, Write{Count: 1})
	s.remove(1)             // told
	delete(s.log.blocks, 2) // not told
	b := s.close(3)
	s.Received("a", b)
	s.pass(5 * time.Second)
	require.Empty(t, s.writing)
	require.Zero(t, s.nodes.byID["a"].writing)
	require.Zero(t, s.nodes.byID["a"].promised)
}

func TestTheOrderForReading(t *testing.T) {
	s := newScene(t, "r1/a", "r1/b", "r2/c")
	s.block(1, 3, "r1/a", "r1/b", "r2/c")
	require.Equal(t, "r1/b", s.Locate(1, "r1/b", "")[0].ID, "its own")
	require.Equal(t, "r2/c", s.Locate(1, "i-task", "r2")[0].ID, "its rack")
	require.Empty(t, s.Locate(9, "", ""), "no such block")

	s.NodeDown("r1/a")
	require.Equal(t, []string{"r1/b", "r2/c"}, s.at(1))
	s.NodeDown("r1/b")
	s.NodeDown("r2/c")
	require.Len(t, s.at(1), 3, "a node whose session broke may still serve")
}

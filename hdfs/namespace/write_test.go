package namespace

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
)

func TestAFileShowsWhenItIsComplete(t *testing.T) {
	b := newBench(t)
	id := b.begin("/a/b/file", "w")
	require.Equal(t, "/", b.tree(), "nothing of it, not even its folders")
	last := b.fill(id, "w", 2*chunk+5)
	require.Equal(t, "/", b.tree())
	_, _, err := b.Locate(id, 0, 1)
	require.ErrorIs(t, err, hdfs.ErrNotExist, "nobody reads unfinished files")

	info := b.do(CompleteFile{File: id, Lease: "w", Last: last, At: t0}).(hdfs.Info)
	require.Equal(t, hdfs.Info{Path: "/a/b/file", ID: id, Size: 2*chunk + 5, Replication: 3, BlockSize: chunk, ModifiedAt: t0}, info)
	require.Equal(t, "/ /a/ /a/b/ /a/b/file:131077", b.tree())
	got, err := b.Stat("/a//b/file")
	require.NoError(t, err)
	require.Equal(t, info, got)
	got, err = b.StatID(id)
	require.NoError(t, err)
	require.Equal(t, info, got)
	require.Equal(t, Totals{hdfs.Usage{Bytes: info.Size, Files: 1, Folders: 2, Stored: 3 * info.Size}, 3, 0}, b.Totals())
}

func TestLocate(t *testing.T) {
	b := newBench(t)
	id := b.write("/f", 3*chunk+7)
	for _, c := range []struct {
		offset, length int64
		want           []int64 // offsets of blocks
	}{
		{0, 1 << 60, []int64{0, chunk, 2 * chunk, 3 * chunk}},
		{0, 0, nil},
		{0, 1, []int64{0}},
		{chunk - 1, 1, []int64{0}},
		{chunk - 1, 2, []int64{0, chunk}},
		{chunk, chunk, []int64{chunk}},
		{3*chunk + 6, 100, []int64{3 * chunk}},
		{3*chunk + 7, 100, nil},
		{1 << 62, 1 << 62, nil},
	} {
		info, found, err := b.Locate(id, c.offset, c.length)
		require.NoError(t, err)
		require.Equal(t, "/f", info.Path)
		var offsets []int64
		for _, at := range found {
			offsets = append(offsets, at.Offset)
			require.Equal(t, min(chunk, info.Size-at.Offset), at.Size)
			known, ok := b.Block(at.ID)
			require.True(t, ok)
			require.Equal(t, Block{at.Block, id, 3, true}, known)
		}
		require.Equal(t, c.want, offsets, "%+v", c)
	}
	_, _, err := b.Locate(id, -1, 1)
	require.ErrorIs(t, err, hdfs.ErrInvalid)
	_, _, err = b.Locate(rootID, 0, 1)
	require.ErrorIs(t, err, hdfs.ErrIsDir)
}

func TestTwoWritersOfOnePath(t *testing.T) {
	b := newBench(t)
	id := b.begin("/f", "first")
	b.refuse(hdfs.ErrBusy, "create hdfs:///f: is being written by another", CreateFile{Path: "/f", Lease: "second", BlockSize: chunk})
	b.refuse(hdfs.ErrBusy, "", CreateFile{Path: "//f/", Lease: "first", BlockSize: chunk, Overwrite: true}) // another wish is another writer
	require.Equal(t, id, b.begin("/f", "first"), "the first one repeats it, as the answer was lost")
	last := b.fill(id, "first", 1)
	b.refuse(hdfs.ErrBusy, "", CreateFile{Path: "/f", Lease: "first", BlockSize: chunk}) // it has begun to write: this is no repetition
	b.do(CompleteFile{File: id, Lease: "first", Last: last, At: t0})
	b.refuse(hdfs.ErrExist, "create hdfs:///f: file already exists", CreateFile{Path: "/f", Lease: "second"})
	require.NotEqual(t, id, b.do(CreateFile{Path: "/f", Lease: "second", Overwrite: true}))
}

func TestWhatCannotBeCreated(t *testing.T) {
	b := newBench(t)
	b.write("/file", 1)
	b.do(Mkdir{Path: "/folder", At: t0})
	ok := CreateFile{Path: "/new", Lease: "w"}
	for _, c := range []struct {
		change func(*CreateFile)
		want   error
		says   string
	}{
		{func(c *CreateFile) { c.Path = "/" }, hdfs.ErrIsDir, "create hdfs:///: is a folder"},
		{func(c *CreateFile) { c.Path = "new" }, hdfs.ErrInvalid, "must begin with /"},
		{func(c *CreateFile) { c.Path = "/a/../b" }, hdfs.ErrInvalid, `".." is no name`},
		{func(c *CreateFile) { c.Path = "/folder"; c.Overwrite = true }, hdfs.ErrIsDir, "is a folder"},
		{func(c *CreateFile) { c.Path = "/file/below" }, hdfs.ErrNotDir, "is a file, not a folder"},
		{func(c *CreateFile) { c.Path = "/file" }, hdfs.ErrExist, "already exists"},
		{func(c *CreateFile) { c.Lease = "" }, hdfs.ErrInvalid, "needs a lease"},
		{func(c *CreateFile) { c.Lease = strings.Repeat("l", 256) }, hdfs.ErrInvalid, "more than 255 bytes"},
		{func(c *CreateFile) { c.Task = "r-0" }, hdfs.ErrInvalid, "of no group"},
		{func(c *CreateFile) { c.Replication = 65 }, hdfs.ErrInvalid, "replication 65 is not between 1 and 64"},
		{func(c *CreateFile) { c.Replication = -1 }, hdfs.ErrInvalid, "replication -1"},
		{func(c *CreateFile) { c.BlockSize = 100 }, hdfs.ErrInvalid, "blocks of 100 bytes"},
		{func(c *CreateFile) { c.BlockSize = hdfs.MaxBlockSize + hdfs.ChunkSize }, hdfs.ErrInvalid, "they have 65536 to 4294967296"},
		{func(c *CreateFile) { c.BlockSize = chunk + 1 }, hdfs.ErrInvalid, "in whole 65536"},
	} {
		one := ok
		c.change(&one)
		b.refuse(c.want, c.says, one)
	}
	id := b.do(ok).(hdfs.FileID)
	h, _ := b.Hidden(id)
	require.Equal(t, hdfs.DefaultReplication, h.Replication)
	require.EqualValues(t, hdfs.DefaultBlockSize, h.BlockSize)
}

func TestBlocks(t *testing.T) {
	b := newBench(t)
	id := b.begin("/f", "w")
	add := func(prev *hdfs.Block) hdfs.Located {
		return b.do(AddBlock{File: id, Lease: "w", Prev: prev}).(hdfs.Located)
	}
	first := add(nil)
	require.Equal(t, hdfs.Located{Block: hdfs.Block{ID: 1, Stamp: 1}}, first)
	require.Equal(t, first, add(nil), "repeated it is the same block")
	known, _ := b.Block(1)
	require.Equal(t, Block{first.Block, id, 3, false}, known)

	full := hdfs.Block{ID: 1, Stamp: 1, Size: chunk}
	for _, c := range []struct {
		prev *hdfs.Block
		want error
		says string
	}{
		{&hdfs.Block{ID: 1, Stamp: 1, Size: 5}, hdfs.ErrInvalid, "is not full"},
		{&hdfs.Block{ID: 1, Stamp: 1, Size: 0}, hdfs.ErrInvalid, "up to 65536 bytes"},
		{&hdfs.Block{ID: 1, Stamp: 1, Size: chunk + 1}, hdfs.ErrInvalid, "up to 65536 bytes"},
		{&hdfs.Block{ID: 1, Stamp: 9, Size: chunk}, hdfs.ErrStale, "has stamp 1 now"},
		{&hdfs.Block{ID: 2, Stamp: 1, Size: chunk}, hdfs.ErrInvalid, "is not its last block"},
	} {
		b.refuse(c.want, c.says, AddBlock{File: id, Lease: "w", Prev: c.prev})
	}
	second := add(&full)
	require.Equal(t, hdfs.Located{Block: hdfs.Block{ID: 2, Stamp: 2}, Offset: chunk}, second)
	require.Equal(t, second, add(&full), "repeated it is the same block")
	b.refuse(hdfs.ErrInvalid, "it has 2 blocks, and none is named", AddBlock{File: id, Lease: "w"})
	b.refuse(hdfs.ErrLease, "", AddBlock{File: id, Lease: "another", Prev: &full})
	b.refuse(hdfs.ErrLease, "", AddBlock{File: 99, Lease: "w"})

	b.refuse(hdfs.ErrInvalid, "none is named", CompleteFile{File: id, Lease: "w"})
	b.refuse(hdfs.ErrStale, "", CompleteFile{File: id, Lease: "w", Last: &hdfs.Block{ID: 2, Stamp: 1, Size: 1}})
	b.do(CompleteFile{File: id, Lease: "w", Last: &hdfs.Block{ID: 2, Stamp: 2, Size: chunk}, At: t0})
	require.Equal(t, "/ /f:131072", b.tree())
	b.refuse(hdfs.ErrLease, "lease is over", AddBlock{File: id, Lease: "w", Prev: &hdfs.Block{ID: 2, Stamp: 2, Size: chunk}})
}

// A change of the pipeline: the stamp counts on, a repetition gets the same one, and who missed it is stale.
func TestRestamp(t *testing.T) {
	b := newBench(t)
	id := b.begin("/f", "w")
	b.refuse(hdfs.ErrInvalid, "is not the one that is being written", Restamp{File: id, Lease: "w", Block: hdfs.Block{ID: 1, Stamp: 1}})
	b.do(AddBlock{File: id, Lease: "w"})
	restamp := func(from hdfs.Stamp) hdfs.Block {
		return b.do(Restamp{File: id, Lease: "w", Block: hdfs.Block{ID: 1, Stamp: from}}).(hdfs.Located).Block
	}
	b.refuse(hdfs.ErrStale, "", Restamp{File: id, Lease: "w", Block: hdfs.Block{ID: 1}})
	require.Equal(t, hdfs.Block{ID: 1, Stamp: 2}, restamp(1))
	require.Equal(t, hdfs.Block{ID: 1, Stamp: 2}, restamp(1), "repeated")
	require.Equal(t, hdfs.Block{ID: 1, Stamp: 3}, restamp(2))
	b.refuse(hdfs.ErrStale, "has stamp 3 now", Restamp{File: id, Lease: "w", Block: hdfs.Block{ID: 1, Stamp: 1}})
	b.refuse(hdfs.ErrLease, "", Restamp{File: id, Lease: "x", Block: hdfs.Block{ID: 1, Stamp: 3}})
	b.refuse(hdfs.ErrStale, "", CompleteFile{File: id, Lease: "w", Last: &hdfs.Block{ID: 1, Stamp: 2, Size: 1}})
	b.do(CompleteFile{File: id, Lease: "w", Last: &hdfs.Block{ID: 1, Stamp: 3, Size: 1}, At: t0})
	b.refuse(hdfs.ErrLease, "", Restamp{File: id, Lease: "w", Block: hdfs.Block{ID: 1, Stamp: 3}})
}

func TestCompleteIsRepeated(t *testing.T) {
	b := newBench(t)
	id := b.begin("/f", "w")
	last := b.fill(id, "w", 9)
	complete := CompleteFile{File: id, Lease: "w", Last: last, At: t0}
	info := b.do(complete)
	require.Equal(t, info, b.do(complete))
	b.do(Rename{From: "/f", To: "/g", At: t0})
	require.Equal(t, "/g", b.do(complete).(hdfs.Info).Path, "it is where it is now")
	b.refuse(hdfs.ErrLease, "", CompleteFile{File: id, Lease: "w", Last: &hdfs.Block{ID: last.ID, Stamp: last.Stamp, Size: 8}})
	b.do(Remove{Path: "/g"})
	b.refuse(hdfs.ErrLease, "", complete)

	empty := b.begin("/empty", "w")
	b.refuse(hdfs.ErrInvalid, "is not its last block", CompleteFile{File: empty, Lease: "w", Last: last})
	require.Zero(t, b.do(CompleteFile{File: empty, Lease: "w", At: t0}).(hdfs.Info).Size)
	require.Equal(t, empty, b.do(CompleteFile{File: empty, Lease: "w", At: t0}).(hdfs.Info).ID)
}

// The file that was there stays, to the last byte, until the new one is whole; then it is gone with its blocks.
func TestOverwriteHappensAtTheEnd(t *testing.T) {
	b := newBench(t)
	old := b.write("/f", 3)
	blocks := b.blockIDs()
	id := b.do(CreateFile{Path: "/f", Lease: "w", BlockSize: chunk, Overwrite: true}).(hdfs.FileID)
	last := b.fill(id, "w", 7)
	require.Equal(t, "/ /f:3", b.tree())
	b.do(CompleteFile{File: id, Lease: "w", Last: last, At: t0})
	require.Equal(t, "/ /f:7", b.tree())
	_, _, err := b.Locate(old, 0, 1)
	require.ErrorIs(t, err, hdfs.ErrNotExist, "who reads it learns that it is gone")
	_, known := b.Block(blocks[0])
	require.False(t, known, "its blocks are garbage")
	require.Equal(t, []hdfs.BlockID{last.ID}, b.blockIDs())
}

// What happened to the path meanwhile is seen at the end; the writer's file stays hidden then.
func TestAPathThatIsTakenMeanwhile(t *testing.T) {
	for _, c := range []struct {
		meanwhile Command
		want      error
	}{
		{Mkdir{Path: "/a/f", At: t0}, hdfs.ErrIsDir},
		{Rename{From: "/other", To: "/a/f", At: t0}, hdfs.ErrExist},
		{Rename{From: "/other", To: "/a", At: t0}, hdfs.ErrNotDir},
	} {
		b := newBench(t)
		b.write("/other", 1)
		id := b.begin("/a/f", "w")
		last := b.fill(id, "w", 1)
		b.do(c.meanwhile)
		before := b.tree()
		b.refuse(c.want, "complete hdfs:///a/f", CompleteFile{File: id, Lease: "w", Last: last, At: t0})
		require.Equal(t, before, b.tree())
		b.do(Remove{Path: "/a", Recursive: true})
		b.do(CompleteFile{File: id, Lease: "w", Last: last, At: t0})
		require.Contains(t, b.tree(), "/a/f:1", "it can be once there is room")
	}
}

// A writer has a path, not a place in a folder: what happens to folders meanwhile is not its concern.
func TestFoldersThatGoWhileAFileIsWritten(t *testing.T) {
	for _, gone := range []Command{
		Remove{Path: "/a", Recursive: true},
		Rename{From: "/a", To: "/.trash/1/a", At: t0},
	} {
		b := newBench(t)
		b.write("/a/b/old", 1)
		id := b.begin("/a/b/new", "w")
		last := b.fill(id, "w", 1)
		b.do(gone)
		b.do(CompleteFile{File: id, Lease: "w", Last: last, At: t0})
		require.Contains(t, b.tree(), "/a/ /a/b/ /a/b/new:1")
		require.NotContains(t, b.tree(), " /a/b/old")
	}
}

func TestWritersThatGiveUpOrDie(t *testing.T) {
	b := newBench(t)
	one, two, other := b.begin("/one", "w"), b.begin("/two", "w"), b.begin("/other", "x")
	upload := b.do(CreateFile{Path: "/out/0", Lease: "w", Group: "g"}).(hdfs.FileID)
	for id, lease := range map[hdfs.FileID]string{one: "w", two: "w", other: "x", upload: "w"} {
		b.fill(id, lease, 1)
	}
	require.Equal(t, []string{"w", "x"}, slices.Collect(b.Leases()))
	b.refuse(hdfs.ErrLease, "", AbandonFile{File: one, Lease: "x"})
	b.do(AbandonFile{File: one, Lease: "w"})
	b.do(AbandonFile{File: one, Lease: "w"}) // again
	require.Equal(t, []hdfs.FileID{two}, b.do(ExpireLeases{Leases: []string{"w", "none", "w"}}), "an upload has no lease that expires")
	b.refuse(hdfs.ErrLease, "", AddBlock{File: two, Lease: "w"})
	require.Equal(t, Totals{Blocks: 2, Hidden: 2}, b.Totals())
	b.begin("/two", "y") // the path is free again

	whole := b.write("/whole", 1)
	b.refuse(hdfs.ErrLease, "", AbandonFile{File: whole, Lease: "writer of /whole"})
	b.do(ExpireLeases{Leases: []string{"writer of /whole"}})
	require.Equal(t, "/ /whole:1", b.tree(), "what is complete stays")
}

// The word of a writer that comes late, as after an answer that was lost, undoes nothing that is finished.
func TestWhatMayBeAbandoned(t *testing.T) {
	for _, c := range []struct {
		name, group, lease string
		complete           bool
		want               error
	}{
		{name: "a file being written", lease: "w"},
		{name: "another writer's", lease: "x", want: hdfs.ErrLease},
		{name: "an upload being written", group: "g", lease: "w"},
		{name: "another writer's upload", group: "g", lease: "x", want: hdfs.ErrLease},
		{name: "a visible file", lease: "w", complete: true, want: hdfs.ErrLease},
		{name: "a sealed upload", group: "g", lease: "w", complete: true, want: hdfs.ErrLease},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			id := b.do(CreateFile{Path: "/out/0", Lease: "w", Group: c.group, BlockSize: chunk}).(hdfs.FileID)
			if last := b.fill(id, "w", 1); c.complete {
				b.do(CompleteFile{File: id, Lease: "w", Last: last, At: t0})
			}
			abandon := AbandonFile{File: id, Lease: c.lease}
			if c.want != nil {
				b.refuse(c.want, "abandon of file", abandon)
				require.Equal(t, 1, b.Totals().Blocks, "it stays")
				return
			}
			b.do(abandon)
			require.Equal(t, Totals{}, b.Totals())
		})
	}
}

// Trees share a file's list of blocks as it grows: those of before, and others that go on from the same one, keep theirs.
func TestBlocksOfTreesThatGoOnFromTheSameOne(t *testing.T) {
	n := newBench(t)
	id := n.begin("/f", "w")
	var last *hdfs.Block
	trees, want := []*Tree{}, [][]hdfs.BlockID{}
	for range 40 {
		trees, want = append(trees, n.Tree), append(want, n.FileBlocks(id))
		at := n.do(AddBlock{File: id, Lease: "w", Prev: last}).(hdfs.Located)
		last = &hdfs.Block{ID: at.ID, Stamp: at.Stamp, Size: chunk}
	}
	last = nil
	for i, tree := range trees { // as others would have gone on
		if i > 0 {
			b, _ := tree.Block(want[i][i-1])
			last = &hdfs.Block{ID: b.ID, Stamp: b.Stamp, Size: chunk}
		}
		_, _, err := tree.Apply(Restamp{File: id, Lease: "w", Block: hdfs.Block{ID: 1 << 40}})
		require.Error(t, err)
		other, at, err := tree.Skip().Apply(AddBlock{File: id, Lease: "w", Prev: last})
		require.NoError(t, err)
		require.Equal(t, append(slices.Clone(want[i]), at.(hdfs.Located).ID), other.FileBlocks(id))
	}
	for i, tree := range trees {
		require.Equal(t, want[i], tree.FileBlocks(id))
	}
	require.Len(t, n.FileBlocks(id), 40)
	require.Equal(t, want[39], n.FileBlocks(id)[:39])
}

package namespace

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
)

// everything is a name space with a bit of all that a snapshot holds.
func everything(t failer) *bench {
	b := newBench(t)
	b.write("/a/b/two blocks", chunk+1)
	b.write("/a/full", chunk)
	b.write("/empty", 0)
	b.do(Mkdir{Path: "/ä/deep/er", At: t0})
	b.do(Rename{From: "/a", To: "/ä/z", At: t0, Request: "q"}) // into a folder that is younger than it is
	open := b.begin("/open", "w")
	at := b.do(AddBlock{File: open, Lease: "w"}).(hdfs.Located)
	b.do(Restamp{File: open, Lease: "w", Block: at.Block})
	b.begin("/not begun", "w")
	b.upload("g", "/out/0", 3)
	b.do(CreateFile{Path: "/out/1", Lease: "l", Group: "g", Task: "r-1", Overwrite: true})
	b.upload("published", "/done/0", 3)
	b.do(Publish{Group: "published", Prefix: "/done", Count: 1, At: t0})
	return b
}

// piecesOf are copies of a snapshot's pieces.
func piecesOf(t *Tree) (all [][]byte) {
	for p := range t.Pieces() {
		all = append(all, bytes.Clone(p))
	}
	return all
}

// load makes a tree of pieces.
func load(pieces [][]byte) (*Tree, error) {
	var l Loader
	for _, p := range pieces {
		if err := l.Add(p); err != nil {
			return nil, err
		}
	}
	return l.Tree()
}

func TestWhatIsLoadedGoesOn(t *testing.T) {
	b := everything(t)
	loaded := &bench{t, reload(t, b.Tree)}
	require.Equal(t, whole(b.Tree), whole(loaded.Tree))
	require.Equal(t, b.Totals(), loaded.Totals())
	for _, n := range []*bench{b, loaded} {
		n.do(Rename{From: "/a", To: "/elsewhere", Request: "q"}) // which was done
		n.do(Publish{Group: "published", Prefix: "/done", Count: 1, Replace: true})
		n.do(ExpireLeases{Leases: []string{"w"}})
		n.do(AbortUploads{Group: "g"})
		n.write("/new/file", chunk)
	}
	require.Equal(t, whole(b.Tree), whole(loaded.Tree))
	require.Equal(t, "/ /done/ /done/0:3 /empty:0 /new/ /new/file:65536 /ä/ /ä/deep/ /ä/deep/er/ /ä/z/ /ä/z/b/ /ä/z/b/two blocks:65537 /ä/z/full:65536", loaded.tree())
}

// A snapshot of many files is many small pieces, a file of many blocks too; and who has enough of them stops.
// TestATreeThatSkipsGivesNoIDTwice: what another one, which is lost, has given out after the same beginning.
func TestATreeThatSkipsGivesNoIDTwice(t *testing.T) {
	b := newBench(t)
	b.write("/before", 10)
	before := b.Tree
	lost := b.write("/lost", 10)
	lostBlock := b.blockIDs()[1]
	lostAt, _ := b.Block(lostBlock)

	back, err := load(piecesOf(before.Skip()))
	require.NoError(t, err)
	again := &bench{t, back}
	id := again.write("/other", 10)
	at, _ := again.Block(again.blockIDs()[1])
	require.Greater(t, id, lost)
	require.Greater(t, at.ID, lostAt.ID)
	require.Greater(t, at.Stamp, lostAt.Stamp)
	_, err = again.Stat("/before")
	require.NoError(t, err)
	_, err = before.Stat("/lost")
	require.ErrorIs(t, err, hdfs.ErrNotExist)
}

func TestPiecesAreSmall(t *testing.T) {
	b := newBench(t)
	for i := range 3000 {
		b.write(fmt.Sprintf("/%0200d", i), 1)
	}
	b.write("/long", 3000*chunk)
	pieces := piecesOf(b.Tree)
	require.Greater(t, len(pieces), 10)
	for _, p := range pieces {
		require.Less(t, len(p), pieceSize+blocksEach*30)
	}
	require.Equal(t, whole(b.Tree), whole(reload(t, b.Tree)))
	for range b.Pieces() {
		break
	}
}

// Whatever happens to a byte, it is not taken for a name space.
func TestDamageIsRefused(t *testing.T) {
	pieces := piecesOf(everything(t).Tree)
	require.Len(t, pieces, 1)
	for i := range pieces[0] {
		damaged := bytes.Clone(pieces[0])
		damaged[i] ^= 1 << (i % 8)
		_, err := load([][]byte{damaged})
		require.ErrorContains(t, err, "damaged")
		_, err = load([][]byte{pieces[0][:i]})
		require.Error(t, err)
	}
}

func TestPiecesThatDoNotFollowAreRefused(t *testing.T) {
	b := newBench(t)
	for i := range 3000 {
		b.write(fmt.Sprintf("/%0100d", i), 1)
	}
	all := piecesOf(b.Tree)
	require.Greater(t, len(all), 3)
	for name, c := range map[string]struct {
		pieces [][]byte
		says   string
	}{
		"none":              {nil, "ends after 0 pieces: unexpected EOF"},
		"the last is gone":  {all[:len(all)-1], "unexpected EOF"},
		"the first is gone": {all[1:], "piece 1 of a name space comes where piece 0 should"},
		"one is gone":       {slices.Concat(all[:1], all[2:]), "piece 2 of a name space comes where piece 1 should"},
		"one comes twice":   {slices.Concat(all[:2], all[1:]), "piece 1 of a name space comes where piece 2 should"},
		"it goes on":        {slices.Concat(all, [][]byte{sealPiece(uint64(len(all)), []byte{recordEnd})}), "behind its end"},
		"a later format":    {[][]byte{sealed(append([]byte{formatVersion + 1}, all[0][1:len(all[0])-crc32.Size]...))}, "has format 2, and this program reads 1"},
	} {
		_, err := load(c.pieces)
		require.ErrorContains(t, err, c.says, name)
	}
}

// sealPiece makes a piece of records.
func sealPiece(number uint64, records []byte) []byte {
	return sealed(append(binary.AppendUvarint([]byte{formatVersion}, number), records...))
}

func sealed(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(slices.Clip(b), crc32.Checksum(b, castagnoli))
}

// records are made by hand here: numbers, and texts.
func records(parts ...any) (b []byte) {
	for _, p := range parts {
		switch p := p.(type) {
		case byte:
			b = append(b, p)
		case int:
			b = binary.AppendUvarint(b, uint64(p))
		case signed:
			b = binary.AppendVarint(b, int64(p))
		case string:
			b = append(binary.AppendUvarint(b, uint64(len(p))), p...)
		}
	}
	return b
}

type signed int64

// What no commands lead to is refused, even if every checksum is right.
func TestWhatCannotBeIsRefused(t *testing.T) {
	const c = int(chunk)
	counters := []any{recordCounters, 9, 9, 9, 9}
	folder := func(id, parent int, name string) []any { return []any{recordFolder, id, parent, name, signed(0)} }
	file := func(id, replication, blockSize int) []any {
		return []any{recordFile, id, 1, fmt.Sprint("f", id), signed(0), replication, blockSize}
	}
	block := func(id, stamp, size int) []any {
		return []any{recordBlocks, 1, signed(id), signed(stamp), size}
	}
	hidden := func(id int, path, lease, group string, before, flags int) []any {
		return []any{recordHidden, id, path, lease, group, "", 3, c, before, flags}
	}
	request := func(name string, seq int) []any { return []any{recordRequest, name, seq} }
	end := func(names, hidden, blocks, requests int) []any {
		return []any{recordEnd, names, hidden, blocks, requests, 0}
	}
	for name, c := range map[string]struct {
		records [][]any
		says    string
	}{
		"a whole one":                {[][]any{folder(2, 1, "a"), file(3, 3, c), block(1, 1, 0), hidden(4, "/x", "l", "", 1, 0), block(2, 2, 1), request("q", 1), end(2, 1, 2, 1)}, ""},
		"an unknown record":          {[][]any{{byte('X')}}, "record of type 'X'"},
		"a cut record":               {[][]any{{recordFolder, 2, 1, "a"}}, "unexpected EOF"},
		"a text beyond the end":      {[][]any{{recordFolder, 2, 1, 99}}, "unexpected EOF"},
		"another root":               {[][]any{folder(1, 1, "a")}, "file 1 is there twice"},
		"file 0":                     {[][]any{folder(0, 1, "a")}, "comes from nowhere"},
		"a file of the future":       {[][]any{folder(10, 1, "a")}, "comes from nowhere"},
		"a file twice":               {[][]any{folder(2, 1, "a"), folder(2, 1, "b")}, "file 2 is there twice"},
		"two of a name":              {[][]any{folder(2, 1, "a"), folder(3, 1, "a")}, "two entries \"a\""},
		"no name":                    {[][]any{folder(2, 1, "")}, "is called"},
		"a path for a name":          {[][]any{folder(2, 1, "a/b")}, "is called"},
		"a way up":                   {[][]any{folder(2, 1, "..")}, "is called"},
		"no parent":                  {[][]any{folder(3, 2, "a"), end(1, 0, 0, 0)}, "file 3 lies in no folder"},
		"a file for a parent":        {[][]any{file(2, 3, c), folder(3, 2, "a"), end(2, 0, 0, 0)}, "file 3 lies in no folder"},
		"a circle":                   {[][]any{folder(3, 2, "a"), folder(2, 3, "b"), end(2, 0, 0, 0)}, "lies in no folder"},
		"no replication":             {[][]any{file(2, 0, c)}, "replication 0"},
		"too much replication":       {[][]any{file(2, 65, c)}, "replication 65"},
		"odd blocks":                 {[][]any{file(2, 3, c+1)}, "blocks of 65537 bytes"},
		"blocks of nothing":          {[][]any{folder(2, 1, "a"), block(1, 1, 0)}, "blocks of no file"},
		"no blocks in a record":      {[][]any{file(2, 3, c), {recordBlocks, 0}}, "0 blocks in a record"},
		"block 0":                    {[][]any{file(2, 3, c), block(0, 1, 0)}, "as none can be"},
		"a block of the future":      {[][]any{file(2, 3, c), block(10, 1, 0)}, "as none can be"},
		"a stamp of the future":      {[][]any{file(2, 3, c), block(1, 10, 0)}, "as none can be"},
		"a block that is too long":   {[][]any{file(2, 3, c), block(1, 1, c+2)}, "as none can be"},
		"a short one before another": {[][]any{file(2, 3, c), block(1, 1, 5), block(2, 2, 0)}, "as none can be"},
		"a block twice":              {[][]any{file(2, 3, c), block(1, 1, 0), block(1, 1, 0)}, "is there twice"},
		"one that is being written":  {[][]any{file(2, 3, c), block(1, 1, 1), end(1, 0, 1, 0)}, "last block of file 2"},
		"a hidden file without it":   {[][]any{hidden(2, "/x", "l", "", 0, 0), block(1, 1, 0), end(0, 1, 1, 0)}, "last block of file 2"},
		"a sealed one with it":       {[][]any{hidden(2, "/x", "l", "g", 0, flagSealed), block(1, 1, 1), end(0, 1, 1, 0)}, "last block of file 2"},
		"a stamp before that is not": {[][]any{hidden(2, "/x", "l", "", 2, 0), block(1, 1, 1), end(0, 1, 1, 0)}, "last block of file 2"},
		"a sealed one of no group":   {[][]any{hidden(2, "/x", "l", "", 0, flagSealed)}, "as none can be"},
		"an unknown flag":            {[][]any{hidden(2, "/x", "l", "g", 0, 4)}, "as none can be"},
		"an odd path":                {[][]any{hidden(2, "/x/", "l", "", 0, 0)}, "as none can be"},
		"no path":                    {[][]any{hidden(2, "", "l", "", 0, 0)}, "hidden file 2"},
		"no lease":                   {[][]any{hidden(2, "/x", "", "", 0, 0)}, "needs a lease"},
		"two writers":                {[][]any{hidden(2, "/x", "l", "", 0, 0), hidden(3, "/x", "k", "", 0, 0)}, "two writers"},
		"visible and hidden":         {[][]any{folder(2, 1, "a"), hidden(2, "/x", "l", "", 0, 0)}, "file 2 is there twice"},
		"a request twice":            {[][]any{request("q", 1), request("q", 2)}, "was done twice"},
		"requests out of order":      {[][]any{request("q", 2), request("r", 1)}, "was done twice"},
		"a request of the future":    {[][]any{request("q", 10)}, "comes from nowhere"},
		"a request without a name":   {[][]any{request("", 1)}, "comes from nowhere"},
		"a record that is gone":      {[][]any{folder(2, 1, "a"), end(2, 0, 0, 0)}, "1 records of 2"},
	} {
		all := records(counters...)
		for _, r := range c.records {
			all = append(all, records(r...)...)
		}
		_, err := load([][]byte{sealPiece(0, all)})
		if c.says == "" {
			require.NoError(t, err, name)
		} else {
			require.ErrorContains(t, err, c.says, name)
		}
	}
	_, err := load([][]byte{sealPiece(0, records(recordEnd, 0, 0, 0, 0))})
	require.ErrorContains(t, err, "begins with a record of type 'E'")
}

// FuzzLoad: whatever records come, no panic; and what is taken for a name space works as one.
func FuzzLoad(f *testing.F) {
	for _, b := range []*bench{newBench(f), everything(f)} {
		piece := piecesOf(b.Tree)[0]
		f.Add(piece[2:len(piece)-crc32.Size], uint16(0))
	}
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		if cut > 0 { // as two pieces
			at := int(cut) % (len(data) + 1)
			_, _ = load([][]byte{sealPiece(0, data[:at]), sealPiece(1, data[at:])})
		}
		tree, err := load([][]byte{sealPiece(0, data)})
		if err != nil {
			return
		}
		if again := reload(t, tree); whole(again) != whole(tree) {
			t.Fatalf("%s became %s", whole(tree), whole(again))
		}
		works(t, tree)
	})
}

// works uses a tree as everybody does.
func works(t *testing.T, tree *Tree) {
	all, err := tree.Walk("/")
	require.NoError(t, err)
	var usage hdfs.Usage
	for i := range all {
		byID, err := tree.StatID(i.ID)
		require.NoError(t, err)
		require.Equal(t, i, byID)
		if i.Directory {
			usage.Folders++
			continue
		}
		usage.Files++
		usage.Bytes += i.Size
		usage.Stored += i.Size * int64(i.Replication)
		_, blocks, err := tree.Locate(i.ID, 0, i.Size)
		require.NoError(t, err)
		require.Len(t, tree.FileBlocks(i.ID), len(blocks))
	}
	usage.Folders-- // the root
	require.Equal(t, usage, tree.Totals().Usage)
	for b := range tree.Blocks(0) {
		require.NotZero(t, b.Replication)
		require.Contains(t, tree.FileBlocks(b.File), b.ID)
	}
	n := &bench{t, tree}
	for lease := range tree.Leases() {
		n.do(ExpireLeases{Leases: []string{lease}})
	}
	for group := range tree.Groups() {
		n.do(AbortUploads{Group: group})
	}
	top, err := n.List("/", "", 1<<30)
	require.NoError(t, err)
	for _, i := range top {
		n.do(Remove{Path: i.Path, Recursive: true})
	}
	require.Equal(t, Totals{}, n.Totals())
}

func TestASnapshotOfNothing(t *testing.T) {
	tree := reload(t, New())
	require.Equal(t, Totals{}, tree.Totals())
	require.True(t, strings.HasPrefix(whole(tree), `"\x01\x00C\x01`))
}

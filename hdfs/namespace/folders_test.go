package namespace

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
)

func TestMkdir(t *testing.T) {
	b := newBench(t)
	b.write("/file", 1)
	b.do(Mkdir{Path: "/a//b/", At: t0})
	b.do(Mkdir{Path: "/a/b", At: t0})
	b.do(Mkdir{Path: "/", At: t0})
	require.Equal(t, "/ /a/ /a/b/ /file:1", b.tree())
	b.refuse(hdfs.ErrNotDir, "mkdir hdfs:///file: is a file", Mkdir{Path: "/file"})
	b.refuse(hdfs.ErrNotDir, "mkdir hdfs:///file/x", Mkdir{Path: "/file/x"})
	b.refuse(hdfs.ErrInvalid, "not UTF-8", Mkdir{Path: "/\xff"})
	b.refuse(hdfs.ErrInvalid, "", Mkdir{})
}

func TestRename(t *testing.T) {
	const before = "/ /a/ /a/b/ /a/b/f:1 /ab/ /g:2"
	for _, c := range []struct {
		from, to string
		want     error
		gives    string
	}{
		{"/g", "/h", nil, "/ /a/ /a/b/ /a/b/f:1 /ab/ /h:2"},
		{"/g", "/a/b/g", nil, "/ /a/ /a/b/ /a/b/f:1 /a/b/g:2 /ab/"},
		{"/g", "/new/deep/g", nil, "/ /a/ /a/b/ /a/b/f:1 /ab/ /new/ /new/deep/ /new/deep/g:2"},
		{"/a", "/z", nil, "/ /ab/ /g:2 /z/ /z/b/ /z/b/f:1"},
		{"/a/b", "/ab/b", nil, "/ /a/ /ab/ /ab/b/ /ab/b/f:1 /g:2"},
		{"/a", "/ac", nil, "/ /ab/ /ac/ /ac/b/ /ac/b/f:1 /g:2"},
		{"/a/b", "/b", nil, "/ /a/ /ab/ /b/ /b/f:1 /g:2"},
		{"/none", "/h", hdfs.ErrNotExist, "rename hdfs:///none: file does not exist"},
		{"/none", "/none", hdfs.ErrNotExist, ""},
		{"/g/x", "/h", hdfs.ErrNotDir, "rename hdfs:///g/x"},
		{"/g", "/g", hdfs.ErrExist, ""},
		{"/a", "//a/", hdfs.ErrExist, ""},
		{"/a", "/a/b", hdfs.ErrInvalid, "/a/b lies below it"},
		{"/a", "/a/new", hdfs.ErrInvalid, "/a/new lies below it"},
		{"/g", "/g/x", hdfs.ErrInvalid, "lies below it"},
		{"/g", "/ab", hdfs.ErrExist, "rename hdfs:///g: hdfs:///ab: file already exists"},
		{"/ab", "/g", hdfs.ErrExist, ""},
		{"/a", "/g/x", hdfs.ErrNotDir, "rename hdfs:///a: hdfs:///g/x: is a file"},
		{"/", "/x", hdfs.ErrInvalid, "the root stays where it is"},
		{"/a", "/", hdfs.ErrExist, ""},
		{"", "/x", hdfs.ErrInvalid, "it is empty"},
		{"/a", "x", hdfs.ErrInvalid, "must begin with /"},
	} {
		b := newBench(t)
		b.write("/a/b/f", 1)
		b.write("/g", 2)
		b.do(Mkdir{Path: "/ab", At: t0})
		require.Equal(t, before, b.tree())
		if c.want != nil {
			b.refuse(c.want, c.gives, Rename{From: c.from, To: c.to, At: t0})
			require.Equal(t, before, b.tree())
			continue
		}
		moved, err := b.Stat(c.from)
		require.NoError(t, err)
		b.do(Rename{From: c.from, To: c.to, At: t0})
		require.Equal(t, c.gives, b.tree(), "%s to %s", c.from, c.to)
		now, err := b.StatID(moved.ID)
		require.NoError(t, err)
		moved.Path = c.to
		require.Equal(t, moved, now, "nothing but its path is another")
		require.EqualValues(t, 2, b.Totals().Files)
	}
}

func TestRemove(t *testing.T) {
	b := newBench(t)
	b.write("/a/b/f", 2*chunk)
	b.write("/a/g", 1)
	b.write("/h", 1)
	b.do(Mkdir{Path: "/empty", At: t0})
	b.refuse(hdfs.ErrInvalid, "the root cannot go", Remove{Path: "/", Recursive: true})
	b.refuse(hdfs.ErrNotEmpty, "remove hdfs:///a: folder is not empty", Remove{Path: "/a"})
	b.refuse(hdfs.ErrNotExist, "", Remove{Path: "/none", Recursive: true})
	b.refuse(hdfs.ErrNotDir, "", Remove{Path: "/h/x"})
	b.refuse(hdfs.ErrInvalid, "", Remove{Path: "/a/."})
	require.Equal(t, hdfs.Usage{Folders: 1}, b.do(Remove{Path: "/empty"}))
	require.Equal(t, hdfs.Usage{Bytes: 1, Files: 1, Stored: 3}, b.do(Remove{Path: "/h"}))
	require.Equal(t, hdfs.Usage{Bytes: 2*chunk + 1, Files: 2, Folders: 2, Stored: 6*chunk + 3}, b.do(Remove{Path: "/a", Recursive: true}))
	require.Equal(t, "/", b.tree())
	require.Equal(t, Totals{}, b.Totals(), "their blocks too")
}

func TestRemoveOfOneFileAlone(t *testing.T) {
	b := newBench(t)
	old := b.write("/a", 1)
	b.do(Rename{From: "/a", To: "/b", At: t0})
	b.write("/a", 2)
	b.refuse(hdfs.ErrChanged, "remove hdfs:///a: is another file by now", Remove{Path: "/a", File: old})
	b.refuse(hdfs.ErrNotExist, "", Remove{Path: "/none", File: old})
	require.Equal(t, "/ /a:2 /b:1", b.tree())
	require.Equal(t, hdfs.Usage{Bytes: 1, Files: 1, Stored: 3}, b.do(Remove{Path: "/b", File: old}))
	require.Equal(t, "/ /a:2", b.tree())
}

// A command that may be in the log twice, as nobody knew what became of the first, is done once.
func TestRequestsAreDoneOnce(t *testing.T) {
	b := newBench(t)
	b.write("/a", 1)
	move := Rename{From: "/a", To: "/b", At: t0, Request: "m"}
	b.do(move)
	b.write("/a", 2)
	b.do(move)
	require.Equal(t, "/ /a:2 /b:1", b.tree())
	gone := Remove{Path: "/a", Request: "r"}
	b.do(gone)
	b.write("/a", 3)
	require.Equal(t, hdfs.Usage{}, b.do(gone))
	require.Equal(t, "/ /a:3 /b:1", b.tree())

	wrong := Remove{Path: "/none", Request: "w"}
	b.refuse(hdfs.ErrNotExist, "", wrong)
	b.write("/none", 1)
	b.do(wrong) // what was refused was not done
	require.Equal(t, "/ /a:3 /b:1", b.tree())
	b.refuse(hdfs.ErrInvalid, "has 256 bytes", Remove{Path: "/a", Request: strings.Repeat("r", 256)})

	b.do(Publish{Group: "job", Prefix: "/out", At: t0})
	for i, at := 0, []string{"/b", "/c"}; i < remembered; i++ { // and then it is forgotten
		b.do(Rename{From: at[i%2], To: at[1-i%2], Request: fmt.Sprint(i)})
	}
	b.refuse(hdfs.ErrExist, "", move)
	require.True(t, b.Published("job"), "which no number of other requests makes it forget")
	require.Equal(t, whole(b.Tree), whole(reload(t, b.Tree)))
}

func TestSetReplication(t *testing.T) {
	b := newBench(t)
	id := b.write("/f", 10)
	b.do(SetReplication{Path: "/f", Replication: 5})
	info, _ := b.StatID(id)
	require.Equal(t, 5, info.Replication)
	known, _ := b.Block(b.blockIDs()[0])
	require.Equal(t, 5, known.Replication)
	require.EqualValues(t, 50, b.Totals().Stored)
	for n, says := range map[int]string{0: "replication 0 is not between 1 and 64", 65: "replication 65", -1: "replication -1"} {
		b.refuse(hdfs.ErrInvalid, says, SetReplication{Path: "/f", Replication: n})
	}
	b.refuse(hdfs.ErrIsDir, "set replication hdfs:///: is a folder", SetReplication{Path: "/", Replication: 1})
	b.refuse(hdfs.ErrNotExist, "", SetReplication{Path: "/none", Replication: 1})
}

// Names are bytes: their order is that of the bytes, whatever they mean.
func TestNamesOfAllKinds(t *testing.T) {
	b := newBench(t)
	names := []string{" ", "!", "%2F", "*", "-rf", "0", "A", "Z", "\\", "a", "a ", "a b", "a\u0301", "b", "~", "ä", "日本語", "🙂"}
	for _, i := range []int{5, 17, 0, 3, 11, 8, 1, 16, 2, 9, 13, 4, 10, 15, 7, 6, 12, 14} {
		b.write("/d/"+names[i], 1)
	}
	list, err := b.List("/d", "", 1000)
	require.NoError(t, err)
	var got []string
	for _, i := range list {
		got = append(got, strings.TrimPrefix(i.Path, "/d/"))
	}
	require.Equal(t, names, got)
}

func TestList(t *testing.T) {
	b := newBench(t)
	for _, p := range []string{"/d/a", "/d/b/inside", "/d/c", "/d2/x", "/c"} {
		b.write(p, 1)
	}
	for _, c := range []struct {
		after string
		limit int
		want  string
	}{
		{"", 10, "/d/a /d/b /d/c"}, {"", 2, "/d/a /d/b"}, {"b", 2, "/d/c"}, {"aa", 1, "/d/b"}, {"c", 5, ""}, {"zzz", 5, ""}, {"", 0, ""}, {"", -1, ""},
	} {
		list, err := b.List("/d/", c.after, c.limit)
		require.NoError(t, err)
		var got []string
		for _, i := range list {
			got = append(got, i.Path)
		}
		require.Equal(t, c.want, strings.Join(got, " "), "%+v", c)
	}
	for path, want := range map[string]error{"/c": hdfs.ErrNotDir, "/none": hdfs.ErrNotExist, "d": hdfs.ErrInvalid} {
		_, err := b.List(path, "", 1)
		require.ErrorIs(t, err, want)
		_, err = b.Walk(path + "/x")
		require.Error(t, err)
		_, err = b.Usage(path + "/x")
		require.Error(t, err)
	}
	all, err := b.Walk("/d")
	require.NoError(t, err)
	var first []string
	for i := range all {
		if first = append(first, i.Path); len(first) == 3 {
			break
		}
	}
	require.Equal(t, []string{"/d", "/d/a", "/d/b"}, first)
}

// The longest path there can be, and the deepest.
func TestLongPaths(t *testing.T) {
	b := newBench(t)
	long := strings.Repeat("/"+strings.Repeat("n", 254), 16)
	deep := strings.Repeat("/d", 2047)
	b.write(long, 1)
	b.write(deep, 1)
	for _, p := range []string{long, deep} {
		info, err := b.Stat(p)
		require.NoError(t, err)
		byID, err := b.StatID(info.ID)
		require.NoError(t, err)
		require.Equal(t, p, byID.Path)
	}
	b.refuse(hdfs.ErrInvalid, "more than 4095", Mkdir{Path: deep + "/x"})
	require.Equal(t, whole(b.Tree), whole(reload(t, b.Tree)))
	b.do(Remove{Path: "/d", Recursive: true})
	require.EqualValues(t, 1, b.Totals().Files)
}

// A folder of many files is moved at once: none of them is touched.
func TestMovingALargeFolder(t *testing.T) {
	b := newBench(t)
	for i := range 20_000 {
		b.do(Mkdir{Path: fmt.Sprintf("/big/%06d", i), At: t0})
	}
	moving := testing.AllocsPerRun(5, func() {
		b.do(Rename{From: "/big", To: "/moved", At: t0})
		b.do(Rename{From: "/moved", To: "/big", At: t0})
	})
	require.Less(t, moving, 500.0, "allocations")
	page, err := b.List("/big", "010000", 2)
	require.NoError(t, err)
	require.Equal(t, "/big/010002", page[1].Path)
}

package namespace

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
)

func TestAGroupComesInOneStep(t *testing.T) {
	b := newBench(t)
	b.write("/out/old", 1)
	b.upload("job", "/out/part-0", 3)
	b.upload("job", "/out/sub/part-1", 0)
	b.upload("other", "/out/part-0", 9)
	require.Equal(t, "/ /out/ /out/old:1", b.tree(), "uploads are not seen, sealed or not")
	require.Equal(t, []string{"job", "other"}, slices.Collect(b.Groups()))
	require.Empty(t, slices.Collect(b.Leases()), "nothing of them expires")

	b.refuse(hdfs.ErrNotEmpty, "publish hdfs:///out: folder is not empty", Publish{Group: "job", Prefix: "/out", Count: 2, At: t0})
	publish := Publish{Group: "job", Prefix: "/out", Count: 2, Replace: true, At: t0}
	b.do(publish)
	require.Equal(t, "/ /out/ /out/part-0:3 /out/sub/ /out/sub/part-1:0", b.tree())
	require.True(t, b.Published("job"))
	require.Len(t, b.Uploads("other"), 1, "another group's are as they were")

	b.write("/out/later", 1)
	b.do(publish)
	require.Contains(t, b.tree(), "/out/later:1", "repeated it does nothing")
	b.do(AbortUploads{Group: "job"})
	require.Contains(t, b.tree(), "/out/part-0:3", "what is published stays")
	b.refuse(hdfs.ErrLease, `group "job" is published`, CreateFile{Path: "/out/part-2", Lease: "late", Group: "job"})
}

func TestWhatIsNotPublished(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(*bench)
		change func(*Publish)
		want   error
		says   string
	}{
		{"one is missing", nil, func(p *Publish) { p.Count = 3 }, hdfs.ErrInvalid, `group "job" has 2 uploads, not 3`},
		{"one is too many", nil, func(p *Publish) { p.Count = 1 }, hdfs.ErrInvalid, "has 2 uploads, not 1"},
		{"one is not sealed", func(b *bench) { b.do(CreateFile{Path: "/out/2", Lease: "l", Group: "job", Task: "r-2"}) },
			func(p *Publish) { p.Count = 3 }, hdfs.ErrInvalid, `of task "r-2" is not sealed`},
		{"one is elsewhere", func(b *bench) { b.upload("job", "/outside/2", 1) }, func(p *Publish) { p.Count = 3 }, hdfs.ErrInvalid, "is for /outside/2"},
		{"one is the folder itself", func(b *bench) { b.upload("job", "/out", 1) }, func(p *Publish) { p.Count = 3 }, hdfs.ErrInvalid, "is for /out"},
		{"two of one path", func(b *bench) { b.upload("job", "/out/0", 1) }, func(p *Publish) { p.Count = 3 }, hdfs.ErrInvalid, "another of its group: file already exists"},
		{"one below another", func(b *bench) { b.upload("job", "/out/0/x", 1) }, func(p *Publish) { p.Count = 3 }, hdfs.ErrInvalid, "another of its group: is a file"},
		{"one above another", func(b *bench) { b.upload("job", "/out/x/0", 1); b.upload("job", "/out/x", 1) },
			func(p *Publish) { p.Count = 4 }, hdfs.ErrInvalid, "another of its group: is a folder"},
		{"no group", nil, func(p *Publish) { p.Group, p.Count = "", 0 }, hdfs.ErrInvalid, "needs a group"},
		{"the root", nil, func(p *Publish) { p.Prefix = "/" }, hdfs.ErrInvalid, "not the root"},
		{"no path", nil, func(p *Publish) { p.Prefix = "out" }, hdfs.ErrInvalid, "must begin with /"},
		{"the folder is a file", func(b *bench) { b.write("/out", 1) }, nil, hdfs.ErrNotDir, "publish hdfs:///out"},
		{"it is below a file", func(b *bench) { b.write("/x", 1); b.upload("deep", "/x/out/0", 1) },
			func(p *Publish) { p.Group, p.Prefix, p.Count = "deep", "/x/out", 1 }, hdfs.ErrNotDir, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.upload("job", "/out/0", 1)
			b.upload("job", "/out/1", 1)
			if c.before != nil {
				c.before(b)
			}
			p := Publish{Group: "job", Prefix: "/out", Count: 2, Replace: true, At: t0}
			if c.change != nil {
				c.change(&p)
			}
			b.refuse(c.want, c.says, p)
		})
	}
}

// Attempts of one task may write the same path at once; the losers are aborted before the group is published.
func TestAttemptsOfOneTask(t *testing.T) {
	b := newBench(t)
	won := b.upload("job", "/out/0", 1)
	create := CreateFile{Path: "/out/0", Lease: "second", BlockSize: chunk, Group: "job", Task: "r-0"}
	lost := b.do(create).(hdfs.FileID)
	require.NotEqual(t, won, lost)
	require.Equal(t, lost, b.do(create), "repeated it is the same one")
	require.Equal(t, []hdfs.Upload{
		{ID: won, Path: "/out/0", Lease: "l", Group: "job", Task: "r-0", Size: 1, Sealed: true},
		{ID: lost, Path: "/out/0", Lease: "second", Group: "job", Task: "r-0"},
	}, b.Uploads("job"))
	b.begin("/out/0", "anybody") // who writes a file there is no matter of the group's
	b.do(AbortUploads{Group: "another", Files: []hdfs.FileID{lost}})
	require.Len(t, b.Uploads("job"), 2, "of its own group only")
	b.do(AbortUploads{Group: "job", Files: []hdfs.FileID{lost, 99}})
	b.do(AbortUploads{Group: "job", Files: []hdfs.FileID{lost}}) // again
	b.refuse(hdfs.ErrLease, "", AddBlock{File: lost, Lease: "second"})
	b.do(Publish{Group: "job", Prefix: "/out", Count: 1, At: t0})
	require.Equal(t, "/ /out/ /out/0:1", b.tree())
}

func TestASealedUpload(t *testing.T) {
	b := newBench(t)
	id := b.do(CreateFile{Path: "/out/0", Lease: "l", BlockSize: chunk, Group: "job"}).(hdfs.FileID)
	last := b.fill(id, "l", chunk)
	seal := CompleteFile{File: id, Lease: "l", Last: last, At: t0}
	require.Equal(t, hdfs.Info{Path: "/out/0", ID: id, Size: chunk, Replication: 3, BlockSize: chunk}, b.do(seal))
	require.Equal(t, b.do(seal), b.do(seal))
	b.refuse(hdfs.ErrLease, "", CompleteFile{File: id, Lease: "another", Last: last})
	b.refuse(hdfs.ErrLease, "", AddBlock{File: id, Lease: "l", Prev: last})
	b.refuse(hdfs.ErrLease, "", Restamp{File: id, Lease: "l", Block: *last})
	known, _ := b.Block(last.ID)
	require.True(t, known.Final)
	b.do(AbortUploads{Group: "job"})
	require.Equal(t, Totals{}, b.Totals())
	b.refuse(hdfs.ErrInvalid, "needs a group", AbortUploads{})
}

// A job without output has an empty folder, and repeating its publication never empties what came there later.
func TestAGroupOfNothing(t *testing.T) {
	b := newBench(t)
	publish := Publish{Group: "job", Prefix: "/a/out", Replace: true, At: t0}
	b.do(publish)
	require.Equal(t, "/ /a/ /a/out/", b.tree())
	b.write("/a/out/later", 1)
	b.do(publish)
	require.Equal(t, "/ /a/ /a/out/ /a/out/later:1", b.tree())
}

// However many parts there are, the entry is a small one.
func TestManyParts(t *testing.T) {
	const parts = 5000
	b := newBench(t)
	for i := range parts {
		b.upload("job", fmt.Sprintf("/out/part-%05d", i), 1)
	}
	b.do(Publish{Group: "job", Prefix: "/out", Count: parts, At: t0})
	require.Equal(t, Totals{hdfs.Usage{Bytes: parts, Files: parts, Folders: 1, Stored: 3 * parts}, parts, 0}, b.Totals())
}

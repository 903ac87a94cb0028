package namespace

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"millrace/hdfs"
)

// t0 is when all tests happen.
var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const chunk = int64(hdfs.ChunkSize)

// failer is what *testing.T and *rapid.T have in common.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// bench is a name space that goes on.
type bench struct {
	failer
	*Tree
}

func newBench(t failer) *bench { return &bench{t, New()} }

// do applies a command that must be accepted.
func (b *bench) do(c Command) any {
	b.Helper()
	tree, result, err := b.Apply(c)
	if err != nil {
		b.Fatalf("%s %+v: %v", c.CommandName(), c, err)
	}
	b.Tree = tree
	return result
}

// refuse applies a command that must be refused with the given error.
func (b *bench) refuse(want error, says string, c Command) {
	b.Helper()
	tree, result, err := b.Apply(c)
	if !errors.Is(err, want) || !strings.Contains(fmt.Sprint(err), says) {
		b.Fatalf("%s %+v: error is %v, not %v … %s", c.CommandName(), c, err, want, says)
	}
	if tree != b.Tree || result != nil {
		b.Fatalf("%s was refused, and gave something", c.CommandName())
	}
}

// begin creates a file with blocks of one chunk.
func (b *bench) begin(path, lease string) hdfs.FileID {
	b.Helper()
	return b.do(CreateFile{Path: path, Lease: lease, BlockSize: chunk}).(hdfs.FileID)
}

// fill writes a file of so many bytes; last is its last block.
func (b *bench) fill(id hdfs.FileID, lease string, size int64) (last *hdfs.Block) {
	b.Helper()
	for ; size > 0; size -= chunk {
		at := b.do(AddBlock{File: id, Lease: lease, Prev: last}).(hdfs.Located)
		at.Size = min(size, chunk)
		last = &at.Block
	}
	return last
}

// write makes a whole file.
func (b *bench) write(path string, size int64) hdfs.FileID {
	b.Helper()
	lease := "writer of " + path[:min(len(path), 200)]
	id := b.begin(path, lease)
	b.do(CompleteFile{File: id, Lease: lease, Last: b.fill(id, lease, size), At: t0})
	return id
}

// upload makes a sealed upload of a group.
func (b *bench) upload(group, path string, size int64) hdfs.FileID {
	b.Helper()
	id := b.do(CreateFile{Path: path, Lease: "l", BlockSize: chunk, Group: group, Task: "r-0"}).(hdfs.FileID)
	b.do(CompleteFile{File: id, Lease: "l", Last: b.fill(id, "l", size), At: t0})
	return id
}

// tree lists all visible paths, folders with a slash, files with their size.
func (b *bench) tree() string {
	b.Helper()
	all, err := b.Walk("/")
	if err != nil {
		b.Fatalf("walk: %v", err)
	}
	var lines []string
	for i := range all {
		if i.Directory {
			lines = append(lines, strings.TrimSuffix(i.Path, "/")+"/")
		} else {
			lines = append(lines, fmt.Sprintf("%s:%d", i.Path, i.Size))
		}
	}
	return strings.Join(lines, " ")
}

func (b *bench) blockIDs() []hdfs.BlockID {
	var ids []hdfs.BlockID
	for one := range b.Blocks(0) {
		ids = append(ids, one.ID)
	}
	return slices.Clip(ids)
}

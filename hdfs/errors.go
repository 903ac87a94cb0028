package hdfs

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// What a caller may decide on. Errors wrap at most one of them, but for ErrLost, and name the path or block.
var (
	ErrNotExist    = fs.ErrNotExist
	ErrExist       = fs.ErrExist
	ErrIsDir       = errors.New("is a folder")
	ErrNotDir      = errors.New("is a file, not a folder")
	ErrNotEmpty    = errors.New("folder is not empty")
	ErrInvalid     = fs.ErrInvalid                             // a path or argument that cannot be
	ErrBusy        = errors.New("is being written by another") // the path has a writer
	ErrChanged     = errors.New("is another file by now")      // than the one that was meant
	ErrLease       = errors.New("lease is over")               // the writer is no longer the file's: it was lost, or ended
	ErrNoNodes     = errors.New("no core node can take the block")
	ErrNoCore      = errors.New("no core node is there or asked for") // files have no place in the cluster, and will have none by waiting
	ErrNoSpace     = errors.New("no room on the disk")
	ErrNoReplica   = errors.New("no replica can be read")                   // every one is away or damaged
	ErrLost        = fmt.Errorf("%w, and none is waited for", ErrNoReplica) // an ErrNoReplica that will not pass by itself
	ErrCorrupt     = errors.New("checksum does not match")
	ErrStale       = errors.New("replica is stale") // another stamp than was asked for
	ErrNoBlock     = errors.New("no such block here")
	ErrUnavailable = errors.New("not available now") // no leader, or a leader that does not know enough yet: repeat
)

// PathError names the path that an error is about.
type PathError struct {
	Op      string // create, open, rename …
	Cluster string // as it was called; "": hdfs:/// means it
	Path    string
	Err     error
}

// Error names what was done to which path, once, though the cause may name it, too: another node may have told of that.
func (e *PathError) Error() string {
	root := "hdfs://" + e.Cluster
	said, path := e.Err.Error(), root+shortened(e.Path)+": "
	for _, called := range []string{root + "/", "hdfs:///"} { // as this one calls the cluster, or as it was called there
		if other, ok := strings.CutPrefix(said, e.Op+" "+called); ok {
			said = root + "/" + other // of two paths it is the other one
			break
		}
	}
	return e.Op + " " + path + strings.TrimPrefix(said, path)
}

func (e *PathError) Unwrap() error { return e.Err }

// shortened keeps a message readable whatever was given as a path.
func shortened(p string) string {
	if len(p) > 200 {
		return p[:200] + "…"
	}
	return p
}

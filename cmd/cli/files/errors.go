package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"

	"millrace/hdfs"
	"millrace/pkg/objectstore"
)

// ErrNoHDFS says that hdfs:// places cannot be used.
var ErrNoHDFS = errors.New("no cluster is known here whose block store that would be")

// NotFoundError names a place that does not exist.
type NotFoundError struct{ Place string }

func (e *NotFoundError) Error() string { return e.Place + " does not exist" }

// ExistsError names a place where there is something already.
type ExistsError struct{ Place string }

func (e *ExistsError) Error() string { return e.Place + " is there already" }

// MissingBucketError names a bucket that does not exist.
type MissingBucketError struct{ Bucket string }

func (e *MissingBucketError) Error() string {
	if cluster, ok := strings.CutPrefix(e.Bucket, objectstore.HDFS); ok {
		return "there is no cluster " + cluster
	}
	return "there is no bucket s3://" + e.Bucket
}

// FolderError says that a folder was named where only -r takes one, or none at all.
type FolderError struct{ Place string }

func (e *FolderError) Error() string { return e.Place + " is a folder" }

// NotFolderError says that a place would need a folder, or be one, where there is a file.
type NotFolderError struct {
	Place string
	File  string // "" if it was not found again
}

func (e *NotFolderError) Error() string {
	switch e.File {
	case "":
		return e.Place + " is no folder, or lies below none"
	case strings.TrimRight(e.Place, "/"):
		return e.File + " is a file, not a folder"
	}
	return fmt.Sprintf("%s lies below %s, which is a file", e.Place, e.File)
}

// StaysError names a part of a block store that is neither moved nor removed.
type StaysError struct{ Place, What string }

func (e *StaysError) Error() string { return fmt.Sprintf("%s is %s, which stays", e.Place, e.What) }

// SchemeError says that a URL was mistyped; a local file of that name is ./s3:….
type SchemeError struct{ Place, Meant string }

func (e *SchemeError) Error() string { return e.Place + " is no URL: its scheme lacks //" }

// OntoItselfError says that what is to be copied, or moved, would land on itself, or a folder inside itself.
type OntoItselfError struct {
	From, To string
	Move     bool
}

func (e *OntoItselfError) Error() string {
	done := "copied"
	if e.Move {
		done = "moved"
	}
	if e.From == e.To {
		return fmt.Sprintf("%s would be %s onto itself", e.From, done)
	}
	return fmt.Sprintf("%s would be %s onto or into itself: %s", e.From, done, e.To)
}

// hdfsError says what is wrong with a place in a block store, in the words of this package where it has some.
func hdfsError(ctx context.Context, c Cluster, p Place, err error) error {
	switch {
	case errors.Is(err, hdfs.ErrNotExist):
		return &NotFoundError{p.String()}
	case errors.Is(err, hdfs.ErrNotDir):
		return &NotFolderError{p.String(), p.fileAbove(func(above string) (bool, error) {
			info, err := c.Stat(ctx, above)
			return err == nil && !info.Directory, err
		})}
	}
	return err
}

// localError does so for a path on this machine.
func localError(p Place, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return &NotFoundError{p.String()}
	case errors.Is(err, syscall.ENOTDIR):
		return &NotFolderError{p.String(), p.fileAbove(func(above string) (bool, error) {
			st, err := os.Stat(above)
			return err == nil && !st.IsDir(), err
		})}
	}
	return err
}

// fileAbove finds the file at or above a place that keeps it from being, or lying in, a folder; "" if there is none (any more).
func (p Place) fileAbove(isFile func(path string) (bool, error)) string {
	at := path.Clean(p.Path)
	if p.HDFS() {
		at = p.path()
	}
	for ; at != "/" && at != "."; at = path.Dir(at) {
		switch file, err := isFile(at); {
		case file && p.HDFS():
			return p.at(at).String()
		case file:
			return at
		case err == nil:
			return ""
		}
	}
	return ""
}

// about says which copy failed, as far as the error does not name its places itself.
func (t Task) about(err error) error {
	said, from, to := err.Error(), t.From.String(), t.To.String()
	switch {
	case names(said, from) && names(said, to):
		return err
	case names(said, from):
		return fmt.Errorf("copy to %s: %w", to, err)
	case names(said, to):
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return fmt.Errorf("copy %s to %s: %w", from, to, err)
}

// names says whether a message has a place's name in it as a word of its own.
func names(said, place string) bool {
	for rest, at := said, 0; ; rest = rest[at+len(place):] {
		if at = strings.Index(rest, place); at < 0 {
			return false
		}
		before, after := said[:len(said)-len(rest)+at], rest[at+len(place):]
		if (before == "" || strings.HasSuffix(before, " ")) && (after == "" || strings.ContainsAny(after[:1], " :,;)")) {
			return true
		}
	}
}

// Package files copies, lists and removes files and objects alike: a place is
// a path on this machine, s3://bucket/key, or hdfs:///path in a cluster's block store. It owns how names map from one to
// the other, and that nothing half-copied is ever seen.
package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"millrace/pkg/objectstore"
)

// Place is where a file is: in a bucket, or on this machine.
type Place struct {
	Bucket string // "" = local
	Path   string // object key, or local path
	all    bool   // s3:// alone: all buckets
}

// Parse reads a place: s3:// (also s3a://, s3n://), file://, or a local path.
func Parse(s string) (Place, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		if s == "" {
			return Place{}, errors.New("an empty path names nothing")
		}
		if scheme, rest, ok := strings.Cut(s, ":"); ok && slices.Contains([]string{"s3", "s3a", "s3n", "hdfs"}, scheme) {
			slashes := "://"
			if scheme == "hdfs" {
				slashes = ":///" // the path begins with one of its own
			}
			return Place{}, &SchemeError{s, scheme + slashes + strings.TrimLeft(rest, "/")}
		}
		return Place{Path: s}, nil
	}
	switch scheme {
	case "s3", "s3a", "s3n", "hdfs":
		if rest == "" && scheme != "hdfs" {
			return Place{all: true}, nil
		}
		u, err := objectstore.ParseURL(s)
		if err != nil {
			return Place{}, err
		}
		return Place{Bucket: u.Bucket, Path: u.Key}, nil
	case "file":
		return Place{Path: rest}, nil
	}
	return Place{}, fmt.Errorf("%s: unknown scheme %q: s3://bucket/key, hdfs:///path or a local path", s, scheme)
}

// Remote says whether the place is in an object store or a block store.
func (p Place) Remote() bool { return p.Bucket != "" || p.all }

// Buckets says whether the place is the list of all buckets.
func (p Place) Buckets() bool { return p.all }

func (p Place) String() string {
	if p.all {
		return "s3://"
	}
	if p.Bucket != "" {
		return objectstore.URL{Bucket: p.Bucket, Key: p.Path}.String()
	}
	return p.Path
}

// folderish says whether the place is written as a folder: with a slash at the end, or a bucket alone.
func (p Place) folderish() bool {
	if p.Bucket != "" {
		return p.Path == "" || strings.HasSuffix(p.Path, "/")
	}
	return strings.HasSuffix(p.Path, "/")
}

// within says whether the place is a folder or lies below it.
func (p Place) within(folder Place) bool {
	if p.Remote() || folder.Remote() {
		return p.Bucket == folder.Bucket && strings.HasPrefix(folderKey(p.Path), folderKey(folder.Path))
	}
	at, err := filepath.Abs(p.Path)
	if err != nil {
		return false
	}
	root, err := os.Stat(folder.Path)
	for ; err == nil; at = filepath.Dir(at) {
		if st, statErr := os.Stat(at); statErr == nil && os.SameFile(root, st) {
			return true
		}
		if at == filepath.Dir(at) {
			break
		}
	}
	return false
}

// base is the last element of its name.
func (p Place) base() string {
	if p.Bucket != "" {
		if b := path.Base("/" + strings.TrimRight(p.Path, "/")); b != "/" {
			return b
		}
		return p.Bucket
	}
	abs, err := filepath.Abs(p.Path)
	if err != nil {
		return filepath.Base(p.Path)
	}
	return filepath.Base(abs)
}

// join is the place of a relative slash-separated name below p. A name that would lead out of p is refused.
func (p Place) join(name string) (Place, error) {
	if p.Bucket != "" {
		prefix := p.Path
		if prefix != "" && !strings.HasSuffix(prefix, "/") {
			prefix += "/"
		}
		return Place{Bucket: p.Bucket, Path: prefix + name}, nil
	}
	local := filepath.FromSlash(name)
	if !filepath.IsLocal(local) {
		return Place{}, fmt.Errorf("the name %q would lead out of %s", name, p.Path)
	}
	return Place{Path: filepath.Join(p.Path, local)}, nil
}

// Entry is a file, an object or a folder.
type Entry struct {
	Place Place
	objectstore.Object
	Dir         bool
	Replication int    // of files in a block store: wanted
	rel         string // slash-separated, below what was walked
}

// Files works on places.
type Files struct {
	// Store gives the object store; called only when a place there is used.
	Store func() (objectstore.Store, error)
	// Cluster gives the block store that a bucket, hdfs:// or hdfs://NAME, stands for; called only when a place there is used.
	Cluster func(bucket string) (Cluster, error)
	// Replication is on how many nodes the blocks of new files in a block store shall lie; 0 means its default.
	Replication int
	// BlockSize is the length in bytes of new files' blocks there; 0 means its default.
	BlockSize int64
	// SkipTrash has what is removed from a block store gone at once.
	SkipTrash bool
	// Parallel is how many files are copied at once; 0 means 8.
	Parallel int
}

// Stat says what a place is. A prefix that holds objects is a folder.
func (f *Files) Stat(ctx context.Context, p Place) (Entry, error) {
	if !p.Remote() {
		st, err := os.Stat(p.Path)
		if err != nil {
			return Entry{}, localError(p, err)
		}
		return localEntry(p, st), nil
	}
	if p.HDFS() {
		return f.statHDFS(ctx, p)
	}
	s, err := f.Store()
	if err != nil {
		return Entry{}, err
	}
	if p.all {
		return Entry{Place: p, Dir: true}, nil
	}
	if p.Path != "" && !strings.HasSuffix(p.Path, "/") {
		o, err := s.Head(ctx, p.Bucket, p.Path)
		if err == nil {
			return Entry{Place: p, Object: o}, nil
		}
		if !errors.Is(err, objectstore.ErrNotExist) {
			return Entry{}, f.bucketError(p, err)
		}
	}
	prefix := folderKey(p.Path)
	for _, err := range s.List(ctx, p.Bucket, prefix, objectstore.ListOptions{Max: 1}) {
		if err != nil {
			return Entry{}, f.bucketError(p, err)
		}
		return Entry{Place: Place{Bucket: p.Bucket, Path: prefix}, Dir: true}, nil
	}
	if ok, err := s.BucketExists(ctx, p.Bucket); err != nil {
		return Entry{}, err
	} else if !ok {
		return Entry{}, &MissingBucketError{p.Bucket}
	}
	if p.Path == "" {
		return Entry{Place: p, Dir: true}, nil
	}
	return Entry{}, &NotFoundError{p.String()}
}

func localEntry(p Place, st fs.FileInfo) Entry {
	e := Entry{Place: p, Dir: st.IsDir(), Object: objectstore.Object{Key: p.Path, ModifiedAt: st.ModTime()}}
	if !e.Dir {
		e.Size = st.Size()
	}
	return e
}

func folderKey(key string) string {
	if key == "" || strings.HasSuffix(key, "/") {
		return key
	}
	return key + "/"
}

// bucketError names the bucket when that is what is missing.
func (f *Files) bucketError(p Place, err error) error {
	if errors.Is(err, objectstore.ErrNoSuchBucket) {
		return &MissingBucketError{p.Bucket}
	}
	return err
}

// Expand resolves a glob (*, ?, […], **, {a,b}) in a remote place to what it
// matches; a place without one, or that exists as it is written, is itself.
func (f *Files) Expand(ctx context.Context, p Place) ([]Place, error) {
	meta := strings.IndexAny(p.Path, `*?[{`)
	if p.Bucket == "" || meta < 0 {
		return []Place{p}, nil
	}
	if !doublestar.ValidatePattern(p.Path) {
		return nil, fmt.Errorf("%s is not a glob that can be read", p)
	}
	if p.HDFS() {
		return f.expandHDFS(ctx, p, meta)
	}
	s, err := f.Store()
	if err != nil {
		return nil, err
	}
	if _, err := s.Head(ctx, p.Bucket, p.Path); err == nil {
		return []Place{p}, nil
	}
	var found []Place
	for o, err := range s.List(ctx, p.Bucket, p.Path[:meta], objectstore.ListOptions{}) {
		if err != nil {
			return nil, f.bucketError(p, err)
		}
		if doublestar.MatchUnvalidated(p.Path, o.Key) {
			found = append(found, Place{Bucket: p.Bucket, Path: o.Key})
		}
	}
	if len(found) == 0 {
		return nil, &NotFoundError{p.String()}
	}
	return found, nil
}

// Package input owns input formats and splits: it lists what a job reads, cuts it
// into splits, and reads the records of a split.
//
// It reads through two small interfaces, Lister and Ranger, which
// objectstore.Store satisfies. It knows nothing of tasks, attempts or programs.
package input

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"

	"github.com/bmatcuk/doublestar/v4"
	"golang.org/x/sync/errgroup"

	"millrace/jobs"
	"millrace/pkg/objectstore"
)

// Lister is what listing needs of an object store.
type Lister interface {
	List(ctx context.Context, bucket, prefix string, o objectstore.ListOptions) iter.Seq2[objectstore.Object, error]
	Head(ctx context.Context, bucket, key string) (objectstore.Object, error)
}

// Object is one input object.
type Object struct {
	Bucket, Key, ETag string
	Size              int64
	Inputs            int    // how many of the job's inputs match it
	Name              string // of a file to be copied: what follows the input's folder
}

// FileBucket is the bucket that local files appear in to code that knows object
// stores only; their keys are absolute paths. No store allows the name to be made today.
const FileBucket = "Local.Files"

// URL names the object for people: s3://bucket/key, or a local file's path.
func (o Object) URL() string { return objectURL(o.Bucket, o.Key) }

func objectURL(bucket, key string) string {
	if bucket == FileBucket {
		return key
	}
	return objectstore.URL{Bucket: bucket, Key: key}.String()
}

// NoMatchError says that an input matches nothing.
type NoMatchError struct{ Input string }

func (e *NoMatchError) Error() string { return "input " + e.Input + " matches nothing" }

// Notes are what people should know of the objects that a job reads.
func Notes(objects []Object) []string {
	shared, most := 0, 0
	for _, o := range objects {
		if o.Inputs > 1 {
			shared++
			most = max(most, o.Inputs)
		}
	}
	if shared == 0 {
		return nil
	}
	what, times := "1 object is", "two inputs"
	if shared > 1 {
		what = fmt.Sprintf("%d objects are", shared)
	}
	if most > 2 {
		times = fmt.Sprintf("up to %d inputs", most)
	}
	return []string{fmt.Sprintf("input: %s matched by %s: each is read once", what, times)}
}

// listedAtOnce bounds the inputs that are listed at the same time.
const listedAtOnce = 8

// List resolves inputs to objects, each once: inputs in the order given, the
// objects of each in key order. An input is the key itself, else all below it
// as a prefix, else a glob (* ? [..] ** {a,b}; * does not cross a slash, a glob
// that ends in a slash means all below, and so does one that matches no key but
// only what stands before a slash). Below an input's fixed part, keys
// with a path segment that begins with _ or . are skipped, and folder markers
// are no objects. An empty object is one.
//
// It returns *NoMatchError for an input that matches nothing, and the store's errors
// (objectstore.ErrNoSuchBucket, …) wrapped with the input.
func List(ctx context.Context, s Lister, inputs []string) ([]Object, error) {
	return list(ctx, s, inputs, hidden)
}

// ListFiles is List for a job that copies files: names that begin with _ or . are files as all others, and each object
// has its Name, by which two are never called the same.
func ListFiles(ctx context.Context, s Lister, inputs []string) ([]Object, error) {
	all, err := list(ctx, s, inputs, func(string) bool { return false })
	if err != nil {
		return nil, err
	}
	taken := make(map[string]int, len(all))
	for i, o := range all {
		if first, twice := taken[o.Name]; twice {
			return nil, fmt.Errorf("%w: %s and %s would both be called %s: copy them to two places", objectstore.ErrInvalid, all[first].URL(), o.URL(), o.Name)
		}
		taken[o.Name] = i
	}
	return all, nil
}

// ListFor is the one of List and ListFiles that a job's input format asks for.
func ListFor(ctx context.Context, s Lister, inputs []string, format string) ([]Object, error) {
	if format == jobs.FormatFiles {
		return ListFiles(ctx, s, inputs)
	}
	return List(ctx, s, inputs)
}

func list(ctx context.Context, s Lister, inputs []string, hidden func(path string) bool) ([]Object, error) {
	found := make([][]Object, len(inputs))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(listedAtOnce)
	for i, in := range inputs {
		group.Go(func() error {
			var err error
			found[i], err = listOne(ctx, s, in, hidden)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if len(found) == 1 {
		return found[0], nil
	}
	type place struct{ bucket, key string }
	seen := map[place]int{} // where in all
	var all []Object
	for _, objects := range found {
		for _, o := range objects {
			p := place{o.Bucket, o.Key}
			i, again := seen[p]
			if !again {
				i = len(all)
				seen[p] = i
				all = append(all, o)
			}
			all[i].Inputs++
		}
	}
	return all, nil
}

func listOne(ctx context.Context, s Lister, in string, hidden func(path string) bool) ([]Object, error) {
	u, err := objectstore.ParseURL(in)
	if err != nil {
		return nil, fmt.Errorf("input %w", err)
	}
	wrap := func(err error) error { return fmt.Errorf("input %s: %w", in, err) }
	folder := u.Key == "" || strings.HasSuffix(u.Key, "/")
	if !folder {
		o, err := s.Head(ctx, u.Bucket, u.Key)
		if err == nil {
			return named([]Object{{Bucket: u.Bucket, Key: u.Key, ETag: o.ETag, Size: o.Size}}, u.Key), nil
		}
		if !errors.Is(err, objectstore.ErrNotExist) {
			return nil, wrap(err)
		}
	}
	var objects []Object
	base := u.Key
	if fixed := fixedPart(u.Key); fixed != u.Key {
		base = fixed
		objects, err = listGlob(ctx, s, u, fixed, hidden)
		if err != nil {
			return nil, wrap(err)
		}
	}
	if len(objects) == 0 {
		prefix := u.Key
		if !folder {
			prefix += "/"
		}
		base = prefix
		objects, err = collect(ctx, s, u.Bucket, prefix, func(key string) bool { return !hidden(key[len(prefix):]) })
		if err != nil {
			return nil, wrap(err)
		}
	}
	if len(objects) == 0 {
		return nil, &NoMatchError{Input: in}
	}
	return named(objects, base), nil
}

// named gives objects their names below the folder that a key is in.
func named(objects []Object, key string) []Object {
	folder := strings.LastIndexByte(key, '/') + 1
	for i := range objects {
		objects[i].Name = objects[i].Key[folder:]
	}
	return objects
}

// fixedPart is what stands before the first character of a glob that means
// something; the whole of a key without any.
func fixedPart(key string) string {
	if i := strings.IndexAny(key, `*?[{\`); i >= 0 {
		return key[:i]
	}
	return key
}

// listGlob lists from the longest fixed prefix and keeps what matches.
func listGlob(ctx context.Context, s Lister, u objectstore.URL, fixed string, hidden func(path string) bool) ([]Object, error) {
	pattern := u.Key
	if strings.HasSuffix(pattern, "/") {
		pattern += "**/*"
	}
	if !doublestar.ValidatePattern(pattern) {
		return nil, fmt.Errorf("%q is not a valid glob", u.Key)
	}
	base := strings.LastIndexByte(fixed, '/') + 1
	var below atomic.Bool
	match := func(key string) bool { return doublestar.MatchUnvalidated(pattern, key) }
	objects, err := collect(ctx, s, u.Bucket, fixed, func(key string) bool {
		switch {
		case hidden(key[base:]):
			return false
		case match(key):
			return true
		}
		if !below.Load() && anyFolder(key, len(fixed), match) {
			below.Store(true)
		}
		return false
	})
	if err != nil || len(objects) > 0 || !below.Load() {
		return objects, err
	}
	return collect(ctx, s, u.Bucket, fixed, func(key string) bool {
		return !hidden(key[base:]) && anyFolder(key, len(fixed), match)
	})
}

// anyFolder says whether one of the folders that a key lies in matches, of
// those whose names have at least so many bytes.
func anyFolder(key string, least int, match func(string) bool) bool {
	for i := least; i < len(key); i++ {
		if key[i] == '/' && match(key[:i]) {
			return true
		}
	}
	return false
}

// collect lists what is to be kept. keep may be called by many goroutines at once.
func collect(ctx context.Context, s Lister, bucket, prefix string, keep func(key string) bool) ([]Object, error) {
	objects, err := objectstore.ListAll(ctx, s, bucket, prefix, func(o objectstore.Object) (Object, bool) {
		return Object{Bucket: bucket, Key: o.Key, ETag: o.ETag, Size: o.Size}, !o.Prefix && !strings.HasSuffix(o.Key, "/") && keep(o.Key)
	})
	if errors.Is(err, objectstore.ErrNotExist) { // a folder of a block store that is not there
		return nil, nil
	}
	return objects, err
}

// hidden says whether a path segment begins with _ or . (Hadoop's rule).
func hidden(path string) bool {
	start := true
	for i := range len(path) {
		if start && (path[i] == '_' || path[i] == '.') {
			return true
		}
		start = path[i] == '/'
	}
	return false
}

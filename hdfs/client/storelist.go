package client

import (
	"context"
	"errors"
	"iter"
	"path"
	"strings"

	"millrace/hdfs"
	"millrace/pkg/objectstore"
)

// List is Store's. Keys come in the order of their bytes, which is not that of a walk: a-b is before a/c. What goes
// while it lists may be left out.
func (s *Store) List(ctx context.Context, bucket, prefix string, o objectstore.ListOptions) iter.Seq2[objectstore.Object, error] {
	return func(yield func(objectstore.Object, error) bool) {
		r, err := s.about(ctx, "list", bucket, prefix)
		if err != nil {
			yield(objectstore.Object{}, err)
			return
		}
		l := &listing{request: r, delimiter: o.Delimiter, left: -1, page: page, yield: yield}
		if o.Max > 0 {
			l.left, l.page = o.Max, min(max(o.Max, leastPage), page)
		}
		cut := strings.LastIndexByte(prefix, '/') + 1
		folder, after := prefix[:cut], o.StartAfter
		switch {
		case strings.HasPrefix(after, folder):
			after = after[cut:]
		case after > folder:
			return // all below the folder is before it
		default:
			after = ""
		}
		if folder == "" || folder != "/" && path.Clean("/"+folder)+"/" == "/"+folder { // else nothing can be there
			l.folder(folder, prefix[cut:], after)
		}
	}
}

// leastPage is how many entries are asked for at once when fewer are wanted: some may be no objects.
const leastPage = 16

// listing is one under way.
type listing struct {
	*request
	delimiter bool
	left      int // how many more; negative: all
	page      int
	yield     func(objectstore.Object, error) bool
}

// give yields one and says whether to go on.
func (l *listing) give(o objectstore.Object) bool {
	l.left--
	return l.yield(o, nil) && l.left != 0
}

// folder lists the keys below a folder (with its slash, or "") that begin with a prefix and come after another key,
// both without the folder's part. It says whether to go on.
func (l *listing) folder(folder, prefix, after string) bool {
	// A folder a has its place among the names at "a/", behind a-b. Those that wait for their place all begin with
	// the one before them, so the last one is always the next.
	var waiting []string
	until := func(name string) bool {
		for n := len(waiting) - 1; n >= 0 && (name == "" || waiting[n]+"/" < name); n-- {
			next := waiting[n]
			waiting = waiting[:n]
			if !l.below(folder, next+"/", after) {
				return false
			}
		}
		return true
	}
	for info, err := range l.entries("/"+strings.TrimSuffix(folder, "/"), prefix, after) {
		if err != nil {
			l.yield(objectstore.Object{}, l.failed(err))
			return false
		}
		name := base(info.Path)
		if !strings.HasPrefix(name, prefix) {
			break // and so are all behind it
		}
		if !until(name) {
			return false
		}
		switch {
		case info.Directory:
			waiting = append(waiting, name)
		case name > after:
			if !l.give(object(info)) {
				return false
			}
		}
	}
	return until("")
}

// below lists a folder in a folder, its name with the slash.
func (l *listing) below(folder, name, after string) bool {
	deeper, within := strings.CutPrefix(after, name)
	switch {
	case l.delimiter:
		return name <= after || l.give(objectstore.Object{Key: folder + name, Prefix: true})
	case within:
		return l.folder(folder+name, "", deeper)
	case name > after:
		return l.folder(folder+name, "", "")
	}
	return true
}

// entries yields the entries of a folder in the order of their names, those that begin with the prefix and can have
// keys after one, and maybe some before and behind.
func (l *listing) entries(folder, prefix, after string) iter.Seq2[hdfs.Info, error] {
	return func(yield func(hdfs.Info, error) bool) {
		// The name space gives names behind another one: what is at that one, and folders whose place is behind it
		// though their names are before, are asked for one by one.
		at := prefix
		var first []string
		if after > prefix {
			at, _, _ = strings.Cut(after, "/")
			for i := max(1, len(prefix)); i < len(at); i++ {
				if at[i] < '/' {
					first = append(first, at[:i])
				}
			}
		}
		if at != "" {
			first = append(first, at)
		}
		for _, name := range first {
			info, err := l.files.Stat(l.ctx, folder+"/"+name)
			if gone(err) || errors.Is(err, hdfs.ErrInvalid) {
				continue
			}
			if !yield(info, err) || err != nil {
				return
			}
		}
		for info, err := range l.files.list(l.ctx, folder, at, l.page) {
			if gone(err) || errors.Is(err, hdfs.ErrInvalid) || !yield(info, err) {
				return
			}
		}
	}
}

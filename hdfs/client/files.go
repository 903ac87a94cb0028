package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"time"

	"go.uber.org/zap"

	"millrace/hdfs"
)

// Config is what Files need: Names, and Dialer or Blocks.
type Config struct {
	Names  Names
	Dialer Dialer // of the connections to the nodes
	Blocks Blocks // another way to the nodes' blocks, instead of Dialer's connections
	// Cluster is what the cluster is called in errors: hdfs://NAME; "": hdfs:/// means it.
	Cluster string
	Node    string // the node that this runs on: its replicas are preferred; "" if it is none
	// Patience is how long a name space without a leader, or a block that nobody can give, is asked for again.
	// 0 means 30 s, less than 0 not at all.
	Patience time.Duration
	Log      *zap.Logger // may be nil
}

// Files are the files of one cluster. All methods may be called at once.
type Files struct{ cfg Config }

// New checks what it is given, and starts nothing.
func New(c Config) (*Files, error) {
	if c.Names == nil || c.Dialer == nil && c.Blocks == nil {
		return nil, errors.New("hdfs client: a name space and a way to the nodes are needed")
	}
	if c.Patience == 0 {
		c.Patience = usualPatience
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Blocks == nil {
		c.Blocks = &connections{c.Names, c.Dialer, c.Cluster, c.Log}
	}
	return &Files{c}, nil
}

// Stat describes a file or folder.
func (f *Files) Stat(ctx context.Context, path string) (info hdfs.Info, err error) {
	err = f.on(ctx, "stat", path, func(path string, _ bool) error {
		info, err = f.cfg.Names.Stat(ctx, path)
		return err
	})
	return info, err
}

// on asks the name space something about a path.
func (f *Files) on(ctx context.Context, op, path string, ask func(path string, again bool) error) error {
	clean, err := hdfs.CleanPath(path)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return f.named(op, clean, f.retry(ctx, func(again bool) error { return ask(clean, again) }))
}

// named has an error name its path, unless it does.
func (f *Files) named(op, path string, err error) error {
	var known *hdfs.PathError
	if err == nil || errors.As(err, &known) {
		return err
	}
	return &hdfs.PathError{Op: op, Cluster: f.cfg.Cluster, Path: path, Err: err}
}

// page is how many entries are asked for at once.
const page = 1000

// List yields the entries of a folder in the order of their names' bytes, those after a name, page by page. An error is
// the last item.
func (f *Files) List(ctx context.Context, path, after string) iter.Seq2[hdfs.Info, error] {
	return f.list(ctx, path, after, page)
}

func (f *Files) list(ctx context.Context, path, after string, page int) iter.Seq2[hdfs.Info, error] {
	return func(yield func(hdfs.Info, error) bool) {
		for {
			var found []hdfs.Info
			err := f.on(ctx, "list", path, func(path string, _ bool) (err error) {
				found, err = f.cfg.Names.List(ctx, path, after, page)
				return err
			})
			if err != nil {
				yield(hdfs.Info{}, err)
				return
			}
			for _, info := range found {
				if !yield(info, nil) {
					return
				}
				after = base(info.Path)
			}
			if len(found) < page {
				return
			}
		}
	}
}

// Walk yields a path and all below it, folders before what is in them. What goes while it walks is left out. An error is the
// last item.
func (f *Files) Walk(ctx context.Context, path string) iter.Seq2[hdfs.Info, error] {
	return func(yield func(hdfs.Info, error) bool) {
		info, err := f.Stat(ctx, path)
		if err != nil {
			yield(info, err)
			return
		}
		f.walk(ctx, info, yield)
	}
}

func (f *Files) walk(ctx context.Context, info hdfs.Info, yield func(hdfs.Info, error) bool) bool {
	if !yield(info, nil) {
		return false
	}
	if !info.Directory {
		return true
	}
	for below, err := range f.List(ctx, info.Path, "") {
		switch {
		case gone(err):
			return true
		case err != nil:
			yield(below, err)
			return false
		case !f.walk(ctx, below, yield):
			return false
		}
	}
	return true
}

// gone says that a folder is none any more.
func gone(err error) bool { return errors.Is(err, hdfs.ErrNotExist) || errors.Is(err, hdfs.ErrNotDir) }

// Usage sums up all below a path.
func (f *Files) Usage(ctx context.Context, path string) (u hdfs.Usage, err error) {
	err = f.on(ctx, "usage", path, func(path string, _ bool) error {
		u, err = f.cfg.Names.Usage(ctx, path)
		return err
	})
	return u, err
}

// Mkdir makes a folder and those above it; one that is there is no error.
func (f *Files) Mkdir(ctx context.Context, path string) error {
	return f.on(ctx, "mkdir", path, func(path string, _ bool) error { return f.cfg.Names.Mkdir(ctx, path) })
}

// Rename moves a file or folder to a path that is not there yet. The folders above it are made.
func (f *Files) Rename(ctx context.Context, from, to string) error {
	clean, err := hdfs.CleanPath(to)
	if err != nil {
		return fmt.Errorf("rename: %w", err)
	}
	moved, err := f.Stat(ctx, from)
	if err != nil {
		return err
	}
	return f.on(ctx, "rename", from, func(from string, again bool) error {
		err := f.cfg.Names.Rename(ctx, from, clean)
		if again && errors.Is(err, hdfs.ErrNotExist) { // was it the request before?
			if at, statErr := f.cfg.Names.Stat(ctx, clean); statErr == nil && at.ID == moved.ID {
				return nil
			}
		}
		return err
	})
}

// Remove deletes a file, or a folder: an empty one unless recursive. It goes to the trash unless skipTrash.
func (f *Files) Remove(ctx context.Context, path string, recursive, skipTrash bool) error {
	return f.on(ctx, "remove", path, func(path string, again bool) error {
		err := f.cfg.Names.Remove(ctx, path, recursive, skipTrash)
		if again && errors.Is(err, hdfs.ErrNotExist) {
			return nil // the request before did it
		}
		return err
	})
}

// RemoveIf deletes a file for good if it is still the one of this id: hdfs.ErrChanged.
func (f *Files) RemoveIf(ctx context.Context, path string, id hdfs.FileID) error {
	return f.on(ctx, "remove", path, func(path string, again bool) error {
		err := f.cfg.Names.RemoveIf(ctx, path, id)
		if again && errors.Is(err, hdfs.ErrNotExist) {
			return nil // the request before did it
		}
		return err
	})
}

// SetReplication says on how many nodes a file's blocks shall lie.
func (f *Files) SetReplication(ctx context.Context, path string, n int) error {
	return f.on(ctx, "set replication", path, func(path string, _ bool) error { return f.cfg.Names.SetReplication(ctx, path, n) })
}

// Create begins a file, which is there, or replaces another one, when the writer is closed. Without a lease it gets
// one. The context is the writer's whole life.
func (f *Files) Create(ctx context.Context, c hdfs.Create) (FileWriter, error) {
	id, c, err := f.begin(ctx, c)
	if err != nil {
		return nil, err
	}
	w, err := f.cfg.Blocks.Append(ctx, id, c)
	return w, f.named("create", c.Path, err)
}

// begin has the name space begin a file.
func (f *Files) begin(ctx context.Context, c hdfs.Create) (id hdfs.FileID, _ hdfs.Create, err error) {
	if c.Lease == "" {
		c.Lease = rand.Text()
	}
	err = f.on(ctx, "create", c.Path, func(path string, _ bool) error {
		c.Path = path
		id, err = f.cfg.Names.Create(ctx, c)
		return err
	})
	return id, c, err
}

// base is the last name of a canonical path.
func base(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return path[i+1:]
		}
	}
	return path
}

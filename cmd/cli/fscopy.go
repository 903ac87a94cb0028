package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"millrace/cmd/cli/files"
)

func fsPut(c *call) error {
	if err := c.newFiles(); err != nil {
		return err
	}
	from, to := c.args[:len(c.args)-1], c.args[len(c.args)-1]
	target, err := c.place(to)
	if err != nil {
		return err
	}
	if !target.Remote() {
		return usagef(fmt.Sprintf("millrace fs cp … %s for copies on this machine", to), "%s is on this machine: fs put FILE… s3://BUCKET/… or hdfs:///…", to)
	}
	if slices.Contains(from, "-") {
		if len(from) > 1 {
			return usagef("millrace fs put - "+to, "- (standard input) goes alone")
		}
		return c.putStdin(target)
	}
	return c.transfer(from, target, false)
}

func (c *call) putStdin(to files.Place) error {
	f := c.files()
	if to.Path == "" || strings.HasSuffix(to.Path, "/") {
		return usagef("millrace fs put - "+under(to.String(), "NAME"), "standard input has no name, and %s is a folder", to)
	}
	var n atomic.Int64
	started := time.Now()
	if err := f.Write(c.Context.Context, to, &countingReader{c.env.Stdin, &n}, -1); err != nil {
		return fsFault(err)
	}
	return c.transferred(1, n.Load(), time.Since(started), to)
}

type countingReader struct {
	io.Reader
	n *atomic.Int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n.Add(int64(n))
	return n, err
}

func fsGet(c *call) error {
	from, to := c.args, "."
	if len(c.args) > 1 {
		from, to = c.args[:len(c.args)-1], c.args[len(c.args)-1]
	}
	for _, s := range from {
		if p, err := c.place(s); err != nil {
			return err
		} else if !p.Remote() {
			return usagef("millrace fs get s3://BUCKET/KEY "+to, "%s is on this machine: fs get s3://… DIR, or hdfs:///… DIR", s)
		}
	}
	if to == "-" {
		return c.cat(from)
	}
	target, err := c.place(to)
	if err != nil {
		return err
	}
	if target.Remote() {
		return usagef("millrace fs cp "+strings.Join(c.args, " "), "%s is not on this machine: fs get URL… DIR", to)
	}
	return c.transfer(from, target, false)
}

func fsCopy(c *call) error { return c.copyOrMove(false) }
func fsMove(c *call) error { return c.copyOrMove(true) }

func (c *call) copyOrMove(move bool) error {
	if err := c.newFiles(); err != nil {
		return err
	}
	from, to := c.args[:len(c.args)-1], c.args[len(c.args)-1]
	switch {
	case slices.Contains(c.args, "-") && (move || len(from) > 1):
		return usagef("millrace fs cp - URL, or millrace fs cp URL -", "- goes alone, and only with cp")
	case from[0] == "-":
		target, err := c.place(to)
		if err != nil {
			return err
		}
		return c.putStdin(target)
	case to == "-":
		return c.cat(from)
	}
	target, err := c.place(to)
	if err != nil {
		return err
	}
	return c.transfer(from, target, move)
}

// transfer copies sources to a target, and with move removes them afterwards.
func (c *call) transfer(from []string, to files.Place, move bool) error {
	f := c.files()
	places, err := c.places(f, from)
	if err != nil {
		return err
	}
	if to.Buckets() {
		return usagef("write s3://BUCKET/…", "s3:// alone names no bucket to copy to")
	}
	if move && to.HDFS() && !slices.ContainsFunc(places, func(p files.Place) bool { return p.Bucket != to.Bucket }) {
		return c.rename(f, places, to)
	}
	if to.Remote() && !to.HDFS() { // before anything is read: the usual mistake
		s, err := f.Store()
		if err != nil {
			return err
		}
		if ok, err := s.BucketExists(c.Context.Context, to.Bucket); err != nil {
			return err
		} else if !ok {
			return fsFault(&files.MissingBucketError{Bucket: to.Bucket})
		}
	}
	tasks, err := f.Plan(c.Context.Context, places, to, c.Bool("recursive"))
	if err != nil {
		return fsFault(err)
	}
	var total int64
	for _, t := range tasks {
		total += t.Size
	}
	if !move {
		if done, err := c.copyOnCluster(places, to, tasks, total); done || err != nil {
			return err
		}
	}
	started := time.Now()
	var done atomic.Int64
	stop := c.showBytes("copying", total, &done)
	err = f.Copy(c.Context.Context, tasks, &done)
	stop()
	if err != nil {
		return fsFault(err)
	}
	if move {
		if err := c.removeMoved(f, places, tasks); err != nil {
			return fsFault(err)
		}
	}
	return c.transferred(filesOf(tasks), done.Load(), time.Since(started), to)
}

// filesOf counts the files among tasks.
func filesOf(tasks []files.Task) (n int) {
	for _, t := range tasks {
		if !t.Folder {
			n++
		}
	}
	return n
}

// removeMoved removes the files that were copied, and the folders that have nothing in them then.
func (c *call) removeMoved(f *files.Files, from []files.Place, tasks []files.Task) error {
	for _, t := range tasks {
		if t.Folder {
			continue
		}
		if _, err := f.Remove(c.Context.Context, t.From, false); err != nil {
			return err
		}
	}
	for _, p := range from {
		var missing *files.NotFoundError
		e, err := f.Stat(c.Context.Context, p)
		if err == nil && e.Dir {
			err = f.RemoveEmpty(c.Context.Context, p)
		}
		if err != nil && !errors.As(err, &missing) {
			return err
		}
	}
	return nil
}

// rename moves within a block store, where nothing is copied.
func (c *call) rename(f *files.Files, from []files.Place, to files.Place) error {
	if len(from) > 1 {
		if e, err := f.Stat(c.Context.Context, to); err != nil || !e.Dir {
			return usagef("millrace fs mkdir "+to.String(), "%d files are to be moved, and %s is no folder", len(from), to)
		}
	}
	moved := []string{}
	for _, p := range from {
		at, err := f.Rename(c.Context.Context, p, to)
		if err != nil {
			return fsFault(err)
		}
		moved = append(moved, at.String())
	}
	return c.print(map[string][]string{"moved": moved}, func(io.Writer) {
		for i, at := range moved {
			fmt.Fprintf(c.env.Stderr, "%s is %s now\n", from[i], at)
		}
	})
}

// transferred says what was copied, and what people should know of that.
func (c *call) transferred(n int, bytes int64, took time.Duration, to files.Place) error {
	notes := c.fewNodes(to, c.Int("replication"))
	doc := map[string]any{"files": n, "bytes": bytes, "to": to.String(), "tookMs": took.Milliseconds()}
	return c.print(withNotes(doc, notes), func(io.Writer) {
		fmt.Fprintf(c.env.Stderr, "%s, %s to %s\n", plural(n, "file"), formatSize(bytes), to)
		c.sayAll(notes)
	})
}

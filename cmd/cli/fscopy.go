package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"millrace/cmd/cli/files"
)

func fsPut(c *call) error {
	from, to := c.args[:len(c.args)-1], c.args[len(c.args)-1]
	target, err := c.place(to)
	if err != nil {
		return err
	}
	if !target.Remote() {
		return usagef(fmt.Sprintf("millrace fs cp … %s for copies on this machine", to), "%s is not in object storage: fs put FILE… s3://BUCKET/…", to)
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
	if err := f.Write(c.Context.Context, to, &countingReader{c.env.Stdin, &n}, -1); err != nil {
		return fsFault(err)
	}
	return c.transferred(1, n.Load(), time.Time{}, to)
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
			return usagef("millrace fs get s3://BUCKET/KEY "+to, "%s is not in object storage: fs get s3://… DIR", s)
		}
	}
	if to == "-" {
		c.args = from
		return fsCat(c)
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
		c.args = from
		return fsCat(c)
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
	if to.Remote() { // before anything is read: the usual mistake
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
	started := time.Now()
	var done atomic.Int64
	stop := c.showBytes("copying", total, &done)
	err = f.Copy(c.Context.Context, tasks, &done)
	stop()
	if err != nil {
		return fsFault(err)
	}
	if move {
		for _, t := range tasks {
			if _, err := f.Remove(c.Context.Context, t.From, false); err != nil {
				return fsFault(err)
			}
		}
	}
	return c.transferred(len(tasks), done.Load(), started, to)
}

func (c *call) transferred(n int, bytes int64, started time.Time, to files.Place) error {
	took := time.Duration(0)
	if !started.IsZero() {
		took = time.Since(started)
	}
	doc := map[string]any{"files": n, "bytes": bytes, "to": to.String(), "tookMs": took.Milliseconds()}
	return c.print(doc, func(io.Writer) {
		fmt.Fprintf(c.env.Stderr, "%s, %s to %s\n", plural(n, "file"), formatSize(bytes), to)
	})
}

package task

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"

	"millrace/jobs"
	"millrace/jobs/input"
	"millrace/pkg/api"
	"millrace/pkg/objectcopy"
	"millrace/pkg/objectstore"
)

// copyAtOnce is how many small files a task copies at the same time. Big ones go one by one, in parts at once, so that
// memory is bounded.
const copyAtOnce = 8

// whole is a store that whole objects of a bucket are read from and written to.
func whole(s Store, bucket string) (objectcopy.Store, error) {
	if p, ok := s.(places); ok {
		switch {
		case !objectstore.IsHDFS(bucket):
			s = p.Store
		case p.files == nil:
			return nil, errNoFiles
		default:
			return p.files, nil
		}
	}
	if w, ok := s.(objectcopy.Store); ok {
		return w, nil
	}
	return nil, errors.New("this store cannot write whole objects")
}

// copying is a map that copies files: all of its split, below the output. Each is written whole, under its own name, so
// that no attempt is in another's way; what is there and the same is skipped. It emits nothing: one line for each file goes
// to the attempt's log.
type copying struct {
	a  *attempt
	to objectcopy.Store

	mu                           sync.Mutex
	bytes                        int64 // read or skipped
	copied, skipped              int64 // files
	copiedBytes, unneeded, total int64
}

func (a *attempt) copyFiles() error {
	out := a.Lease.Output
	if out.GetFormat() != jobs.FormatFiles || a.Lease.Split.GetFormat() != jobs.FormatFiles {
		return errors.New("the masters do not know how to copy files: they may be of an older version; upgrade them")
	}
	to, err := whole(a.Store, out.Bucket)
	if err != nil {
		return fmt.Errorf("output %s: %w", objectstore.URL{Bucket: out.Bucket, Key: out.Key}, err)
	}
	c := &copying{a: a, to: to}
	if err := c.run(a.Lease.Split.Pieces); err != nil {
		return err
	}
	a.result.OutputRecords, a.result.OutputBytes = c.copied+c.skipped, c.total
	a.count("mapInputRecords", c.copied+c.skipped)
	a.count("mapInputBytes", c.total)
	a.count("filesCopied", c.copied)
	a.count("bytesCopied", c.copiedBytes)
	a.count("filesSkipped", c.skipped)
	a.count("bytesSkipped", c.unneeded)
	return nil
}

func (c *copying) run(pieces []*api.Piece) error {
	g, ctx := errgroup.WithContext(c.a.ctx)
	g.SetLimit(copyAtOnce)
	for _, p := range pieces {
		if ctx.Err() != nil {
			break
		}
		if p.ObjectSize <= objectcopy.Small {
			g.Go(func() error { return c.one(p) })
			continue
		}
		if err := c.one(p); err != nil {
			return errors.Join(err, g.Wait())
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return c.a.ctx.Err()
}

// one copies a file.
func (c *copying) one(p *api.Piece) error {
	if err := c.a.ctx.Err(); err != nil {
		return err
	}
	out := c.a.Lease.Output
	r := objectcopy.Request{
		From: objectstore.URL{Bucket: p.Bucket, Key: p.Key}, To: objectstore.URL{Bucket: out.Bucket, Key: out.Key + p.Name},
		Size: p.ObjectSize, ETag: p.Etag, Overwrite: out.Overwrite, Read: c.read, Alive: c.a.task.Alive,
	}
	from, err := whole(c.a.Store, p.Bucket)
	if err != nil {
		return fmt.Errorf("input %s: %w", r.From, err)
	}
	result, err := objectcopy.Copy(c.a.ctx, from, c.to, r)
	if err != nil {
		return copyFailure(r, err)
	}
	c.done(r, result)
	return nil
}

// copyFailure says whose fault it is: the input's, which fails again wherever it is tried, or that of what is there.
func copyFailure(r objectcopy.Request, err error) error {
	var source *objectcopy.SourceError
	var differs *objectcopy.DiffersError
	switch {
	case errors.As(err, &source):
		return &input.ReadError{URL: r.From.String(), Offset: source.Offset, Err: source.Err}
	case errors.As(err, &differs):
		return err
	}
	return programError("copy "+r.From.String(), err)
}

// read counts bytes, for whoever follows the job.
func (c *copying) read(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += int64(n)
	c.a.progress.publish(c.bytes, c.copied+c.skipped)
}

// done accounts for a file and reports it.
func (c *copying) done(r objectcopy.Request, result objectcopy.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total += r.Size
	if result.Copied {
		c.copied++
		c.copiedBytes += r.Size
		fmt.Fprintf(os.Stderr, "copied %s to %s: %d bytes, CRC32C %08x\n", r.From, r.To, r.Size, result.CRC32C)
	} else {
		c.skipped++
		c.unneeded += r.Size
		fmt.Fprintf(os.Stderr, "skipped %s: %s is the same already, %d bytes\n", r.From, r.To, r.Size)
	}
	c.a.progress.publish(c.bytes, c.copied+c.skipped)
}

package input

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// Ranger reads a byte range of an object (objectstore.Store is one). It repeats what it
// takes to repeat (objectstore.Retrying): its errors are taken as they are.
type Ranger interface {
	Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error)
}

const (
	firstRange = 1 << 20  // the first range is small, so that work begins early; they double
	overshoot  = 64 << 10 // read beyond a piece's end with its last range, where most last records end
	maxFetches = 32       // at once: what hides the latency of many small objects
)

// chunk is one range of one piece. data and err are the reader's once done is closed.
type chunk struct {
	piece  *api.Piece
	offset int64 // in the object
	data   []byte
	last   bool // nothing further of this piece is planned
	err    error
	done   chan struct{}
}

// fetcher reads the ranges of a split's pieces, in order, ahead of who takes
// them. It is used by one goroutine; its own are waited for by close.
type fetcher struct {
	ctx    context.Context
	cancel context.CancelFunc
	store  Ranger
	max    int64 // bytes of a range
	ahead  int64 // bytes in flight

	pieces []*api.Piece // not yet planned to their ends
	offset int64        // where the next range of pieces[0] begins; -1 before its first
	step   int64        // the next range's length, until it is max

	queue  []*chunk
	flying int64 // bytes of buffers in the queue
	free   [][]byte
	spare  int64 // bytes of free
	wg     sync.WaitGroup
}

func newFetcher(ctx context.Context, s Ranger, pieces []*api.Piece, maxRange, ahead int64) *fetcher {
	ctx, cancel := context.WithCancel(ctx)
	return &fetcher{
		ctx: ctx, cancel: cancel, store: s, max: maxRange, ahead: ahead,
		pieces: pieces, offset: -1, step: min(firstRange, maxRange),
	}
}

// plan says which range comes next; ok is false when there is none.
func (f *fetcher) plan() (c chunk, length int64, ok bool) {
	if len(f.pieces) == 0 {
		return chunk{}, 0, false
	}
	p := f.pieces[0]
	end := min(p.Offset+p.Length+overshoot, p.ObjectSize)
	if p.Whole {
		end = p.Length
	}
	offset := f.offset
	if offset < 0 {
		offset = max(p.Offset-1, 0) // the byte before says whether a record begins at the offset
	}
	length = min(f.step, end-offset)
	if end-offset-length <= overshoot {
		length = end - offset // no crumb is left for a request of its own
	}
	return chunk{piece: p, offset: offset, last: offset+length == end}, length, true
}

// fill starts as many fetches as there is room for, at least one.
func (f *fetcher) fill() {
	for len(f.queue) < maxFetches {
		c, length, ok := f.plan()
		if !ok || len(f.queue) > 0 && f.flying+length > f.ahead {
			return
		}
		if f.offset = c.offset + length; c.last {
			f.pieces, f.offset = f.pieces[1:], -1
		}
		f.step = min(2*f.step, f.max)
		c.data, c.done = f.buffer(length), make(chan struct{})
		f.queue = append(f.queue, &c)
		f.flying += length
		f.wg.Go(func() {
			defer close(c.done)
			c.err = f.load(&c)
		})
	}
}

// next waits for the next chunk; nil at the end. Its buffer goes back with release.
func (f *fetcher) next() (*chunk, error) {
	f.fill()
	if len(f.queue) == 0 {
		return nil, nil
	}
	c := f.queue[0]
	<-c.done // load ends with the context, too
	f.queue = f.queue[1:]
	f.flying -= int64(len(c.data))
	return c, c.err
}

// beyond reads length bytes that follow a piece's last planned range.
func (f *fetcher) beyond(p *api.Piece, offset, length int64) (*chunk, error) {
	c := &chunk{piece: p, offset: offset, last: true, data: f.buffer(min(length, p.ObjectSize-offset))}
	return c, f.load(c)
}

// buffer takes a free buffer or makes one.
func (f *fetcher) buffer(n int64) []byte {
	for i, b := range f.free {
		if int64(cap(b)) >= n {
			f.free[i] = f.free[len(f.free)-1]
			f.free = f.free[:len(f.free)-1]
			f.spare -= int64(cap(b))
			return b[:n]
		}
	}
	size := int64(4 << 10)
	for size < n && size < firstRange {
		size *= 2
	}
	if n > size {
		size = max(n, min(f.max, f.ahead)+overshoot)
	}
	return make([]byte, n, size)
}

// release gives a chunk's buffer back and reads on.
func (f *fetcher) release(c *chunk) {
	f.free = append(f.free, c.data)
	f.spare += int64(cap(c.data))
	for f.spare > f.ahead && len(f.free) > 1 {
		f.spare -= int64(cap(f.free[0])) // the oldest: too small for what is being read now
		f.free = f.free[1:]
	}
	c.data = nil
	f.fill()
}

// close ends all fetches and waits for them.
func (f *fetcher) close() {
	f.cancel()
	f.wg.Wait()
	f.queue, f.pieces, f.free = nil, nil, nil
}

// load fills c.data. The store has done all the repeating that there is to do.
func (f *fetcher) load(c *chunk) error {
	if len(c.data) == 0 {
		return nil
	}
	body, err := f.store.Get(f.ctx, c.piece.Bucket, c.piece.Key, c.offset, int64(len(c.data)), c.piece.Etag)
	got := 0
	if err == nil {
		if got, err = io.ReadFull(body, c.data); err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if closeErr := body.Close(); err == nil && got < len(c.data) {
			err = closeErr
		}
	}
	if err == nil {
		return nil
	}
	return &ReadError{URL: objectURL(c.piece.Bucket, c.piece.Key), Offset: c.offset + int64(got), Err: explain(f.ctx, err)}
}

func explain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, objectstore.ErrPrecondition):
		return fmt.Errorf("the object has changed since the job was planned: %w", err)
	case errors.Is(err, objectstore.ErrNotExist), errors.Is(err, objectstore.ErrNoSuchBucket):
		return fmt.Errorf("the object is gone since the job was planned: %w", err)
	}
	return err
}

package task

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// Uploader adds parts to a multipart upload; objectstore.Store is one.
type Uploader interface {
	UploadPart(ctx context.Context, bucket, key, id string, number int, data []byte) (objectstore.Part, error)
}

// S3 takes 10,000 parts and 5 TiB per object. The first thousand parts have 8
// MiB; then each is 160 KiB longer than the one before, which reaches 5 TiB with parts to spare.
const (
	maxParts   = 10_000
	firstPart  = 8 << 20
	evenParts  = 1_000
	partGrowth = 160 << 10
	inFlight   = 3
	bigPart    = 64 << 20 // longer ones go up one at a time, to bound memory
)

// PartSize is the length in bytes of part number (from 1) of an output, unless it is the last.
func PartSize(number int) int {
	if number <= evenParts {
		return firstPart
	}
	return firstPart + (number-evenParts)*partGrowth
}

// PartOffset is the byte at which part number (from 1) of an output begins.
func PartOffset(number int) int64 {
	n := int64(number - 1)
	if n <= evenParts {
		return n * firstPart
	}
	k := n - evenParts
	return n*firstPart + partGrowth*k*(k+1)/2
}

// parts cuts a byte stream into the parts of one upload and has up to inFlight
// of them on their way at once; in a block store it is one, as its files are written in order. Not for concurrent use.
type parts struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	store  Uploader
	sealer objectstore.Sealer // of a block store; nil: the upload is completed by somebody else
	to     *api.Output

	buf    []byte // of the part being filled
	size   int    // that it will have
	number int    // of the part being filled, from 1
	bytes  int64  // handed over so far

	free chan []byte // a buffer for each further part that may be in flight
	wait sync.WaitGroup
}

func newParts(ctx context.Context, store Uploader, to *api.Output) (*parts, error) {
	p := &parts{store: store, to: to, number: 1, size: PartSize(1), free: make(chan []byte, inFlight)}
	if objectstore.IsHDFS(to.Bucket) {
		var ok bool
		if p.sealer, ok = store.(objectstore.Sealer); !ok {
			return nil, fmt.Errorf("output %s: %w", p.place(), errNoFiles)
		}
	}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	for range inFlight - 1 {
		p.free <- nil // grows when it is used: small outputs need little
	}
	return p, nil
}

var errNoFiles = errors.New("the worker cannot reach clusters' files: it may be of an older version; upgrade it")

func (p *parts) place() objectstore.URL {
	return objectstore.URL{Bucket: p.to.Bucket, Key: p.to.Key}
}

// Write takes over no slice. An error of an earlier part comes back here or from close.
func (p *parts) Write(data []byte) (int, error) {
	n := len(data)
	for len(p.buf)+len(data) >= p.size {
		room := p.size - len(p.buf)
		p.buf = append(p.buf, data[:room]...)
		data = data[room:]
		if err := p.flush(); err != nil {
			return n - len(data), err
		}
	}
	p.buf = append(p.buf, data...)
	return n, nil
}

// full is to be called when buf may have reached the part's size.
func (p *parts) full() error {
	for len(p.buf) >= p.size {
		rest := p.buf[p.size:]
		over := make([]byte, len(rest)) // once per part: the buffer goes away with the part
		copy(over, rest)
		p.buf = p.buf[:p.size]
		if err := p.flush(); err != nil {
			return err
		}
		p.buf = append(p.buf, over...)
	}
	return nil
}

// flush sends buf on its way and takes an empty one, waiting until there is one.
func (p *parts) flush() error {
	if err := p.send(); err != nil {
		return err
	}
	select {
	case p.buf = <-p.free:
		p.buf = p.buf[:0]
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
	if p.size > bigPart {
		p.wait.Wait()
	}
	return nil
}

func (p *parts) send() error {
	switch {
	case p.sealer != nil:
		p.wait.Wait() // for the part before: one is on its way while the next one is filled
	case p.number > maxParts:
		return fmt.Errorf("output %s: more than %d parts", p.place(), maxParts)
	}
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	data, number := p.buf, p.number
	p.bytes += int64(len(data))
	p.number++
	if p.sealer == nil { // a file may have as many parts as it takes
		p.size = PartSize(p.number)
	}
	p.buf = nil
	p.wait.Go(func() {
		if _, err := p.store.UploadPart(p.ctx, p.to.Bucket, p.to.Key, p.to.UploadId, number, data); err != nil {
			p.cancel(fmt.Errorf("upload part %d of %s: %w", number, p.place(), err))
		}
		if len(data) > bigPart {
			data = nil // one at a time: none is kept
		}
		p.free <- data
	})
	return nil
}

// close sends what is left (an empty output is one empty part) and waits for all parts.
func (p *parts) close() error {
	if len(p.buf) > 0 || p.number == 1 {
		if err := p.send(); err != nil {
			p.wait.Wait()
			return err
		}
	}
	p.wait.Wait()
	if err := p.ctx.Err(); err != nil {
		return context.Cause(p.ctx)
	}
	if p.sealer != nil {
		if err := p.sealer.SealUpload(p.ctx, p.to.Bucket, p.to.Key, p.to.UploadId); err != nil {
			return fmt.Errorf("end %s: %w", p.place(), err)
		}
	}
	p.cancel(nil)
	return nil
}

// count is the number of parts, after close.
func (p *parts) count() int { return p.number - 1 }

// abort gives up and waits for what was on its way. Idempotent, also after close.
func (p *parts) abort() {
	p.cancel(context.Canceled)
	p.wait.Wait()
}

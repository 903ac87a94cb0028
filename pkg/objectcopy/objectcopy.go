// Package objectcopy copies one object from store to store: the same bytes, whole or not at all, and found to be the same
// before it says that they are. What is there already and is the same is left alone, so that a copy may be repeated, by
// several at once, too.
//
// What was read is of the version that was asked for, and as long as that. What was written is what was read if the store's
// ETag is the MD5 of it, as S3's is for most objects; otherwise it is read back, and its CRC32C compared. An object in an object store
// remembers in its metadata what it is a copy of; where there is no metadata, what is there is compared byte by byte.
//
// It knows one object at a time. Which objects there are to copy is for others to know.
package objectcopy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"millrace/pkg/objectstore"
)

// Source is where an object is read.
type Source interface {
	Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error)
}

// Store is where one is written. One that is an Uploads, too, gets big ones in parts; others get them as one stream.
type Store interface {
	Source
	Head(ctx context.Context, bucket, key string) (objectstore.Object, error)
	Put(ctx context.Context, bucket, key string, r io.Reader, size int64, o objectstore.PutOptions) (objectstore.Object, error)
}

// Uploads are objectstore.Store's.
type Uploads interface {
	CreateUpload(ctx context.Context, bucket, key string, metadata map[string]string) (id string, err error)
	UploadPart(ctx context.Context, bucket, key, id string, number int, data []byte) (objectstore.Part, error)
	CompleteUpload(ctx context.Context, bucket, key, id string, parts []objectstore.Part) (etag string, err error)
	AbortUpload(ctx context.Context, bucket, key, id string) error
}

// Request is one object to copy.
type Request struct {
	From, To objectstore.URL
	Size     int64  // of what is to be copied
	ETag     string // of the very version
	// Overwrite replaces what is there and differs; otherwise that is a *DiffersError.
	Overwrite bool
	// Read is told how many further bytes of the source were read for the first time, in one goroutine; Alive of every
	// further piece of work. Either may be nil.
	Read  func(n int)
	Alive func()
}

// Result is how it went.
type Result struct {
	Copied bool   // false: it was there
	CRC32C uint32 // of what was copied
}

// DiffersError says that another object has the name that a copy was to have.
type DiffersError struct{ From, To objectstore.URL }

func (e *DiffersError) Error() string {
	return fmt.Sprintf("%s is there already and differs from %s: remove it, or copy with --overwrite", e.To, e.From)
}

// SourceError says that the source could not be read.
type SourceError struct {
	URL    objectstore.URL
	Offset int64
	Err    error
}

func (e *SourceError) Error() string {
	return fmt.Sprintf("read %s at byte %d: %s", e.URL, e.Offset, says(e.URL, e.Err))
}

func (e *SourceError) Unwrap() error { return e.Err }

// says is an error about an object without its name, which the store's own has.
func says(u objectstore.URL, err error) string {
	if e, ok := err.(*objectstore.Error); ok && e.URL == u.String() {
		return e.Said()
	}
	return err.Error()
}

// objectError says what could not be done with which object.
type objectError struct {
	op  string
	url objectstore.URL
	err error
}

func (e *objectError) Error() string { return e.op + " " + e.url.String() + ": " + says(e.url, e.err) }

func (e *objectError) Unwrap() error { return e.err }

// Somebody else may be writing the name: another attempt, which is soon done, or one that has died, whose unfinished file
// keeps it from others for a minute in a block store.
const (
	busyFor   = 3 * time.Minute
	lookAgain = time.Second
)

// Copy copies one object, unless it is there.
func Copy(ctx context.Context, from Source, to Store, r Request) (Result, error) {
	c := &copier{Request: r, ctx: ctx, from: from, to: to}
	for late := time.Now().Add(busyFor); ; {
		there, err := to.Head(ctx, r.To.Bucket, r.To.Key)
		replace := false
		switch {
		case errors.Is(err, objectstore.ErrNotExist):
		case err != nil:
			return Result{}, &objectError{"look at", r.To, err}
		default:
			same, err := c.same(there)
			if err != nil {
				return Result{}, err
			}
			if same {
				c.tell(r.Size)
				return Result{}, nil
			}
			if !r.Overwrite {
				return Result{}, &DiffersError{From: r.From, To: r.To}
			}
			replace = true
		}
		err = c.write(replace)
		if err == nil {
			return Result{Copied: true, CRC32C: c.crc}, nil
		}
		if source := new(SourceError); errors.As(err, &source) || !errors.Is(err, objectstore.ErrPrecondition) {
			return Result{}, err
		}
		// Somebody is faster, or was: another attempt, or this one, whose answer was lost.
		if time.Now().After(late) {
			return Result{}, err
		}
		select {
		case <-time.After(lookAgain):
			c.tell(0)
		case <-ctx.Done():
			return Result{}, ctx.Err()
		}
	}
}

// copier is one copy under way.
type copier struct {
	Request
	ctx  context.Context
	from Source
	to   Store
	told int64  // bytes of the source that Read has heard of
	crc  uint32 // of what was read last
}

// metaSource is the user metadata that names what an object is a copy of.
const metaSource = "millrace-copy-of"

// identity names one version of the source.
func (c *copier) identity() string {
	sum := sha256.Sum256([]byte(c.From.String() + "\n" + c.ETag))
	return hex.EncodeToString(sum[:])
}

// tell has Read hear of the source's first n bytes, unless it has.
func (c *copier) tell(n int64) {
	if c.Alive != nil {
		c.Alive()
	}
	if more := n - c.told; more > 0 {
		c.told = n
		if c.Read != nil {
			c.Read(int(more))
		}
	}
}

// open reads the source from its beginning.
func (c *copier) open() (*reading, error) {
	body, err := c.from.Get(c.ctx, c.From.Bucket, c.From.Key, 0, c.Size, c.ETag)
	if err != nil {
		return nil, &SourceError{URL: c.From, Err: err}
	}
	return &reading{c: c, body: body}, nil
}

// reading is the source's body. Its errors are *SourceError, and it has the planned length or ends with one.
type reading struct {
	c    *copier
	body io.ReadCloser
	at   int64
	err  error
}

func (r *reading) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.body.Read(p)
	r.at += int64(n)
	r.c.tell(r.at)
	switch {
	case errors.Is(err, io.EOF) && r.at == r.c.Size:
		r.err = io.EOF
	case errors.Is(err, io.EOF):
		r.err = &SourceError{URL: r.c.From, Offset: r.at, Err: io.ErrUnexpectedEOF}
	case err != nil:
		r.err = &SourceError{URL: r.c.From, Offset: r.at, Err: err}
	case r.at > r.c.Size:
		r.err = &SourceError{URL: r.c.From, Offset: r.at, Err: fmt.Errorf("%w: it is longer than the %d bytes it had", objectstore.ErrPrecondition, r.c.Size)}
	}
	return n, r.err
}

// failed is why reading failed, or else the error of who was given the bytes to write.
func (r *reading) failed(err error) error {
	if r.err != nil && !errors.Is(r.err, io.EOF) {
		return r.err
	}
	return err
}

package client

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"millrace/hdfs"
	"millrace/pkg/objectstore"
)

// partWithin is how long a part waits for the one before it while nothing comes.
const partWithin = time.Minute

// upload is a file that is written part by part, in their order: it is one stream, and what is written stays. All
// methods may be called at once.
type upload struct {
	bucket, key string
	w           FileWriter

	mu      sync.Mutex
	parts   []objectstore.Part // that are written
	busy    bool               // somebody writes one, or closes
	changed chan struct{}      // closed, and another one made, when something of this changes
	err     error              // the end of it
}

var (
	errOtherPart = fmt.Errorf("%w: other bytes were sent as this part before, and a file is written once", hdfs.ErrInvalid)
	errMissing   = fmt.Errorf("%w: the part before it has not come, and a file is written in order", hdfs.ErrInvalid)
	errParts     = fmt.Errorf("%w: these are not the parts that were sent", hdfs.ErrInvalid)
)

func newUpload(bucket, key string, w FileWriter) *upload {
	return &upload{bucket: bucket, key: key, w: w, changed: make(chan struct{})}
}

// part describes one.
func part(number int, data []byte) objectstore.Part {
	sum := xxh3.Hash128(data).Bytes()
	return objectstore.Part{Number: number, Size: int64(len(data)), ETag: hex.EncodeToString(sum[:])}
}

// add writes a part when its turn has come. Should the context end while it writes, so does the upload.
func (u *upload) add(ctx context.Context, number int, data []byte) (objectstore.Part, error) {
	p := part(number, data)
	there, err := u.turn(ctx, p)
	if err != nil || there {
		return p, err
	}
	err = u.while(ctx, func() error {
		_, err := u.w.Write(data)
		return err
	})
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil {
		u.parts = append(u.parts, p)
	}
	u.release(err)
	return p, err
}

// turn waits until all parts before p are written, and makes the upload busy; there: p is, too.
func (u *upload) turn(ctx context.Context, p objectstore.Part) (there bool, err error) {
	late := time.NewTimer(partWithin)
	defer late.Stop()
	for {
		u.mu.Lock()
		changed, busy, next := u.changed, u.busy, len(u.parts)+1
		switch {
		case u.err != nil:
			err = u.err
		case p.Number < next && u.parts[p.Number-1] != p:
			err = errOtherPart
		case p.Number < next:
			there = true
		case p.Number == next && !busy:
			u.busy = true
		default:
			u.mu.Unlock()
			late.Reset(partWithin)
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return false, ctx.Err()
			case <-late.C:
				if busy {
					continue // the writer has its own patience
				}
				return false, errMissing
			}
		}
		u.mu.Unlock()
		return there, err
	}
}

// while does something with the writer, which ends if the context does.
func (u *upload) while(ctx context.Context, do func() error) error {
	stop := context.AfterFunc(ctx, func() { _ = u.w.Abort() })
	defer stop()
	return do()
}

// release ends what made the upload busy; an error ends the upload.
func (u *upload) release(err error) {
	u.busy, u.err = false, errors.Join(u.err, err)
	close(u.changed)
	u.changed = make(chan struct{})
}

// finish completes the file when the parts are those that were sent; nil: whichever they are.
func (u *upload) finish(ctx context.Context, parts []objectstore.Part) (hdfs.Info, error) {
	u.mu.Lock()
	err := u.err
	if err == nil && (u.busy || parts != nil && !u.consistsOf(parts)) {
		err = errParts
	}
	u.busy = u.busy || err == nil
	u.mu.Unlock()
	if err != nil {
		return hdfs.Info{}, err
	}
	err = u.while(ctx, u.w.Close)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.release(err)
	if err != nil {
		return hdfs.Info{}, err
	}
	u.err = errEnded
	return u.w.Info(), nil
}

var errEnded = fmt.Errorf("it is complete: %w", hdfs.ErrLease)

func (u *upload) consistsOf(parts []objectstore.Part) bool {
	if len(parts) != len(u.parts) {
		return false
	}
	for i, p := range parts {
		if p.Number != u.parts[i].Number || p.ETag != u.parts[i].ETag {
			return false
		}
	}
	return true
}

// over says whether it has come to an end.
func (u *upload) over() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err != nil
}

// list gives the parts that are written.
func (u *upload) list() []objectstore.Part {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]objectstore.Part(nil), u.parts...)
}

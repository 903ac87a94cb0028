package objectcopy

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace/pkg/objectstore"
)

// Objects of up to Small bytes are written by one request, from memory. Bigger ones go in parts of that many bytes, or
// of more if S3's limit on their number says so.
const Small = 8 << 20

const (
	maxParts    = 10_000           // S3's limit
	inFlight    = 3                // parts
	bigPart     = 64 << 20         // such ones go alone, to bound memory
	abortWithin = 10 * time.Second // for an upload that came to nothing
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// write copies the object to its name, where there is nothing, or something to be replaced, and verifies what it has written.
func (c *copier) write(replace bool) error {
	body, err := c.open()
	if err != nil {
		return err
	}
	defer body.body.Close()
	sum := crc32.New(castagnoli)
	var etag, want string
	uploads, inParts := c.to.(Uploads)
	switch {
	case c.Size <= Small:
		etag, want, err = c.writeSmall(body, sum, replace)
	case inParts && !objectstore.IsHDFS(c.To.Bucket): // files are written in order
		etag, want, err = c.writeParts(uploads, body, sum, replace)
	default:
		var o objectstore.Object
		o, err = c.to.Put(c.ctx, c.To.Bucket, c.To.Key, io.TeeReader(body, sum), c.Size, c.options(replace))
		if err = body.failed(err); err == nil && body.at != c.Size {
			err = fmt.Errorf("write %s: the store took %d bytes of %d", c.To, body.at, c.Size)
		}
		etag = o.ETag
	}
	if err != nil {
		return err
	}
	c.crc = sum.Sum32()
	if want != "" && etag == want {
		return nil
	}
	return c.readBack(etag)
}

func (c *copier) options(replace bool) objectstore.PutOptions {
	return objectstore.PutOptions{IfNoneMatch: !replace, Metadata: map[string]string{metaSource: c.identity()}}
}

func (c *copier) writeSmall(body *reading, sum hash.Hash32, replace bool) (etag, want string, err error) {
	data := make([]byte, c.Size)
	if err := body.fill(data); err != nil {
		return "", "", err
	}
	sum.Write(data)
	whole := md5.Sum(data)
	o, err := c.to.Put(c.ctx, c.To.Bucket, c.To.Key, bytes.NewReader(data), c.Size, c.options(replace))
	if err != nil {
		return "", "", &objectError{"write", c.To, err}
	}
	return o.ETag, hex.EncodeToString(whole[:]), nil
}

// fill reads the next bytes, and all that is left if these are the last.
func (r *reading) fill(data []byte) error {
	if _, err := io.ReadFull(r, data); err != nil && !(errors.Is(err, io.EOF) && r.at == r.c.Size) {
		return r.failed(err)
	}
	if r.at == r.c.Size { // does it end here?
		if n, err := r.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
			return r.failed(fmt.Errorf("read %s: it does not end at byte %d", r.c.From, r.at))
		}
	}
	return nil
}

// partSize is how long the parts of an object are, but for the last.
func partSize(size int64) int64 { return max(Small, (size+maxParts-1)/maxParts) }

func (c *copier) writeParts(store Uploads, body *reading, sum hash.Hash32, replace bool) (etag, want string, err error) {
	id, err := store.CreateUpload(c.ctx, c.To.Bucket, c.To.Key, map[string]string{metaSource: c.identity()})
	if err != nil {
		return "", "", &objectError{"write", c.To, err}
	}
	parts, want, err := c.sendParts(store, id, body, sum)
	if err == nil && !replace {
		err = c.unwritten() // completing an upload knows no such condition
	}
	if err == nil {
		if etag, err = store.CompleteUpload(c.ctx, c.To.Bucket, c.To.Key, id, parts); err != nil {
			err = &objectError{"write", c.To, err}
		}
	}
	if err != nil {
		// The context may be what ended it. One that was completed after all is not to be found any more.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), abortWithin)
		defer cancel()
		if left := store.AbortUpload(ctx, c.To.Bucket, c.To.Key, id); left != nil && !errors.Is(left, objectstore.ErrNoSuchUpload) {
			err = fmt.Errorf("%w (and its unfinished upload is left behind: %v)", err, left)
		}
	}
	return etag, want, err
}

// unwritten is ErrPrecondition if there is something by now.
func (c *copier) unwritten() error {
	_, err := c.to.Head(c.ctx, c.To.Bucket, c.To.Key)
	switch {
	case err == nil:
		return fmt.Errorf("write %s: %w: somebody else has written it meanwhile", c.To, objectstore.ErrPrecondition)
	case errors.Is(err, objectstore.ErrNotExist):
		return nil
	}
	return &objectError{"look at", c.To, err}
}

// sendParts sends all of them. want is the ETag that S3 gives to the whole.
func (c *copier) sendParts(store Uploads, id string, body *reading, sum hash.Hash32) (list []objectstore.Part, want string, err error) {
	size := partSize(c.Size)
	limit := inFlight
	if size > bigPart {
		limit = 1
	}
	g, ctx := errgroup.WithContext(c.ctx)
	g.SetLimit(limit)
	list = make([]objectstore.Part, (c.Size+size-1)/size)
	sums := make([]byte, 0, len(list)*md5.Size)
	free := sync.Pool{New: func() any { return new(bytes.Buffer) }}
	for i := range list {
		if ctx.Err() != nil {
			break
		}
		buf := free.Get().(*bytes.Buffer)
		buf.Reset()
		buf.Grow(int(min(size, c.Size-body.at)))
		data := buf.AvailableBuffer()[:min(size, c.Size-body.at)]
		if err = body.fill(data); err != nil {
			break
		}
		sum.Write(data)
		part := md5.Sum(data)
		sums = append(sums, part[:]...)
		g.Go(func() (err error) {
			defer free.Put(buf)
			if list[i], err = store.UploadPart(ctx, c.To.Bucket, c.To.Key, id, i+1, data); err != nil {
				return &objectError{fmt.Sprintf("write part %d of", i+1), c.To, err}
			}
			return nil
		})
	}
	if sent := g.Wait(); err == nil {
		err = sent
	}
	if err == nil {
		err = c.ctx.Err()
	}
	whole := md5.Sum(sums)
	return list, hex.EncodeToString(whole[:]) + "-" + strconv.Itoa(len(list)), err
}

// conditional is a store that can delete just what was written.
type conditional interface {
	DeleteIf(ctx context.Context, bucket, key, etag string) error
}

// readBack compares what was written with what was read. What is not the same is not left there where it can be removed.
func (c *copier) readBack(etag string) error {
	body, err := c.to.Get(c.ctx, c.To.Bucket, c.To.Key, 0, c.Size, etag)
	if err != nil {
		return &objectError{"read back", c.To, err}
	}
	defer body.Close()
	sum := crc32.New(castagnoli)
	n, err := io.Copy(sum, &lively{body, c.Alive})
	if err != nil {
		return fmt.Errorf("read back %s at byte %d: %w", c.To, n, err)
	}
	if n == c.Size && sum.Sum32() == c.crc {
		return nil
	}
	err = fmt.Errorf("%s was written with %d bytes of CRC32C %08x, and has %d of %08x", c.To, c.Size, c.crc, n, sum.Sum32())
	if store, ok := c.to.(conditional); ok {
		if left := store.DeleteIf(c.ctx, c.To.Bucket, c.To.Key, etag); left != nil {
			err = fmt.Errorf("%w (and it cannot be removed: %v)", err, left)
		}
	}
	return err
}

// lively tells of each read.
type lively struct {
	io.Reader
	alive func()
}

func (l *lively) Read(p []byte) (int, error) {
	if l.alive != nil {
		l.alive()
	}
	return l.Reader.Read(p)
}

const compareBuffer = 256 << 10

// same says whether what is there is what would be copied.
func (c *copier) same(there objectstore.Object) (bool, error) {
	switch {
	case there.Size != c.Size:
		return false, nil
	case there.Metadata[metaSource] == c.identity() && c.ETag != "":
		return true, nil
	}
	ours, err := c.open()
	if err != nil {
		return false, err
	}
	defer ours.body.Close()
	theirs, err := c.to.Get(c.ctx, c.To.Bucket, c.To.Key, 0, there.Size, there.ETag)
	if err != nil {
		return false, &objectError{"compare with", c.To, err}
	}
	defer theirs.Close()
	a, b := make([]byte, compareBuffer), make([]byte, compareBuffer)
	for {
		n, errA := io.ReadFull(ours, a)
		m, errB := io.ReadFull(theirs, b)
		if source := new(SourceError); errors.As(errA, &source) {
			return false, source
		}
		if m < n { // it is as long as the source
			return false, fmt.Errorf("compare with %s: %w", c.To, errB)
		}
		if !bytes.Equal(a[:n], b[:m]) {
			return false, nil
		}
		if errA != nil {
			return true, nil
		}
	}
}

package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace/pkg/objectstore"
)

const (
	firstPart = 8 << 20
	maxParts  = 10_000 // S3's limit
	inFlight  = 4      // parts of one file
)

// partSize is the size of part n (from 1). Of a stream of unknown length parts
// double every 1,000, so that 10,000 of them hold S3's largest object (5 TiB)
// while a short one needs little memory.
func partSize(n int, size int64) int64 {
	if size >= 0 {
		return max(firstPart, (size+maxParts-1)/maxParts)
	}
	return firstPart << min((n-1)/1000, 9)
}

// upload stores r under a key; an error leaves nothing.
func upload(ctx context.Context, s objectstore.Store, bucket, key string, r io.Reader, size int64) error {
	head, err := readPart(r, partSize(1, size))
	if errors.Is(err, io.EOF) {
		if size >= 0 && int64(len(head)) != size {
			return fmt.Errorf("it has %d bytes, %d were expected: it changed while it was read", len(head), size)
		}
		_, err = s.Put(ctx, bucket, key, bytes.NewReader(head), int64(len(head)), objectstore.PutOptions{})
		return err
	}
	if err != nil {
		return err
	}
	id, err := s.CreateUpload(ctx, bucket, key, nil)
	if err != nil {
		return err
	}
	parts, err := uploadParts(ctx, s, bucket, key, id, head, r, size)
	if err == nil {
		_, err = s.CompleteUpload(ctx, bucket, key, id, parts)
	}
	if err != nil {
		// ctx may be what ended it.
		abort, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if abortErr := s.AbortUpload(abort, bucket, key, id); abortErr != nil && !errors.Is(abortErr, objectstore.ErrNoSuchUpload) {
			err = errors.Join(err, fmt.Errorf("abort the upload: %w", abortErr))
		}
	}
	return err
}

func uploadParts(ctx context.Context, s objectstore.Store, bucket, key, id string, data []byte, r io.Reader, size int64) ([]objectstore.Part, error) {
	var mu sync.Mutex
	var parts []objectstore.Part
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	var total int64
	var readErr error
	for n := 1; ; n++ {
		if n > maxParts {
			readErr = errors.New("it is larger than an object can be (5 TiB)")
			break
		}
		part := data
		total += int64(len(part))
		g.Go(func() error {
			p, err := s.UploadPart(ctx, bucket, key, id, n, part)
			if err != nil {
				return fmt.Errorf("part %d: %w", n, err)
			}
			mu.Lock()
			defer mu.Unlock()
			parts = append(parts, p)
			return nil
		})
		if ctx.Err() != nil || readErr != nil {
			break
		}
		data, readErr = readPart(r, partSize(n+1, size))
		if readErr != nil && !errors.Is(readErr, io.EOF) || len(data) == 0 {
			break
		}
		if errors.Is(readErr, io.EOF) {
			readErr = nil // the next read says it again
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if readErr != nil && !errors.Is(readErr, io.EOF) {
		return nil, readErr
	}
	if size >= 0 && total != size {
		return nil, fmt.Errorf("it has %d bytes, %d were expected: it changed while it was read", total, size)
	}
	slices.SortFunc(parts, func(a, b objectstore.Part) int { return a.Number - b.Number })
	return parts, nil
}

// readPart reads up to size bytes; io.EOF says that these are the last.
func readPart(r io.Reader, size int64) ([]byte, error) {
	var b bytes.Buffer
	n, err := io.CopyN(&b, r, size)
	if err == nil && n == size {
		return b.Bytes(), nil
	}
	return b.Bytes(), err
}

package objectstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
)

// retrying is a Store that asks another one again where that does no harm.
type retrying struct {
	Store
	retry Retry
}

// Retrying repeats a store's requests as r says: those that may be carried out twice
// whenever there was no answer; others only when they have surely not been carried
// out. Bodies that break are read on where they broke, and listings go on after the
// last name. NewS3's stores do this already.
func Retrying(s Store, r Retry) Store {
	out := &retrying{s, r}
	if signer, ok := s.(Presigner); ok {
		return &retryingSigner{out, signer}
	}
	return out
}

// retryingSigner is a retrying whose store is a Presigner.
type retryingSigner struct {
	*retrying
	Presigner
}

// Once is s without the repeating, for who repeats what matters to him himself.
func Once(s Store) Store {
	if m := muxOf(s); m != nil {
		return Mux(Once(m.s3), Once(m.hdfs))
	}
	if r := retryingOf(s); r != nil {
		return r.Store
	}
	return s
}

// Tallied is a view of s whose repetitions t counts, beside whatever else s has. A store
// that repeats nothing is itself.
func Tallied(s Store, t *Tally) Store {
	if m := muxOf(s); m != nil {
		return Mux(Tallied(m.s3, t), Tallied(m.hdfs, t))
	}
	r := retryingOf(s)
	if r == nil {
		return s
	}
	retry := r.retry
	retry.Tally = t
	return Retrying(s, retry)
}

func retryingOf(s Store) *retrying {
	switch s := s.(type) {
	case *retrying:
		return s
	case *retryingSigner:
		return s.retrying
	}
	return nil
}

// do makes one request, and again.
func (s *retrying) do(ctx context.Context, safe bool, f func() error) error {
	var row streak
	for {
		err := f()
		if err == nil {
			s.retry.Budget.Earn()
			return nil
		}
		if !s.retry.again(ctx, &row, err, safe) {
			return ended(ctx, err)
		}
	}
}

// ended makes of err the caller's own end if that is why no more was tried.
func ended(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil && errors.Is(err, ErrUnreachable) {
		e := &Error{Op: "ask"}
		var was *Error
		if errors.As(err, &was) {
			e.Op, e.URL, e.Endpoint = was.Op, was.URL, was.Endpoint
		}
		e.Err = cause
		return e
	}
	return err
}

func (s *retrying) ListBuckets(ctx context.Context) (out []Bucket, err error) {
	err = s.do(ctx, true, func() error { out, err = s.Store.ListBuckets(ctx); return err })
	return out, err
}

func (s *retrying) MakeBucket(ctx context.Context, bucket string) error {
	return s.do(ctx, false, func() error { return s.Store.MakeBucket(ctx, bucket) })
}

func (s *retrying) RemoveBucket(ctx context.Context, bucket string) error {
	return s.do(ctx, false, func() error { return s.Store.RemoveBucket(ctx, bucket) })
}

func (s *retrying) BucketExists(ctx context.Context, bucket string) (ok bool, err error) {
	err = s.do(ctx, true, func() error { ok, err = s.Store.BucketExists(ctx, bucket); return err })
	return ok, err
}

// List goes on after the last name that came before the trouble.
func (s *retrying) List(ctx context.Context, bucket, prefix string, o ListOptions) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		var row streak
		left, last, resumed := o.Max, "", false
		for {
			again := false
			for x, err := range s.Store.List(ctx, bucket, prefix, o) {
				if err != nil {
					if again = s.retry.again(ctx, &row, err, true); !again {
						yield(Object{}, ended(ctx, err))
						return
					}
					break
				}
				row.over()
				if resumed && x.Key <= last {
					continue // a group in which the listing broke off
				}
				last = x.Key
				if !yield(x, nil) {
					return
				}
				if left--; left == 0 {
					return // without Max it never comes to 0
				}
			}
			if !again {
				s.retry.Budget.Earn()
				return
			}
			if last != "" {
				resumed, o.StartAfter = true, last
			}
			if o.Max > 0 {
				o.Max = left + 1
			}
		}
	}
}

func (s *retrying) Head(ctx context.Context, bucket, key string) (x Object, err error) {
	err = s.do(ctx, true, func() error { x, err = s.Store.Head(ctx, bucket, key); return err })
	return x, err
}

func (s *retrying) Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error) {
	r := &resuming{s: s, ctx: ctx, bucket: bucket, key: key, at: offset, end: -1, etag: ifMatch}
	if length >= 0 {
		r.end = offset + length
	}
	err := s.do(ctx, true, func() (err error) {
		r.rc, err = s.Store.Get(ctx, bucket, key, offset, length, ifMatch)
		return err
	})
	if err != nil {
		return nil, err
	}
	if b, ok := r.rc.(*body); ok {
		r.end = offset + b.left
		if r.etag == "" {
			r.etag = b.etag
		}
	}
	return r, nil
}

// resuming is a body that is read on where it breaks, as long as the object stays the same.
type resuming struct {
	s           *retrying
	ctx         context.Context
	bucket, key string
	at, end     int64 // in the object; end is -1 if not known
	etag        string
	rc          io.ReadCloser // nil: to be asked for
	row         streak
	err         error
}

func (r *resuming) Read(p []byte) (int, error) {
	for {
		if r.err != nil {
			return 0, r.err
		}
		n, err := r.rc.Read(p)
		if r.at += int64(n); n > 0 {
			r.row.over()
		}
		if err == nil || err == io.EOF && (r.end < 0 || r.at >= r.end) {
			return n, err
		}
		if r.err = r.resume(err); n > 0 || r.err != nil {
			return n, r.err
		}
	}
}

// resume asks for the rest of a body that ended with cause.
func (r *resuming) resume(cause error) error {
	if err := r.rc.Close(); err != nil && r.ctx.Err() != nil {
		cause = err
	}
	r.rc = io.NopCloser(bytes.NewReader(nil))
	if cause == io.EOF {
		cause = io.ErrUnexpectedEOF
	}
	lost := cause
	if errors.Is(cause, io.ErrUnexpectedEOF) && !errors.Is(cause, ErrUnreachable) {
		lost = fmt.Errorf("%w: %w", ErrUnreachable, cause)
	}
	if r.end >= 0 && r.at >= r.end {
		return io.EOF // all was there
	}
	for {
		if r.etag == "" || !r.s.retry.again(r.ctx, &r.row, lost, true) {
			return ended(r.ctx, cause)
		}
		length := int64(-1)
		if r.end >= 0 {
			length = r.end - r.at
		}
		rc, err := r.s.Store.Get(r.ctx, r.bucket, r.key, r.at, length, r.etag)
		var e *Error
		switch {
		case err == nil:
			r.rc = rc
			return nil
		case errors.Is(err, ErrUnreachable):
			lost, cause = err, err
		case errors.As(err, &e) && e.Code == "InvalidRange" && errors.Is(cause, io.ErrUnexpectedEOF):
			return io.ErrUnexpectedEOF // the object itself is shorter than was asked for
		default:
			return err
		}
	}
}

func (r *resuming) Close() error { return r.rc.Close() }

// Put reads small sources into memory first, and sends others again only if they can be rewound.
func (s *retrying) Put(ctx context.Context, bucket, key string, r io.Reader, size int64, o PutOptions) (x Object, err error) {
	if _, known := r.(*bytes.Reader); !known && size >= 0 && size <= bufferedPut {
		data := make([]byte, size)
		if _, err := io.ReadFull(r, data); err != nil {
			return Object{}, &Error{Op: "put", URL: URL{bucket, key}.String(), Kind: ErrInvalid, Err: fmt.Errorf("read the data: %w", err)}
		}
		r = bytes.NewReader(data)
	}
	rewind, ok := r.(io.Seeker)
	start := int64(0)
	if ok {
		if start, err = rewind.Seek(0, io.SeekCurrent); err != nil {
			ok = false // a pipe
		}
	}
	first := true
	retry := *s
	if !ok {
		retry.retry.Patience = -1
	}
	err = retry.do(ctx, !o.IfNoneMatch, func() error {
		if !first {
			if _, err := rewind.Seek(start, io.SeekStart); err != nil {
				return fmt.Errorf("put %s: read the data again: %w", URL{bucket, key}, err)
			}
		}
		first = false
		x, err = s.Store.Put(ctx, bucket, key, r, size, o)
		return err
	})
	return x, err
}

func (s *retrying) Delete(ctx context.Context, bucket string, keys ...string) error {
	return s.do(ctx, true, func() error { return s.Store.Delete(ctx, bucket, keys...) })
}

func (s *retrying) DeleteIf(ctx context.Context, bucket, key, etag string) error {
	return s.do(ctx, true, func() error { return s.Store.DeleteIf(ctx, bucket, key, etag) })
}

// CreateUpload made twice would leave an upload that nobody knows of.
func (s *retrying) CreateUpload(ctx context.Context, bucket, key string, metadata map[string]string) (id string, err error) {
	err = s.do(ctx, false, func() error { id, err = s.Store.CreateUpload(ctx, bucket, key, metadata); return err })
	return id, err
}

func (s *retrying) UploadPart(ctx context.Context, bucket, key, id string, number int, data []byte) (p Part, err error) {
	err = s.do(ctx, true, func() error { p, err = s.Store.UploadPart(ctx, bucket, key, id, number, data); return err })
	return p, err
}

func (s *retrying) ListParts(ctx context.Context, bucket, key, id string) (parts []Part, err error) {
	err = s.do(ctx, true, func() error { parts, err = s.Store.ListParts(ctx, bucket, key, id); return err })
	return parts, err
}

// CompleteUpload without a clear answer is its caller's to find out about: whether the
// object is there, and whose it is.
func (s *retrying) CompleteUpload(ctx context.Context, bucket, key, id string, parts []Part) (etag string, err error) {
	err = s.do(ctx, false, func() error { etag, err = s.Store.CompleteUpload(ctx, bucket, key, id, parts); return err })
	return etag, err
}

func (s *retrying) AbortUpload(ctx context.Context, bucket, key, id string) error {
	return s.do(ctx, true, func() error { return s.Store.AbortUpload(ctx, bucket, key, id) })
}

func (s *retrying) ListUploads(ctx context.Context, bucket, key string) (out []Upload, err error) {
	err = s.do(ctx, true, func() error { out, err = s.Store.ListUploads(ctx, bucket, key); return err })
	return out, err
}

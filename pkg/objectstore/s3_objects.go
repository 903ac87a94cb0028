package objectstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"
)

// bufferedPut is the size up to which Put reads its source into memory first,
// so that the request can be repeated and carries one plain checksum.
const bufferedPut = 16 << 20

func (s *s3Store) List(ctx context.Context, bucket, prefix string, o ListOptions) iter.Seq2[Object, error] {
	ctx = listen(ctx)
	return func(yield func(Object, error) bool) {
		if err := checkBucket("list", bucket); err != nil {
			yield(Object{}, err)
			return
		}
		left := o.Max
		send := func(x Object) bool {
			if !yield(x, nil) {
				return false
			}
			left--
			return left != 0 // without Max it never comes to 0
		}
		for x, err := range s.listing(ctx, bucket, prefix, o) {
			if err != nil {
				yield(Object{}, err)
				return
			}
			if !send(x) {
				return
			}
		}
	}
}

// listing is the store's listing in key order. Grouped listings come page by
// page, objects first and prefixes after them: a run of pages is sorted when
// the next begins.
func (s *s3Store) listing(ctx context.Context, bucket, prefix string, o ListOptions) iter.Seq2[Object, error] {
	noOwner := false
	opts := minio.ListObjectsOptions{
		Prefix: prefix, Recursive: !o.Delimiter, StartAfter: o.StartAfter, FetchOwner: &noOwner,
		MaxKeys: min(o.Max, 1000), // 0: the store's own page size
	}
	return func(yield func(Object, error) bool) {
		var run []Object
		flush := func() bool {
			slices.SortFunc(run, func(a, b Object) int { return cmp.Compare(a.Key, b.Key) })
			for _, x := range run {
				if !yield(x, nil) {
					return false
				}
			}
			run = run[:0]
			return true
		}
		for i := range s.core.ListObjectsIter(ctx, bucket, opts) {
			if i.Err != nil {
				yield(Object{}, s.fail(ctx, "list", bucket, prefix, i.Err))
				return
			}
			x := Object{Key: i.Key, Size: i.Size, ETag: unquote(i.ETag), ModifiedAt: i.LastModified}
			if !o.Delimiter {
				if !yield(x, nil) {
					return
				}
				continue
			}
			x.Prefix = i.LastModified.IsZero() && i.ETag == "" && strings.HasSuffix(i.Key, "/")
			if !x.Prefix && len(run) > 0 && run[len(run)-1].Prefix && !flush() {
				return
			}
			run = append(run, x)
		}
		if err := ctx.Err(); err != nil {
			// The client's iterator just ends then: a listing that looks complete and is not.
			yield(Object{}, s.fail(ctx, "list", bucket, prefix, err))
			return
		}
		flush()
	}
}

func (s *s3Store) Head(ctx context.Context, bucket, key string) (Object, error) {
	ctx = listen(ctx)
	if err := checkNames("head", bucket, key); err != nil {
		return Object{}, err
	}
	i, err := s.core.StatObject(ctx, bucket, key, minio.StatObjectOptions{})
	if err != nil {
		return Object{}, s.fail(ctx, "head", bucket, key, err)
	}
	x := Object{Key: key, Size: i.Size, ETag: unquote(i.ETag), ModifiedAt: i.LastModified, Metadata: map[string]string{}}
	for k, v := range i.UserMetadata {
		x.Metadata[strings.ToLower(k)] = v
	}
	return x, nil
}

func (s *s3Store) Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error) {
	ctx = listen(ctx)
	if err := checkNames("get", bucket, key); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, invalid("get", bucket, key, "the offset is negative")
	}
	if length == 0 {
		return s.getNothing(ctx, bucket, key, ifMatch)
	}
	var o minio.GetObjectOptions
	if ifMatch != "" {
		o.Set("If-Match", `"`+ifMatch+`"`)
	}
	ranged := offset > 0 || length > 0
	if ranged {
		r := "bytes=" + strconv.FormatInt(offset, 10) + "-"
		if length > 0 {
			r += strconv.FormatInt(offset+length-1, 10)
		}
		o.Set("Range", r)
	}
	rc, info, header, err := s.core.GetObject(ctx, bucket, key, o)
	if err != nil {
		return nil, s.fail(ctx, "get", bucket, key, err)
	}
	if ranged && !strings.HasPrefix(header.Get("Content-Range"), "bytes "+strconv.FormatInt(offset, 10)+"-") {
		return nil, errors.Join(
			invalid("get", bucket, key, fmt.Sprintf("the store sent %q when asked for %s", header.Get("Content-Range"), o.Header().Get("Range"))),
			rc.Close())
	}
	want := info.Size
	if length > 0 {
		want = length
	}
	return &body{rc: rc, left: want, etag: unquote(info.ETag), fail: func(err error) error { return s.fail(ctx, "get", bucket, key, err) }}, nil
}

// getNothing answers a Get of no bytes, which a Range header cannot say.
func (s *s3Store) getNothing(ctx context.Context, bucket, key, ifMatch string) (io.ReadCloser, error) {
	x, err := s.Head(ctx, bucket, key)
	if err != nil {
		return nil, err
	}
	if ifMatch != "" && x.ETag != ifMatch {
		return nil, &Error{Op: "get", URL: URL{bucket, key}.String(), Kind: ErrPrecondition, Err: fmt.Errorf("the ETag is %s, not %s", x.ETag, ifMatch)}
	}
	return io.NopCloser(strings.NewReader("")), nil
}

// body counts what comes, so that a body cut short is never taken for a whole one.
type body struct {
	rc   io.ReadCloser
	left int64
	etag string
	fail func(error) error
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.rc.Read(p)
	b.left -= int64(n)
	switch {
	case err == nil, err == io.EOF && b.left <= 0:
		return n, err
	case err == io.EOF:
		return n, io.ErrUnexpectedEOF // the object is shorter
	}
	return n, b.fail(err)
}

func (b *body) Close() error { return b.rc.Close() }

func (s *s3Store) Put(ctx context.Context, bucket, key string, r io.Reader, size int64, o PutOptions) (Object, error) {
	ctx = listen(ctx)
	if err := checkNames("put", bucket, key); err != nil {
		return Object{}, err
	}
	if size < 0 {
		return Object{}, invalid("put", bucket, key, "the size is not known")
	}
	opts := minio.PutObjectOptions{ContentType: o.ContentType, UserMetadata: o.Metadata}
	if o.IfNoneMatch {
		opts.SetMatchETagExcept("*")
	}
	sum := ""
	if size <= bufferedPut {
		data := make([]byte, size)
		if _, err := io.ReadFull(r, data); err != nil {
			return Object{}, &Error{Op: "put", URL: URL{bucket, key}.String(), Kind: ErrInvalid, Err: fmt.Errorf("read the data: %w", err)}
		}
		r, sum = bytes.NewReader(data), s.checksum(data)
		opts.DisableContentSha256 = true // the sum is in the header: no chunked signing
	}
	var info minio.UploadInfo
	err := s.digested(bucket, r, func(md5 string) (err error) {
		info, err = s.core.PutObject(ctx, bucket, key, r, size, md5, sum, opts)
		return err
	})
	if err != nil {
		return Object{}, s.fail(ctx, "put", bucket, key, err)
	}
	return Object{Key: key, Size: size, ETag: unquote(info.ETag), ModifiedAt: info.LastModified}, nil
}

// checksum is what a request says of its body. Over plain HTTP the signature
// covers the body's SHA-256, which the store verifies; over TLS the connection
// protects it, and "" says that the body is not signed.
func (s *s3Store) checksum(data []byte) string {
	if s.tls {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func (s *s3Store) Delete(ctx context.Context, bucket string, keys ...string) error {
	ctx = listen(ctx)
	for _, key := range keys {
		if err := checkNames("delete", bucket, key); err != nil {
			return err
		}
	}
	switch len(keys) {
	case 0:
		return nil
	case 1:
		return absent(s.fail(ctx, "delete", bucket, keys[0], s.core.RemoveObject(ctx, bucket, keys[0], minio.RemoveObjectOptions{})))
	}
	results, err := s.core.RemoveObjectsWithIter(ctx, bucket, func(yield func(minio.ObjectInfo) bool) {
		for _, key := range keys {
			if !yield(minio.ObjectInfo{Key: key}) {
				return
			}
		}
	}, minio.RemoveObjectsOptions{})
	if err != nil {
		return s.fail(ctx, "delete", bucket, keys[0], err)
	}
	var first error
	for r := range results {
		if err := absent(s.fail(ctx, "delete", bucket, r.ObjectName, r.Err)); err != nil && first == nil {
			first = err
		}
	}
	if first == nil && ctx.Err() != nil {
		first = s.fail(ctx, "delete", bucket, keys[0], ctx.Err())
	}
	return first
}

func (s *s3Store) DeleteIf(ctx context.Context, bucket, key, etag string) error {
	if err := checkNames("delete", bucket, key); err != nil {
		return err
	}
	ctx = context.WithValue(listen(ctx), ifMatch{}, `"`+etag+`"`)
	return absent(s.fail(ctx, "delete", bucket, key, s.core.RemoveObject(ctx, bucket, key, minio.RemoveObjectOptions{})))
}

// ifMatch is the context's key for an ETag that a DELETE is to name: minio-go's
// options for that request take no headers.
type ifMatch struct{}

// matching adds the header. It need not be signed: who could take it away could
// send the request without it.
type matching struct{ http.RoundTripper }

func (m matching) RoundTrip(r *http.Request) (*http.Response, error) {
	if etag, ok := r.Context().Value(ifMatch{}).(string); ok && r.Method == http.MethodDelete {
		r = r.Clone(r.Context())
		r.Header.Set("If-Match", etag)
	}
	return m.RoundTripper.RoundTrip(r)
}

// absent takes the error away that says there was nothing to delete.
func absent(err error) error {
	if errors.Is(err, ErrNotExist) {
		return nil
	}
	return err
}

func unquote(etag string) string { return strings.Trim(etag, `"`) }

package objectstore

import (
	"context"
	"errors"
	"io"
	"iter"
)

var (
	errNoObjectStore = errors.New("no object store is configured")
	errNoHDFS        = errors.New("this needs a cluster with core nodes, which hold its files")
)

// Mux is one Store over two: places whose bucket begins with hdfs:// are hdfs's, all others, and what concerns
// the buckets themselves, s3's. Either may be nil: its places are ErrInvalid then. Where s3 is a Presigner, so is it.
func Mux(s3, hdfs Store) Store {
	m := &mux{s3, hdfs}
	if signer, ok := s3.(Presigner); ok {
		return &muxSigner{m, signer}
	}
	return m
}

type mux struct{ s3, hdfs Store }

type muxSigner struct {
	*mux
	Presigner
}

func muxOf(s Store) *mux {
	switch s := s.(type) {
	case *mux:
		return s
	case *muxSigner:
		return s.mux
	}
	return nil
}

// at is the store that has a bucket.
func (m *mux) at(op, bucket, key string) (Store, error) {
	s, reason := m.s3, errNoObjectStore
	if IsHDFS(bucket) {
		s, reason = m.hdfs, errNoHDFS
	}
	if s == nil {
		return nil, &Error{Op: op, URL: URL{bucket, key}.String(), Kind: ErrInvalid, Err: reason}
	}
	return s, nil
}

func (m *mux) ListBuckets(ctx context.Context) ([]Bucket, error) {
	s, err := m.at("list buckets", "", "")
	if err != nil {
		return nil, err
	}
	return s.ListBuckets(ctx)
}

func (m *mux) MakeBucket(ctx context.Context, bucket string) error {
	s, err := m.at("make bucket", bucket, "")
	if err != nil {
		return err
	}
	return s.MakeBucket(ctx, bucket)
}

func (m *mux) RemoveBucket(ctx context.Context, bucket string) error {
	s, err := m.at("remove bucket", bucket, "")
	if err != nil {
		return err
	}
	return s.RemoveBucket(ctx, bucket)
}

func (m *mux) BucketExists(ctx context.Context, bucket string) (bool, error) {
	s, err := m.at("bucket exists", bucket, "")
	if err != nil {
		return false, err
	}
	return s.BucketExists(ctx, bucket)
}

func (m *mux) List(ctx context.Context, bucket, prefix string, o ListOptions) iter.Seq2[Object, error] {
	s, err := m.at("list", bucket, prefix)
	if err != nil {
		return func(yield func(Object, error) bool) { yield(Object{}, err) }
	}
	return s.List(ctx, bucket, prefix, o)
}

func (m *mux) Head(ctx context.Context, bucket, key string) (Object, error) {
	s, err := m.at("head", bucket, key)
	if err != nil {
		return Object{}, err
	}
	return s.Head(ctx, bucket, key)
}

func (m *mux) Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error) {
	s, err := m.at("get", bucket, key)
	if err != nil {
		return nil, err
	}
	return s.Get(ctx, bucket, key, offset, length, ifMatch)
}

func (m *mux) Put(ctx context.Context, bucket, key string, r io.Reader, size int64, o PutOptions) (Object, error) {
	s, err := m.at("put", bucket, key)
	if err != nil {
		return Object{}, err
	}
	return s.Put(ctx, bucket, key, r, size, o)
}

func (m *mux) Delete(ctx context.Context, bucket string, keys ...string) error {
	s, err := m.at("delete", bucket, first(keys))
	if err != nil {
		return err
	}
	return s.Delete(ctx, bucket, keys...)
}

func first(keys []string) string {
	if len(keys) == 0 {
		return ""
	}
	return keys[0]
}

func (m *mux) DeleteIf(ctx context.Context, bucket, key, etag string) error {
	s, err := m.at("delete", bucket, key)
	if err != nil {
		return err
	}
	return s.DeleteIf(ctx, bucket, key, etag)
}

package objectstore

import (
	"context"
	"errors"
)

// Sealer is a Store with uploads whose end is in two steps: sealed by who has sent all parts, when nothing can be
// added any more and all that was sent is safe, and shown later, with others at once.
type Sealer interface {
	// SealUpload ends an upload; it may be repeated. ErrNoSuchUpload if it is not there.
	SealUpload(ctx context.Context, bucket, key, id string) error
}

var errNoSeal = errors.New("uploads there are not sealed, but completed")

// SealUpload is Sealer's, where the bucket's store is one; else ErrInvalid.
func (m *mux) SealUpload(ctx context.Context, bucket, key, id string) error {
	s, err := m.at("seal upload", bucket, key)
	if err != nil {
		return err
	}
	if sealer, ok := s.(Sealer); ok {
		return sealer.SealUpload(ctx, bucket, key, id)
	}
	return &Error{Op: "seal upload", URL: URL{bucket, key}.String(), Kind: ErrInvalid, Err: errNoSeal}
}

func (m *mux) CreateUpload(ctx context.Context, bucket, key string, metadata map[string]string) (string, error) {
	s, err := m.at("create upload", bucket, key)
	if err != nil {
		return "", err
	}
	return s.CreateUpload(ctx, bucket, key, metadata)
}

func (m *mux) UploadPart(ctx context.Context, bucket, key, id string, number int, data []byte) (Part, error) {
	s, err := m.at("upload part", bucket, key)
	if err != nil {
		return Part{}, err
	}
	return s.UploadPart(ctx, bucket, key, id, number, data)
}

func (m *mux) ListParts(ctx context.Context, bucket, key, id string) ([]Part, error) {
	s, err := m.at("list parts", bucket, key)
	if err != nil {
		return nil, err
	}
	return s.ListParts(ctx, bucket, key, id)
}

func (m *mux) CompleteUpload(ctx context.Context, bucket, key, id string, parts []Part) (string, error) {
	s, err := m.at("complete upload", bucket, key)
	if err != nil {
		return "", err
	}
	return s.CompleteUpload(ctx, bucket, key, id, parts)
}

func (m *mux) AbortUpload(ctx context.Context, bucket, key, id string) error {
	s, err := m.at("abort upload", bucket, key)
	if err != nil {
		return err
	}
	return s.AbortUpload(ctx, bucket, key, id)
}

func (m *mux) ListUploads(ctx context.Context, bucket, key string) ([]Upload, error) {
	s, err := m.at("list uploads", bucket, key)
	if err != nil {
		return nil, err
	}
	return s.ListUploads(ctx, bucket, key)
}

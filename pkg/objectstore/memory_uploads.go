package objectstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// CreateUpload is Store's.
func (m *Memory) CreateUpload(ctx context.Context, bucket, key string, metadata map[string]string) (id string, err error) {
	err = m.in(ctx, "CreateUpload", bucket, key, func(b *memoryBucket) error {
		if err := checkNames("create upload", bucket, key); err != nil {
			return err
		}
		m.uploads++
		id = fmt.Sprintf("upload-%06d", m.uploads)
		b.uploads[id] = &memoryUpload{id: id, key: key, metadata: maps.Clone(metadata), parts: map[int]memoryPart{}}
		return nil
	})
	return id, err
}

func (b *memoryBucket) upload(op, bucket, key, id string) (*memoryUpload, error) {
	if err := checkUpload(strings.ToLower(op), bucket, key, id); err != nil {
		return nil, err
	}
	u := b.uploads[id]
	if u == nil || u.key != key {
		return nil, refuse(op, bucket, key, ErrNoSuchUpload, "NoSuchUpload")
	}
	return u, nil
}

// UploadPart is Store's.
func (m *Memory) UploadPart(ctx context.Context, bucket, key, id string, number int, data []byte) (p Part, err error) {
	err = m.in(ctx, "UploadPart", bucket, key, func(b *memoryBucket) error {
		u, err := b.upload("UploadPart", bucket, key, id)
		if err != nil {
			return err
		}
		if number < 1 || number > maxParts {
			return invalid("upload part", bucket, key, fmt.Sprintf("part number %d is not between 1 and %d", number, maxParts))
		}
		sum := md5.Sum(data)
		p = Part{Number: number, Size: int64(len(data)), ETag: hex.EncodeToString(sum[:])}
		u.parts[number] = memoryPart{Part: p, data: bytes.Clone(data)}
		return nil
	})
	return p, err
}

// ListParts is Store's.
func (m *Memory) ListParts(ctx context.Context, bucket, key, id string) (out []Part, err error) {
	err = m.in(ctx, "ListParts", bucket, key, func(b *memoryBucket) error {
		u, err := b.upload("ListParts", bucket, key, id)
		if err != nil {
			return err
		}
		for _, number := range slices.Sorted(maps.Keys(u.parts)) {
			out = append(out, u.parts[number].Part)
		}
		return nil
	})
	return out, err
}

// CompleteUpload is Store's. A second time it is ErrNoSuchUpload, as with MinIO.
func (m *Memory) CompleteUpload(ctx context.Context, bucket, key, id string, parts []Part) (etag string, err error) {
	err = m.in(ctx, "CompleteUpload", bucket, key, func(b *memoryBucket) error {
		u, err := b.upload("CompleteUpload", bucket, key, id)
		if err != nil {
			return err
		}
		if len(parts) == 0 {
			return invalid("complete upload", bucket, key, "it has no parts")
		}
		var data, sums []byte
		last := 0
		for _, p := range parts {
			have, ok := u.parts[p.Number]
			switch {
			case p.Number <= last:
				return refuse("CompleteUpload", bucket, key, ErrInvalid, "InvalidPartOrder")
			case !ok, have.ETag != p.ETag:
				return refuse("CompleteUpload", bucket, key, ErrInvalid, "InvalidPart")
			}
			last = p.Number
			data = append(data, have.data...)
			sum := md5.Sum(have.data)
			sums = append(sums, sum[:]...)
		}
		sum := md5.Sum(sums)
		etag = fmt.Sprintf("%s-%d", hex.EncodeToString(sum[:]), len(parts))
		b.store(key, data, etag, u.metadata)
		delete(b.uploads, id)
		return nil
	})
	return etag, err
}

// AbortUpload is Store's.
func (m *Memory) AbortUpload(ctx context.Context, bucket, key, id string) error {
	return m.in(ctx, "AbortUpload", bucket, key, func(b *memoryBucket) error {
		if _, err := b.upload("AbortUpload", bucket, key, id); err != nil {
			return err
		}
		delete(b.uploads, id)
		return nil
	})
}

// ListUploads is Store's.
func (m *Memory) ListUploads(ctx context.Context, bucket, key string) (out []Upload, err error) {
	err = m.in(ctx, "ListUploads", bucket, key, func(b *memoryBucket) error {
		for _, u := range b.uploads {
			if u.key == key {
				out = append(out, Upload{Key: u.key, ID: u.id})
			}
		}
		slices.SortFunc(out, func(a, b Upload) int { return cmp.Compare(a.ID, b.ID) })
		return nil
	})
	return out, err
}

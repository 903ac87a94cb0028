package task

import (
	"context"
	"fmt"
	"io"

	"millrace/pkg/filesocket"
	"millrace/pkg/objectstore"
)

// places is a task's Store: an object store that it speaks to itself, and the files of clusters, for which its worker does.
type places struct {
	Store
	files *filesocket.Client // nil: the worker has none
}

// withFiles is a store that has clusters' files, too, by the worker's socket; "" if it has none.
func withFiles(s Store, socket string) Store {
	p := places{Store: s}
	if socket != "" {
		p.files = filesocket.NewClient(socket)
	}
	return p
}

func (p places) Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error) {
	if !objectstore.IsHDFS(bucket) {
		return p.Store.Get(ctx, bucket, key, offset, length, ifMatch)
	}
	if p.files == nil {
		return nil, noFiles("get", bucket, key)
	}
	return p.files.Get(ctx, bucket, key, offset, length, ifMatch)
}

func (p places) UploadPart(ctx context.Context, bucket, key, id string, number int, data []byte) (objectstore.Part, error) {
	if !objectstore.IsHDFS(bucket) {
		return p.Store.UploadPart(ctx, bucket, key, id, number, data)
	}
	if p.files == nil {
		return objectstore.Part{}, noFiles("upload part", bucket, key)
	}
	return p.files.UploadPart(ctx, bucket, key, id, number, data)
}

// SealUpload is objectstore.Sealer's, for outputs in a cluster's files.
func (p places) SealUpload(ctx context.Context, bucket, key, id string) error {
	if p.files == nil {
		return noFiles("seal upload", bucket, key)
	}
	return p.files.SealUpload(ctx, bucket, key, id)
}

func noFiles(op, bucket, key string) error {
	return fmt.Errorf("%s %s: %w", op, objectstore.URL{Bucket: bucket, Key: key}, errNoFiles)
}

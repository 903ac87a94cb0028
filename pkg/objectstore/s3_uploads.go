package objectstore

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/minio/minio-go/v7"
)

// unwantedTime is how long the answer to a request for a new upload is waited for when its caller waits no more.
const unwantedTime = time.Minute

// CreateUpload is Store's. Such a request cannot be taken back: what has left this machine may reach the store much later, when a network
// is mended or a store goes on, and then there is an upload that nobody knows. So it is heard to its end, and what nobody wants by then aborted.
func (s *s3Store) CreateUpload(ctx context.Context, bucket, key string, metadata map[string]string) (string, error) {
	ctx = listen(ctx)
	if err := checkNames("create upload", bucket, key); err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", s.fail(ctx, "create upload", bucket, key, err)
	}
	type answer struct {
		id  string
		err error
	}
	answered, unwanted := make(chan answer), make(chan struct{})
	asked, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer giveUp()
		id, err := s.core.NewMultipartUpload(asked, bucket, key, minio.PutObjectOptions{UserMetadata: metadata})
		select {
		case answered <- answer{id, err}:
		case <-unwanted:
			if err == nil {
				_ = Retrying(s, Retry{Patience: unwantedTime}).AbortUpload(asked, bucket, key, id) // if it stays all the same: it is empty, and stores drop it
			}
		}
	}()
	select {
	case a := <-answered:
		return a.id, s.fail(ctx, "create upload", bucket, key, a.err)
	case <-ctx.Done():
		time.AfterFunc(unwantedTime, giveUp)
		close(unwanted)
		return "", s.fail(ctx, "create upload", bucket, key, ctx.Err())
	}
}

func (s *s3Store) UploadPart(ctx context.Context, bucket, key, id string, number int, data []byte) (Part, error) {
	ctx = listen(ctx)
	if err := checkUpload("upload part", bucket, key, id); err != nil {
		return Part{}, err
	}
	if number < 1 || number > maxParts {
		return Part{}, invalid("upload part", bucket, key, fmt.Sprintf("part number %d is not between 1 and %d", number, maxParts))
	}
	var p minio.ObjectPart
	body, sum := bytes.NewReader(data), s.checksum(data)
	err := s.digested(bucket, body, func(md5 string) (err error) {
		p, err = s.core.PutObjectPart(ctx, bucket, key, id, number, body, int64(len(data)),
			minio.PutObjectPartOptions{Md5Base64: md5, Sha256Hex: sum, DisableContentSha256: true})
		return err
	})
	if err != nil {
		return Part{}, s.fail(ctx, "upload part", bucket, key, err)
	}
	return Part{Number: number, Size: int64(len(data)), ETag: unquote(p.ETag)}, nil
}

// maxParts is S3's limit on the parts of an upload.
const maxParts = 10_000

func (s *s3Store) ListParts(ctx context.Context, bucket, key, id string) ([]Part, error) {
	ctx = listen(ctx)
	if err := checkUpload("list parts", bucket, key, id); err != nil {
		return nil, err
	}
	var parts []Part
	for marker := 0; ; {
		page, err := s.core.ListObjectParts(ctx, bucket, key, id, marker, 1000)
		if err != nil {
			return nil, s.fail(ctx, "list parts", bucket, key, err)
		}
		for _, p := range page.ObjectParts {
			parts = append(parts, Part{Number: p.PartNumber, Size: p.Size, ETag: unquote(p.ETag)})
		}
		if !page.IsTruncated {
			return parts, nil
		}
		if page.NextPartNumberMarker <= marker {
			return nil, s.fail(ctx, "list parts", bucket, key, fmt.Errorf("the listing does not go on after part %d", marker))
		}
		marker = page.NextPartNumberMarker
	}
}

func (s *s3Store) CompleteUpload(ctx context.Context, bucket, key, id string, parts []Part) (string, error) {
	ctx = listen(ctx)
	if err := checkUpload("complete upload", bucket, key, id); err != nil {
		return "", err
	}
	if len(parts) == 0 {
		return "", invalid("complete upload", bucket, key, "it has no parts")
	}
	list := make([]minio.CompletePart, len(parts))
	for i, p := range parts {
		list[i] = minio.CompletePart{PartNumber: p.Number, ETag: p.ETag}
	}
	info, err := s.core.CompleteMultipartUpload(ctx, bucket, key, id, list, minio.PutObjectOptions{})
	return unquote(info.ETag), s.fail(ctx, "complete upload", bucket, key, err)
}

func (s *s3Store) AbortUpload(ctx context.Context, bucket, key, id string) error {
	ctx = listen(ctx)
	if err := checkUpload("abort upload", bucket, key, id); err != nil {
		return err
	}
	return s.fail(ctx, "abort upload", bucket, key, s.core.AbortMultipartUpload(ctx, bucket, key, id))
}

func (s *s3Store) ListUploads(ctx context.Context, bucket, key string) ([]Upload, error) {
	ctx = listen(ctx)
	if err := checkNames("list uploads", bucket, key); err != nil {
		return nil, err
	}
	var out []Upload
	for keyMarker, idMarker := "", ""; ; {
		page, err := s.core.ListMultipartUploads(ctx, bucket, key, keyMarker, idMarker, "", 1000)
		if err != nil {
			return nil, s.fail(ctx, "list uploads", bucket, key, err)
		}
		for _, u := range page.Uploads {
			if u.Key == key {
				out = append(out, Upload{Key: u.Key, ID: u.UploadID})
			}
		}
		if !page.IsTruncated || page.NextKeyMarker > key {
			return out, nil
		}
		if page.NextKeyMarker == keyMarker && page.NextUploadIDMarker == idMarker {
			return nil, s.fail(ctx, "list uploads", bucket, key, fmt.Errorf("the listing does not go on after upload %s", idMarker))
		}
		keyMarker, idMarker = page.NextKeyMarker, page.NextUploadIDMarker
	}
}

func checkUpload(op, bucket, key, id string) error {
	if err := checkNames(op, bucket, key); err != nil {
		return err
	}
	if id == "" {
		return invalid(op, bucket, key, "the upload id is empty")
	}
	return nil
}

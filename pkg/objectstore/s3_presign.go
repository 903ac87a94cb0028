package objectstore

import (
	"context"
	"fmt"
	"time"
)

// MaxPresign is the longest time that S3 lets a presigned URL be good for.
const MaxPresign = 7 * 24 * time.Hour

// Presigner is a Store that can make URLs for people without a key.
type Presigner interface {
	// PresignGet gives a URL by which anybody reads one object, until ttl (1 s to
	// MaxPresign) is over. It asks the store nothing, not even whether the object is there.
	PresignGet(ctx context.Context, bucket, key string, ttl time.Duration) (string, error)
}

func (s *s3Store) PresignGet(ctx context.Context, bucket, key string, ttl time.Duration) (string, error) {
	if ttl < time.Second || ttl > MaxPresign {
		return "", fmt.Errorf("presign %s: a URL can be good for 1s to %s, not for %s", URL{bucket, key}, MaxPresign, ttl)
	}
	u, err := s.core.PresignedGetObject(ctx, bucket, key, ttl, nil)
	if err != nil {
		return "", s.fail(ctx, "presign", bucket, key, err)
	}
	return u.String(), nil
}

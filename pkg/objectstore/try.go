package objectstore

import (
	"context"
	"errors"
)

// Try asks a store whether it is there and takes the key that is to be used below a prefix; a bucket that does not
// exist is no error. It is not asked by a HEAD, whose answer has no body: some stores say 404 to a key that nobody has.
func Try(ctx context.Context, s Store, bucket, prefix string) error {
	for _, err := range s.List(ctx, bucket, prefix, ListOptions{Max: 1}) {
		if err != nil && !errors.Is(err, ErrNoSuchBucket) {
			return err
		}
	}
	return nil
}

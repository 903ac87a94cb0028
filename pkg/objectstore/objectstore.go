// Package objectstore is S3 behind a small interface: what Millrace needs of
// an object store, with the store's many ways of saying no turned into a few
// sentinel errors. S3 (minio-go) and Memory (the twin for tests) implement it.
//
// It knows buckets, keys and uploads. It knows nothing of jobs, retries beyond
// what a single request needs, or of who may write where.
package objectstore

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// What a caller may decide on. Every error of a Store wraps at most one of them.
var (
	ErrNotExist     = errors.New("no such object")
	ErrNoSuchBucket = errors.New("no such bucket")
	ErrNoSuchUpload = errors.New("no such upload")
	ErrPrecondition = errors.New("precondition failed") // ETag changed, or IfNoneMatch found an object
	ErrDenied       = errors.New("access denied")       // credential refused or not allowed
	ErrUnreachable  = errors.New("store unreachable")   // no answer: the request may or may not have been carried out
	ErrDamaged      = errors.New("damaged")             // its bytes are lost: asking again does not help
	ErrInvalid      = errors.New("refused by the store as invalid")
	ErrExists       = errors.New("already exists") // a bucket
)

// Object describes one object, or one common prefix of a listing.
type Object struct {
	Key        string // without the bucket
	Size       int64
	ETag       string // without quotes
	ModifiedAt time.Time
	Prefix     bool              // a common prefix, ends in "/"
	Metadata   map[string]string // user metadata, lower-case names; from Head only
}

// Part is one uploaded part of a multipart upload.
type Part struct {
	Number int // from 1
	Size   int64
	ETag   string
}

// Upload is an incomplete multipart upload.
type Upload struct {
	Key, ID string
}

// Bucket names a bucket.
type Bucket struct {
	Name      string
	CreatedAt time.Time
}

// ListOptions narrow a listing.
type ListOptions struct {
	Delimiter  bool   // group by "/" below the prefix into Prefix entries
	StartAfter string // keys after this one
	Max        int    // stop after so many; 0 = all
}

// PutOptions go with one Put.
type PutOptions struct {
	IfNoneMatch bool // only if there is no such object yet: else ErrPrecondition
	ContentType string
	Metadata    map[string]string
}

// Store is an object store. All methods may be called at once from many
// goroutines. Keys are as they are: never cleaned, never escaped by the caller.
type Store interface {
	ListBuckets(ctx context.Context) ([]Bucket, error)
	MakeBucket(ctx context.Context, bucket string) error // ErrExists if it is there
	RemoveBucket(ctx context.Context, bucket string) error
	BucketExists(ctx context.Context, bucket string) (bool, error)

	// List yields objects in key order, streamed page by page. An error is the last item.
	List(ctx context.Context, bucket, prefix string, o ListOptions) iter.Seq2[Object, error]
	// Head describes one object. A HEAD has no body: some stores cannot say that it
	// is the bucket that is missing, and ErrNotExist may mean that, too.
	Head(ctx context.Context, bucket, key string) (Object, error)
	// Get reads length bytes from offset (length < 0: to the end). With ifMatch the
	// object must still have that ETag, else ErrPrecondition. A body that ends
	// early gives io.ErrUnexpectedEOF, also where the object is shorter than
	// offset+length; an offset beyond its end is ErrInvalid. The request has been
	// answered when Get returns.
	Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error)
	// Put writes size bytes of r (size must be known).
	Put(ctx context.Context, bucket, key string, r io.Reader, size int64, o PutOptions) (Object, error)
	// Delete removes keys; a key that is not there is no error.
	Delete(ctx context.Context, bucket string, keys ...string) error
	// DeleteIf removes a key if the object still has that ETag, else ErrPrecondition;
	// one that is not there is no error. So a request that the store carries out late
	// does not remove what has come since. Stores that know no conditions on a
	// DELETE, as MinIO, remove the object whatever it is.
	DeleteIf(ctx context.Context, bucket, key, etag string) error

	CreateUpload(ctx context.Context, bucket, key string, metadata map[string]string) (id string, err error)
	// UploadPart sends one part, again if need be. A store that refuses before it has
	// read a big part may break the connection: what is ErrNoSuchUpload for a small
	// part can then be ErrUnreachable.
	UploadPart(ctx context.Context, bucket, key, id string, number int, data []byte) (Part, error)
	ListParts(ctx context.Context, bucket, key, id string) ([]Part, error)
	CompleteUpload(ctx context.Context, bucket, key, id string, parts []Part) (etag string, err error)
	AbortUpload(ctx context.Context, bucket, key, id string) error
	// ListUploads lists the incomplete uploads of exactly this key.
	ListUploads(ctx context.Context, bucket, key string) ([]Upload, error)
}

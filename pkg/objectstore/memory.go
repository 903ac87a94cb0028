package objectstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Memory is a Store in memory that behaves as MinIO does, except that parts of
// any size will do. Set its hooks before use.
type Memory struct {
	// Fault, if set, is asked before each operation; an error it returns is the
	// operation's, and nothing is done. op is the method's name ("Put",
	// "CompleteUpload", …), key the first one concerned.
	Fault func(op, bucket, key string) error
	// Lost, if set, is asked after each operation that succeeded: an error it
	// returns takes the place of the answer, as when a connection breaks.
	Lost func(op, bucket, key string) error

	mu      sync.Mutex
	buckets map[string]*memoryBucket
	uploads int // made so far: the source of ids
}

type memoryBucket struct {
	created time.Time
	objects map[string]*memoryObject
	uploads map[string]*memoryUpload
}

type memoryObject struct {
	Object
	data []byte
}

type memoryUpload struct {
	id, key  string
	metadata map[string]string
	parts    map[int]memoryPart
}

type memoryPart struct {
	Part
	data []byte
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory { return &Memory{buckets: map[string]*memoryBucket{}} }

// do runs one operation between the hooks, with the lock held.
func (m *Memory) do(ctx context.Context, op, bucket, key string, f func() error) error {
	if err := ctx.Err(); err != nil {
		return &Error{Op: strings.ToLower(op), URL: URL{bucket, key}.String(), Err: err}
	}
	if m.Fault != nil {
		if err := m.Fault(op, bucket, key); err != nil {
			return err
		}
	}
	m.mu.Lock()
	err := f()
	m.mu.Unlock()
	if err == nil && m.Lost != nil {
		err = m.Lost(op, bucket, key)
	}
	return err
}

func refuse(op, bucket, key string, kind error, code string) error {
	return &Error{Op: strings.ToLower(op), URL: URL{bucket, key}.String(), Kind: kind, Code: code}
}

// in runs one operation in a bucket that must be there.
func (m *Memory) in(ctx context.Context, op, bucket, key string, f func(b *memoryBucket) error) error {
	return m.do(ctx, op, bucket, key, func() error {
		if reason := badBucket(bucket); reason != "" {
			return invalid(strings.ToLower(op), bucket, key, "the bucket name "+reason)
		}
		b := m.buckets[bucket]
		if b == nil {
			return refuse(op, bucket, key, ErrNoSuchBucket, "NoSuchBucket")
		}
		return f(b)
	})
}

// ListBuckets is Store's.
func (m *Memory) ListBuckets(ctx context.Context) (out []Bucket, err error) {
	err = m.do(ctx, "ListBuckets", "", "", func() error {
		for _, name := range slices.Sorted(maps.Keys(m.buckets)) {
			out = append(out, Bucket{Name: name, CreatedAt: m.buckets[name].created})
		}
		return nil
	})
	return out, err
}

// MakeBucket is Store's.
func (m *Memory) MakeBucket(ctx context.Context, bucket string) error {
	return m.do(ctx, "MakeBucket", bucket, "", func() error {
		if reason := badNewBucket(bucket); reason != "" {
			return invalid("make bucket", bucket, "", "the bucket name "+reason)
		}
		if m.buckets[bucket] != nil {
			return refuse("MakeBucket", bucket, "", ErrExists, "BucketAlreadyOwnedByYou")
		}
		m.buckets[bucket] = &memoryBucket{created: time.Now(), objects: map[string]*memoryObject{}, uploads: map[string]*memoryUpload{}}
		return nil
	})
}

// RemoveBucket is Store's.
func (m *Memory) RemoveBucket(ctx context.Context, bucket string) error {
	return m.in(ctx, "RemoveBucket", bucket, "", func(b *memoryBucket) error {
		if len(b.objects) > 0 {
			return refuse("RemoveBucket", bucket, "", ErrInvalid, "BucketNotEmpty")
		}
		delete(m.buckets, bucket)
		return nil
	})
}

// BucketExists is Store's.
func (m *Memory) BucketExists(ctx context.Context, bucket string) (ok bool, err error) {
	err = m.do(ctx, "BucketExists", bucket, "", func() error {
		ok = m.buckets[bucket] != nil
		return nil
	})
	return ok, err
}

// List is Store's. It yields the state at its start.
func (m *Memory) List(ctx context.Context, bucket, prefix string, o ListOptions) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		var found []Object
		err := m.in(ctx, "List", bucket, prefix, func(b *memoryBucket) error {
			found = b.list(prefix, o)
			return nil
		})
		if err != nil {
			yield(Object{}, err)
			return
		}
		for _, x := range found {
			if !yield(x, nil) {
				return
			}
		}
	}
}

func (b *memoryBucket) list(prefix string, o ListOptions) []Object {
	var found []Object
	seen := map[string]bool{}
	for key, x := range b.objects {
		if !strings.HasPrefix(key, prefix) || key <= o.StartAfter && o.StartAfter != "" {
			continue
		}
		if i := strings.IndexByte(key[len(prefix):], '/'); o.Delimiter && i >= 0 {
			group := key[:len(prefix)+i+1]
			if !seen[group] && (o.StartAfter == "" || group > o.StartAfter) {
				seen[group] = true
				found = append(found, Object{Key: group, Prefix: true})
			}
			continue
		}
		listed := x.Object
		listed.Metadata = nil
		found = append(found, listed)
	}
	slices.SortFunc(found, func(a, b Object) int { return cmp.Compare(a.Key, b.Key) })
	if o.Max > 0 && len(found) > o.Max {
		found = found[:o.Max]
	}
	return found
}

func (b *memoryBucket) get(op, bucket, key string) (*memoryObject, error) {
	if err := checkNames(strings.ToLower(op), bucket, key); err != nil {
		return nil, err
	}
	x := b.objects[key]
	if x == nil {
		return nil, refuse(op, bucket, key, ErrNotExist, "NoSuchKey")
	}
	return x, nil
}

// Head is Store's.
func (m *Memory) Head(ctx context.Context, bucket, key string) (x Object, err error) {
	err = m.in(ctx, "Head", bucket, key, func(b *memoryBucket) error {
		o, err := b.get("Head", bucket, key)
		if err != nil {
			return err
		}
		x = o.Object
		x.Metadata = maps.Clone(o.Metadata)
		return nil
	})
	return x, err
}

// Get is Store's.
func (m *Memory) Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (rc io.ReadCloser, err error) {
	err = m.in(ctx, "Get", bucket, key, func(b *memoryBucket) error {
		o, err := b.get("Get", bucket, key)
		if err != nil {
			return err
		}
		if ifMatch != "" && o.ETag != ifMatch {
			return refuse("Get", bucket, key, ErrPrecondition, "PreconditionFailed")
		}
		if offset < 0 || offset > o.Size || offset == o.Size && offset > 0 && length != 0 || o.Size == 0 && length > 0 {
			return refuse("Get", bucket, key, ErrInvalid, "InvalidRange")
		}
		data := o.data[offset:]
		want := int64(len(data))
		if length >= 0 {
			want = length
			data = data[:min(int64(len(data)), length)]
		}
		rc = &body{rc: io.NopCloser(bytes.NewReader(data)), left: want}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rc, nil
}

// Put is Store's.
func (m *Memory) Put(ctx context.Context, bucket, key string, r io.Reader, size int64, o PutOptions) (x Object, err error) {
	data := make([]byte, max(size, 0))
	_, readErr := io.ReadFull(r, data)
	err = m.in(ctx, "Put", bucket, key, func(b *memoryBucket) error {
		if err := checkNames("put", bucket, key); err != nil {
			return err
		}
		if size < 0 || readErr != nil {
			return invalid("put", bucket, key, fmt.Sprintf("cannot read %d bytes of data", size))
		}
		if o.IfNoneMatch && b.objects[key] != nil {
			return refuse("Put", bucket, key, ErrPrecondition, "PreconditionFailed")
		}
		sum := md5.Sum(data)
		x = b.store(key, data, hex.EncodeToString(sum[:]), o.Metadata)
		return nil
	})
	return x, err
}

func (b *memoryBucket) store(key string, data []byte, etag string, metadata map[string]string) Object {
	lower := map[string]string{}
	for k, v := range metadata {
		lower[strings.ToLower(k)] = v
	}
	x := Object{Key: key, Size: int64(len(data)), ETag: etag, ModifiedAt: time.Now(), Metadata: lower}
	b.objects[key] = &memoryObject{Object: x, data: data}
	x.Metadata = nil
	return x
}

// Delete is Store's.
func (m *Memory) Delete(ctx context.Context, bucket string, keys ...string) error {
	if len(keys) == 0 {
		return nil
	}
	return m.in(ctx, "Delete", bucket, keys[0], func(b *memoryBucket) error {
		for _, key := range keys {
			if err := checkNames("delete", bucket, key); err != nil {
				return err
			}
		}
		for _, key := range keys {
			delete(b.objects, key)
		}
		return nil
	})
}

// DeleteIf is Store's.
func (m *Memory) DeleteIf(ctx context.Context, bucket, key, etag string) error {
	return m.in(ctx, "DeleteIf", bucket, key, func(b *memoryBucket) error {
		if err := checkNames("delete", bucket, key); err != nil {
			return err
		}
		if o := b.objects[key]; o != nil && o.ETag != etag {
			return refuse("DeleteIf", bucket, key, ErrPrecondition, "PreconditionFailed")
		}
		delete(b.objects, key)
		return nil
	})
}

package fakes3

import (
	"context"
	"fmt"
	"io"
	"iter"
	"sort"
	"strings"
	"time"

	"millrace/pkg/objectstore"
)

// LineLength is the length in bytes of every line of a synthetic object, with its end.
const LineLength = 16

// Synthetic is a Store with objects in one bucket that exist by rule only, so that a
// million of them, or one of many gigabytes, cost nothing. Their content is lines
// that number themselves: line i is i in 15 digits. All else is the Store's below.
type Synthetic struct {
	objectstore.Store
	Bucket string
	Count  int
	Key    func(i int) string // of object i; in increasing order
	Size   int64              // of each object
}

// find is the index of the first object whose key is s or after it.
func (s *Synthetic) find(key string) int {
	return sort.Search(s.Count, func(i int) bool { return s.Key(i) >= key })
}

func (s *Synthetic) describe(key string) objectstore.Object {
	return objectstore.Object{Key: key, Size: s.Size, ETag: fmt.Sprintf("synthetic-%d", s.Size), ModifiedAt: time.Unix(1_700_000_000, 0)}
}

func (s *Synthetic) has(bucket, key string) bool {
	i := s.find(key)
	return bucket == s.Bucket && i < s.Count && s.Key(i) == key
}

// List is Store's.
func (s *Synthetic) List(ctx context.Context, bucket, prefix string, o objectstore.ListOptions) iter.Seq2[objectstore.Object, error] {
	if bucket != s.Bucket {
		return s.Store.List(ctx, bucket, prefix, o)
	}
	return func(yield func(objectstore.Object, error) bool) {
		i := s.find(max(prefix, o.StartAfter))
		for n := 0; i < s.Count && (o.Max == 0 || n < o.Max); {
			key := s.Key(i)
			if !strings.HasPrefix(key, prefix) {
				return
			}
			x := s.describe(key)
			i++
			if slash := strings.IndexByte(key[len(prefix):], '/'); o.Delimiter && slash >= 0 {
				group := key[:len(prefix)+slash+1]
				x = objectstore.Object{Key: group, Prefix: true}
				i = s.find(group[:len(group)-1] + "0") // "0" follows "/"
			}
			if x.Key <= o.StartAfter && o.StartAfter != "" {
				continue
			}
			if n++; !yield(x, nil) {
				return
			}
		}
	}
}

// Head is Store's.
func (s *Synthetic) Head(ctx context.Context, bucket, key string) (objectstore.Object, error) {
	if !s.has(bucket, key) {
		return s.Store.Head(ctx, bucket, key)
	}
	return s.describe(key), nil
}

// Get is Store's.
func (s *Synthetic) Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error) {
	if !s.has(bucket, key) {
		return s.Store.Get(ctx, bucket, key, offset, length, ifMatch)
	}
	if length < 0 || offset+length > s.Size {
		length = s.Size - offset
	}
	return io.NopCloser(io.NewSectionReader(lines{}, offset, length)), nil
}

// lines is the endless content of every synthetic object.
type lines struct{}

func (lines) ReadAt(p []byte, offset int64) (int, error) {
	line := make([]byte, 0, LineLength)
	for n := 0; n < len(p); {
		at := offset + int64(n)
		line = fmt.Appendf(line[:0], "%015d\n", at/LineLength)
		n += copy(p[n:], line[at%LineLength:])
	}
	return len(p), nil
}

package local

import (
	"context"
	"errors"
	"io"
	"iter"
	"path/filepath"
	"strings"

	"millrace/pkg/objectstore"
)

// places is what tasks read and write: an object store that has this machine's files
// in one more bucket.
type places struct{ s3 objectstore.Store }

func (p *places) List(ctx context.Context, bucket, prefix string, o objectstore.ListOptions) iter.Seq2[objectstore.Object, error] {
	if bucket == fileBucket {
		return listFiles(ctx, prefix)
	}
	return p.s3.List(ctx, bucket, prefix, o)
}

func (p *places) Head(ctx context.Context, bucket, key string) (objectstore.Object, error) {
	if bucket == fileBucket {
		return headFile(key)
	}
	return p.s3.Head(ctx, bucket, key)
}

func (p *places) Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error) {
	if bucket == fileBucket {
		return getFile(key, offset, length, ifMatch)
	}
	return p.s3.Get(ctx, bucket, key, offset, length, ifMatch)
}

func (p *places) UploadPart(ctx context.Context, bucket, key, id string, number int, data []byte) (objectstore.Part, error) {
	if bucket == fileBucket {
		return putPart(key, number, data)
	}
	return p.s3.UploadPart(ctx, bucket, key, id, number, data)
}

var errNoStore = errors.New("no object store is configured")

// url makes a local path, a file:// URL or an s3:// URL into a place.
func (p *places) url(s string) (objectstore.URL, error) {
	scheme, path, ok := strings.Cut(s, "://")
	switch {
	case !ok:
		path = s
	case scheme != "file":
		u, err := objectstore.ParseS3(s)
		if err == nil && p.s3 == nil {
			err = errNoStore
		}
		return u, err
	}
	if path == "" {
		return objectstore.URL{}, errors.New("it is empty")
	}
	abs, err := filepath.Abs(path)
	if strings.HasSuffix(path, "/") && abs != "/" {
		abs += "/"
	}
	return objectstore.URL{Bucket: fileBucket, Key: abs}, err
}

// display names a place for people: a file by its path.
func display(url string) string {
	return strings.TrimPrefix(url, "s3://"+fileBucket+"/")
}

// overlap refuses an output below an input, or the other way round.
func overlap(inputs []string, places []objectstore.URL, output string, out objectstore.URL) error {
	at := func(u objectstore.URL) string { return u.Bucket + "\x00" + strings.TrimSuffix(u.Key, "/") + "/" }
	for i, in := range places {
		if in.Bucket != out.Bucket {
			continue
		}
		where, below := at(in), false
		if glob := strings.IndexAny(where, `*?[{\`); glob >= 0 {
			where = where[:strings.LastIndexByte(where[:glob], '/')+1] // what it may match lies below
		} else {
			below = strings.HasPrefix(at(out), where)
		}
		if below || strings.HasPrefix(where, at(out)) {
			return refuse("output %s overlaps with input %s", output, inputs[i])
		}
	}
	return nil
}

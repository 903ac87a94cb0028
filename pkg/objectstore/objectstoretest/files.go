package objectstoretest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"millrace/pkg/objectstore"
)

// Files is clusters' block stores in memory, as far as jobs see them: objects are files, which are written once, in
// order, and hidden uploads of a group (a job) until the group is published. Buckets begin with hdfs://. What jobs
// do not ask of it panics.
type Files struct {
	objectstore.Store // nil

	mu     sync.Mutex
	last   int
	files  map[string]file // by URL
	hidden []*HiddenFile   // in the order of their making
}

type file struct {
	data []byte
	etag string
	at   time.Time
}

// HiddenFile is an upload.
type HiddenFile struct {
	ID, Group, Task string
	Bucket, Key     string
	Data            []byte
	Parts           int
	Sealed          bool
}

// NewFiles makes block stores with nothing in them.
func NewFiles() *Files { return &Files{files: map[string]file{}} }

// Write makes a file, or another one in its place.
func (f *Files) Write(url, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files[url] = file{[]byte(text), f.next(), time.Now()}
}

// Read gives a file's text; false if there is none.
func (f *Files) Read(url string) (string, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x, ok := f.files[url]
	return string(x.data), ok
}

// Names lists the URLs of all files that begin so, in order.
func (f *Files) Names(prefix string) (names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name := range f.files {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (f *Files) next() string {
	f.last++
	return fmt.Sprintf("f-%04d", f.last)
}

func url(bucket, key string) string { return objectstore.URL{Bucket: bucket, Key: key}.String() }

func (f *Files) refuse(op, bucket, key string, kind error) error {
	return &objectstore.Error{Op: op, URL: url(bucket, key), Kind: kind}
}

// List is Store's, of all below a prefix.
func (f *Files) List(_ context.Context, bucket, prefix string, o objectstore.ListOptions) iter.Seq2[objectstore.Object, error] {
	root := url(bucket, "")
	names := f.Names(url(bucket, prefix))
	return func(yield func(objectstore.Object, error) bool) {
		for n, name := range names {
			f.mu.Lock()
			x := f.files[name]
			f.mu.Unlock()
			key := strings.TrimPrefix(name, root)
			if o.Max > 0 && n == o.Max {
				return
			}
			if key > o.StartAfter && !yield(x.object(key), nil) {
				return
			}
		}
	}
}

func (x file) object(key string) objectstore.Object {
	return objectstore.Object{Key: key, Size: int64(len(x.data)), ETag: x.etag, ModifiedAt: x.at}
}

// Head is Store's.
func (f *Files) Head(_ context.Context, bucket, key string) (objectstore.Object, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x, ok := f.files[url(bucket, key)]
	if !ok {
		return objectstore.Object{}, f.refuse("head", bucket, key, objectstore.ErrNotExist)
	}
	return x.object(key), nil
}

// Get is Store's.
func (f *Files) Get(_ context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x, ok := f.files[url(bucket, key)]
	switch {
	case !ok:
		return nil, f.refuse("get", bucket, key, objectstore.ErrNotExist)
	case ifMatch != "" && ifMatch != x.etag:
		return nil, f.refuse("get", bucket, key, objectstore.ErrPrecondition)
	case offset > int64(len(x.data)):
		return nil, f.refuse("get", bucket, key, objectstore.ErrInvalid)
	}
	data := x.data[offset:]
	if length >= 0 {
		data = data[:min(length, int64(len(data)))]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// Put is Store's; a file whose data break off is not there.
func (f *Files) Put(_ context.Context, bucket, key string, r io.Reader, size int64, o objectstore.PutOptions) (objectstore.Object, error) {
	missing := func() error { // both before anything is read, and in the end
		if _, ok := f.files[url(bucket, key)]; ok && o.IfNoneMatch {
			return f.refuse("put", bucket, key, objectstore.ErrPrecondition)
		}
		return nil
	}
	f.mu.Lock()
	err := missing()
	f.mu.Unlock()
	if err != nil {
		return objectstore.Object{}, err
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return objectstore.Object{}, f.refuse("put", bucket, key, objectstore.ErrInvalid)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := missing(); err != nil {
		return objectstore.Object{}, err
	}
	x := file{data, f.next(), time.Now()}
	f.files[url(bucket, key)] = x
	return x.object(key), nil
}

// DeleteIf is Store's.
func (f *Files) DeleteIf(_ context.Context, bucket, key, etag string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	x, ok := f.files[url(bucket, key)]
	if ok && x.etag != etag {
		return f.refuse("delete", bucket, key, objectstore.ErrPrecondition)
	}
	delete(f.files, url(bucket, key))
	return nil
}

// CreateUpload is Store's; the metadata name the job, which is the group, and the task.
func (f *Files) CreateUpload(_ context.Context, bucket, key string, metadata map[string]string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := &HiddenFile{ID: f.next(), Group: metadata["millrace-job"], Task: metadata["millrace-task"], Bucket: bucket, Key: key}
	f.hidden = append(f.hidden, h)
	return h.ID, nil
}

func (f *Files) upload(op, bucket, key, id string) (*HiddenFile, error) {
	for _, h := range f.hidden {
		if h.ID == id && h.Bucket == bucket && h.Key == key {
			return h, nil
		}
	}
	return nil, f.refuse(op, bucket, key, objectstore.ErrNoSuchUpload)
}

// UploadPart is Store's. Parts come in order, one at a time; the last one may come again.
func (f *Files) UploadPart(_ context.Context, bucket, key, id string, number int, data []byte) (objectstore.Part, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, err := f.upload("upload part", bucket, key, id)
	switch {
	case err != nil:
		return objectstore.Part{}, err
	case h.Sealed, number != h.Parts+1:
		return objectstore.Part{}, f.refuse("upload part", bucket, key, objectstore.ErrInvalid)
	}
	h.Data, h.Parts = append(h.Data, data...), number
	return objectstore.Part{Number: number, Size: int64(len(data)), ETag: fmt.Sprint(number)}, nil
}

// SealUpload is Sealer's.
func (f *Files) SealUpload(_ context.Context, bucket, key, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, err := f.upload("seal upload", bucket, key, id)
	if err == nil {
		h.Sealed = true
	}
	return err
}

// AbortUpload is Store's.
func (f *Files) AbortUpload(_ context.Context, bucket, key, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, err := f.upload("abort upload", bucket, key, id)
	if err == nil {
		f.hidden = slices.DeleteFunc(f.hidden, func(o *HiddenFile) bool { return o == h })
	}
	return err
}

// Hidden lists the uploads of a group, or all of them ("").
func (f *Files) Hidden(group string) (list []HiddenFile) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.hidden {
		if group == "" || h.Group == group {
			list = append(list, *h)
		}
	}
	return list
}

// Abort ends uploads of a group, all of them if none is named.
func (f *Files) Abort(group string, ids ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hidden = slices.DeleteFunc(f.hidden, func(h *HiddenFile) bool {
		return h.Group == group && (len(ids) == 0 || slices.Contains(ids, h.ID))
	})
}

// Publish shows all uploads of a group at once: count of them, sealed. With replace all else below the prefix goes, without
// it there must be nothing: ErrExists.
func (f *Files) Publish(bucket, group, prefix string, count int, replace bool, at time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	whole := map[string]file{}
	for _, h := range f.hidden {
		switch {
		case h.Group != group:
			continue
		case !h.Sealed:
			return f.refuse("publish", bucket, h.Key, objectstore.ErrInvalid)
		}
		whole[url(h.Bucket, h.Key)] = file{h.Data, h.ID, at}
	}
	if n := len(f.hidden) - len(f.others(group)); n != count || len(whole) != count {
		return fmt.Errorf("%d uploads of %d files, not %d: %w", n, len(whole), count, objectstore.ErrInvalid)
	}
	below := func(name string, _ file) bool { return strings.HasPrefix(name, url(bucket, prefix)) }
	if replace {
		maps.DeleteFunc(f.files, below)
	}
	for name := range f.files {
		if below(name, file{}) {
			return f.refuse("publish", bucket, prefix, objectstore.ErrExists)
		}
	}
	maps.Copy(f.files, whole)
	f.hidden = f.others(group)
	return nil
}

func (f *Files) others(group string) []*HiddenFile {
	return slices.DeleteFunc(slices.Clone(f.hidden), func(h *HiddenFile) bool { return h.Group == group })
}

// Truncate takes what was written of an upload away.
func (f *Files) Truncate(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.hidden {
		if h.ID == id {
			h.Data = nil
		}
	}
}

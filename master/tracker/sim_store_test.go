package tracker

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"sync"

	"millrace/pkg/objectstore"
)

// simStore keeps what the tracker looks at of an object store: names, sizes and metadata. Answers do not depend on
// the order of requests for different keys, as a job makes many at once.
type simStore struct {
	objectstore.Store // what it is never asked

	mu      sync.Mutex
	objects map[string]*simObject
	uploads map[string]*simObject // by id
	made    map[string][]string   // ids, by key
	put     map[string]int        // how often an object was written
}

type simObject struct {
	objectstore.Object
	data []byte
}

func newSimStore() *simStore {
	return &simStore{objects: map[string]*simObject{}, uploads: map[string]*simObject{}, made: map[string][]string{}, put: map[string]int{}}
}

func simGone(key string) error { return fmt.Errorf("%s: %w", key, objectstore.ErrNotExist) }

func (s *simStore) write(key string, o *simObject) {
	s.put[key]++
	o.Key, o.ETag = key, fmt.Sprintf("e%d", s.put[key])
	s.objects[key] = o
}

// List finds one object: a prefix is a job's input.
func (s *simStore) List(_ context.Context, _, prefix string, o objectstore.ListOptions) iter.Seq2[objectstore.Object, error] {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.objects[prefix+"text"]
	return func(yield func(objectstore.Object, error) bool) {
		if in != nil && in.Key > o.StartAfter {
			yield(in.Object, nil)
		}
	}
}

func (s *simStore) Head(_ context.Context, _, key string) (objectstore.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.objects[key]; o != nil {
		return o.Object, nil
	}
	return objectstore.Object{}, simGone(key)
}

func (s *simStore) Get(_ context.Context, _, key string, _, _ int64, _ string) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.objects[key]; o != nil {
		return io.NopCloser(bytes.NewReader(o.data)), nil
	}
	return nil, simGone(key)
}

func (s *simStore) Put(_ context.Context, _, key string, r io.Reader, n int64, p objectstore.PutOptions) (objectstore.Object, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return objectstore.Object{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.IfNoneMatch && s.objects[key] != nil {
		return objectstore.Object{}, fmt.Errorf("put %s: %w", key, objectstore.ErrPrecondition)
	}
	o := &simObject{Object: objectstore.Object{Size: n, Metadata: p.Metadata}, data: data}
	s.write(key, o)
	return o.Object, nil
}

func (s *simStore) CreateUpload(_ context.Context, _, key string, meta map[string]string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := fmt.Sprintf("%s#%d", key, len(s.made[key]))
	s.made[key] = append(s.made[key], id)
	s.uploads[id] = &simObject{Object: objectstore.Object{Key: key, Metadata: meta}}
	return id, nil
}

// upload is what an attempt writes: false if there is no such upload.
func (s *simStore) upload(id string, size int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.uploads[id]
	if u == nil {
		return false
	}
	u.Size = size
	return true
}

func (s *simStore) ListParts(_ context.Context, _, _, id string) ([]objectstore.Part, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.uploads[id]
	switch {
	case u == nil:
		return nil, fmt.Errorf("%s: %w", id, objectstore.ErrNoSuchUpload)
	case u.Size == 0:
		return nil, nil
	}
	return []objectstore.Part{{Number: 1, Size: u.Size, ETag: "p"}}, nil
}

func (s *simStore) CompleteUpload(_ context.Context, _, key, id string, _ []objectstore.Part) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.uploads[id]
	if u == nil {
		return "", fmt.Errorf("%s: %w", id, objectstore.ErrNoSuchUpload)
	}
	delete(s.uploads, id)
	s.write(key, u)
	return u.ETag, nil
}

func (s *simStore) AbortUpload(_ context.Context, _, _, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uploads[id] == nil {
		return fmt.Errorf("%s: %w", id, objectstore.ErrNoSuchUpload)
	}
	delete(s.uploads, id)
	return nil
}

func (s *simStore) ListUploads(_ context.Context, _, key string) (list []objectstore.Upload, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.made[key] {
		if s.uploads[id] != nil {
			list = append(list, objectstore.Upload{Key: key, ID: id})
		}
	}
	return list, nil
}

package tracker

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"

	"millrace/pkg/objectstore"
)

// modelStore is the store as a leader sees it: each request hangs.
type modelStore struct {
	*objectstore.Memory
	m   *model
	who string
}

// answered is ask for what has an answer. A request that is carried out when nobody
// waits for it any more writes where nobody reads.
func answered[T any](ctx context.Context, s *modelStore, op string, write bool, do func() (T, string, error), keys ...string) (T, error) {
	got := new(T)
	err := s.ask(ctx, op, write, func() (string, error) {
		x, said, err := do()
		*got = x
		return said, err
	}, keys...)
	if err != nil {
		var none T
		return none, err
	}
	return *got, nil
}

func (s *modelStore) ask(ctx context.Context, op string, write bool, do func() (string, error), keys ...string) error {
	return s.m.ask(ctx, &request{who: s.who, op: op, keys: keys, write: write, do: do})
}

var carried = context.Background() // a request that the store has got does not end with who sent it

func (s *modelStore) List(ctx context.Context, b, p string, o objectstore.ListOptions) iter.Seq2[objectstore.Object, error] {
	list, err := answered(ctx, s, "List", false, func() (list []objectstore.Object, said string, err error) {
		for x, err := range s.Memory.List(carried, b, p, o) {
			if err != nil {
				return nil, "", err
			}
			list = append(list, x)
			said += x.Key + x.ETag
		}
		return list, said, nil
	}, p)
	return func(yield func(objectstore.Object, error) bool) {
		for _, x := range list {
			if !yield(x, nil) {
				return
			}
		}
		if err != nil {
			yield(objectstore.Object{}, err)
		}
	}
}

func (s *modelStore) Head(ctx context.Context, b, k string) (objectstore.Object, error) {
	return answered(ctx, s, "Head", false, func() (objectstore.Object, string, error) {
		o, err := s.Memory.Head(carried, b, k)
		return o, fmt.Sprint(o.ETag, o.Size, o.Metadata), err
	}, k)
}

func (s *modelStore) Get(ctx context.Context, b, k string, off, n int64, match string) (io.ReadCloser, error) {
	return answered(ctx, s, "Get", false, func() (io.ReadCloser, string, error) {
		r, err := s.Memory.Get(carried, b, k, off, n, match)
		return r, match, err
	}, k)
}

func (s *modelStore) Put(ctx context.Context, b, k string, r io.Reader, n int64, p objectstore.PutOptions) (objectstore.Object, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return objectstore.Object{}, err
	}
	return answered(ctx, s, "Put", true, func() (objectstore.Object, string, error) {
		if s.m.noSuccess && k == "out/_SUCCESS" {
			return objectstore.Object{}, "", fmt.Errorf("put: %w", objectstore.ErrDenied)
		}
		o, err := s.Memory.Put(carried, b, k, bytes.NewReader(data), n, p)
		return o, o.ETag, err
	}, k)
}

func (s *modelStore) Delete(ctx context.Context, b string, keys ...string) error {
	return s.ask(ctx, "Delete", true, func() (string, error) { return "", s.Memory.Delete(carried, b, keys...) }, keys...)
}

func (s *modelStore) DeleteIf(ctx context.Context, b, key, etag string) error {
	return s.ask(ctx, "DeleteIf", true, func() (string, error) { return "", s.Memory.DeleteIf(carried, b, key, etag) }, key, "if "+etag[:4])
}

func (s *modelStore) CreateUpload(ctx context.Context, b, k string, meta map[string]string) (string, error) {
	return answered(ctx, s, "CreateUpload", true, func() (string, string, error) {
		real, err := s.Memory.CreateUpload(carried, b, k, meta)
		id := ""
		for n := 1; id == "" || s.m.uploads[id] != ""; n++ {
			id = fmt.Sprintf("%s-u%d", k[len(k)-1:], n)
		}
		s.m.uploads[id] = real
		return id, id, err
	}, k)
}

func (s *modelStore) ListParts(ctx context.Context, b, k, id string) ([]objectstore.Part, error) {
	return answered(ctx, s, "ListParts", false, func() ([]objectstore.Part, string, error) {
		p, err := s.m.parts(k, id)
		return p, fmt.Sprint(p), err
	}, k, id)
}

func (s *modelStore) CompleteUpload(ctx context.Context, b, k, id string, parts []objectstore.Part) (string, error) {
	return answered(ctx, s, "CompleteUpload", true, func() (string, string, error) {
		if s.m.halved[id] && len(parts) > 1 {
			return "", "", fmt.Errorf("part 2: %w", objectstore.ErrInvalid)
		}
		etag, err := s.Memory.CompleteUpload(carried, b, k, s.m.uploads[id], parts)
		return etag, etag, err
	}, k, id)
}

func (s *modelStore) AbortUpload(ctx context.Context, b, k, id string) error {
	return s.ask(ctx, "AbortUpload", true, func() (string, error) {
		return "", s.Memory.AbortUpload(carried, b, k, s.m.uploads[id])
	}, k, id)
}

func (s *modelStore) ListUploads(ctx context.Context, b, k string) ([]objectstore.Upload, error) {
	return answered(ctx, s, "ListUploads", false, func() ([]objectstore.Upload, string, error) {
		if s.who == s.m.office().name {
			s.m.watch.sweeps(k)
		}
		list := s.m.uploadsOf(k)
		return list, fmt.Sprint(list), nil
	}, k)
}

// uploadsOf lists the uploads of a key, by our ids.
func (m *model) uploadsOf(key string) (list []objectstore.Upload) {
	real, err := m.mem.ListUploads(carried, "data", key)
	if err != nil {
		panic(err)
	}
	for _, u := range real {
		for id, r := range m.uploads {
			if r == u.ID {
				list = append(list, objectstore.Upload{Key: key, ID: id})
			}
		}
	}
	return list
}

// parts lists the parts of an upload; one that was halved has lost the second.
func (m *model) parts(key, id string) ([]objectstore.Part, error) {
	p, err := m.mem.ListParts(carried, "data", key, m.uploads[id])
	if m.halved[id] {
		p = p[:min(1, len(p))]
	}
	return p, err
}

//go:build cluster

package clustertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
)

// set is an output set as it must be: content by the name of the part.
type set map[string][]byte

// outputReader reads below a prefix again and again, as somebody does who trusts _SUCCESS: what that
// names must be there, whole and right, or _SUCCESS must be another by then.
type outputReader struct {
	store  objectstore.Store
	bucket string
	prefix string
	legal  []set
	stop   context.CancelFunc
	ended  sync.WaitGroup

	whole, changed, absent int // what its rounds have found
	wrong                  error
}

func startReader(s objectstore.Store, bucket, prefix string, legal ...set) *outputReader {
	ctx, stop := context.WithCancel(context.Background())
	r := &outputReader{store: s, bucket: bucket, prefix: prefix, legal: legal, stop: stop}
	r.ended.Go(func() {
		pace := time.NewTicker(4 * time.Millisecond) // the machine is for the jobs, too
		defer pace.Stop()
		for r.wrong == nil {
			r.round(ctx)
			select {
			case <-pace.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return r
}

// end stops the reader and fails the test if it ever saw what nobody may see.
func (r *outputReader) end(t testing.TB) {
	t.Helper()
	r.stop()
	r.ended.Wait()
	require.NoError(t, r.wrong, "a reader saw a wrong set")
}

// round lists, and reads what _SUCCESS names if it is there.
func (r *outputReader) round(ctx context.Context) {
	listed := false
	for o, err := range r.store.List(ctx, r.bucket, r.prefix, objectstore.ListOptions{}) {
		if err != nil {
			return // the store is away, or the test has ended
		}
		listed = listed || o.Key == r.prefix+"_SUCCESS"
	}
	if !listed {
		r.absent++
		return
	}
	head, err := r.store.Head(ctx, r.bucket, r.prefix+"_SUCCESS")
	if err != nil {
		return
	}
	data, err := r.read(ctx, r.prefix+"_SUCCESS", head.ETag)
	if err != nil {
		return
	}
	var m manifest
	if err := json.Unmarshal(data, &m); err != nil {
		r.wrong = fmt.Errorf("_SUCCESS is not whole: %w", err)
		return
	}
	switch err := r.check(ctx, m); {
	case err == nil:
		r.whole++
	case ctx.Err() != nil || errors.Is(err, objectstore.ErrUnreachable):
	default:
		now, again := r.store.Head(ctx, r.bucket, r.prefix+"_SUCCESS")
		switch {
		case errors.Is(again, objectstore.ErrNotExist), again == nil && now.ETag != head.ETag:
			r.changed++ // a commit has begun meanwhile: the reader was told to look again
		case again == nil:
			r.wrong = fmt.Errorf("_SUCCESS of job %s is there, and: %w", m.Job, err)
		}
	}
}

// check compares what _SUCCESS names with the sets that may be there.
func (r *outputReader) check(ctx context.Context, m manifest) error {
	found := set{}
	for _, p := range m.Parts {
		data, err := r.read(ctx, p.Key, p.ETag)
		if err != nil {
			return err
		}
		if int64(len(data)) != p.Size {
			return fmt.Errorf("%s has %d bytes, not %d", p.Key, len(data), p.Size)
		}
		found[path.Base(p.Key)] = data
	}
	for _, l := range r.legal {
		if found.equal(l) {
			return nil
		}
	}
	return fmt.Errorf("the %d parts are no set that was ever written", len(m.Parts))
}

func (r *outputReader) read(ctx context.Context, key, etag string) ([]byte, error) {
	body, err := r.store.Get(ctx, r.bucket, key, 0, -1, etag)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func (s set) equal(other set) bool {
	for name, content := range s {
		if c, ok := other[name]; !ok || !bytes.Equal(c, content) {
			return false
		}
	}
	return len(s) == len(other)
}

// setAt is the output set below a prefix.
func setAt(t testing.TB, s objectstore.Store, bucket, prefix string) set {
	t.Helper()
	m, _ := readSet(t, s, bucket, prefix)
	found := set{}
	for _, p := range m.Parts {
		found[path.Base(p.Key)] = get(t, s, bucket, p.Key)
	}
	return found
}

// put lays an output set as a job of that name would have left it.
func (s set) put(t testing.TB, store objectstore.Store, bucket, prefix, job string) {
	t.Helper()
	m := manifest{Job: job}
	for name, content := range s {
		o := putObject(t, store, bucket, prefix+name, content)
		records := int64(bytes.Count(content, []byte("\n")))
		m.Parts = append(m.Parts, manifestPart{Key: prefix + name, Size: int64(len(content)), ETag: o.ETag, Records: records})
		m.Records += records
	}
	data, err := json.Marshal(m)
	require.NoError(t, err)
	putObject(t, store, bucket, prefix+"_SUCCESS", data)
}

func putObject(t testing.TB, store objectstore.Store, bucket, key string, content []byte) objectstore.Object {
	t.Helper()
	o, err := store.Put(context.Background(), bucket, key, bytes.NewReader(content), int64(len(content)), objectstore.PutOptions{})
	require.NoError(t, err, key)
	return o
}

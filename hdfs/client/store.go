package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"

	"millrace/hdfs"
	"millrace/pkg/objectstore"
)

// StoreConfig is what a Store needs.
type StoreConfig struct {
	// Open gives a cluster's files by its name or id, "" is the own one's; hdfs.ErrNotExist if there is no such cluster.
	Open func(cluster string) (*Files, error)
	// Trash has Delete move to the trash what it deletes.
	Trash bool
	// Replication and BlockSize are those of files that are written; 0: the usual ones. Who makes an upload and who
	// writes it need the same BlockSize.
	Replication int
	BlockSize   int64
}

// Store is clusters' files as an object store: buckets are hdfs:// (the own cluster) and hdfs://NAME, keys are paths
// without the first slash. Folders are no objects, but show as prefixes in listings, with nothing in them, too. User
// metadata is not kept. Its errors are objectstore's, and wrap hdfs's.
type Store struct {
	cfg    StoreConfig
	ctx    context.Context // of what is being uploaded
	cancel context.CancelFunc

	mu      sync.Mutex
	uploads map[string]*upload // by id: those that this Store writes
	sealed  map[string]bool    // those that it has sealed
}

var (
	_ objectstore.Store  = (*Store)(nil)
	_ objectstore.Sealer = (*Store)(nil)
)

// NewStore makes a Store, which has to be closed.
func NewStore(c StoreConfig) *Store {
	s := &Store{cfg: c, uploads: map[string]*upload{}, sealed: map[string]bool{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close gives up the uploads that this Store writes.
func (s *Store) Close() error {
	s.mu.Lock()
	open := s.uploads
	s.uploads = map[string]*upload{}
	s.mu.Unlock()
	var all []error
	for _, u := range open {
		all = append(all, u.w.Abort())
	}
	s.cancel()
	return errors.Join(all...)
}

// request is one request of a caller: what it asks for, of what place.
type request struct {
	ctx             context.Context
	op, bucket, key string
	files           *Files
	path            string // of the key; "" if no file can have it
}

// about begins a request.
func (s *Store) about(ctx context.Context, op, bucket, key string) (*request, error) {
	r := &request{ctx: ctx, op: op, bucket: bucket, key: key}
	cluster, ok := strings.CutPrefix(bucket, objectstore.HDFS)
	if !ok {
		return nil, r.refuse(objectstore.ErrInvalid, errors.New("it is no place in a cluster's files"))
	}
	if err := ctx.Err(); err != nil {
		return nil, r.failed(err)
	}
	var err error
	if r.files, err = s.cfg.Open(cluster); errors.Is(err, hdfs.ErrNotExist) {
		return nil, r.refuse(objectstore.ErrNoSuchBucket, fmt.Errorf("no such cluster: %w", err))
	}
	return r, r.failed(err)
}

// on begins a request for a file. One that cannot be has no path.
func (s *Store) on(ctx context.Context, op, bucket, key string) (*request, error) {
	r, err := s.about(ctx, op, bucket, key)
	if err != nil {
		return nil, err
	}
	if key == "" {
		return nil, r.refuse(objectstore.ErrInvalid, errors.New("the key is empty"))
	}
	path, err := hdfs.CleanPath("/" + key)
	if err != nil {
		return nil, r.failed(err)
	}
	if path == "/"+key {
		r.path = path
	}
	return r, nil
}

// writing is on for what makes a file.
func (s *Store) writing(ctx context.Context, op, bucket, key string) (*request, error) {
	r, err := s.on(ctx, op, bucket, key)
	if err == nil && r.path == "" {
		err = r.refuse(objectstore.ErrInvalid, errors.New("no file can have this name: slashes stand alone, and not at the end"))
	}
	return r, err
}

func (r *request) refuse(kind, err error) error {
	return &objectstore.Error{Op: r.op, URL: objectstore.URL{Bucket: r.bucket, Key: r.key}.String(), Kind: kind, Err: err}
}

// failed is an error of the files as one of the store.
func (r *request) failed(err error) error {
	var known *objectstore.Error
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case r.ctx.Err() != nil:
		return r.refuse(nil, r.ctx.Err())
	}
	if of, ok := err.(*hdfs.PathError); ok && of.Path == r.path {
		err = of.Err // what was asked of whom is said already
	}
	return r.refuse(kindOf(err), err)
}

// kindOf sorts the errors of files into those of object stores. Others are connections'.
func kindOf(err error) error {
	for _, k := range []struct{ err, kind error }{
		{hdfs.ErrLost, objectstore.ErrDamaged}, {hdfs.ErrNoReplica, objectstore.ErrUnreachable}, {hdfs.ErrUnavailable, objectstore.ErrUnreachable},
		{hdfs.ErrNotExist, objectstore.ErrNotExist},
		{hdfs.ErrExist, objectstore.ErrExists}, {hdfs.ErrNotEmpty, objectstore.ErrExists},
		{hdfs.ErrIsDir, objectstore.ErrInvalid}, {hdfs.ErrNotDir, objectstore.ErrInvalid}, {hdfs.ErrInvalid, objectstore.ErrInvalid},
		{hdfs.ErrBusy, objectstore.ErrPrecondition}, {hdfs.ErrChanged, objectstore.ErrPrecondition},
		{fs.ErrPermission, objectstore.ErrDenied},
	} {
		if errors.Is(err, k.err) {
			return k.kind
		}
	}
	return objectstore.ErrUnreachable
}

var errFolder = fmt.Errorf("%w: it %w", hdfs.ErrNotExist, hdfs.ErrIsDir)

// find describes the file of a request: hdfs.ErrNotExist if there is none.
func (r *request) find() (hdfs.Info, error) {
	if r.path == "" {
		return hdfs.Info{}, hdfs.ErrNotExist
	}
	info, err := r.files.Stat(r.ctx, r.path)
	switch {
	case gone(err):
		return info, hdfs.ErrNotExist
	case err == nil && info.Directory:
		return info, errFolder
	}
	return info, err
}

// etag names one version of a file for ever.
func etag(id hdfs.FileID, size int64) string { return fmt.Sprintf("f-%x-%x", uint64(id), size) }

func object(info hdfs.Info) objectstore.Object {
	return objectstore.Object{Key: info.Path[1:], Size: info.Size, ETag: etag(info.ID, info.Size), ModifiedAt: info.ModifiedAt}
}

var errNoBuckets = errors.New("clusters' files have no buckets: each cluster has its own files")

// ListBuckets is Store's: ErrInvalid.
func (s *Store) ListBuckets(ctx context.Context) ([]objectstore.Bucket, error) {
	return nil, (&request{ctx: ctx, op: "list buckets", bucket: objectstore.HDFS}).refuse(objectstore.ErrInvalid, errNoBuckets)
}

// MakeBucket is Store's: ErrInvalid.
func (s *Store) MakeBucket(ctx context.Context, bucket string) error {
	return (&request{ctx: ctx, op: "make bucket", bucket: bucket}).refuse(objectstore.ErrInvalid, errNoBuckets)
}

// RemoveBucket is Store's: ErrInvalid.
func (s *Store) RemoveBucket(ctx context.Context, bucket string) error {
	return (&request{ctx: ctx, op: "remove bucket", bucket: bucket}).refuse(objectstore.ErrInvalid, errNoBuckets)
}

// BucketExists is Store's.
func (s *Store) BucketExists(ctx context.Context, bucket string) (bool, error) {
	_, err := s.about(ctx, "find", bucket, "")
	if errors.Is(err, objectstore.ErrNoSuchBucket) {
		return false, nil
	}
	return err == nil, err
}

// Head is Store's.
func (s *Store) Head(ctx context.Context, bucket, key string) (objectstore.Object, error) {
	r, err := s.on(ctx, "head", bucket, key)
	if err != nil {
		return objectstore.Object{}, err
	}
	info, err := r.find()
	if err != nil {
		return objectstore.Object{}, r.failed(err)
	}
	return object(info), nil
}

// Put is Store's. A path that has a writer is ErrPrecondition.
func (s *Store) Put(ctx context.Context, bucket, key string, from io.Reader, size int64, o objectstore.PutOptions) (objectstore.Object, error) {
	r, err := s.writing(ctx, "put", bucket, key)
	if err != nil {
		return objectstore.Object{}, err
	}
	if size < 0 {
		return objectstore.Object{}, r.refuse(objectstore.ErrInvalid, errors.New("its size is not known"))
	}
	c := s.create(r.path, !o.IfNoneMatch)
	c.BlockSize = hdfs.BlockSizeFor(size, c.BlockSize)
	info, err := r.put(c, from, size)
	if o.IfNoneMatch && errors.Is(err, hdfs.ErrExist) {
		return objectstore.Object{}, r.refuse(objectstore.ErrPrecondition, hdfs.ErrExist)
	}
	if err != nil {
		return objectstore.Object{}, r.failed(err)
	}
	return object(info), nil
}

// create is what a new file shall be.
func (s *Store) create(path string, overwrite bool) hdfs.Create {
	return hdfs.Create{Path: path, Overwrite: overwrite, Replication: s.cfg.Replication, BlockSize: s.cfg.BlockSize}
}

func (r *request) put(c hdfs.Create, from io.Reader, size int64) (hdfs.Info, error) {
	w, err := r.files.Create(r.ctx, c)
	if err != nil {
		return hdfs.Info{}, err
	}
	source := &source{Reader: from}
	_, err = io.CopyN(w, source, size)
	if source.err != nil {
		err = r.refuse(objectstore.ErrInvalid, fmt.Errorf("cannot read %d bytes of data: %w", size, source.err))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		_ = w.Abort() // err says why
		return hdfs.Info{}, err
	}
	return w.Info(), nil
}

// source remembers why it ended.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && n < len(p) {
		s.err = err
	}
	return n, err
}

// Delete is Store's.
func (s *Store) Delete(ctx context.Context, bucket string, keys ...string) error {
	for _, key := range keys {
		r, err := s.on(ctx, "delete", bucket, key)
		if err != nil {
			return err
		}
		if err := r.failed(r.remove(func(hdfs.Info) error { return r.files.Remove(ctx, r.path, false, !s.cfg.Trash) })); err != nil {
			return err
		}
	}
	return nil
}

// DeleteIf is Store's. What it deletes is gone, whatever Trash says.
func (s *Store) DeleteIf(ctx context.Context, bucket, key, tag string) error {
	r, err := s.on(ctx, "delete", bucket, key)
	if err != nil {
		return err
	}
	return r.failed(r.remove(func(info hdfs.Info) error {
		if err := r.unchanged(info, tag); err != nil {
			return err
		}
		return r.files.RemoveIf(ctx, r.path, info.ID)
	}))
}

// remove deletes the file, if there is one.
func (r *request) remove(how func(hdfs.Info) error) error {
	info, err := r.find()
	if err == nil {
		err = how(info)
	}
	if errors.Is(err, hdfs.ErrNotExist) {
		return nil
	}
	return err
}

func (r *request) unchanged(info hdfs.Info, tag string) error {
	if tag != "" && tag != etag(info.ID, info.Size) {
		return r.refuse(objectstore.ErrPrecondition, errors.New("it is another file by now"))
	}
	return nil
}

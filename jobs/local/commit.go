package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// successName is the object that makes an output complete.
const successName = "_SUCCESS"

// target is where the output goes. create may be called by many goroutines at once.
type target interface {
	open(ctx context.Context) error
	create(ctx context.Context, name string) (*api.Output, error)
	// commit makes the named parts visible, in this order, removes what an
	// overwritten output had besides, and gives the parts their key and ETag.
	commit(ctx context.Context, parts []Part) error
	success(ctx context.Context, data []byte) error
	// abort removes everything that open, create and commit have made.
	abort(ctx context.Context) error
}

// commit makes the output visible, and _SUCCESS last.
func (r *run) commit(ctx context.Context, result *Result) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	ctx = context.WithoutCancel(ctx) // from here only forward
	if err := r.target.commit(ctx, result.Parts); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	type ledger struct {
		SegmentRecords int64  `json:"segmentRecords"`
		FetchedRecords int64  `json:"fetchedRecords"`
		Checksum       string `json:"checksum"`
	}
	data, err := json.Marshal(struct {
		Job     string `json:"job"`
		Cluster string `json:"cluster"`
		Program string `json:"program"`
		Parts   []Part `json:"parts"`
		Records int64  `json:"records"`
		Ledger  ledger `json:"ledger"`
	}{r.id, "local", r.Program.Name, append([]Part{}, result.Parts...), result.OutputRecords,
		ledger{result.Segments.Records, result.Segments.Records, fmt.Sprintf("%016x", result.Segments.Checksum)}})
	if err != nil {
		return err
	}
	if err := r.target.success(ctx, append(data, '\n')); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// target looks at an output's place and refuses it if it is taken.
func (p *places) target(ctx context.Context, u objectstore.URL, overwrite bool) (target, error) {
	prefix := u.Key
	if prefix != "" && !strings.HasSuffix(prefix, "/") {
		prefix += "/"
	}
	if u.Bucket == fileBucket {
		if info, err := os.Stat(filepath.Clean(u.Key)); err == nil && !info.IsDir() {
			return nil, refuse("output %s is a file", display(u.String()))
		}
	}
	var old []string
	for o, err := range p.List(ctx, u.Bucket, prefix, objectstore.ListOptions{}) {
		if err != nil {
			return nil, refused{fmt.Errorf("output: %w", err)}
		}
		if !overwrite {
			return nil, refuse("output %s is not empty: it has %s", display(u.String()), display(objectstore.URL{Bucket: u.Bucket, Key: o.Key}.String()))
		}
		if (u.Bucket == fileBucket || prefix == "") && strings.Contains(strings.TrimPrefix(o.Key, prefix), "/") {
			return nil, refuse("output %s has more in it than a result (%s): --overwrite would delete all of it; name a folder in it",
				display(u.String()), display(objectstore.URL{Bucket: u.Bucket, Key: o.Key}.String()))
		}
		old = append(old, o.Key)
	}
	if u.Bucket == fileBucket {
		return &fileTarget{dir: filepath.Clean(u.Key), old: old}, nil
	}
	return &s3Target{store: p.s3, bucket: u.Bucket, prefix: prefix, old: old, uploads: map[string]string{}}, nil
}

// fileTarget writes parts into a directory within the output's, and renames them.
type fileTarget struct {
	dir  string
	old  []string // keys of what is to be overwritten
	made string   // the topmost directory that open made, "" if none
	tmp  string
	done []string // paths that commit made
}

func (t *fileTarget) open(context.Context) error {
	for d := t.dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); err == nil {
			break
		}
		t.made = d
	}
	if err := os.MkdirAll(t.dir, 0o777); err != nil {
		return fmt.Errorf("make the output directory: %w", err)
	}
	var err error
	if t.tmp, err = os.MkdirTemp(t.dir, "_temporary-"); err != nil {
		return fmt.Errorf("make the output directory: %w", err)
	}
	return nil
}

func (t *fileTarget) create(_ context.Context, name string) (*api.Output, error) {
	return &api.Output{Bucket: fileBucket, Key: filepath.Join(t.tmp, name), UploadId: "file"}, nil
}

func (t *fileTarget) commit(_ context.Context, parts []Part) error {
	if err := os.Remove(filepath.Join(t.dir, successName)); err != nil && !os.IsNotExist(err) {
		return err
	}
	for i := range parts {
		to := filepath.Join(t.dir, parts[i].Key)
		if err := os.Rename(filepath.Join(t.tmp, parts[i].Key), to); err != nil {
			return err
		}
		t.done = append(t.done, to)
		parts[i].Key = to
	}
	for _, old := range t.old {
		if !slices.Contains(t.done, old) && old != filepath.Join(t.dir, successName) {
			if err := os.Remove(old); err != nil && !os.IsNotExist(err) {
				return err
			}
		}
	}
	return nil
}

func (t *fileTarget) success(_ context.Context, data []byte) error {
	tmp := filepath.Join(t.tmp, successName)
	if err := os.WriteFile(tmp, data, 0o666); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(t.dir, successName)); err != nil {
		return err
	}
	return os.RemoveAll(t.tmp)
}

func (t *fileTarget) abort(context.Context) error {
	var errs []error
	for _, path := range t.done {
		errs = append(errs, os.Remove(path))
	}
	if t.tmp != "" {
		errs = append(errs, os.RemoveAll(t.tmp))
	}
	if t.made != "" {
		errs = append(errs, os.RemoveAll(t.made))
	}
	return errors.Join(errs...)
}

// s3Target writes parts as multipart uploads, which show nothing until they are completed.
type s3Target struct {
	store          objectstore.Store
	bucket, prefix string
	old            []string

	mu      sync.Mutex
	uploads map[string]string // name to id, of those not completed
	done    []string          // keys that commit made
}

func (t *s3Target) open(context.Context) error { return nil }

func (t *s3Target) create(ctx context.Context, name string) (*api.Output, error) {
	key := t.prefix + name
	id, err := t.store.CreateUpload(ctx, t.bucket, key, nil)
	if err != nil {
		return nil, fmt.Errorf("create the upload of %s: %w", key, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.uploads[name] = id
	return &api.Output{Bucket: t.bucket, Key: key, UploadId: id}, nil
}

func (t *s3Target) commit(ctx context.Context, parts []Part) error {
	if slices.Contains(t.old, t.prefix+successName) {
		if err := t.store.Delete(ctx, t.bucket, t.prefix+successName); err != nil {
			return err
		}
	}
	for i := range parts {
		name := parts[i].Key
		key, id := t.prefix+name, t.uploads[name]
		uploaded, err := t.store.ListParts(ctx, t.bucket, key, id)
		if err != nil {
			return err
		}
		if parts[i].ETag, err = t.store.CompleteUpload(ctx, t.bucket, key, id, uploaded); err != nil {
			return err
		}
		delete(t.uploads, name)
		t.done = append(t.done, key)
		parts[i].Key = key
	}
	var rest []string
	for _, key := range t.old {
		if !slices.Contains(t.done, key) && key != t.prefix+successName {
			rest = append(rest, key)
		}
	}
	if len(rest) == 0 {
		return nil
	}
	return t.store.Delete(ctx, t.bucket, rest...)
}

func (t *s3Target) success(ctx context.Context, data []byte) error {
	_, err := t.store.Put(ctx, t.bucket, t.prefix+successName, bytes.NewReader(data), int64(len(data)),
		objectstore.PutOptions{ContentType: "application/json"})
	return err
}

func (t *s3Target) abort(ctx context.Context) error {
	var errs []error
	for name, id := range t.uploads {
		err := t.store.AbortUpload(ctx, t.bucket, t.prefix+name, id)
		if err != nil && !errors.Is(err, objectstore.ErrNoSuchUpload) {
			errs = append(errs, err)
		}
	}
	if len(t.done) > 0 {
		errs = append(errs, t.store.Delete(ctx, t.bucket, t.done...))
	}
	return errors.Join(errs...)
}

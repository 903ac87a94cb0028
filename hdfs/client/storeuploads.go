package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/hdfs"
	"millrace/pkg/objectstore"
)

// Uploads are files that nobody sees yet. Their parts come in order, each once (or again with the same bytes), to the
// Store that began to write them.
//
// One whose metadata names a job is an upload of that group: who has its id may write it, in another process, too. It is
// ended by SealUpload, and shown with the others of its group by Publish. Any other is its Store's alone, the only one of
// its path, and ended by CompleteUpload.

// Metadata that make an upload one of a group.
const (
	metaGroup = "millrace-job"
	metaTask  = "millrace-task"
)

// Hidden is an upload of a group.
type Hidden struct {
	ID, Key string
	Task    string
	Size    int64 // bytes; of sealed ones
	Sealed  bool
	ETag    string // that it has when it can be seen
}

// uploadID is an upload for those who may write it. Its text begins with the file's id.
type uploadID struct {
	file         hdfs.FileID
	lease, group string
}

func (u uploadID) String() string { return fmt.Sprintf("%d.%s.%s", uint64(u.file), u.lease, u.group) }

func parseUploadID(s string) (u uploadID, ok bool) {
	id, rest, _ := strings.Cut(s, ".")
	n, err := strconv.ParseUint(id, 10, 64)
	u.file = hdfs.FileID(n)
	u.lease, u.group, ok = strings.Cut(rest, ".")
	return u, ok && err == nil && u.lease != ""
}

// CreateUpload is Store's.
func (s *Store) CreateUpload(ctx context.Context, bucket, key string, metadata map[string]string) (string, error) {
	r, err := s.writing(ctx, "create upload", bucket, key)
	if err != nil {
		return "", err
	}
	c := s.create(r.path, true)
	c.Lease, c.Group = rand.Text(), metadata[metaGroup]
	if c.Group != "" {
		c.Task = metadata[metaTask]
	}
	id, c, err := r.files.begin(ctx, c)
	if err != nil {
		return "", r.failed(err)
	}
	name := uploadID{id, c.Lease, c.Group}
	if c.Group == "" {
		_, err = s.write(r, name)
	}
	return name.String(), r.failed(err)
}

// write begins to write an upload, unless this Store does.
func (s *Store) write(r *request, id uploadID) (*upload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.uploads[id.String()]; u != nil {
		return u, nil
	}
	if s.sealed[id.String()] {
		return nil, errEnded
	}
	c := s.create(r.path, true)
	c.Lease, c.Group = id.lease, id.group
	w, err := r.files.cfg.Blocks.Append(s.ctx, id.file, c)
	if err != nil {
		return nil, err
	}
	u := newUpload(r.bucket, r.key, w)
	s.uploads[id.String()] = u
	return u, nil
}

// sealedMost is how many sealed uploads are remembered. A part for one that is not is refused as well, by the name space.
const sealedMost = 10_000

// forget gives up what this Store knows of an upload but that it is sealed, and gives it back; nil if that is nothing.
func (s *Store) forget(id uploadID, sealed bool) *upload {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.uploads[id.String()]
	delete(s.uploads, id.String())
	if sealed {
		if len(s.sealed) >= sealedMost {
			clear(s.sealed)
		}
		s.sealed[id.String()] = true
	}
	return u
}

// uploadRequest is a request for an upload.
type uploadRequest struct {
	*request
	id   uploadID
	mine *upload // nil: this Store does not write it
}

func (s *Store) onUpload(ctx context.Context, op, bucket, key, id string) (*uploadRequest, error) {
	r, err := s.writing(ctx, op, bucket, key)
	if err != nil {
		return nil, err
	}
	if id == "" {
		return nil, r.refuse(objectstore.ErrInvalid, errors.New("the upload id is empty"))
	}
	u := &uploadRequest{request: r}
	var ok bool
	if u.id, ok = parseUploadID(id); !ok {
		return nil, u.missing()
	}
	s.mu.Lock()
	u.mine = s.uploads[id]
	s.mu.Unlock()
	if m := u.mine; m != nil && (m.bucket != bucket || m.key != key) || m == nil && u.id.group == "" {
		return nil, u.missing()
	}
	return u, nil
}

func (u *uploadRequest) missing() error {
	return u.refuse(objectstore.ErrNoSuchUpload, errors.New("it was ended, or is another's"))
}

// failed is that of request, where the end of a lease or file is that of the upload.
func (u *uploadRequest) failed(err error) error {
	if u.ctx.Err() == nil && (errors.Is(err, hdfs.ErrLease) || errors.Is(err, hdfs.ErrNotExist)) {
		return u.refuse(objectstore.ErrNoSuchUpload, err)
	}
	return u.request.failed(err)
}

// UploadPart is Store's. Part 2 waits for part 1. An error is the upload's end, unless it is ErrInvalid; so is the end of the
// context while the part is written.
func (s *Store) UploadPart(ctx context.Context, bucket, key, id string, number int, data []byte) (objectstore.Part, error) {
	u, err := s.onUpload(ctx, "upload part", bucket, key, id)
	if err != nil {
		return objectstore.Part{}, err
	}
	if number < 1 {
		return objectstore.Part{}, u.refuse(objectstore.ErrInvalid, fmt.Errorf("part number %d: they count from 1", number))
	}
	if u.mine == nil {
		if u.mine, err = s.write(u.request, u.id); err != nil {
			return objectstore.Part{}, u.failed(err)
		}
	}
	p, err := u.mine.add(ctx, number, data)
	if err != nil {
		if u.mine.over() {
			s.forget(u.id, false)
		}
		return objectstore.Part{}, u.failed(err)
	}
	return p, nil
}

// hidden finds an upload of a group in the name space.
func (u *uploadRequest) hidden() (hdfs.Upload, error) {
	all, err := u.files.uploads(u.ctx, u.id.group)
	if err != nil {
		return hdfs.Upload{}, u.failed(err)
	}
	for _, h := range all {
		if h.ID == u.id.file && h.Path == u.path {
			return h, nil
		}
	}
	return hdfs.Upload{}, u.missing()
}

func (f *Files) uploads(ctx context.Context, group string) (all []hdfs.Upload, err error) {
	err = f.retry(ctx, func(bool) error {
		all, err = f.cfg.Names.Uploads(ctx, group)
		return err
	})
	return all, err
}

// ListParts is Store's: the parts that this Store has written. Of an upload that it does not write it is one part with
// all bytes, or none before it is sealed.
func (s *Store) ListParts(ctx context.Context, bucket, key, id string) ([]objectstore.Part, error) {
	u, err := s.onUpload(ctx, "list parts", bucket, key, id)
	if err != nil {
		return nil, err
	}
	if u.mine != nil {
		return u.mine.list(), nil
	}
	h, err := u.hidden()
	if err != nil || !h.Sealed {
		return nil, err
	}
	return []objectstore.Part{{Number: 1, Size: h.Size, ETag: etag(h.ID, h.Size)}}, nil
}

// SealUpload is objectstore.Sealer's: all that was sent is safe then, and nothing can be added. An upload of no group
// is ErrInvalid.
func (s *Store) SealUpload(ctx context.Context, bucket, key, id string) error {
	u, err := s.onUpload(ctx, "seal upload", bucket, key, id)
	switch {
	case err != nil:
		return err
	case u.id.group == "":
		return u.refuse(objectstore.ErrInvalid, errors.New("it is of no job: it can be completed"))
	case u.mine == nil:
		h, err := u.hidden()
		if err == nil && !h.Sealed {
			err = u.refuse(objectstore.ErrInvalid, errors.New("nothing of it was sent from here"))
		}
		return err
	}
	_, err = s.finish(u, nil)
	return err
}

// finish completes an upload that this Store writes, and forgets it unless its caller has erred.
func (s *Store) finish(u *uploadRequest, parts []objectstore.Part) (hdfs.Info, error) {
	info, err := u.mine.finish(u.ctx, parts)
	if !errors.Is(err, errParts) {
		s.forget(u.id, err == nil && u.id.group != "")
	}
	return info, u.failed(err)
}

// CompleteUpload is Store's, and wants all parts named. An upload of a group is ErrInvalid: it is sealed, and
// published with its group.
func (s *Store) CompleteUpload(ctx context.Context, bucket, key, id string, parts []objectstore.Part) (string, error) {
	u, err := s.onUpload(ctx, "complete upload", bucket, key, id)
	switch {
	case err != nil:
		return "", err
	case u.id.group != "":
		return "", u.refuse(objectstore.ErrInvalid, fmt.Errorf("it is shown with all of job %s: it can be sealed", u.id.group))
	case len(parts) == 0:
		return "", u.refuse(objectstore.ErrInvalid, errors.New("it has no parts"))
	}
	info, err := s.finish(u, parts)
	if err != nil {
		return "", err
	}
	return etag(info.ID, info.Size), nil
}

// AbortUpload is Store's.
func (s *Store) AbortUpload(ctx context.Context, bucket, key, id string) error {
	u, err := s.onUpload(ctx, "abort upload", bucket, key, id)
	if err != nil {
		return err
	}
	if mine := s.forget(u.id, false); mine != nil {
		err = mine.w.Abort()
	}
	if u.id.group != "" {
		return u.failed(u.files.abort(ctx, u.id.group, u.id.file))
	}
	return u.failed(err)
}

func (f *Files) abort(ctx context.Context, group string, ids ...hdfs.FileID) error {
	return f.retry(ctx, func(bool) error { return f.cfg.Names.AbortUploads(ctx, group, ids) })
}

// ListUploads is Store's: those of groups, and those that this Store writes.
func (s *Store) ListUploads(ctx context.Context, bucket, key string) ([]objectstore.Upload, error) {
	r, err := s.writing(ctx, "list uploads", bucket, key)
	if err != nil {
		return nil, err
	}
	all, err := r.files.uploads(ctx, "")
	if err != nil {
		return nil, r.failed(err)
	}
	var out []objectstore.Upload
	for _, h := range all {
		if h.Path == r.path {
			out = append(out, objectstore.Upload{Key: key, ID: idOf(h)})
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, u := range s.uploads {
		if name, _ := parseUploadID(id); name.group == "" && u.bucket == bucket && u.key == key {
			out = append(out, objectstore.Upload{Key: key, ID: id})
		}
	}
	return out, nil
}

func idOf(h hdfs.Upload) string { return uploadID{h.ID, h.Lease, h.Group}.String() }

// Hidden lists the uploads of a group.
func (s *Store) Hidden(ctx context.Context, bucket, group string) ([]Hidden, error) {
	r, err := s.about(ctx, "list uploads", bucket, "")
	if err != nil {
		return nil, err
	}
	all, err := r.files.uploads(ctx, group)
	if err != nil {
		return nil, r.failed(err)
	}
	out := make([]Hidden, len(all))
	for i, h := range all {
		out[i] = Hidden{ID: idOf(h), Key: h.Path[1:], Task: h.Task, Size: h.Size, Sealed: h.Sealed, ETag: etag(h.ID, h.Size)}
	}
	return out, nil
}

// Abort ends uploads of a group, all of them if none is named; those that are not there are no error.
func (s *Store) Abort(ctx context.Context, bucket, group string, ids ...string) error {
	r, err := s.about(ctx, "abort uploads", bucket, "")
	if err != nil {
		return err
	}
	var files []hdfs.FileID
	for _, id := range ids {
		u, ok := parseUploadID(id)
		if !ok || u.group != group {
			return r.refuse(objectstore.ErrInvalid, fmt.Errorf("%q is no upload of job %s", id, group))
		}
		files = append(files, u.file)
	}
	s.mu.Lock()
	for id, u := range s.uploads {
		if name, _ := parseUploadID(id); name.group == group && u.bucket == bucket && (len(ids) == 0 || slices.Contains(ids, id)) {
			delete(s.uploads, id)
			defer u.w.Abort()
		}
	}
	s.mu.Unlock()
	return r.failed(r.files.abort(ctx, group, files...))
}

// Publish shows all uploads of a group in one step: count of them, sealed, or ErrInvalid. With replace all else below the
// prefix goes in the same step; without it there must be nothing, or ErrExists. It may be repeated.
func (s *Store) Publish(ctx context.Context, bucket, group, prefix string, count int, replace bool, at time.Time) error {
	r, err := s.about(ctx, "publish", bucket, prefix)
	if err != nil {
		return err
	}
	return r.failed(r.files.on(ctx, "publish", "/"+prefix, func(path string, _ bool) error {
		return r.files.cfg.Names.Publish(ctx, group, path, count, replace, at)
	}))
}

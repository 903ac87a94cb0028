package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"millrace/jobs/input"
	"millrace/jobs/task"
	"millrace/pkg/objectstore"
)

// fileBucket is the bucket that local files appear in.
const fileBucket = input.FileBucket

// listFiles yields the regular files whose path begins with prefix, in key order.
// Links to files are followed, those to folders are not.
func listFiles(ctx context.Context, prefix string) iter.Seq2[objectstore.Object, error] {
	return func(yield func(objectstore.Object, error) bool) {
		list, err := walk(ctx, prefix)
		if err != nil {
			yield(objectstore.Object{}, fmt.Errorf("list %s: %w", prefix, err))
			return
		}
		for _, f := range list {
			if !yield(f, nil) {
				return
			}
		}
	}
}

func walk(ctx context.Context, prefix string) ([]objectstore.Object, error) {
	var list []objectstore.Object
	root := prefix[:strings.LastIndexByte(prefix, '/')+1]
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && path == root && os.IsNotExist(err):
			return fs.SkipAll
		case err != nil:
			return err
		case d.IsDir():
			if path != root && !strings.HasPrefix(path+"/", prefix) && !strings.HasPrefix(prefix, path+"/") {
				return fs.SkipDir
			}
			return nil
		case !strings.HasPrefix(path, prefix):
			return nil
		}
		info, err := os.Stat(path) // of what a link points to
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a dangling link
		}
		if err == nil && info.Mode().IsRegular() {
			list = append(list, fileObject(path, info))
		}
		return err
	})
	slices.SortFunc(list, func(a, b objectstore.Object) int { return strings.Compare(a.Key, b.Key) })
	return list, err
}

// fileObject describes a file; its ETag changes when it is written to.
func fileObject(path string, info fs.FileInfo) objectstore.Object {
	return objectstore.Object{Key: path, Size: info.Size(), ModifiedAt: info.ModTime(),
		ETag: fmt.Sprintf("%x-%x", info.Size(), info.ModTime().UnixNano())}
}

func headFile(path string) (objectstore.Object, error) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return objectstore.Object{}, fmt.Errorf("%s: %w", path, objectstore.ErrNotExist)
	}
	return fileObject(path, info), nil
}

// getFile reads length bytes from offset, to the end if length is negative.
func getFile(path string, offset, length int64, ifMatch string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && ifMatch != "" && fileObject(path, info).ETag != ifMatch {
		err = fmt.Errorf("%s has changed: %w", path, objectstore.ErrPrecondition)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if length < 0 {
		length = max(0, info.Size()-offset)
	}
	return &fileRange{r: io.NewSectionReader(f, offset, length), f: f, left: length}, nil
}

// fileRange ends with io.ErrUnexpectedEOF if the file has become shorter.
type fileRange struct {
	r    io.Reader
	f    *os.File
	left int64
}

func (r *fileRange) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if r.left -= int64(n); err == io.EOF && r.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (r *fileRange) Close() error { return r.f.Close() }

// putPart writes a part of an output. As all but the last are of a known size, each has its place in the file.
func putPart(path string, number int, data []byte) (objectstore.Part, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
	if err != nil {
		return objectstore.Part{}, fmt.Errorf("write the output: %w", err)
	}
	_, err = f.WriteAt(data, task.PartOffset(number))
	if err = errors.Join(err, f.Close()); err != nil {
		return objectstore.Part{}, fmt.Errorf("write the output: %w", err)
	}
	return objectstore.Part{Number: number, Size: int64(len(data))}, nil
}

package client

import (
	"context"
	"errors"
	"fmt"
	"io"

	"millrace/hdfs"
	"millrace/pkg/objectstore"
)

// Get is Store's. The context is the body's whole life.
func (s *Store) Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error) {
	r, err := s.on(ctx, "get", bucket, key)
	if err != nil {
		return nil, err
	}
	file, err := r.open()
	if err != nil {
		return nil, r.failed(err)
	}
	if err := r.unchanged(file.info, ifMatch); err != nil {
		return nil, err
	}
	size := file.info.Size
	if offset < 0 || offset > size || offset == size && length != 0 && (offset > 0 || length > 0) {
		return nil, r.refuse(objectstore.ErrInvalid, fmt.Errorf("from byte %d, and it has %d", offset, size))
	}
	end := size
	short := false
	if length >= 0 {
		short = length > size-offset
		end = min(size, offset+length)
	}
	b := &body{r: r, file: file, short: short}
	if end-offset > firstWindow {
		b.src = file.ahead(ctx, offset, end)
	} else {
		b.src = streamCloser{file.stream(ctx, offset, end)}
	}
	return b, nil
}

// body is the bytes that a Get has asked for.
type body struct {
	r     *request
	file  *openFile
	src   io.ReadCloser
	short bool // more was asked for than there is
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.src.Read(p)
	switch {
	case err == nil:
		return n, nil
	case err != io.EOF:
		return n, b.r.failed(err)
	case b.short:
		return n, io.ErrUnexpectedEOF
	}
	return n, io.EOF
}

func (b *body) Close() error {
	err := b.src.Close()
	b.file.reports.Wait()
	return err
}

// open opens the file of a request: hdfs.ErrNotExist if there is none.
func (r *request) open() (*openFile, error) {
	if r.path == "" {
		return nil, hdfs.ErrNotExist
	}
	file, err := r.files.open(r.ctx, r.path)
	switch {
	case gone(err):
		return nil, hdfs.ErrNotExist
	case errors.Is(err, hdfs.ErrIsDir):
		return nil, errFolder
	}
	return file, err
}

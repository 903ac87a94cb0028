package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"

	"connectrpc.com/connect"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

const (
	maxFile       = 8 << 30 // bytes of one shipped file
	maxSums       = 10_000  // of one MissingFiles
	headsAtOnce   = 16
	programFolder = "programs/"
)

var sumForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// systemPlace is where the site's own objects lie: bucket, and prefix with its slash (or "").
func systemPlace(v *state.View) (objectstore.URL, error) {
	site, ok := v.Site()
	if !ok {
		return objectstore.URL{}, errNoLeader
	}
	u, err := objectstore.ParseS3(site.SystemPrefix)
	if err != nil {
		return objectstore.URL{}, fmt.Errorf("system prefix: %w", err)
	}
	if u.Key != "" && !strings.HasSuffix(u.Key, "/") {
		u.Key += "/"
	}
	return u, nil
}

func (s *millraceService) MissingFiles(ctx context.Context, req *connect.Request[api.MissingFilesRequest]) (*connect.Response[api.MissingFilesResponse], error) {
	v, _, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	missing, err := s.missing(ctx, v, req.Msg.Sha256)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.MissingFilesResponse{Sha256: missing}), nil
}

// missing says which files the system prefix lacks, in the order asked.
func (s *Server) missing(ctx context.Context, v *state.View, sums []string) ([]string, error) {
	if len(sums) > maxSums {
		return nil, usage("", fmt.Sprintf("%d files at once are more than %d", len(sums), maxSums))
	}
	for _, sum := range sums {
		if !sumForm.MatchString(sum) {
			return nil, usage("", fmt.Sprintf("%q is no SHA-256 in lower-case hex", sum))
		}
	}
	store, _, err := s.siteStore(v)
	if err != nil {
		return nil, err
	}
	place, err := systemPlace(v)
	if err != nil {
		return nil, err
	}
	absent := make([]bool, len(sums))
	errs := make([]error, len(sums))
	limit := make(chan struct{}, headsAtOnce)
	var wg sync.WaitGroup
	for i, sum := range sums {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			_, err := store.Head(ctx, place.Bucket, place.Key+programFolder+sum)
			switch {
			case errors.Is(err, objectstore.ErrNotExist), errors.Is(err, objectstore.ErrNoSuchBucket):
				absent[i] = true
			case err != nil:
				errs[i] = fmt.Errorf("look for file %.12s…: %w", sum, err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	var out []string
	for i, sum := range sums {
		if absent[i] {
			out = append(out, sum)
		}
	}
	return out, nil
}

// UploadFile takes a file down to disk, checks its sum, and only then puts it into the system prefix:
// under programs/SHA256 nothing else is ever seen.
func (s *millraceService) UploadFile(ctx context.Context, stream *connect.ClientStream[api.UploadFileRequest]) (*connect.Response[api.UploadFileResponse], error) {
	v, _, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	spool, err := os.CreateTemp(s.cfg.TempDir, "upload-*")
	if err != nil {
		return nil, fmt.Errorf("take file: %w", err)
	}
	defer os.Remove(spool.Name())
	defer spool.Close()
	sum, size, err := receiveFile(stream, spool)
	if err != nil {
		return nil, err
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("take file: %w", err)
	}
	store, _, err := s.siteStore(v)
	if err != nil {
		return nil, err
	}
	place, err := systemPlace(v)
	if err != nil {
		return nil, err
	}
	if _, err := store.Put(ctx, place.Bucket, place.Key+programFolder+sum, spool, size, objectstore.PutOptions{}); err != nil {
		return nil, fmt.Errorf("store file %.12s…: %w", sum, err)
	}
	return connect.NewResponse(&api.UploadFileResponse{}), nil
}

func receiveFile(stream *connect.ClientStream[api.UploadFileRequest], w io.Writer) (sum string, size int64, err error) {
	hash := sha256.New()
	out := io.MultiWriter(w, hash)
	var got int64
	for first := true; stream.Receive(); first = false {
		m := stream.Msg()
		if first {
			sum, size = m.Sha256, m.Size
			if !sumForm.MatchString(sum) || size < 0 || size > maxFile {
				return "", 0, usage("", fmt.Sprintf("a file needs its SHA-256 and a size of at most %d bytes", int64(maxFile)))
			}
		}
		if got += int64(len(m.Data)); got > size {
			return "", 0, usage("", fmt.Sprintf("file %.12s… is longer than the %d bytes announced", sum, size))
		}
		if _, err := out.Write(m.Data); err != nil {
			return "", 0, fmt.Errorf("take file: %w", err)
		}
	}
	if err := stream.Err(); err != nil {
		return "", 0, err
	}
	switch {
	case sum == "":
		return "", 0, usage("", "no file was sent")
	case got != size:
		return "", 0, usage("", fmt.Sprintf("file %.12s… ended after %d of %d bytes", sum, got, size))
	case hex.EncodeToString(hash.Sum(nil)) != sum:
		return "", 0, usage("submit again", fmt.Sprintf("file %.12s… does not have this SHA-256: it was changed meanwhile, or damaged on the way", sum))
	}
	return sum, size, nil
}

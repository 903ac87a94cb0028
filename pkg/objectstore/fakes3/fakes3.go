// Package fakes3 is an S3 over HTTP for tests: a handler in front of any
// objectstore.Store (Memory, as a rule) that takes every key S3 itself takes, also those
// that MinIO and file systems refuse. It owns the wire format and the provoking of
// answers; it verifies no signature. Production code does not import it.
package fakes3

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"millrace/pkg/objectstore"
)

// Server is the handler. Set its fields before use.
type Server struct {
	Store objectstore.Store
	// Answer, if set, is asked before each request; a refusal it returns is the answer,
	// and nothing is done.
	Answer func(r *http.Request) *Refusal

	requests atomic.Int64
}

// Refusal is an error as S3 answers it.
type Refusal struct {
	Status  int
	Code    string
	Message string
	Region  string // the one that the store wants
	Header  http.Header
	Plain   bool // Message alone is the body, as from something that is no S3 at all
}

// Start serves s until the test ends, and gives its URL.
func Start(t testing.TB, s *Server) string {
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return server.URL
}

// Requests is how many requests have come so far.
func (s *Server) Requests() int64 { return s.requests.Load() }

// place takes bucket and key from the path as it came over the wire: nothing is cleaned.
func place(r *http.Request) (bucket, key string, err error) {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if u, err := url.Parse(path); err == nil && u.Host != "" {
		path = u.EscapedPath()
	}
	bucket, key, _ = strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if bucket, err = url.PathUnescape(bucket); err != nil {
		return "", "", err
	}
	key, err = url.PathUnescape(key)
	return bucket, key, err
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	w.Header().Set("Server", "fakes3")
	if s.Answer != nil {
		if refusal := s.Answer(r); refusal != nil {
			refusal.write(w, r)
			return
		}
	}
	bucket, key, err := place(r)
	if err != nil {
		(&Refusal{Status: http.StatusBadRequest, Code: "InvalidURI", Message: err.Error()}).write(w, r)
		return
	}
	switch {
	case bucket == "":
		err = s.buckets(w, r)
	case key == "":
		err = s.bucket(w, r, bucket)
	case r.URL.Query().Has("uploads"), r.URL.Query().Has("uploadId"):
		err = s.upload(w, r, bucket, key)
	default:
		err = s.object(w, r, bucket, key)
	}
	if err != nil {
		refusalOf(err).write(w, r)
	}
}

func (s *Server) object(w http.ResponseWriter, r *http.Request, bucket, key string) error {
	switch r.Method {
	case http.MethodHead, http.MethodGet:
		return s.get(w, r, bucket, key)
	case http.MethodPut:
		body, size, err := payload(r)
		if err != nil {
			return err
		}
		meta := map[string]string{}
		for name := range r.Header {
			if m, ok := strings.CutPrefix(strings.ToLower(name), "x-amz-meta-"); ok {
				meta[m] = r.Header.Get(name)
			}
		}
		o, err := s.Store.Put(r.Context(), bucket, key, body, size, objectstore.PutOptions{
			IfNoneMatch: r.Header.Get("If-None-Match") == "*", ContentType: r.Header.Get("Content-Type"), Metadata: meta})
		if err == nil {
			w.Header().Set("ETag", `"`+o.ETag+`"`)
		}
		return err
	case http.MethodDelete:
		err := s.Store.Delete(r.Context(), bucket, key)
		if err == nil {
			w.WriteHeader(http.StatusNoContent)
		}
		return err
	}
	return errMethod
}

// get answers GET and HEAD.
func (s *Server) get(w http.ResponseWriter, r *http.Request, bucket, key string) error {
	o, err := s.Store.Head(r.Context(), bucket, key)
	if err != nil {
		return err
	}
	if want := strings.Trim(r.Header.Get("If-Match"), `"`); want != "" && want != o.ETag {
		return &objectstore.Error{Kind: objectstore.ErrPrecondition, Code: "PreconditionFailed"}
	}
	h := w.Header()
	h.Set("ETag", `"`+o.ETag+`"`)
	h.Set("Last-Modified", o.ModifiedAt.UTC().Format(http.TimeFormat))
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Type", "application/octet-stream")
	for name, value := range o.Metadata {
		h.Set("X-Amz-Meta-"+name, value)
	}
	status, offset, length := http.StatusOK, int64(0), o.Size
	if from, to, ok := byteRange(r.Header.Get("Range"), o.Size); ok {
		if from >= o.Size {
			return &objectstore.Error{Kind: objectstore.ErrInvalid, Code: "InvalidRange"}
		}
		status, offset, length = http.StatusPartialContent, from, to-from+1
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, o.Size))
	}
	h.Set("Content-Length", strconv.FormatInt(length, 10))
	if r.Method == http.MethodHead || length == 0 {
		w.WriteHeader(status)
		return nil
	}
	body, err := s.Store.Get(r.Context(), bucket, key, offset, length, o.ETag)
	if err != nil {
		h.Del("Content-Length")
		return err
	}
	defer body.Close()
	w.WriteHeader(status)
	if _, err := io.Copy(w, body); err != nil {
		panic(http.ErrAbortHandler) // the headers are gone: a broken connection is all that can say so
	}
	return nil
}

// byteRange reads "bytes=a-b" and "bytes=a-"; the end is within the object.
func byteRange(s string, size int64) (from, to int64, ok bool) {
	a, b, found := strings.Cut(strings.TrimPrefix(s, "bytes="), "-")
	if s == "" || !found {
		return 0, 0, false
	}
	from, err := strconv.ParseInt(a, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	if to, err = strconv.ParseInt(b, 10, 64); err != nil {
		to = size - 1
	}
	return from, min(to, size-1), true
}

var errMethod = errors.New("method not allowed")

// refusalOf is how S3 answers an error of a Store.
func refusalOf(err error) *Refusal {
	out := &Refusal{Status: http.StatusBadRequest, Code: "InvalidArgument", Message: err.Error()}
	var e *objectstore.Error
	if errors.As(err, &e) && e.Code != "" {
		out.Code = e.Code
	}
	for _, k := range []struct {
		kind   error
		status int
		code   string
	}{
		{objectstore.ErrNotExist, http.StatusNotFound, "NoSuchKey"},
		{objectstore.ErrNoSuchBucket, http.StatusNotFound, "NoSuchBucket"},
		{objectstore.ErrNoSuchUpload, http.StatusNotFound, "NoSuchUpload"},
		{objectstore.ErrPrecondition, http.StatusPreconditionFailed, "PreconditionFailed"},
		{objectstore.ErrDenied, http.StatusForbidden, "AccessDenied"},
		{objectstore.ErrExists, http.StatusConflict, "BucketAlreadyOwnedByYou"},
		{objectstore.ErrUnreachable, http.StatusServiceUnavailable, "SlowDown"},
		{errMethod, http.StatusMethodNotAllowed, "MethodNotAllowed"},
	} {
		if errors.Is(err, k.kind) {
			out.Status = k.status
			if e == nil || e.Code == "" {
				out.Code = k.code
			}
		}
	}
	switch out.Code {
	case "InvalidRange":
		out.Status = http.StatusRequestedRangeNotSatisfiable
	case "BucketNotEmpty":
		out.Status = http.StatusConflict
	}
	return out
}

func (f *Refusal) write(w http.ResponseWriter, r *http.Request) {
	for name, values := range f.Header {
		w.Header()[name] = values
	}
	if f.Region != "" {
		w.Header().Set("X-Amz-Bucket-Region", f.Region)
	}
	if f.Plain {
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(f.Status)
		io.WriteString(w, f.Message)
		return
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(f.Status)
	if r.Method != http.MethodHead {
		writeXML(w, errorXML{Code: f.Code, Message: f.Message, Region: f.Region, RequestID: "1", Resource: r.URL.Path})
	}
}

// WrongRegion is what AWS answers to a request that was signed for another region.
func WrongRegion(want string) *Refusal {
	return &Refusal{Status: http.StatusBadRequest, Code: "AuthorizationHeaderMalformed", Region: want,
		Message: "The authorization header is malformed; the region is wrong; expecting '" + want + "'"}
}

// Skewed is what a store answers whose clock is so far ahead of the client's.
func Skewed(by time.Duration) *Refusal {
	return &Refusal{Status: http.StatusForbidden, Code: "RequestTimeTooSkewed",
		Message: "The difference between the request time and the server's time is too large.",
		Header:  http.Header{"Date": {time.Now().Add(by).UTC().Format(http.TimeFormat)}}}
}

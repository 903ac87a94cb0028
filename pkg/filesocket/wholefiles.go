package filesocket

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"millrace/pkg/objectstore"
)

// AllowBelow lets whole files be written below a prefix until it is revoked: for an attempt that copies. Each call
// counts for itself, so that of two attempts one may end before the other. What is being written then is given up.
func (s *Server) AllowBelow(bucket, prefix string) (revoke func()) {
	f := &folder{bucket, prefix}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.below[f] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.below, f)
	}
}

func (s *Server) allowsBelow(bucket, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.below {
		if f.bucket == bucket && len(key) > len(f.prefix) && strings.HasPrefix(key, f.prefix) {
			return nil
		}
	}
	return denied(bucket, key, "no attempt that runs on this node copies to there")
}

// head answers in headers, as such answers have no body.
func (s *Server) head(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	o, err := s.store.Head(r.Context(), q.Get("bucket"), q.Get("key"))
	if err != nil {
		w.Header().Set(trouble, problemOf("head", err).header())
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	data, err := json.Marshal(o)
	if err != nil { // text, numbers and a time
		panic(err)
	}
	w.Header().Set(found, url.QueryEscape(string(data)))
}

func (s *Server) put(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	bucket, key := q.Get("bucket"), q.Get("key")
	if r.ContentLength < 0 {
		refuse(w, "put", fmt.Errorf("%w: a file whose size is not said", objectstore.ErrInvalid))
		return
	}
	if err := s.allowsBelow(bucket, key); err != nil {
		refuse(w, "put", err)
		return
	}
	body := &permitted{Reader: r.Body, allowed: func() error { return s.allowsBelow(bucket, key) }}
	o, err := s.store.Put(r.Context(), bucket, key, body, r.ContentLength, objectstore.PutOptions{IfNoneMatch: q.Has("new")})
	answer(w, "put", o, err)
}

// permitted is a body that breaks off when its attempt has ended: its last process may outlive it for a moment.
type permitted struct {
	io.Reader
	allowed func() error
}

func (p *permitted) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if refused := p.allowed(); refused != nil {
		return n, refused
	}
	return n, err
}

// Head is Store's.
func (c *Client) Head(ctx context.Context, bucket, key string) (o objectstore.Object, err error) {
	u := objectstore.URL{Bucket: bucket, Key: key}
	resp, err := c.ask(ctx, http.MethodHead, filePath, "head", u, url.Values{}, nil)
	if err != nil {
		return o, err
	}
	defer resp.Body.Close()
	data, err := url.QueryUnescape(resp.Header.Get(found))
	if err == nil {
		err = json.Unmarshal([]byte(data), &o)
	}
	if err != nil {
		return o, &objectstore.Error{Op: "head", URL: u.String(), Kind: objectstore.ErrUnreachable, Err: err}
	}
	return o, nil
}

// Put is Store's. The worker is asked before anything is read, and knows no metadata. An error of r's makes one of this.
func (c *Client) Put(ctx context.Context, bucket, key string, r io.Reader, size int64, o objectstore.PutOptions) (done objectstore.Object, err error) {
	u := objectstore.URL{Bucket: bucket, Key: key}
	q := url.Values{}
	if o.IfNoneMatch {
		q.Set("new", "")
	}
	resp, err := c.send(ctx, http.MethodPut, filePath, "put", u, q, http.NoBody, func(req *http.Request) {
		if req.ContentLength = size; size > 0 {
			req.Header.Set("Expect", "100-continue")
			req.Body = io.NopCloser(r)
		}
	})
	if err != nil {
		return done, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&done); err != nil {
		return done, &objectstore.Error{Op: "put", URL: u.String(), Kind: objectstore.ErrUnreachable, Err: err}
	}
	return done, nil
}

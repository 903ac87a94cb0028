package filesocket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"millrace/pkg/objectstore"
)

// Client is an attempt's end. It repeats nothing: the worker does, and ends together with the attempt.
type Client struct{ http *http.Client }

// NewClient reaches a Server by its name.
func NewClient(name string) *Client {
	return &Client{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", name)
		},
		MaxIdleConnsPerHost: 32, DisableCompression: true, ExpectContinueTimeout: time.Minute, ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10,
	}}}
}

// Close gives up connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// ask sends a request and gives an answer that is none of an error.
func (c *Client) ask(ctx context.Context, method, path, op string, u objectstore.URL, more url.Values, body []byte) (*http.Response, error) {
	return c.send(ctx, method, path, op, u, more, bytes.NewReader(body), func(*http.Request) {})
}

// send is ask for a request that is more than that.
func (c *Client) send(ctx context.Context, method, path, op string, u objectstore.URL, more url.Values, body io.Reader, with func(*http.Request)) (*http.Response, error) {
	more.Set("bucket", u.Bucket)
	more.Set("key", u.Key)
	failed := func(err error) error {
		if ctx.Err() != nil {
			return &objectstore.Error{Op: op, URL: u.String(), Err: ctx.Err()}
		}
		return &objectstore.Error{Op: op, URL: u.String(), Kind: objectstore.ErrUnreachable, Err: fmt.Errorf("by way of the worker: %w", err)}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://files"+path+"?"+more.Encode(), body)
	if err != nil {
		return nil, failed(err)
	}
	with(req)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, failed(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	if p, err := parseHeader(resp.Header.Get(trouble)); err == nil {
		return nil, p.error(u)
	}
	p := problem{}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&p); err != nil {
		return nil, failed(fmt.Errorf("it answers %s", resp.Status))
	}
	return nil, p.error(u)
}

// Get is Store's.
func (c *Client) Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error) {
	u := objectstore.URL{Bucket: bucket, Key: key}
	resp, err := c.ask(ctx, http.MethodGet, filePath, "get", u, url.Values{
		"offset": {strconv.FormatInt(offset, 10)}, "length": {strconv.FormatInt(length, 10)}, "etag": {ifMatch}}, nil)
	if err != nil {
		return nil, err
	}
	return &reading{resp, u}, nil
}

// reading is a body that ends well only if the worker says so.
type reading struct {
	resp *http.Response
	u    objectstore.URL
}

func (r *reading) Read(p []byte) (int, error) {
	n, err := r.resp.Body.Read(p)
	if err == nil {
		return n, nil
	}
	said := r.resp.Trailer.Get(trouble)
	switch {
	case errors.Is(err, io.EOF) && said == whole:
		return n, io.EOF
	case errors.Is(err, io.EOF):
		if p, bad := parseHeader(said); bad == nil {
			return n, p.error(r.u)
		}
		return n, io.ErrUnexpectedEOF
	}
	return n, &objectstore.Error{Op: "get", URL: r.u.String(), Kind: objectstore.ErrUnreachable, Err: err}
}

func (r *reading) Close() error { return r.resp.Body.Close() }

// UploadPart is Store's.
func (c *Client) UploadPart(ctx context.Context, bucket, key, id string, n int, data []byte) (part objectstore.Part, err error) {
	u := objectstore.URL{Bucket: bucket, Key: key}
	resp, err := c.ask(ctx, http.MethodPut, partPath, "upload part", u, url.Values{"upload": {id}, "number": {strconv.Itoa(n)}}, data)
	if err != nil {
		return part, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&part); err != nil {
		return part, &objectstore.Error{Op: "upload part", URL: u.String(), Kind: objectstore.ErrUnreachable, Err: err}
	}
	return part, nil
}

// SealUpload is Store's.
func (c *Client) SealUpload(ctx context.Context, bucket, key, id string) error {
	resp, err := c.ask(ctx, http.MethodPost, sealPath, "seal upload", objectstore.URL{Bucket: bucket, Key: key}, url.Values{"upload": {id}}, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

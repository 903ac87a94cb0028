// Package filesocket is how an attempt's process reaches the files of clusters: through its worker, which has the
// node's identity, over a Unix-domain socket with HTTP/1.1 on it. It owns both ends: the worker's Server, over what it has
// been given as a Store, and the attempt's Client, which is one again.
//
//	GET  /v1/file?bucket=&key=&offset=&length=&etag=   a range of a file; an error in its midst comes as a trailer
//	HEAD /v1/file?bucket=&key=                         what it is: a problem or an object in a header
//	PUT  /v1/file?bucket=&key=&new=                    a whole file; with new, only where there is none
//	PUT  /v1/part?bucket=&key=&upload=&number=         the next part of an upload
//	POST /v1/seal?bucket=&key=&upload=                 all of it is there
//
// The socket has no name in the file system (it is an abstract one), so that it does not matter how long the name of a node's
// folder is or whether somebody removes it; who is let in is looked at when he comes. Everything may be read; written may be only
// what the Server was told to allow: uploads of attempts that run on this node, and whole files below the folders that such may copy to.
package filesocket

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"strconv"

	"millrace/pkg/objectstore"
)

// Store is what is served, and what a Client is; objectstore has the methods' meaning.
type Store interface {
	Get(ctx context.Context, bucket, key string, offset, length int64, ifMatch string) (io.ReadCloser, error)
	Head(ctx context.Context, bucket, key string) (objectstore.Object, error)
	// Put reads nothing of a file that it refuses at once.
	Put(ctx context.Context, bucket, key string, r io.Reader, size int64, o objectstore.PutOptions) (objectstore.Object, error)
	UploadPart(ctx context.Context, bucket, key, id string, number int, data []byte) (objectstore.Part, error)
	objectstore.Sealer
}

const (
	filePath = "/v1/file"
	partPath = "/v1/part"
	sealPath = "/v1/seal"

	trouble = "Millrace-Error" // a trailer: whole, or a problem
	whole   = "none"
	found   = "Millrace-Object"
	maxPart = 64 << 20 // bytes of one part, which is held in memory
)

// problem is an error on the wire.
type problem struct {
	Kind    string `json:"kind"`
	Op      string `json:"op"`
	Message string `json:"message"`
}

// kinds are the errors that a caller decides on, as objectstore has them.
var kinds = map[string]error{
	"not exist": objectstore.ErrNotExist, "no such bucket": objectstore.ErrNoSuchBucket, "no such upload": objectstore.ErrNoSuchUpload,
	"precondition": objectstore.ErrPrecondition, "denied": objectstore.ErrDenied, "unreachable": objectstore.ErrUnreachable,
	"invalid": objectstore.ErrInvalid, "exists": objectstore.ErrExists, "damaged": objectstore.ErrDamaged, "short": io.ErrUnexpectedEOF,
}

// problemOf is an error as it is sent. Of no kind that is known it is one that may pass.
func problemOf(op string, err error) problem {
	p := problem{Kind: "unreachable", Op: op, Message: err.Error()}
	var e *objectstore.Error
	if errors.As(err, &e) {
		p.Op, p.Message = e.Op, ""
		if e.Err != nil {
			p.Message = e.Err.Error()
		}
	}
	for name, kind := range kinds {
		if errors.Is(err, kind) {
			p.Kind = name
		}
	}
	return p
}

func (p problem) error(u objectstore.URL) error {
	e := &objectstore.Error{Op: p.Op, URL: u.String(), Kind: kinds[p.Kind]}
	if e.Kind == nil {
		e.Kind = objectstore.ErrUnreachable
	}
	if p.Message != "" {
		e.Err = errors.New(p.Message)
	}
	return e
}

// header is the problem in one line of ASCII.
func (p problem) header() string {
	data, err := json.Marshal(p)
	if err != nil { // strings alone
		panic(err)
	}
	return url.QueryEscape(string(data))
}

func parseHeader(text string) (p problem, err error) {
	data, err := url.QueryUnescape(text)
	if err == nil {
		err = json.Unmarshal([]byte(data), &p)
	}
	return p, err
}

// number reads a query's number.
func number(q url.Values, name string) (int64, error) { return strconv.ParseInt(q.Get(name), 10, 64) }

package faultproxy

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Op is what a request asks of the store.
type Op string

// The requests that S3 clients make.
const (
	ListBuckets    Op = "ListBuckets"
	HeadBucket     Op = "HeadBucket"
	MakeBucket     Op = "MakeBucket"
	RemoveBucket   Op = "RemoveBucket"
	List           Op = "List"
	ListUploads    Op = "ListUploads"
	DeleteObjects  Op = "DeleteObjects"
	Head           Op = "Head"
	Get            Op = "Get"
	Put            Op = "Put"
	Delete         Op = "Delete"
	CreateUpload   Op = "CreateUpload"
	UploadPart     Op = "UploadPart"
	ListParts      Op = "ListParts"
	CompleteUpload Op = "CompleteUpload"
	AbortUpload    Op = "AbortUpload"
	Other          Op = "Other"
)

// Request is one request, as S3 means it.
type Request struct {
	N           int // from 1, in the order they came
	Op          Op
	Bucket, Key string
	Prefix      string // of List and ListUploads
	UploadID    string
	Part        int // of UploadPart
	Header      http.Header
}

// parse says what an HTTP request with a path-style address asks for.
func parse(r *http.Request) Request {
	path := strings.TrimPrefix(r.URL.EscapedPath(), "/")
	bucket, key, _ := strings.Cut(path, "/")
	q := r.URL.Query()
	part, _ := strconv.Atoi(q.Get("partNumber")) // 0: there is none
	return Request{
		Op: opOf(r.Method, bucket, key, q), Bucket: unescape(bucket), Key: unescape(key),
		Prefix: q.Get("prefix"), UploadID: q.Get("uploadId"), Part: part, Header: r.Header.Clone(),
	}
}

func unescape(s string) string {
	if plain, err := url.PathUnescape(s); err == nil {
		return plain
	}
	return s
}

func opOf(method, bucket, key string, q url.Values) Op {
	switch {
	case bucket == "" && method == http.MethodGet:
		return ListBuckets
	case bucket == "":
		return Other
	case key == "":
		return bucketOp(method, q)
	}
	return objectOp(method, q)
}

func bucketOp(method string, q url.Values) Op {
	switch {
	case method == http.MethodGet && q.Has("uploads"):
		return ListUploads
	case method == http.MethodGet && (q.Has("list-type") || q.Has("prefix") || len(q) == 0):
		return List
	case method == http.MethodPost && q.Has("delete"):
		return DeleteObjects
	case method == http.MethodHead:
		return HeadBucket
	case method == http.MethodPut && len(q) == 0:
		return MakeBucket
	case method == http.MethodDelete && len(q) == 0:
		return RemoveBucket
	}
	return Other
}

func objectOp(method string, q url.Values) Op {
	upload := q.Has("uploadId")
	switch {
	case method == http.MethodHead:
		return Head
	case method == http.MethodGet && upload:
		return ListParts
	case method == http.MethodGet:
		return Get
	case method == http.MethodPut && upload:
		return UploadPart
	case method == http.MethodPut:
		return Put
	case method == http.MethodPost && q.Has("uploads"):
		return CreateUpload
	case method == http.MethodPost && upload:
		return CompleteUpload
	case method == http.MethodDelete && upload:
		return AbortUpload
	case method == http.MethodDelete:
		return Delete
	}
	return Other
}

package fakes3

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"millrace/pkg/objectstore"
)

const namespace = "http://s3.amazonaws.com/doc/2006-03-01/"

type errorXML struct {
	XMLName                            xml.Name `xml:"Error"`
	Code, Message, Resource, RequestID string
	Region                             string `xml:",omitempty"`
}

func writeXML(w io.Writer, v any) {
	io.WriteString(w, xml.Header)
	xml.NewEncoder(w).Encode(v) // the client's end of the connection is the client's matter
}

func answerXML(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/xml")
	writeXML(w, v)
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func (s *Server) buckets(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return errMethod
	}
	type bucket struct{ Name, CreationDate string }
	list, err := s.Store.ListBuckets(r.Context())
	if err != nil {
		return err
	}
	out := struct {
		XMLName xml.Name `xml:"ListAllMyBucketsResult"`
		NS      string   `xml:"xmlns,attr"`
		Buckets []bucket `xml:"Buckets>Bucket"`
	}{NS: namespace}
	for _, b := range list {
		out.Buckets = append(out.Buckets, bucket{b.Name, stamp(b.CreatedAt)})
	}
	return answerXML(w, out)
}

func (s *Server) bucket(w http.ResponseWriter, r *http.Request, bucket string) error {
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodPut:
		return s.Store.MakeBucket(r.Context(), bucket)
	case r.Method == http.MethodDelete:
		err := s.Store.RemoveBucket(r.Context(), bucket)
		if err == nil {
			w.WriteHeader(http.StatusNoContent)
		}
		return err
	case r.Method == http.MethodPost && q.Has("delete"):
		return s.deleteMany(w, r, bucket)
	}
	ok, err := s.Store.BucketExists(r.Context(), bucket)
	if err == nil && !ok {
		err = &objectstore.Error{Kind: objectstore.ErrNoSuchBucket, Code: "NoSuchBucket"}
	}
	switch {
	case err != nil:
		return err
	case r.Method == http.MethodHead:
		return nil
	case r.Method != http.MethodGet:
		return errMethod
	case q.Has("uploads"):
		return s.listUploads(w, r, bucket)
	case q.Has("location"):
		return answerXML(w, struct {
			XMLName xml.Name `xml:"LocationConstraint"`
		}{})
	}
	return s.list(w, r, bucket, q)
}

type contentXML struct {
	Key, LastModified, ETag string
	Size                    int64
	StorageClass            string
}

type prefixXML struct{ Prefix string }

type listXML struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	NS                    string   `xml:"xmlns,attr"`
	Name, Prefix          string
	KeyCount, MaxKeys     int
	Delimiter             string `xml:",omitempty"`
	EncodingType          string `xml:",omitempty"`
	IsTruncated           bool
	ContinuationToken     string `xml:",omitempty"`
	NextContinuationToken string `xml:",omitempty"`
	StartAfter            string `xml:",omitempty"`
	Contents              []contentXML
	CommonPrefixes        []prefixXML
}

// list answers ListObjectsV2. The token is the last name of the page before.
func (s *Server) list(w http.ResponseWriter, r *http.Request, bucket string, q url.Values) error {
	most := 1000
	if n, err := strconv.Atoi(q.Get("max-keys")); err == nil && n >= 0 && n < most {
		most = n
	}
	encode := func(s string) string { return s }
	if q.Get("encoding-type") == "url" {
		encode = url.QueryEscape
	}
	out := listXML{NS: namespace, Name: bucket, Prefix: encode(q.Get("prefix")), MaxKeys: most, EncodingType: q.Get("encoding-type"),
		Delimiter: encode(q.Get("delimiter")), StartAfter: encode(q.Get("start-after")), ContinuationToken: q.Get("continuation-token")}
	after := q.Get("start-after")
	if token := q.Get("continuation-token"); token != "" {
		last, err := url.QueryUnescape(token)
		if err != nil {
			return &objectstore.Error{Kind: objectstore.ErrInvalid, Code: "InvalidArgument"}
		}
		after = last
	}
	opts := objectstore.ListOptions{Delimiter: q.Get("delimiter") == "/", StartAfter: after, Max: most + 1}
	for o, err := range s.Store.List(r.Context(), bucket, q.Get("prefix"), opts) {
		if err != nil {
			return err
		}
		if out.KeyCount == most {
			out.IsTruncated, out.NextContinuationToken = true, url.QueryEscape(after)
			break
		}
		out.KeyCount++
		after = o.Key
		if o.Prefix {
			out.CommonPrefixes = append(out.CommonPrefixes, prefixXML{encode(o.Key)})
			continue
		}
		out.Contents = append(out.Contents, contentXML{encode(o.Key), stamp(o.ModifiedAt), `"` + o.ETag + `"`, o.Size, "STANDARD"})
	}
	return answerXML(w, out)
}

func (s *Server) deleteMany(w http.ResponseWriter, r *http.Request, bucket string) error {
	body, _, err := payload(r)
	if err != nil {
		return err
	}
	var asked struct {
		Objects []struct{ Key string } `xml:"Object"`
		Quiet   bool
	}
	if err := xml.NewDecoder(body).Decode(&asked); err != nil {
		return &objectstore.Error{Kind: objectstore.ErrInvalid, Code: "MalformedXML", Err: err}
	}
	type deleted struct{ Key string }
	type failed struct{ Key, Code, Message string }
	out := struct {
		XMLName xml.Name `xml:"DeleteResult"`
		NS      string   `xml:"xmlns,attr"`
		Deleted []deleted
		Error   []failed
	}{NS: namespace}
	if ok, err := s.Store.BucketExists(r.Context(), bucket); err != nil || !ok {
		return &objectstore.Error{Kind: objectstore.ErrNoSuchBucket, Code: "NoSuchBucket", Err: err}
	}
	for _, o := range asked.Objects {
		if err := s.Store.Delete(r.Context(), bucket, o.Key); err != nil {
			f := refusalOf(err)
			out.Error = append(out.Error, failed{o.Key, f.Code, f.Message})
		} else if !asked.Quiet {
			out.Deleted = append(out.Deleted, deleted{o.Key})
		}
	}
	return answerXML(w, out)
}

// payload is a request's body and its size, out of its chunks if it was signed in chunks.
func payload(r *http.Request) (io.Reader, int64, error) {
	if !strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
		return r.Body, r.ContentLength, nil
	}
	size, err := strconv.ParseInt(r.Header.Get("X-Amz-Decoded-Content-Length"), 10, 64)
	if err != nil {
		return nil, 0, fmt.Errorf("decoded length: %w", err)
	}
	var data bytes.Buffer
	for in := bufio.NewReader(r.Body); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, 0, fmt.Errorf("chunk: %w", err)
		}
		length, _, _ := strings.Cut(strings.TrimSpace(line), ";")
		n, err := strconv.ParseInt(length, 16, 64)
		if err != nil {
			return nil, 0, fmt.Errorf("chunk: %w", err)
		}
		if n == 0 {
			_, err := io.Copy(io.Discard, in) // trailers
			return &data, size, err
		}
		if _, err := io.CopyN(&data, in, n); err != nil {
			return nil, 0, fmt.Errorf("chunk: %w", err)
		}
		if _, err := in.Discard(2); err != nil {
			return nil, 0, fmt.Errorf("chunk: %w", err)
		}
	}
}

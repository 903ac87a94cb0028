package fakes3

import (
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"millrace/pkg/objectstore"
)

// upload answers what concerns one multipart upload.
func (s *Server) upload(w http.ResponseWriter, r *http.Request, bucket, key string) error {
	q := r.URL.Query()
	id := q.Get("uploadId")
	switch {
	case r.Method == http.MethodPost && id == "":
		return s.createUpload(w, r, bucket, key)
	case r.Method == http.MethodPost:
		return s.completeUpload(w, r, bucket, key, id)
	case r.Method == http.MethodPut:
		return s.uploadPart(w, r, bucket, key, id)
	case r.Method == http.MethodGet:
		return s.listParts(w, r, bucket, key, id)
	case r.Method == http.MethodDelete:
		err := s.Store.AbortUpload(r.Context(), bucket, key, id)
		if err == nil {
			w.WriteHeader(http.StatusNoContent)
		}
		return err
	}
	return errMethod
}

func (s *Server) createUpload(w http.ResponseWriter, r *http.Request, bucket, key string) error {
	meta := map[string]string{}
	for name := range r.Header {
		if m, ok := strings.CutPrefix(strings.ToLower(name), "x-amz-meta-"); ok {
			meta[m] = r.Header.Get(name)
		}
	}
	id, err := s.Store.CreateUpload(r.Context(), bucket, key, meta)
	if err != nil {
		return err
	}
	return answerXML(w, struct {
		XMLName               xml.Name `xml:"InitiateMultipartUploadResult"`
		NS                    string   `xml:"xmlns,attr"`
		Bucket, Key, UploadId string
	}{NS: namespace, Bucket: bucket, Key: key, UploadId: id})
}

func (s *Server) uploadPart(w http.ResponseWriter, r *http.Request, bucket, key, id string) error {
	number, err := strconv.Atoi(r.URL.Query().Get("partNumber"))
	if err != nil {
		return &objectstore.Error{Kind: objectstore.ErrInvalid, Code: "InvalidArgument", Err: err}
	}
	body, size, err := payload(r)
	if err != nil {
		return err
	}
	data := make([]byte, max(size, 0))
	if _, err := io.ReadFull(body, data); err != nil {
		return &objectstore.Error{Kind: objectstore.ErrInvalid, Code: "IncompleteBody", Err: err}
	}
	p, err := s.Store.UploadPart(r.Context(), bucket, key, id, number, data)
	if err == nil {
		w.Header().Set("ETag", `"`+p.ETag+`"`)
	}
	return err
}

type partXML struct {
	PartNumber int
	ETag       string
	Size       int64 `xml:",omitempty"`
}

func (s *Server) completeUpload(w http.ResponseWriter, r *http.Request, bucket, key, id string) error {
	var asked struct {
		Part []partXML
	}
	if err := xml.NewDecoder(r.Body).Decode(&asked); err != nil {
		return &objectstore.Error{Kind: objectstore.ErrInvalid, Code: "MalformedXML", Err: err}
	}
	var parts []objectstore.Part
	for _, p := range asked.Part {
		parts = append(parts, objectstore.Part{Number: p.PartNumber, ETag: strings.Trim(p.ETag, `"`)})
	}
	etag, err := s.Store.CompleteUpload(r.Context(), bucket, key, id, parts)
	if err != nil {
		return err
	}
	return answerXML(w, struct {
		XMLName           xml.Name `xml:"CompleteMultipartUploadResult"`
		NS                string   `xml:"xmlns,attr"`
		Bucket, Key, ETag string
	}{NS: namespace, Bucket: bucket, Key: key, ETag: `"` + etag + `"`})
}

// listParts gives all parts in one page: at most 10,000.
func (s *Server) listParts(w http.ResponseWriter, r *http.Request, bucket, key, id string) error {
	parts, err := s.Store.ListParts(r.Context(), bucket, key, id)
	if err != nil {
		return err
	}
	out := struct {
		XMLName               xml.Name `xml:"ListPartsResult"`
		NS                    string   `xml:"xmlns,attr"`
		Bucket, Key, UploadId string
		IsTruncated           bool
		Part                  []partXML
	}{NS: namespace, Bucket: bucket, Key: key, UploadId: id}
	for _, p := range parts {
		out.Part = append(out.Part, partXML{p.Number, `"` + p.ETag + `"`, p.Size})
	}
	return answerXML(w, out)
}

// listUploads lists those of exactly one key, as MinIO does.
func (s *Server) listUploads(w http.ResponseWriter, r *http.Request, bucket string) error {
	uploads, err := s.Store.ListUploads(r.Context(), bucket, r.URL.Query().Get("prefix"))
	if err != nil {
		return err
	}
	type uploadXML struct{ Key, UploadId string }
	out := struct {
		XMLName      xml.Name `xml:"ListMultipartUploadsResult"`
		NS           string   `xml:"xmlns,attr"`
		Bucket       string
		EncodingType string `xml:",omitempty"`
		IsTruncated  bool
		Upload       []uploadXML
	}{NS: namespace, Bucket: bucket, EncodingType: r.URL.Query().Get("encoding-type")}
	for _, u := range uploads {
		if out.EncodingType == "url" {
			u.Key = url.QueryEscape(u.Key)
		}
		out.Upload = append(out.Upload, uploadXML{u.Key, u.ID})
	}
	return answerXML(w, out)
}

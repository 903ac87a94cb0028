package objectstore

import (
	"crypto/md5" // S3's choice; against damage on the way, not against people
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/minio/minio-go/v7"
)

// digested sends a body to a bucket. AWS takes an upload into a bucket with object lock only with the
// body's MD5, which other buckets do not need and which takes a core's time: so it is sent where a store
// has asked for it, and from then on. A body that cannot be rewound goes as it is.
func (s *s3Store) digested(bucket string, body io.Reader, send func(md5 string) error) error {
	again, ok := body.(io.ReadSeeker)
	if !ok {
		return send("")
	}
	start, err := again.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("where the body begins: %w", err)
	}
	if _, known := s.wantMD5.Load(bucket); !known {
		if err := send(""); !asksForMD5(err) {
			return err
		}
		s.wantMD5.Store(bucket, true)
	}
	sum := md5.New()
	for _, step := range []func() error{
		func() error { _, err := again.Seek(start, io.SeekStart); return err },
		func() error { _, err := io.Copy(sum, again); return err },
		func() error { _, err := again.Seek(start, io.SeekStart); return err },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("read the body again for its MD5: %w", err)
		}
	}
	return send(base64.StdEncoding.EncodeToString(sum.Sum(nil)))
}

// asksForMD5 tells the refusal for want of a digest from those of a wrong one.
func asksForMD5(err error) bool {
	var r minio.ErrorResponse
	return errors.As(err, &r) && r.StatusCode == http.StatusBadRequest &&
		(r.Code == "MissingContentMD5" || r.Code == "InvalidRequest" && strings.Contains(r.Message, "Content-MD5"))
}

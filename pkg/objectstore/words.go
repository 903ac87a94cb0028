package objectstore

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
)

// explainConnection says what a connection's error means and how it is mended, where
// asking again cannot help.
func (s *s3Store) explainConnection(e *Error) {
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		record  tls.RecordHeaderError
	)
	switch {
	case errors.As(e.Err, &unknown):
		e.Err = fmt.Errorf("its certificate is signed by an authority that this machine does not know: %w", e.Err)
		e.Next = "give the authority's certificate: AWS_CA_BUNDLE=FILE or --s3-ca FILE"
	case errors.As(e.Err, &name):
		e.Next = "use a name in the URL that the store's certificate is for"
	case errors.As(e.Err, &invalid) && invalid.Reason == x509.Expired:
		e.Next = "renew the store's certificate, or set this machine's clock right"
	case errors.As(e.Err, &invalid):
		e.Next = "mend the store's certificate"
	case errors.As(e.Err, &record), strings.Contains(e.Err.Error(), "server gave HTTP response to HTTPS client"):
		e.Err = fmt.Errorf("it speaks HTTP, not HTTPS: %w", e.Err)
		e.Next = "use " + strings.Replace(s.endpoint, "https://", "http://", 1)
	default:
		return
	}
	e.Final = true
}

var expecting = regexp.MustCompile(`expecting (?:region )?['"‘]([a-z0-9-]+)['"’]`)

// explainAnswer says what a refusal means and how it is mended. date is the store's clock.
func (s *s3Store) explainAnswer(e *Error, r minio.ErrorResponse, date time.Time) {
	if s.wrongRegion(e, r) {
		return
	}
	said := func(format string, args ...any) { e.Err = fmt.Errorf(format+": %w", append(args, e.Err)...) }
	switch {
	case strings.Contains(r.Message, "HTTP request to an HTTPS server"):
		e.Kind, e.Final = ErrUnreachable, true
		said("it speaks HTTPS, not HTTP")
		e.Next = "use " + strings.Replace(s.endpoint, "http://", "https://", 1)
	case e.Code == "ExpiredToken", e.Code == "TokenRefreshRequired":
		said("the session token has expired")
		e.Next = "get fresh keys, and set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
	case e.Code == "InvalidAccessKeyId", e.Code == "XAdminUserNotFound":
		said("it does not know the access key %s", s.accessKey)
		e.Next = "check AWS_ACCESS_KEY_ID, and that it belongs to this store"
	case e.Code == "SignatureDoesNotMatch":
		said("the secret key does not belong to the access key %s", s.accessKey)
		e.Next = "check AWS_SECRET_ACCESS_KEY"
	case e.Code == "RequestTimeTooSkewed":
		if by := skew(date); by != "" {
			said("the store's clock is %s this machine's", by)
		}
		e.Next = "set both clocks right, such as with NTP (timedatectl set-ntp true)"
	case e.Code == "InvalidBucketName":
		e.Next = "choose a name of 3 to 63 lower-case letters, digits and hyphens"
	case e.Code == "XMinioInvalidObjectName":
		e.Next = "choose another key: this store takes no empty, . and .. segments"
	}
}

// skew says by how much the store's clock differs from ours: "15m3s ahead of".
func skew(date time.Time) string {
	if date.IsZero() {
		return ""
	}
	by := time.Until(date).Round(time.Second)
	if by < 0 {
		return (-by).String() + " behind"
	}
	return by.String() + " ahead of"
}

// wrongRegion explains a refusal of requests signed for another region.
func (s *s3Store) wrongRegion(e *Error, r minio.ErrorResponse) bool {
	want := r.Region
	if m := expecting.FindStringSubmatch(r.Message); want == "" && m != nil {
		want = m[1]
	}
	switch e.Code {
	case "AuthorizationHeaderMalformed", "InvalidRegion", "PermanentRedirect", "TemporaryRedirect", "Redirect", "IllegalLocationConstraintException":
	default: // the answer to a HEAD is a status and a header
		if e.Status != http.StatusMovedPermanently && e.Status != http.StatusTemporaryRedirect && e.Status != http.StatusBadRequest {
			return false
		}
		if want == "" || want == s.region {
			return false
		}
	}
	e.Kind = ErrDenied
	if want == "" || want == s.region {
		e.Next = "set the store's region: AWS_REGION or --s3-region (now " + s.region + ")"
		return true
	}
	e.Err = fmt.Errorf("the store wants region %s, not %s: %w", want, s.region, e.Err)
	e.Next = "set AWS_REGION=" + want + " or --s3-region " + want
	return true
}

// Advice is what mends err, where its store knows that; "" otherwise.
func Advice(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Next
	}
	return ""
}

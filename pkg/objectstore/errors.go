package objectstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/minio/minio-go/v7"
)

// Error is what every method of S3 and Memory returns: what was asked of
// which place, how the refusal is to be understood (Kind, one of the
// package's sentinels), and what the store said. errors.Is finds Kind and Err.
type Error struct {
	Op       string // "get", "put", …
	URL      string // s3://bucket/key
	Endpoint string // http://host:port; "" if it is not known
	Kind     error  // one of the sentinels; nil if the caller's context ended
	Status   int    // HTTP's; 0 if there was no answer
	Code     string // the store's code, such as NoSuchKey; "" if it did not answer
	Err      error  // the cause, with the store's message
	Next     string // what mends it, where that is known
	Final    bool   // ErrUnreachable, and will stay so until something is mended

	retryAfter time.Duration // what the store asks for before the next try
}

func (e *Error) Error() string { return e.Op + " " + e.URL + ": " + e.Said() }

// Said is the error without what was asked of which place, for who has named that already. A block store says what is wrong in
// words of its own.
func (e *Error) Said() string {
	switch {
	case e.Err == nil && e.Kind == nil:
		return ""
	case e.Err == nil:
		return e.Kind.Error()
	case e.Kind == nil, strings.HasPrefix(e.URL, HDFS):
		return e.Err.Error()
	}
	return e.Kind.Error() + ": " + e.Err.Error()
}

// Unwrap gives the kind and the cause.
func (e *Error) Unwrap() []error {
	var all []error
	if e.Kind != nil {
		all = append(all, e.Kind)
	}
	if e.Err != nil {
		all = append(all, e.Err)
	}
	return all
}

// fail wraps an error of the S3 client.
func (s *s3Store) fail(ctx context.Context, op, bucket, key string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Op: op, URL: URL{Bucket: bucket, Key: key}.String(), Endpoint: s.endpoint, Err: err}
	if cause := ctx.Err(); cause != nil {
		e.Err = cause
		return e
	}
	var r minio.ErrorResponse
	if !errors.As(err, &r) {
		// Neither an answer nor the caller's own end: a refused connection, a
		// broken one, a time-out, an answer cut short.
		e.Kind = ErrUnreachable
		var u *url.Error
		if errors.As(err, &u) {
			e.Err = u.Err // what was asked of whom is said already
		}
		s.explainConnection(e)
		return e
	}
	e.Code, e.Status = r.Code, r.StatusCode
	e.Kind = kindOf(r.Code, r.StatusCode)
	date, wait := heard(ctx)
	e.retryAfter = wait
	s.explainAnswer(e, r, date)
	return e
}

// kindOf sorts the codes of AWS, MinIO and versitygw into our sentinels.
func kindOf(code string, status int) error {
	switch code {
	case "NoSuchKey", "NoSuchVersion", "XMinioObjectNotFound":
		return ErrNotExist
	case "NoSuchBucket":
		return ErrNoSuchBucket
	case "XAdminUserNotFound": // versitygw, with status 404, for a key that nobody has
		return ErrDenied
	case "NoSuchUpload":
		return ErrNoSuchUpload
	case "PreconditionFailed", "ConditionalRequestConflict":
		return ErrPrecondition
	case "BucketAlreadyExists", "BucketAlreadyOwnedByYou":
		return ErrExists
	case "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
		"InvalidTokenId", "TokenRefreshRequired", "AllAccessDisabled", "AccountProblem", "RequestTimeTooSkewed",
		"AuthorizationHeaderMalformed", "InvalidRegion", "NotSignedUp",
		"PermanentRedirect", "TemporaryRedirect", "Redirect", "IllegalLocationConstraintException":
		return ErrDenied
	case "SlowDown", "SlowDownRead", "SlowDownWrite", "RequestTimeout", "Throttling", "InternalError",
		"ServiceUnavailable", "XMinioServerNotInitialized", "OperationAborted":
		return ErrUnreachable
	}
	switch {
	case status == http.StatusNotFound:
		return ErrNotExist
	case status == http.StatusPreconditionFailed:
		return ErrPrecondition
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status >= 300 && status < 400:
		return ErrDenied
	case status == http.StatusNotImplemented:
		return ErrInvalid
	case status == http.StatusRequestTimeout, status == http.StatusTooManyRequests, status >= 500:
		return ErrUnreachable
	}
	return ErrInvalid
}

// invalid is a request that is not even sent.
func invalid(op, bucket, key, reason string) error {
	return &Error{Op: op, URL: URL{Bucket: bucket, Key: key}.String(), Kind: ErrInvalid, Err: errors.New(reason)}
}

// checkNames refuses names that no store would take, before anything is sent.
func checkNames(op, bucket, key string) error {
	if reason := badBucket(bucket); reason != "" {
		return invalid(op, bucket, key, "the bucket name "+reason)
	}
	switch {
	case key == "":
		return invalid(op, bucket, key, "the key is empty")
	case len(key) > maxKey:
		return invalid(op, bucket, key, fmt.Sprintf("the key has %d bytes, more than %d", len(key), maxKey))
	case !utf8.ValidString(key):
		return invalid(op, bucket, key, "the key is not UTF-8")
	case strings.TrimSpace(key) == "":
		return invalid(op, bucket, key, "the key is white space alone") // S3 allows it, no client does
	}
	return nil
}

func checkBucket(op, bucket string) error {
	if reason := badBucket(bucket); reason != "" {
		return invalid(op, bucket, "", "the bucket name "+reason)
	}
	return nil
}

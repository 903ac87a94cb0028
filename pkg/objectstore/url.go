package objectstore

import (
	"fmt"
	"strings"
)

// URL is a place in an object store: s3://bucket/key. The key may be empty.
type URL struct{ Bucket, Key string }

func (u URL) String() string { return "s3://" + u.Bucket + "/" + u.Key }

// ParseURL reads s3://bucket/key (s3a:// and s3n:// mean the same). The key is
// taken as it stands: nothing is unescaped and nothing cleaned. Errors name
// the input.
func ParseURL(s string) (URL, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return URL{}, fmt.Errorf("%q is not an object store URL: want s3://BUCKET/KEY", s)
	}
	switch strings.ToLower(scheme) {
	case "s3", "s3a", "s3n":
	default:
		return URL{}, fmt.Errorf("%q is not an object store URL: its scheme is %s, want s3://BUCKET/KEY", s, scheme)
	}
	bucket, key, _ := strings.Cut(rest, "/")
	if bucket == "" {
		return URL{}, fmt.Errorf("%q names no bucket: want s3://BUCKET/KEY", s)
	}
	if reason := badBucket(bucket); reason != "" {
		return URL{}, fmt.Errorf("%q: bucket name %q %s", s, bucket, reason)
	}
	if len(key) > maxKey {
		return URL{}, fmt.Errorf("%q: the key has %d bytes, more than the %d an object store takes", s[:64]+"…", len(key), maxKey)
	}
	return URL{Bucket: bucket, Key: key}, nil
}

// maxKey is S3's limit on the bytes of a key.
const maxKey = 1024

// badNewBucket says why no bucket may be made under this name; "" = it may. Old buckets
// on AWS may have capitals and underscores, new ones may not.
func badNewBucket(b string) string {
	if strings.Contains(b, "_") || strings.ToLower(b) != b {
		return "must consist of lower-case letters, digits, dots and hyphens"
	}
	return badBucket(b)
}

// badBucket says what is wrong with a bucket's name, "" if nothing is. It is
// S3's rule, with the upper case and underscores that older buckets have.
func badBucket(b string) string {
	if len(b) < 3 || len(b) > 63 {
		return "must have 3 to 63 characters"
	}
	for i := range len(b) {
		c := b[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c >= 'A' && c <= 'Z':
		case (c == '-' || c == '.' || c == '_') && i > 0 && i < len(b)-1:
		case c == '-' || c == '.' || c == '_':
			return "must begin and end with a letter or digit"
		default:
			return fmt.Sprintf("must not contain %q", rune(c))
		}
	}
	if strings.Contains(b, "..") {
		return `must not contain ".."`
	}
	return ""
}

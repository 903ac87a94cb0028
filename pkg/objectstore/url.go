package objectstore

import (
	"fmt"
	"strings"
)

// URL is a place in an object store: s3://bucket/key. The key may be empty. A place in
// the block store of a cluster is one too: its bucket begins with hdfs://, and its key is
// the path without the first slash.
type URL struct{ Bucket, Key string }

func (u URL) String() string {
	if IsHDFS(u.Bucket) {
		return u.Bucket + "/" + u.Key
	}
	return "s3://" + u.Bucket + "/" + u.Key
}

// HDFS is the bucket of places in the own cluster's block store, and what those of
// others begin with: hdfs://NAME.
const HDFS = "hdfs://"

// IsHDFS says whether a bucket is a cluster's block store.
func IsHDFS(bucket string) bool { return strings.HasPrefix(bucket, HDFS) }

const (
	wantS3   = "want s3://BUCKET/KEY"
	wantHDFS = "want hdfs:///PATH, or hdfs://CLUSTER/PATH"
)

// ParseURL reads s3://bucket/key (s3a:// and s3n:// mean the same), hdfs:///path and
// hdfs://cluster/path. The key of an object is taken as it stands: nothing is unescaped
// and nothing cleaned; of a path, slashes in a row are one. Errors name the input.
func ParseURL(s string) (URL, error) {
	if scheme, rest, ok := strings.Cut(s, "://"); ok && strings.EqualFold(scheme, "hdfs") {
		return parseHDFS(s, rest)
	}
	return parseS3(s, wantS3+" or hdfs:///PATH")
}

// ParseS3 is ParseURL where a place in a block store will not do.
func ParseS3(s string) (URL, error) {
	if u, err := ParseURL(s); err == nil && IsHDFS(u.Bucket) {
		return URL{}, fmt.Errorf("%q is in a cluster's block store, and must be in an object store: %s", s, wantS3)
	}
	return parseS3(s, wantS3)
}

func parseS3(s, want string) (URL, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return URL{}, fmt.Errorf("%q is not an object store URL: %s", s, want)
	}
	switch strings.ToLower(scheme) {
	case "s3", "s3a", "s3n":
	default:
		return URL{}, fmt.Errorf("%q is not an object store URL: its scheme is %s, %s", s, scheme, want)
	}
	bucket, key, _ := strings.Cut(rest, "/")
	if bucket == "" {
		return URL{}, fmt.Errorf("%q names no bucket: %s", s, wantS3)
	}
	if reason := badBucket(bucket); reason != "" {
		return URL{}, fmt.Errorf("%q: bucket name %q %s", s, bucket, reason)
	}
	if len(key) > maxKey {
		return URL{}, fmt.Errorf("%q: the key has %d bytes, more than the %d an object store takes", s[:64]+"…", len(key), maxKey)
	}
	return URL{Bucket: bucket, Key: key}, nil
}

func parseHDFS(s, rest string) (URL, error) {
	cluster, path, slash := strings.Cut(rest, "/")
	if cluster == "" && !slash {
		return URL{}, fmt.Errorf("%q names no path: %s", s, wantHDFS)
	}
	if reason := badCluster(cluster); reason != "" {
		return URL{}, fmt.Errorf("%q: cluster name %q %s: %s", s, cluster, reason, wantHDFS)
	}
	if len(path) > maxPath {
		return URL{}, fmt.Errorf("%q: the path has %d bytes, more than %d", s[:64]+"…", len(path), maxPath)
	}
	var names []string
	for name := range strings.SplitSeq(path, "/") {
		switch name {
		case "":
			continue
		case ".", "..":
			return URL{}, fmt.Errorf("%q: a path cannot have %q in it", s, name)
		}
		names = append(names, name)
	}
	key := strings.Join(names, "/")
	if key != "" && strings.HasSuffix(path, "/") {
		key += "/" // all below it is meant, and no file of that name
	}
	return URL{Bucket: HDFS + cluster, Key: key}, nil
}

// maxPath is the block store's limit on the bytes of a path, without its first slash.
const maxPath = 4094

// badCluster says what is wrong with a cluster's name or id, "" if nothing is; none is the own one's.
func badCluster(name string) string {
	if len(name) > 63 {
		return "has more than 63 characters"
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c == '-', c == '_', c == '.':
		default:
			return fmt.Sprintf("must not contain %q", rune(c))
		}
	}
	return ""
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
	if IsHDFS(b) {
		return "is that of a cluster's block store, not of an object store"
	}
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

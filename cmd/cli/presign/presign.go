// Package presign makes URLs by which anybody can read one object for a while:
// AWS Signature Version 4 in the query string
// (docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html).
package presign

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"millrace/pkg/client"
)

// MaxTTL is the longest time S3 grants.
const MaxTTL = 7 * 24 * time.Hour

// Get returns a URL that reads an object until now+ttl (whole seconds, at most MaxTTL).
func Get(s client.S3, bucket, key string, now time.Time, ttl time.Duration) (string, error) {
	u, err := url.Parse(s.Endpoint)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("object store's URL %q: not of the form http://host:port", s.Endpoint)
	}
	if ttl < time.Second || ttl > MaxTTL {
		return "", fmt.Errorf("a URL can be good for 1s to 168h, not for %s", ttl)
	}
	region := s.Region
	if region == "" {
		region = "us-east-1"
	}
	stamp := now.UTC().Format("20060102T150405Z")
	scope := stamp[:8] + "/" + region + "/s3/aws4_request"
	// In the order of the names, as the signature wants them.
	query := "X-Amz-Algorithm=AWS4-HMAC-SHA256" +
		"&X-Amz-Credential=" + escape(s.AccessKey+"/"+scope, false) +
		"&X-Amz-Date=" + stamp +
		"&X-Amz-Expires=" + strconv.Itoa(int(ttl/time.Second))
	if s.SessionToken != "" {
		query += "&X-Amz-Security-Token=" + escape(s.SessionToken, false)
	}
	query += "&X-Amz-SignedHeaders=host"
	path := "/" + escape(bucket, false) + "/" + escape(key, true)
	request := strings.Join([]string{"GET", path, query, "host:" + u.Host + "\n", "host", "UNSIGNED-PAYLOAD"}, "\n")
	sum := sha256.Sum256([]byte(request))
	signing := []byte("AWS4" + s.SecretKey)
	for _, part := range []string{stamp[:8], region, "s3", "aws4_request"} {
		signing = mac(signing, part)
	}
	signature := mac(signing, strings.Join([]string{"AWS4-HMAC-SHA256", stamp, scope, hex.EncodeToString(sum[:])}, "\n"))
	return u.Scheme + "://" + u.Host + path + "?" + query + "&X-Amz-Signature=" + hex.EncodeToString(signature), nil
}

func mac(key []byte, data string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(data))
	return h.Sum(nil)
}

// escape encodes as the signature wants it: everything but A-Z a-z 0-9 - . _ ~, and "/" in paths.
func escape(s string, slashes bool) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == '~', c == '/' && slashes:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

package presign

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/client"
)

var day = time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)

// What AWS's documentation computes for its example, in the path style that Millrace uses: only
// host and path differ, so the signature was computed independently (Python, hmac).
func TestGet(t *testing.T) {
	s := client.S3{Endpoint: "https://s3.amazonaws.com", AccessKey: "AKIAIOSFODNN7EXAMPLE", SecretKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
	got, err := Get(s, "examplebucket", "test.txt", day, 24*time.Hour)
	require.NoError(t, err)
	require.Equal(t, "https://s3.amazonaws.com/examplebucket/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=733255ef022bec3f2a8701cd61d4b371f3f28c9f193a1f02279211d48d5193d7", got)
}

func TestKeysAreEscaped(t *testing.T) {
	got, err := Get(client.S3{Endpoint: "http://h:9000", SessionToken: "a+b/c="}, "b", "dir/a b+ü.txt", day, time.Hour)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(got, "http://h:9000/b/dir/a%20b%2B%C3%BC.txt?"), got)
	require.Contains(t, got, "X-Amz-Security-Token=a%2Bb%2Fc%3D&X-Amz-SignedHeaders")
}

func TestRefuses(t *testing.T) {
	for _, ttl := range []time.Duration{0, 8 * 24 * time.Hour} {
		_, err := Get(client.S3{Endpoint: "http://h"}, "b", "k", day, ttl)
		require.Error(t, err)
	}
	_, err := Get(client.S3{Endpoint: "nonsense"}, "b", "k", day, time.Hour)
	require.Error(t, err)
}

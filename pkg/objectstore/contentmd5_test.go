package objectstore_test

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
)

// locking is a store that wants the MD5 of what goes into a bucket named locked, as AWS does of one with
// object lock. It notes what each request had of it.
func locking(t *testing.T, code, message string) (objectstore.Store, func() []string) {
	var mu sync.Mutex
	var seen []string
	s, _ := answering(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // a client that has gone finds out by itself
		mu.Lock()
		defer mu.Unlock()
		sum := r.Header.Get("Content-Md5")
		seen = append(seen, sum)
		if sum == "" && strings.HasPrefix(r.URL.Path, "/locked/") {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message></Error>", code, message)
			return
		}
		w.Header().Set("ETag", `"e"`)
	})
	return s, func() []string {
		mu.Lock()
		defer mu.Unlock()
		now := seen
		seen = nil
		return now
	}
}

func digest(data string) string {
	sum := md5.Sum([]byte(data))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// A bucket with object lock gets the MD5 that it asks for, and is asked once only.
func TestABucketWithObjectLockGetsTheMD5(t *testing.T) {
	for code, message := range map[string]string{
		"InvalidRequest":    "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Part requests with Object Lock parameters",
		"MissingContentMD5": "Missing required header for this request: Content-Md5.",
	} {
		s, seen := locking(t, code, message)
		ctx := t.Context()
		_, err := s.UploadPart(ctx, "open", "k", "id", 1, []byte("data"))
		require.NoError(t, err)
		require.Equal(t, []string{""}, seen(), "nothing is spent where nobody asks")

		_, err = s.UploadPart(ctx, "locked", "k", "id", 1, []byte("data"))
		require.NoError(t, err)
		require.Equal(t, []string{"", digest("data")}, seen())
		_, err = s.UploadPart(ctx, "locked", "k", "id", 2, []byte("more"))
		require.NoError(t, err)
		_, err = s.Put(ctx, "locked", "k", strings.NewReader(""), 0, objectstore.PutOptions{})
		require.NoError(t, err)
		require.Equal(t, []string{digest("more"), digest("")}, seen())
	}
}

// A body too long for memory is read again, if it can be.
func TestALongBodyForABucketWithObjectLock(t *testing.T) {
	const message = "Content-MD5 HTTP header is required for Put Object requests with Object Lock parameters"
	s, seen := locking(t, "InvalidRequest", message)
	data := bytes.Repeat([]byte("0123456789abcdef"), 17<<16)
	_, err := s.Put(t.Context(), "locked", "k", bytes.NewReader(data), int64(len(data)), objectstore.PutOptions{})
	require.NoError(t, err)
	require.Equal(t, []string{"", digest(string(data))}, seen())

	_, err = s.Put(t.Context(), "locked", "k", io.MultiReader(bytes.NewReader(data)), int64(len(data)), objectstore.PutOptions{})
	require.ErrorIs(t, err, objectstore.ErrInvalid)
	require.ErrorContains(t, err, message)
}

// Other refusals stay what they are.
func TestAWrongMD5IsNotSentAgain(t *testing.T) {
	s, seen := locking(t, "BadDigest", "The Content-MD5 you specified did not match what we received.")
	_, err := s.UploadPart(t.Context(), "locked", "k", "id", 1, []byte("data"))
	require.ErrorIs(t, err, objectstore.ErrInvalid)
	require.Equal(t, []string{""}, seen())
}

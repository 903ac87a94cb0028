package objectstoretest

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
)

// presigned: whoever has the URL reads the object, without a key.
func presigned(t *testing.T, s objectstore.Store, bucket string) {
	signer, ok := s.(objectstore.Presigner)
	if !ok {
		t.Skipf("%T makes no presigned URLs", s)
	}
	const key = "dir/a b+&ü.txt"
	_, err := s.Put(t.Context(), bucket, key, strings.NewReader("shared"), 6, objectstore.PutOptions{})
	require.NoError(t, err)
	url, err := signer.PresignGet(t.Context(), bucket, key, time.Hour)
	require.NoError(t, err)
	answer, err := http.Get(url)
	require.NoError(t, err)
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, answer.StatusCode, string(data))
	require.Equal(t, "shared", string(data))

	for _, ttl := range []time.Duration{0, objectstore.MaxPresign + time.Second} {
		_, err := signer.PresignGet(t.Context(), bucket, key, ttl)
		require.Error(t, err)
	}
}

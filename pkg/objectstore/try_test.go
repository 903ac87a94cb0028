package objectstore_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/fakes3"
)

// A store is tried by what has a body: one that knows the key by a 404 alone would pass for one without the bucket.
func TestAStoreIsTried(t *testing.T) {
	var answer *fakes3.Refusal
	memory := objectstore.NewMemory()
	url := fakes3.Start(t, &fakes3.Server{Store: memory, Answer: func(*http.Request) *fakes3.Refusal { return answer }})
	store, err := objectstore.NewS3(objectstore.Config{Endpoint: url, AccessKey: "KEYID", SecretKey: "secret", Retry: objectstore.Retry{Patience: -1}})
	require.NoError(t, err)
	try := func() error { return objectstore.Try(t.Context(), store, "bucket", "prefix/") }

	require.NoError(t, try(), "no bucket")
	require.NoError(t, memory.MakeBucket(t.Context(), "bucket"))
	require.NoError(t, try())
	answer = &fakes3.Refusal{Status: 404, Code: "XAdminUserNotFound", Message: "no such user"}
	require.ErrorIs(t, try(), objectstore.ErrDenied)
	require.ErrorContains(t, try(), "does not know the access key KEYID")
	there, err := store.BucketExists(t.Context(), "bucket")
	require.NoError(t, err, "what a HEAD makes of it")
	require.False(t, there)
	answer = &fakes3.Refusal{Status: 503, Code: "SlowDown", Message: "later"}
	require.ErrorIs(t, try(), objectstore.ErrUnreachable)
}

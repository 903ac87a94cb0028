package objectstore_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/embeddedstore/embeddedstoretest"
	"millrace/pkg/objectstore"
)

// answering is a store that gives one answer to everything.
func answering(t *testing.T, h http.HandlerFunc) (objectstore.Store, *atomic.Int64) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		h(w, r)
	}))
	t.Cleanup(server.Close)
	return s3(objectstore.Config{Endpoint: server.URL, AccessKey: "key", SecretKey: "secret"})(t), &asked
}

func TestErrorsHaveKinds(t *testing.T) {
	for _, c := range []struct {
		code   string
		status int
		kind   error
	}{
		{"NoSuchKey", 404, objectstore.ErrNotExist},
		{"NoSuchBucket", 404, objectstore.ErrNoSuchBucket},
		{"NoSuchUpload", 404, objectstore.ErrNoSuchUpload},
		{"PreconditionFailed", 412, objectstore.ErrPrecondition},
		{"AccessDenied", 403, objectstore.ErrDenied},
		{"InvalidAccessKeyId", 403, objectstore.ErrDenied},
		{"SignatureDoesNotMatch", 403, objectstore.ErrDenied},
		{"ExpiredToken", 400, objectstore.ErrDenied},
		{"BucketAlreadyOwnedByYou", 409, objectstore.ErrExists},
		{"InvalidRange", 416, objectstore.ErrInvalid},
		{"SomethingElse", 400, objectstore.ErrInvalid},
		{"NotImplemented", 501, objectstore.ErrInvalid},
	} {
		s, asked := answering(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(c.status)
			fmt.Fprintf(w, "<Error><Code>%s</Code><Message>what the store says</Message></Error>", c.code)
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := s.Get(ctx, "bucket", "dir/key", 0, -1, "")
		require.ErrorIs(t, err, c.kind, c.code)
		require.ErrorContains(t, err, "what the store says")
		require.ErrorContains(t, err, "s3://bucket/dir/key")
		var e *objectstore.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, c.code, e.Code)
		require.EqualValues(t, 1, asked.Load(), "%s is not asked twice", c.code)
		for _, other := range []error{objectstore.ErrNotExist, objectstore.ErrNoSuchBucket, objectstore.ErrNoSuchUpload, objectstore.ErrPrecondition,
			objectstore.ErrDenied, objectstore.ErrUnreachable, objectstore.ErrInvalid, objectstore.ErrExists} {
			require.Equal(t, other == c.kind, errors.Is(err, other), "%s is %v", c.code, other)
		}
	}
}

func TestNoAnswer(t *testing.T) {
	s := s3(objectstore.Config{Endpoint: "http://127.0.0.1:1", AccessKey: "key", SecretKey: "secret"})(t)
	_, err := s.Head(t.Context(), "bucket", "key")
	require.ErrorIs(t, err, objectstore.ErrUnreachable)
	require.ErrorContains(t, err, "127.0.0.1:1")
}

func TestAStoreThatIsBusyIsAskedAgain(t *testing.T) {
	n := 0
	s, _ := answering(t, func(w http.ResponseWriter, r *http.Request) {
		if n++; n < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		data, _ := io.ReadAll(r.Body)
		w.Header().Set("ETag", `"`+string(data)+`"`)
	})
	o, err := s.Put(t.Context(), "bucket", "key", io.MultiReader(strings.NewReader("all of it")), 9, objectstore.PutOptions{})
	require.NoError(t, err)
	require.Equal(t, "all of it", o.ETag, "the body is sent anew")
}

// A new upload that nobody waits for any more, but that the store makes all the same, is not left there.
func TestAnUploadThatIsMadeTooLate(t *testing.T) {
	made, goOn, aborted := make(chan struct{}), make(chan struct{}), make(chan string, 1)
	s, _ := answering(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPost:
			close(made)
			<-goOn
			_, _ = io.WriteString(w, `<InitiateMultipartUploadResult><UploadId>late</UploadId></InitiateMultipartUploadResult>`)
		case http.MethodDelete:
			aborted <- r.URL.Query().Get("uploadId")
			w.WriteHeader(http.StatusNoContent)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := s.CreateUpload(ctx, "bucket", "key", nil)
		ended <- err
	}()
	<-made
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled, "before the store has answered")
	close(goOn)
	require.Equal(t, "late", <-aborted)

	_, err := s.CreateUpload(ctx, "bucket", "key", nil) // would close made again
	require.ErrorIs(t, err, context.Canceled, "nothing is asked for that nobody waits for")
}

func TestBodyCutShort(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"e"`)
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Length", "10")
		_, _ = w.Write([]byte("only so"))
	}))
	defer server.Close()
	s := s3(objectstore.Config{Endpoint: server.URL, Retry: objectstore.Retry{Patience: -1}})(t)
	rc, err := s.Get(t.Context(), "bucket", "key", 0, -1, "")
	require.NoError(t, err)
	data, err := io.ReadAll(rc)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.ErrorIs(t, err, objectstore.ErrUnreachable)
	require.Equal(t, "only so", string(data))
	require.NoError(t, rc.Close())
}

func TestRangeThatIsIgnored(t *testing.T) {
	s, _ := answering(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"e"`)
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		_, _ = w.Write([]byte("everything from the start"))
	})
	_, err := s.Get(t.Context(), "bucket", "key", 5, 3, "")
	require.ErrorContains(t, err, "bytes=5-7")
}

// Bodies are signed over plain HTTP, and plain in TLS; a chunked signature, slow on both sides, is never used.
func TestHowBodiesAreSigned(t *testing.T) {
	var sha string
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sha = r.Header.Get("X-Amz-Content-Sha256")
		require.Equal(t, 1, r.ProtoMajor)
		w.Header().Set("ETag", `"e"`)
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer secure.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}))
	for endpoint, want := range map[string]string{
		plain.URL:  "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
		secure.URL: "UNSIGNED-PAYLOAD",
	} {
		s := s3(objectstore.Config{Endpoint: endpoint, AccessKey: "key", SecretKey: "secret", CAPEM: ca})(t)
		_, err := s.Put(t.Context(), "bucket", "key", strings.NewReader("a"), 1, objectstore.PutOptions{})
		require.NoError(t, err)
		require.Equal(t, want, sha)
		_, err = s.UploadPart(t.Context(), "bucket", "key", "id", 1, []byte("a"))
		require.NoError(t, err)
		require.Equal(t, want, sha)
	}
	s := s3(objectstore.Config{Endpoint: secure.URL, AccessKey: "key", SecretKey: "secret"})(t)
	_, err := s.Head(t.Context(), "bucket", "key")
	require.ErrorIs(t, err, objectstore.ErrUnreachable, "a stranger's certificate")
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []struct {
		config objectstore.Config
		want   string
	}{
		{objectstore.Config{}, "no object store endpoint"},
		{objectstore.Config{Endpoint: "minio:9000"}, `"minio:9000"`},
		{objectstore.Config{Endpoint: "ftp://minio"}, `"ftp://minio"`},
		{objectstore.Config{Endpoint: "http://minio/path"}, "without user, path"},
		{objectstore.Config{Endpoint: "http://minio", AccessKey: "a"}, "one is missing"},
		{objectstore.Config{Endpoint: "http://minio", CAPEM: "nonsense"}, "not PEM"},
	} {
		_, err := objectstore.NewS3(c.config)
		require.ErrorContains(t, err, c.want)
	}
}

func TestWrongKeyIsDenied(t *testing.T) {
	c := embeddedstoretest.Start(t, "")
	c.SecretKey = "another secret key"
	_, err := s3(c)(t).ListBuckets(t.Context())
	require.ErrorIs(t, err, objectstore.ErrDenied)
	c.AccessKey, c.SecretKey = "", ""
	_, err = s3(c)(t).ListBuckets(t.Context())
	require.ErrorIs(t, err, objectstore.ErrDenied, "unsigned requests, too")
}

func BenchmarkEmbedded(b *testing.B) {
	s, err := objectstore.NewS3(embeddedstoretest.Start(b, ""))
	require.NoError(b, err)
	ctx := context.Background()
	require.NoError(b, s.MakeBucket(ctx, "bench"))
	_, err = s.Put(ctx, "bench", "small", strings.NewReader("x"), 1, objectstore.PutOptions{})
	require.NoError(b, err)
	part := make([]byte, 8<<20)
	b.Run("head", func(b *testing.B) {
		for b.Loop() {
			_, err := s.Head(ctx, "bench", "small")
			require.NoError(b, err)
		}
	})
	b.Run("put", func(b *testing.B) {
		for b.Loop() {
			_, err := s.Put(ctx, "bench", "p", strings.NewReader("x"), 1, objectstore.PutOptions{})
			require.NoError(b, err)
		}
	})
	b.Run("part", func(b *testing.B) {
		id, err := s.CreateUpload(ctx, "bench", "u", nil)
		require.NoError(b, err)
		b.SetBytes(int64(len(part)))
		for b.Loop() {
			_, err := s.UploadPart(ctx, "bench", "u", id, 1, part)
			require.NoError(b, err)
		}
	})
	b.Run("get", func(b *testing.B) {
		_, err := s.Put(ctx, "bench", "big", strings.NewReader(string(part)), int64(len(part)), objectstore.PutOptions{})
		require.NoError(b, err)
		b.SetBytes(int64(len(part)))
		for b.Loop() {
			rc, err := s.Get(ctx, "bench", "big", 0, int64(len(part)), "")
			require.NoError(b, err)
			_, err = io.ReadFull(rc, part)
			require.NoError(b, err)
			require.NoError(b, rc.Close())
		}
	})
	b.Run("small upload", func(b *testing.B) {
		for b.Loop() {
			id, err := s.CreateUpload(ctx, "bench", "s", nil)
			require.NoError(b, err)
			p, err := s.UploadPart(ctx, "bench", "s", id, 1, []byte("x"))
			require.NoError(b, err)
			_, err = s.CompleteUpload(ctx, "bench", "s", id, []objectstore.Part{p})
			require.NoError(b, err)
		}
	})
}

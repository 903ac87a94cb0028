package fakes3_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/fakes3"
	"millrace/pkg/objectstore/objectstoretest"
)

func open(t *testing.T, s *fakes3.Server) objectstore.Store {
	t.Helper()
	store, err := objectstore.NewS3(objectstore.Config{Endpoint: fakes3.Start(t, s), AccessKey: "key", SecretKey: "secret"})
	require.NoError(t, err)
	return store
}

// The whole way: our client, minio-go, HTTP, the fake, Memory.
func TestConformance(t *testing.T) {
	objectstoretest.Run(t, func(t *testing.T) objectstore.Store {
		return open(t, &fakes3.Server{Store: objectstore.NewMemory()})
	})
}

func TestEveryKeyOverTheWire(t *testing.T) {
	objectstoretest.RunStrangeKeys(t, open(t, &fakes3.Server{Store: objectstore.NewMemory()}))
}

func TestSynthetic(t *testing.T) {
	below := objectstore.NewMemory()
	require.NoError(t, below.MakeBucket(t.Context(), "many"))
	s := open(t, &fakes3.Server{Store: &fakes3.Synthetic{
		Store: below, Bucket: "many", Count: 2500, Size: 1000,
		Key: func(i int) string { return fmt.Sprintf("in/%02d/%06d", i/1000, i) },
	}})
	n := 0
	for o, err := range s.List(t.Context(), "many", "in/", objectstore.ListOptions{}) {
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("in/%02d/%06d", n/1000, n), o.Key)
		n++
	}
	require.Equal(t, 2500, n)
	var groups []string
	for o, err := range s.List(t.Context(), "many", "in/", objectstore.ListOptions{Delimiter: true}) {
		require.NoError(t, err)
		require.True(t, o.Prefix)
		groups = append(groups, o.Key)
	}
	require.Equal(t, []string{"in/00/", "in/01/", "in/02/"}, groups)

	body, err := s.Get(t.Context(), "many", "in/01/001000", 24, 32, "")
	require.NoError(t, err)
	data, err := io.ReadAll(body)
	require.NoError(t, err)
	require.NoError(t, body.Close())
	require.Equal(t, "0000001\n000000000000002\n00000000", string(data))
}

// A hundred thousand names are listed in many ranges at once, each name once, and with not
// much more than a request per page. (A million of them take ten times as long.)
func TestManyNamesAreListedAtOnce(t *testing.T) {
	const count = 100_000
	below := objectstore.NewMemory()
	require.NoError(t, below.MakeBucket(t.Context(), "many"))
	var now, most atomic.Int64
	fake := &fakes3.Server{Store: &fakes3.Synthetic{
		Store: below, Bucket: "many", Count: count, Size: 1000,
		Key: func(i int) string { return fmt.Sprintf("in/%03d/%07d", i/1000, i) },
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		fake.ServeHTTP(w, r)
	}))
	defer server.Close()
	s, err := objectstore.NewS3(objectstore.Config{Endpoint: server.URL})
	require.NoError(t, err)
	keys, err := objectstore.ListAll(t.Context(), s, "many", "in/", func(o objectstore.Object) (string, bool) { return o.Key, true })
	require.NoError(t, err)
	require.Len(t, keys, count)
	for i, key := range keys {
		require.Equal(t, fmt.Sprintf("in/%03d/%07d", i/1000, i), key)
	}
	require.Greater(t, most.Load(), int64(2))
	require.Less(t, fake.Requests(), int64(4*count/1000))
}

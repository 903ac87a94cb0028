package embeddedstore_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/embeddedstore"
	"millrace/pkg/embeddedstore/embeddedstoretest"
	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/objectstoretest"
)

func TestMain(m *testing.M) { embeddedstoretest.Main(m) }

func TestConfigIsChecked(t *testing.T) {
	good := embeddedstore.Config{Dir: "d", Listen: "127.0.0.1:9000", AccessKey: "abc", SecretKey: "12345678"}
	for name, c := range map[string]struct {
		change func(*embeddedstore.Config)
		want   string
	}{
		"no directory":    {func(c *embeddedstore.Config) { c.Dir = "" }, "no directory"},
		"short secret":    {func(c *embeddedstore.Config) { c.SecretKey = "short" }, "secret key"},
		"no port":         {func(c *embeddedstore.Config) { c.Listen = "127.0.0.1" }, "HOST:PORT"},
		"port 0":          {func(c *embeddedstore.Config) { c.Listen = "127.0.0.1:0" }, "from 1 to 65535"},
		"every interface": {func(c *embeddedstore.Config) { c.Listen = ":9000" }, "loopback only"},
		"another machine": {func(c *embeddedstore.Config) { c.Listen = "10.0.0.1:9000" }, "loopback only"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := good
			c.change(&bad)
			require.ErrorContains(t, embeddedstore.Run(context.Background(), bad), c.want)
		})
	}
}

func TestReadyGivesUpWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	err := embeddedstore.Ready(ctx, "http://127.0.0.1:1")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "http://127.0.0.1:1")
}

// A store that was begun without extended attributes goes on without them.
func TestMetadataBesideTheObjects(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "metadata"), 0o700))
	c := embeddedstoretest.Start(t, dir)
	newStore := func(t *testing.T) objectstore.Store {
		s, err := objectstore.NewS3(c)
		require.NoError(t, err)
		return s
	}
	objectstoretest.Run(t, newStore)

	s := newStore(t)
	bucket := objectstoretest.Bucket(t, s)
	_, err := s.Put(t.Context(), bucket, "o", strings.NewReader("x"), 1, objectstore.PutOptions{})
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(dir, "objects", bucket, "o"))
	require.DirExists(t, filepath.Join(dir, "metadata", bucket, "o"))
}

package objectstore_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/embeddedstore/embeddedstoretest"
	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/objectstoretest"
)

func TestMain(m *testing.M) { embeddedstoretest.Main(m) }

func TestMemory(t *testing.T) {
	objectstoretest.Run(t, func(*testing.T) objectstore.Store { return objectstore.NewMemory() })
}

func s3(c objectstore.Config) func(t *testing.T) objectstore.Store {
	return func(t *testing.T) objectstore.Store {
		s, err := objectstore.NewS3(c)
		require.NoError(t, err)
		return s
	}
}

func TestEmbeddedGateway(t *testing.T) {
	objectstoretest.Run(t, s3(embeddedstoretest.Start(t, "")))
}

// A real store, such as MinIO: MILLRACE_TEST_S3=http://host:port with the usual AWS keys.
func TestRealStore(t *testing.T) {
	endpoint := os.Getenv("MILLRACE_TEST_S3")
	if endpoint == "" {
		t.Skip("MILLRACE_TEST_S3 names no store to test against")
	}
	objectstoretest.Run(t, s3(objectstore.Config{
		Endpoint: endpoint, Region: os.Getenv("AWS_REGION"),
		AccessKey: os.Getenv("AWS_ACCESS_KEY_ID"), SecretKey: os.Getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: os.Getenv("AWS_SESSION_TOKEN"),
	}))
}

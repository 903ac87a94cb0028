//go:build cluster

package clustertest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/objectstore"
	"millrace/pkg/objectstore/objectstoretest"
)

// TestMinIOConforms: what is asked of every object store, asked of a real MinIO.
func TestMinIOConforms(t *testing.T) {
	m := startMinIO(t)
	objectstoretest.Run(t, func(t *testing.T) objectstore.Store {
		s, err := objectstore.NewS3(objectstore.Config{Endpoint: m.endpoint, AccessKey: m.key, SecretKey: m.secret})
		require.NoError(t, err)
		return s
	})
}

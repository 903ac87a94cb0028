package cli

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"millrace/pkg/client"
)

// A Go program under --local gets its storage from one source: nothing of what the environment says of another stays.
func TestStorageVariablesOfTheEnvironmentAreKnown(t *testing.T) {
	vars, err := storageEnv(client.S3{Endpoint: "https://x", AccessKey: "a", SecretKey: "b", SessionToken: "c", CABundle: "PEM"},
		func() (string, error) { return t.TempDir(), nil })
	require.NoError(t, err)
	for _, v := range vars {
		if name := v[0]; name[:4] == "AWS_" {
			require.True(t, isStorageVariable(name+"=x"), name)
		}
		if v[0] == "AWS_CA_BUNDLE" {
			require.FileExists(t, v[1])
			require.Equal(t, ".pem", filepath.Ext(v[1]))
		}
	}
	require.True(t, isStorageVariable("AWS_PROFILE=x"))
	require.False(t, isStorageVariable("AWS_PAGER=x"))
	require.False(t, isStorageVariable("PATH=AWS_PROFILE"))
}

package client

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

type handler = http.Handler

// muxOf serves each connect service under its name.
func muxOf(services map[string]handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		if h := services[name]; h != nil {
			h.ServeHTTP(w, r)
			return
		}
		http.NotFound(w, r)
	})
}

func TestContexts(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	_, err := LoadContext(home, "")
	require.ErrorIs(t, err, ErrNoContext)
	_, err = LoadContext(home, "dev")
	require.ErrorIs(t, err, ErrNoContext)
	names, err := ListContexts(home)
	require.NoError(t, err)
	require.Empty(t, names)

	dev := &Context{Name: "dev", Servers: []string{"https://h:1"}, CA: "ca", Certificate: "cert", Key: "key", Cluster: "c",
		S3: &S3{Endpoint: "http://s3", Region: "r", AccessKey: "a", SecretKey: "s", SessionToken: "t", CABundle: "b"}}
	require.NoError(t, SaveContext(home, dev))
	require.NoError(t, SaveContext(home, &Context{Name: "work"}))
	got, err := LoadContext(home, "dev")
	require.NoError(t, err)
	require.Equal(t, dev, got)
	info, err := os.Stat(filepath.Join(home, "contexts", "dev.json"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	raw, err := os.ReadFile(filepath.Join(home, "contexts", "dev.json"))
	require.NoError(t, err)
	require.Contains(t, string(raw), `"secretKey"`)

	require.ErrorIs(t, UseContext(home, "none"), ErrNoContext)
	require.NoError(t, UseContext(home, "dev"))
	got, err = LoadContext(home, "")
	require.NoError(t, err)
	require.Equal(t, "dev", got.Name)
	names, err = ListContexts(home)
	require.NoError(t, err)
	require.Equal(t, []string{"dev", "work"}, names)

	require.NoError(t, RemoveContext(home, "dev"))
	require.ErrorIs(t, RemoveContext(home, "dev"), ErrNoContext)
	_, err = CurrentContext(home)
	require.ErrorIs(t, err, ErrNoContext, "what was removed is not current")
	entries, err := os.ReadDir(filepath.Join(home, "contexts"))
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing is left behind")
}

func TestContextNames(t *testing.T) {
	for _, name := range []string{"..", "a/b", ".hidden", "a b", strings.Repeat("x", 65)} {
		require.Error(t, SaveContext(t.TempDir(), &Context{Name: name}), name)
		_, err := LoadContext(t.TempDir(), name)
		require.Error(t, err, name)
		require.NotErrorIs(t, err, ErrNoContext, name)
	}
}

func TestADamagedContextSaysWhere(t *testing.T) {
	home := t.TempDir()
	require.NoError(t, SaveContext(home, &Context{Name: "dev"}))
	path := filepath.Join(home, "contexts", "dev.json")
	require.NoError(t, os.WriteFile(path, []byte("{"), 0o600))
	_, err := LoadContext(home, "dev")
	require.ErrorContains(t, err, path)
}

package server

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
	"millrace/pkg/security"
)

// withBinaries has this master hand out a program of its own, and one for another kind of machine.
func (w *world) withBinaries() {
	w.t.Helper()
	dir := w.t.TempDir()
	own := filepath.Join(dir, "own")
	require.NoError(w.t, os.WriteFile(own, []byte("this one"), 0o755))
	require.NoError(w.t, os.Mkdir(filepath.Join(dir, "binaries"), 0o755))
	require.NoError(w.t, os.WriteFile(filepath.Join(dir, "binaries", "linux-riscv64"), []byte("another"), 0o755))
	require.NoError(w.t, os.WriteFile(filepath.Join(dir, "binaries", "README"), nil, 0o644))
	w.server.binaries = newBinaries(own, filepath.Join(dir, "binaries"), "v1.2.3")
}

// bearer is what a machine shows of a token.
func bearer(t *testing.T, token string) string {
	parsed, err := security.ParseToken(token)
	require.NoError(t, err)
	return "Bearer " + hex.EncodeToString(parsed.SecretHash())
}

// fetch asks for a binary and says how that ended.
func (w *world) fetch(method, name, authorization string) (int, string) {
	w.t.Helper()
	req, err := http.NewRequest(method, w.http.URL+BinariesPath+name, nil)
	require.NoError(w.t, err)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := w.stranger().Do(req)
	require.NoError(w.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(w.t, err)
	return resp.StatusCode, string(body)
}

func TestABinaryForWhoHoldsAToken(t *testing.T) {
	w := newWorld(t)
	w.withBinaries()
	this := "linux-" + runtime.GOARCH
	token := w.token(&api.CreateJoinTokenRequest{Role: "task", Uses: 1, TtlMs: time.Hour.Milliseconds()})
	good := bearer(t, token.Token)
	used := w.token(&api.CreateJoinTokenRequest{Role: "task", Uses: 1})
	_, err := w.join(machine(t, workerID), used.Token)
	require.NoError(t, err)
	for _, test := range []struct {
		what, method, name, authorization string
		status                            int
		body                              string
	}{
		{"this master's own", "GET", this, good, 200, "this one"},
		{"one from the folder", "GET", "linux-riscv64", good, 200, "another"},
		{"its size only", "HEAD", this, good, 200, ""},
		{"without a token", "GET", this, "", 401, "a join token that is still good"},
		{"with the token itself", "GET", this, "Bearer " + token.Token, 401, ""},
		{"with another hash", "GET", this, "Bearer " + strings.Repeat("0", 64), 401, ""},
		{"with half a hash", "GET", this, good[:39], 401, ""},
		{"with a token that is used up", "GET", this, bearer(t, used.Token), 401, ""},
		{"another way", "POST", this, good, 405, ""},
		{"that is not there", "GET", "linux-mips", good, 404, "linux-mips"},
		{"that is no binary", "GET", "README", good, 404, "like linux-amd64"},
		{"from elsewhere", "GET", "..%2f..%2fetc%2fpasswd", good, 404, "like linux-amd64"},
	} {
		status, body := w.fetch(test.method, test.name, test.authorization)
		require.Equal(t, test.status, status, test.what)
		require.Contains(t, body, test.body, test.what)
	}

	w.server.Lead(nil) // whoever is asked has it
	status, body := w.fetch("GET", this, good)
	require.Equal(t, 200, status, body)
	w.later(2 * time.Hour)
	status, _ = w.fetch("GET", this, good)
	require.Equal(t, 401, status, "it has expired")
}

func TestTheListOfBinaries(t *testing.T) {
	w := newWorld(t)
	w.withBinaries()
	for range 2 { // the second time from memory
		resp, err := w.user(Admin).ListBinaries(t.Context(), connect.NewRequest(&api.ListBinariesRequest{}))
		require.NoError(t, err)
		require.Equal(t, w.ca.CertPEM(), resp.Msg.CaPem)
		require.Len(t, resp.Msg.Binaries, 2)
		sum := func(text string) string {
			s := sha256.Sum256([]byte(text))
			return hex.EncodeToString(s[:])
		}
		require.Equal(t, []any{"linux", runtime.GOARCH, sum("this one"), int64(8), "v1.2.3"}, fieldsOf(resp.Msg.Binaries[0]))
		require.Equal(t, []any{"linux", "riscv64", sum("another"), int64(7), ""}, fieldsOf(resp.Msg.Binaries[1]))
	}
}

func fieldsOf(b *api.Binary) []any { return []any{b.Os, b.Arch, b.Sha256, b.Size, b.Version} }

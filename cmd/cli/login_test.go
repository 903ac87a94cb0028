package cli

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
	"millrace/pkg/client"
	"millrace/pkg/security"
)

// loginMaster is a master that logs people in, and says what the site trusts.
type loginMaster struct {
	apiconnect.UnimplementedJoinServiceHandler
	apiconnect.UnimplementedMillraceServiceHandler
	ca      *security.CA
	trusts  string // TrustHeader
	renewed int
}

func (m *loginMaster) sign(csr []byte) *api.LoginResponse {
	cert, _, err := m.ca.Sign(csr, security.Identity{Site: "site", Role: security.RoleUser, ID: "bob"}, nil, time.Now(), security.CertLifetime)
	if err != nil {
		panic(err)
	}
	return &api.LoginResponse{CertificatePem: cert, CaPem: m.ca.CertPEM(), Site: "site", User: "bob", Role: "submit",
		Masters: []string{"https://10.0.0.2:7400"}, Store: &api.ObjectStore{Endpoint: "http://minio:9000"}}
}

func (m *loginMaster) Login(_ context.Context, r *connect.Request[api.LoginRequest]) (*connect.Response[api.LoginResponse], error) {
	return connect.NewResponse(m.sign(r.Msg.CsrDer)), nil
}

func (m *loginMaster) RenewLogin(_ context.Context, r *connect.Request[api.RenewLoginRequest]) (*connect.Response[api.LoginResponse], error) {
	m.renewed++
	return connect.NewResponse(m.sign(r.Msg.CsrDer)), nil
}

func (m *loginMaster) ListUsers(context.Context, *connect.Request[api.ListUsersRequest]) (*connect.Response[api.ListUsersResponse], error) {
	return connect.NewResponse(&api.ListUsersResponse{Users: []*api.User{{Name: "bob", Role: "submit"}}}), nil
}

func (m *loginMaster) serve(t *testing.T) (url string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(apiconnect.NewJoinServiceHandler(m))
	mux.Handle(apiconnect.NewMillraceServiceHandler(m))
	key, csr, err := security.NewKey()
	require.NoError(t, err)
	cert, _, err := m.ca.Sign(csr, security.Identity{Site: "site", Role: security.RoleMaster, ID: "i-0123456789abcdef0"}, nil, time.Now(), time.Hour)
	require.NoError(t, err)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
			w.Header().Set(client.TrustHeader, m.trusts)
		}
		mux.ServeHTTP(w, r)
	}))
	srv.TLS, err = security.Credential{CertPEM: cert, KeyPEM: key, CAPEM: m.ca.CertPEM()}.ServerTLS(false)
	require.NoError(t, err)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return srv.URL
}

func newLoginMaster(t *testing.T) (m *loginMaster, code string) {
	t.Helper()
	ca, err := security.NewCA("site")
	require.NoError(t, err)
	c, err := security.CodeOf(ca.CertPEM(), [32]byte{1})
	require.NoError(t, err)
	return &loginMaster{ca: ca, trusts: security.TrustID(ca.CertPEM())}, c.String()
}

func TestLoginMakesAContext(t *testing.T) {
	m, code := newLoginMaster(t)
	s, url := newSession(t), m.serve(t)
	s.in = code + "\n"
	o := s.run("login", url, "-")
	require.Zero(t, o.code, o.err)
	require.Equal(t, "logged in as bob, role submit; context 127.0.0.1, now the current one\n", o.out)
	require.Contains(t, o.err, "millrace context set --s3 http://minio:9000")
	home := filepath.Join(s.home, ".millrace")
	path := filepath.Join(home, "contexts", "127.0.0.1.json")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	ctx, err := client.LoadContext(home, "")
	require.NoError(t, err)
	require.Equal(t, []string{url, "https://10.0.0.2:7400"}, ctx.Servers)
	require.Equal(t, "http://minio:9000", ctx.S3.Endpoint)
	id, err := ctx.Credential().Identity()
	require.NoError(t, err)
	require.Equal(t, "bob", id.ID)

	shown := s.run("context", "show", "--json").json(t).(map[string]any)
	require.Equal(t, []any{"bob", "site"}, []any{shown["user"], shown["site"]})
	require.NotEmpty(t, shown["goodUntil"])

	o = s.run("user", "list")
	require.Zero(t, o.code, o.err)
	require.Zero(t, m.renewed, "the certificate is fresh")

	// The key for the store that somebody set stays when they log in again.
	ctx.S3.AccessKey, ctx.S3.SecretKey = "mine", "secret"
	require.NoError(t, client.SaveContext(home, ctx))
	file := filepath.Join(t.TempDir(), "code")
	require.NoError(t, os.WriteFile(file, []byte(code), 0o600))
	require.Zero(t, s.run("login", url, "@"+file).code)
	require.NoError(t, os.WriteFile(file, []byte("millrace login "+url+" "+code+"\n"), 0o600)) // millrace user code bob > file
	require.Zero(t, s.run("login", url, "@"+file).code)
	ctx, err = client.LoadContext(home, "")
	require.NoError(t, err)
	require.Equal(t, "mine", ctx.S3.AccessKey)
}

func TestLoginsThatCannotBe(t *testing.T) {
	m, code := newLoginMaster(t)
	s, url := newSession(t), m.serve(t)
	other, otherCode := newLoginMaster(t)
	token, err := security.NewToken(other.ca.CertPEM())
	require.NoError(t, err)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"login", url, code[:40]}, 2, "not a login code"},
		{[]string{"login", url, token.String()}, 2, "it is a join token"},
		{[]string{"login", url, "millrace login " + url + " " + code}, 2, "not a login code"}, // no argument looks like that
		{[]string{"login", "10.0.0.1", code}, 2, "not of the form https://host:port"},
		{[]string{"login", url, "@/no/such/file"}, 2, "CODE: open /no/such/file"},
		{[]string{"login", url, otherCode}, 3, "not a master of the token's site"},
	} {
		o := s.run(c.args...)
		require.Equal(t, c.code, o.code, o.err)
		require.Contains(t, o.err, c.says)
		require.NotContains(t, o.err, strings.Split(code, ".")[2], "an error repeats no secret")
	}
	require.NoError(t, client.SaveContext(filepath.Join(s.home, ".millrace"), contextOf(t, other.ca, "alice")))
	o := s.run("login", url, code, "--context", "theirs")
	require.Equal(t, 2, o.code, o.err)
	require.Contains(t, o.err, "context theirs is user alice's of site site, and is kept")
}

func contextOf(t *testing.T, ca *security.CA, name string) *client.Context {
	t.Helper()
	key, csr, err := security.NewKey()
	require.NoError(t, err)
	cert, _, err := ca.Sign(csr, security.Identity{Site: "site", Role: security.RoleUser, ID: name}, nil, time.Now(), time.Hour)
	require.NoError(t, err)
	return &client.Context{Name: "theirs", Servers: []string{"https://10.0.0.9:1"}, CA: string(ca.CertPEM()), Certificate: string(cert), Key: string(key)}
}

// A certificate that nears its end, or a CA that the site has come to trust, is taken up by whatever command comes next.
func TestALoginKeepsItselfFresh(t *testing.T) {
	m, _ := newLoginMaster(t)
	s, url := newSession(t), m.serve(t)
	home := filepath.Join(s.home, ".millrace")
	key, csr, err := security.NewKey()
	require.NoError(t, err)
	cert, _, err := m.ca.Sign(csr, security.Identity{Site: "site", Role: security.RoleUser, ID: "bob"}, nil, time.Now().Add(-250*24*time.Hour), security.CertLifetime)
	require.NoError(t, err)
	require.NoError(t, client.SaveContext(home, &client.Context{Name: "x", Servers: []string{url}, CA: string(m.ca.CertPEM()), Certificate: string(cert), Key: string(key)}))
	require.NoError(t, client.UseContext(home, "x"))

	require.Zero(t, s.run("user", "list").code)
	require.Equal(t, 1, m.renewed)
	ctx, err := client.LoadContext(home, "x")
	require.NoError(t, err)
	fresh, err := ctx.Credential().Certificate()
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(security.CertLifetime), fresh.NotAfter, time.Minute)
	require.Zero(t, s.run("user", "list").code)
	require.Equal(t, 1, m.renewed)

	next, err := security.NewCA("site")
	require.NoError(t, err)
	both := security.Bundle(m.ca.CertPEM(), next.CertPEM())
	m.ca, err = security.LoadCA(both, m.ca.KeyPEM())
	require.NoError(t, err)
	m.trusts = security.TrustID(both)
	require.Zero(t, s.run("user", "list").code)
	require.Equal(t, 2, m.renewed)
	ctx, err = client.LoadContext(home, "x")
	require.NoError(t, err)
	require.Equal(t, string(both), ctx.CA)
	require.Zero(t, s.run("user", "list").code)
	require.Equal(t, 2, m.renewed)
}

// Who ran nothing during a change of the CA has a context of before: the next command works, and brings the context up to date.
func TestAContextOutlivesAChangeOfCA(t *testing.T) {
	before, _ := newLoginMaster(t)
	next, err := security.NewCA("site")
	require.NoError(t, err)
	vouched, err := before.ca.Vouch(next, time.Now())
	require.NoError(t, err)
	turned := security.Bundle(next.CertPEM(), before.ca.CertPEM(), vouched)
	m := &loginMaster{trusts: security.TrustID(turned)}
	m.ca, err = security.LoadCA(turned, next.KeyPEM())
	require.NoError(t, err)
	s, url := newSession(t), m.serve(t)
	home := filepath.Join(s.home, ".millrace")
	ctx := contextOf(t, before.ca, "bob")
	ctx.Servers = []string{url}
	require.NoError(t, client.SaveContext(home, ctx))
	require.NoError(t, client.UseContext(home, "theirs"))

	o := s.run("user", "list")
	require.Zero(t, o.code, o.err)
	ctx, err = client.LoadContext(home, "theirs")
	require.NoError(t, err)
	require.Equal(t, string(turned), ctx.CA)
	require.Equal(t, m.trusts, ctx.Credential().InUse(), "a certificate of the new CA, too")
}

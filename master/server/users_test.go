package server

import (
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/security"
)

func (w *world) newUser(name, role string) *api.User {
	w.t.Helper()
	resp, err := w.user(Admin).CreateUser(w.t.Context(), connect.NewRequest(&api.CreateUserRequest{Name: name, Role: role}))
	require.NoError(w.t, err)
	return resp.Msg
}

// login trades a code as millrace login does.
func (w *world) login(code string) (security.Credential, *api.LoginResponse, error) {
	w.t.Helper()
	key, csr, err := security.NewKey()
	require.NoError(w.t, err)
	resp, err := client.Login(w.t.Context(), []string{w.http.URL}, code, csr, "test")
	if err != nil {
		return security.Credential{}, nil, err
	}
	return security.Credential{CertPEM: resp.CertificatePem, KeyPEM: key, CAPEM: resp.CaPem}, resp, nil
}

func TestAUserLogsInOnceWithACode(t *testing.T) {
	w := newWorld(t)
	u := w.newUser("bob@example.com", "Submit")
	require.Equal(t, []string{"bob@example.com", "submit"}, []string{u.Name, u.Role})
	require.Equal(t, w.time().Add(24*time.Hour).Unix(), u.CodeExpiresAt.Seconds)
	record, ok := w.state.View().User("bob@example.com")
	require.True(t, ok)
	require.NotContains(t, u.Code, string(record.CodeHash), "the log has the hash only")

	credential, resp, err := w.login(u.Code)
	require.NoError(t, err)
	require.Equal(t, []string{site, "bob@example.com", "submit"}, []string{resp.Site, resp.User, resp.Role})
	require.Equal(t, []string{w.http.URL}, resp.Masters)
	require.Equal(t, "http://store.test", resp.Store.Endpoint)
	require.Empty(t, resp.Store.AccessKey+resp.Store.SecretKey, "keys are the administrator's")
	api1 := w.clientWith(credential).API()
	_, err = api1.ListNodes(t.Context(), connect.NewRequest(&api.ListNodesRequest{}))
	require.NoError(t, err)
	_, err = api1.CreateUser(t.Context(), connect.NewRequest(&api.CreateUserRequest{Name: "eve", Role: "admin"}))
	require.Equal(t, connect.CodePermissionDenied, connect.CodeOf(err))

	_, _, err = w.login(u.Code)
	requireProblems(t, err, client.ExitUnreachable, "was used before", "millrace user code")

	list, err := w.user(Admin).ListUsers(t.Context(), connect.NewRequest(&api.ListUsersRequest{}))
	require.NoError(t, err)
	require.Len(t, list.Msg.Users, 2)
	require.NotNil(t, list.Msg.Users[1].LastLoginAt)
	require.False(t, list.Msg.Users[1].LastLoginAt.AsTime().Before(list.Msg.Users[1].CreatedAt.AsTime()), "nobody logs in before there is such a user")
	require.Empty(t, list.Msg.Users[1].Code)
}

func TestAnAdministratorGetsTheStoresKeys(t *testing.T) {
	w := newWorld(t)
	credential, resp, err := w.login(w.newUser("ann", "admin").Code)
	require.NoError(t, err)
	require.Equal(t, "secret", resp.Store.SecretKey)
	got, err := w.clientWith(credential).API().GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
	require.NoError(t, err)
	require.Equal(t, "secret", got.Msg.Store.SecretKey)
}

func TestCodesThatAreNoGood(t *testing.T) {
	w := newWorld(t)
	old := w.newUser("bob", "read")
	next, err := w.user(Admin).CreateLoginCode(t.Context(), connect.NewRequest(&api.CreateLoginCodeRequest{Name: "bob", CodeTtlMs: 1000}))
	require.NoError(t, err)
	require.NotEqual(t, old.Code, next.Msg.Code)
	token := w.token(&api.CreateJoinTokenRequest{Role: "core"})
	guessed, err := security.ParseCode(next.Msg.Code)
	require.NoError(t, err)
	guessed.Secret = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	for code, says := range map[string]string{
		old.Code:         "a newer one has taken its place",
		guessed.String(): "not known here",
	} {
		_, _, err := w.login(code)
		requireProblems(t, err, client.ExitUnreachable, says)
	}
	for code, says := range map[string]string{
		token.Token:                          "it is a join token",
		next.Msg.Code[:len(next.Msg.Code)-4]: "hash is cut off or changed",
		"nonsense":                           "it should look like",
	} {
		_, _, err := w.login(code)
		require.ErrorContains(t, err, says)
		require.ErrorIs(t, err, security.ErrMalformedCode)
	}
	_, err = w.join(machine(t, workerID), next.Msg.Code)
	require.ErrorContains(t, err, "login code: millrace login")
	w.later(time.Minute)
	_, _, err = w.login(next.Msg.Code)
	requireProblems(t, err, client.ExitUnreachable, "of user bob has expired")
}

func TestUsersThatCannotBe(t *testing.T) {
	w := newWorld(t)
	create := func(name, role string, ttl int64) error {
		_, err := w.user(Admin).CreateUser(t.Context(), connect.NewRequest(&api.CreateUserRequest{Name: name, Role: role, CodeTtlMs: ttl}))
		return err
	}
	requireProblems(t, create("a b", "boss", -1), client.ExitUsage, "is no name for a user", "admin, submit or read", "--ttl: a login code lives between")
	requireProblems(t, create(Admin, "admin", 0), client.ExitUsage, "is there from the start")
	requireProblems(t, create("alice", "read", 0), client.ExitFailed, "there is a user alice already, of the role submit")
	_, err := w.user(Admin).CreateLoginCode(t.Context(), connect.NewRequest(&api.CreateLoginCodeRequest{Name: "nobody"}))
	requireProblems(t, err, client.ExitNotFound, "no such user: nobody")
	_, err = w.user(Admin).RemoveUser(t.Context(), connect.NewRequest(&api.RemoveUserRequest{Name: Admin}))
	requireProblems(t, err, client.ExitUsage, "cannot be removed")
}

// A person who was removed has nothing any more, and who comes after them under the same name does not give it back.
func TestARemovedUsersCertificateIsRevoked(t *testing.T) {
	w := newWorld(t)
	first, _, err := w.login(w.newUser("bob", "admin").Code)
	require.NoError(t, err)
	use := func(c security.Credential) error {
		_, err := w.clientWith(c).API().ListNodes(t.Context(), connect.NewRequest(&api.ListNodesRequest{}))
		return err
	}
	require.NoError(t, use(first))
	_, err = w.user(Admin).RemoveUser(t.Context(), connect.NewRequest(&api.RemoveUserRequest{Name: "bob"}))
	require.NoError(t, err)
	requireProblems(t, use(first), client.ExitUnreachable, "user bob was removed")

	w.later(2 * time.Second) // as long as a removal and a creation take people
	second, _, err := w.login(w.newUser("bob", "read").Code)
	require.NoError(t, err)
	require.NoError(t, use(second))
	requireProblems(t, use(first), client.ExitUnreachable, "user bob was removed")
}

func TestALoginIsRenewed(t *testing.T) {
	w := newWorld(t)
	credential, _, err := w.login(w.newUser("bob", "read").Code)
	require.NoError(t, err)
	w.later(300 * 24 * time.Hour)
	csr, err := security.RequestFor(credential.KeyPEM)
	require.NoError(t, err)
	for _, c := range []security.Credential{credential, w.credential(security.RoleUser, Admin)} {
		resp, err := w.clientWith(c).API().RenewLogin(t.Context(), connect.NewRequest(&api.RenewLoginRequest{CsrDer: csr}))
		require.NoError(t, err)
		before, err := c.Identity()
		require.NoError(t, err)
		renewed := security.Credential{CertPEM: resp.Msg.CertificatePem, KeyPEM: credential.KeyPEM, CAPEM: resp.Msg.CaPem}
		after, err := renewed.Identity()
		require.NoError(t, err)
		require.Equal(t, before, after)
		cert, err := renewed.Certificate()
		require.NoError(t, err)
		require.WithinDuration(t, w.time().Add(security.CertLifetime), cert.NotAfter, time.Minute)
	}
}

// An answer that was lost can be asked for again: it is the same secret, and costs no second record.
func TestSecretsAreMadeOnceForARequest(t *testing.T) {
	w := newWorld(t)
	admin, ctx := w.user(Admin), t.Context()
	token := func(role, id string) (string, error) {
		resp, err := admin.CreateJoinToken(ctx, connect.NewRequest(&api.CreateJoinTokenRequest{Role: role, RequestId: id}))
		if err != nil {
			return "", err
		}
		return resp.Msg.Token, nil
	}
	first, err := token("core", "one")
	require.NoError(t, err)
	again, err := token("core", "one")
	require.NoError(t, err)
	require.Equal(t, first, again)
	other, err := token("core", "two")
	require.NoError(t, err)
	require.NotEqual(t, first, other)
	require.Len(t, w.state.View().Tokens(), 2)
	_, err = token("task", "one")
	requireProblems(t, err, client.ExitUsage, "has made another join token")

	w.apply(state.CreateUser{User: state.User{Name: "ann", Role: state.UserAdmin}})
	ann, err := w.user("ann").CreateJoinToken(ctx, connect.NewRequest(&api.CreateJoinTokenRequest{Role: "core", RequestId: "one"}))
	require.NoError(t, err)
	require.NotEqual(t, first, ann.Msg.Token, "another's request")

	user := func(id string) (*connect.Response[api.User], error) {
		return admin.CreateUser(ctx, connect.NewRequest(&api.CreateUserRequest{Name: "bob", Role: "read", RequestId: id}))
	}
	u, err := user("three")
	require.NoError(t, err)
	v, err := user("three")
	require.NoError(t, err)
	require.Equal(t, u.Msg.Code, v.Msg.Code)
	_, err = user("four")
	requireProblems(t, err, client.ExitFailed, "already")
	code := func() string {
		resp, err := admin.CreateLoginCode(ctx, connect.NewRequest(&api.CreateLoginCodeRequest{Name: "bob", RequestId: "five"}))
		require.NoError(t, err)
		return resp.Msg.Code
	}
	require.Equal(t, code(), code())
	_, _, err = w.login(code())
	require.NoError(t, err)
}

// A call that is made again while it is still carried out gets what it makes, too: the secret is shown once, to whoever is heard.
func TestSecretsOfACallThatIsMadeAgainAtOnce(t *testing.T) {
	w := newWorld(t)
	w.newUser("carol", "read")
	admin, ctx := w.user(Admin), t.Context()
	for name, call := range map[string]func() (string, error){
		"a user": func() (string, error) {
			resp, err := admin.CreateUser(ctx, connect.NewRequest(&api.CreateUserRequest{Name: "bob", Role: "read", RequestId: "one"}))
			if err != nil {
				return "", err
			}
			return resp.Msg.Code, nil
		},
		"a login code": func() (string, error) {
			resp, err := admin.CreateLoginCode(ctx, connect.NewRequest(&api.CreateLoginCodeRequest{Name: "carol", RequestId: "two"}))
			if err != nil {
				return "", err
			}
			return resp.Msg.Code, nil
		},
		"a join token": func() (string, error) {
			resp, err := admin.CreateJoinToken(ctx, connect.NewRequest(&api.CreateJoinTokenRequest{Role: "core", RequestId: "three"}))
			if err != nil {
				return "", err
			}
			return resp.Msg.Token, nil
		},
	} {
		var (
			first    string
			firstErr error
		)
		w.log.before = func() { first, firstErr = call() }
		again, err := call()
		require.NoError(t, err, name)
		require.NoError(t, firstErr, name)
		require.NotEmpty(t, first, name)
		require.Equal(t, first, again, name)
	}
	var otherErr error
	w.log.before = func() {
		_, otherErr = w.log.Apply(ctx, state.CreateUser{User: state.User{Name: "dora", Role: state.UserRead}})
	}
	_, err := admin.CreateUser(ctx, connect.NewRequest(&api.CreateUserRequest{Name: "dora", Role: "admin", RequestId: "four"}))
	requireProblems(t, err, client.ExitFailed, "there is a user dora already, of the role read")
	require.NoError(t, otherErr)
}

func TestPoolTokens(t *testing.T) {
	w := newWorld(t)
	token := w.token(&api.CreateJoinTokenRequest{Role: "pool"})
	require.Equal(t, []string{"POOL", ""}, []string{token.Role, token.Cluster})
	resp, err := w.join(machine(t, workerID), token.Token)
	require.NoError(t, err)
	require.Equal(t, []string{"POOL", ""}, []string{resp.Role, resp.Cluster})
	n, ok := w.state.View().Node(workerID)
	require.True(t, ok)
	require.True(t, n.Pooled)
}

package server

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/security"
)

// token makes a join token as the administrator.
func (w *world) token(m *api.CreateJoinTokenRequest) *api.JoinToken {
	w.t.Helper()
	resp, err := w.user(Admin).CreateJoinToken(w.t.Context(), connect.NewRequest(m))
	require.NoError(w.t, err)
	return resp.Msg
}

// newcomer is a machine that wants to be a node.
type newcomer struct {
	id       string
	key, csr []byte
}

func machine(t *testing.T, id string) newcomer {
	t.Helper()
	key, csr, err := security.NewKey()
	require.NoError(t, err)
	return newcomer{id, key, csr}
}

func (w *world) join(n newcomer, token string) (*api.JoinResponse, error) {
	return client.Join(w.t.Context(), []string{w.http.URL}, token, &api.JoinRequest{NodeId: n.id, Name: "host", CsrDer: n.csr, Version: "v1"})
}

func TestJoin(t *testing.T) {
	w := newWorld(t)
	token := w.token(&api.CreateJoinTokenRequest{Role: "core", Uses: 1})
	n := machine(t, workerID)
	resp, err := w.join(n, token.Token)
	require.NoError(t, err)
	require.Equal(t, []string{"j-DEFAULT", "CORE", site}, []string{resp.Cluster, resp.Role, resp.Site})
	require.Equal(t, []byte("gossip key"), resp.GossipKey)
	require.Equal(t, []string{w.http.URL}, resp.Masters)

	credential := security.Credential{CertPEM: resp.CertificatePem, KeyPEM: n.key, CAPEM: resp.CaPem}
	identity, err := credential.Identity()
	require.NoError(t, err)
	require.Equal(t, security.Identity{Site: site, Role: security.RoleWorker, ID: workerID}, identity)
	stream, err := w.clientWith(credential).Session(t.Context())
	require.NoError(t, err)
	hello(t, stream)
	_, err = stream.Receive()
	require.NoError(t, err, "the certificate opens a session")

	_, err = w.join(n, token.Token)
	require.NoError(t, err, "an answer that was lost can be asked for again, and costs no use")
	_, err = w.join(machine(t, "i-000000000000000cc"), token.Token)
	requireProblems(t, err, client.ExitUnreachable, "used up")

	again, err := w.clientWith(credential).Rejoin(t.Context(), &api.JoinRequest{NodeId: workerID, CsrDer: n.csr, Name: "renamed"})
	require.NoError(t, err, "who has a certificate needs no token")
	require.Equal(t, "CORE", again.Role)
	record, _ := w.state.View().Node(workerID)
	require.Equal(t, "renamed", record.Name)
}

func TestJoinIsRefused(t *testing.T) {
	w := newWorld(t)
	core := w.token(&api.CreateJoinTokenRequest{Role: "core"})
	_, err := w.join(machine(t, workerID), core.Token)
	require.NoError(t, err)
	parsed, err := security.ParseToken(core.Token)
	require.NoError(t, err)
	guessed := parsed
	guessed.Secret = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	short := w.token(&api.CreateJoinTokenRequest{Role: "core", TtlMs: 1000})
	gone := w.token(&api.CreateJoinTokenRequest{Role: "core"})
	_, err = w.user(Admin).RevokeJoinToken(t.Context(), connect.NewRequest(&api.RevokeJoinTokenRequest{Id: gone.Id}))
	require.NoError(t, err)
	removed := machine(t, "i-000000000000000ee")
	_, err = w.join(removed, core.Token)
	require.NoError(t, err)
	w.apply(state.RemoveNode{ID: removed.id})
	w.later(time.Minute)

	fresh := machine(t, "i-000000000000000dd")
	for name, c := range map[string]struct {
		who   newcomer
		token string
		says  string
	}{
		"a guessed secret":        {fresh, guessed.String(), "not known"},
		"an expired token":        {fresh, short.Token, "expired"},
		"a revoked token":         {fresh, gone.Token, "not known"},
		"another's node id":       {machine(t, workerID), core.Token, "belongs to another node"},
		"the master's node id":    {machine(t, masterID), core.Token, "belongs to another node"},
		"a node that was removed": {removed, core.Token, "was removed"},
		"an id that is none":      {newcomer{"master", fresh.key, fresh.csr}, core.Token, "no node id"},
		"a request that is none":  {newcomer{fresh.id, fresh.key, []byte("x")}, core.Token, "read request"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.join(c.who, c.token)
			requireProblems(t, err, client.Problems(err).GetExitCode(), c.says)
		})
	}
	_, known := w.state.View().Node(fresh.id)
	require.False(t, known, "nobody was admitted")
}

func TestANodeSaysLittleOfItself(t *testing.T) {
	w := newWorld(t)
	token := w.token(&api.CreateJoinTokenRequest{Role: "core"})
	n := machine(t, workerID)
	_, err := client.Join(t.Context(), []string{w.http.URL}, token.Token,
		&api.JoinRequest{NodeId: n.id, Name: strings.Repeat("n", 1<<20), CsrDer: n.csr})
	requireProblems(t, err, client.ExitUsage, "at most 255 bytes")
}

func TestARejoinNeedsTheNodesOwnCertificate(t *testing.T) {
	w := newWorld(t)
	n := machine(t, workerID)
	_, err := w.join(n, w.token(&api.CreateJoinTokenRequest{Role: "core"}).Token)
	require.NoError(t, err)
	for name, who := range map[string]*client.Client{
		"another worker": w.client(security.RoleWorker, "i-000000000000000cc"),
		"a user":         w.client(security.RoleUser, "alice"),
		"a master":       w.client(security.RoleMaster, masterID),
	} {
		_, err := who.Rejoin(t.Context(), &api.JoinRequest{NodeId: workerID, CsrDer: n.csr})
		require.Error(t, err, name)
	}
}

func TestTokens(t *testing.T) {
	w := newWorld(t)
	limited := w.token(&api.CreateJoinTokenRequest{Role: "TASK", Uses: 3, TtlMs: 60_000})
	require.EqualValues(t, 3, limited.UsesLeft)
	require.Equal(t, "default", limited.Cluster)
	require.WithinDuration(t, w.now.Add(time.Minute), limited.ExpiresAt.AsTime(), time.Second)
	free := w.token(&api.CreateJoinTokenRequest{Role: "core"})
	require.EqualValues(t, -1, free.UsesLeft)
	require.WithinDuration(t, w.now.Add(24*time.Hour), free.ExpiresAt.AsTime(), time.Second)

	list, err := w.user(Admin).ListJoinTokens(t.Context(), connect.NewRequest(&api.ListJoinTokensRequest{}))
	require.NoError(t, err)
	require.Len(t, list.Msg.Tokens, 2)
	for _, token := range list.Msg.Tokens {
		require.Empty(t, token.Token, "secrets are told once")
	}
	_, err = w.user(Admin).CreateJoinToken(t.Context(), connect.NewRequest(&api.CreateJoinTokenRequest{Role: "boss", Uses: -1, TtlMs: -1, Cluster: "nowhere"}))
	p := requireProblems(t, err, client.ExitUsage, "boss", "nowhere")
	require.Len(t, p.Errors, 4, "every mistake is named")
	_, err = w.user(Admin).RevokeJoinToken(t.Context(), connect.NewRequest(&api.RevokeJoinTokenRequest{Id: "t-none"}))
	requireProblems(t, err, client.ExitNotFound, "t-none")
}

// A cluster that has ended gets no tokens: what is to do next is to name another one.
func TestNoTokenForAClusterThatEnds(t *testing.T) {
	w := newWorld(t)
	_, err := w.terminate("default")
	require.NoError(t, err)
	_, err = w.user(Admin).CreateJoinToken(t.Context(), connect.NewRequest(&api.CreateJoinTokenRequest{Role: "core"}))
	p := requireProblems(t, err, client.ExitUsage, "cluster default takes no nodes any more: it is TERMINAT")
	require.Equal(t, "name one that does: millrace join-token create --cluster NAME (millrace cluster list), or make one: millrace cluster create --name NAME", p.Next)
	require.NotEmpty(t, w.token(&api.CreateJoinTokenRequest{Role: "pool"}).Token, "which is the site's")
}

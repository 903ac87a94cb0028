package client

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
	"millrace/pkg/security"
)

// serveWith serves with a credential.
func serveWith(t *testing.T, c security.Credential) (url string) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	var err error
	s.TLS, err = c.ServerTLS(false)
	require.NoError(t, err)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}

// Whoever is refused hears which site answers there, or that their own has a new CA, and what to do.
func TestRefusalsOfCertificatesSayWhoIsWho(t *testing.T) {
	ours, renewed := newPKI(t), newPKI(t)
	foreign, err := security.NewCA("theirs")
	require.NoError(t, err)
	stranger := func() security.Credential {
		key, csr, err := security.NewKey()
		require.NoError(t, err)
		cert, _, err := foreign.Sign(csr, security.Identity{Site: "theirs", Role: security.RoleMaster, ID: "i-0000000000000000b"}, nil, time.Now(), time.Hour)
		require.NoError(t, err)
		return security.Credential{CertPEM: cert, KeyPEM: key, CAPEM: foreign.CertPEM()}
	}
	trusting := func(c security.Credential, p pki) security.Credential { c.CAPEM = p.CertPEM(); return c }
	web := httptest.NewUnstartedServer(nil)
	web.StartTLS()
	t.Cleanup(web.Close)
	alice, node, master := ours.issue(t, security.RoleUser, "alice"), ours.issue(t, security.RoleWorker, "i-0000000000000000c"), ours.issue(t, security.RoleMaster, "i-0000000000000000e")
	for name, c := range map[string]struct {
		url        string
		own        security.Credential
		says, next string
	}{
		"another site's master": {serveWith(t, stranger()), alice,
			" is of site theirs, and your context is for site ours", "choose a context of that site, or leave out --server: millrace context list"},
		"a node, another site's master": {serveWith(t, stranger()), node, " is of site theirs, and this node is of site ours", "--join"},
		"the site has a new CA": {serveWith(t, renewed.issue(t, security.RoleMaster, "i-0000000000000000a")), alice,
			"site ours was given a new CA, and trusts the one of your context no more", "millrace user code alice"},
		"a node, the site has a new CA": {serveWith(t, renewed.issue(t, security.RoleMaster, "i-0000000000000000a")), node,
			"site ours was given a new CA, and trusts the one of this node no more", "millrace node remove i-0000000000000000c"},
		"a master, the site has a new CA": {serveWith(t, renewed.issue(t, security.RoleMaster, "i-0000000000000000a")), master,
			"site ours was given a new CA, and trusts the one of this node no more", "millrace master remove i-0000000000000000e"},
		"a certificate of the old CA, at one that trusts the new one": {serveWith(t, renewed.issue(t, security.RoleMaster, "i-0000000000000000a")), trusting(alice, renewed),
			"the server does not know the CA of this credential", "log in again"},
		"a server of something else": {web.URL, alice, " is no master of a Millrace site", "look at the address"},
		"a node that is no master":   {serveWith(t, ours.issue(t, security.RoleWorker, "i-0000000000000000d")), alice, "the server's certificate is refused: worker node i-0000000000000000d answers there", "check that the address"},
	} {
		t.Run(name, func(t *testing.T) {
			cl, err := New(Config{Servers: []string{c.url}, Credential: c.own, RetryFor: time.Hour}) // repeating would not help, so it is not done
			require.NoError(t, err)
			defer cl.Close()
			_, err = cl.API().GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
			require.True(t, Untrusted(err), "%v", err)
			p := Problems(err)
			require.EqualValues(t, ExitUnreachable, p.ExitCode)
			require.Len(t, p.Errors, 1)
			require.Contains(t, p.Errors[0], c.says)
			require.Contains(t, p.Next, c.next)
		})
	}
}

// A client that knows the old CA only speaks with a master that has a certificate of the new one.
func TestAClientOfBeforeTheChangeOfCA(t *testing.T) {
	before, after := newPKI(t), newPKI(t)
	vouched, err := before.Vouch(after.CA, time.Now())
	require.NoError(t, err)
	turned, err := security.LoadCA(security.Bundle(after.CertPEM(), before.CertPEM(), vouched), after.KeyPEM())
	require.NoError(t, err)
	c := before.client(t, -1, pki{turned}.serve(t, &fakeMaster{name: "turned"}))
	site, err := c.API().GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
	require.NoError(t, err)
	require.Equal(t, "turned", site.Msg.Id)
}

// A master that was away as long as its node, while the site was given a new CA, knows no leader and never will: what the other masters
// say counts. One of three that does not trust its client is no majority: a leader may still come.
func TestTheMajorityOfMastersSaysWhoIsCutOff(t *testing.T) {
	ours, renewed := newPKI(t), newPKI(t)
	cutOff := func() string { return ours.serve(t, &fakeMaster{fail: unavailable(1 << 30)}) }
	present := func() string { return renewed.serve(t, &fakeMaster{}) }
	session := func(c *Client) error {
		s, err := c.Session(t.Context())
		require.NoError(t, err)
		if err := s.Send(&api.WorkerMessage{}); !errors.Is(err, io.EOF) { // it may have been refused already: Receive says why
			require.NoError(t, err)
		}
		_, err = s.Receive()
		return err
	}
	told := func(err error) {
		t.Helper()
		require.True(t, Untrusted(err), "%v", err)
		require.Contains(t, Problems(err).Errors[0], "was given a new CA")
	}
	servers := []string{cutOff(), present(), present()}
	c := ours.client(t, time.Hour, servers...)
	_, err := c.API().GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
	told(err)
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(session(c)), "the first did answer, and was asked first")
	told(session(c))

	c = ours.client(t, 100*time.Millisecond, cutOff(), cutOff(), present())
	_, err = c.API().GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err))
	for range 4 {
		require.Equal(t, connect.CodeUnavailable, connect.CodeOf(session(c)))
	}
}

// raftPort is a master's port for other masters.
func raftPort(t *testing.T, c security.Credential) (url string) {
	t.Helper()
	config, err := c.ServerTLS(true)
	require.NoError(t, err)
	config.NextProtos = nil
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	require.NoError(t, err)
	var conns sync.WaitGroup
	t.Cleanup(func() { l.Close(); conns.Wait() })
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				conn.(*tls.Conn).Handshake() // which the client has given up
				conn.Close()
			})
		}
	})
	return "https://" + l.Addr().String()
}

// Who names a master's Raft port hears that it is the wrong port, whoever asks; nothing is repeated, and no name of ours is in it.
func TestTheRaftPortIsNamed(t *testing.T) {
	p := newPKI(t)
	token, err := security.NewToken(p.CertPEM())
	require.NoError(t, err)
	url := raftPort(t, p.issue(t, security.RoleMaster, "i-0000000000000000a"))
	c := p.client(t, time.Hour, url)
	for who, ask := range map[string]func() error{
		"a user": func() error {
			_, err := c.API().GetSite(t.Context(), connect.NewRequest(&api.GetSiteRequest{}))
			return err
		},
		"a node that joins": func() error {
			_, err := Join(t.Context(), []string{url}, token.String(), &api.JoinRequest{})
			return err
		},
		"a machine that looks before it joins": func() error {
			_, err := Reach(t.Context(), url, token.String(), netip.Addr{}, &api.ReachRequest{})
			return err
		},
	} {
		err := ask()
		require.ErrorIs(t, err, ErrRaftPort, who)
		require.Contains(t, Problems(err).Errors[0], "this is the port for masters among themselves (Raft)", who)
		require.NotContains(t, err.Error(), security.MasterName, who)
	}
	_, err = Join(t.Context(), []string{serveWith(t, p.issue(t, security.RoleWorker, "i-0000000000000000d"))}, token.String(), &api.JoinRequest{})
	require.ErrorContains(t, err, "worker node i-0000000000000000d answers there")
	require.NotContains(t, err.Error(), security.MasterName)
}

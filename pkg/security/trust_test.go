package security

import (
	"crypto/tls"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// renewed is a credential of another CA for the same key, which trusts a bundle.
func renewed(t *testing.T, c Credential, by *CA, bundle []byte) Credential {
	t.Helper()
	id, err := c.Identity()
	require.NoError(t, err)
	csr, err := RequestFor(c.KeyPEM)
	require.NoError(t, err)
	cert, _, err := by.Sign(csr, id, nil, time.Now(), CertLifetime)
	require.NoError(t, err)
	return Credential{CertPEM: cert, KeyPEM: c.KeyPEM, CAPEM: bundle}
}

// A change of CA in three steps: whoever is a step behind or ahead of another one still reaches it, and is reached.
func TestAChangeOfCAInterruptsNobody(t *testing.T) {
	old, next := newCA(t, "ours"), newCA(t, "ours")
	vouched, err := old.Vouch(next, time.Now())
	require.NoError(t, err)
	both, turned := Bundle(old.CertPEM(), next.CertPEM()), Bundle(next.CertPEM(), old.CertPEM(), vouched)
	steps := func(role Role, id string) []Credential {
		c := issue(t, old, role, id)
		return []Credential{c, renewed(t, c, old, both), renewed(t, c, next, turned), renewed(t, c, next, next.CertPEM())}
	}
	masters, workers := steps(RoleMaster, masterID), steps(RoleWorker, workerID)
	for i, m := range masters {
		for j, w := range workers {
			server, err := m.ServerTLS(true)
			require.NoError(t, err)
			client, err := w.ClientTLS(MasterName)
			require.NoError(t, err)
			_, known, _, clientErr := shake(t, server, client)
			if i-j >= -1 && i-j <= 1 || j == 0 && i == 2 { // the last for the old one's word
				require.NoError(t, clientErr, "step %d to %d", j, i)
				require.True(t, known)
			}
			if i-j == 3 || j-i == 3 {
				require.Error(t, clientErr, "the first and the last have nothing in common")
			}
		}
	}
	for i, c := range masters {
		require.Equal(t, TrustID(c.CAPEM), c.InUse(), i)
	}
	require.Empty(t, Credential{masters[1].CertPEM, masters[1].KeyPEM, turned}.InUse(), "it trusts the new one, and is of the old one")
	require.NotEqual(t, TrustID(both), TrustID(turned))
}

// Who holds no more than a token of the old CA takes the word of that for the new one, as long as it is trusted.
func TestATokenOutlivesTheChangeOfCA(t *testing.T) {
	old, next, stranger := newCA(t, "ours"), newCA(t, "ours"), newCA(t, "ours")
	vouched, err := old.Vouch(next, time.Now())
	require.NoError(t, err)
	before, err := NewToken(old.CertPEM())
	require.NoError(t, err)
	turned := Bundle(next.CertPEM(), old.CertPEM(), vouched)
	after, err := NewToken(turned)
	require.NoError(t, err)
	join := func(token Token, c Credential) error {
		server, err := c.ServerTLS(false)
		require.NoError(t, err)
		_, _, _, clientErr := shake(t, server, JoinTLS(token))
		return clientErr
	}
	first := issue(t, old, RoleMaster, masterID)
	second := renewed(t, first, next, turned)
	require.NoError(t, join(before, first))
	require.NoError(t, join(before, second))
	require.NoError(t, join(after, second))
	require.ErrorIs(t, join(before, renewed(t, first, next, next.CertPEM())), ErrUntrusted, "the old one is trusted no more")
	require.ErrorIs(t, join(before, renewed(t, first, stranger, Bundle(stranger.CertPEM(), old.CertPEM()))), ErrUntrusted, "nobody vouches for it")
	forged, err := stranger.Vouch(next, time.Now())
	require.NoError(t, err)
	require.ErrorIs(t, join(before, renewed(t, first, next, Bundle(next.CertPEM(), old.CertPEM(), forged))), ErrUntrusted)

	for token, bundle := range map[Token][]byte{before: turned, after: turned} {
		ours, err := token.OfSite(bundle)
		require.NoError(t, err)
		require.True(t, ours)
	}
	ours, err := before.OfSite(next.CertPEM())
	require.NoError(t, err)
	require.False(t, ours)
	other := newCA(t, "theirs")
	_, err = old.Vouch(other, time.Now())
	require.ErrorContains(t, err, "of site theirs")
}

func TestALiveCredentialIsReplacedUnderItsServer(t *testing.T) {
	old, next := newCA(t, "ours"), newCA(t, "ours")
	first := issue(t, old, RoleMaster, masterID)
	live, err := NewLive(first)
	require.NoError(t, err)
	changed := 0
	server, err := live.ServerTLS(true, func(c *tls.Config) { changed++; c.NextProtos = nil })
	require.NoError(t, err)
	ofOld, err := issue(t, old, RoleWorker, workerID).ClientTLS(MasterName)
	require.NoError(t, err)
	ofOld.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	reach := func(c *tls.Config) error {
		_, _, _, err := shake(t, server, c)
		return err
	}
	require.NoError(t, reach(ofOld))
	require.NoError(t, reach(ofOld), "with a ticket")
	require.Equal(t, 1, changed)

	require.Error(t, live.Replace(Credential{CertPEM: first.CertPEM, KeyPEM: first.KeyPEM}), "it trusts nobody")
	require.NoError(t, reach(ofOld), "so the one before stays")

	require.NoError(t, live.Replace(renewed(t, first, next, next.CertPEM())))
	ofNew, err := issue(t, next, RoleWorker, workerID).ClientTLS(MasterName)
	require.NoError(t, err)
	require.NoError(t, reach(ofNew))
	require.Error(t, reach(ofOld), "a ticket of before is worth no more than the certificate")
	require.Equal(t, 2, changed)
}

func TestBundles(t *testing.T) {
	a, b := newCA(t, "ours"), newCA(t, "ours")
	both := Bundle(a.CertPEM(), b.CertPEM())
	fa, err := Fingerprint(both)
	require.NoError(t, err)
	require.Regexp(t, `^[0-9a-f]{64}$`, fa)
	fb, err := Fingerprint(b.CertPEM())
	require.NoError(t, err)
	require.NotEqual(t, fa, fb)
	issuer, err := Issuer(both)
	require.NoError(t, err)
	require.Equal(t, a.CertPEM(), issuer)
	for _, bad := range [][]byte{nil, []byte("x"), a.KeyPEM(), Bundle(a.CertPEM(), a.KeyPEM())} {
		_, err := Issuer(bad)
		require.Error(t, err)
		require.Empty(t, TrustID(bad))
	}
	loaded, err := LoadCA(both, a.KeyPEM())
	require.NoError(t, err)
	require.Equal(t, both, loaded.CertPEM(), "who joins gets all that is trusted")
	_, err = LoadCA(both, b.KeyPEM())
	require.ErrorContains(t, err, "the key is not the certificate's")
}

func TestCodesAndTokensAreNotEachOther(t *testing.T) {
	ca, seed := newCA(t, "ours"), SealKey{1}.Derive("for", "this")
	token, err := TokenOf(ca.CertPEM(), seed)
	require.NoError(t, err)
	again, err := TokenOf(ca.CertPEM(), seed)
	require.NoError(t, err)
	require.Equal(t, token, again)
	code, err := CodeOf(ca.CertPEM(), seed)
	require.NoError(t, err)
	require.NotEqual(t, token.Secret, code.Secret)
	_, err = ParseToken(code.String())
	require.ErrorIs(t, err, ErrMalformedToken)
	_, err = ParseCode(token.String())
	require.ErrorIs(t, err, ErrMalformedCode)
	parsed, err := ParseCode(" " + code.String() + "\n")
	require.NoError(t, err)
	require.Equal(t, code, parsed)
	require.False(t, errors.Is(err, ErrMalformedToken))
	require.NotEqual(t, SealKey{1}.Derive("a", "b"), SealKey{1}.Derive("ab"))
	require.NotEqual(t, SealKey{1}.Derive("a"), SealKey{2}.Derive("a"))
}

package security

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// parsed is a PEM bundle as certificates.
func parsed(t *testing.T, certPEM []byte) []*x509.Certificate {
	t.Helper()
	certs, err := decodeCerts(certPEM)
	require.NoError(t, err)
	return certs
}

// Who ran nothing while the site changed its CA has only the old one, and reaches masters that have certificates of the new one.
func TestTheOldCAsWordForTheNewOneIsTaken(t *testing.T) {
	old, next := newCA(t, "ours"), newCA(t, "ours")
	vouched, err := old.Vouch(next, time.Now())
	require.NoError(t, err)
	turned := Bundle(next.CertPEM(), old.CertPEM(), vouched)
	for _, role := range []Role{RoleMaster, RoleWorker} {
		server, err := renewed(t, issue(t, old, role, masterID), next, turned).ServerTLS(true)
		require.NoError(t, err)
		client, err := issue(t, old, RoleUser, "alice").ClientTLS(NodeName(masterID))
		require.NoError(t, err)
		client.ClientSessionCache = tls.NewLRUClientSessionCache(0)
		for range 2 { // the second one with a ticket
			peer, known, serverErr, clientErr := shake(t, server, client)
			require.NoError(t, clientErr)
			require.NoError(t, serverErr)
			require.True(t, known)
			require.Equal(t, "alice", peer.ID)
		}
	}
}

// What stands between a site and who would like to be it: each case differs in one thing from one that is right.
func TestWhatAVouchIsNot(t *testing.T) {
	old, next, foreign := newCA(t, "ours"), newCA(t, "ours"), newCA(t, "theirs")
	now := time.Now()
	own := Identity{Site: "ours", Role: RoleUser, ID: "alice"}
	node := func(ca *CA, role Role) Credential { return issue(t, ca, role, masterID) }
	leaf := func(c Credential) *x509.Certificate { return parsed(t, c.CertPEM)[0] }
	// forge makes a vouch by a CA, for the key of next, but for a change.
	forge := func(by *CA, change func(*x509.Certificate)) []*x509.Certificate {
		template := &x509.Certificate{
			SerialNumber: next.cert.SerialNumber, Subject: next.cert.Subject, SubjectKeyId: next.cert.SubjectKeyId, URIs: next.cert.URIs,
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
			KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
		}
		change(template)
		der, err := x509.CreateCertificate(rand.Reader, template, by.cert, next.key.Public(), by.key)
		require.NoError(t, err)
		cert, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		return []*x509.Certificate{cert, next.cert, old.cert}
	}
	asIs := func(*x509.Certificate) {}
	right := forge(old, asIs)
	// A worker whose certificate would be a CA's, if its key were enough.
	worker := node(old, RoleWorker)
	key, err := decodeKey(worker.KeyPEM)
	require.NoError(t, err)
	byWorker := forge(&CA{cert: leaf(worker), key: key}, asIs)

	for name, c := range map[string]struct {
		leaf *x509.Certificate
		sent []*x509.Certificate
		at   time.Time
		site string // of the StrangerError; "-": it is another error
	}{
		"right":                     {leaf(node(next, RoleMaster)), right, now, ""},
		"no vouch is sent":          {leaf(node(next, RoleMaster)), right[1:], now, "ours"},
		"by a CA that is not known": {leaf(node(next, RoleMaster)), forge(newCA(t, "ours"), asIs), now, "ours"},
		"by a node":                 {leaf(node(next, RoleMaster)), byWorker, now, "ours"},
		"for another CA":            {leaf(node(newCA(t, "ours"), RoleMaster)), right, now, "ours"},
		"for another site's CA":     {leaf(node(foreign, RoleMaster)), append(right, foreign.cert), now, "theirs"},
		"for another site":          {leaf(node(next, RoleMaster)), forge(old, func(c *x509.Certificate) { c.URIs = foreign.cert.URIs }), now, "ours"},
		"for no site":               {leaf(node(next, RoleMaster)), forge(old, func(c *x509.Certificate) { c.URIs = nil }), now, "ours"},
		"for a node":                {leaf(node(next, RoleMaster)), forge(old, func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "millrace", Host: "ours", Path: "/master/x"}} }), now, "ours"},
		"not for a CA":              {leaf(node(next, RoleMaster)), forge(old, func(c *x509.Certificate) { c.IsCA, c.MaxPathLenZero = false, false }), now, "ours"},
		"not for signatures":        {leaf(node(next, RoleMaster)), forge(old, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }), now, "ours"},
		"for no use that is named":  {leaf(node(next, RoleMaster)), forge(old, func(c *x509.Certificate) { c.KeyUsage = 0 }), now, "ours"},
		"not good yet":              {leaf(node(next, RoleMaster)), forge(old, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }), now, "ours"},
		"has ended":                 {leaf(node(next, RoleMaster)), right, now.Add(2 * time.Hour), "ours"},
		"the old CA has ended":      {leaf(node(next, RoleMaster)), forge(old, func(c *x509.Certificate) { c.NotAfter = now.Add(2 * CALifetime) }), now.Add(CALifetime + time.Hour), "-"},
		"the server's has ended":    {leaf(node(next, RoleMaster)), forge(old, func(c *x509.Certificate) { c.NotAfter = now.Add(CALifetime) }), now.Add(2 * CertLifetime), "-"},
		"a worker as a master":      {leaf(node(next, RoleWorker)), right, now, "-"},
		"a user as a master":        {leaf(issue(t, next, RoleUser, "alice")), right, now, "-"},
		"the old CA itself as one":  {old.cert, right, now, ""},
		"another site's master":     {leaf(node(foreign, RoleMaster)), []*x509.Certificate{foreign.cert}, now, "theirs"},
	} {
		t.Run(name, func(t *testing.T) {
			err := verifyServer(own, []*x509.Certificate{old.cert}, MasterName, append([]*x509.Certificate{c.leaf}, c.sent...), c.at)
			if name == "right" {
				require.NoError(t, err)
				return
			}
			var refused *tls.CertificateVerificationError
			require.ErrorAs(t, err, &refused)
			var stranger *StrangerError
			if c.site == "-" {
				require.False(t, errors.As(err, &stranger), "%v", err)
				return
			}
			require.ErrorAs(t, err, &stranger)
			require.Equal(t, &StrangerError{Own: own, Site: c.site}, stranger)
		})
	}
	require.Error(t, verifyServer(own, []*x509.Certificate{old.cert}, MasterName, nil, now))
}

// A CA that would sign for another site is not believed.
func TestACASpeaksForItsOwnSiteOnly(t *testing.T) {
	ours := newCA(t, "ours")
	theirs := &CA{cert: ours.cert, key: ours.key, certPEM: ours.certPEM}
	copied := *ours.cert
	copied.URIs = []*url.URL{{Scheme: "millrace", Host: "theirs"}}
	theirs.cert = &copied // it signs for theirs, by the key of ours
	server := issue(t, theirs, RoleMaster, masterID)
	pool := roots([]*x509.Certificate{ours.cert}, nil, time.Now())
	require.ErrorContains(t, verifyLeaf(parsed(t, server.CertPEM)[0], pool, MasterName, time.Now()), `a certificate for site theirs is of the CA of site "ours"`)
}

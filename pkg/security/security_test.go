package security

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	masterID = "i-00000000000000001"
	workerID = "i-00000000000000002"
)

func newCA(t *testing.T, site string) *CA {
	t.Helper()
	ca, err := NewCA(site)
	require.NoError(t, err)
	return ca
}

// issue makes a credential of the CA's site.
func issue(t *testing.T, ca *CA, role Role, id string) Credential {
	t.Helper()
	key, csr, err := NewKey()
	require.NoError(t, err)
	cert, serial, err := ca.Sign(csr, Identity{Site: ca.Site(), Role: role, ID: id}, []string{"127.0.0.1"}, time.Now(), CertLifetime)
	require.NoError(t, err)
	require.NotEmpty(t, serial)
	return Credential{CertPEM: cert, KeyPEM: key, CAPEM: ca.CertPEM()}
}

// shake connects a client to a server and gives what each of them thinks of it.
func shake(t *testing.T, server, client *tls.Config) (peer Identity, known bool, serverErr, clientErr error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := listener.Accept()
		if err != nil {
			serverErr = err
			return
		}
		conn := tls.Server(raw, server)
		defer conn.Close()
		if serverErr = conn.Handshake(); serverErr == nil {
			state := conn.ConnectionState()
			peer, known = PeerIdentity(&state)
			_, serverErr = conn.Write([]byte("."))
		}
	}()
	conn, err := tls.Dial("tcp", listener.Addr().String(), client)
	if err == nil { // in TLS 1.3 a refused client hears of it when it reads
		_, err = io.ReadFull(conn, make([]byte, 1))
		conn.Close()
	}
	<-done
	return peer, known, serverErr, err
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		require.NoError(t, err)
		return v
	}
}

func TestMutualTLS(t *testing.T) {
	ours, theirs := newCA(t, "ours"), newCA(t, "theirs")
	master := issue(t, ours, RoleMaster, masterID)
	worker := issue(t, ours, RoleWorker, workerID)
	user := issue(t, ours, RoleUser, "alice@example.com")
	stranger := issue(t, theirs, RoleMaster, masterID)
	config := must[*tls.Config](t)

	cases := []struct {
		name     string
		server   Credential
		require  bool
		client   *tls.Config
		ok       bool
		identity string // of the client, as the server sees it; "" = nobody
	}{
		{"worker to master", master, true, config(worker.ClientTLS(MasterName)), true, "millrace://ours/worker/" + workerID},
		{"user to master", master, true, config(user.ClientTLS(MasterName)), true, "millrace://ours/user/alice@example.com"},
		{"master to one worker", worker, true, config(master.ClientTLS(NodeName(workerID))), true, "millrace://ours/master/" + masterID},
		{"a worker is no master", worker, true, config(user.ClientTLS(MasterName)), false, ""},
		{"a worker is not another worker", worker, true, config(master.ClientTLS(NodeName("i-00000000000000003"))), false, ""},
		{"a user serves nobody", user, true, config(master.ClientTLS("user.millrace")), false, ""},
		{"another site's certificate makes one nobody", master, false, config(Credential{stranger.CertPEM, stranger.KeyPEM, ours.CertPEM()}.ClientTLS(MasterName)), true, ""},
		{"another site's certificate, where somebody must", master, true, config(Credential{stranger.CertPEM, stranger.KeyPEM, ours.CertPEM()}.ClientTLS(MasterName)), false, ""},
		{"another site's master", stranger, false, config(worker.ClientTLS(MasterName)), false, ""},
		{"nobody, where nobody may", master, false, &tls.Config{RootCAs: pool(ours), ServerName: MasterName}, true, ""},
		{"nobody, where somebody must", master, true, &tls.Config{RootCAs: pool(ours), ServerName: MasterName}, false, ""},
		{"TLS 1.2", master, false, &tls.Config{RootCAs: pool(ours), ServerName: MasterName, MaxVersion: tls.VersionTLS12}, false, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			peer, known, serverErr, clientErr := shake(t, config(c.server.ServerTLS(c.require)), c.client)
			if !c.ok {
				require.Error(t, clientErr)
				require.False(t, known)
				return
			}
			require.NoError(t, clientErr)
			require.NoError(t, serverErr)
			require.Equal(t, c.identity != "", known)
			if known {
				require.Equal(t, c.identity, peer.String())
			}
		})
	}
}

func pool(ca *CA) *x509.CertPool {
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(ca.CertPEM())
	return p
}

func TestJoinTLSTrustsTheTokensSiteOnly(t *testing.T) {
	ours, theirs := newCA(t, "ours"), newCA(t, "theirs")
	token := must[Token](t)(NewToken(ours.CertPEM()))
	serve := func(c Credential) *tls.Config { return must[*tls.Config](t)(c.ServerTLS(false)) }

	_, _, _, err := shake(t, serve(issue(t, ours, RoleMaster, masterID)), JoinTLS(token))
	require.NoError(t, err, "a master of the site")

	_, _, _, err = shake(t, serve(issue(t, ours, RoleWorker, workerID)), JoinTLS(token))
	require.ErrorIs(t, err, ErrUntrusted, "a worker of the site is no master")

	_, _, _, err = shake(t, serve(issue(t, theirs, RoleMaster, masterID)), JoinTLS(token))
	require.ErrorIs(t, err, ErrUntrusted, "a master of another site")

	// Somebody who shows our CA beside a certificate that it did not sign.
	forged := serve(issue(t, theirs, RoleMaster, masterID))
	block, _ := pem.Decode(ours.CertPEM())
	forged.Certificates[0].Certificate = append(forged.Certificates[0].Certificate[:1:1], block.Bytes)
	_, _, _, err = shake(t, forged, JoinTLS(token))
	require.ErrorIs(t, err, ErrUntrusted)

	alone := serve(issue(t, ours, RoleMaster, masterID))
	alone.Certificates[0].Certificate = alone.Certificates[0].Certificate[:1]
	_, _, _, err = shake(t, alone, JoinTLS(token))
	require.ErrorIs(t, err, ErrUntrusted, "without its CA it cannot be checked")
}

func TestSignRefuses(t *testing.T) {
	ca := newCA(t, "ours")
	_, csr, err := NewKey()
	require.NoError(t, err)
	damaged := append([]byte(nil), csr...)
	damaged[len(damaged)-1] ^= 1
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	strong, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, p384)
	require.NoError(t, err)

	for name, c := range map[string]struct {
		csr []byte
		id  Identity
		ips []string
	}{
		"a node named as a role":  {csr, Identity{"ours", RoleWorker, "master"}, nil},
		"a node id with a dot":    {csr, Identity{"ours", RoleWorker, "a.b"}, nil},
		"no id":                   {csr, Identity{"ours", RoleUser, ""}, nil},
		"a path in a user's name": {csr, Identity{"ours", RoleUser, "../master/x"}, nil},
		"an unknown role":         {csr, Identity{"ours", "admin", "a"}, nil},
		"another site":            {csr, Identity{"theirs", RoleUser, "a"}, nil},
		"no request":              {[]byte("x"), Identity{"ours", RoleUser, "a"}, nil},
		"a request changed later": {damaged, Identity{"ours", RoleUser, "a"}, nil},
		"a key of another kind":   {strong, Identity{"ours", RoleUser, "a"}, nil},
		"an address that is none": {csr, Identity{"ours", RoleWorker, workerID}, []string{"host"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := ca.Sign(c.csr, c.id, c.ips, time.Now(), time.Hour)
			require.Error(t, err)
		})
	}
}

func TestUsersNeverOwnNodeNames(t *testing.T) {
	ca := newCA(t, "ours")
	user := issue(t, ca, RoleUser, "master")
	cert, err := user.Certificate()
	require.NoError(t, err)
	require.Equal(t, []string{"user.millrace"}, cert.DNSNames)
}

func TestCertificatesTolerateClockSkew(t *testing.T) {
	ca := newCA(t, "ours")
	cert, err := issue(t, ca, RoleWorker, workerID).Certificate()
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(-ClockSkew), cert.NotBefore, time.Minute)
	require.WithinDuration(t, time.Now().Add(CertLifetime), cert.NotAfter, time.Minute)
}

func TestCAIsTakenUpAgain(t *testing.T) {
	a, b := newCA(t, "ours"), newCA(t, "ours")
	again, err := LoadCA(a.CertPEM(), a.KeyPEM())
	require.NoError(t, err)
	require.Equal(t, "ours", again.Site())
	_, err = LoadCA(a.CertPEM(), b.KeyPEM())
	require.ErrorContains(t, err, "not the certificate's")
	leaf := issue(t, a, RoleWorker, workerID)
	_, err = LoadCA(leaf.CertPEM, leaf.KeyPEM)
	require.ErrorContains(t, err, "not a site's CA")
	_, err = LoadCA([]byte("x"), []byte("y"))
	require.Error(t, err)
}

func TestRequestForKeepsTheKey(t *testing.T) {
	ca := newCA(t, "ours")
	c := issue(t, ca, RoleWorker, workerID)
	csr, err := RequestFor(c.KeyPEM)
	require.NoError(t, err)
	c.CertPEM, _, err = ca.Sign(csr, Identity{"ours", RoleWorker, workerID}, nil, time.Now(), time.Hour)
	require.NoError(t, err)
	_, err = c.ClientTLS(MasterName)
	require.NoError(t, err, "the new certificate fits the old key")
	_, err = c.ClientTLS("")
	require.Error(t, err)
}

func TestASerialTellsTheKey(t *testing.T) {
	ca := newCA(t, "ours")
	id := Identity{"ours", RoleWorker, workerID}
	key, csr, err := NewKey()
	require.NoError(t, err)
	_, first, err := ca.Sign(csr, id, nil, time.Now(), time.Hour)
	require.NoError(t, err)
	_, second, err := ca.Sign(csr, id, nil, time.Now(), time.Hour)
	require.NoError(t, err)
	require.NotEqual(t, first, second)

	again, err := RequestFor(key)
	require.NoError(t, err)
	require.True(t, SameKey(first, again))
	require.True(t, SameKey(second, again))
	_, other, err := NewKey()
	require.NoError(t, err)
	require.False(t, SameKey(first, other))
	require.False(t, SameKey("", again))
	require.False(t, SameKey("zz", again))
	require.False(t, SameKey(first, nil))
}

func TestToken(t *testing.T) {
	ca := newCA(t, "ours")
	a, err := NewToken(ca.CertPEM())
	require.NoError(t, err)
	b, err := NewToken(ca.CertPEM())
	require.NoError(t, err)
	require.NotEqual(t, a.Secret, b.Secret)
	require.Equal(t, a.CAHash, b.CAHash)
	require.True(t, strings.HasPrefix(a.String(), "mr1."+a.ID+"."))

	again, err := ParseToken(" " + a.String() + "\n")
	require.NoError(t, err)
	require.Equal(t, a, again)
	require.True(t, again.Matches(a.SecretHash()))
	require.False(t, again.Matches(b.SecretHash()))
	require.False(t, again.Matches(nil))

	for _, s := range []string{"", "mr1", "mr2" + a.String()[3:], a.String()[:60], a.String() + ".x",
		"mr1.." + a.Secret + "." + a.CAHash, "mr1.-x." + a.Secret + "." + a.CAHash, a.String()[:len(a.String())-1]} {
		_, err := ParseToken(s)
		require.ErrorIs(t, err, ErrMalformedToken, "%q", s)
		require.NotContains(t, err.Error(), a.Secret)
	}
}

func TestSeal(t *testing.T) {
	k, err := NewSealKey()
	require.NoError(t, err)
	other, err := NewSealKey()
	require.NoError(t, err)
	sealed, err := k.Seal([]byte("secret"))
	require.NoError(t, err)
	require.NotContains(t, string(sealed), "secret")
	twice, err := k.Seal([]byte("secret"))
	require.NoError(t, err)
	require.NotEqual(t, sealed, twice)
	plain, err := k.Open(sealed)
	require.NoError(t, err)
	require.Equal(t, "secret", string(plain))

	_, err = other.Open(sealed)
	require.ErrorIs(t, err, ErrSeal)
	for i := range sealed {
		changed := append([]byte(nil), sealed...)
		changed[i] ^= 1
		_, err := k.Open(changed)
		require.ErrorIs(t, err, ErrSeal, "byte %d", i)
		_, err = k.Open(sealed[:i])
		require.ErrorIs(t, err, ErrSeal, "cut at %d", i)
	}
}

func FuzzParseToken(f *testing.F) {
	ca, err := NewCA("ours")
	if err != nil {
		f.Fatal(err)
	}
	token, err := NewToken(ca.CertPEM())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token.String())
	f.Add("mr1...")
	f.Fuzz(func(t *testing.T, s string) {
		parsed, err := ParseToken(s)
		if err != nil {
			return
		}
		if parsed.String() != strings.TrimSpace(s) {
			t.Fatalf("%q parsed to another token %q", s, parsed)
		}
	})
}

func FuzzParseIdentity(f *testing.F) {
	f.Add("millrace://ours/worker/i-00000000000000001")
	f.Add("millrace://ours/user/a@b")
	f.Fuzz(func(t *testing.T, s string) {
		i, err := ParseIdentity(s)
		if err != nil {
			return
		}
		again, err := ParseIdentity(i.String())
		if err != nil || again != i {
			t.Fatalf("%q: %v became %v: %v", s, i, again, err)
		}
	})
}

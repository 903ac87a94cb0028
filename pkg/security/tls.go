package security

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"time"
)

// Credential is a certificate with its key and the CA to trust.
type Credential struct{ CertPEM, KeyPEM, CAPEM []byte }

// ServerTLS serves with the credential. Certificates of clients are verified if given; with
// require they must be. h2 and http/1.1 by ALPN. All that is trusted is sent along, so that
// who holds no more than a token can check the chain (JoinTLS).
func (c Credential) ServerTLS(require bool) (*tls.Config, error) {
	pair, pool, err := c.load()
	if err != nil {
		return nil, err
	}
	cas, err := decodeCerts(c.CAPEM)
	if err != nil {
		return nil, fmt.Errorf("CA of credential: %w", err)
	}
	pair.Certificate = pair.Certificate[:1:1]
	for _, ca := range cas {
		pair.Certificate = append(pair.Certificate, ca.Raw)
	}
	auth := tls.VerifyClientCertIfGiven
	if require {
		auth = tls.RequireAndVerifyClientCert
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		ClientCAs:    pool,
		ClientAuth:   auth,
		NextProtos:   []string{"h2", "http/1.1"},
	}, nil
}

// ClientTLS connects to a server that must have the given name: "master.millrace" for
// any master, NODE-ID + ".millrace" for one node. ALPN is left to the transport. A server is trusted that is of one of the
// credential's CAs, or of a CA that one of them vouches for: who was away while the site changed its CA knows the old one only.
func (c Credential) ClientTLS(serverName string) (*tls.Config, error) {
	pair, _, err := c.load()
	if err != nil {
		return nil, err
	}
	if serverName == "" {
		return nil, errors.New("TLS without a server name would trust every node")
	}
	trusted, err := decodeCerts(c.CAPEM)
	if err != nil {
		return nil, fmt.Errorf("CA of credential: %w", err)
	}
	own, err := c.Identity()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		ServerName:   serverName,
		// The usual verification takes no CA's word for another one; VerifyConnection does all of it, on each connection.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			return verifyServer(own, trusted, serverName, s.PeerCertificates, time.Now())
		},
	}, nil
}

// Identity is whom the credential's certificate names. It is not verified.
func (c Credential) Identity() (Identity, error) {
	cert, err := decodeCert(c.CertPEM)
	if err != nil {
		return Identity{}, fmt.Errorf("certificate of credential: %w", err)
	}
	return certificateIdentity(cert)
}

// Certificate is the credential's own certificate, parsed.
func (c Credential) Certificate() (*x509.Certificate, error) {
	cert, err := decodeCert(c.CertPEM)
	if err != nil {
		return nil, fmt.Errorf("certificate of credential: %w", err)
	}
	return cert, nil
}

func (c Credential) load() (tls.Certificate, *x509.CertPool, error) {
	pair, err := tls.X509KeyPair(c.CertPEM, c.KeyPEM)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("credential: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(c.CAPEM) {
		return tls.Certificate{}, nil, errors.New("credential: no CA certificate")
	}
	return pair, pool, nil
}

// JoinTLS connects to a master before one has a certificate: the chain must end in a CA with the token's hash.
func JoinTLS(t Token) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: MasterName,
		// The usual verification needs the CA, which is what one does not have yet;
		// VerifyConnection does all of it, from the CA that the hash picks.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			return verifyJoin(t.CAHash, s.PeerCertificates, time.Now())
		},
	}
}

func hashOf(der []byte) string {
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

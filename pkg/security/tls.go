package security

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
)

// ErrUntrusted says that a server is not of the site whose token one holds.
var ErrUntrusted = errors.New("the server is not a master of the token's site")

// Credential is a certificate with its key and the CA to trust.
type Credential struct{ CertPEM, KeyPEM, CAPEM []byte }

// ServerTLS serves with the credential. Certificates of clients are verified if given; with
// require they must be. h2 and http/1.1 by ALPN. The CA is sent along, so that
// who holds no more than a token can check the chain (JoinTLS).
func (c Credential) ServerTLS(require bool) (*tls.Config, error) {
	pair, pool, err := c.load()
	if err != nil {
		return nil, err
	}
	ca, err := decodeCert(c.CAPEM)
	if err != nil {
		return nil, fmt.Errorf("CA of credential: %w", err)
	}
	pair.Certificate = append(pair.Certificate[:1:1], ca.Raw)
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
// any master, NODE-ID + ".millrace" for one node. ALPN is left to the transport.
func (c Credential) ClientTLS(serverName string) (*tls.Config, error) {
	pair, pool, err := c.load()
	if err != nil {
		return nil, err
	}
	if serverName == "" {
		return nil, errors.New("TLS without a server name would trust every node")
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		RootCAs:      pool,
		ServerName:   serverName,
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
			return verifyJoin(t.CAHash, s.PeerCertificates)
		},
	}
}

func verifyJoin(caHash string, chain []*x509.Certificate) error {
	if len(chain) < 2 {
		return fmt.Errorf("%w: it sends no CA", ErrUntrusted)
	}
	for _, ca := range chain[1:] {
		if subtle.ConstantTimeCompare([]byte(hashOf(ca.Raw)), []byte(caHash)) != 1 {
			continue
		}
		if !ca.IsCA {
			break
		}
		roots := x509.NewCertPool()
		roots.AddCert(ca)
		_, err := chain[0].Verify(x509.VerifyOptions{
			Roots:     roots,
			DNSName:   MasterName,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUntrusted, err)
		}
		return nil
	}
	return fmt.Errorf("%w: its CA is another one", ErrUntrusted)
}

func hashOf(der []byte) string {
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Package security is the site's public key infrastructure: its CA, certificates of
// nodes and users, join tokens, TLS configurations, and the seal of secrets in the log.
package security

import (
	"crypto/tls"
	"time"
)

// Role is what a certificate's holder may be.
type Role string

const (
	RoleMaster Role = "master"
	RoleWorker Role = "worker"
	RoleUser   Role = "user"
)

// Identity is what a verified certificate says: URI SAN millrace://SITE/ROLE/ID.
type Identity struct {
	Site string
	Role Role
	ID   string // node id, or user name
}

// CA signs certificates of one site.
type CA struct{}

// NewCA makes a CA for a site: ECDSA P-256.
func NewCA(site string) (*CA, error)             { panic("unwritten") }
func LoadCA(certPEM, keyPEM []byte) (*CA, error) { panic("unwritten") }
func (c *CA) CertPEM() []byte                    { panic("unwritten") }
func (c *CA) KeyPEM() []byte                     { panic("unwritten") }

// Sign issues a certificate for the public key of a CSR. Names come from id alone:
// DNS SANs ROLE.millrace and ID.millrace, IP SANs given, the URI SAN.
func (c *CA) Sign(csrDER []byte, id Identity, ips []string, now time.Time, ttl time.Duration) (certPEM []byte, serial string, err error) {
	panic("unwritten")
}

// NewKey makes a private key and a CSR for it.
func NewKey() (keyPEM, csrDER []byte, err error) { panic("unwritten") }

// Credential is a certificate with its key and the CA to trust.
type Credential struct{ CertPEM, KeyPEM, CAPEM []byte }

// ServerTLS serves with the credential. Certificates of clients are verified if given; with
// require they must be. h2 and http/1.1 by ALPN.
func (c Credential) ServerTLS(require bool) (*tls.Config, error) { panic("unwritten") }

// ClientTLS connects to a server that must have the given name: "master.millrace" for
// any master, NODE-ID + ".millrace" for one node.
func (c Credential) ClientTLS(serverName string) (*tls.Config, error) { panic("unwritten") }
func (c Credential) Identity() (Identity, error)                      { panic("unwritten") }

// PeerIdentity reads the identity of a verified peer; false if there is none.
func PeerIdentity(s *tls.ConnectionState) (Identity, bool) { panic("unwritten") }

// Token is a join token: mr1.ID.SECRET.CAHASH, so that who joins can check the master, too.
type Token struct{ ID, Secret, CAHash string }

func NewToken(caPEM []byte) (Token, error) { panic("unwritten") }
func ParseToken(s string) (Token, error)   { panic("unwritten") }
func (t Token) String() string             { panic("unwritten") }
func (t Token) SecretHash() []byte         { panic("unwritten") }

// JoinTLS connects to a master before one has a certificate: the chain must end in a CA with the token's hash.
func JoinTLS(t Token) *tls.Config { panic("unwritten") }

// SealKey seals secrets: AES-256-GCM.
type SealKey [32]byte

func NewSealKey() (SealKey, error)                   { panic("unwritten") }
func (k SealKey) Seal(plain []byte) ([]byte, error)  { panic("unwritten") }
func (k SealKey) Open(sealed []byte) ([]byte, error) { panic("unwritten") }

// Package security is the site's public key infrastructure: its CA, certificates of
// nodes and users, join tokens, TLS configurations, and the seal of secrets in the log.
//
// It decides who somebody is, never what they may do: that is the server's.
// Everything is ECDSA P-256, SHA-256, TLS 1.3 and AES-256-GCM, from the
// standard library alone.
package security

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// Role is what a certificate's holder may be.
type Role string

// The roles. Their DNS names are ROLE.millrace.
const (
	RoleMaster Role = "master"
	RoleWorker Role = "worker"
	RoleUser   Role = "user"
)

// MasterName is the server name that every master's certificate carries.
const MasterName = "master.millrace"

// NodeName is the server name that only the given node's certificate carries.
func NodeName(nodeID string) string { return nodeID + ".millrace" }

// ErrIdentity says that a certificate or a request for one does not name anybody.
var ErrIdentity = errors.New("no such identity")

// Identity is what a verified certificate says: URI SAN millrace://SITE/ROLE/ID.
type Identity struct {
	Site string
	Role Role
	ID   string // node id, or user name
}

// String is the URI SAN.
func (i Identity) String() string {
	u := url.URL{Scheme: "millrace", Host: i.Site, Path: "/" + string(i.Role) + "/" + i.ID}
	return u.String()
}

var (
	siteForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	nodeForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	userForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$`)
)

// Valid says whether certificates can name the identity; ErrIdentity if not.
func (i Identity) Valid() error { return i.validate() }

// validate keeps names out of certificates that could be taken for another's:
// a node called "master" would own the name by which clients know masters.
func (i Identity) validate() error {
	if !siteForm.MatchString(i.Site) {
		return fmt.Errorf("%w: site %q", ErrIdentity, i.Site)
	}
	switch i.Role {
	case RoleMaster, RoleWorker:
		if !nodeForm.MatchString(i.ID) || isRole(i.ID) {
			return fmt.Errorf("%w: node id %q", ErrIdentity, i.ID)
		}
	case RoleUser:
		if !userForm.MatchString(i.ID) {
			return fmt.Errorf("%w: user name %q (letters, digits and . _ @ + - only)", ErrIdentity, i.ID)
		}
	default:
		return fmt.Errorf("%w: role %q", ErrIdentity, i.Role)
	}
	return nil
}

func isRole(s string) bool {
	return s == string(RoleMaster) || s == string(RoleWorker) || s == string(RoleUser)
}

// dnsNames are the server names of the identity. A user has only the role's:
// nobody connects to a user.
func (i Identity) dnsNames() []string {
	names := []string{string(i.Role) + ".millrace"}
	if i.Role != RoleUser {
		names = append(names, NodeName(i.ID))
	}
	return names
}

// ParseIdentity reads the URI form.
func ParseIdentity(s string) (Identity, error) {
	u, err := url.Parse(s)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %q", ErrIdentity, s)
	}
	return identityOf(u)
}

func identityOf(u *url.URL) (Identity, error) {
	role, id, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	i := Identity{Site: u.Host, Role: Role(role), ID: id}
	if u.Scheme != "millrace" || !ok || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return Identity{}, fmt.Errorf("%w: %q", ErrIdentity, u.String())
	}
	if err := i.validate(); err != nil {
		return Identity{}, err
	}
	return i, nil
}

func certificateIdentity(c *x509.Certificate) (Identity, error) {
	if len(c.URIs) != 1 {
		return Identity{}, fmt.Errorf("%w: certificate with %d URIs", ErrIdentity, len(c.URIs))
	}
	return identityOf(c.URIs[0])
}

// PeerIssued is when the certificate of a verified peer was made, by the clock of the master that made it; to the second.
func PeerIssued(s *tls.ConnectionState) time.Time {
	if s == nil || len(s.VerifiedChains) == 0 || len(s.VerifiedChains[0]) == 0 {
		return time.Time{}
	}
	return s.VerifiedChains[0][0].NotBefore.Add(ClockSkew)
}

// PeerIdentity reads the identity of a verified peer; false if there is none.
func PeerIdentity(s *tls.ConnectionState) (Identity, bool) {
	if s == nil || len(s.VerifiedChains) == 0 || len(s.VerifiedChains[0]) == 0 {
		return Identity{}, false
	}
	i, err := certificateIdentity(s.VerifiedChains[0][0])
	return i, err == nil
}

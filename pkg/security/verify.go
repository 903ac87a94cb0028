package security

import (
	"cmp"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// ErrUntrusted says that a server is not of the site whose token one holds.
var ErrUntrusted = errors.New("the server is not a master of the token's site")

// StrangerError says that a server is not of the credential's site, or of a CA that the credential neither trusts nor has vouched for.
// TLS has it within a tls.CertificateVerificationError.
type StrangerError struct {
	Own  Identity // whom the credential names
	Site string   // the server's, by its own word; "": it is no node of any
}

func (e *StrangerError) Error() string {
	switch e.Site {
	case "":
		return fmt.Sprintf("what answers there is no node of a Millrace site; the credential is for site %s", e.Own.Site)
	case e.Own.Site:
		return fmt.Sprintf("the server's certificate is of a CA of site %s that the credential does not know: the site was given a new CA since, and trusts the one before no more", e.Site)
	}
	return fmt.Sprintf("the server is of site %s, and the credential is for site %s", e.Site, e.Own.Site)
}

// The certificate of a CA allows no other CA beneath it (a path length of 0), so that X.509 finds no way from a CA to the next one
// that it vouches for. Both of the following take the next one for a root instead, after vouches has looked at it; all else is
// the usual verification.

// verifyServer is what a client that has a credential does: the server must be of a CA that it trusts, or of one that such a CA
// vouches for, and have the name.
func verifyServer(own Identity, trusted []*x509.Certificate, name string, chain []*x509.Certificate, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("the server has no certificate")
	}
	err := verifyLeaf(chain[0], roots(trusted, chain[1:], now), name, now)
	if err == nil {
		return nil
	}
	id, _ := certificateIdentity(chain[0])
	if unknown := (x509.UnknownAuthorityError{}); id.Site != own.Site || errors.As(err, &unknown) {
		err = &StrangerError{Own: own, Site: id.Site}
	}
	return &tls.CertificateVerificationError{UnverifiedCertificates: chain, Err: err}
}

// verifyJoin is what one does who has no more than the hash of the site's CA: that CA must be among those that the server sends.
func verifyJoin(caHash string, chain []*x509.Certificate, now time.Time) error {
	if len(chain) < 2 {
		return fmt.Errorf("%w: it sends no CA", ErrUntrusted)
	}
	var trusted []*x509.Certificate
	for _, ca := range chain[1:] {
		if ca.IsCA && subtle.ConstantTimeCompare([]byte(hashOf(ca.Raw)), []byte(caHash)) == 1 {
			trusted = append(trusted, ca)
		}
	}
	if len(trusted) == 0 {
		return fmt.Errorf("%w: its CA is another one: the token or code was mistyped or cut, or the address is of another site", ErrUntrusted)
	}
	if err := verifyLeaf(chain[0], roots(trusted, chain[1:], now), MasterName, now); err != nil {
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	return nil
}

// verifyLeaf checks a server's certificate: signature, name, dates, usage; and that it is of the site of the CA that issued it.
func verifyLeaf(leaf *x509.Certificate, roots *x509.CertPool, name string, now time.Time) error {
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, DNSName: name, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	id, unknown := certificateIdentity(leaf)
	if other := (x509.HostnameError{}); unknown == nil && errors.As(err, &other) { // whose words are names of ours alone
		return fmt.Errorf("%s node %s answers there", id.Role, id.ID)
	}
	if err = cmp.Or(err, unknown); err != nil {
		return err
	}
	if ca := chains[0][len(chains[0])-1]; siteOf(ca) != id.Site {
		return fmt.Errorf("a certificate for site %s is of the CA of site %q", id.Site, siteOf(ca))
	}
	return nil
}

// roots are the CAs that are trusted, and those among the ones sent that a trusted one vouches for.
func roots(trusted, sent []*x509.Certificate, now time.Time) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, ca := range trusted {
		pool.AddCert(ca)
		for _, next := range sent {
			if vouches(ca, next, now) {
				pool.AddCert(next)
			}
		}
	}
	return pool
}

// vouches says whether next is what Vouch of the CA made: a CA of the same site, by the CA's signature, while both are valid.
func vouches(ca, next *x509.Certificate, now time.Time) bool {
	return isCA(ca, now) && isCA(next, now) && siteOf(ca) == siteOf(next) && next.CheckSignatureFrom(ca) == nil
}

// isCA says whether a certificate is one by which a site's certificates are signed at a moment.
func isCA(c *x509.Certificate, now time.Time) bool {
	return c.BasicConstraintsValid && c.IsCA && c.KeyUsage&x509.KeyUsageCertSign != 0 && siteOf(c) != "" &&
		!now.Before(c.NotBefore) && !now.After(c.NotAfter)
}

// siteOf is the site whose CA a certificate is; "" if it is none's.
func siteOf(ca *x509.Certificate) string {
	if len(ca.URIs) != 1 || ca.URIs[0].Scheme != "millrace" || ca.URIs[0].Path != "" {
		return ""
	}
	return ca.URIs[0].Host
}

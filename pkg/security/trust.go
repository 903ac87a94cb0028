package security

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// While a site changes its CA, both are trusted: what is trusted is a bundle of certificates, the one that issues first.
// The CA that was before vouches for the next one, so that who knows no more than the hash of the old one (Token) can tell
// that the new one is the site's.

// Vouch makes a certificate that says, by this CA's word, that next is the site's, too.
func (c *CA) Vouch(next *CA, now time.Time) ([]byte, error) {
	if next.Site() != c.Site() {
		return nil, fmt.Errorf("vouch for a CA of site %s: this one is of site %s", next.Site(), c.Site())
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: next.cert.Subject, SubjectKeyId: next.cert.SubjectKeyId, URIs: next.cert.URIs,
		NotBefore: now.Add(-ClockSkew), NotAfter: c.cert.NotAfter,
		KeyUsage: next.cert.KeyUsage, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, next.key.Public(), c.key)
	if err != nil {
		return nil, fmt.Errorf("vouch for a CA: %w", err)
	}
	return encodeCert(der), nil
}

// Bundle joins certificates, the one that issues first.
func Bundle(certPEMs ...[]byte) []byte { return bytes.Join(certPEMs, nil) }

// Issuer is the first certificate of a bundle: the one that issues.
func Issuer(caPEM []byte) ([]byte, error) {
	certs, err := decodeCerts(caPEM)
	if err != nil {
		return nil, err
	}
	return encodeCert(certs[0].Raw), nil
}

// Fingerprint is the SHA-256 of the certificate that issues, in hex, as people compare it.
func Fingerprint(caPEM []byte) (string, error) {
	certs, err := decodeCerts(caPEM)
	if err != nil {
		return "", fmt.Errorf("CA: %w", err)
	}
	sum := sha256.Sum256(certs[0].Raw)
	return hex.EncodeToString(sum[:]), nil
}

// TrustID names a bundle: two are alike if all their certificates are, and the same one issues.
func TrustID(caPEM []byte) string {
	certs, err := decodeCerts(caPEM)
	if err != nil {
		return ""
	}
	hash := sha256.New()
	for _, c := range certs {
		hash.Write(c.Raw)
	}
	return hex.EncodeToString(hash.Sum(nil)[:16])
}

// InUse is TrustID of what the credential trusts, if its own certificate is of the CA that issues; else that of a bundle
// that nobody has. So one word says that a node has taken up all that there is to take up.
func (c Credential) InUse() string {
	cert, err := decodeCert(c.CertPEM)
	if err != nil {
		return ""
	}
	certs, err := decodeCerts(c.CAPEM)
	if err != nil || cert.CheckSignatureFrom(certs[0]) != nil {
		return ""
	}
	return TrustID(c.CAPEM)
}

// decodeCerts reads a bundle: at least one certificate, and nothing else.
func decodeCerts(certPEM []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := certPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a PEM block is %s, not CERTIFICATE", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("no PEM certificate")
	}
	return certs, nil
}

package security

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"
)

// How long certificates live, and how far clocks may be apart.
const (
	CALifetime   = 10 * 365 * 24 * time.Hour
	CertLifetime = 365 * 24 * time.Hour // of nodes and users
	ClockSkew    = 48 * time.Hour       // certificates are valid from so long before they were made: clocks may be a day apart, and more
)

// CA signs certificates of one site.
type CA struct {
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	certPEM []byte // and what else is trusted
	keyPEM  []byte
}

// NewCA makes a CA for a site: ECDSA P-256. The site's id is lower-case
// letters, digits and hyphens, as a host name.
func NewCA(site string) (*CA, error) {
	if !siteForm.MatchString(site) {
		return nil, fmt.Errorf("make CA: %w: site %q", ErrIdentity, site)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Millrace"}, CommonName: "Millrace site " + site},
		NotBefore:             now.Add(-ClockSkew),
		NotAfter:              now.Add(CALifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		URIs:                  []*url.URL{{Scheme: "millrace", Host: site}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make CA certificate: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return LoadCA(encodeCert(der), keyPEM)
}

// LoadCA takes up a CA made before. Of a bundle the first certificate is the one that issues.
func LoadCA(certPEM, keyPEM []byte) (*CA, error) {
	cert, err := decodeCert(certPEM)
	if err != nil {
		return nil, fmt.Errorf("load CA: %w", err)
	}
	if !cert.IsCA || siteOf(cert) == "" {
		return nil, errors.New("load CA: the certificate is not a site's CA")
	}
	key, err := decodeKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("load CA: %w", err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("load CA: the key is not the certificate's")
	}
	return &CA{cert: cert, key: key, certPEM: certPEM, keyPEM: keyPEM}, nil
}

// Site is the id of the site whose CA it is.
func (c *CA) Site() string { return siteOf(c.cert) }

// CertPEM is what to trust: the CA's certificate, and what else was in the bundle that it was loaded from.
func (c *CA) CertPEM() []byte { return c.certPEM }

// KeyPEM is the private key: to be sealed before it is written anywhere.
func (c *CA) KeyPEM() []byte { return c.keyPEM }

// Sign issues a certificate for the public key of a CSR. Names come from id alone:
// DNS SANs ROLE.millrace and (nodes) ID.millrace, IP SANs given, the URI SAN. It is valid
// from ClockSkew before now until ttl after. The serial is lower-case hex; it tells the key (SameKey).
func (c *CA) Sign(csrDER []byte, id Identity, ips []string, now time.Time, ttl time.Duration) (certPEM []byte, serial string, err error) {
	if err := id.validate(); err != nil {
		return nil, "", fmt.Errorf("sign certificate: %w", err)
	}
	if id.Site != c.Site() {
		return nil, "", fmt.Errorf("sign certificate of %s: the CA is of site %s", id, c.Site())
	}
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, "", fmt.Errorf("sign certificate of %s: read request: %w", id, err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, "", fmt.Errorf("sign certificate of %s: request: %w", id, err)
	}
	public, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, "", fmt.Errorf("sign certificate of %s: the key must be ECDSA P-256", id)
	}
	serialNumber, err := serialFor(public)
	if err != nil {
		return nil, "", fmt.Errorf("sign certificate of %s: %w", id, err)
	}
	template, err := leafTemplate(id, ips, now, ttl)
	if err != nil {
		return nil, "", fmt.Errorf("sign certificate of %s: %w", id, err)
	}
	template.SerialNumber = serialNumber
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, public, c.key)
	if err != nil {
		return nil, "", fmt.Errorf("sign certificate of %s: %w", id, err)
	}
	return encodeCert(der), template.SerialNumber.Text(16), nil
}

func leafTemplate(id Identity, ips []string, now time.Time, ttl time.Duration) (*x509.Certificate, error) {
	uri, err := url.Parse(id.String())
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"Millrace"}, OrganizationalUnit: []string{string(id.Role)}, CommonName: id.ID},
		NotBefore:             now.Add(-ClockSkew),
		NotAfter:              now.Add(ttl),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		DNSNames:              id.dnsNames(),
		URIs:                  []*url.URL{uri},
	}
	if id.Role != RoleUser { // a user's certificate never serves
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, s := range ips {
		ip := net.ParseIP(s)
		if ip == nil {
			return nil, fmt.Errorf("%q is no IP address", s)
		}
		t.IPAddresses = append(t.IPAddresses, ip)
	}
	return t, nil
}

// NewKey makes a private key and a CSR for it.
func NewKey() (keyPEM, csrDER []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	if keyPEM, err = encodeKey(key); err != nil {
		return nil, nil, err
	}
	csr, err := csrFor(key)
	return keyPEM, csr, err
}

// RequestFor makes a CSR for a key made before.
func RequestFor(keyPEM []byte) (csrDER []byte, err error) {
	key, err := decodeKey(keyPEM)
	if err != nil {
		return nil, err
	}
	return csrFor(key)
}

func csrFor(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return der, nil
}

// keyHashLen is how many bytes of the public key's SHA-256 a serial carries: with the
// leading byte and 8 random ones, a serial stays within the 20 bytes of RFC 5280.
const keyHashLen = 10

// serialFor makes a serial number: 1, then the hash of the key, then random bytes. So a record of
// the serial is enough to tell whether somebody comes with the same key again.
func serialFor(public *ecdsa.PublicKey) (*big.Int, error) {
	hash, err := keyHash(public)
	if err != nil {
		return nil, err
	}
	b := append([]byte{1}, hash...)
	b = append(b, make([]byte, 8)...)
	if _, err := rand.Read(b[1+keyHashLen:]); err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	return new(big.Int).SetBytes(b), nil
}

func keyHash(public *ecdsa.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return sum[:keyHashLen], nil
}

// SameKey says whether a CSR, whose signature is right, is for the key of the certificate with
// the given serial (from Sign).
func SameKey(serial string, csrDER []byte) bool {
	n, ok := new(big.Int).SetString(serial, 16)
	if !ok {
		return false
	}
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil || csr.CheckSignature() != nil {
		return false
	}
	public, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return false
	}
	hash, err := keyHash(public)
	b := n.Bytes()
	return err == nil && len(b) == 1+keyHashLen+8 && bytes.Equal(b[1:1+keyHashLen], hash)
}

func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil // RFC 5280: positive
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func decodeCert(certPEM []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(certPEM)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("no PEM certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func decodeKey(keyPEM []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("no PEM private key")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read private key: %w", err)
	}
	k, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("the private key is not ECDSA")
	}
	return k, nil
}

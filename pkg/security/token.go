package security

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// What a string is not.
var (
	ErrMalformedToken = errors.New("not a join token")
	ErrMalformedCode  = errors.New("not a login code")
)

const tokenVersion = "mr1"

// The ids of join tokens and login codes begin so.
const (
	joinPrefix  = "t-"
	loginPrefix = "c-"
)

// Token is a join token, or a person's login code: mr1.ID.SECRET.CAHASH, so that who joins can check the master, too.
// SECRET and CAHASH are 32 bytes each in base64url; CAHASH is the SHA-256 of the CA's DER.
type Token struct{ ID, Secret, CAHash string }

var tokenID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// NewToken makes a join token for the site of the CA (of a bundle the one that issues). The id is fit to be typed: lower
// case, never a leading hyphen.
func NewToken(caPEM []byte) (Token, error) {
	var seed [32]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return Token{}, fmt.Errorf("make token: %w", err)
	}
	return TokenOf(caPEM, seed)
}

// TokenOf makes the join token that goes with a secret seed: the same again for the same seed.
func TokenOf(caPEM []byte, seed [32]byte) (Token, error) { return tokenOf(joinPrefix, caPEM, seed) }

// CodeOf makes the login code that goes with a secret seed.
func CodeOf(caPEM []byte, seed [32]byte) (Token, error) { return tokenOf(loginPrefix, caPEM, seed) }

func tokenOf(prefix string, caPEM []byte, seed [32]byte) (Token, error) {
	ca, err := decodeCert(caPEM)
	if err != nil {
		return Token{}, fmt.Errorf("make token: CA: %w", err)
	}
	part := func(what string) []byte {
		mac := hmac.New(sha256.New, seed[:])
		mac.Write([]byte(prefix + what))
		return mac.Sum(nil)
	}
	id := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(part("id"))
	return Token{
		ID:     prefix + strings.ToLower(id[:13]),
		Secret: base64.RawURLEncoding.EncodeToString(part("secret")),
		CAHash: hashOf(ca.Raw),
	}, nil
}

// ParseCode reads a login code. An error never repeats it.
func ParseCode(s string) (Token, error) {
	t, err := parse(s, ErrMalformedCode)
	switch {
	case err != nil:
		return Token{}, err
	case strings.HasPrefix(t.ID, joinPrefix):
		return Token{}, fmt.Errorf("%w: it is a join token, with which a machine joins: millrace join", ErrMalformedCode)
	case !strings.HasPrefix(t.ID, loginPrefix):
		return Token{}, fmt.Errorf("%w: its id is malformed", ErrMalformedCode)
	}
	return t, nil
}

// ParseToken reads a join token. An error never repeats it: it is a secret.
func ParseToken(s string) (Token, error) {
	t, err := parse(s, ErrMalformedToken)
	if err == nil && strings.HasPrefix(t.ID, loginPrefix) {
		return Token{}, fmt.Errorf("%w: it is a person's login code: millrace login", ErrMalformedToken)
	}
	return t, err
}

// OfSite says whether the token was made under one of the CAs of a bundle.
func (t Token) OfSite(caPEM []byte) (bool, error) {
	cas, err := decodeCerts(caPEM)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(cas, func(ca *x509.Certificate) bool { return hashOf(ca.Raw) == t.CAHash }), nil
}

func parse(s string, malformed error) (Token, error) {
	parts := strings.Split(strings.TrimSpace(s), ".")
	if len(parts) != 4 || parts[0] != tokenVersion {
		return Token{}, fmt.Errorf("%w: it should look like %s.ID.SECRET.HASH", malformed, tokenVersion)
	}
	t := Token{ID: parts[1], Secret: parts[2], CAHash: parts[3]}
	if !tokenID.MatchString(t.ID) {
		return Token{}, fmt.Errorf("%w: its id is malformed", malformed)
	}
	for what, v := range map[string]string{"secret": t.Secret, "hash": t.CAHash} {
		if b, err := base64.RawURLEncoding.Strict().DecodeString(v); err != nil || len(b) != 32 || strings.ContainsAny(v, "\r\n") {
			return Token{}, fmt.Errorf("%w: its %s is cut off or changed", malformed, what)
		}
	}
	return t, nil
}

// String is the whole token, secret included.
func (t Token) String() string {
	return strings.Join([]string{tokenVersion, t.ID, t.Secret, t.CAHash}, ".")
}

// SecretHash is what a site keeps of a token.
func (t Token) SecretHash() []byte {
	sum := sha256.Sum256([]byte(t.Secret))
	return sum[:]
}

// Matches compares the token's secret with a kept hash, in constant time.
func (t Token) Matches(secretHash []byte) bool {
	return subtle.ConstantTimeCompare(t.SecretHash(), secretHash) == 1
}

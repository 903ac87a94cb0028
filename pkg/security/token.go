package security

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// ErrMalformedToken says that a string is no join token.
var ErrMalformedToken = errors.New("not a join token")

const tokenVersion = "mr1"

// Token is a join token: mr1.ID.SECRET.CAHASH, so that who joins can check the master, too.
// SECRET and CAHASH are 32 bytes each in base64url; CAHASH is the SHA-256 of the CA's DER.
type Token struct{ ID, Secret, CAHash string }

var tokenID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// NewToken makes a token for the site of the CA. The id is fit to be typed: lower
// case, never a leading hyphen.
func NewToken(caPEM []byte) (Token, error) {
	ca, err := decodeCert(caPEM)
	if err != nil {
		return Token{}, fmt.Errorf("make token: CA: %w", err)
	}
	var random [42]byte
	if _, err := rand.Read(random[:]); err != nil {
		return Token{}, fmt.Errorf("make token: %w", err)
	}
	id := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(random[32:])
	return Token{
		ID:     "t-" + strings.ToLower(id[:13]),
		Secret: base64.RawURLEncoding.EncodeToString(random[:32]),
		CAHash: hashOf(ca.Raw),
	}, nil
}

// ParseToken reads a token. An error never repeats it: it is a secret.
func ParseToken(s string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(s), ".")
	if len(parts) != 4 || parts[0] != tokenVersion {
		return Token{}, fmt.Errorf("%w: it should look like %s.ID.SECRET.HASH", ErrMalformedToken, tokenVersion)
	}
	t := Token{ID: parts[1], Secret: parts[2], CAHash: parts[3]}
	if !tokenID.MatchString(t.ID) {
		return Token{}, fmt.Errorf("%w: its id is malformed", ErrMalformedToken)
	}
	for what, v := range map[string]string{"secret": t.Secret, "hash": t.CAHash} {
		if b, err := base64.RawURLEncoding.Strict().DecodeString(v); err != nil || len(b) != 32 || strings.ContainsAny(v, "\r\n") {
			return Token{}, fmt.Errorf("%w: its %s is cut off or changed", ErrMalformedToken, what)
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

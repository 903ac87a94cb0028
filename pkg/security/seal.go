package security

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// ErrSeal says that sealed bytes cannot be opened: another key, or changed bytes.
var ErrSeal = errors.New("the seal does not open: another seal key, or damaged data")

// SealKey seals secrets: AES-256-GCM. A key seals far fewer than the 2^32 messages that
// random nonces allow.
type SealKey [32]byte

const sealVersion = 1

// NewSealKey makes a key.
func NewSealKey() (SealKey, error) {
	var k SealKey
	if _, err := rand.Read(k[:]); err != nil {
		return SealKey{}, fmt.Errorf("make seal key: %w", err)
	}
	return k, nil
}

// Seal encrypts: version byte, nonce, cipher text with tag.
func (k SealKey) Seal(plain []byte) ([]byte, error) {
	aead, err := k.aead()
	if err != nil {
		return nil, err
	}
	out := make([]byte, 1+aead.NonceSize(), 1+aead.NonceSize()+len(plain)+aead.Overhead())
	out[0] = sealVersion
	if _, err := rand.Read(out[1:]); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return aead.Seal(out, out[1:], plain, out[:1]), nil
}

// Open decrypts what Seal made, or says ErrSeal.
func (k SealKey) Open(sealed []byte) ([]byte, error) {
	aead, err := k.aead()
	if err != nil {
		return nil, err
	}
	head := 1 + aead.NonceSize()
	if len(sealed) < head+aead.Overhead() || sealed[0] != sealVersion {
		return nil, ErrSeal
	}
	plain, err := aead.Open(nil, sealed[1:head], sealed[head:], sealed[:1])
	if err != nil {
		return nil, ErrSeal
	}
	return plain, nil
}

// Derive gives a secret that goes with words: the same again for the same ones, and nobody's to tell without the key. It
// lets a call whose answer was lost be made again, and be answered the same, though no secret is kept.
func (k SealKey) Derive(words ...string) (secret [32]byte) {
	mac := hmac.New(sha256.New, k[:])
	for _, w := range words {
		fmt.Fprintf(mac, "%d:%s,", len(w), w) // no two lists of words give the same bytes
	}
	mac.Sum(secret[:0])
	return secret
}

func (k SealKey) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(k[:])
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return cipher.NewGCM(block)
}

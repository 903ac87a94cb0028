package server

import (
	"crypto/rand"
	"fmt"
	"math/big"
)

const idLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// NewID makes a random id as EMR has them: the prefix, then 13 of A-Z0-9.
func NewID(prefix string) (string, error) {
	b := make([]byte, 13)
	for i := range b {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(idLetters))))
		if err != nil {
			return "", fmt.Errorf("make id: %w", err)
		}
		b[i] = idLetters[n.Int64()]
	}
	return prefix + string(b), nil
}

// Package joining makes a machine a node of a site: it keeps the node's id and key in the
// node's folder, and trades a token for a certificate at the first start.
package joining

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/nodedir"
	"millrace/pkg/security"
)

const (
	firstRetry = 200 * time.Millisecond
	lastRetry  = 3 * time.Second
	idFile     = "node.id"
)

// ErrNotJoined says that a first start lacks what it takes to join.
var ErrNotJoined = errors.New("the first start needs a join token and the address of a master")

// ErrOtherNode says that the directory holds an identity that does not go with what was asked for.
var ErrOtherNode = errors.New("the directory is another node's")

// Config says who joins what.
type Config struct {
	Dir     *nodedir.Dir
	KeyFile string   // below pki/ in Dir
	Masters []string // https://host:port
	Token   string
	Master  bool   // it joins as a master
	Name    string // of the node, for people
	Version string
	Log     *zap.Logger
}

// Node is a node that has joined.
type Node struct {
	ID     string
	KeyPEM []byte
	Answer *api.JoinResponse
}

// Join makes a key, which never leaves this machine, and trades the token for a certificate.
// Key and id are kept first, so that a start that was cut short comes back as the same node.
// While no master answers it goes on, until ctx ends.
func Join(ctx context.Context, c Config) (*Node, error) {
	var missing []string
	if c.Token == "" {
		missing = append(missing, "a token")
	}
	if len(c.Masters) == 0 {
		missing = append(missing, "a master to join")
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("directory %s holds no identity yet: %w; missing: %s", c.Dir.Path(), ErrNotJoined, strings.Join(missing, ", "))
	}
	id, key, csr, err := c.key()
	if err != nil {
		return nil, err
	}
	resp, err := c.untilAnswered(ctx, &api.JoinRequest{NodeId: id, Name: c.Name, CsrDer: csr, Version: c.Version, AsMaster: c.Master})
	if err != nil {
		return nil, err
	}
	return &Node{ID: id, KeyPEM: key, Answer: resp}, nil
}

// SameSite holds a token, if there is one, against the site that a node has joined. A token
// of its own site is not needed any more, and no mistake: start scripts have it in them. caPEM is what Known gives.
// what names the node and its site, for the error.
func SameSite(token string, caPEM []byte, what string) error {
	if token == "" {
		return nil
	}
	t, err := security.ParseToken(token)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	ours, err := t.OfSite(caPEM)
	if err != nil {
		return fmt.Errorf("the site's certificate: %w", err)
	}
	if !ours {
		return fmt.Errorf("%w: %s, and the token is of another site", ErrOtherNode, what)
	}
	return nil
}

// formerFile has, below pki/, the CAs that the site has had: start scripts may have tokens of them for ever.
const formerFile = "former.pem"

// KeepFormer writes down what was trusted, before something else is.
func KeepFormer(dir *nodedir.Dir, was, now []byte) error {
	if security.TrustID(was) == security.TrustID(now) {
		return nil
	}
	former, err := dir.Read("pki", formerFile)
	if err != nil || bytes.Contains(former, was) {
		return err
	}
	return dir.Write(security.Bundle(former, was), "pki", formerFile)
}

// Known is what a site trusts, and what it once did.
func Known(dir *nodedir.Dir, caPEM []byte) ([]byte, error) {
	former, err := dir.Read("pki", formerFile)
	return security.Bundle(caPEM, former), err
}

// key reads or makes the node's id and key.
func (c *Config) key() (id string, keyPEM, csr []byte, err error) {
	name, err := c.Dir.Read("pki", idFile)
	if err != nil {
		return "", nil, nil, err
	}
	keyPEM, err = c.Dir.Read("pki", c.KeyFile)
	if err != nil {
		return "", nil, nil, err
	}
	if name != nil && keyPEM != nil {
		csr, err = security.RequestFor(keyPEM)
		return string(name), keyPEM, csr, err
	}
	if keyPEM, csr, err = security.NewKey(); err != nil {
		return "", nil, nil, err
	}
	if id, err = NewID(); err != nil {
		return "", nil, nil, err
	}
	if err := c.Dir.Write(keyPEM, "pki", c.KeyFile); err != nil {
		return "", nil, nil, err
	}
	return id, keyPEM, csr, c.Dir.Write([]byte(id), "pki", idFile)
}

// NewID makes a node's id: i- and 17 lower-case hex digits.
func NewID() (string, error) {
	b := make([]byte, 9)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("make id: %w", err)
	}
	return "i-" + hex.EncodeToString(b)[:17], nil
}

// untilAnswered repeats while no master answers: machines start in any order.
func (c *Config) untilAnswered(ctx context.Context, req *api.JoinRequest) (*api.JoinResponse, error) {
	retry, said := firstRetry, false
	for {
		resp, err := client.Join(ctx, c.Masters, c.Token, req)
		switch code := connect.CodeOf(err); {
		case err == nil:
			return resp, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, security.ErrUntrusted), errors.Is(err, client.ErrRaftPort), code != connect.CodeUnavailable && code != connect.CodeDeadlineExceeded:
			return nil, fmt.Errorf("join: %w", err)
		}
		if !said {
			c.Log.Warn("no master answers yet, trying on", zap.Strings("masters", c.Masters), zap.Error(err))
			said = true
		}
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		retry = min(2*retry, lastRetry)
	}
}

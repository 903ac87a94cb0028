package worker

import (
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
	"millrace/pkg/security"
)

// identity is who this node is, with its secrets.
type identity struct {
	nodeFile
	credential security.Credential
	gossipKey  []byte
}

// nodeFile is node.json.
type nodeFile struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Role        string    `json:"role"` // CORE, TASK
	Cluster     string    `json:"cluster"`
	Site        string    `json:"site"`
	JoinedAt    time.Time `json:"joinedAt"`
	Masters     []string  `json:"masters"`     // https://host:port, as last heard
	GossipPeers []string  `json:"gossipPeers"` // host:port
}

const (
	firstJoinRetry = 200 * time.Millisecond
	lastJoinRetry  = 3 * time.Second
	renewBefore    = 3 // a certificate is renewed in the last third of its life
)

// ErrNotJoined says that a first start lacks what it takes to join.
var ErrNotJoined = errors.New("the first start needs a join token and the address of a master")

// ErrOtherNode says that the directory holds an identity that does not go with what was asked for.
var ErrOtherNode = errors.New("the directory is another node's")

// identify reads who the node is, or joins the site at the first start. A token of the
// node's own site is not needed any more, and no mistake: start scripts have it in them.
func (w *Worker) identify(ctx context.Context) (*identity, error) {
	id := &identity{}
	known, err := w.dir.ReadJSON(&id.nodeFile, "node.json")
	if err != nil {
		return nil, err
	}
	if !known {
		return w.join(ctx)
	}
	if id.Role == "MASTER" {
		return nil, fmt.Errorf("%w: %s belongs to a master", ErrOtherNode, w.dir.Path())
	}
	for name, into := range map[string]*[]byte{"node.key": &id.credential.KeyPEM, "node.crt": &id.credential.CertPEM,
		"ca.crt": &id.credential.CAPEM, "gossip.key": &id.gossipKey} {
		if *into, err = w.dir.Read("pki", name); err != nil {
			return nil, err
		}
		if *into == nil {
			return nil, fmt.Errorf("%w: %s is damaged: pki/%s is missing; remove it and join again", ErrOtherNode, w.dir.Path(), name)
		}
	}
	return id, w.sameSite(id)
}

// sameSite holds the token, if there is one, against the site that the node has joined.
func (w *Worker) sameSite(id *identity) error {
	if w.cfg.Token == "" {
		return nil
	}
	token, err := security.ParseToken(w.cfg.Token)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	own, err := security.NewToken(id.credential.CAPEM) // for its hash of the CA
	if err != nil {
		return fmt.Errorf("read %s: %w", w.dir.Path("pki", "ca.crt"), err)
	}
	if token.CAHash != own.CAHash {
		return fmt.Errorf("%w: %s is that of node %s of site %s (%s), and the token is of another site",
			ErrOtherNode, w.dir.Path(), id.ID, id.Site, strings.Join(id.Masters, ", "))
	}
	return nil
}

// join makes a key, which never leaves this machine, and trades the token for a
// certificate. Key and id are kept first, so that a start that was cut short
// comes back as the same node.
func (w *Worker) join(ctx context.Context) (*identity, error) {
	var missing []string
	if w.cfg.Token == "" {
		missing = append(missing, "a token")
	}
	if len(w.cfg.Join) == 0 {
		missing = append(missing, "a master to join")
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("directory %s holds no identity yet: %w; missing: %s", w.dir.Path(), ErrNotJoined, strings.Join(missing, ", "))
	}
	id, key, csr, err := w.key()
	if err != nil {
		return nil, err
	}
	resp, err := w.joinUntilAnswered(ctx, &api.JoinRequest{NodeId: id, Name: w.cfg.Name, CsrDer: csr, Version: w.cfg.Version})
	if err != nil {
		return nil, err
	}
	out := &identity{
		nodeFile: nodeFile{ID: id, Name: w.cfg.Name, Role: resp.Role, Cluster: resp.Cluster, Site: resp.Site, JoinedAt: time.Now().UTC(),
			Masters: resp.Masters, GossipPeers: resp.GossipPeers},
		credential: security.Credential{CertPEM: resp.CertificatePem, KeyPEM: key, CAPEM: resp.CaPem},
		gossipKey:  resp.GossipKey,
	}
	if err := w.keep(out); err != nil {
		return nil, err
	}
	w.log.Info("joined", zap.String("node", id), zap.String("cluster", resp.Cluster), zap.String("role", resp.Role), zap.String("site", resp.Site))
	return out, nil
}

// keep writes the identity, node.json last.
func (w *Worker) keep(id *identity) error {
	for _, f := range []struct {
		name string
		data []byte
	}{{"node.crt", id.credential.CertPEM}, {"ca.crt", id.credential.CAPEM}, {"gossip.key", id.gossipKey}} {
		if err := w.dir.Write(f.data, "pki", f.name); err != nil {
			return err
		}
	}
	return w.dir.WriteJSON(id.nodeFile, "node.json")
}

// key reads or makes the node's id and key.
func (w *Worker) key() (id string, keyPEM, csr []byte, err error) {
	name, err := w.dir.Read("pki", "node.id")
	if err != nil {
		return "", nil, nil, err
	}
	keyPEM, err = w.dir.Read("pki", "node.key")
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
	b := make([]byte, 9)
	if _, err := rand.Read(b); err != nil {
		return "", nil, nil, err
	}
	id = "i-" + hex.EncodeToString(b)[:17]
	if err := w.dir.Write(keyPEM, "pki", "node.key"); err != nil {
		return "", nil, nil, err
	}
	return id, keyPEM, csr, w.dir.Write([]byte(id), "pki", "node.id")
}

// joinUntilAnswered repeats while no master answers: machines start in any order.
func (w *Worker) joinUntilAnswered(ctx context.Context, req *api.JoinRequest) (*api.JoinResponse, error) {
	retry, said := firstJoinRetry, false
	for {
		resp, err := client.Join(ctx, w.cfg.Join, w.cfg.Token, req)
		switch code := connect.CodeOf(err); {
		case err == nil:
			return resp, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, security.ErrUntrusted), code != connect.CodeUnavailable && code != connect.CodeDeadlineExceeded:
			return nil, fmt.Errorf("join: %w", err)
		}
		if !said {
			w.log.Warn("no master answers yet, trying on", zap.Strings("masters", w.cfg.Join), zap.Error(err))
			said = true
		}
		if !sleep(ctx, retry) {
			return nil, ctx.Err()
		}
		retry = min(2*retry, lastJoinRetry)
	}
}

// sleep is false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

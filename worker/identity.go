package worker

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"millrace/pkg/joining"
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
	Role        string    `json:"role"`             // CORE, TASK, POOL
	Cluster     string    `json:"cluster"`          // "" in the pool
	Pooled      bool      `json:"pooled,omitempty"` // it joined for the pool, and goes from place to place
	Wipe        string    `json:"wipe,omitempty"`   // the cluster whose data is to be deleted before anything else
	Site        string    `json:"site"`
	JoinedAt    time.Time `json:"joinedAt"`
	Masters     []string  `json:"masters"`     // https://host:port, as last heard
	GossipPeers []string  `json:"gossipPeers"` // host:port
}

const renewBefore = 3 // a certificate is renewed in the last third of its life

// identify reads who the node is, or joins the site at the first start.
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
		return nil, fmt.Errorf("%w: %s belongs to a master", joining.ErrOtherNode, w.dir.Path())
	}
	for name, into := range map[string]*[]byte{"node.key": &id.credential.KeyPEM, "node.crt": &id.credential.CertPEM,
		"ca.crt": &id.credential.CAPEM, "gossip.key": &id.gossipKey} {
		if *into, err = w.dir.Read("pki", name); err != nil {
			return nil, err
		}
		if *into == nil {
			return nil, fmt.Errorf("%w: %s is damaged: pki/%s is missing; remove it and join again", joining.ErrOtherNode, w.dir.Path(), name)
		}
	}
	trusted, err := joining.Known(w.dir, id.credential.CAPEM)
	if err != nil {
		return nil, err
	}
	return id, joining.SameSite(w.cfg.Token, trusted,
		fmt.Sprintf("%s is that of node %s of site %s (%s)", w.dir.Path(), id.ID, id.Site, strings.Join(id.Masters, ", ")))
}

// join trades the token for a certificate and keeps what the site answered.
func (w *Worker) join(ctx context.Context) (*identity, error) {
	node, err := joining.Join(ctx, joining.Config{
		Dir: w.dir, KeyFile: "node.key", Masters: w.cfg.Join, Token: w.cfg.Token, Name: w.cfg.Name, Version: w.cfg.Version, Log: w.log,
	})
	if err != nil {
		return nil, err
	}
	id, resp := node.ID, node.Answer
	out := &identity{
		nodeFile: nodeFile{ID: id, Name: w.cfg.Name, Role: resp.Role, Cluster: resp.Cluster, Pooled: resp.Role == poolRole, Site: resp.Site, JoinedAt: time.Now().UTC(),
			Masters: resp.Masters, GossipPeers: resp.GossipPeers},
		credential: security.Credential{CertPEM: resp.CertificatePem, KeyPEM: node.KeyPEM, CAPEM: resp.CaPem},
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

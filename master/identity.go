package master

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"millrace/master/server"
	"millrace/master/state"
	"millrace/pkg/joining"
	"millrace/pkg/objectstore"
	"millrace/pkg/security"
)

// identity is who this node is, with its secrets.
type identity struct {
	nodeFile
	credential security.Credential // as it was at the start; Master.credential is the one in use
	seal       security.SealKey
	gossipKey  []byte
	genesis    *state.CreateSite // the site still to be made
}

// nodeFile is node.json.
type nodeFile struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Role     string    `json:"role"`
	Site     string    `json:"site"`
	JoinedAt time.Time `json:"joinedAt"`

	Joined      bool     `json:"joined,omitempty"`      // not the site's first master
	Masters     []string `json:"masters,omitempty"`     // https://host:port, as heard on joining
	GossipPeers []string `json:"gossipPeers,omitempty"` // host:port, the same
}

// identity reads who the node is, or makes it somebody at the first start. A first start
// that was cut short left no node.json: it begins anew.
func (d *directory) identity(ctx context.Context, c Config) (*identity, error) {
	id := &identity{}
	known, err := d.ReadJSON(&id.nodeFile, "node.json")
	if err != nil {
		return nil, err
	}
	if !known {
		if err := d.refuseLeftovers(); err != nil {
			return nil, err
		}
		if c.Token != "" || len(c.Join) > 0 {
			return d.join(ctx, c)
		}
		return d.first(ctx, c)
	}
	if id.Role != state.RoleMaster {
		return nil, fmt.Errorf("%w: %s belongs to a %s node", joining.ErrOtherNode, d.Path(), strings.ToLower(id.Role))
	}
	if err := d.readSecrets(id); err != nil {
		return nil, err
	}
	trusted, err := joining.Known(d.Dir, id.credential.CAPEM)
	if err != nil {
		return nil, err
	}
	if err := joining.SameSite(c.Token, trusted, fmt.Sprintf("%s is that of master %s of site %s", d.Path(), id.ID, id.Site)); err != nil {
		return nil, err
	}
	var g state.CreateSite
	if found, err := d.ReadJSON(&g, "genesis.json"); err != nil {
		return nil, err
	} else if found {
		id.genesis = &g
	}
	return id, nil
}

// refuseLeftovers keeps a log whose node.json was lost, and what is left of a restore, from being taken for a new site.
func (d *directory) refuseLeftovers() error {
	if begun, err := d.Read(restoringFile); err != nil || begun != nil {
		return errors.Join(err, fmt.Errorf("directory %s: %w", d.Path(), ErrUnfinished))
	}
	if _, err := os.Stat(d.Path("raft", logFile)); err == nil {
		return fmt.Errorf("directory %s has a log but no node.json: it is damaged; restore node.json, or give an empty directory", d.Path())
	}
	return nil
}

func (d *directory) readSecrets(id *identity) error {
	read := func(into *[]byte, elem ...string) error {
		data, err := os.ReadFile(d.Path(elem...))
		if err != nil {
			return fmt.Errorf("read %s: %w", d.Path(elem...), err)
		}
		*into = data
		return nil
	}
	var seal, gossip []byte
	if err := errors.Join(
		read(&id.credential.CertPEM, "pki", "cert.pem"), read(&id.credential.KeyPEM, "pki", "key.pem"),
		read(&id.credential.CAPEM, "pki", "ca.pem"), read(&seal, "seal.key"), read(&gossip, "gossip.key"),
	); err != nil {
		return err
	}
	if err := decodeHex(id.seal[:], seal); err != nil {
		return fmt.Errorf("read %s: %w", d.Path("seal.key"), err)
	}
	id.gossipKey = make([]byte, 32)
	if err := decodeHex(id.gossipKey, gossip); err != nil {
		return fmt.Errorf("read %s: %w", d.Path("gossip.key"), err)
	}
	return nil
}

func decodeHex(into, text []byte) error {
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(b) != len(into) {
		return fmt.Errorf("it should hold %d bytes in hex", len(into))
	}
	copy(into, b)
	return nil
}

// first makes a site and this node in it; node.json, written last, makes it so.
func (d *directory) first(ctx context.Context, c Config) (*identity, error) {
	if c.Store == nil {
		return nil, errors.New("the first start of a site needs its object store")
	}
	if err := tryStore(ctx, c); err != nil {
		return nil, fmt.Errorf("make a site: %w", err)
	}
	now := time.Now().UTC()
	site, err := randomHex("site-", 8)
	if err != nil {
		return nil, err
	}
	nodeID, err := joining.NewID()
	if err != nil {
		return nil, err
	}
	name := c.Name
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("host name: %w", err)
		}
	}
	id := &identity{nodeFile: nodeFile{ID: nodeID, Name: name, Role: state.RoleMaster, Site: site, JoinedAt: now}, gossipKey: make([]byte, 32)}
	if _, err := rand.Read(id.gossipKey); err != nil {
		return nil, fmt.Errorf("make gossip key: %w", err)
	}
	if id.seal, err = security.NewSealKey(); err != nil {
		return nil, err
	}
	ca, err := security.NewCA(site)
	if err != nil {
		return nil, err
	}
	if id.credential, err = issue(ca, security.RoleMaster, nodeID, now); err != nil {
		return nil, err
	}
	if id.genesis, err = genesis(id, ca, c, now); err != nil {
		return nil, err
	}
	if err := errors.Join(d.keepSecrets(id), d.WriteJSON(id.genesis, "genesis.json")); err != nil {
		return nil, err
	}
	return id, d.WriteJSON(id.nodeFile, "node.json")
}

// tryWithin is how long the store of a site that is to be made has for an answer.
const tryWithin = 5 * time.Second

// tryStore asks the store of a site that is to be made whether it takes the key: better refused now than by the first
// job. One that does not answer may be started later than its masters: that is waited for, as always.
func tryStore(ctx context.Context, c Config) error {
	store, err := c.OpenStore(c.Store)
	if err != nil {
		return err
	}
	system, err := objectstore.ParseS3(cmp.Or(c.SystemPrefix, DefaultSystemPrefix))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, tryWithin)
	defer cancel()
	var e *objectstore.Error
	if err = objectstore.Try(ctx, store, system.Bucket, system.Key); errors.Is(err, objectstore.ErrDenied) || errors.As(err, &e) && e.Final {
		return err
	}
	return nil
}

// join makes this node a further master of a site that is there; node.json, written last, makes it so.
func (d *directory) join(ctx context.Context, c Config) (*identity, error) {
	if c.Name == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("host name: %w", err)
		}
		c.Name = name
	}
	node, err := joining.Join(ctx, joining.Config{
		Dir: d.Dir, KeyFile: "key.pem", Masters: c.Join, Token: c.Token, Master: true, Name: c.Name, Version: c.Version, Log: c.Log,
	})
	if err != nil {
		return nil, err
	}
	a := node.Answer
	id := &identity{
		nodeFile: nodeFile{ID: node.ID, Name: c.Name, Role: state.RoleMaster, Site: a.Site, JoinedAt: time.Now().UTC(),
			Joined: true, Masters: a.Masters, GossipPeers: a.GossipPeers},
		credential: security.Credential{CertPEM: a.CertificatePem, KeyPEM: node.KeyPEM, CAPEM: a.CaPem},
		gossipKey:  a.GossipKey,
	}
	if copy(id.seal[:], a.SealKey) != len(id.seal) || len(a.SealKey) != len(id.seal) {
		return nil, errors.New("join: the master gave no key for the site's secrets: it is of a version that knows one master only")
	}
	c.Log.Info("joined", zap.String("node", id.ID), zap.String("site", id.Site), zap.Strings("masters", a.Masters))
	if err := d.keepSecrets(id); err != nil {
		return nil, err
	}
	return id, d.WriteJSON(id.nodeFile, "node.json")
}

// issue makes a key and a certificate for it.
func issue(ca *security.CA, role security.Role, id string, now time.Time) (security.Credential, error) {
	key, csr, err := security.NewKey()
	if err != nil {
		return security.Credential{}, err
	}
	cert, _, err := ca.Sign(csr, security.Identity{Site: ca.Site(), Role: role, ID: id}, nil, now, security.CertLifetime)
	if err != nil {
		return security.Credential{}, err
	}
	return security.Credential{CertPEM: cert, KeyPEM: key, CAPEM: ca.CertPEM()}, nil
}

// genesis is the site's first entry in the log: every secret in it is sealed.
func genesis(id *identity, ca *security.CA, c Config, now time.Time) (*state.CreateSite, error) {
	settings, err := proto.Marshal(c.Store)
	if err != nil {
		return nil, fmt.Errorf("encode object store: %w", err)
	}
	var sealed [3][]byte
	for i, plain := range [][]byte{ca.KeyPEM(), settings, id.gossipKey} {
		if sealed[i], err = id.seal.Seal(plain); err != nil {
			return nil, err
		}
	}
	prefix := c.SystemPrefix
	if prefix == "" {
		prefix = DefaultSystemPrefix
	}
	cluster := state.Cluster{Name: "default", CreatedAt: now}
	if cluster.ID, err = server.NewID("j-"); err != nil {
		return nil, err
	}
	for _, role := range []string{state.RoleCore, state.RoleTask} {
		group, err := server.NewID("ig-")
		if err != nil {
			return nil, err
		}
		cluster.Groups = append(cluster.Groups, state.Group{ID: group, Role: role})
	}
	speaks := c.binary.Speaks
	if speaks == 1 {
		speaks = 0 // as it was written then
	}
	return &state.CreateSite{
		Site: state.Site{
			ID: id.Site, CreatedAt: now, CAPEM: string(ca.CertPEM()), SealedCAKey: sealed[0], SealedStore: sealed[1],
			SealedGossip: sealed[2], SystemPrefix: prefix, Protocol: speaks,
		},
		Cluster: cluster,
	}, nil
}

func randomHex(prefix string, n int) (string, error) {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("make id: %w", err)
	}
	return prefix + hex.EncodeToString(b), nil
}

package server

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/security"
)

var nodeID = regexp.MustCompile(`^i-[0-9a-f]{17}$`)

// maxNodeText bounds what a node says of itself, as it is logged: a host name's length.
const maxNodeText = 255

// joinService is the one service for callers without a certificate.
type joinService struct {
	*Server
	mu sync.Mutex // one join at a time: who has a node id is decided before it is logged
}

// Join admits a node by its token and gives it a certificate. A node's id belongs to the key that it
// first came with: nobody takes it over with a token alone.
func (s *joinService) Join(ctx context.Context, req *connect.Request[api.JoinRequest]) (*connect.Response[api.JoinResponse], error) {
	v, _, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	site, ok := v.Site()
	if !ok {
		return nil, errNoLeader
	}
	m := req.Msg
	if !nodeID.MatchString(m.NodeId) {
		return nil, usage("", fmt.Sprintf("%q is no node id (i- and 17 lower-case hex digits)", m.NodeId))
	}
	if len(m.Name) > maxNodeText || len(m.Version) > maxNodeText {
		return nil, usage("", fmt.Sprintf("a node's name and version have at most %d bytes each", maxNodeText))
	}
	ca, gossip, err := s.secrets(site)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v = s.cfg.View()
	command, err := s.admission(v, callOf(ctx), m)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Now()
	role := security.RoleWorker
	if m.AsMaster {
		role = security.RoleMaster
	}
	cert, serial, err := ca.Sign(m.CsrDer, security.Identity{Site: site.ID, Role: role, ID: m.NodeId}, nil, now, security.CertLifetime)
	if err != nil {
		return nil, usage("", err.Error())
	}
	node, err := s.admit(ctx, command, serial, now)
	if err != nil {
		return nil, err
	}
	s.log.Info("node joined", zap.String("node", node.ID), zap.String("name", node.Name), zap.String("role", node.Role))
	resp := &api.JoinResponse{
		CertificatePem: cert, CaPem: ca.CertPEM(), Cluster: node.Cluster, Role: node.Role, Site: site.ID,
		GossipKey: gossip, GossipPeers: s.cfg.Cluster.GossipPeers(),
	}
	if m.AsMaster {
		resp.SealKey = s.cfg.Seal[:]
	}
	resp.Masters = masterAddresses(v)
	return connect.NewResponse(resp), nil
}

// masterAddresses are where the masters of the set answer.
func masterAddresses(v *state.View) (addresses []string) {
	for _, n := range v.Nodes("") {
		if n.InSet() && n.Address != "" {
			addresses = append(addresses, n.Address)
		}
	}
	return addresses
}

// admission decides whether the node may join, and as what.
func (s *joinService) admission(v *state.View, c call, m *api.JoinRequest) (state.Command, error) {
	old, known := v.Node(m.NodeId)
	if known && old.State == state.NodeTerminated {
		return nil, deny(connect.CodePermissionDenied, "node "+m.NodeId+" was removed from the site")
	}
	if c.known && c.caller.Role == security.RoleWorker && c.caller.ID == m.NodeId && m.Token == "" {
		if !known || old.Role == state.RoleMaster || m.AsMaster {
			return nil, deny(connect.CodePermissionDenied, "node "+m.NodeId+" is not admitted: join with a token")
		}
		again := *old
		again.Name, again.Version = m.Name, m.Version
		return state.PutNode{Node: again}, nil
	}
	token, err := security.ParseToken(m.Token)
	if err != nil {
		return nil, err
	}
	record := findToken(v, token)
	if record == nil {
		return nil, fmt.Errorf("%w: it is not known here", state.ErrToken)
	}
	if m.AsMaster {
		if err := c.binary.Joins("the site of "+s.binary.Name, v.Protocol()); err != nil {
			return nil, err
		}
	}
	if m.AsMaster != (record.Role == state.RoleMaster) {
		return nil, usage(joinAs[record.Role], fmt.Sprintf("the token is for the role %s", strings.ToLower(record.Role)))
	}
	if known && !security.SameKey(old.Serial, m.CsrDer) {
		return nil, fmt.Errorf("%w: node id %s belongs to another node", state.ErrToken, m.NodeId)
	}
	return state.AdmitNode{Token: record.ID, Node: state.Node{
		ID: m.NodeId, Name: m.Name, Version: m.Version, Cluster: record.Cluster, Role: record.Role,
	}}, nil
}

// joinAs is what uses a token for a role.
var joinAs = map[string]string{
	state.RoleMaster: "millrace master run --dir DIR --join URL --token TOKEN",
	state.RoleCore:   "millrace worker --dir DIR --join URL --token TOKEN",
	state.RoleTask:   "millrace worker --dir DIR --join URL --token TOKEN",
	state.RolePool:   "millrace worker --dir DIR --join URL --token TOKEN",
}

// findToken compares secrets in constant time.
func findToken(v *state.View, token security.Token) *state.Token {
	for _, t := range v.Tokens() {
		if t.ID == token.ID && token.Matches(t.SecretHash) {
			return t
		}
	}
	return nil
}

// admit logs the admission, with what was found out since it was decided.
func (s *joinService) admit(ctx context.Context, c state.Command, serial string, now time.Time) (*state.Node, error) {
	switch a := c.(type) {
	case state.AdmitNode:
		a.Now, a.Node.JoinedAt, a.Node.Serial, a.Node.State = now.UTC(), now.UTC(), serial, state.NodeAdmitted
		c = a
	case state.PutNode:
		a.Node.Serial = serial
		c = a
	}
	result, err := s.cfg.Log.Apply(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	node, ok := result.(*state.Node)
	if !ok {
		return nil, fmt.Errorf("join: the log answered %T", result)
	}
	return node, nil
}

// secrets opens what a join needs: the CA with its key, and the gossip key.
func (s *Server) secrets(site *state.Site) (*security.CA, []byte, error) {
	key, err := s.cfg.Seal.Open(site.SealedCAKey)
	if err != nil {
		return nil, nil, fmt.Errorf("site's CA key: %w", err)
	}
	ca, err := security.LoadCA([]byte(site.CAPEM), key)
	if err != nil {
		return nil, nil, err
	}
	gossip, err := s.cfg.Seal.Open(site.SealedGossip)
	if err != nil {
		return nil, nil, fmt.Errorf("site's gossip key: %w", err)
	}
	return ca, gossip, nil
}

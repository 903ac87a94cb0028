package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
	"millrace/pkg/security"
)

// membersEvery is how often it is found out anew, for the answers to heartbeats, who may speak to whom: a node that was
// removed is known everywhere within this time and that of a heartbeat.
const membersEvery = 250 * time.Millisecond

// Members says who may speak to the calling node's port, as the log has it now.
func (s *workerService) Members(ctx context.Context, _ *connect.Request[api.MembersRequest]) (*connect.Response[api.MembersResponse], error) {
	v, _, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	n, ok := v.Node(callOf(ctx).caller.ID)
	if !ok {
		return nil, deny(connect.CodeUnauthenticated, "the node is not admitted to this site")
	}
	return connect.NewResponse(membersFor(v, n.Cluster)), nil
}

// Pong is what the leader has to say at each heartbeat of a node.
func (s *Server) Pong(node string) *api.Pong {
	v := s.cfg.View()
	site, ok := v.Site()
	n, known := v.Node(node)
	if !ok || !known {
		return &api.Pong{}
	}
	return &api.Pong{Trust: security.TrustID([]byte(site.CAPEM)), Members: s.members.id(v, n.Cluster, s.cfg.Now())}
}

// membersFor is who may speak to the nodes of a cluster: masters, its own nodes, those of clusters with jobs that read or write
// files there, and people. A node of the pool has only masters to listen to.
func membersFor(v *state.View, cluster string) *api.MembersResponse {
	m := &api.MembersResponse{}
	guests := map[string]bool{} // clusters
	if cluster != "" {
		place := objectstore.HDFS + cluster + "/"
		for _, j := range v.OpenJobs() {
			about := strings.HasPrefix(j.Output, place)
			for _, in := range j.Input {
				about = about || strings.HasPrefix(in, place)
			}
			guests[j.Cluster] = guests[j.Cluster] || about
		}
	}
	for _, n := range v.Nodes("") {
		isMaster := n.Role == state.RoleMaster
		fellow := !isMaster && n.Cluster == cluster && cluster != ""
		if n.State == state.NodeAdmitted && (isMaster || fellow || guests[n.Cluster]) {
			m.Nodes = append(m.Nodes, &api.MemberNode{Node: n.ID, Master: isMaster, Fellow: fellow, Files: fellow || guests[n.Cluster]})
		}
	}
	for _, u := range v.Users() {
		m.Users = append(m.Users, &api.MemberUser{Name: u.Name, Role: u.Role, SinceUnix: u.CreatedAt.Unix()})
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil { // a name that is no UTF-8: then every answer is news
		return m
	}
	sum := sha256.Sum256(data)
	m.Id = hex.EncodeToString(sum[:16])
	return m
}

// memberIDs remembers for a moment what names the answers: heartbeats are many.
type memberIDs struct {
	mu   sync.Mutex
	last map[string]memberID // by cluster
}

type memberID struct {
	id    string
	index uint64 // of the view
	at    time.Time
}

func (m *memberIDs) id(v *state.View, cluster string, now time.Time) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	known, ok := m.last[cluster]
	if ok && (known.index == v.Index() || now.Sub(known.at) < membersEvery) {
		return known.id
	}
	if len(m.last) > 1000 { // clusters that have ended
		m.last = nil
	}
	if m.last == nil {
		m.last = map[string]memberID{}
	}
	m.last[cluster] = memberID{membersFor(v, cluster).Id, v.Index(), now}
	return m.last[cluster].id
}

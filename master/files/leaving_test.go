package files

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/master/state"
	"millrace/pkg/api"
)

// withPool is newSite with a second cluster, j-2, and a node p of the pool that is of j-1.
func withPool(t *testing.T) *site {
	s := newSite(t)
	s.do(state.CreateCluster{Cluster: state.Cluster{ID: "j-2", Name: "night", Groups: []state.Group{{ID: "ig-n", Role: state.RoleCore, Target: 1}}}})
	s.do(state.CreateToken{Token: state.Token{ID: "t", Role: state.RolePool, ExpiresAt: s.now.Add(time.Hour), UsesLeft: -1}})
	s.do(state.AdmitNode{Token: "t", Now: s.now, Node: state.Node{ID: "p", Role: state.RolePool}})
	s.do(state.AssignNode{ID: "p", Cluster: "j-1", Group: "ig-c"})
	s.lead()
	return s
}

// up has a node come up, and say that it stores nothing.
func (s *site) up(node string) {
	s.files.Up(node, &api.WorkerHello{Address: "https://" + node, Protocol: storesSince})
	s.files.Message(node, &api.WorkerMessage{Message: &api.WorkerMessage_Blocks{Blocks: &api.BlockReport{
		Full: true, Last: true, Disks: []*api.DataDisk{{Dir: "/d", CapacityBytes: 1 << 40, FreeBytes: 1 << 39}}}}})
}

// begin begins a file, of as many replicas as there can be, and says where its first block goes.
func (s *site) begin(cluster, path string) (nodes []string) {
	s.Helper()
	names := s.files.Names(cluster, "", "")
	id, err := names.Create(s.Context(), hdfs.Create{Path: path, Lease: path, Replication: 9, BlockSize: 1 << 20})
	require.NoError(s, err)
	at, err := names.AddBlock(s.Context(), id, path, nil, nil)
	require.NoError(s, err)
	for _, n := range at.Nodes {
		nodes = append(nodes, n.ID)
	}
	return nodes
}

// A node that goes from one cluster to another, by way of the pool, is known to one at a time.
func TestANodeGoesFromClusterToCluster(t *testing.T) {
	s := withPool(t)
	require.ElementsMatch(t, []string{"a", "b", "c", "p"}, s.begin("j-1", "/one"))
	s.do(state.LeaveNode{ID: "p", By: s.now})
	s.files.NodeChanged("p")
	require.ElementsMatch(t, []string{"a", "b", "c"}, s.begin("j-1", "/two"), "it drains")

	s.do(state.ReleaseNode{ID: "p"})
	s.files.NodeChanged("p")
	s.files.Down("p", "its session ended")
	s.do(state.AssignNode{ID: "p", Cluster: "j-2", Group: "ig-n"})
	s.up("p")
	require.Equal(t, []string{"p"}, s.begin("j-2", "/three"), "it drains no more")
	require.ElementsMatch(t, []string{"a", "b", "c"}, s.begin("j-1", "/four"))
	require.Equal(t, []int{3, 1}, []int{s.files.nodes("j-1"), s.files.nodes("j-2")})

	s.do(state.ReleaseNode{ID: "p"})
	s.do(state.AssignNode{ID: "p", Cluster: "j-1", Group: "ig-c"})
	s.up("p") // nobody has said a word of it
	require.ElementsMatch(t, []string{"a", "b", "c", "p"}, s.begin("j-1", "/five"))
	require.Zero(t, s.files.nodes("j-2"))
}

// A new leader does not wait for a node that has left the cluster meanwhile.
func TestANodeThatLeftBeforeItCameUp(t *testing.T) {
	s := withPool(t)
	s.files = New(s.files.cfg)
	for _, id := range []string{"a", "b", "c"} {
		s.up(id)
	}
	s.tick()
	require.False(t, s.files.manager("j-1").Status().Complete, "p has not come")
	s.do(state.ReleaseNode{ID: "p"})
	s.files.forgetNodes()
	s.tick()
	require.True(t, s.files.manager("j-1").Status().Complete)
}

func TestAClusterThatHasEndedIsForgotten(t *testing.T) {
	s := withPool(t)
	s.do(state.ReleaseNode{ID: "p"})
	s.do(state.AssignNode{ID: "p", Cluster: "j-2", Group: "ig-n"})
	s.up("p")
	s.begin("j-2", "/one")
	s.do(state.TerminateCluster{Cluster: "j-2", ReasonCode: state.ReasonUserRequest})
	require.Len(t, s.files.all(), 2)
	s.do(state.ReleaseNode{ID: "p"})
	s.do(state.EndCluster{Cluster: "j-2", State: state.ClusterTerminated, At: s.now})
	s.files.forgetNodes()
	s.files.forgetClusters()
	require.Len(t, s.files.all(), 1)
	require.Len(t, New(s.files.cfg).all(), 1, "nor is it a new leader's")
	s.files.Down("p", "its session ended")

	names := s.files.Names("j-2", "", "")
	_, err := names.Create(t.Context(), hdfs.Create{Path: "/two", Lease: "w", BlockSize: 1 << 20})
	require.ErrorIs(t, err, state.ErrNotFound)
	_, err = names.Stat(t.Context(), "/one")
	require.ErrorIs(t, err, hdfs.ErrNotExist)
	require.Empty(t, s.files.Problems("j-2"))
}

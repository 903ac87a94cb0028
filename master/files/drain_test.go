package files

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/hdfs"
	"millrace/hdfs/client"
	"millrace/hdfs/namespace"
	"millrace/master/state"
	"millrace/pkg/api"
)

// site is a log, applied at once, and one leader's files at a time.
type site struct {
	*testing.T
	log   *state.Store
	index uint64
	now   time.Time
	files *Files
}

// newSite has core nodes a, b and c, up and empty.
func newSite(t *testing.T) *site {
	s := &site{T: t, log: state.New(), now: time.Unix(1_000_000, 0)}
	s.do(state.CreateSite{Site: state.Site{ID: "site"}, Cluster: state.Cluster{ID: "j-1", Name: "default", Groups: []state.Group{{ID: "ig-c", Role: state.RoleCore}}}})
	for _, id := range []string{"a", "b", "c"} {
		s.do(state.PutNode{Node: state.Node{ID: id, Cluster: "j-1", Group: "ig-c", Role: state.RoleCore}})
	}
	s.lead()
	return s
}

func (s *site) apply(_ context.Context, c state.Command) (any, error) {
	s.index++
	return s.log.Apply(s.index, c)
}

func (s *site) do(c state.Command) any {
	s.Helper()
	result, err := s.apply(s.Context(), c)
	require.NoError(s, err)
	return result
}

// lead begins another leader's term, in which all nodes come up and say what they have.
func (s *site) lead(has ...hdfs.Block) {
	s.files = New(Config{View: s.log.View, Apply: s.apply, Send: func(string, *api.MasterMessage) bool { return true }, Now: func() time.Time { return s.now }})
	for _, n := range s.log.View().Nodes("j-1") {
		s.files.Up(n.ID, &api.WorkerHello{Address: "https://" + n.ID, Protocol: storesSince})
		report := &api.BlockReport{Full: true, Last: true, Disks: []*api.DataDisk{{Dir: "/d", CapacityBytes: 1 << 40, FreeBytes: 1 << 39}}}
		for _, b := range has {
			report.Stored = append(report.Stored, client.BlockMessage(b))
		}
		s.files.Message(n.ID, &api.WorkerMessage{Message: &api.WorkerMessage_Blocks{Blocks: report}})
	}
	s.tick()
}

func (s *site) tick() {
	s.now = s.now.Add(time.Second)
	s.files.manager("j-1").Tick()
}

// write has a file of one block lie on all nodes.
func (s *site) write(path string, replication int) hdfs.Block {
	s.Helper()
	names := s.files.Names("j-1", "", "")
	id, err := names.Create(s.Context(), hdfs.Create{Path: path, Lease: "w", Replication: replication, BlockSize: 1 << 20})
	require.NoError(s, err)
	at, err := names.AddBlock(s.Context(), id, "w", nil, nil)
	require.NoError(s, err)
	block := hdfs.Block{ID: at.ID, Stamp: at.Stamp, Size: 1000}
	for _, n := range at.Nodes {
		s.files.Message(n.ID, &api.WorkerMessage{Message: &api.WorkerMessage_Blocks{Blocks: &api.BlockReport{Stored: []*api.StoredBlock{client.BlockMessage(block)}}}})
	}
	_, err = names.Complete(s.Context(), id, "w", &block)
	require.NoError(s, err)
	s.tick()
	return block
}

// What the log says of nodes reaches the block managers: when it is told, and with a new leader.
func TestDrainsReachTheBlockManagers(t *testing.T) {
	s := newSite(t)
	two := s.write("/two", 2)
	d, err := s.files.Draining("a")
	require.NoError(t, err)
	require.False(t, d.Drained, "it does not drain")

	s.do(state.DrainNode{ID: "a", By: s.now})
	s.files.NodeChanged("a")
	s.tick()
	d, err = s.files.CanDrain("a")
	require.NoError(t, err)
	require.LessOrEqual(t, d.Blocks, int64(1))
	at, err := s.files.Names("j-1", "", "").Create(t.Context(), hdfs.Create{Path: "/next", Lease: "x", Replication: 3, BlockSize: 1 << 20})
	require.NoError(t, err)
	located, err := s.files.Names("j-1", "", "").AddBlock(t.Context(), at, "x", nil, nil)
	require.NoError(t, err)
	require.Len(t, located.Nodes, 2, "nothing is placed there: %v", located.Nodes)

	s.lead(two)
	s.tick()
	d, err = s.files.Draining("a")
	require.NoError(t, err)
	require.True(t, d.Drained, "the others have it: %v", d)
	_, err = s.files.CanDrain("b")
	require.ErrorIs(t, err, ErrCannotDrain)
	require.ErrorContains(t, err, "replication 2 needs 2 core nodes; 1 would be left")

	s.do(state.DrainNode{ID: "a"})
	s.files.NodeChanged("a")
	_, err = s.files.CanDrain("b")
	require.NoError(t, err)
}

// Blocks that are lost with a node are named by their files, and a node that was removed is forgotten.
func TestWhatGoesWithANode(t *testing.T) {
	s := newSite(t)
	s.write("/one", 1)
	holder := ""
	for _, id := range []string{"a", "b", "c"} {
		alone, err := s.files.Alone(id)
		require.NoError(t, err)
		if len(alone) > 0 {
			holder = id
			require.Equal(t, "hdfs:///one", alone[0].Path)
			require.Equal(t, int64(1000), alone[0].Block.Size)
		}
	}
	require.NotEmpty(t, holder)
	_, err := s.files.Alone("none")
	require.ErrorIs(t, err, state.ErrNotFound)

	s.do(state.RemoveNode{ID: holder, Shrink: true})
	s.files.NodeChanged(holder)
	s.files.Up(holder, &api.WorkerHello{Protocol: storesSince}) // it had said hello before
	s.tick()
	require.Len(t, s.files.manager("j-1").Status().Missing, 1)
	s.do(namespace.Remove{Cluster: "j-1", Path: "/one"})
	s.tick()
	require.Empty(t, s.files.manager("j-1").Status().Missing)
}

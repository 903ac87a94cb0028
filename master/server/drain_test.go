package server

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"millrace/hdfs"
	"millrace/master/files"
	"millrace/master/session"
	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
	"millrace/pkg/client"
)

// blocks are the core nodes' blocks, as a test says they are.
type blocks struct {
	Files
	plan    *api.NodeDrain
	refuse  error
	left    *api.NodeDrain
	alone   []*api.BlockTrouble
	changed []string
	asked   []string // of the last CanDrain
	disks   map[string][]*api.NodeDisk
}

func (b *blocks) Problems(string) []string          { return nil }
func (b *blocks) Disks(node string) []*api.NodeDisk { return b.disks[node] }

func (b *blocks) CanDrain(nodes ...string) (*api.NodeDrain, error) {
	b.asked = nodes
	return b.plan, b.refuse
}
func (b *blocks) Draining(string) (*api.NodeDrain, error) {
	return proto.Clone(b.left).(*api.NodeDrain), nil
}
func (b *blocks) Alone(string) ([]*api.BlockTrouble, error) { return b.alone, b.refuse }
func (b *blocks) NodeChanged(node string)                   { b.changed = append(b.changed, node) }

// leavers is a world with two core nodes and a task node, all up.
type leavers struct {
	*world
	*blocks
}

func newLeavers(t *testing.T) *leavers {
	w := newWorld(t)
	w.ready()
	l := &leavers{w, &blocks{plan: &api.NodeDrain{}, left: &api.NodeDrain{Drained: true}}}
	w.leader.Files = l.blocks
	w.tracker.drained = tracker.Drain{Known: true}
	w.apply(state.CreateToken{Token: state.Token{ID: "c", Role: state.RoleCore, Cluster: "j-DEFAULT", ExpiresAt: w.now.Add(time.Hour), UsesLeft: -1}})
	w.apply(state.CreateToken{Token: state.Token{ID: "t", Role: state.RoleTask, Cluster: "j-DEFAULT", ExpiresAt: w.now.Add(time.Hour), UsesLeft: -1}})
	for _, n := range []state.Node{{ID: "i-00000000000000001", Name: "core-1", Role: state.RoleCore}, {ID: "i-00000000000000002", Name: "core-2", Role: state.RoleCore}, {ID: "i-00000000000000003", Name: "task-1", Role: state.RoleTask}} {
		n.Cluster = "j-DEFAULT"
		w.apply(state.AdmitNode{Token: map[string]string{state.RoleCore: "c", state.RoleTask: "t"}[n.Role], Node: n, Now: w.now})
		w.sessions.nodes = append(w.sessions.nodes, session.Node{ID: n.ID, Cluster: n.Cluster, Role: n.Role, Slots: 2, Connected: true})
	}
	return l
}

// lose ends a node's session.
func (w *leavers) lose(id string) {
	w.sessions.nodes = slices.DeleteFunc(w.sessions.nodes, func(n session.Node) bool { return n.ID == id })
}

func (w *leavers) drain(node string, change ...func(*api.DrainNodeRequest)) (*api.NodeDrain, error) {
	w.t.Helper()
	q := &api.DrainNodeRequest{Node: node, GraceMs: proto.Int64(60_000)}
	for _, c := range change {
		c(q)
	}
	resp, err := w.user(Admin).DrainNode(w.t.Context(), connect.NewRequest(q))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func (w *leavers) remove(node string, force bool) (*api.Node, error) {
	w.t.Helper()
	resp, err := w.user(Admin).RemoveNode(w.t.Context(), connect.NewRequest(&api.RemoveNodeRequest{Node: node, Force: force}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func (w *leavers) node(id string) *state.Node {
	w.t.Helper()
	n, ok := w.state.View().Node(id)
	require.True(w.t, ok)
	return n
}

func (w *leavers) clusterNow() *api.Cluster {
	w.t.Helper()
	resp, err := w.user(Admin).GetCluster(w.t.Context(), connect.NewRequest(&api.GetClusterRequest{}))
	require.NoError(w.t, err)
	return resp.Msg
}

// A drain is planned, then in the log, then told to those who carry it out, and all the while people see what it waits for.
func TestANodeIsDrainedAndRemoved(t *testing.T) {
	w := newLeavers(t)
	w.plan = &api.NodeDrain{Blocks: 12, Bytes: 3 << 29, EstimateMs: 40_000}
	d, err := w.drain("core-2", func(q *api.DrainNodeRequest) { q.DryRun = true })
	require.NoError(t, err)
	require.Equal(t, []int64{12, 3 << 29, 40_000}, []int64{d.Blocks, d.Bytes, d.EstimateMs})
	require.Equal(t, nodeRunning, d.Node.State)
	require.False(t, w.node("i-00000000000000002").Draining(), "a dry run changes nothing")

	w.left = proto.Clone(w.plan).(*api.NodeDrain)
	w.tracker.drained = tracker.Drain{Known: true, Attempts: 2, Needed: []string{"s-A"}}
	d, err = w.drain("core-2")
	require.NoError(t, err)
	require.Equal(t, w.now.Add(time.Minute).UTC(), w.node("i-00000000000000002").DrainBy)
	require.Equal(t, []string{"i-00000000000000002"}, w.tracker.changed)
	require.Equal(t, []string{"i-00000000000000002"}, w.blocks.changed)
	require.Equal(t, nodeDraining, d.Node.State)
	require.Equal(t, "12 blocks (1.5 GiB) still to be copied, about 40s; 2 attempts running for 1m0s at most; map output lies there that 1 job is still to read (s-A)", d.Node.Reason)

	_, err = w.drain("core-2", func(q *api.DrainNodeRequest) { q.GraceMs = nil })
	require.NoError(t, err)
	require.Equal(t, w.now.Add(time.Minute).UTC(), w.node("i-00000000000000002").DrainBy, "asked again, it keeps its grace")

	c := w.clusterNow()
	require.Empty(t, slices.DeleteFunc(c.Problems, func(p string) bool { return p == "" }), "a drain is no problem")
	require.Equal(t, int64(2), c.Groups[0].Running)
	require.Equal(t, int64(4), c.SlotsTotal)

	_, err = w.remove("core-2", true)
	requireProblems(t, err, client.ExitFailed, "node core-2 is not drained yet: 12 blocks", "millrace node drain core-2 --wait")

	w.left, w.tracker.drained = &api.NodeDrain{Drained: true}, tracker.Drain{Known: true}
	resp, err := w.user(Admin).GetDrain(t.Context(), connect.NewRequest(&api.GetDrainRequest{Node: "core-2"}))
	require.NoError(t, err)
	require.True(t, resp.Msg.Drained)
	require.Equal(t, "drained: nothing is left on it; millrace node remove core-2 takes it out of the site", resp.Msg.Node.Reason)

	n, err := w.remove("core-2", false)
	require.NoError(t, err)
	require.Equal(t, state.NodeTerminated, n.State)
	c = w.clusterNow()
	require.Equal(t, []int64{1, 1}, []int64{c.Groups[0].Target, c.Groups[0].Running})
	_, err = w.remove("core-2", false)
	require.NoError(t, err, "again")
	_, err = w.drain("core-2")
	requireProblems(t, err, client.ExitFailed, "was removed")
	w.apply(state.AdmitNode{Token: "c", Node: state.Node{ID: "i-00000000000000004", Name: "core-2", Cluster: "j-DEFAULT", Role: state.RoleCore}, Now: w.now})
	w.apply(state.RemoveNode{ID: "i-00000000000000004"})
	_, err = w.drain("core-2")
	requireProblems(t, err, client.ExitNotFound, "no such node: core-2: the 2 that were called so were removed")
}

func TestADrainThatCannotBe(t *testing.T) {
	w := newLeavers(t)
	w.refuse = fmt.Errorf("%w: replication 3 needs 3 core nodes; 2 would be left", files.ErrCannotDrain)
	_, err := w.drain("core-2")
	requireProblems(t, err, client.ExitFailed, "drain core-2: the blocks there cannot be kept: replication 3 needs 3 core nodes; 2 would be left", "let more core nodes join")
	w.refuse = fmt.Errorf("%w: block reports are still coming in", hdfs.ErrUnavailable)
	_, err = w.drain("core-2")
	requireProblems(t, err, client.ExitUnreachable, "drain core-2: ", "block reports are still coming in")
	w.refuse = nil

	_, err = w.drain("m")
	requireProblems(t, err, client.ExitUsage, "is a master", "millrace master remove m")
	_, err = w.drain("core-9")
	requireProblems(t, err, client.ExitNotFound, "no such node: core-9")
	_, err = w.drain("i-0000000000000000")
	requireProblems(t, err, client.ExitUsage, "means 3 nodes")
	_, err = w.drain("core-2", func(q *api.DrainNodeRequest) { q.GraceMs = proto.Int64(-1) })
	requireProblems(t, err, client.ExitUsage, "negative")

	w.lose("i-00000000000000001")
	_, err = w.drain("core-1")
	requireProblems(t, err, client.ExitFailed, "node core-1 is lost", "millrace node remove core-1")
	_, err = w.drain("core-2")
	requireProblems(t, err, client.ExitFailed, "no other core node is up that stays", "millrace join-token create --role core --cluster default")
	for _, n := range w.state.View().Nodes("j-DEFAULT") {
		require.False(t, n.Draining(), n.ID)
	}
	_, err = w.drain("task-1", func(q *api.DrainNodeRequest) { q.GraceMs = nil })
	require.NoError(t, err, "it has no blocks")
	require.Equal(t, w.now.Add(drainGrace).UTC(), w.node("i-00000000000000003").DrainBy)
}

func TestADrainIsTakenBack(t *testing.T) {
	w := newLeavers(t)
	_, err := w.drain("i-00000000000000002")
	require.NoError(t, err)
	_, err = w.drain("core-1")
	requireProblems(t, err, client.ExitFailed, "no other core node is up that stays")
	for range 2 {
		resp, err := w.user(Admin).ResumeNode(t.Context(), connect.NewRequest(&api.ResumeNodeRequest{Node: "core-2"}))
		require.NoError(t, err)
		require.Equal(t, nodeRunning, resp.Msg.State)
	}
	require.Len(t, w.tracker.changed, 2)
	_, err = w.remove("core-2", true)
	requireProblems(t, err, client.ExitFailed, "is up and has not been drained", "millrace node drain core-2 --wait")
}

// Who drains a node that drains for its own farewell has it drain whatever becomes of that.
func TestADrainTakesThePlaceOfAFarewells(t *testing.T) {
	w := newLeavers(t)
	const id = "i-00000000000000002"
	w.apply(state.DrainNode{ID: id, By: w.now.Add(time.Second), Bye: "1"})
	resp, err := w.user(Admin).GetDrain(t.Context(), connect.NewRequest(&api.GetDrainRequest{Node: "core-2"}))
	require.NoError(t, err)
	require.Equal(t, "drained: nothing is left on it; it is being let go", resp.Msg.Node.Reason)
	_, err = w.user(Admin).ResumeNode(t.Context(), connect.NewRequest(&api.ResumeNodeRequest{Node: "core-2"}))
	requireProblems(t, err, client.ExitFailed, "said that it is about to end, and drains for that", "start its worker again")

	w.refuse = fmt.Errorf("%w: 2 would be left", files.ErrCannotDrain)
	_, err = w.drain("core-2")
	requireProblems(t, err, client.ExitFailed, "2 would be left", "let more core nodes join")
	require.Equal(t, "1", w.node(id).Bye, "the node was not asked whether it can be done")
	w.refuse = nil

	_, err = w.drain("core-2", func(q *api.DrainNodeRequest) { q.DryRun = true })
	require.NoError(t, err)
	require.Equal(t, "1", w.node(id).Bye)
	d, err := w.drain("core-2", func(q *api.DrainNodeRequest) { q.GraceMs = nil })
	require.NoError(t, err)
	require.Empty(t, w.node(id).Bye)
	require.Equal(t, w.now.Add(drainGrace).UTC(), w.node(id).DrainBy)
	require.Equal(t, "drained: nothing is left on it; millrace node remove core-2 takes it out of the site", d.Node.Reason)
}

// A node that is lost is removed as it is, if no block goes with it that nobody else has.
func TestALostNodeIsRemoved(t *testing.T) {
	w := newLeavers(t)
	w.lose("i-00000000000000002")
	trouble := func(path string) *api.BlockTrouble {
		return &api.BlockTrouble{Path: path, Block: &api.StoredBlock{Size: 1 << 20}}
	}
	w.alone = []*api.BlockTrouble{trouble("/a"), trouble("/a"), trouble("/b"), trouble("/c"), trouble("/d")}
	_, err := w.remove("core-2", false)
	requireProblems(t, err, client.ExitFailed, "no other node has 5 blocks (5 MiB) of /a, /b, /c and 1 more: without node core-2 they are lost", "--force")
	require.Equal(t, state.NodeAdmitted, w.node("i-00000000000000002").State)
	_, err = w.remove("core-2", true)
	require.NoError(t, err)
	require.Equal(t, []string{"i-00000000000000002"}, w.blocks.changed)
	w.lose("i-00000000000000003")
	n, err := w.remove("task-1", false)
	require.NoError(t, err)
	require.Equal(t, state.NodeTerminated, n.State)
}

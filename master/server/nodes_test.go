package server

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
)

// A node with a failed disk runs, and has the rest of its tasks and disks: that is its reason and the cluster's problem, not that it takes no tasks.
func TestAFailedDiskIsSaidOfItsNode(t *testing.T) {
	const id = "i-00000000000000001"
	w := newLeavers(t)
	disks := []*api.NodeDisk{{Dir: "/d0", CapacityBytes: 9, FreeBytes: 8, ReserveBytes: 1}, {Dir: "/d1", Failed: true, Reason: "input/output error; check that disk"}}
	w.blocks.disks = map[string][]*api.NodeDisk{id: disks}
	node := func() *api.Node {
		resp, err := w.user("alice").ListNodes(t.Context(), connect.NewRequest(&api.ListNodesRequest{}))
		require.NoError(t, err)
		return resp.Msg.Nodes[slices.IndexFunc(resp.Msg.Nodes, func(n *api.Node) bool { return n.Id == id })]
	}
	n := node()
	require.Equal(t, nodeRunning, n.State)
	require.Equal(t, "disk /d1 has failed: input/output error; check that disk", n.Reason)
	require.Len(t, n.Disks, 2)
	require.True(t, proto.Equal(disks[0], n.Disks[0]))
	c := w.show("")
	require.Equal(t, []string{"CORE node " + id + " (core-1): disk /d1 has failed: input/output error; check that disk; its blocks are copied from the nodes that have them, too; " +
		"mend it, or name others with --data-dir, and start the node's worker again"}, c.Problems)

	w.tracker.reason = "set aside for 2s: no python3"
	require.Equal(t, "set aside for 2s: no python3; disk /d1 has failed: input/output error; check that disk", node().Reason)
	require.Contains(t, w.show("").Problems, "CORE node "+id+" (core-1) takes no tasks now: set aside for 2s: no python3")
	w.lose(id)
	require.Empty(t, node().Disks, "nothing is heard of them")
}

// A new leader does not say of nodes that they are lost before they have had the time to find it.
func TestANewLeaderAwaitsItsNodes(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.apply(state.PutNode{Node: state.Node{ID: "i-1", Cluster: "j-DEFAULT", Group: "ig-core", Role: state.RoleCore, State: state.NodeAdmitted}})
	states := func() (list []string) {
		resp, err := w.user("alice").ListNodes(t.Context(), connect.NewRequest(&api.ListNodesRequest{}))
		require.NoError(t, err)
		for _, n := range resp.Msg.Nodes {
			if n.Role == state.RoleCore {
				list = append(list, n.State)
			}
		}
		return list
	}
	require.Equal(t, []string{nodeLost}, states(), "it has had the time")
	w.sessions.seen = map[string]time.Time{"i-1": w.now}
	lost := w.server.nodes(w.state.View(), w.leader, "j-DEFAULT")
	require.True(t, w.now.Equal(lost[len(lost)-1].GetLastSeenAt().AsTime()), "and when it was last seen")

	synctest.Test(t, func(t *testing.T) {
		settled := make(chan struct{})
		v, l := w.state.View(), &Leader{Sessions: w.sessions, Settled: settled}
		over := make(chan struct{})
		await := func() {
			defer close(over)
			w.server.awaitNodes(t.Context(), v, l, "j-DEFAULT")
		}
		go await()
		time.Sleep(time.Second)
		select {
		case <-over:
			t.Fatal("it was not awaited")
		default:
		}
		close(settled)
		<-over

		l.Settled, over = make(chan struct{}), make(chan struct{})
		w.sessions.nodes = []session.Node{{ID: "i-1", Cluster: "j-DEFAULT", Connected: true}}
		await() // at once
	})
	v := w.state.View()
	require.True(t, allHeard(v, nil, "j-OTHER"))
}

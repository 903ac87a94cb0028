package server

import (
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/client"
)

// A master that was removed has no row, and its name is free. To remove it again changes nothing; to add it is refused.
func TestAMasterThatWasRemovedIsKnownNoMore(t *testing.T) {
	w := newWorld(t)
	_, _, _, ended := w.masters()
	nodes, err := w.user(Admin).ListNodes(t.Context(), connect.NewRequest(&api.ListNodesRequest{}))
	require.NoError(t, err)
	for _, n := range nodes.Msg.Nodes {
		require.NotEqual(t, ended.ID, n.Id)
	}
	n, err := w.user(Admin).RemoveMaster(t.Context(), connect.NewRequest(&api.RemoveMasterRequest{Id: ended.Name}))
	require.NoError(t, err)
	require.Equal(t, []string{ended.ID, state.NodeTerminated, MemberNone}, []string{n.Msg.Id, n.Msg.State, n.Msg.Member})
	require.Empty(t, w.cluster.expelled)
	_, err = w.user(Admin).AddMaster(t.Context(), connect.NewRequest(&api.AddMasterRequest{Id: ended.ID}))
	requireProblems(t, err, client.ExitFailed, "was removed from the site for good", "millrace join-token create --role master")

	again := ended
	again.ID = "i-0000000000000000f"
	w.apply(state.PutNode{Node: again})
	_, err = w.user(Admin).RemoveMaster(t.Context(), connect.NewRequest(&api.RemoveMasterRequest{Id: ended.Name}))
	require.NoError(t, err)
	require.Equal(t, []string{again.ID}, w.cluster.expelled)
}

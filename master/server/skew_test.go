package server

import (
	"fmt"
	"io"
	"net"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/protocol"
	"millrace/pkg/security"
)

// Who speaks what this master no longer serves is refused at the door, whatever is asked, with both versions and what to do.
func TestACallerThatIsTooOldIsRefused(t *testing.T) {
	w := newWorld(t)
	token := w.token(&api.CreateJoinTokenRequest{Role: "core"})
	_, err := w.join(machine(t, workerID), token.Token)
	require.NoError(t, err)
	w.server.binary = protocol.Speaker{Name: "millrace-master/v9", Speaks: 99, Oldest: 98}
	refused := func(err error) {
		t.Helper()
		requireProblems(t, err, client.ExitUnreachable, fmt.Sprintf("speaks protocol %d, and millrace-master/v9 serves protocols 98 to 99", protocol.Version))
		require.Contains(t, client.Problems(err).Next, "upgrade ")
		require.Contains(t, client.Problems(err).Next, " to the version of millrace-master/v9")
		require.Equal(t, connect.CodeFailedPrecondition, connect.CodeOf(err), "asking again does not help")
	}
	_, err = w.user(Admin).ListNodes(t.Context(), connect.NewRequest(&api.ListNodesRequest{}))
	refused(err)
	_, err = w.join(machine(t, "i-000000000000000dd"), token.Token)
	refused(err)
	watch, err := w.user(Admin).WatchJob(t.Context(), connect.NewRequest(&api.GetJobRequest{Job: "last"}))
	require.NoError(t, err)
	require.False(t, watch.Receive())
	refused(watch.Err())
	open, err := w.client(security.RoleWorker, workerID).Session(t.Context())
	require.NoError(t, err)
	if err := open.Send(&api.WorkerMessage{}); err != nil { // it is refused already: why is for Receive to say
		require.ErrorIs(t, err, io.EOF)
	}
	_, err = open.Receive()
	refused(err)

	// The site knows why that node is lost.
	w.server.binary = protocol.Own("millrace-master/v9")
	n := w.server.workerView(&state.Node{ID: workerID, Role: state.RoleCore}, session.Node{}, false, w.leader)
	require.Contains(t, n.Reason, fmt.Sprintf("speaks protocol %d, and millrace-master/v9 serves", protocol.Version))
	_, err = w.user(Admin).ListNodes(t.Context(), connect.NewRequest(&api.ListNodesRequest{}))
	require.NoError(t, err)
}

// A master joins only if it reads the log.
func TestAMasterThatCouldNotReadTheLogDoesNotJoin(t *testing.T) {
	w := newWorld(t)
	token := w.token(&api.CreateJoinTokenRequest{Role: "master"})
	w.apply(state.RaiseSite{Protocol: 99})
	n := machine(t, "i-000000000000000dd")
	_, err := client.Join(t.Context(), []string{w.http.URL}, token.Token, &api.JoinRequest{NodeId: n.id, Name: "m", CsrDer: n.csr, Version: "v1", AsMaster: true})
	requireProblems(t, err, client.ExitUnreachable,
		fmt.Sprintf("millrace-master/v1 speaks protocol %d, and the site of millrace-master/test serves protocol 99 alone", protocol.Version))
	_, known := w.state.View().Node(n.id)
	require.False(t, known)
}

func TestWhatIsWrongWithMasters(t *testing.T) {
	w := newWorld(t)
	w.server.binary.Speaks = 2
	w.cluster.heard = map[string]Heard{
		"i-a": {Protocol: 1}, "i-b": {Protocol: 2, Problem: "no space left", CannotLog: true}, "i-c": {Protocol: 2},
	}
	voter := func(id string, speaks int32) *api.Node {
		return &api.Node{Id: id, Name: "of " + id, Version: "v" + id, State: nodeRunning, Member: MemberVoter, Protocol: speaks}
	}
	masters := []*api.Node{voter("i-a", 1), voter("i-b", 2), voter("i-c", 2)}
	require.Equal(t, []string{
		"MASTER node i-a (of i-a) is of an older version (vi-a): the site goes on as that one does (protocol 1) until it is upgraded",
		"MASTER node i-b (of i-b): no space left",
		"2 of 3 masters that vote are up: with one less nothing goes on",
	}, w.server.mastersProblems(masters, 1))
	require.Len(t, w.server.mastersProblems(masters, 2), 2, "once the site uses it nobody is old")
}

// Without a leader the answer says why there is none.
func TestNoLeader(t *testing.T) {
	w := newWorld(t)
	w.server.Lead(nil)
	said := func() *api.Problems {
		_, err := w.user(Admin).ListNodes(t.Context(), connect.NewRequest(&api.ListNodesRequest{}))
		require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err), "it may be asked again")
		p := client.Problems(err)
		require.EqualValues(t, client.ExitUnreachable, p.ExitCode)
		return p
	}
	require.Equal(t, []string{"this master is not the leader, and none is elected yet"}, said().Errors)

	// One that takes connections and says nothing is out, too: a process that was stopped.
	frozen, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer frozen.Close()
	for id, address := range map[string]string{"i-b": "https://" + frozen.Addr().String(), "i-c": follower(t, w).http.URL} {
		w.apply(state.PutNode{Node: state.Node{ID: id, Name: "of " + id, Role: state.RoleMaster, Address: address}})
	}
	w.cluster.voters = []string{masterID, "i-b", "i-c"}
	require.Equal(t, []string{"this master is not the leader, and none is elected yet"}, said().Errors, "two of three can elect one")

	w.cluster.voters = []string{masterID, "i-b", "i-d"}
	require.Equal(t, []string{"no leader can be elected: 2 of 3 masters are out (master i-d; of i-b (i-b, https://" + frozen.Addr().String() +
		")), and it takes 2; nothing new is acknowledged until then, what runs goes on"}, said().Errors)
	require.Contains(t, said().Next, "start those masters again")

	w.cluster.voters = nil
	w.cluster.heard = map[string]Heard{masterID: {CannotLog: true, Problem: "its disk is full"}}
	require.Equal(t, []string{"the master that answers has no part in anything: its disk is full"}, said().Errors)
}

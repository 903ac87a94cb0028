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

// What a new leader says because of its nodes is what it says when they have had the time to find it.
func TestANewLeaderJudgesByAllItsNodes(t *testing.T) {
	w := newWorld(t)
	job := w.attempts()
	w.apply(state.PutNode{Node: state.Node{ID: "i-1", Cluster: "j-DEFAULT", Role: state.RoleCore, State: state.NodeAdmitted}})
	worker := w.logWorker(workerID, job+"/"+job+"-m-00000-9-1")
	w.sessions.nodes = []session.Node{
		{ID: "i-1", Cluster: "j-DEFAULT", Slots: 1, Memory: 1 << 30, Connected: true},
		{ID: workerID, Cluster: "j-DEFAULT", Address: worker, Slots: 4, Memory: 8 << 30, Connected: true},
	}
	plan := func(memory int64) (proto.Message, error) {
		spec := wordcount()
		spec.Output, spec.MemoryBytes = "s3://out/other/", memory
		resp, err := w.user("alice").SubmitJob(t.Context(), connect.NewRequest(&api.SubmitJobRequest{Spec: spec, DryRun: true}))
		if err != nil {
			return nil, err
		}
		return resp.Msg, nil
	}
	for name, ask := range map[string]func() (proto.Message, error){
		"whether a node has the memory":    func() (proto.Message, error) { return plan(4 << 30) },
		"over how many slots a job is cut": func() (proto.Message, error) { return plan(0) },
		"why a job waits": func() (proto.Message, error) {
			resp, err := w.user("alice").ExplainJob(t.Context(), connect.NewRequest(&api.GetJobRequest{Job: job}))
			if err != nil {
				return nil, err
			}
			return resp.Msg, nil
		},
		"an attempt's log": func() (proto.Message, error) {
			_, text, err := w.logs(&api.JobLogsRequest{Job: job})
			return &api.JobLogsResponse{Data: []byte(text)}, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w.sessions.asked, w.sessions.late = 0, 0
			w.server.Lead(w.leader)
			want, err := ask()
			require.NoError(t, err)
			// As late as can be: had nobody waited, the second node would not have been there for any look.
			w.sessions.late, w.sessions.asked = w.sessions.asked, 0
			begun := *w.leader
			begun.Settled = make(chan struct{})
			w.server.Lead(&begun)
			got, err := ask()
			require.NoError(t, err)
			require.True(t, proto.Equal(want, got), "%v\n%v", want, got)
		})
	}
}

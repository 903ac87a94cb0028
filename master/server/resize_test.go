package server

import (
	"fmt"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"millrace/hdfs"
	"millrace/hdfs/namespace"
	"millrace/master/files"
	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/client"
)

func (w *world) resize(m *api.ResizeClusterRequest) (*api.ResizeClusterResponse, error) {
	w.t.Helper()
	resp, err := w.user("admin").ResizeCluster(w.t.Context(), connect.NewRequest(m))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// up gives a node a session.
func (w *world) up(id, cluster string) {
	w.sessions.nodes = append(w.sessions.nodes, session.Node{ID: id, Cluster: cluster, Role: state.RoleCore, Slots: 2, Connected: true})
}

func (w *world) group(role string) state.Group {
	w.t.Helper()
	c, ok := w.state.View().Cluster("")
	require.True(w.t, ok)
	for _, g := range c.Groups {
		if g.Role == role {
			return g
		}
	}
	return state.Group{}
}

// A resize is logged at once, and the fleet makes it so; the groups that are not named stay as they are.
func TestAClusterIsResized(t *testing.T) {
	w := newLeavers(t)
	w.fleet.plans = []*api.GroupPlan{{Role: "TASK", From: 1, To: 4, Add: 3, Missing: 1}}
	dry := &api.ResizeClusterRequest{Groups: []*api.GroupTarget{groupTarget("task", 4)}, DryRun: true}
	resp, err := w.resize(dry)
	require.NoError(t, err)
	require.Equal(t, []int64{3, 1}, []int64{resp.Groups[0].Add, resp.Groups[0].Missing})
	require.Equal(t, 1, w.group("TASK").Target, "nothing was changed")
	require.Zero(t, w.fleet.pokes)

	dry.DryRun, dry.GraceMs = false, proto.Int64(0)
	resp, err = w.resize(dry)
	require.NoError(t, err)
	require.EqualValues(t, 4, resp.Cluster.Groups[1].Target)
	require.Equal(t, 2, w.group("CORE").Target)
	require.EqualValues(t, 1, w.group("TASK").GraceMs, "none at all is not the usual one")
	require.Equal(t, 1, w.fleet.pokes)
	require.Equal(t, []string{"resized by admin from 2 core, 1 task to 2 core, 4 task"}, w.events("", 0))

	_, err = w.resize(&api.ResizeClusterRequest{Groups: []*api.GroupTarget{bounded("task", 5, 9)}})
	require.NoError(t, err)
	require.Equal(t, []any{true, 5, 9, 5}, []any{w.group("TASK").Scales, w.group("TASK").Min, w.group("TASK").Max, w.group("TASK").Target}, "it moves within its bounds")
	require.Zero(t, w.group("TASK").GraceMs, "the usual one again")
	_, err = w.resize(&api.ResizeClusterRequest{Groups: []*api.GroupTarget{groupTarget("task", 2)}})
	requireProblems(t, err, client.ExitUsage, "2 task nodes are not within the bounds of the group, which scales by itself between 5 and 9")
	both := bounded("task", 0, 0)
	both.Target = proto.Int64(2)
	_, err = w.resize(&api.ResizeClusterRequest{Groups: []*api.GroupTarget{both}})
	require.NoError(t, err)
	require.Equal(t, []any{false, 2}, []any{w.group("TASK").Scales, w.group("TASK").Target})

	w.apply(state.SuspendGroup{Cluster: "j-DEFAULT", Group: "ig-TASK", Reason: "it failed"})
	_, err = w.resize(&api.ResizeClusterRequest{Groups: []*api.GroupTarget{{Role: "task"}}}) // cluster resize --retry
	require.NoError(t, err)
	require.Empty(t, w.group("TASK").Suspended, "it grows again")
	require.Equal(t, []string{"resized by admin from 2 core, 2 task to 2 core, 2 task"}, w.events("", 3))
}

func TestAResizeThatCannotBe(t *testing.T) {
	w := newLeavers(t)
	for _, c := range []struct {
		m    *api.ResizeClusterRequest
		exit int32
		says string
	}{
		{&api.ResizeClusterRequest{}, client.ExitUsage, "nothing was said of what to change"},
		{&api.ResizeClusterRequest{Groups: []*api.GroupTarget{groupTarget("task", -1)}}, client.ExitUsage, "cannot be negative"},
		{&api.ResizeClusterRequest{Groups: []*api.GroupTarget{groupTarget("task", 1)}, GraceMs: proto.Int64(-1)}, client.ExitUsage, "a grace cannot be negative"},
		{&api.ResizeClusterRequest{Groups: []*api.GroupTarget{bounded("task", 3, 1)}}, client.ExitUsage, "at least 3 and at most 1 node"},
		{&api.ResizeClusterRequest{Groups: []*api.GroupTarget{groupTarget("pool", 1)}}, client.ExitUsage, "has the groups core and task, not"},
		{&api.ResizeClusterRequest{Cluster: "none", Groups: []*api.GroupTarget{groupTarget("task", 1)}}, client.ExitNotFound, "no such cluster: none"},
	} {
		_, err := w.resize(c.m)
		requireProblems(t, err, c.exit, c.says)
	}
	require.Zero(t, w.fleet.pokes)
}

// Core nodes leave only if what they hold has room on those that stay, which is found out for all of them together.
func TestCoreNodesThatLeaveKeepTheirBlocks(t *testing.T) {
	w := newLeavers(t)
	w.lose("i-00000000000000001")
	w.fleet.plans = []*api.GroupPlan{{Role: "CORE", From: 2, To: 1, Drain: []string{"i-00000000000000001", "i-00000000000000002"}}}
	w.plan = &api.NodeDrain{Blocks: 12, Bytes: 1 << 30, EstimateMs: 9000}
	shrink := &api.ResizeClusterRequest{Groups: []*api.GroupTarget{groupTarget("core", 1)}, DryRun: true}
	resp, err := w.resize(shrink)
	require.NoError(t, err)
	require.Equal(t, []int64{12, 1 << 30, 9000, 1}, []int64{resp.Groups[0].Blocks, resp.Groups[0].Bytes, resp.Groups[0].EstimateMs, resp.Groups[0].Attempts})
	require.Equal(t, []string{"i-00000000000000002"}, w.asked, "what is lost has nothing to give")

	w.refuse = fmt.Errorf("%w: replication 3 needs 3 core nodes; 1 would be left", files.ErrCannotDrain)
	for _, dry := range []bool{true, false} {
		shrink.DryRun = dry
		_, err = w.resize(shrink)
		requireProblems(t, err, client.ExitFailed, "resize cluster default to 1 core node: ", "replication 3 needs 3 core nodes; 1 would be left", "millrace fs setrep")
	}
	require.Equal(t, 2, w.group("CORE").Target)
}

// A cluster without core nodes would lose its files, and its jobs their places to write.
func TestAResizeToNoCoreNode(t *testing.T) {
	w := newLeavers(t)
	w.fleet.plans = []*api.GroupPlan{{Role: "CORE", From: 2, To: 0, Drain: []string{"i-00000000000000001", "i-00000000000000002"}}}
	none := &api.ResizeClusterRequest{Groups: []*api.GroupTarget{groupTarget("core", 0)}}
	job := w.submit(wordcount())
	_, err := w.resize(none)
	requireProblems(t, err, client.ExitFailed, "job "+job.Id+" runs")
	w.apply(state.CancelJob{Job: job.Id})
	w.apply(state.EndJob{Job: job.Id})

	id, ok := w.apply(namespace.CreateFile{Cluster: "j-DEFAULT", Path: "/a", Lease: "l"}).(hdfs.FileID)
	require.True(t, ok)
	w.apply(namespace.AddBlock{Cluster: "j-DEFAULT", File: id, Lease: "l"})
	_, err = w.resize(none)
	requireProblems(t, err, client.ExitFailed, "in its block store, the trash included, would be lost", "millrace cluster terminate default")
	w.apply(namespace.AbandonFile{Cluster: "j-DEFAULT", File: id, Lease: "l"})
	_, err = w.resize(none)
	require.NoError(t, err, "nothing would be lost")
	require.Zero(t, w.group("CORE").Target)
}

// What is to be run next names its cluster. The nodes of a cluster that somebody made come from its provider.
func TestTheCommandForOneNodeMoreNamesTheCluster(t *testing.T) {
	first := &state.Cluster{Name: "default", Groups: []state.Group{{Role: state.RoleCore}}}
	made := &state.Cluster{Name: "nightly", User: "alice", Groups: []state.Group{{Role: state.RoleCore, Target: 2}, {Role: state.RoleTask}}}
	require.Equal(t, "millrace join-token create --role core --cluster default", oneMore(first, state.RoleCore))
	require.Equal(t, "millrace cluster resize nightly --core 3", oneMore(made, state.RoleCore))
	require.Equal(t, "millrace cluster resize nightly --task 1", oneMore(made, state.RoleTask))

	f := facts{job: &state.Job{State: state.JobRunning}, cluster: &state.Cluster{Name: "nightly", User: "alice", Groups: []state.Group{{Role: state.RoleCore}}}}
	f.sayNodes(func(next, _ string, _ ...any) { require.Equal(t, "millrace cluster resize nightly --core 1", next) })
	f.cluster = made
	f.live.Turn = "it waits for its turn"
	made.StepConcurrency = 1
	require.Contains(t, f.explain().Next, "millrace cluster set nightly --step-concurrency 2")
}

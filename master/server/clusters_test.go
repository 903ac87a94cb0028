package server

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"millrace/master/fleet"
	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/objectstore"
	"millrace/pkg/security"
)

// fakeFleet makes nothing so, and says what it is told.
type fakeFleet struct {
	pokes  int
	plans  []*api.GroupPlan
	asked  []state.Group // of the last plan
	status map[string]fleet.Status
	coming string // a node
}

func (f *fakeFleet) Poke() { f.pokes++ }
func (f *fakeFleet) Plan(_ string, groups []state.Group) []*api.GroupPlan {
	f.asked = groups
	return f.plans
}
func (f *fakeFleet) Status(group string) fleet.Status { return f.status[group] }
func (f *fakeFleet) Arriving(n *state.Node) bool      { return n.ID == f.coming }
func (f *fakeFleet) Providers() []string              { return []string{"pool", "process"} }

func (w *world) create(m *api.CreateClusterRequest) (*api.Cluster, error) {
	w.t.Helper()
	resp, err := w.user("admin").CreateCluster(w.t.Context(), connect.NewRequest(m))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func (w *world) show(name string) *api.Cluster {
	w.t.Helper()
	resp, err := w.user("admin").GetCluster(w.t.Context(), connect.NewRequest(&api.GetClusterRequest{Cluster: name}))
	require.NoError(w.t, err)
	return resp.Msg
}

func (w *world) setCluster(m *api.SetClusterRequest) (*api.Cluster, error) {
	w.t.Helper()
	resp, err := w.user("admin").SetCluster(w.t.Context(), connect.NewRequest(m))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func (w *world) terminate(name string) (*api.Cluster, error) {
	w.t.Helper()
	resp, err := w.user("admin").TerminateCluster(w.t.Context(), connect.NewRequest(&api.TerminateClusterRequest{Cluster: name}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func (w *world) events(name string, after uint64) (list []string) {
	w.t.Helper()
	resp, err := w.user("admin").ListEvents(w.t.Context(), connect.NewRequest(&api.ListEventsRequest{Cluster: name, After: after}))
	require.NoError(w.t, err)
	for i, e := range resp.Msg.Events {
		require.Equal(w.t, resp.Msg.Events[0].Number+uint64(i), e.Number, "without a gap")
		list = append(list, e.Message)
	}
	return list
}

func groupTarget(role string, n int64) *api.GroupTarget {
	return &api.GroupTarget{Role: role, Target: &n}
}

func bounded(role string, least, most int64) *api.GroupTarget {
	return &api.GroupTarget{Role: role, Min: &least, Max: &most}
}

// A new cluster has all that it was asked for, begins as STARTING, and its bootstrap actions are what their scripts are now.
func TestAClusterIsCreated(t *testing.T) {
	w := newWorld(t)
	w.put("scripts", "setup.sh", "#!/bin/sh\n")
	c, err := w.create(&api.CreateClusterRequest{
		Name: "nightly", Groups: []*api.GroupTarget{groupTarget("core", 2), bounded("task", 1, 5)}, Provider: "pool", StepConcurrency: 2, RequestId: "r",
		Tags: []*api.Tag{{Key: "team", Value: "data"}, {Key: "a", Value: ""}}, TerminationProtected: true, AutoTerminateMs: 600_000, TerminateAfterSteps: true,
		BootstrapActions: []*api.BootstrapAction{{Url: "s3://scripts/setup.sh", Args: []string{"x", "y"}}},
	})
	require.NoError(t, err)
	require.Regexp(t, clusterID, c.Id)
	require.Equal(t, []any{"nightly", clusterStarting, int32(2), true, int64(600_000), true}, []any{c.Name, c.State, c.StepConcurrency, c.TerminationProtected, c.AutoTerminateMs, c.TerminateAfterSteps})
	require.Equal(t, []string{"a=", "team=data"}, tagsOf(c))
	require.Len(t, c.Groups, 2)
	require.Equal(t, []any{"CORE", int64(2), "pool"}, []any{c.Groups[0].Role, c.Groups[0].Target, c.Groups[0].Provider})
	require.Equal(t, []int64{1, 1, 5}, []int64{c.Groups[1].Target, c.Groups[1].GetMin(), c.Groups[1].GetMax()})
	require.Len(t, c.BootstrapActions, 1)
	a := c.BootstrapActions[0]
	require.Equal(t, []string{"setup.sh", "s3://scripts/setup.sh", "x y"}, []string{a.Name, a.Url, strings.Join(a.Args, " ")})
	require.Len(t, a.Sha256, 64)
	require.Positive(t, w.fleet.pokes)
	require.Equal(t, []string{"created by admin: 2 core, 1 task (1 to 5)"}, w.events("nightly", 0))

	again, err := w.create(&api.CreateClusterRequest{Name: "nightly", RequestId: "r"})
	require.NoError(t, err, "the same request again")
	require.Equal(t, c.Id, again.Id)
	_, err = w.create(&api.CreateClusterRequest{Name: "other", RequestId: "r"})
	requireProblems(t, err, client.ExitUsage, "has made cluster nightly")

	resp, err := w.user("admin").ListClusters(t.Context(), connect.NewRequest(&api.ListClustersRequest{}))
	require.NoError(t, err)
	require.Len(t, resp.Msg.Clusters, 2)
}

func tagsOf(c *api.Cluster) (list []string) {
	for _, t := range c.Tags {
		list = append(list, t.Key+"="+t.Value)
	}
	return list
}

// What cannot be is refused, every mistake of it at once, and nothing is made.
func TestAClusterThatCannotBe(t *testing.T) {
	w := newWorld(t)
	w.put("scripts", "empty.sh", "")
	w.put("scripts", "long.sh", strings.Repeat("#", mostScript+1))
	for _, c := range []struct {
		change func(*api.CreateClusterRequest)
		says   string
	}{
		{func(m *api.CreateClusterRequest) { m.Name = "" }, "a cluster needs a name"},
		{func(m *api.CreateClusterRequest) { m.Name = "a b" }, "is no name for a cluster"},
		{func(m *api.CreateClusterRequest) { m.Name = "-a" }, "begins with a letter or a digit"},
		{func(m *api.CreateClusterRequest) { m.Name = strings.Repeat("n", 129) }, "at most 128"},
		{func(m *api.CreateClusterRequest) { m.Name = "j-ABCDEFGHIJKLM" }, "it looks like an id"},
		{func(m *api.CreateClusterRequest) { m.Name = "default" }, "there is a cluster of the name default already"},
		{func(m *api.CreateClusterRequest) { m.Groups[0].Target = proto.Int64(-1) }, "-1 core nodes: a number of nodes cannot be negative"},
		{func(m *api.CreateClusterRequest) { m.Groups[0].Target = proto.Int64(mostNodes + 1) }, "a group has at most 10000"},
		{func(m *api.CreateClusterRequest) { m.Groups = append(m.Groups, groupTarget("core", 1)) }, "the group core is given twice"},
		{func(m *api.CreateClusterRequest) { m.Groups = append(m.Groups, groupTarget("master", 1)) }, "has the groups core and task, not"},
		{func(m *api.CreateClusterRequest) { m.Groups = append(m.Groups, bounded("task", 5, 2)) }, "at least 5 and at most 2 nodes"},
		{func(m *api.CreateClusterRequest) { m.Groups = append(m.Groups, bounded("task", -5, 2)) }, "cannot be negative: -5 to 2"},
		{func(m *api.CreateClusterRequest) {
			m.Groups = append(m.Groups, &api.GroupTarget{Role: "task", Min: proto.Int64(3)})
		}, "needs an upper bound"},
		{func(m *api.CreateClusterRequest) { m.Groups[0] = bounded("core", 1, 2) }, "only the task group scales by itself"},
		{func(m *api.CreateClusterRequest) {
			g := bounded("task", 1, 2)
			g.Target = proto.Int64(3)
			m.Groups = append(m.Groups, g)
		}, "3 task nodes are not within the bounds"},
		{func(m *api.CreateClusterRequest) { m.Provider = "cloud" }, "this site has pool, process"},
		{func(m *api.CreateClusterRequest) { m.StepConcurrency = -1 }, "1 to 256 jobs at once, not -1"},
		{func(m *api.CreateClusterRequest) { m.AutoTerminateMs = 3 }, "after 1s without a job at least, not 3ms"},
		{func(m *api.CreateClusterRequest) { m.Tags = []*api.Tag{{Value: "v"}} }, "a tag needs a key"},
		{func(m *api.CreateClusterRequest) { m.Tags = []*api.Tag{{Key: "k"}, {Key: "k"}} }, "tag k is given twice"},
		{func(m *api.CreateClusterRequest) { m.Tags = []*api.Tag{{Key: strings.Repeat("k", 129)}} }, "a key has at most 128 bytes"},
		{withAction("s3://scripts/missing.sh"), "s3://scripts/missing.sh: there is no such object"},
		{withAction("s3://nowhere/a.sh"), "s3://nowhere/a.sh: there is no such bucket"},
		{withAction("s3://scripts/empty.sh"), "its script is empty"},
		{withAction("s3://scripts/long.sh"), "more than 1 MiB"},
		{withAction("s3://scripts/"), "s3://BUCKET/KEY"},
		{withAction("hdfs:///a.sh"), "s3://BUCKET/KEY"},
		{withAction("/tmp/a.sh"), "s3://BUCKET/KEY"},
	} {
		m := &api.CreateClusterRequest{Name: "new", Groups: []*api.GroupTarget{groupTarget("core", 1)}}
		c.change(m)
		_, err := w.create(m)
		requireProblems(t, err, client.ExitUsage, c.says)
	}
	_, err := w.create(&api.CreateClusterRequest{Name: "a b", Provider: "x", StepConcurrency: 300})
	require.Len(t, requireProblems(t, err, client.ExitUsage).Errors, 3)
	require.Len(t, w.state.View().Clusters(), 1)

	w.put("scripts", "ok.sh", "echo\n")
	m := &api.CreateClusterRequest{Name: "new"}
	withAction("s3://scripts/ok.sh")(m)
	m.BootstrapActions[0].Sha256 = strings.Repeat("0", 64)
	_, err = w.create(m)
	requireProblems(t, err, client.ExitUsage, "has another SHA-256")
}

func withAction(url string) func(*api.CreateClusterRequest) {
	return func(m *api.CreateClusterRequest) { m.BootstrapActions = []*api.BootstrapAction{{Url: url}} }
}

// A store that does not answer is no mistake: the request may be repeated as it is.
func TestAClusterWhoseScriptsCannotBeRead(t *testing.T) {
	w := newWorld(t)
	f := &findings{}
	a := &state.BootstrapAction{URL: "s3://scripts/a.sh"}
	f.script(t.Context(), "http://store.test", a, nil, objectstore.ErrUnreachable)
	err := f.refusal()
	require.Error(t, err)
	require.Equal(t, int32(client.ExitUnreachable), err.(*problem).exit)
	require.Empty(t, w.fleet.pokes)
}

func TestAClusterIsChanged(t *testing.T) {
	w := newWorld(t)
	c, err := w.setCluster(&api.SetClusterRequest{StepConcurrency: proto.Int32(3), TerminationProtected: proto.Bool(true), AutoTerminateMs: proto.Int64(60_000),
		PutTags: []*api.Tag{{Key: "b", Value: "1"}, {Key: "a", Value: "2"}}})
	require.NoError(t, err)
	require.Equal(t, []any{int32(3), true, int64(60_000), false}, []any{c.StepConcurrency, c.TerminationProtected, c.AutoTerminateMs, c.TerminateAfterSteps})
	require.Equal(t, []string{"a=2", "b=1"}, tagsOf(c))
	require.Equal(t, []string{"j-DEFAULT"}, w.tracker.clusters, "the tracker hears of it")
	c, err = w.setCluster(&api.SetClusterRequest{TerminateAfterSteps: proto.Bool(true), PutTags: []*api.Tag{{Key: "a", Value: "3"}}, RemoveTags: []string{"b", "none"}})
	require.NoError(t, err)
	require.Equal(t, []any{int32(3), true, int64(60_000), true}, []any{c.StepConcurrency, c.TerminationProtected, c.AutoTerminateMs, c.TerminateAfterSteps}, "the rest stays")
	require.Equal(t, []string{"a=3"}, tagsOf(c))
	require.Equal(t, []string{"changed by admin: termination-protected=true, step-concurrency=3, auto-terminate=1m0s, tag b=1, tag a=2",
		"changed by admin: terminate-after-steps=true, tag a=3, no tag b, no tag none"}, w.events("", 0))
	_, err = w.setCluster(&api.SetClusterRequest{StepConcurrency: proto.Int32(-3), AutoTerminateMs: proto.Int64(-1)})
	require.Len(t, requireProblems(t, err, client.ExitUsage).Errors, 2)
	_, err = w.setCluster(&api.SetClusterRequest{Cluster: "none"})
	requireProblems(t, err, client.ExitNotFound)

	w.put("scripts", "better.sh", "echo\n")
	c, err = w.setCluster(&api.SetClusterRequest{BootstrapActions: []*api.BootstrapAction{{Url: "s3://scripts/better.sh", Args: []string{"x"}}}})
	require.NoError(t, err)
	require.Len(t, c.BootstrapActions, 1)
	require.Len(t, c.BootstrapActions[0].Sha256, 64)
	require.Equal(t, []string{"changed by admin: bootstrap action 1: s3://scripts/better.sh"}, w.events("", 2))
	_, err = w.setCluster(&api.SetClusterRequest{BootstrapActions: []*api.BootstrapAction{{Url: "s3://scripts/missing.sh"}}})
	requireProblems(t, err, client.ExitUsage, "s3://scripts/missing.sh: there is no such object")
}

// A cluster that is protected is not ended before somebody takes that away; one that ends takes nothing any more, and says why.
func TestAClusterIsTerminated(t *testing.T) {
	w := newWorld(t)
	w.ready()
	_, err := w.create(&api.CreateClusterRequest{Name: "c", Groups: []*api.GroupTarget{groupTarget("core", 1)}, TerminationProtected: true})
	require.NoError(t, err)
	_, err = w.terminate("c")
	requireProblems(t, err, client.ExitFailed, "cluster c is protected from termination", "millrace cluster set c --termination-protected=false")
	_, err = w.setCluster(&api.SetClusterRequest{Cluster: "c", TerminationProtected: proto.Bool(false)})
	require.NoError(t, err)

	c, err := w.terminate("c")
	require.NoError(t, err, "while its nodes are still to come")
	require.Equal(t, []string{state.ClusterTerminating, "USER_REQUEST", "terminated by admin"}, []string{c.State, c.ReasonCode, c.Reason})
	require.Contains(t, w.tracker.clusters, c.Id)
	c, err = w.terminate(c.Id)
	require.NoError(t, err, "once more")
	require.Equal(t, state.ClusterTerminating, c.State)

	spec := wordcount()
	spec.Cluster = c.Id
	_, err = w.user("admin").SubmitJob(t.Context(), connect.NewRequest(&api.SubmitJobRequest{Spec: spec}))
	requireProblems(t, err, client.ExitUsage, "cluster c is TERMINATING: it takes no jobs")
	_, err = w.resize(&api.ResizeClusterRequest{Cluster: c.Id, Groups: []*api.GroupTarget{groupTarget("core", 2)}})
	requireProblems(t, err, client.ExitFailed, "cluster c is TERMINATING: nothing of it can be changed")
	_, err = w.setCluster(&api.SetClusterRequest{Cluster: c.Id, StepConcurrency: proto.Int32(1)})
	requireProblems(t, err, client.ExitFailed, "cluster c is TERMINATING")

	w.later(time.Minute)
	w.apply(state.EndCluster{Cluster: c.Id, State: state.ClusterTerminated, At: w.time()})
	c = w.show(c.Id)
	require.Equal(t, state.ClusterTerminated, c.State)
	require.Empty(t, c.Problems)
	require.NotNil(t, c.EndedAt)
	w.leader.Files = &blocks{}
	_, err = w.client(security.RoleUser, "admin").Files().ListFolder(t.Context(), connect.NewRequest(&api.ListFolderRequest{Cluster: c.Id, Path: "/"}))
	requireProblems(t, err, client.ExitNotFound, "cluster c is TERMINATED: its files ended with it")
	_, err = w.create(&api.CreateClusterRequest{Name: "c"})
	require.NoError(t, err, "its name is free again")
	require.NotEqual(t, c.Id, w.show("c").Id, "and means the new one")
}

// A cluster may end by what it was set to before the answer is out: the call that is made again is no error, but it changes nothing any more.
func TestAClusterThatEndsByWhatItIsSetTo(t *testing.T) {
	w := newWorld(t)
	_, err := w.create(&api.CreateClusterRequest{Name: "c", Groups: []*api.GroupTarget{groupTarget("core", 1)}})
	require.NoError(t, err)
	set := &api.SetClusterRequest{Cluster: "c", AutoTerminateMs: proto.Int64(1000), TerminateAfterSteps: proto.Bool(true), StepConcurrency: proto.Int32(2)}
	c, err := w.setCluster(set)
	require.NoError(t, err)
	w.apply(state.TerminateCluster{Cluster: c.Id, ReasonCode: state.ReasonAutoTerminate, Reason: "it had no job for 1s"})
	c, err = w.setCluster(set)
	require.NoError(t, err)
	require.Equal(t, []any{state.ClusterTerminating, int64(1000), int32(2)}, []any{c.State, c.AutoTerminateMs, c.StepConcurrency})
	for _, other := range []*api.SetClusterRequest{
		{AutoTerminateMs: proto.Int64(2000)}, {TerminateAfterSteps: proto.Bool(false)}, {AutoTerminateMs: proto.Int64(1000), StepConcurrency: proto.Int32(3)},
		{AutoTerminateMs: proto.Int64(1000), TerminationProtected: proto.Bool(true)}, {AutoTerminateMs: proto.Int64(1000), PutTags: []*api.Tag{{Key: "a", Value: "1"}}},
		{StepConcurrency: proto.Int32(2)}, {},
	} {
		other.Cluster = "c"
		_, err = w.setCluster(other)
		requireProblems(t, err, client.ExitFailed, "cluster c is TERMINATING: nothing of it can be changed")
	}
}

// People see of a group what the fleet knows, and why nodes are missing.
func TestAClusterSaysWhatItLacks(t *testing.T) {
	w := newWorld(t)
	w.fleet.status = map[string]fleet.Status{"ig-TASK": {Launching: 1, Missing: 2, Reason: "the pool has no free node"}}
	c := w.show("")
	require.Equal(t, []any{int64(1), int64(2), "the pool has no free node"}, []any{c.Groups[1].Launching, c.Groups[1].Missing, c.Groups[1].Reason})
	require.Contains(t, strings.Join(c.Problems, "\n"), "the TASK group lacks 2 nodes: the pool has no free node; it is tried again and again")

	w.fleet.status = nil
	w.apply(state.SuspendGroup{Cluster: "j-DEFAULT", Group: "ig-TASK", Reason: "2 of 4 nodes failed: setup.sh exit code 3"})
	c = w.show("")
	require.True(t, c.Groups[1].Suspended)
	require.Contains(t, strings.Join(c.Problems, "\n"), "the TASK group grows no more: 2 of 4 nodes failed: setup.sh exit code 3; once that is mended: millrace cluster resize default --retry")
}

// A provider that fails is named, also while a cluster is taken apart, and how often it was tried.
func TestAClusterSaysWhereItsProviderFails(t *testing.T) {
	w := newWorld(t)
	lacks := func() string { return strings.Join(w.show("default").Problems, "\n") }
	launch := func(id, stage, problem string, tries int) {
		l := state.Launch{ID: id, Cluster: "j-DEFAULT", Group: "ig-TASK", Provider: "ec2", State: state.LaunchRequested, RequestedAt: w.now, Token: "t-" + id, SealedToken: []byte{1}}
		if _, known := w.state.View().Launch(id); !known {
			w.apply(state.PutLaunch{Launch: l, Create: &state.Token{ID: l.Token, Role: state.RoleTask, Cluster: l.Cluster, ExpiresAt: w.now.Add(time.Hour), UsesLeft: 1, Launch: id}})
		}
		l.State, l.Problem, l.Tries = stage, problem, tries
		w.apply(state.PutLaunch{Launch: l})
	}
	launch("l-1", state.LaunchRequested, "provider ec2: exit code 1: no quota", 2)
	launch("l-2", state.LaunchRequested, "provider ec2: exit code 1: no quota", 1)
	launch("l-3", state.LaunchRequested, "", 0)
	require.Contains(t, lacks(), "the TASK group: 2 machines asked for, not there yet: provider ec2: exit code 1: no quota; tried 2 times, it is tried again and again")

	_, err := w.terminate("default")
	require.NoError(t, err)
	launch("l-1", state.LaunchTerminating, "provider ec2: exit code 7", 1)
	require.Contains(t, lacks(), "the TASK group: 1 machine to go, perhaps still there: provider ec2: exit code 7; tried 1 time, it is tried again and again")
}

// A node that was launched, or came from the pool, a moment ago has had no time for a session: that is no problem. Once it has had the time, it is.
func TestANodeThatIsOnItsWayIsNotLost(t *testing.T) {
	w := newLeavers(t)
	const id = "i-00000000000000003"
	w.lose(id)
	w.fleet.coming = id
	require.NotContains(t, strings.Join(w.show("").Problems, "\n"), "is lost")
	w.fleet.coming = ""
	require.Contains(t, strings.Join(w.show("").Problems, "\n"), "TASK node "+id+" (task-1) is lost: it has no session with the leader")
}

// Nodes that run bootstrap actions take no tasks yet, those where one failed never will.
func TestNodesThatBootstrap(t *testing.T) {
	w := newLeavers(t)
	w.put("scripts", "a.sh", "true\n")
	c, err := w.create(&api.CreateClusterRequest{Name: "b", Groups: []*api.GroupTarget{groupTarget("core", 2)}, BootstrapActions: []*api.BootstrapAction{{Url: "s3://scripts/a.sh"}}})
	require.NoError(t, err)
	w.apply(state.CreateToken{Token: state.Token{ID: "b", Role: state.RoleCore, Cluster: c.Id, ExpiresAt: w.now.Add(time.Hour), UsesLeft: -1}})
	ids := []string{"i-00000000000000004", "i-00000000000000005"}
	for _, id := range ids {
		w.apply(state.AdmitNode{Token: "b", Node: state.Node{ID: id, Name: "n" + id[18:], Role: state.RoleCore, Cluster: c.Id}, Now: w.now})
		w.up(id, c.Id)
	}
	require.Equal(t, clusterBootstrapping, w.show("b").State)
	require.EqualValues(t, 2, w.show("b").Groups[0].Bootstrapping)
	node := func(id string) *api.Node {
		for _, n := range w.server.nodes(w.state.View(), w.leader, c.Id) {
			if n.Id == id {
				return n
			}
		}
		return nil
	}
	require.Equal(t, []string{nodeBootstrapping, "WAITING"}, []string{node(ids[0]).State, node(ids[0]).Bootstrap})
	w.tracker.reason = "runs bootstrap action 1 of 1 (a.sh)"
	require.Equal(t, "RUNNING", node(ids[0]).Bootstrap)
	w.tracker.reason = ""

	w.apply(state.NoteBootstrap{ID: ids[0], Cluster: c.Id, State: state.BootstrapDone})
	w.apply(state.NoteBootstrap{ID: ids[1], Cluster: c.Id, State: state.BootstrapFailed, Failure: "a.sh: exit code 3\nno such package"})
	require.Equal(t, []string{nodeRunning, "DONE"}, []string{node(ids[0]).State, node(ids[0]).Bootstrap})
	require.Equal(t, []string{nodeFailed, "a.sh: exit code 3\nno such package"}, []string{node(ids[1]).State, node(ids[1]).Reason})
	b := w.show("b")
	require.Equal(t, clusterWaiting, b.State)
	require.Equal(t, []int64{1, 0}, []int64{b.Groups[0].Running, b.Groups[0].Bootstrapping})
	require.Contains(t, strings.Join(b.Problems, "\n"), "is good for nothing: a.sh: exit code 3")
}

// Jobs that wait for a store are one problem, whatever their number, and none when it answers.
func TestAStoreThatIsAwayIsAProblem(t *testing.T) {
	w := newWorld(t)
	require.NotContains(t, strings.Join(w.show("default").Problems, "\n"), "store")
	w.tracker.away = tracker.Away{Job: "s-1", Jobs: 3, Since: noon, Trouble: "list s3://in/: unreachable: connection refused"}
	require.Contains(t, w.show("default").Problems,
		"job s-1 waits for its store since 12:00:00Z, and so do 2 other jobs, as it does not answer: list s3://in/: unreachable: connection refused; jobs go on by themselves when it does")
}

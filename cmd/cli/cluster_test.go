package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

// clusterCalls are what the fake master is asked of clusters, and what it answers.
type clusterCalls struct {
	states     []*api.Cluster // successive answers to GetCluster; the last one goes on
	errs       []error        // of the first of GetCluster
	all        []*api.Cluster
	created    *api.CreateClusterRequest
	resized    *api.ResizeClusterRequest
	plans      []*api.GroupPlan
	set        *api.SetClusterRequest
	terminated *api.TerminateClusterRequest
	events     []*api.ClusterEvent
	asked      []string // names given to GetCluster
}

func (f *fakeMaster) nextCluster() *api.Cluster {
	c := &f.clusters
	if len(c.states) == 0 {
		return f.cluster
	}
	now := c.states[0]
	if len(c.states) > 1 {
		c.states = c.states[1:]
	}
	return now
}

func (f *fakeMaster) GetCluster(_ context.Context, r *connect.Request[api.GetClusterRequest]) (*connect.Response[api.Cluster], error) {
	f.clusters.asked = append(f.clusters.asked, r.Msg.Cluster)
	if len(f.clusters.errs) > 0 {
		err := f.clusters.errs[0]
		f.clusters.errs = f.clusters.errs[1:]
		return nil, err
	}
	return connect.NewResponse(f.nextCluster()), nil
}

func (f *fakeMaster) ListClusters(context.Context, *connect.Request[api.ListClustersRequest]) (*connect.Response[api.ListClustersResponse], error) {
	return connect.NewResponse(&api.ListClustersResponse{Clusters: f.clusters.all}), nil
}

func (f *fakeMaster) CreateCluster(_ context.Context, r *connect.Request[api.CreateClusterRequest]) (*connect.Response[api.Cluster], error) {
	f.clusters.created = r.Msg
	if f.refuse != nil {
		return nil, f.refuse
	}
	return connect.NewResponse(f.nextCluster()), nil
}

func (f *fakeMaster) ResizeCluster(_ context.Context, r *connect.Request[api.ResizeClusterRequest]) (*connect.Response[api.ResizeClusterResponse], error) {
	f.clusters.resized = r.Msg
	if f.refuse != nil {
		return nil, f.refuse
	}
	return connect.NewResponse(&api.ResizeClusterResponse{Cluster: f.nextCluster(), Groups: f.clusters.plans}), nil
}

func (f *fakeMaster) SetCluster(_ context.Context, r *connect.Request[api.SetClusterRequest]) (*connect.Response[api.Cluster], error) {
	f.clusters.set = r.Msg
	return connect.NewResponse(f.nextCluster()), nil
}

func (f *fakeMaster) TerminateCluster(_ context.Context, r *connect.Request[api.TerminateClusterRequest]) (*connect.Response[api.Cluster], error) {
	f.clusters.terminated = r.Msg
	if f.refuse != nil {
		return nil, f.refuse
	}
	return connect.NewResponse(f.nextCluster()), nil
}

func (f *fakeMaster) ListEvents(_ context.Context, r *connect.Request[api.ListEventsRequest]) (*connect.Response[api.ListEventsResponse], error) {
	resp := &api.ListEventsResponse{}
	for _, e := range f.clusters.events {
		if e.Number > r.Msg.After {
			resp.Events = append(resp.Events, e)
		}
	}
	return connect.NewResponse(resp), nil
}

// inState is a cluster of two core nodes, so many of them there.
func inState(state string, running int64) *api.Cluster {
	return &api.Cluster{Id: "j-ABCDEFGHIJKLM", Name: "nightly", State: state, CreatedAt: at("2026-01-02T03:04:05Z"),
		Groups: []*api.InstanceGroup{{Id: "ig-1", Role: "CORE", Target: 2, Running: running, Launching: 2 - running}, {Id: "ig-2", Role: "TASK"}}}
}

func TestClusterCreate(t *testing.T) {
	f := &fakeMaster{clusters: clusterCalls{states: []*api.Cluster{inState("STARTING", 0)}}}
	s := newSession(t).serve(f)
	o := s.run("cluster", "create", "--name", "nightly", "--core", "2", "--task-min", "1", "--task-max", "9", "--provider", "pool", "--step-concurrency", "3",
		"--tag", "team=data", "--tag", "note=a=b", "--termination-protected", "--auto-terminate", "10m", "--terminate-after-steps", "--bootstrap-action", `s3://scripts/a.sh,one,two\,three`, "--bootstrap-timeout", "5m")
	require.Equal(t, output{out: "cluster nightly (j-ABCDEFGHIJKLM) is STARTING: core 0 of 2, 2 launching; task 0 of 0\n" +
		"next: millrace cluster show nightly; jobs may be submitted: millrace run … --cluster nightly\n"}, o)
	m := f.clusters.created
	require.Equal(t, []any{"nightly", "pool", int32(3), true, int64(600_000), true}, []any{m.Name, m.Provider, m.StepConcurrency, m.TerminationProtected, m.AutoTerminateMs, m.TerminateAfterSteps})
	require.NotEmpty(t, m.RequestId, "so that it can be repeated")
	require.Len(t, m.Groups, 2)
	require.Equal(t, []any{"core", int64(2), "task", int64(1), int64(9)}, []any{m.Groups[0].Role, m.Groups[0].GetTarget(), m.Groups[1].Role, m.Groups[1].GetMin(), m.Groups[1].GetMax()})
	require.Nil(t, m.Groups[1].Target)
	require.Equal(t, "a=b", m.Tags[1].Value)
	require.Equal(t, []string{"one", "two,three"}, m.BootstrapActions[0].Args)
	require.EqualValues(t, 300_000, m.BootstrapActions[0].TimeoutMs)

	require.Zero(t, s.run("cluster", "create", "--name", "x").code)
	require.EqualValues(t, 1, f.clusters.created.Groups[0].GetTarget(), "one core node, as it does nothing without")

	f.refuse = problem(connect.CodeInvalidArgument, "there is a cluster of the name nightly already", "choose another --name", 2)
	o = s.run("cluster", "create", "--name", "nightly")
	require.Equal(t, output{err: "millrace: there is a cluster of the name nightly already\nnext: choose another --name\n", code: exitUsage}, o)
}

// A local script is uploaded under its sum, which is recorded.
func TestALocalBootstrapScript(t *testing.T) {
	f := &fakeMaster{cluster: inState("STARTING", 0)}
	s := newSession(t).serve(f)
	script := filepath.Join(s.home, "setup.sh")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\n"), 0o600))
	o := s.run("cluster", "create", "--name", "n", "--bootstrap-action", script+",x")
	require.Zero(t, o.code, o.err)
	a := f.clusters.created.BootstrapActions[0]
	require.Equal(t, "setup.sh", a.Name)
	require.Len(t, a.Sha256, 64)
	require.Regexp(t, "^s3://.*programs/"+a.Sha256+"$", a.Url)
	require.Equal(t, "#!/bin/sh\n", string(f.uploaded[a.Sha256]))

	empty := filepath.Join(s.home, "empty.sh")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	f.clusters.created = nil
	for _, c := range [][2]string{{empty, "the file is empty"}, {filepath.Join(s.home, "none.sh"), "no such file"}, {s.home, "not a regular file"}, {"hdfs:///a.sh", "an object in the object store"}, {",x", "names no script"}} {
		o := s.run("cluster", "create", "--name", "n", "--bootstrap-action", c[0])
		require.Equal(t, exitUsage, o.code, c[0])
		require.Contains(t, o.err, c[1])
	}
	require.Nil(t, f.clusters.created)
}

// All mistakes are named at once, and nothing is asked for.
func TestClusterMistakes(t *testing.T) {
	f := &fakeMaster{cluster: inState("WAITING", 2)}
	s := newSession(t).serve(f)
	for _, c := range []struct {
		args []string
		says []string
	}{
		{[]string{"create"}, []string{"a cluster needs a --name"}},
		{[]string{"create", "--core", "-1", "--task-min", "5", "--task-max", "2", "--tag", "team"}, []string{"needs a --name", "--core -1", "--task-min 5 is more than --task-max 2", "--tag team: write it KEY=VALUE"}},
		{[]string{"create", "--name", "x", "--core", "many"}, []string{"--core many: not a whole number"}},
		{[]string{"create", "--name", "x", "--auto-terminate", "1ms"}, []string{"at least a second"}},
		{[]string{"resize"}, []string{"nothing to change"}},
		{[]string{"resize", "--task", "-2", "--grace", "-1s", "--wait", "--dry-run"}, []string{"--task -2", "--grace -1s is negative", "exclude each other"}},
		{[]string{"set"}, []string{"nothing to change"}},
		{[]string{"set", "--tag", "=x"}, []string{"write it KEY=VALUE"}},
		{[]string{"terminate"}, []string{"say which cluster is to end"}},
		{[]string{"terminate", "--cluster", "sc", "default"}, []string{"two clusters are named: default, and --cluster sc"}},
		{[]string{"resize", "nightly", "--task", "1", "--cluster", "default"}, []string{"two clusters are named"}},
		{[]string{"events", "-f", "--json"}, []string{"exclude each other"}},
		{[]string{"list", "--state", "GONE"}, []string{"--state GONE is none of STARTING"}},
	} {
		o := s.run(append([]string{"cluster"}, c.args...)...)
		require.Equal(t, exitUsage, o.code, c.args)
		for _, text := range c.says {
			require.Contains(t, o.err, text, c.args)
		}
	}
	require.Nil(t, f.clusters.created)
	require.Nil(t, f.clusters.resized)
	require.Nil(t, f.clusters.terminated)
}

// A resize says what it takes; a dry one changes nothing, one that is followed ends when all is as it is to be.
func TestClusterResize(t *testing.T) {
	f := &fakeMaster{cluster: inState("WAITING", 2), clusters: clusterCalls{plans: []*api.GroupPlan{
		{Role: "CORE", From: 3, To: 2, Drain: []string{"i-3"}, Blocks: 12, Bytes: 3 << 30, Attempts: 1, EstimateMs: 40_000}, {Role: "TASK", From: 1, To: 5, Add: 4, Missing: 3}, {Role: "TASK", To: 0}}}}
	s := newSession(t).serve(f)
	o := s.run("cluster", "resize", "nightly", "--core", "2", "--task", "5", "--grace", "90s", "--dry-run")
	require.Equal(t, output{out: "core: 3 to 2 nodes: 1 node to drain (i-3); 1 attempt running there; 12 blocks (3.0 GiB) to move; about 40s\n" +
		"task: 1 to 5 nodes: 4 nodes to add; 3 of them would be missing: the provider has no more now, and is asked again and again\n" +
		"task: 0 to 0 nodes: nothing to do\n" +
		"nothing was changed: it is a dry run\n"}, o)
	m := f.clusters.resized
	require.Equal(t, []any{"nightly", true, int64(90_000), int64(2), int64(5)}, []any{m.Cluster, m.DryRun, m.GetGraceMs(), m.Groups[0].GetTarget(), m.Groups[1].GetTarget()})
	require.Zero(t, s.run("cluster", "resize", "--retry").code)
	require.Equal(t, []string{"core", "task"}, []string{f.clusters.resized.Groups[0].Role, f.clusters.resized.Groups[1].Role}, "what they are to have stays")
	require.Equal(t, []*int64{nil, nil}, []*int64{f.clusters.resized.Groups[0].Target, f.clusters.resized.Groups[1].Target})
	require.Zero(t, s.run("cluster", "resize", "--retry", "--core", "3").code)
	require.EqualValues(t, 3, f.clusters.resized.Groups[0].GetTarget())
	require.Contains(t, s.run("cluster", "resize", "--cluster", "other", "--task", "0").out, "next: millrace cluster show nightly says how far it is\n")
	require.Equal(t, "other", f.clusters.resized.Cluster)
	require.Nil(t, f.clusters.resized.GraceMs)

	f.clusters.states = []*api.Cluster{inState("WAITING", 1), inState("WAITING", 1), inState("WAITING", 2)}
	f.clusters.errs = []error{problem(connect.CodeFailedPrecondition, "no leader", "", exitUnreachable)}
	o = s.run("cluster", "resize", "--core", "2", "--wait")
	require.Equal(t, output{out: "cluster nightly (j-ABCDEFGHIJKLM) is WAITING: core 2 of 2; task 0 of 0\n",
		err: "cluster nightly (j-ABCDEFGHIJKLM) is WAITING: core 1 of 2, 1 launching; task 0 of 0\n"}, o)

	f.refuse = problem(connect.CodeFailedPrecondition, "replication 3 needs 3 core nodes; 2 would be left", "keep more", 1)
	require.Equal(t, output{err: "millrace: replication 3 needs 3 core nodes; 2 would be left\nnext: keep more\n", code: exitFailed}, s.run("cluster", "resize", "--core", "2", "--wait"))
}

// Whoever follows a cluster is told when it comes to nothing, and when to look again after Ctrl-C.
func TestAClusterThatIsFollowedInVain(t *testing.T) {
	stopped := inState("WAITING", 1)
	stopped.Groups[0].Suspended, stopped.Groups[0].Reason = true, "bootstrap actions failed on 1 node of 2"
	f := &fakeMaster{clusters: clusterCalls{states: []*api.Cluster{inState("STARTING", 0), stopped}}}
	s := newSession(t).serve(f)
	o := s.run("cluster", "create", "--name", "nightly", "--core", "2", "--wait")
	require.Equal(t, exitFailed, o.code)
	require.Contains(t, o.err, "the core group of cluster nightly grows no more: bootstrap actions failed on 1 node of 2")
	require.Contains(t, o.err, "millrace cluster resize nightly --retry, or with others: millrace cluster set nightly --bootstrap-action SCRIPT\n")

	ending := inState("TERMINATING", 1)
	ending.Reason = "terminated by bob"
	f.clusters.states = []*api.Cluster{inState("STARTING", 0), ending}
	o = s.run("cluster", "create", "--name", "nightly", "--core", "2", "--wait")
	require.Equal(t, exitFailed, o.code)
	require.Contains(t, o.err, "cluster nightly is TERMINATING: terminated by bob")

	f.clusters.states = []*api.Cluster{inState("STARTING", 0)}
	f.clusters.asked = nil
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.clusters.errs = []error{problem(connect.CodeNotFound, "no such cluster", "", exitNotFound)}
	o = s.runContext(ctx, "cluster", "create", "--name", "nightly", "--core", "2", "--wait")
	require.Equal(t, exitNotFound, o.code)
	require.Contains(t, o.err, "what was asked for of cluster nightly goes on")
}

func TestClusterSetAndTerminate(t *testing.T) {
	v := inState("WAITING", 2)
	v.StepConcurrency, v.AutoTerminateMs, v.TerminateAfterSteps, v.TerminationProtected = 2, 600_000, true, true
	v.Tags = []*api.Tag{{Key: "team", Value: "data"}, {Key: "a", Value: "b"}}
	v.BootstrapActions = []*api.BootstrapAction{{Name: "a.sh", Url: "s3://b/a.sh", Args: []string{"x"}}}
	f := &fakeMaster{cluster: v}
	s := newSession(t).serve(f)
	o := s.run("cluster", "set", "nightly", "--termination-protected=false", "--step-concurrency", "2", "--auto-terminate", "0s", "--untag", "old", "--tag", "team=data")
	require.Equal(t, "cluster nightly (j-ABCDEFGHIJKLM) is WAITING (idle: no job runs)\n"+
		"  CORE  ig-1  2 running  target 2\n  TASK  ig-2  0 running  target 0\n  slots: 0 of 0 in use, 0 tasks queued\n"+
		"  bootstrap action 1: s3://b/a.sh x\n  runs 2 jobs at once\n  ends after 10m without a job\n  ends when its jobs have ended\n  protected from termination\n  tags: a=b, team=data\n", o.out, o.err)
	m := f.clusters.set
	require.False(t, m.GetTerminationProtected())
	require.NotNil(t, m.TerminationProtected)
	require.NotNil(t, m.AutoTerminateMs)
	require.Nil(t, m.TerminateAfterSteps, "what is not named stays")
	require.Equal(t, []string{"old"}, m.RemoveTags)

	o = s.run("cluster", "set", "nightly", "--bootstrap-action", "s3://b/better.sh,x,y", "--bootstrap-timeout", "1m")
	require.Zero(t, o.code, o.err)
	require.Len(t, f.clusters.set.BootstrapActions, 1)
	a := f.clusters.set.BootstrapActions[0]
	require.Equal(t, "s3://b/better.sh [x y] 60000", fmt.Sprint(a.Url, " ", a.Args, " ", a.TimeoutMs))
	o = s.run("cluster", "set", "nightly", "--bootstrap-timeout", "1m")
	require.Equal(t, exitUsage, o.code)
	require.Contains(t, o.err, "--bootstrap-timeout goes with --bootstrap-action")

	f.refuse = problem(connect.CodeFailedPrecondition, "cluster nightly is protected from termination", "millrace cluster set nightly --termination-protected=false", 1)
	require.Equal(t, exitFailed, s.run("cluster", "terminate", "nightly").code)
	f.refuse = nil
	ending, ended := inState("TERMINATING", 0), inState("TERMINATED", 0)
	ending.Reason, ended.Reason = "terminated by admin", "terminated by admin"
	f.clusters.states = []*api.Cluster{ending, ending, ended}
	o = s.run("cluster", "terminate", "nightly", "--wait")
	require.Zero(t, o.code, o.err)
	require.Equal(t, "cluster nightly (j-ABCDEFGHIJKLM) is TERMINATED: terminated by admin\n", o.out)
	require.Equal(t, "nightly", f.clusters.terminated.Cluster)
	s.vars["MILLRACE_CLUSTER"] = "nightly"
	require.Equal(t, exitUsage, s.run("cluster", "terminate").code, "what the environment says will not do")
	require.Zero(t, s.run("cluster", "terminate", "--cluster", "nightly").code)
}

// Clusters that have ended are listed when they are asked for.
func TestClusterList(t *testing.T) {
	f := &fakeMaster{clusters: clusterCalls{all: []*api.Cluster{inState("WAITING", 2), inState("TERMINATED", 0), inState("TERMINATED_WITH_ERRORS", 0)}}}
	s := newSession(t).serve(f)
	states := func(args ...string) (list []string) {
		for _, v := range s.run(append([]string{"cluster", "list", "--json"}, args...)...).json(t).([]any) {
			list = append(list, v.(map[string]any)["state"].(string))
		}
		return list
	}
	require.Equal(t, []string{"WAITING"}, states())
	require.Len(t, states("--all"), 3)
	require.Equal(t, []string{"TERMINATED"}, states("--state", "terminated"))
	require.Regexp(t, `j-ABCDEFGHIJKLM  WAITING +2 .* nightly\n`, s.run("cluster", "ls").out)
}

// However long a name is, what is said of its cluster stays below its heading.
func TestClusterListWithALongName(t *testing.T) {
	long := inState("WAITING", 2)
	long.Name = strings.Repeat("nightly-", 16)
	f := &fakeMaster{clusters: clusterCalls{all: []*api.Cluster{inState("WAITING", 2), long}}}
	lines := strings.Split(newSession(t).serve(f).run("cluster", "list").out, "\n")
	for i, name := range []string{"NAME", "nightly", long.Name} {
		require.Equal(t, strings.Index(lines[0], "NAME"), strings.LastIndex(lines[i], " ")+1, lines[i])
		require.True(t, strings.HasSuffix(lines[i], " "+name), lines[i])
	}
}

// Tags that make a long line have a line each.
func TestClusterShowWithManyTags(t *testing.T) {
	v := inState("WAITING", 2)
	for _, key := range []string{"c", "a", "b"} {
		v.Tags = append(v.Tags, &api.Tag{Key: key, Value: strings.Repeat("x", 30)})
	}
	x := strings.Repeat("x", 30)
	o := newSession(t).serve(&fakeMaster{cluster: v}).run("cluster", "show", "nightly")
	require.Contains(t, o.out, "\n  tags:\n    a="+x+"\n    b="+x+"\n    c="+x+"\n", o.err)
}

func TestClusterEvents(t *testing.T) {
	event := func(n uint64, text string) *api.ClusterEvent {
		return &api.ClusterEvent{Number: n, At: at("2026-01-02T03:04:05Z"), Kind: "CLUSTER", Subject: "j-1", Message: text}
	}
	f := &fakeMaster{clusters: clusterCalls{states: []*api.Cluster{inState("WAITING", 2), inState("TERMINATED", 0)}, events: []*api.ClusterEvent{event(4, "created"), event(5, "resized\x1b[31m")}}}
	s := newSession(t).serve(f)
	o := s.run("cluster", "events", "nightly", "-f")
	require.Zero(t, o.code, "it ends with the cluster: %s", o.err)
	require.Regexp(t, `^\S+ \S+  CLUSTER    created\n\S+ \S+  CLUSTER    resized \[31m\n$`, o.out)
	require.Equal(t, "resized\x1b[31m", s.run("cluster", "events", "--json").json(t).([]any)[1].(map[string]any)["message"])
}

// The documents of clusters are a contract, as those of TestJSONDocuments.
func TestTheDocumentsOfClusters(t *testing.T) {
	least, most := int64(0), int64(9)
	c := inState("BOOTSTRAPPING", 1)
	c.ReadyAt, c.EndedAt, c.Reason, c.ReasonCode = at("2026-01-02T03:04:06Z"), at("2026-01-02T03:05:06Z"), "why", "USER_REQUEST"
	c.Groups[1] = &api.InstanceGroup{Id: "ig-2", Role: "TASK", Target: 3, Running: 1, Provider: "pool", Launching: 1, Bootstrapping: 1, Draining: 2, Missing: 1, Reason: "r", Suspended: true, Min: &least, Max: &most}
	c.Problems, c.Tags, c.StepConcurrency, c.TerminationProtected, c.AutoTerminateMs, c.TerminateAfterSteps = []string{"p"}, []*api.Tag{{Key: "k", Value: "v"}}, 2, true, 600_000, true
	c.BootstrapActions = []*api.BootstrapAction{{Name: "a.sh", Url: "s3://b/a.sh", Args: []string{"x"}, Sha256: "00ff", TimeoutMs: 5}}
	c.SlotsTotal, c.SlotsRunning, c.QueuedTasks, c.Protocol = 4, 1, 7, 4
	f := &fakeMaster{cluster: c, clusters: clusterCalls{all: []*api.Cluster{c}, events: []*api.ClusterEvent{{Number: 7, At: at("2026-01-02T03:04:05Z"), Kind: "NODE", Subject: "i-1", Message: "m"}},
		plans: []*api.GroupPlan{{Role: "CORE", From: 3, To: 2, Add: 1, Missing: 1, Drain: []string{"i-3"}, Blocks: 12, Bytes: 99, Attempts: 1, EstimateMs: 40}}}}
	s := newSession(t).serve(f)
	for name, args := range map[string][]string{
		"cluster":        {"show"},
		"cluster-create": {"create", "--name", "nightly"},
		"cluster-list":   {"list"},
		"cluster-resize": {"resize", "--core", "2", "--dry-run"},
		"cluster-events": {"events"},
	} {
		o := s.run(append(append([]string{"cluster"}, args...), "--json")...)
		require.Zero(t, o.code, o.err)
		file := filepath.Join("testdata", name+".json")
		if *update {
			require.NoError(t, os.WriteFile(file, []byte(o.out), 0o644))
		}
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, string(want), o.out, "%s holds the contract", file)
	}
}

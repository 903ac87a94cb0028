package fleet

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"millrace/master/state"
	"millrace/pkg/api"
)

func TestTerminatingTakesAllApart(t *testing.T) {
	c := cluster("cloud", 1, 2)
	c.Groups[0].Provider = PoolProvider
	s := newSite(t, c)
	s.pool(1)
	s.settle()
	s.cloud.allMute = true
	s.resizeTo(groups("", 1, 3)...)
	s.round()
	s.apply(state.SubmitJob{Job: state.Job{ID: "s-1", Cluster: "j-1", User: "u", SubmittedAt: s.now, Output: "s3://b/o/"}})
	s.apply(state.TerminateCluster{Cluster: "j-1", ReasonCode: state.ReasonUserRequest})
	s.pass(3 * time.Second)
	require.Len(t, s.nodes("ig-core"), 1, "its nodes stay until its jobs are over")
	require.Equal(t, state.ClusterTerminating, s.cluster().State)
	s.apply(state.CancelJob{Job: "s-1"}) // as the tracker does
	s.pass(3 * time.Second)
	require.Len(t, s.nodes("ig-core"), 1)
	s.apply(state.EndJob{Job: "s-1", At: s.now})
	s.cloud.broken = errors.New("the cloud is down")
	s.pass(5 * time.Second)
	require.Equal(t, state.ClusterTerminating, s.cluster().State)
	s.cloud.broken = nil
	s.pass(3 * time.Minute)
	require.Equal(t, state.ClusterTerminated, s.cluster().State)
	require.Empty(t, s.cloud.machines)
	require.Empty(t, s.view().Launches(""))
	require.Len(t, s.view().PoolNodes(), 1)
	require.Equal(t, "CORE j-1", s.sent[0][len(s.sent[0])-8:])
	require.True(t, slices.ContainsFunc(s.sent, func(m string) bool { return m[len(m)-5:] == "POOL " }), "it is told that it is free: %q", s.sent)
}

// A provider that is configured no more keeps no cluster from ending: what it may still run is named.
func TestAClusterEndsWithoutItsProvider(t *testing.T) {
	s := newSite(t, cluster("cloud", 1, 1))
	s.settle()
	s.conf = func(c *Config) { c.Providers = nil }
	s.lead()
	s.resizeTo(groups("", 1, 0)...)
	s.pass(time.Minute)
	require.Len(t, s.view().Launches(""), 2, "while the cluster lives the provider may come back")
	s.apply(state.TerminateCluster{Cluster: "j-1", ReasonCode: state.ReasonUserRequest})
	s.pass(time.Minute)
	require.Equal(t, state.ClusterTerminated, s.cluster().State)
	require.Empty(t, s.view().Launches(""))
	for key, machine := range s.cloud.machines {
		require.Contains(t, s.messages(), "the masters were started without the provider cloud: it is not told to end machine "+machine+" of launch "+key+"; end it there by hand, if it still runs")
	}
}

func TestNothingIsKeptOfClustersThatHaveEnded(t *testing.T) {
	c := cluster("cloud", 1, 1)
	c.Groups[1].Scales, c.Groups[1].Min, c.Groups[1].Max = true, 1, 3
	s := newSite(t, c)
	s.pass(5 * time.Second)
	s.cloud.allMute = true
	s.pass(20 * time.Minute) // launches fail
	f := s.fleet
	require.NotEmpty(t, f.backoffs)
	require.NotEmpty(t, f.scalers)
	f.refusals["ig-core"], f.lost["i-forgotten"] = Refusal{}, s.now
	f.progress["l-forgotten"] = Progress{Done: s.now}
	s.apply(state.TerminateCluster{Cluster: "j-1", ReasonCode: state.ReasonUserRequest})
	s.pass(time.Minute)
	require.Equal(t, state.ClusterTerminated, s.cluster().State)
	require.Equal(t, []int{0, 0, 0, 0, 0}, []int{len(f.sampled), len(f.scalers), len(f.backoffs), len(f.refusals), len(f.lost)})
	require.Empty(t, f.progress)
	require.Empty(t, f.troubles)
	require.NotEmpty(t, f.dropped, "machines may yet come up")
	s.pass(ghostsWithin + time.Minute)
	require.Empty(t, f.dropped)
}

func TestNothingIsKeptOfNodesThatAreGone(t *testing.T) {
	s := newSite(t, cluster("", 1, 1))
	s.pool(2)
	s.round()
	n, f := s.nodes("ig-task")[0], s.fleet
	f.Up(n.ID, &api.WorkerHello{Incarnation: "1"})
	f.Message(n.ID, &api.WorkerMessage{Message: &api.WorkerMessage_Leave{Leave: &api.Leave{}}})
	require.Contains(t, f.placed, n.ID)
	delete(s.up, n.ID)
	s.apply(state.RemoveNode{ID: n.ID, Shrink: true}) // by an administrator
	s.round()
	for _, kept := range []any{f.leave, f.lives, f.placed, f.came, f.lost} {
		require.NotContains(t, kept, n.ID)
	}
	f.Up(s.nodes("ig-core")[0].ID, &api.WorkerHello{Incarnation: "1"})
	s.round()
	require.Len(t, f.lives, 1, "those that are there are known")
}

// Machines that a provider lists and nobody asked for are named once, and known for as long as they are listed.
func TestMachinesThatNobodyAskedFor(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	s := newSite(t, cluster("cloud", 1, 0))
	s.conf = func(c *Config) { c.Log = zap.New(core) }
	s.lead()
	s.settle()
	named := func() int { return logs.FilterMessageSnippet("a machine that nobody asked for").Len() }
	s.cloud.machines["other-1"], s.cloud.machines["other-2"] = "vm-a", "vm-b"
	s.pass(time.Minute)
	require.Equal(t, 2, named())
	require.Len(t, s.fleet.strangers["cloud"], 2)
	delete(s.cloud.machines, "other-1")
	s.pass(time.Minute)
	require.Equal(t, map[string]bool{"other-2": true}, s.fleet.strangers["cloud"])
	require.Equal(t, 2, named())
}

func TestTerminateDuringCreate(t *testing.T) {
	s := newSite(t, cluster("cloud", 2, 2))
	s.fleet.Round(t.Context())
	s.apply(state.TerminateCluster{Cluster: "j-1", ReasonCode: state.ReasonUserRequest})
	s.settle()
	s.pass(time.Minute)
	require.Equal(t, state.ClusterTerminated, s.cluster().State)
	require.Empty(t, s.cloud.machines)
}

func TestAnIdleClusterEnds(t *testing.T) {
	c := cluster("", 1, 0)
	c.AutoTerminateMs = (10 * time.Minute).Milliseconds()
	s := newSite(t, c)
	s.pass(time.Hour)
	require.False(t, s.cluster().Ending(), "one that was never ready is not idle")
	s.pool(1)
	s.pass(5 * time.Minute)
	s.apply(state.SubmitJob{Job: state.Job{ID: "s-1", Cluster: "j-1", User: "u", SubmittedAt: s.now, Output: "s3://b/o/"}})
	s.pass(20 * time.Minute)
	require.False(t, s.cluster().Ending())
	s.apply(state.CancelJob{Job: "s-1"})
	s.apply(state.EndJob{Job: "s-1", At: s.now})
	s.pass(9 * time.Minute)
	require.False(t, s.cluster().Ending())
	require.NotContains(t, s.changed, "j-1")
	s.pass(2 * time.Minute)
	require.Contains(t, s.changed, "j-1", "the tracker hears of it: a job may have come just then")
	require.Equal(t, []string{state.ClusterTerminated, state.ReasonAutoTerminate, "it had no job for 10m0s"}, []string{s.cluster().State, s.cluster().ReasonCode, s.cluster().Reason})
	require.Len(t, s.view().PoolNodes(), 1)
}

func TestAClusterEndsWithItsJobs(t *testing.T) {
	c := cluster("", 1, 0)
	c.TerminateAfterSteps, c.TerminationProtected = true, true
	s := newSite(t, c)
	s.pool(1)
	s.pass(time.Hour)
	require.False(t, s.cluster().Ending(), "it has had none yet")
	s.apply(state.SubmitJob{Job: state.Job{ID: "s-1", Cluster: "j-1", User: "u", SubmittedAt: s.now, Output: "s3://b/o/"}})
	s.apply(state.CancelJob{Job: "s-1"})
	s.apply(state.EndJob{Job: "s-1", At: s.now})
	s.pass(time.Minute)
	require.False(t, s.cluster().Ending())
	require.Contains(t, s.messages(), "it would end, but is protected: all of its jobs have ended")
	no := false
	s.apply(state.SetCluster{Cluster: "j-1", TerminationProtected: &no})
	s.pass(3 * time.Second)
	require.Equal(t, state.ReasonAllStepsCompleted, s.cluster().ReasonCode)
}

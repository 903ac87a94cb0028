package fleet

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
)

func ids(nodes []*state.Node) (list []string) {
	for _, n := range nodes {
		list = append(list, n.ID)
	}
	return list
}

func TestJoinTokensThatAreOverAreForgotten(t *testing.T) {
	s := newSite(t, cluster("cloud", 1, 0))
	s.cloud.broken = errors.New("the cloud is down") // so that the launch's token stays
	s.apply(state.CreateToken{Token: state.Token{ID: "t-over", Role: state.RolePool, ExpiresAt: s.now.Add(time.Minute), UsesLeft: -1}})
	s.apply(state.CreateToken{Token: state.Token{ID: "t-lives", Role: state.RolePool, ExpiresAt: s.now.Add(time.Hour), UsesLeft: -1}})
	s.round()
	require.Len(t, s.view().Tokens(), 3)
	s.now = s.now.Add(24 * time.Hour)
	s.round()
	_, known := s.view().Token("t-over")
	require.True(t, known, "who uses it is told that it has expired")
	s.now = s.now.Add(2 * time.Minute)
	s.round()
	_, known = s.view().Token("t-over")
	require.False(t, known)
	_, known = s.view().Token("t-lives")
	require.True(t, known)
}

func TestAClusterGetsItsNodesFromThePool(t *testing.T) {
	s := newSite(t, cluster("", 1, 2))
	s.pool(4)
	s.round()
	require.Len(t, s.nodes("ig-core"), 1)
	require.Len(t, s.nodes("ig-task"), 2)
	require.Len(t, s.view().PoolNodes(), 1)
	require.Len(t, s.sent, 3, "each is told its place")
	s.round()
	require.False(t, s.cluster().ReadyAt.IsZero())
	require.Contains(t, s.messages(), "the cluster is ready for jobs")
	require.Zero(t, s.fleet.Status("ig-task"))

	before := s.index
	s.pass(time.Minute)
	require.Equal(t, before, s.index, "a cluster that is as it should be costs no entries")
}

func TestWhatThePoolLacksIsSaidAndComesWhenMoreJoin(t *testing.T) {
	s := newSite(t, cluster("", 1, 4))
	s.pool(2)
	s.round()
	require.Equal(t, 3, s.fleet.Status("ig-task").Missing)
	require.Contains(t, s.fleet.Status("ig-task").Reason, "3 more of it would be needed")
	require.Contains(t, s.messages(), "the task group lacks 3 nodes: the pool has none that is free")
	s.pass(time.Minute)
	require.Len(t, s.cluster().Events, 4, "it is said once: %q", s.messages())
	s.pool(3)
	s.round()
	require.Len(t, s.nodes("ig-task"), 4)
	require.Zero(t, s.fleet.Status("ig-task").Missing)
}

// A node is on its way for a moment after it was given a place: until it is there, or should have been.
func TestANodeIsOnItsWay(t *testing.T) {
	s := newSite(t, cluster("", 1, 1))
	s.pool(2)
	s.now = s.now.Add(time.Minute)
	require.False(t, s.fleet.Arriving(s.view().PoolNodes()[0]), "it has been there for long")
	s.round()
	core, task := s.nodes("ig-core")[0], s.nodes("ig-task")[0]
	require.True(t, s.fleet.Arriving(core))
	require.True(t, s.fleet.Arriving(task))
	s.fleet.Up(core.ID, &api.WorkerHello{})
	require.False(t, s.fleet.Arriving(core), "it has come: without a session it would be lost")
	s.now = s.now.Add(arrivesWithin)
	require.False(t, s.fleet.Arriving(task))
}

func TestANodeThatIsNotUpIsNotGiven(t *testing.T) {
	s := newSite(t, cluster("", 1, 0))
	s.pool(1)
	clear(s.up)
	s.round()
	require.Empty(t, s.nodes("ig-core"))
	require.Equal(t, 1, s.fleet.Status("ig-core").Missing)
}

func TestAProviderIsAskedForNodesWithATokenEach(t *testing.T) {
	s := newSite(t, cluster("cloud", 1, 2))
	s.round()
	require.Len(t, s.cloud.asked, 3)
	r := s.cloud.asked[0]
	require.Equal(t, []any{"site", "j-1", "one", "core"}, []any{r.Site, r.Cluster, r.ClusterName, r.Role})
	require.Equal(t, []string{"https://m1:7400"}, r.Masters)
	require.Regexp(t, `^mr1\.t-`, r.Token)
	require.NotEqual(t, r.Token, s.cloud.asked[1].Token)
	for _, l := range s.view().Launches("") {
		require.Equal(t, state.LaunchGiven, l.State)
		require.NotEmpty(t, l.Machine)
		token, ok := s.view().Token(l.Token)
		require.True(t, ok)
		require.Equal(t, 1, token.UsesLeft)
	}
	s.round()
	require.Equal(t, 2, s.fleet.Status("ig-task").Launching)
	s.settle()
	require.Len(t, s.nodes("ig-task"), 2)
	require.Zero(t, s.fleet.Status("ig-task"))
}

func TestALeaderThatGoesAsksNobodyTwice(t *testing.T) {
	s := newSite(t, cluster("cloud", 1, 2))
	s.fleet.Round(t.Context()) // it has asked, and is gone before it heard
	s.lead()
	s.settle()
	require.Equal(t, 6, s.cloud.launches, "the next one repeats it, with the same keys")
	require.Equal(t, 3, s.cloud.counted)
	require.Len(t, s.cloud.machines, 3)
}

func TestANodeThatNeverJoinsIsGivenUpAndOthersAreAskedForMoreAndMoreSlowly(t *testing.T) {
	s := newSite(t, cluster("cloud", 0, 1))
	s.cloud.allMute = true
	s.round()
	s.pass(11 * time.Minute)
	require.Equal(t, 2, s.cloud.counted)
	require.Len(t, s.cloud.machines, 1, "what never joined is ended")
	require.Contains(t, s.messages()[1], "no node has joined within 10m0s")
	s.pass(2 * time.Hour)
	require.Less(t, s.cloud.counted, 12)
	s.cloud.allMute = false
	for range 25 {
		s.settle()
		s.pass(time.Minute)
	}
	require.Len(t, s.nodes("ig-task"), 1)
	require.Len(t, s.cloud.machines, 1)
}

func TestAProviderThatFailsIsNamedAndAskedAgain(t *testing.T) {
	s := newSite(t, cluster("cloud", 0, 1))
	s.cloud.broken = errors.New("quota exceeded")
	s.round()
	s.pass(time.Minute)
	require.Equal(t, "provider cloud: quota exceeded", s.fleet.Status("ig-task").Reason)
	require.Contains(t, s.messages(), "provider cloud: quota exceeded")
	require.Less(t, s.cloud.launches, 10, "it is asked more and more slowly")
	require.Less(t, len(s.cluster().Events), 5)
	s.cloud.broken = nil
	s.pass(2 * time.Minute)
	s.settle()
	require.Len(t, s.nodes("ig-task"), 1)
	require.Zero(t, s.fleet.Status("ig-task"))
}

func TestAProviderThatLies(t *testing.T) {
	s := newSite(t, cluster("cloud", 0, 1))
	s.settle()
	s.cloud.counted = 0 // the next machine is called as the first one
	s.resize(0, 2)
	s.round()
	s.round()
	require.Contains(t, s.fleet.Status("ig-task").Reason, "provider cloud: launch: it says that machine vm-1 is of launch")
}

func TestAGroupOfAnUnknownProvider(t *testing.T) {
	s := newSite(t, cluster("moon", 1, 0))
	s.round()
	require.Equal(t, "the masters were started without the provider moon", s.fleet.Status("ig-core").Reason)
}

func TestShrinkingTakesTheCheapest(t *testing.T) {
	s := newSite(t, cluster("", 1, 5))
	s.pool(6)
	s.round()
	n := ids(s.nodes("ig-task"))
	s.load["j-1"] = tracker.Load{Nodes: map[string]tracker.NodeLoad{n[0]: {}, n[1]: {Attempts: 2}, n[2]: {Needed: 1}, n[3]: {}, n[4]: {Attempts: 1}}}
	s.pass(31 * time.Second)
	delete(s.up, n[1]) // it is lost: nothing is cheaper
	s.resize(1, 2)
	s.round()
	require.Equal(t, []string{n[1]}, leavingNodes(s), "the others had nothing to give back, and are in the pool again")
	require.Equal(t, s.now.Add(5*time.Minute), s.node(n[1]).DrainBy)
	require.Len(t, s.view().PoolNodes(), 2)
	require.Equal(t, []string{n[1], n[2], n[4]}, ids(s.nodes("ig-task")))
}

func TestANodeLeavesWhenNothingOfItIsNeeded(t *testing.T) {
	s := newSite(t, cluster("cloud", 0, 2))
	s.settle()
	for _, n := range s.nodes("ig-task") {
		s.drained[n.ID] = tracker.Drain{Known: true, Attempts: 1}
	}
	s.resize(0, 1)
	s.pass(time.Minute)
	require.Len(t, s.cloud.machines, 2)
	require.Equal(t, 1, s.fleet.Status("ig-task").Draining)
	clear(s.drained)
	s.pass(3 * time.Second)
	require.Len(t, s.cloud.machines, 1)
	require.Len(t, s.view().Launches(""), 1)
	require.Len(t, s.nodes("ig-task"), 1)
}

func TestARaisedTargetTakesNodesBackThatAreLeaving(t *testing.T) {
	s := newSite(t, cluster("cloud", 0, 3))
	s.settle()
	for _, n := range s.nodes("ig-task") {
		s.drained[n.ID] = tracker.Drain{Known: true, Attempts: 1}
	}
	s.resize(0, 1)
	s.round()
	require.Equal(t, 2, s.fleet.Status("ig-task").Draining)
	s.resize(0, 2)
	s.round()
	s.resize(0, 3)
	s.settle()
	require.Equal(t, 3, s.cloud.counted, "nobody new was needed")
	for _, n := range s.nodes("ig-task") {
		require.False(t, n.Leaving || n.Draining())
	}
}

func TestWhatHasNotJoinedYetIsGivenUpFirst(t *testing.T) {
	s := newSite(t, cluster("cloud", 0, 2))
	s.settle()
	s.cloud.allMute = true
	s.resize(0, 4)
	s.round()
	s.resize(0, 2)
	s.pass(5 * time.Second)
	require.Len(t, s.nodes("ig-task"), 2)
	require.Len(t, s.cloud.machines, 2)
	require.Len(t, s.view().Launches(""), 2)
}

func TestACoreNodeWhoseBlocksCannotBeKeptStays(t *testing.T) {
	s := newSite(t, cluster("", 3, 0))
	s.pool(3)
	s.round()
	s.refuse = errors.New("2 blocks would have 1 replica instead of 2")
	s.resize(2, 0)
	s.pass(30 * time.Second)
	require.Len(t, s.nodes("ig-core"), 3)
	require.Contains(t, s.fleet.Status("ig-core").Reason, "cannot leave: 2 blocks would have 1 replica instead of 2")
	s.refuse = nil
	s.pass(30 * time.Second)
	require.Len(t, s.nodes("ig-core"), 2)
	s.resize(0, 0)
	s.pass(30 * time.Second)
	require.Empty(t, s.nodes("ig-core"), "no file is there: it may be without any")
}

// Nodes take a while to find a new leader if the machine of the one before is dead. Until then none of them leaves as one that is lost, of
// which nothing could be copied: a shrink that was refused stays so.
func TestACoreNodeThatIsOnItsWayToALeaderStays(t *testing.T) {
	s := newSite(t, cluster("", 3, 0))
	s.pool(3)
	s.round()
	s.refuse = errors.New("2 blocks would have 1 replica instead of 2")
	s.resize(2, 0)
	s.pass(5 * time.Second)
	up := s.up
	s.up = map[string]place{}
	s.lead()
	s.pass(20 * time.Second)
	require.Empty(t, leavingNodes(s))
	s.up = up
	s.pass(time.Minute)
	require.Empty(t, leavingNodes(s))
	require.Contains(t, s.fleet.Status("ig-core").Reason, "cannot leave: 2 blocks would have 1 replica instead of 2")

	lost := s.nodes("ig-core")[0].ID
	delete(s.up, lost)
	s.pass(40 * time.Second)
	require.NotContains(t, ids(s.nodes("ig-core")), lost)
}

// What a node has that is on its way to a new leader is not known yet: it is not let go as if that were nothing.
func TestANodeThatIsOnItsWayToALeaderIsNotTheCheapest(t *testing.T) {
	s := newSite(t, cluster("", 1, 3))
	s.pool(4)
	s.round()
	late, at := s.nodes("ig-task")[0].ID, s.up
	s.up = maps.Clone(at)
	delete(s.up, late)
	s.resize(1, 2)
	s.lead()
	s.pass(20 * time.Second)
	require.Len(t, s.nodes("ig-task"), 3)
	require.Empty(t, leavingNodes(s))
	s.up = at
	s.load["j-1"] = tracker.Load{Nodes: map[string]tracker.NodeLoad{late: {Attempts: 2}}}
	s.pass(5 * time.Second)
	require.Len(t, s.nodes("ig-task"), 2)
	require.Contains(t, ids(s.nodes("ig-task")), late)
}

// leavingNodes are the nodes of the cluster that leave.
func leavingNodes(s *site) []string {
	return ids(slices.DeleteFunc(s.view().Nodes("j-1"), func(n *state.Node) bool { return !n.Leaving }))
}

func TestANodeThatIsLostForLongIsReplaced(t *testing.T) {
	for _, provider := range []string{"cloud", "pool"} {
		t.Run(provider, func(t *testing.T) {
			s := newSite(t, cluster(provider, 1, 2))
			s.pool(4)
			s.settle()
			lost := s.nodes("ig-task")[0].ID
			delete(s.up, lost)
			s.pass(9 * time.Minute)
			require.Contains(t, ids(s.nodes("ig-task")), lost)
			s.pass(3 * time.Minute)
			s.settle()
			require.Len(t, s.nodes("ig-task"), 2)
			require.NotContains(t, ids(s.nodes("ig-task")), lost)
		})
	}
}

func TestAMachineThatItsProviderHasNoMoreIsReplacedSoon(t *testing.T) {
	s := newSite(t, cluster("cloud", 1, 2))
	s.settle()
	s.pass(3 * time.Minute)
	lost := s.nodes("ig-task")[0]
	delete(s.up, lost.ID)
	delete(s.cloud.machines, lost.Launch)
	s.pass(2 * time.Minute)
	s.settle()
	require.Len(t, s.nodes("ig-task"), 2)
	require.NotContains(t, ids(s.nodes("ig-task")), lost.ID)
}

// A provider's list may be late. A machine counts as gone no sooner for having been asked for in vain before.
func TestAMachineThatTookItsProviderLongIsNotGoneAtOnce(t *testing.T) {
	for _, another := range []bool{false, true} {
		t.Run(fmt.Sprintf("another leader %v", another), func(t *testing.T) {
			s := newSite(t, cluster("cloud", 0, 1))
			s.cloud.broken = errors.New("no machine is left")
			s.pass(3 * time.Minute)
			s.cloud.broken = nil
			for s.cloud.counted == 0 {
				s.pass(time.Second)
			}
			if another {
				s.lead()
			}
			key := s.view().Launches("")[0].ID
			delete(s.cloud.machines, key) // from what is listed
			s.pass(time.Minute)
			l, ok := s.view().Launch(key)
			require.True(t, ok)
			require.Equal(t, state.LaunchGiven, l.State)
			require.Equal(t, 1, s.cloud.counted)
			s.pass(2 * time.Minute)
			require.Contains(t, s.messages(), "launch "+key+" of cloud is given up: machine vm-1 is gone before a node has joined")
		})
	}
}

func TestAProviderThatRevivesIsAskedForWhatHasDied(t *testing.T) {
	s := newSite(t, cluster("cloud", 1, 2))
	s.cloud.revives = true
	s.lead()
	s.settle()
	lost := s.nodes("ig-task")[0]
	delete(s.up, lost.ID)
	delete(s.cloud.machines, lost.Launch)
	s.pass(5 * time.Second)
	require.NotEmpty(t, s.cloud.machines[lost.Launch])
	s.up[lost.ID] = place{"j-1", state.RoleTask}
	s.pass(time.Minute)
	require.Contains(t, ids(s.nodes("ig-task")), lost.ID)
	require.Equal(t, 4, s.cloud.counted)
}

func TestHalfOfAGroupFailing(t *testing.T) {
	c := cluster("cloud", 1, 4)
	c.Bootstrap = []state.BootstrapAction{{Name: "setup.sh", URL: "s3://b/setup.sh"}}
	s := newSite(t, c)
	fails := func(n *state.Node, digest string) {
		s.fleet.Message(n.ID, &api.WorkerMessage{Message: &api.WorkerMessage_Bootstrap{Bootstrap: &api.BootstrapReport{Digest: digest, State: "FAILED", Reason: "exit code 3: no such package"}}})
	}
	s.settle()
	require.Equal(t, 4, s.fleet.Status("ig-task").Bootstrapping)
	require.True(t, s.cluster().ReadyAt.IsZero())
	n := s.nodes("ig-task")
	fails(n[0], "digest of another cluster")
	s.settle()
	require.Len(t, s.nodes("ig-task"), 4)

	fails(n[0], "digest of j-1")
	s.settle()
	require.Len(t, s.nodes("ig-task"), 5, "another takes its place; it stays to be looked into")
	require.Contains(t, s.messages(), "bootstrap actions failed on "+n[0].ID+": exit code 3: no such package")
	fails(n[1], "digest of j-1")
	s.settle()
	s.pass(time.Hour)
	require.Len(t, s.nodes("ig-task"), 5, "half of the group has failed")
	st := s.fleet.Status("ig-task")
	require.Equal(t, 1, st.Missing)
	require.Equal(t, "bootstrap actions failed on 2 nodes of 4, last on "+n[1].ID+": exit code 3: no such package", st.Reason)

	s.resize(1, 4)
	s.pass(5 * time.Second)
	s.settle()
	require.Len(t, s.nodes("ig-task"), 4)
	require.NotContains(t, ids(s.nodes("ig-task")), n[0].ID)
	require.Len(t, s.cloud.machines, 5)
	core := s.nodes("ig-core")[0]
	s.fleet.Up(core.ID, &api.WorkerHello{Bootstrapped: "digest of j-1"})
	s.settle()
	require.Equal(t, state.BootstrapDone, s.nodes("ig-core")[0].Bootstrap)
	require.Contains(t, s.changed, core.ID, "it may be given tasks at once")
	require.False(t, s.cluster().ReadyAt.IsZero())
}

func TestAGroupScalesByItself(t *testing.T) {
	c := cluster("cloud", 0, 0)
	c.Groups[1].Scales, c.Groups[1].Max = true, 10
	s := newSite(t, c)
	s.load["j-1"] = tracker.Load{Waiting: 7}
	s.pass(time.Minute)
	s.settle()
	require.Equal(t, 7, s.cluster().Groups[1].Target)
	require.Len(t, s.nodes("ig-task"), 7)
	require.Contains(t, s.messages(), "the task group is to have 2 nodes instead of 0: 7 tasks wait, 0 running: there is work for 7 nodes")
	s.load["j-1"] = tracker.Load{}
	s.pass(5 * time.Minute)
	require.Empty(t, s.nodes("ig-task"))
	require.Empty(t, s.cloud.machines)
}

// What runs on nodes that have not found a new leader yet seems to wait, and nobody knows how many slots they have. One that is not there in
// half a minute is lost.
func TestAGroupDoesNotScaleWhileNodesAreOnTheirWayToALeader(t *testing.T) {
	c := cluster("cloud", 1, 4)
	c.Groups[1].Scales, c.Groups[1].Max = true, 20
	s := newSite(t, c)
	s.settle()
	busy := tracker.Load{Running: 10, Nodes: map[string]tracker.NodeLoad{}}
	for id := range s.up {
		busy.Nodes[id] = tracker.NodeLoad{Slots: 2, Attempts: 2}
	}
	s.load["j-1"] = busy
	s.pass(time.Minute)
	target := func() int { return s.cluster().Groups[1].Target }
	require.Equal(t, 4, target())

	up, core := s.up, s.nodes("ig-core")[0].ID
	s.up, s.load["j-1"] = map[string]place{}, tracker.Load{Waiting: 10}
	s.lead()
	s.pass(10 * time.Second)
	require.Equal(t, 4, target())
	s.up, s.load["j-1"] = up, busy
	s.pass(time.Minute)
	require.Equal(t, 4, target())

	delete(s.up, core)
	delete(busy.Nodes, core)
	s.load["j-1"] = tracker.Load{Waiting: 4, Running: 8, Nodes: busy.Nodes}
	s.lead()
	s.pass(20 * time.Second)
	require.Equal(t, 4, target())
	s.pass(20 * time.Second)
	require.Equal(t, 6, target())
}

func TestANodeThatGoesForGoodTakesItsPlaceWithIt(t *testing.T) {
	s := newSite(t, cluster("", 0, 1))
	s.apply(state.CreateToken{Token: state.Token{ID: "t-task", Role: state.RoleTask, Cluster: "j-1", ExpiresAt: s.now.Add(time.Hour), UsesLeft: -1}})
	for _, id := range []string{"i-a", "i-b"} {
		s.apply(state.AdmitNode{Token: "t-task", Node: state.Node{ID: id, Role: state.RoleTask, Cluster: "j-1"}, Now: s.now})
		s.up[id] = place{"j-1", state.RoleTask}
	}
	s.drained["i-b"] = tracker.Drain{Known: true, Attempts: 1}
	s.fleet.Message("i-b", &api.WorkerMessage{Message: &api.WorkerMessage_Leave{Leave: &api.Leave{GraceMs: 20_000}}})
	s.pass(5 * time.Second)
	b, _ := s.view().Node("i-b")
	require.True(t, b.Draining())
	clear(s.drained)
	s.pass(2 * time.Second)
	require.Equal(t, []string{"i-a"}, ids(s.nodes("ig-task")))
	require.Equal(t, 1, s.cluster().Groups[1].Target)

	s.pool(1)
	free := s.view().PoolNodes()[0].ID
	s.fleet.Message(free, &api.WorkerMessage{Message: &api.WorkerMessage_Leave{Leave: &api.Leave{}}})
	s.pass(time.Second)
	require.Empty(t, s.view().PoolNodes())
}

// One that goes is not taken back for the place that it leaves: another one comes.
func TestANodeOfAProviderThatGoesForGoodIsReplaced(t *testing.T) {
	for _, provider := range []string{"cloud", "pool"} {
		t.Run(provider, func(t *testing.T) {
			s := newSite(t, cluster(provider, 0, 1))
			s.pool(2)
			s.settle()
			goes := s.nodes("ig-task")[0].ID
			s.drained[goes] = tracker.Drain{Known: true, Attempts: 1}
			s.fleet.Message(goes, &api.WorkerMessage{Message: &api.WorkerMessage_Leave{Leave: &api.Leave{}}})
			s.settle()
			s.settle()
			n, _ := s.view().Node(goes)
			require.True(t, n.Leaving)
			require.Len(t, s.nodes("ig-task"), 2, "another one has come, and it goes on with what it has")
			before := s.index
			s.pass(10 * time.Second)
			require.Equal(t, before, s.index, "it is not asked to stay and to leave in turn: %q", s.messages())
			clear(s.drained)
			s.pass(5 * time.Second)
			require.NotContains(t, ids(s.nodes("ig-task")), goes)
			require.Len(t, s.nodes("ig-task"), 1)
			n, _ = s.view().Node(goes)
			require.Equal(t, state.NodeTerminated, n.State)
		})
	}
}

// A launch that was broken off may still be under way at the provider: what comes of it after it was ended is ended, too.
func TestAMachineThatComesUpAfterItWasEnded(t *testing.T) {
	s := newSite(t, cluster("cloud", 0, 1))
	s.cloud.allMute = true
	s.round()
	key := s.view().Launches("")[0].ID
	s.resize(0, 0)
	s.pass(5 * time.Second)
	require.Empty(t, s.view().Launches(""))
	s.cloud.machines[key], s.cloud.machines["l-of-another-site"] = "vm-late", "vm-other"
	s.pass(time.Minute)
	require.Equal(t, map[string]string{"l-of-another-site": "vm-other"}, s.cloud.machines, "what nobody here has asked for stays")
}

func TestTheEndOfBootstrapActionsIsLoggedThoughTheLogTakesNothingAtFirst(t *testing.T) {
	c := cluster("", 1, 0)
	c.Bootstrap = []state.BootstrapAction{{Name: "setup.sh", URL: "s3://b/setup.sh"}}
	s := newSite(t, c)
	s.pool(1)
	s.settle()
	core := s.nodes("ig-core")[0].ID
	s.fleet.Message(core, &api.WorkerMessage{Message: &api.WorkerMessage_Bootstrap{Bootstrap: &api.BootstrapReport{Digest: "digest of j-1", State: "DONE"}}})
	s.lose = true
	s.round()
	s.lose = false
	s.pass(2 * time.Second)
	require.Equal(t, state.BootstrapDone, s.nodes("ig-core")[0].Bootstrap)
}

func TestAPlanForAResize(t *testing.T) {
	s := newSite(t, cluster("", 1, 3))
	s.pool(5)
	s.round()
	n := ids(s.nodes("ig-task"))
	s.load["j-1"] = tracker.Load{Nodes: map[string]tracker.NodeLoad{n[0]: {Attempts: 1}, n[1]: {Attempts: 2}, n[2]: {}}}
	plans := s.fleet.Plan("j-1", groups("", 4, 1))
	require.Len(t, plans, 2)
	require.Equal(t, []int64{1, 4, 3, 2}, []int64{plans[0].From, plans[0].To, plans[0].Add, plans[0].Missing})
	require.Equal(t, []string{n[2], n[0]}, plans[1].Drain)
	require.Equal(t, []string{PoolProvider, "cloud"}, s.fleet.Providers())
}

// A node that is about to end comes back for nobody: the plan shown asks for others.
func TestAPlanDoesNotCountOnNodesThatEnd(t *testing.T) {
	s := newSite(t, cluster("", 0, 1))
	s.pool(1)
	s.settle()
	id := s.nodes("ig-task")[0].ID
	s.drained[id] = tracker.Drain{Known: true, Attempts: 1}
	s.fleet.Message(id, &api.WorkerMessage{Message: &api.WorkerMessage_Leave{Leave: &api.Leave{}}})
	s.round()
	plan := s.fleet.Plan("j-1", groups("", 0, 1)[1:])[0]
	require.Equal(t, []int64{1, 1}, []int64{plan.Add, plan.Missing})
}

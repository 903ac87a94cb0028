package fleet

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
)

// leaver is a site with one task node that came by itself and is busy.
func leaver(t *testing.T) *site {
	s := newSite(t, cluster("", 0, 1))
	s.apply(state.CreateToken{Token: state.Token{ID: "t-task", Role: state.RoleTask, Cluster: "j-1", ExpiresAt: s.now.Add(time.Hour), UsesLeft: -1}})
	s.apply(state.AdmitNode{Token: "t-task", Node: state.Node{ID: "i-a", Role: state.RoleTask, Cluster: "j-1"}, Now: s.now})
	s.begins("i-a", "1")
	s.drained["i-a"] = tracker.Drain{Known: true, Attempts: 1}
	return s
}

// begins has a node begin a session where the log says that it is.
func (s *site) begins(id, incarnation string) {
	n, _ := s.view().Node(id)
	s.up[id], s.lives[id] = place{n.Cluster, n.Role}, incarnation
	s.fleet.Up(id, &api.WorkerHello{Incarnation: incarnation})
}

// dies ends a node's session.
func (s *site) dies(id string) {
	delete(s.up, id)
	delete(s.lives, id)
}

// saysBye has a node say that it is to go for good.
func (s *site) saysBye(id string) {
	s.fleet.Message(id, &api.WorkerMessage{Message: &api.WorkerMessage_Leave{Leave: &api.Leave{}}})
}

func (s *site) node(id string) *state.Node {
	n, _ := s.view().Node(id)
	return n
}

// A node that was killed before it had left, and was started again, does not leave, whoever leads by then: what its former process said is over.
func TestANodeThatIsStartedAgainInsteadOfLeavingStays(t *testing.T) {
	drained := func(s *site) { s.apply(state.DrainNode{ID: "i-a", By: s.now.Add(time.Minute)}) }
	shrinks := func(s *site) { s.resize(0, 0); s.round() }
	for _, c := range []struct {
		name          string
		before, since func(*site)
		back          string // the process that says hello later
		says          bool   // that it is to go, too
		stays, drains bool
	}{
		{name: "the same process", back: "1", says: true},
		{name: "the same process, that has not said it again yet", back: "1"},
		{name: "another life of it", back: "1.1", says: true},
		{name: "another process", back: "2", stays: true},
		{name: "another process, that is to go as well", back: "2", says: true},
		{name: "another process, drained before", before: drained, back: "2", stays: true, drains: true},
		{name: "another process, drained since", since: drained, back: "2", stays: true, drains: true},
		{name: "another process, of a group that was to shrink before", before: shrinks, back: "2"},
		{name: "another process, of a group that is to shrink since", since: shrinks, back: "2"},
	} {
		for _, another := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, another leader %v", c.name, another), func(t *testing.T) {
				s := leaver(t)
				if c.before != nil {
					c.before(s)
				}
				s.saysBye("i-a")
				s.round()
				require.True(t, s.node("i-a").Draining())
				if c.since != nil {
					c.since(s)
				}
				s.dies("i-a")
				if another {
					s.lead()
				}
				s.pass(5 * time.Second)
				s.begins("i-a", c.back)
				if c.says {
					s.saysBye("i-a")
				}
				s.round()
				clear(s.drained)
				s.pass(time.Minute)
				require.Equal(t, c.stays, s.node("i-a").State == state.NodeAdmitted)
				require.Equal(t, c.drains, s.node("i-a").Draining())
			})
		}
	}
}

// A session is there a moment before the fleet is told of it, and what nothing is needed of any more goes within that moment.
func TestANodeThatIsBackIsKnownByItsSession(t *testing.T) {
	s := leaver(t)
	s.saysBye("i-a")
	s.round()
	s.lead()
	clear(s.drained)
	s.lives["i-a"] = "2"
	s.round()
	require.Equal(t, state.NodeAdmitted, s.node("i-a").State)
	require.False(t, s.node("i-a").Draining())
}

// What was given to the cluster takes its place again if that is still free.
func TestANodeOfAProviderThatIsStartedAgainInsteadOfLeavingStays(t *testing.T) {
	for _, provider := range []string{"cloud", "pool"} {
		t.Run(provider, func(t *testing.T) {
			s := newSite(t, cluster(provider, 0, 1))
			s.pool(1)
			s.settle()
			id := s.nodes("ig-task")[0].ID
			s.cloud.allMute = true // no other one comes
			s.begins(id, "1")
			s.drained[id] = tracker.Drain{Known: true, Attempts: 1}
			s.saysBye(id)
			s.round()
			require.True(t, s.node(id).Leaving)
			s.dies(id)
			s.lead()
			s.round()
			s.begins(id, "2")
			clear(s.drained)
			s.pass(time.Minute)
			require.Equal(t, []string{id}, ids(s.nodes("ig-task")))
			require.False(t, s.node(id).Leaving || s.node(id).Draining())
		})
	}
}

// A core node that ends by itself makes way for another one, though its blocks have no room as yet: it is there that they find some.
func TestACoreNodeThatGoesForGoodIsReplacedWhateverItsBlocksNeed(t *testing.T) {
	s := newSite(t, cluster("pool", 2, 0))
	s.pool(3)
	s.settle()
	id := s.nodes("ig-core")[0].ID
	s.begins(id, "1")
	s.drained[id] = tracker.Drain{Known: true, Attempts: 1}
	s.refuse = errors.New("no other node has room")
	s.saysBye(id)
	s.settle()
	require.True(t, s.node(id).Leaving)
	require.Len(t, s.nodes("ig-core"), 3)
}

// A farewell is the log's: the next leader goes on with it though the node says nothing any more. Until its grace is over the machine may
// only have started again.
func TestANodeThatDiesInItsFarewellIsGoneForGood(t *testing.T) {
	s := leaver(t)
	s.saysBye("i-a")
	s.round()
	s.dies("i-a")
	s.lead()
	s.pass(4 * time.Minute)
	require.Equal(t, state.NodeAdmitted, s.node("i-a").State, "it may come back")
	s.pass(2 * time.Minute)
	require.Equal(t, state.NodeTerminated, s.node("i-a").State)
	require.Zero(t, s.cluster().Groups[1].Target)
}

// An administrator's drain is not touched by what a node says; when it is over the node goes, and another one comes.
func TestANodeOfAProviderThatDrainsGoesForGood(t *testing.T) {
	s := newSite(t, cluster("pool", 0, 1))
	s.pool(2)
	s.settle()
	id := s.nodes("ig-task")[0].ID
	s.begins(id, "1")
	s.drained[id] = tracker.Drain{Known: true, Attempts: 1}
	by := s.now.Add(time.Hour)
	s.apply(state.DrainNode{ID: id, By: by})
	s.saysBye(id)
	s.pass(5 * time.Second)
	require.True(t, s.node(id).DrainBy.Equal(by))
	require.False(t, s.node(id).Leaving)
	clear(s.drained)
	s.pass(5 * time.Second)
	require.Equal(t, state.NodeTerminated, s.node(id).State)
	require.Len(t, s.nodes("ig-task"), 1)

	s.pool(1)
	free := s.view().PoolNodes()[0].ID
	s.apply(state.DrainNode{ID: free, By: by})
	s.saysBye(free)
	s.round()
	require.Equal(t, state.NodeTerminated, s.node(free).State)
}

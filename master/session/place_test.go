package session

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"millrace/master/state"
	"millrace/pkg/api"
)

// in its place: a hello of a version that says where the worker is.
func (s *fakeStream) placed(node, incarnation, cluster, role string) {
	s.in <- &api.WorkerMessage{Message: &api.WorkerMessage_Hello{Hello: &api.WorkerHello{
		NodeId: node, Incarnation: incarnation, Protocol: placedSince, Cluster: cluster, Role: role, Address: "https://x:1",
	}}}
}

func (s *site) pooled() {
	s.apply(state.PutNode{Node: state.Node{ID: "i-p", Role: state.RolePool, Pooled: true, State: state.NodeAdmitted}})
}

func TestANodeOfThePoolHasASession(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		s.pooled()
		st := newStream()
		over := s.serve("i-p", st)
		st.placed("i-p", "1", "", state.RolePool)
		synctest.Wait()
		require.Equal(t, []string{"up i-p 1"}, s.diary.read())
		require.Equal(t, state.RolePool, s.Nodes()[0].Role)

		// Its place changes: it is told until it goes, and what it says meanwhile is of a place that it has no more.
		s.apply(state.AssignNode{ID: "i-p", Cluster: "j-1", Group: "ig-c"})
		st.in <- &api.WorkerMessage{Message: &api.WorkerMessage_Report{Report: &api.AttemptReport{}}}
		st.beat()
		st.beat()
		synctest.Wait()
		require.Equal(t, []string{"Welcome", "Pong", "Assignment", "Pong", "Assignment"}, st.got())
		a := st.sent[2].GetAssignment()
		require.Equal(t, "j-1 CORE", a.Cluster+" "+a.Role)
		require.Equal(t, []string{"up i-p 1"}, s.diary.read())
		st.end(io.EOF)
		require.ErrorIs(t, <-over, io.EOF)

		st = newStream()
		s.serve("i-p", st)
		st.placed("i-p", "1.1", "j-1", state.RoleCore)
		synctest.Wait()
		require.Equal(t, []string{"up i-p 1", "down i-p: the worker ended", "up i-p 1.1"}, s.diary.read())
		require.Equal(t, "j-1", s.Nodes()[0].Cluster)
	})
}

// Nobody hears of a worker that is not where it belongs: it is told, and comes again.
func TestAMisplacedWorker(t *testing.T) {
	for name, hello := range map[string]struct {
		cluster, role string
		ok            bool
	}{
		"right":           {"j-1", state.RoleCore, true},
		"another cluster": {"j-0", state.RoleCore, false},
		"another role":    {"j-1", state.RoleTask, false},
		"in the pool":     {"", state.RolePool, false},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, s *site) {
				st := newStream()
				over := s.serve("i-a", st)
				st.placed("i-a", "1", hello.cluster, hello.role)
				synctest.Wait()
				require.Equal(t, []string{"Welcome"}, st.got())
				require.Equal(t, hello.ok, len(s.Nodes()) == 1)
				require.Equal(t, hello.ok, len(s.diary.read()) == 1)
				if !hello.ok {
					require.ErrorIs(t, <-over, ErrMisplaced)
				}
			})
		})
	}
}

// After a backup was restored, a node that was made a core node since is not sent away from the blocks that it holds.
func TestANodeOfARestoredSiteIsWhereItSaysItIs(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		s.pooled()
		require.NoError(t, s.log.DoubtPlaces())
		s.lost = errors.New("no majority")
		st := newStream()
		over := s.serve("i-p", st)
		st.placed("i-p", "1", "j-1", state.RoleCore)
		require.ErrorIs(t, <-over, s.lost)
		require.Empty(t, st.got(), "it hears nothing before that is logged")

		s.lost = nil
		st = newStream()
		s.serve("i-p", st)
		st.placed("i-p", "1", "j-1", state.RoleCore)
		synctest.Wait()
		require.Equal(t, []string{"up i-p 1"}, s.diary.read())
		n, _ := s.log.View().Node("i-p")
		require.Equal(t, "j-1 CORE ig-c", n.Cluster+" "+n.Role+" "+n.Group)
	})
}

// The next life of a process is no second process: it is not kept out by the one that it follows.
func TestTheNextLifeOfAProcess(t *testing.T) {
	in(t, func(t *testing.T, s *site) {
		old := newStream()
		over := s.serve("i-a", old)
		old.hello("i-a", "1", 0)
		synctest.Wait()
		next := newStream()
		s.serve("i-a", next)
		next.hello("i-a", "1.1", 0)
		old.beat() // it was on its way
		synctest.Wait()
		require.ErrorIs(t, <-over, ErrReplaced)
		require.Contains(t, s.diary.read(), "up i-a 1.1")
	})
}

// Whatever a worker says of itself, it gets nothing before its cluster's bootstrap actions are done.
func TestANodeIsNotReadyBeforeItsBootstrap(t *testing.T) {
	problems := func(state string, actions int) (list []string) {
		in(t, func(t *testing.T, s *site) {
			s.bootstrap(actions, state)
			heard := &problemsHeard{}
			s.Handle(heard)
			st := newStream()
			s.serve("i-b", st)
			st.placed("i-b", "1", "j-b", "CORE")
			st.beat()
			synctest.Wait()
			list = heard.list
		})
		return list
	}
	require.Equal(t, []string{"its bootstrap actions are not done", "its bootstrap actions are not done"}, problems("", 1))
	require.Equal(t, []string{"its bootstrap actions are not done", "its bootstrap actions are not done"}, problems(state.BootstrapFailed, 1))
	require.Equal(t, []string{"", ""}, problems(state.BootstrapDone, 1))
	require.Equal(t, []string{"", ""}, problems("", 0))
}

// bootstrap makes a cluster with bootstrap actions, and a node of it.
func (s *site) bootstrap(actions int, how string) {
	c := state.Cluster{ID: "j-b", Name: "b", Groups: []state.Group{{ID: "ig-b", Role: state.RoleCore}}}
	for range actions {
		c.Bootstrap = append(c.Bootstrap, state.BootstrapAction{Name: "setup.sh"})
	}
	s.apply(state.CreateCluster{Cluster: c})
	s.apply(state.PutNode{Node: state.Node{ID: "i-b", Cluster: "j-b", Group: "ig-b", Role: state.RoleCore, State: state.NodeAdmitted, Bootstrap: how}})
}

// problemsHeard is a Handler that notes what keeps a node from taking tasks.
type problemsHeard struct{ list []string }

func (p *problemsHeard) Up(_ string, h *api.WorkerHello) { p.list = append(p.list, h.Problem) }
func (p *problemsHeard) Down(string, string)             {}
func (p *problemsHeard) Message(_ string, m *api.WorkerMessage) {
	if b := m.GetHeartbeat(); b != nil {
		p.list = append(p.list, b.Problem)
	}
}

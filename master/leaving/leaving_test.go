package leaving

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
)

// yard is two core nodes and a task node of one cluster, all up, and what is on them.
type yard struct {
	store  *state.Store
	index  uint64
	up     []session.Node
	jobs   tracker.Drain
	left   *api.NodeDrain
	refuse error
	asked  []string
}

func (y *yard) Nodes() []session.Node                   { return y.up }
func (y *yard) Drained(string) tracker.Drain            { return y.jobs }
func (y *yard) Draining(string) (*api.NodeDrain, error) { return y.left, y.refuse }
func (y *yard) Alone(n string) ([]*api.BlockTrouble, error) {
	return []*api.BlockTrouble{{Path: "only on " + n}}, y.refuse
}
func (y *yard) CanDrain(nodes ...string) (*api.NodeDrain, error) {
	y.asked = nodes
	return &api.NodeDrain{Blocks: 3}, y.refuse
}

func (y *yard) apply(t *testing.T, c state.Command) {
	t.Helper()
	y.index++
	_, err := y.store.Apply(y.index, c)
	require.NoError(t, err)
}

func (y *yard) node(id string) *state.Node {
	n, _ := y.store.View().Node(id)
	return n
}

func newYard(t *testing.T) (*yard, Judge) {
	y := &yard{store: state.New(), jobs: tracker.Drain{Known: true}, left: &api.NodeDrain{Drained: true}}
	y.apply(t, state.CreateSite{Site: state.Site{ID: "s"}, Cluster: state.Cluster{ID: "j-1", Name: "one", Groups: []state.Group{{ID: "ig-c", Role: state.RoleCore}, {ID: "ig-t", Role: state.RoleTask}}}})
	for id, role := range map[string]string{"c1": state.RoleCore, "c2": state.RoleCore, "t1": state.RoleTask} {
		y.apply(t, state.PutNode{Node: state.Node{ID: id, Role: role, Cluster: "j-1"}})
		y.up = append(y.up, session.Node{ID: id})
	}
	return y, Judge{View: y.store.View, Sessions: y, Jobs: y, Blocks: y}
}

func TestACoreNodeLeavesIfAnotherStaysThatIsUp(t *testing.T) {
	y, j := newYard(t)
	plan, err := j.Can(y.node("c1"))
	require.NoError(t, err)
	require.EqualValues(t, 3, plan.Blocks)
	require.Equal(t, []string{"c1"}, y.asked)
	_, err = j.Can(y.node("c1"), y.node("t1"), y.node("c2"))
	require.ErrorIs(t, err, ErrNoCore)
	_, err = j.CanAll(y.node("c1"), y.node("t1"), y.node("c2"))
	require.NoError(t, err, "a cluster that is to have none")
	require.Equal(t, []string{"c1", "c2"}, y.asked)

	all := y.up
	y.up = nil
	_, err = j.Can(y.node("c1"))
	require.ErrorIs(t, err, ErrNoCore, "the other is lost")
	y.up = all
	y.apply(t, state.LeaveNode{ID: "c2", By: time.Unix(1, 0)})
	_, err = j.Can(y.node("c1"))
	require.ErrorIs(t, err, ErrNoCore, "the other leaves")
	y.refuse = errors.New("no room")
	y.apply(t, state.DrainNode{ID: "c2"})
	_, err = j.Can(y.node("c1"))
	require.ErrorIs(t, err, y.refuse)
}

func TestATaskNodeMayAlwaysLeave(t *testing.T) {
	y, j := newYard(t)
	y.refuse = errors.New("nobody is to be asked")
	plan, err := j.Can(y.node("t1"))
	require.NoError(t, err)
	require.Zero(t, plan.Blocks)
	alone, err := j.Alone(y.node("t1"))
	require.NoError(t, err)
	require.Empty(t, alone)
}

func TestANodeIsDrainedWhenNothingIsLeftOfJobsAndFiles(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*yard)
		want   bool
	}{
		"nothing is left":     {func(*yard) {}, true},
		"an attempt runs":     {func(y *yard) { y.jobs.Attempts = 1 }, false},
		"a job is to read":    {func(y *yard) { y.jobs.Needed = []string{"s-1"} }, false},
		"it has not told yet": {func(y *yard) { y.jobs.Known = false }, false},
		"blocks are left":     {func(y *yard) { y.left = &api.NodeDrain{Blocks: 1} }, false},
		"nobody knows":        {func(y *yard) { y.refuse = errors.New("too early") }, false},
		"it does not drain":   {func(*yard) {}, false},
	} {
		t.Run(name, func(t *testing.T) {
			y, j := newYard(t)
			n := *y.node("c1")
			n.DrainBy = time.Unix(9, 0)
			c.change(y)
			if name == "it does not drain" {
				n.DrainBy = time.Time{}
			}
			require.Equal(t, c.want, j.Left(&n).Drained)
		})
	}
	_, j := newYard(t)
	_, up := j.Session("c9")
	require.False(t, up)
}

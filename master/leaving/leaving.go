// Package leaving judges whether workers may leave their cluster, what that takes, and when nothing is left on one. People who
// drain a node and the fleet that shrinks a group go by the same judgement. It decides on no node and changes nothing.
package leaving

import (
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
)

// ErrNoCore says that no core node would be left.
var ErrNoCore = errors.New("no other core node is up that stays, and jobs and files need one")

// Sessions are the workers' open sessions.
type Sessions interface {
	Nodes() []session.Node
}

// Jobs tells what of the jobs is on a node.
type Jobs interface {
	Drained(node string) tracker.Drain
}

// Blocks tells what of the files is on core nodes.
type Blocks interface {
	// CanDrain is what it takes to copy the blocks of some nodes to others; files.ErrCannotDrain if they cannot be.
	CanDrain(nodes ...string) (*api.NodeDrain, error)
	// Draining is what of that is left; Drained: nothing.
	Draining(node string) (*api.NodeDrain, error)
	// Alone lists the blocks that are lost with a node.
	Alone(node string) ([]*api.BlockTrouble, error)
}

// Judge judges by what the leader knows now.
type Judge struct {
	View     func() *state.View
	Sessions Sessions
	Jobs     Jobs
	Blocks   Blocks
}

// Session is a node's session, if it has one.
func (j Judge) Session(node string) (session.Node, bool) {
	nodes := j.Sessions.Nodes()
	i := slices.IndexFunc(nodes, func(n session.Node) bool { return n.ID == node })
	if i < 0 {
		return session.Node{}, false
	}
	return nodes[i], true
}

// Can is what it takes for nodes of one cluster to leave together, beside those that leave already; or ErrNoCore, or why their blocks
// cannot be kept.
func (j Judge) Can(nodes ...*state.Node) (*api.NodeDrain, error) {
	cores := coresOf(nodes)
	if len(cores) > 0 && !j.coreStays(nodes[0].Cluster, cores) {
		return nil, ErrNoCore
	}
	return j.CanAll(nodes...)
}

// CanAll is Can for a cluster that is to have no core node: only its files count.
func (j Judge) CanAll(nodes ...*state.Node) (*api.NodeDrain, error) {
	cores := coresOf(nodes)
	if len(cores) == 0 {
		return &api.NodeDrain{}, nil
	}
	return j.Blocks.CanDrain(cores...)
}

func coresOf(nodes []*state.Node) (ids []string) {
	for _, n := range nodes {
		if n.Role == state.RoleCore {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

func (j Judge) coreStays(cluster string, leaving []string) bool {
	up := map[string]bool{}
	for _, n := range j.Sessions.Nodes() {
		up[n.ID] = true
	}
	return slices.ContainsFunc(j.View().Nodes(cluster), func(o *state.Node) bool {
		return o.Role == state.RoleCore && o.Counts() && !o.Draining() && up[o.ID] && !slices.Contains(leaving, o.ID)
	})
}

// Left is what is left on a node that drains, as far as this leader knows; Drained: nothing.
func (j Judge) Left(n *state.Node) *api.NodeDrain {
	d := &api.NodeDrain{Drained: true}
	if n.Role == state.RoleCore {
		var err error
		if d, err = j.Blocks.Draining(n.ID); err != nil {
			d = &api.NodeDrain{}
		}
	}
	jobs := j.Jobs.Drained(n.ID)
	d.Attempts, d.Jobs, d.KillAt = int64(jobs.Attempts), jobs.Needed, stamp(n.DrainBy)
	d.Drained = d.Drained && n.Draining() && jobs.Empty()
	return d
}

// Alone lists the blocks that nobody would have without a node that is lost; of others than core nodes there are none.
func (j Judge) Alone(n *state.Node) ([]*api.BlockTrouble, error) {
	if n.Role != state.RoleCore {
		return nil, nil
	}
	return j.Blocks.Alone(n.ID)
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

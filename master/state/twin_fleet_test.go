package state

import (
	"fmt"
	"slices"
)

// fleetTwin is a slow and simple model of what clusters, their nodes and people come and go by.
type fleetTwin struct {
	clusters map[string]*twinCluster
	nodes    map[string]Node
	tokens   map[string]Token
	launches map[string]Launch
	users    map[string]User
	jobs     map[string]string // that have not ended, and their clusters
}

// twinCluster keeps what Cluster has as lists in a form in which nothing can be wrong with them.
type twinCluster struct {
	Cluster                     // without groups, tags and events
	groups  []Group             // without counts of failures
	failed  map[string][]string // group → nodes, since it was resized last
	tags    map[string]string
	events  []Event // all that ever were
	folders []string
}

func newFleetTwin() *fleetTwin {
	return &fleetTwin{map[string]*twinCluster{}, map[string]Node{}, map[string]Token{}, map[string]Launch{}, map[string]User{}, map[string]string{}}
}

// record is the cluster as a view should show it.
func (c *twinCluster) record() *Cluster {
	out := c.Cluster
	for _, g := range c.groups {
		g.Failed = len(c.failed[g.ID])
		out.Groups = append(out.Groups, g)
	}
	for k, v := range c.tags {
		out.Tags = append(out.Tags, Tag{k, v})
	}
	slices.SortFunc(out.Tags, func(a, b Tag) int { return slices.Compare([]byte(a.Key), []byte(b.Key)) })
	out.Events, out.EventsSeen = c.events[max(0, len(c.events)-300):], uint64(len(c.events))
	return &out
}

func (c *twinCluster) group(id string) *Group {
	for i := range c.groups {
		if c.groups[i].ID == id {
			return &c.groups[i]
		}
	}
	return nil
}

func (c *twinCluster) over() bool { return c.State != "" && c.State != ClusterTerminating }

// live finds a cluster for a change that one that is ending refuses.
func (w *fleetTwin) live(id string) (*twinCluster, error) {
	c := w.clusters[id]
	switch {
	case c == nil:
		return nil, ErrNotFound
	case c.State != "":
		return nil, ErrTooLate
	}
	return c, nil
}

func (w *fleetTwin) createCluster(in Cluster) (id string, err error) {
	for _, c := range w.clusters {
		if in.RequestID != "" && c.RequestID == in.RequestID && c.User == in.User {
			return c.ID, nil
		}
	}
	for _, c := range w.clusters {
		if c.ID == in.ID || c.ID == in.Name || c.Name == in.Name && !c.over() {
			return "", ErrExists
		}
	}
	c := &twinCluster{Cluster: in, groups: slices.Clone(in.Groups), failed: map[string][]string{}, tags: map[string]string{}}
	c.Groups, c.Tags = nil, nil
	for _, t := range in.Tags {
		c.tags[t.Key] = t.Value
	}
	w.clusters[in.ID] = c
	return in.ID, nil
}

func (w *fleetTwin) resize(r ResizeCluster) error {
	c, err := w.live(r.Cluster)
	if err != nil {
		return err
	}
	for _, want := range r.Groups {
		if c.group(want.ID) == nil {
			return ErrExists // the histories' clusters have both groups
		}
		if want.Target < 0 {
			return ErrInvalid
		}
	}
	for _, want := range r.Groups {
		g := c.group(want.ID)
		*g = Group{ID: g.ID, Role: g.Role, Provider: g.Provider, Target: want.Target, Scales: want.Scales, Min: want.Min, Max: want.Max, GraceMs: want.GraceMs}
		if g.Scales && g.Target > g.Max {
			g.Target = g.Max
		}
		delete(c.failed, g.ID)
	}
	return nil
}

func (w *fleetTwin) setTarget(s SetTarget) error {
	c, err := w.live(s.Cluster)
	if err != nil {
		return err
	}
	g := c.group(s.Group)
	if g == nil {
		return ErrNotFound
	}
	to := s.To
	if to > g.Max {
		to = g.Max
	}
	if to < g.Min {
		to = g.Min
	}
	if g.Scales && g.Target == s.From && g.Target != to {
		g.Target = to
		c.events = append(c.events, *s.Event)
	}
	return nil
}

func (w *fleetTwin) setCluster(s SetCluster) error {
	c, err := w.live(s.Cluster)
	if err != nil {
		return err
	}
	c.TerminationProtected = *s.TerminationProtected
	for _, t := range s.PutTags {
		c.tags[t.Key] = t.Value
	}
	for _, k := range s.RemoveTags {
		delete(c.tags, k)
	}
	if c.ReadyAt.IsZero() {
		c.ReadyAt = s.Ready
	}
	if len(s.Bootstrap) > 0 {
		w.replaceBootstrap(c, s.Bootstrap)
	}
	return nil
}

// replaceBootstrap: who was on the way has failed, who had nothing to run has nothing to run now, and groups begin to count anew.
func (w *fleetTwin) replaceBootstrap(c *twinCluster, actions []BootstrapAction) {
	for i := range c.groups {
		c.groups[i].Suspended = ""
	}
	clear(c.failed)
	if fmt.Sprint(c.Bootstrap) == fmt.Sprint(actions) { // once more
		return
	}
	for id, n := range w.nodes {
		switch {
		case n.Cluster != c.ID || n.State != NodeAdmitted || n.Bootstrap != "":
			continue
		case len(c.Bootstrap) == 0:
			n.Bootstrap = BootstrapDone
		default:
			n.Bootstrap, n.Failure = BootstrapFailed, bootstrapReplaced
		}
		w.nodes[id] = n
	}
	c.Bootstrap = actions
}

func (w *fleetTwin) terminate(e TerminateCluster) error {
	c := w.clusters[e.Cluster]
	switch {
	case c == nil:
		return ErrNotFound
	case c.State != "":
		return nil
	case c.TerminationProtected:
		return ErrProtected
	}
	c.State, c.ReasonCode = ClusterTerminating, e.ReasonCode
	return nil
}

// A cluster ends when nothing is left of it; its tokens and files go with it.
func (w *fleetTwin) end(e EndCluster) error {
	c := w.clusters[e.Cluster]
	switch {
	case c == nil:
		return ErrNotFound
	case c.over():
		return nil
	case c.State == "":
		return ErrNotReady
	}
	for _, cluster := range w.jobs {
		if cluster == c.ID {
			return ErrNotReady
		}
	}
	for _, n := range w.nodes {
		if n.Cluster == c.ID && n.State == NodeAdmitted {
			return ErrNotReady
		}
	}
	for _, l := range w.launches {
		if l.Cluster == c.ID {
			return ErrNotReady
		}
	}
	for id, t := range w.tokens {
		if t.Cluster == c.ID {
			delete(w.tokens, id)
		}
	}
	c.State, c.EndedAt, c.folders = e.State, e.At, nil
	return nil
}

func (w *fleetTwin) suspend(s SuspendGroup) error {
	c, err := w.live(s.Cluster)
	if err != nil {
		return err
	}
	g := c.group(s.Group)
	if g == nil {
		return ErrNotFound
	}
	g.Suspended = s.Reason
	return nil
}

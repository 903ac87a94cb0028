package fleet

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/master/tracker"
)

// burdensMost bounds the core nodes whose blocks are counted to find the cheapest ones to lose.
const burdensMost = 100

// look gathers what a plan follows from.
func (f *Fleet) look() *World {
	v, now := f.cfg.View(), f.cfg.Now()
	w := &World{
		Now: now, Begun: f.begun, Settled: f.settled(), Jobs: map[string]JobsOf{}, Burdens: map[string]Burden{}, Drained: map[string]bool{}, Spare: map[string]bool{},
		Providers: f.kinds, Default: f.cfg.Default, Listings: maps.Clone(f.listings), Calls: maps.Clone(f.progress),
		Refusals: maps.Clone(f.refusals), Decisions: map[string]Decision{}, Rules: f.cfg.Rules,
	}
	f.facts(w, v)
	w.Tokens = v.Tokens()
	f.tidy(w)
	for _, l := range w.Launches {
		if b, failed := f.backoffs[l.Group]; failed && l.State == state.LaunchJoined && l.RequestedAt.After(b.At) {
			delete(f.backoffs, l.Group)
		}
	}
	w.Backoffs = maps.Clone(f.backoffs)
	f.farewells(w)
	for _, n := range w.Nodes {
		f.seen(n, w.Up[n.ID], now)
		if _, bye := w.Farewells[n.ID]; !n.Leaving && !bye || n.State != state.NodeAdmitted {
			continue
		}
		if w.Up[n.ID] {
			w.Drained[n.ID] = f.judge.Left(n).Drained
		} else if alone, err := f.judge.Alone(n); err == nil {
			w.Spare[n.ID] = len(alone) == 0
		}
	}
	w.Lost = maps.Clone(f.lost)
	for _, j := range v.OpenJobs() {
		jobs := w.Jobs[j.Cluster]
		jobs.Any, jobs.Open = true, append(jobs.Open, j)
		w.Jobs[j.Cluster] = jobs
	}
	for _, c := range w.Clusters {
		f.lastJob(w, v, c)
		f.loads(w, c)
	}
	return w
}

// facts fills in who is there.
func (f *Fleet) facts(w *World, v *state.View) {
	w.Clusters, w.Launches, w.Nodes, w.Up, w.Processes = v.LiveClusters(), v.Launches(""), nil, map[string]bool{}, map[string]string{}
	slices.SortFunc(w.Clusters, func(a, b *state.Cluster) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	open := map[string]session.Node{}
	for _, s := range f.cfg.Sessions.Nodes() {
		open[s.ID] = s
	}
	for _, n := range v.Nodes("") {
		if n.Role == state.RoleMaster {
			continue
		}
		s, up := open[n.ID]
		w.Nodes, w.Up[n.ID] = append(w.Nodes, n), up && s.Cluster == n.Cluster && s.Role == n.Role
		w.Processes[n.ID] = session.ProcessOf(s.Incarnation)
	}
}

// tidy forgets what was kept of groups, clusters, launches and nodes that are gone.
func (f *Fleet) tidy(w *World) {
	clusters, groups, nodes, launches := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, c := range w.Clusters {
		clusters[c.ID] = true
		for _, g := range c.Groups {
			groups[g.ID] = true
		}
	}
	for _, n := range w.Nodes {
		nodes[n.ID] = true
	}
	only(f.sampled, clusters)
	only(f.scalers, groups)
	only(f.backoffs, groups)
	only(f.refusals, groups)
	only(f.lost, nodes)
	for _, l := range w.Launches {
		launches[l.ID] = true
	}
	maps.DeleteFunc(f.progress, func(id string, p Progress) bool { return !p.Running && !launches[id] })
	f.forgetNodes()
}

// only leaves in a map what is there.
func only[V any](kept map[string]V, there map[string]bool) {
	maps.DeleteFunc(kept, func(key string, _ V) bool { return !there[key] })
}

func (f *Fleet) settled() bool {
	if f.cfg.Settled == nil {
		return true
	}
	select {
	case <-f.cfg.Settled:
		return true
	default:
		return false
	}
}

// seen keeps since when a node has had no session.
func (f *Fleet) seen(n *state.Node, up bool, now time.Time) {
	if up || n.State != state.NodeAdmitted {
		delete(f.lost, n.ID)
	} else if _, known := f.lost[n.ID]; !known {
		f.lost[n.ID] = now
	}
}

// lastJob finds when a cluster's last job ended, where that decides on the cluster's end.
func (f *Fleet) lastJob(w *World, v *state.View, c *state.Cluster) {
	jobs := w.Jobs[c.ID]
	if len(jobs.Open) > 0 || c.AutoTerminateMs == 0 && !c.TerminateAfterSteps {
		return
	}
	for _, e := range v.List(c.ID) {
		jobs.Any, jobs.LastEnd = true, later(jobs.LastEnd, e.Brief().EndedAt)
	}
	w.Jobs[c.ID] = jobs
}

// loads asks for a cluster's load if somebody wants to know: a group that is to shrink, or, once a second, one that scales by itself.
func (f *Fleet) loads(w *World, c *state.Cluster) {
	if c.Ending() {
		return
	}
	members, shrinks := map[string][]*state.Node{}, false
	for _, g := range c.Groups {
		members[g.ID] = membersOf(w, g.ID)
		shrinks = shrinks || len(members[g.ID]) > g.Target
	}
	samples := w.Now.Sub(f.sampled[c.ID]) >= lookEvery && slices.ContainsFunc(c.Groups, func(g state.Group) bool { return g.Scales })
	if !shrinks && !samples {
		return
	}
	load := f.cfg.Jobs.Load(c.ID, shrinks)
	w.carry(load)
	for _, g := range c.Groups {
		if g.Role == state.RoleCore && len(members[g.ID]) > g.Target {
			f.weigh(w, members[g.ID])
		}
		if samples {
			f.sample(w, c, &g, load, members[g.ID])
		}
	}
	if samples {
		f.sampled[c.ID] = w.Now
	}
}

// onItsWay says whether a node that is not up may still come to this leader, which has only just begun.
func (w *World) onItsWay(n *state.Node) bool {
	return n.State == state.NodeAdmitted && !w.Up[n.ID] && w.Now.Sub(w.Begun) < w.Rules.LostPatience
}

// gathering says whether nodes of a cluster may still be on their way to this leader: what they run seems to wait until then.
func (w *World) gathering(c *state.Cluster) bool {
	return slices.ContainsFunc(w.Nodes, func(n *state.Node) bool { return n.Cluster == c.ID && w.onItsWay(n) })
}

// sample shows a group that scales by itself to its scaler, which may want another target.
func (f *Fleet) sample(w *World, c *state.Cluster, g *state.Group, load tracker.Load, members []*state.Node) {
	if !g.Scales || g.Suspended != "" || w.gathering(c) {
		delete(f.scalers, g.ID)
		return
	}
	s := Sample{Target: g.Target, Min: g.Min, Max: g.Max, Waiting: load.Waiting, Running: load.Running}
	own := 0
	for id, n := range load.Nodes {
		if slices.ContainsFunc(members, func(m *state.Node) bool { return m.ID == id }) {
			s.PerNode, own = s.PerNode+n.Slots, own+1
		} else {
			s.Elsewhere += n.Slots
		}
	}
	if own > 0 {
		s.PerNode /= own
	}
	if f.scalers[g.ID] == nil {
		f.scalers[g.ID] = &Scaler{}
	}
	if d, ok := f.scalers[g.ID].Look(w.Now, s); ok {
		w.Decisions[g.ID] = d
	}
}

// membersOf are the nodes that count for a group.
func membersOf(w *World, group string) (list []*state.Node) {
	for _, n := range w.Nodes {
		if n.Group == group && n.Counts() {
			list = append(list, n)
		}
	}
	return list
}

// carry takes over what there is of jobs on nodes.
func (w *World) carry(load tracker.Load) {
	for id, n := range load.Nodes {
		w.Burdens[id] = Burden{Attempts: n.Attempts, Needed: n.Needed}
	}
}

// weigh tells how many bytes of blocks would have to be copied from each of some core nodes.
func (f *Fleet) weigh(w *World, nodes []*state.Node) {
	if len(nodes) > burdensMost {
		return
	}
	for _, n := range nodes {
		if d, err := f.cfg.Blocks.CanDrain(n.ID); err == nil {
			b := w.Burdens[n.ID]
			b.BlockBytes = d.Bytes
			w.Burdens[n.ID] = b
		}
	}
}

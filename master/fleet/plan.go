package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"millrace/master/state"
)

// Make says what is to be done next so that every cluster is what the log wants it to be. It is a function of the world: made again
// after a step was done, after a change or by another leader, it goes on from there.
func Make(w *World) Plan {
	p := newPlanner(w)
	for _, l := range w.Launches {
		p.launch(l)
	}
	for _, c := range w.Clusters {
		if c.Ending() {
			p.end(c)
		}
	}
	p.farewell()
	p.returned()
	// Core groups of all clusters come first: without one a cluster does nothing.
	for _, role := range []string{state.RoleCore, state.RoleTask} {
		for _, c := range w.Clusters {
			for i := range c.Groups {
				if g := &c.Groups[i]; g.Role == role && !c.Ending() {
					p.group(c, g)
				}
			}
		}
	}
	for _, c := range w.Clusters {
		if !c.Ending() {
			p.live(c)
		}
	}
	p.tokens()
	return p.plan
}

// tokens forgets join tokens that are over. Those of launches go with them.
func (p *planner) tokens() {
	for _, t := range p.Tokens {
		if t.Launch == "" && p.Now.Sub(t.ExpiresAt) >= p.Rules.TokensKept {
			p.step(Step{Command: state.RevokeToken{ID: t.ID}})
		}
	}
}

// planner is one plan in the making.
type planner struct {
	*World
	plan    Plan
	members map[string][]*state.Node   // by group: admitted
	joined  map[string]*state.Node     // by launch: the node that came of it, one that was removed too
	asked   map[string][]*state.Launch // by group: that no node has come of yet
	byID    map[string]*state.Cluster
	gone    map[string]bool // nodes that this plan lets go
	failing map[string]bool // groups of which this plan gives up a launch: the next one knows how long to wait
	free    []*state.Node   // of the pool, the first to be given first
}

func newPlanner(w *World) *planner {
	p := &planner{World: w, plan: Plan{Groups: map[string]Status{}}, members: map[string][]*state.Node{}, joined: map[string]*state.Node{},
		asked: map[string][]*state.Launch{}, byID: map[string]*state.Cluster{}, gone: map[string]bool{}, failing: map[string]bool{}}
	for _, c := range w.Clusters {
		p.byID[c.ID] = c
	}
	for _, n := range w.Nodes {
		if n.Launch != "" {
			p.joined[n.Launch] = n
		}
		if n.State != state.NodeAdmitted {
			continue
		}
		if n.Group != "" {
			p.members[n.Group] = append(p.members[n.Group], n)
		}
		if n.Free() && w.Up[n.ID] {
			p.free = append(p.free, n)
		}
	}
	slices.SortFunc(p.free, older)
	return p
}

func older(a, b *state.Node) int {
	return cmp.Or(a.JoinedAt.Compare(b.JoinedAt), cmp.Compare(a.ID, b.ID))
}

func (p *planner) step(s Step) { p.plan.Steps = append(p.plan.Steps, s) }

// do is a step with the event that tells of it. An event that only repeats the last one of its subject is left out.
func (p *planner) do(c *state.Cluster, command state.Command, kind, subject, format string, args ...any) {
	s := Step{Command: command}
	if format != "" && c != nil {
		e := &state.Event{At: p.Now.UTC(), Kind: kind, Subject: subject, Message: fmt.Sprintf(format, args...)}
		if command != nil || !said(c, e) {
			s.Cluster, s.Event = c.ID, e
		}
	}
	if s.Command != nil || s.Event != nil {
		p.step(s)
	}
}

// said says whether the last event of a subject is this one: it is not repeated each time that a plan is made, nor by the next leader.
func said(c *state.Cluster, e *state.Event) bool {
	for _, old := range slices.Backward(c.Events) {
		if old.Kind == e.Kind && old.Subject == e.Subject {
			return old.Message == e.Message
		}
	}
	return false
}

// called is what people call a node.
func called(n *state.Node) string { return cmp.Or(n.Name, n.ID) }

// lostFor is how long a node has had no session, as far as this leader knows.
func (p *planner) lostFor(n *state.Node) time.Duration {
	since, ok := p.Lost[n.ID]
	if p.Up[n.ID] || !ok {
		return 0
	}
	return p.Now.Sub(since)
}

// bootstrapped says whether a node may run tasks of its cluster.
func bootstrapped(c *state.Cluster, n *state.Node) bool {
	return len(c.Bootstrap) == 0 || n.Bootstrap == state.BootstrapDone
}

package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"millrace/master/state"
)

// census is who of a group is where on its way.
type census struct {
	counted []*state.Node   // what the group has: admitted, well as far as is known, and to stay
	leaving []*state.Node   // that were well
	failed  []*state.Node   // whose bootstrap actions failed
	asked   []*state.Launch // that no node has come of yet
}

func (p *planner) census(g *state.Group) (s census) {
	for _, n := range p.members[g.ID] {
		switch {
		case n.Failure != "":
			s.failed = append(s.failed, n)
		case n.Leaving:
			s.leaving = append(s.leaving, n)
		default:
			s.counted = append(s.counted, n)
		}
	}
	s.asked = p.asked[g.ID]
	return s
}

// have is how many nodes the group has or is about to have.
func (s *census) have() int { return len(s.counted) + len(s.asked) }

// group brings a group nearer to its target.
func (p *planner) group(c *state.Cluster, g *state.Group) {
	if p.rescale(c, g) {
		return // the next plan knows the new target
	}
	s := p.census(g)
	st := Status{Launching: len(s.asked), Draining: len(s.leaving)}
	for _, n := range s.counted {
		if p.Up[n.ID] && !bootstrapped(c, n) {
			st.Bootstrapping++
		}
	}
	suspended := p.failures(c, g, s.failed)
	p.replace(c, g, &s)
	switch diff := g.Target - s.have(); {
	case diff > 0:
		p.grow(c, g, &s, diff, suspended, &st)
	case diff < 0:
		p.shrink(c, g, &s, -diff, &st)
	}
	if st.Reason == "" {
		st.Reason = problemOf(s.asked)
	}
	p.letGo(c, s.leaving)
	p.plan.Groups[g.ID] = st
}

// failures says whether the group grows no more, as its bootstrap actions fail. The nodes that they failed on stay where people can look into
// them until somebody resizes the group, which then counts none as failed; and so long the machine that failed is not tried again.
func (p *planner) failures(c *state.Cluster, g *state.Group, failed []*state.Node) (why string) {
	slices.SortFunc(failed, older)
	before := failed[:max(0, len(failed)-g.Failed)]
	for _, n := range before {
		if !n.Leaving {
			p.do(c, state.LeaveNode{ID: n.ID, By: p.Now.UTC()}, "", "", "")
		}
	}
	p.letGo(c, slices.DeleteFunc(slices.Clone(before), func(n *state.Node) bool { return !n.Leaving }))
	if g.Suspended != "" || g.Target == 0 || g.Failed == 0 || 2*g.Failed < g.Target {
		return g.Suspended
	}
	why = fmt.Sprintf("bootstrap actions failed on %s of %d", countOf(g.Failed, "node"), g.Target)
	if n := len(failed); n > 0 {
		why += fmt.Sprintf(", last on %s: %s", called(failed[n-1]), failed[n-1].Failure)
	}
	p.do(c, state.SuspendGroup{Cluster: c.ID, Group: g.ID, Reason: why}, "BOOTSTRAP", g.ID,
		"the %s group grows no more until it is resized (cluster resize --retry): %s", strings.ToLower(g.Role), why)
	return why
}

// replace has nodes leave that were lost for long and that a provider or the pool has others for.
func (p *planner) replace(c *state.Cluster, g *state.Group, s *census) {
	others := len(p.free)
	s.counted = slices.DeleteFunc(s.counted, func(n *state.Node) bool {
		after := p.Rules.ReplaceAfter
		switch {
		case n.Pooled && others == 0, !n.Pooled && n.Launch == "":
			return false // nobody would come in its place
		case p.vanished(n):
			after = p.Rules.LostPatience
		}
		if !p.Settled || p.lostFor(n) < after {
			return false
		}
		if n.Pooled {
			others--
		}
		p.leave(c, g, n, fmt.Sprintf("it has been lost for %s: another one takes its place", p.lostFor(n).Round(time.Second)))
		return true
	})
}

// vanished says whether a node's provider has no such machine any more.
func (p *planner) vanished(n *state.Node) bool {
	i := slices.IndexFunc(p.Launches, func(l *state.Launch) bool { return l.ID == n.Launch })
	return i >= 0 && !p.Providers[p.Launches[i].Provider].Revives && p.unlisted(p.Launches[i])
}

// grow takes back nodes that are leaving, and asks for the rest.
func (p *planner) grow(c *state.Cluster, g *state.Group, s *census, lacking int, suspended string, st *Status) {
	back := slices.DeleteFunc(slices.Clone(s.leaving), func(n *state.Node) bool {
		_, bye := p.Farewells[n.ID]
		return bye || p.gone[n.ID] // it goes, whatever is wanted of it
	})
	slices.SortFunc(back, p.cheaper)
	for lacking > 0 && len(back) > 0 {
		n := back[len(back)-1] // the dearest
		if !p.Up[n.ID] {
			break // the rest is lost, too
		}
		back = back[:len(back)-1]
		s.leaving = slices.DeleteFunc(s.leaving, func(o *state.Node) bool { return o == n })
		p.do(c, state.DrainNode{ID: n.ID}, "NODE", n.ID, "%s stays: the %s group is to have %s", called(n), strings.ToLower(g.Role), countOf(g.Target, "node"))
		lacking--
		st.Draining--
	}
	if lacking == 0 {
		return
	}
	provider := cmp.Or(g.Provider, p.Default)
	kind, known := p.Providers[provider]
	b := p.Backoffs[g.ID]
	switch {
	case suspended != "":
		st.Missing, st.Reason = lacking, suspended
	case !known:
		st.Missing, st.Reason = lacking, fmt.Sprintf("the masters were started without the provider %s", provider)
		p.do(c, nil, "GROUP", g.ID, "%s", st.Reason)
	case kind.Pool:
		p.assign(c, g, lacking, st)
	case p.failing[g.ID]:
		st.Missing = lacking
	case b.Until.After(p.Now):
		st.Missing = lacking
		st.Reason = fmt.Sprintf("%d launches of %s failed one after another, it is asked again in %s: %s", b.Failures, provider, b.Until.Sub(p.Now).Round(time.Second), b.Problem)
	default:
		n := min(lacking, max(0, p.Rules.LaunchesAtOne-len(s.asked)))
		for range n {
			p.step(Step{Launch: &state.Launch{Cluster: c.ID, Group: g.ID, Provider: provider, RequestedAt: p.Now.UTC()}})
		}
		if n > 0 {
			p.step(Step{Cluster: c.ID, Event: &state.Event{At: p.Now.UTC(), Kind: "GROUP", Subject: g.ID,
				Message: fmt.Sprintf("the %s group is to have %s: %s is asked for %d", strings.ToLower(g.Role), countOf(g.Target, "node"), provider, n)}})
		}
		st.Launching += n
	}
}

// problemOf is why a node that was asked for is not there yet.
func problemOf(asked []*state.Launch) string {
	for _, l := range asked {
		if l.Problem != "" {
			return l.Problem
		}
	}
	return ""
}

// shrink gives up what is not there yet, then has the cheapest nodes leave.
func (p *planner) shrink(c *state.Cluster, g *state.Group, s *census, surplus int, st *Status) {
	asked := slices.Clone(s.asked)
	slices.SortFunc(asked, func(a, b *state.Launch) int { return b.RequestedAt.Compare(a.RequestedAt) })
	for _, l := range asked[:min(surplus, len(asked))] {
		p.giveUp(l, "it is wanted no more")
		surplus--
		st.Launching--
	}
	if surplus == 0 {
		return
	}
	if r := p.Refusals[g.ID]; r.Until.After(p.Now) {
		st.Reason = r.Reason
		return
	}
	if !p.Settled {
		return // who is lost is not known yet
	}
	for _, n := range p.victims(s.counted)[:surplus] {
		if p.onItsWay(n) {
			continue // it may have more than others
		}
		p.leave(c, g, n, fmt.Sprintf("the %s group is to have %s", strings.ToLower(g.Role), countOf(g.Target, "node")))
		st.Draining++
	}
}

func (p *planner) leave(c *state.Cluster, g *state.Group, n *state.Node, why string) {
	grace := p.Rules.Grace
	if g.GraceMs > 0 {
		grace = time.Duration(g.GraceMs) * time.Millisecond
	}
	p.do(c, state.LeaveNode{ID: n.ID, By: p.Now.Add(grace).UTC()}, "NODE", n.ID, "%s leaves: %s", called(n), why)
}

// victims orders nodes by what losing them costs, the cheapest first.
func (p *planner) victims(nodes []*state.Node) []*state.Node {
	return slices.SortedFunc(slices.Values(nodes), p.cheaper)
}

func (p *planner) cheaper(a, b *state.Node) int {
	x, y := p.Burdens[a.ID], p.Burdens[b.ID]
	return cmp.Or(
		falseFirst(p.Up[a.ID], p.Up[b.ID]),
		falseFirst(!a.Draining(), !b.Draining()),
		falseFirst(p.ready(a), p.ready(b)),
		cmp.Compare(x.Attempts, y.Attempts), cmp.Compare(x.Needed, y.Needed), cmp.Compare(x.BlockBytes, y.BlockBytes),
		-older(a, b))
}

func (p *planner) ready(n *state.Node) bool {
	c := p.byID[n.Cluster]
	return c != nil && bootstrapped(c, n)
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// letGo lets nodes go of which nothing is needed any more.
func (p *planner) letGo(c *state.Cluster, leaving []*state.Node) {
	for _, n := range leaving {
		if p.Up[n.ID] && p.Drained[n.ID] || p.lostForGood(n) {
			p.goes(c, n)
		}
	}
}

// goes lets a node go: back to the pool, or for good.
func (p *planner) goes(c *state.Cluster, n *state.Node) {
	if p.gone[n.ID] {
		return
	}
	p.gone[n.ID] = true
	if _, bye := p.Farewells[n.ID]; n.Pooled && !bye {
		p.do(c, state.ReleaseNode{ID: n.ID}, "NODE", n.ID, "%s is back in the pool", called(n))
		return
	}
	p.do(c, state.RemoveNode{ID: n.ID}, "NODE", n.ID, "%s has left", called(n))
}

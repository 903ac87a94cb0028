package fleet

import (
	"cmp"
	"time"

	"millrace/master/state"
)

// farewell sees to nodes that said they are to go for good, as a container does that is stopped. One that joined by itself takes its
// place with it; for one that somebody gave to the cluster another one comes.
func (p *planner) farewell() {
	for _, n := range p.Nodes {
		bye, ok := p.Farewells[n.ID]
		if !ok || p.gone[n.ID] {
			continue
		}
		c := p.byID[n.Cluster]
		own := !n.Pooled && n.Launch == ""
		switch {
		case c == nil: // it is free: nothing is on it
			p.removes(c, n, false)
		case c.Ending(): // it goes with its cluster
		case !n.Draining() && own:
			p.do(c, state.DrainNode{ID: n.ID, By: p.byeBy(bye), Bye: bye.Process}, "NODE", n.ID, "%s is about to end: it is drained", called(n))
		case !n.Draining():
			p.do(c, state.LeaveNode{ID: n.ID, By: p.byeBy(bye), Bye: bye.Process}, "NODE", n.ID, "%s is about to end: it leaves", called(n))
		case p.Up[n.ID] && p.Drained[n.ID], p.lostForGood(n):
			p.removes(c, n, own && n.Counts())
		}
	}
}

// returned has nodes stay that did not end as they said they would.
func (p *planner) returned() {
	for _, n := range p.Nodes {
		if p.Back[n.ID] && !p.gone[n.ID] {
			p.gone[n.ID] = true // nothing else is to become of it in this plan
			p.do(p.byID[n.Cluster], state.DrainNode{ID: n.ID}, "NODE", n.ID, "%s was started again: it stays", called(n))
		}
	}
}

// lostForGood says of a node that leaves whether it is waited for no more: it has been lost for a while, and no block would be missed. One that
// has said by itself that it ends has until its grace is over: its machine may only start again.
func (p *planner) lostForGood(n *state.Node) bool {
	return p.Settled && p.Spare[n.ID] && p.lostFor(n) >= p.Rules.LostPatience && (n.Bye == "" || !p.Now.Before(n.DrainBy))
}

// byeBy is when attempts on a node that ends are killed.
func (p *planner) byeBy(f Farewell) time.Time { return p.Now.Add(cmp.Or(f.Grace, p.Rules.Grace)).UTC() }

func (p *planner) removes(c *state.Cluster, n *state.Node, shrink bool) {
	p.gone[n.ID] = true
	p.do(c, state.RemoveNode{ID: n.ID, Shrink: shrink}, "NODE", n.ID, "%s has left", called(n))
}

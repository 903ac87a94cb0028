package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"millrace/master/state"
)

// launch takes one launch a step on.
func (p *planner) launch(l *state.Launch) {
	node := p.joined[l.ID]
	switch {
	case l.State == state.LaunchTerminating:
		p.terminate(l, node)
	case node != nil:
		p.revive(l) // one that leaves, too: what it has is still to be copied
	case l.State == state.LaunchJoined, !p.wanted(l):
		p.giveUp(l, "")
	default:
		p.await(l)
	}
}

// wanted says whether the cluster and the group that a launch is for are there.
func (p *planner) wanted(l *state.Launch) bool {
	c := p.byID[l.Cluster]
	return c != nil && !c.Ending() && slices.ContainsFunc(c.Groups, func(g state.Group) bool { return g.ID == l.Group })
}

// await sees to a launch that no node has come of yet.
func (p *planner) await(l *state.Launch) {
	c := p.byID[l.Cluster]
	problem := ""
	switch {
	case p.Now.Sub(l.RequestedAt) >= p.Rules.JoinWithin:
		problem = fmt.Sprintf("no node has joined within %s", p.Rules.JoinWithin)
		if l.Problem != "" {
			problem += ": " + l.Problem
		}
	case l.State == state.LaunchGiven && p.unlisted(l) && !p.Providers[l.Provider].Revives:
		problem = fmt.Sprintf("machine %s is gone before a node has joined", l.Machine)
	}
	if problem != "" {
		s := p.terminating(l, problem)
		s.Failed, p.failing[l.Group] = l.Group, true
		s.Cluster, s.Event = c.ID, &state.Event{At: p.Now.UTC(), Kind: "NODE", Subject: l.ID, Message: fmt.Sprintf("launch %s of %s is given up: %s", l.ID, l.Provider, problem)}
		p.step(s)
		return
	}
	p.asked[l.Group] = append(p.asked[l.Group], l)
	if l.State == state.LaunchRequested {
		p.call(l, false)
		return
	}
	p.revive(l)
}

// revive asks for a node again whose process is gone, of a provider that starts it where it was.
func (p *planner) revive(l *state.Launch) {
	if p.Providers[l.Provider].Revives && p.unlisted(l) {
		p.call(l, false)
	}
}

// unlisted says whether a launch's machine is gone, as far as its provider has said since. Its list may be late: the time for that begins with
// its answer to the launch, or with this leader if the one before had the answer.
func (p *planner) unlisted(l *state.Launch) bool {
	list, done := p.Listings[l.Provider], p.Calls[l.ID].Done
	if _, there := list.Machines[l.ID]; there || list.At.IsZero() || !list.At.After(done) {
		return false
	}
	return p.Providers[l.Provider].Revives || p.Now.Sub(later(l.RequestedAt, later(done, p.Begun))) >= p.Rules.ListedWithin
}

// giveUp ends a launch that no node has come of.
func (p *planner) giveUp(l *state.Launch, why string) { p.step(p.terminating(l, why)) }

func (p *planner) terminating(l *state.Launch, problem string) Step {
	t := *l
	t.State, t.Tries, t.Problem = state.LaunchTerminating, 0, problem
	return Step{Command: state.PutLaunch{Launch: t}}
}

// terminate tells the provider that a machine is wanted no more. A node that joined just before that was logged goes first.
func (p *planner) terminate(l *state.Launch, node *state.Node) {
	if node != nil && node.State == state.NodeAdmitted {
		p.goes(p.byID[l.Cluster], node)
		return
	}
	if _, known := p.Providers[l.Provider]; !known {
		p.abandon(l)
		return
	}
	p.call(l, true)
}

// abandon forgets a launch that nobody can end any more, as the masters have its provider no longer, when its cluster ends:
// people are told what may run there. While the cluster lives it waits for the provider to be given back.
func (p *planner) abandon(l *state.Launch) {
	if c := p.byID[l.Cluster]; c == nil || c.Ending() {
		p.do(c, state.DropLaunch{ID: l.ID}, "NODE", l.ID, "the masters were started without the provider %s: it is not told to end machine %s of launch %s; end it there by hand, if it still runs",
			l.Provider, cmp.Or(l.Machine, "(none that it has named)"), l.ID)
	}
}

// call asks a provider, unless it is being asked, or failed a moment ago.
func (p *planner) call(l *state.Launch, terminate bool) {
	c := p.Calls[l.ID]
	if _, known := p.Providers[l.Provider]; known && !c.Running && !c.After.After(p.Now) {
		p.plan.Calls = append(p.plan.Calls, Call{Launch: l, Terminate: terminate})
	}
}

// pause is how long a provider is left alone after so many failures in a row.
func pause(failures int) time.Duration {
	return min(time.Second<<min(max(failures-1, 0), 10), 2*time.Minute)
}

// backoff is how long a group waits after so many launches failed one after another.
func backoff(failures int) time.Duration {
	return min(15*time.Second<<min(max(failures-1, 0), 10), 10*time.Minute)
}

// problemText is what is logged of a provider's failure: with its name, and bounded.
func problemText(provider string, err error) string {
	const most = 1000 // bytes
	text := "provider " + provider + ": " + err.Error()
	if len(text) > most {
		text = text[:most] + "…"
	}
	return text
}

package fleet

import (
	"fmt"
	"slices"
	"time"

	"millrace/master/state"
)

// live sees to what happens to a whole cluster that is not ending: when it is ready, and when it ends by itself.
func (p *planner) live(c *state.Cluster) {
	if c.ReadyAt.IsZero() && slices.ContainsFunc(p.Nodes, func(n *state.Node) bool { return p.works(c, n) }) {
		p.do(c, state.SetCluster{Cluster: c.ID, Ready: p.Now.UTC()}, "CLUSTER", c.ID, "the cluster is ready for jobs")
		return
	}
	jobs := p.Jobs[c.ID]
	if len(jobs.Open) > 0 {
		return
	}
	idle := time.Duration(c.AutoTerminateMs) * time.Millisecond
	switch {
	case c.TerminateAfterSteps && jobs.Any && p.Now.Sub(jobs.LastEnd) >= p.Rules.StepsPause:
		p.over(c, state.ReasonAllStepsCompleted, "all of its jobs have ended")
	case idle > 0 && !c.ReadyAt.IsZero() && p.Now.Sub(later(jobs.LastEnd, c.ReadyAt)) >= idle:
		p.over(c, state.ReasonAutoTerminate, fmt.Sprintf("it had no job for %s", idle))
	}
}

// works says whether a node is a core node of a cluster that can run tasks.
func (p *planner) works(c *state.Cluster, n *state.Node) bool {
	return n.Cluster == c.ID && n.Role == state.RoleCore && n.State == state.NodeAdmitted && n.Failure == "" && p.Up[n.ID] && bootstrapped(c, n)
}

func (p *planner) over(c *state.Cluster, code, why string) {
	if c.TerminationProtected {
		p.do(c, nil, "CLUSTER", c.ID, "it would end, but is protected: %s", why)
		return
	}
	p.do(c, state.TerminateCluster{Cluster: c.ID, ReasonCode: code, Reason: why}, "CLUSTER", c.ID, "the cluster ends: %s", why)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// end takes a cluster apart when its jobs, which are the tracker's to cancel, are over: its nodes, and with them the launches; then it has
// ended. Launches that no node has come of end by themselves (launch).
func (p *planner) end(c *state.Cluster) {
	open := len(p.Jobs[c.ID].Open)
	left := open
	for _, n := range p.Nodes {
		if n.Cluster != c.ID || n.State != state.NodeAdmitted {
			continue
		}
		if left++; open == 0 {
			p.goes(c, n) // what it holds is of the cluster alone
		}
	}
	for _, l := range p.Launches {
		if l.Cluster == c.ID {
			left++
		}
	}
	if left == 0 {
		p.do(c, state.EndCluster{Cluster: c.ID, State: endOf(c), At: p.Now.UTC()}, "CLUSTER", c.ID, "the cluster has ended")
	}
}

// endOf is the state in which a cluster ends, as EMR has it.
func endOf(c *state.Cluster) string {
	switch c.ReasonCode {
	case state.ReasonBootstrapFailure, state.ReasonStepFailure:
		return state.ClusterTerminatedWithErrors
	}
	return state.ClusterTerminated
}

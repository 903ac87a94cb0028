package tracker

import (
	"cmp"
	"slices"
	"time"

	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/api"
)

// Drain is what of the jobs is still on a node that is to leave.
type Drain struct {
	Known    bool     // the node has told what it has; else the rest says nothing
	Attempts int      // that are not over
	Needed   []string // open jobs of which reduces are still to read map output that lies there, the oldest first
}

// Empty says whether no job needs the node any more.
func (d Drain) Empty() bool { return d.Known && d.Attempts == 0 && len(d.Needed) == 0 }

// Drained tells what of the jobs is still on a node.
func (t *Tracker) Drained(id string) (d Drain) {
	t.ask(func() {
		t.takeUp(id) // so that nothing comes after this answer, if the node drains: whoever logged that may not have said so yet
		n := t.nodes[id]
		if n == nil || n.telling {
			return
		}
		d = Drain{Known: true, Attempts: len(n.attempts)}
		for _, j := range t.order {
			if j.needs(id) {
				d.Needed = append(d.Needed, j.id)
			}
		}
	})
	return d
}

// needs says whether reduces of the job are still to read map output that lies on a node.
func (j *job) needs(node string) bool {
	return j.needsSegments() && slices.ContainsFunc(j.kept[node], func(k *task) bool { return k.done && k.win.SegmentNode == node })
}

// NodeChanged tells the tracker that the log says something new of a node: that it drains, by when, or no more; that it was let go; or
// that its bootstrap actions are done.
func (t *Tracker) NodeChanged(id string) {
	t.post(func() { t.takeUp(id) })
}

// takeUp goes by what the log says of a node by now.
func (t *Tracker) takeUp(id string) {
	n := t.nodes[id]
	if n == nil {
		return
	}
	rec, ok := t.cfg.View().Node(id)
	if ok && n.bootstrap != rec.Bootstrap {
		if n.bootstrap = rec.Bootstrap; n.bootstrap == state.BootstrapDone {
			n.problem = "" // which was that they were not; if there is another one the next heartbeat says so
			t.touchAll(n.cluster)
		}
	}
	switch {
	case !ok || !works(rec) || rec.Cluster != n.cluster || rec.Role != n.role:
		t.letGo(n)
	case !n.drainBy.Equal(rec.DrainBy):
		t.setDrain(n, rec.DrainBy)
		t.touchAll(n.cluster)
	}
}

// works says whether a node is there to run tasks. The log has one that was removed, or is back in the pool, drain no more: that is
// no reason to give it any.
func works(rec *state.Node) bool {
	return rec.State == state.NodeAdmitted && rec.Role != state.RolePool
}

// letGo ends what runs on a node that was removed, or is of another place by now, without waiting for its session to end: it was
// the site's choice, so the attempts are killed, not lost. What its worker still says of them comes too late.
func (t *Tracker) letGo(n *node) {
	const why = "its node was let go"
	t.log.Info("node was let go", zap.String("node", n.id), zap.Int("attempts", len(n.attempts)))
	t.drop(n, func(a *attempt) {
		t.sendKill(n.id, a.id, why)
		t.ended(a, t.unreported(a, cmp.Or(a.killing, why)), state.CountsKilled, nil)
	})
}

// drains says whether a node is to leave.
func (t *Tracker) drains(id string) bool {
	n := t.nodes[id]
	return n != nil && !n.drainBy.IsZero()
}

// setDrain has a node drain, by a time; zero: no more.
func (t *Tracker) setDrain(n *node, by time.Time) {
	t.stop(n.grace)
	n.grace = nil
	n.drainBy = by
	if by.IsZero() {
		return
	}
	left := by.Sub(t.cfg.Now())
	t.log.Info("node drains", zap.String("node", n.id), zap.Duration("grace", left))
	if left > 0 {
		n.grace = t.after(left, func() { t.empty(n) })
	}
	t.empty(n)
}

// empty takes back from a draining node what has not started, and ends the rest when its grace is over.
func (t *Tracker) empty(n *node) {
	over := !t.cfg.Now().Before(n.drainBy)
	for _, a := range slices.Clone(n.attempts) {
		switch {
		case a.killing != "", a.ending:
		case over:
			t.kill(a, "its node is being drained, and its grace is over")
		case !a.started && !a.revoking:
			t.revoke(a, t.send(n.id, &api.MasterMessage{Message: &api.MasterMessage_Revoke{Revoke: &api.Revoke{Attempt: a.id}}}))
		}
	}
}

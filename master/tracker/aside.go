package tracker

import (
	"fmt"
	"time"

	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/shortage"
)

const (
	// A node that has run out of something is left alone for a while, each time for twice as long.
	firstAside = 2 * time.Second
	lastAside  = time.Minute
	// enoughBlame is how many attempts have to fail on a node in a row, and to succeed on others meanwhile, before it is set aside.
	enoughBlame = 3
	// maxStarved is how many attempts of one task may end so before the job fails.
	maxStarved = 8
)

// setAside leaves the attempt's node alone for a while, as it has run out of something, and has the task tried elsewhere.
func (t *Tracker) setAside(a *attempt, f *api.Failure) {
	if l := a.job.learnt[a.task.id.Kind]; f.Disk && a.factor > 0 {
		l.factor = min(max(l.factor, 2*a.factor), mostFactor)
	}
	a.task.shunNode(a.node)
	t.leaveAlone(a.node, f.Message)
}

// leaveAlone gives a node nothing for a while, for a reason.
func (t *Tracker) leaveAlone(id, reason string) {
	n := t.nodes[id]
	if n == nil || t.cfg.Now().Before(n.aside) {
		return // one trouble, several attempts
	}
	n.pause = min(max(2*n.pause, firstAside), lastAside)
	t.setAsideFor(n, n.pause, reason)
}

func (t *Tracker) setAsideFor(n *node, d time.Duration, reason string) {
	if until := t.cfg.Now().Add(d); until.After(n.aside) {
		n.asideBy, n.aside = reason, until
	}
	t.log.Warn("node set aside", zap.String("node", n.id), zap.Duration("for", d), zap.String("reason", reason))
	t.after(d, func() { t.touchAll(n.cluster) })
}

// blame sets a node aside on which nothing but failures has come of a job's last attempts, while others of it have
// succeeded elsewhere: a program is missing there, say, or its memory is bad. What fails everywhere is not the nodes' fault.
func (t *Tracker) blame(j *job, e *state.EndedAttempt, kind string) {
	n := t.nodes[e.Node]
	if n == nil {
		return
	}
	r := n.rows[j.id]
	if r == nil {
		r = &row{since: t.cfg.Now()}
		n.rows[j.id] = r
	}
	if r.failed++; r.failed < enoughBlame || j.wonElsewhere(kind, n.id, r.since) < enoughBlame {
		return
	}
	t.leaveAlone(n.id, fmt.Sprintf("its last %d attempts of job %s have failed, and others of it have succeeded elsewhere meanwhile; the last one: %s", r.failed, j.id, e.Failure.Message))
}

// row is attempts of a job that have failed on a node since one of any job has succeeded there.
type row struct {
	failed int
	since  time.Time
}

// wonElsewhere counts, up to enough, the tasks of a kind that other nodes have done since a node's failures began.
func (j *job) wonElsewhere(kind, node string, since time.Time) (won int) {
	for _, k := range j.tasks(kind) {
		if k.done && k.win.Node != node && k.wonAt.After(since) {
			if won++; won == enoughBlame {
				break
			}
		}
	}
	return won
}

// afterShortage fails the job when nodes have run out of something under one task too often.
func (t *Tracker) afterShortage(j *job, k *task, e *state.EndedAttempt) {
	if k.starved++; k.done || k.starved < maxStarved {
		t.beChoosy(j, k)
		return
	}
	t.failJob(j, fmt.Sprintf("task %s found no node with what it needs, %d times; the last one said: %s", k, k.starved, e.Failure.Message),
		&e.Failure, j.rec.Phase == state.PhaseCommitting)
}

// Reason says why a node gets no leases now; "" if nothing keeps it from getting some.
func (t *Tracker) Reason(id string) (why string) {
	t.ask(func() {
		t.takeUp(id)
		if n := t.nodes[id]; n != nil {
			why = t.reason(n)
		}
	})
	return why
}

func (t *Tracker) reason(n *node) string {
	switch now := t.cfg.Now(); {
	case n.problem != "":
		return n.problem
	case now.Before(n.aside):
		return fmt.Sprintf("set aside for %s: %s", n.aside.Sub(now).Round(time.Second), n.asideBy)
	case n.volume.total > 0 && n.volume.free <= shortage.Reserve(n.volume.total):
		return n.volume.full(t.wanted(n))
	case len(n.attempts) >= n.slots:
		return ""
	}
	if need := t.wanted(n); need > 0 && n.volume.room() < need {
		return n.volume.full(need)
	}
	return ""
}

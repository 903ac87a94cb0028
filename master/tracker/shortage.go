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
	// maxStarved is how many attempts of one task may end so before the job fails.
	maxStarved = 8
)

// setAside leaves the attempt's node alone for a while, as it has run out of something.
func (t *Tracker) setAside(a *attempt, f *api.Failure) {
	if l := a.job.learnt[a.task.id.Kind]; f.Disk && a.factor > 0 {
		l.factor = min(max(l.factor, 2*a.factor), mostFactor)
	}
	a.task.shun = append(a.task.shun, a.node)
	n := t.nodes[a.node]
	if n == nil || t.cfg.Now().Before(n.aside) {
		return // one trouble, several attempts
	}
	n.pause = min(max(2*n.pause, firstAside), lastAside)
	n.asideBy, n.aside = f.Message, t.cfg.Now().Add(n.pause)
	a.job.log.Warn("node set aside", zap.String("node", n.id), zap.Duration("for", n.pause), zap.String("attempt", a.id), zap.String("reason", f.Message))
	t.after(n.pause, func() { t.touchAll(n.cluster) })
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

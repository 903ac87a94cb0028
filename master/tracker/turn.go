package tracker

import (
	"fmt"
	"strings"

	"go.uber.org/zap"

	"millrace/master/state"
)

// ClusterChanged tells the tracker that the log says something new of a cluster: how many jobs it runs at once, or that it ends.
func (t *Tracker) ClusterChanged(id string) {
	t.post(func() { t.touchAll(id) })
}

// mayBegin says whether a job may be planned: its cluster may have a limit of jobs at once, and then they begin in the order of
// priority, the oldest first. One that has begun goes on whatever the limit becomes.
func (t *Tracker) mayBegin(j *job) bool {
	if j.begun {
		return true
	}
	j.turn = ""
	if c, ok := t.cfg.View().Cluster(j.rec.Cluster); ok && c.StepConcurrency > 0 {
		if first := t.before(j, c.StepConcurrency); len(first) == c.StepConcurrency {
			j.turn = fmt.Sprintf("it waits for its turn: cluster %s runs %s at once, and %s", c.Name, jobsOf(len(first)), named(first))
			return false
		}
	}
	j.begun = true
	return true
}

// before lists up to n jobs of a job's cluster that have begun, or begin before it.
func (t *Tracker) before(j *job, n int) (first []*job) {
	for _, o := range t.order {
		if o == j || o.rec.Cluster != j.rec.Cluster {
			continue
		}
		ahead := o.rec.Ending == "" && (o.rec.Priority > j.rec.Priority || o.rec.Priority == j.rec.Priority && o.rec.Sequence < j.rec.Sequence)
		if o.begun || ahead {
			if first = append(first, o); len(first) == n {
				break
			}
		}
	}
	return first
}

// nextTurn lets jobs of a cluster look whether they may begin.
func (t *Tracker) nextTurn(cluster string) {
	for _, o := range t.order {
		if o.turn != "" && o.rec.Cluster == cluster {
			t.touch(o)
		}
	}
}

func jobsOf(n int) string {
	if n == 1 {
		return "1 job"
	}
	return fmt.Sprintf("%d jobs", n)
}

// named names up to three jobs.
func named(list []*job) string {
	const most = 3
	var ids []string
	for _, j := range list[:min(len(list), most)] {
		ids = append(ids, j.id)
	}
	text := strings.Join(ids, ", ")
	if more := len(list) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	if len(list) == 1 {
		return text + " comes first"
	}
	return text + " come first"
}

// disband cancels a job whose cluster is ending, and says whether that is under way. One that is committing goes on. Nobody else
// cancels jobs for that reason.
func (t *Tracker) disband(j *job) bool {
	c, ok := t.cfg.View().Cluster(j.rec.Cluster)
	if !ok || !c.Ending() || j.rec.Phase == state.PhaseCommitting {
		return false
	}
	if j.failing {
		return true
	}
	j.failing = true
	t.propose(j.id, state.CancelJob{Job: j.id, Reason: "its cluster ends: " + c.Reason}, func(_ any, err error) {
		if err != nil {
			j.failing = false
			j.log.Info("its cluster ends, but the job is past cancelling", zap.Error(err))
		}
		t.touch(j)
	})
	return true
}

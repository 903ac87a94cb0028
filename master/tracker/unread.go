package tracker

import (
	"fmt"
	"strings"

	"millrace/master/state"
	"millrace/pkg/api"
)

// enoughUnread is how many outputs of one map its reduces on one node cannot read, each made anew after the one before,
// until that is taken to be the node's own trouble: no right to open files, a disk that gives errors, bad memory.
const enoughUnread = 3

// unreadable deals with a map's output that a reduce on a node could not read: the map runs again. It says why that
// counts against the reduce's attempt, "" if it does not: without a bound a map would run again without end.
func (t *Tracker) unreadable(j *job, index int, attempt, reader, reason string) (fault string) {
	k := j.task(state.TaskID{Kind: state.Map, Index: index})
	if !t.loseSegment(j, index, attempt) {
		return ""
	}
	if k.unread == nil {
		k.unread = map[string]int{}
	}
	k.unread[reader]++
	n := k.unread[reader]
	if n > 1 { // and not by chance: another node is to make it, and to keep it
		k.shunNode(k.win.SegmentNode)
		t.beChoosy(j, k)
	}
	if n < enoughUnread {
		return ""
	}
	return fmt.Sprintf("its node could not read the output of %s, which was made %d times; the last one, kept by node %s: %s", k, n, k.win.SegmentNode, reason)
}

// failReading ends a running reduce that cannot read a map's output again and again. That counts as its failure.
func (t *Tracker) failReading(a *attempt, why string) {
	if a.killing == "" {
		a.fault = &api.Failure{Kind: api.FailureKind_FAILURE_KIND_NODE, Message: why}
		t.kill(a, why)
	}
}

// reducing is a job's reduce attempt on a node, nil if that is none.
func (t *Tracker) reducing(j *job, node, id string) *attempt {
	a := t.attempts[id]
	if a == nil || a.node != node || a.task.id.Kind != state.Reduce || a.job != j {
		return nil
	}
	return a
}

// unreached says whether it is the other node that was not reached, as against what it had to give.
func unreached(p *api.SegmentProblem) bool { return strings.HasPrefix(p.Reason, "unreachable") }

package server

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
)

// say adds a cause, with what to do if it is the first one.
type say func(next, format string, args ...any)

// queued is how many of the job's tasks wait for a slot.
func (f *facts) queued() int {
	n := f.job.Maps - f.job.MapsDone - f.live.Maps.Running
	if n <= 0 && f.job.Reduces > 0 { // reduces start when no map waits
		n = f.job.Reduces - f.job.ReducesDone - f.live.Reduces.Running
	}
	return max(0, n)
}

// sayNodes names what keeps the nodes from taking tasks: gone, or with a reason of their own.
func (f *facts) sayNodes(say say) {
	var up, cores, lost, draining int
	var refusing []string
	for _, n := range f.nodes {
		switch {
		case !isUp(n):
			lost++
		case n.State == nodeDraining:
			draining++
		default:
			up++
			if n.Role == state.RoleCore {
				cores++
			}
			if n.Reason != "" {
				refusing = append(refusing, fmt.Sprintf("node %s takes no tasks now: %s", named(n), n.Reason))
			}
		}
	}
	switch {
	case len(f.nodes) == 0 && f.wanted() > 0:
		say("millrace cluster show "+f.cluster.Name+" says what they wait for", "the cluster has no node: %s to come", isAre(f.wanted(), "node"))
		return
	case len(f.nodes) == 0:
		say(oneMore(f.cluster, state.RoleCore), "the cluster has no node")
		return
	case up == 0 && draining > 0:
		say("millrace node resume NODE, or let another node join: "+oneMore(f.cluster, state.RoleCore), "no node takes tasks: %s to leave", isAre(draining, "node"))
	case up == 0:
		say("millrace node list; start the workers again", "no node is up: %s lost", countOf(lost, "node"))
	case cores == 0 && !(f.job.Planned() && f.job.MapOnly()):
		say("millrace node list; start a core node", "no core node is up, and only core nodes keep what maps write")
	}
	if f.job.Planned() && f.queued() > 0 {
		for _, r := range refusing {
			say("millrace node list", "%s", r)
		}
	}
	for _, n := range f.lost(up == 0) {
		say("millrace node list", "%s", n)
	}
}

// lost names the nodes that are lost: those that had attempts of the job, or, with all of them, the others, too.
func (f *facts) lost(all bool) (list []string) {
	took := f.lostAttempts()
	for _, n := range f.nodes {
		if isUp(n) || took[n.Id] == 0 && !all {
			continue
		}
		text := fmt.Sprintf("node %s is lost (%s)", named(n), orElse(n.Reason, n.State))
		if took[n.Id] > 0 {
			text += fmt.Sprintf(", and with it %s of this job", countOf(took[n.Id], "attempt"))
		}
		list = append(list, text)
	}
	return list
}

// lostAttempts counts the job's attempts that were lost, by node.
func (f *facts) lostAttempts() map[string]int {
	took := map[string]int{}
	for _, t := range slices.Concat(f.maps, f.reduces) {
		for _, a := range t.Ended {
			if a.State == state.AttemptLost {
				took[a.Node]++
			}
		}
	}
	return took
}

// wanted is how many nodes somebody else has to bring: a provider, or the pool. Those of the site's first cluster join by themselves.
func (f *facts) wanted() (n int) {
	if f.cluster == nil || f.cluster.User == "" {
		return 0
	}
	for _, g := range f.cluster.Groups {
		n += g.Target
	}
	return n
}

// sayMissing names the nodes that were lost without an attempt of this job: with them it had more slots.
func (f *facts) sayMissing(say say) {
	took, missing := f.lostAttempts(), 0
	for _, n := range f.nodes {
		if !isUp(n) && took[n.Id] == 0 {
			missing++
		}
	}
	if missing > 0 && missing < len(f.nodes) && f.queued() > 0 {
		say("millrace node list", "%s lost of the cluster, and had no work of this job", isAre(missing, "node"))
	}
}

func named(n *api.Node) string {
	if n.Name == "" {
		return n.Id
	}
	return n.Id + " (" + n.Name + ")"
}

// sayLostMaps tells that maps run again, for which reduces wait.
func (f *facts) sayLostMaps(say say) {
	if n := f.live.Again; n > 0 {
		where := map[string]bool{}
		var nodes []string
		for _, t := range f.maps {
			if p := t.Prior; p != nil && !t.Done && !where[p.SegmentNode] {
				where[p.SegmentNode] = true
				nodes = append(nodes, p.SegmentNode)
			}
		}
		from := ""
		if len(nodes) > 0 {
			slices.Sort(nodes)
			from = " with node " + strings.Join(nodes, ", ")
		}
		say("millrace job tasks "+f.job.ID+" --running", "%s again, because what they had written was lost%s; the reduces wait for them", countRuns(n), from)
	}
	if f.job.ReduceRound > 0 {
		say("millrace job tasks "+f.job.ID, "all reduces started over: a map that ran again gave other bytes")
	}
}

func countRuns(n int) string {
	if n == 1 {
		return "1 map runs"
	}
	return fmt.Sprintf("%d maps run", n)
}

// sayFailures tells which tasks have failed and are made again.
func (f *facts) sayFailures(say say) {
	var again int
	var first *state.EndedAttempt
	for _, t := range slices.Concat(f.maps, f.reduces) {
		if t.Done || t.Failures == 0 {
			continue
		}
		again++
		for i := range t.Ended {
			if a := &t.Ended[i]; a.State == "FAILED" && (first == nil || a.EndedAt.Before(first.EndedAt)) {
				first = a
			}
		}
	}
	if first == nil {
		return
	}
	say(fmt.Sprintf("millrace job logs %s --attempt %s", f.job.ID, first.Attempt), "%s failed and made again; first attempt %s on node %s: %s",
		wasWere(again, "task"), first.Attempt, first.Node, orElse(first.Failure.Message, "no message"))
}

func wasWere(n int, what string) string {
	if n == 1 {
		return "1 " + what + " has"
	}
	return fmt.Sprintf("%d %ss have", n, what)
}

// saySlots tells who has the slots that the job's tasks wait for.
func (f *facts) saySlots(say say) {
	waiting := f.queued()
	if !f.job.Planned() || waiting == 0 {
		return
	}
	slots, taken := int64(0), int64(0)
	for _, n := range f.nodes {
		if n.State == nodeRunning {
			slots += n.Slots
			taken += n.Running
		}
	}
	if taken < slots || slots == 0 {
		return
	}
	mine := int64(f.live.Maps.Running + f.live.Reduces.Running)
	holders := slices.Clone(f.others)
	holders = slices.DeleteFunc(holders, func(o *api.Job) bool { return runs(o) == 0 })
	slices.SortStableFunc(holders, func(a, b *api.Job) int { return cmp.Compare(runs(b), runs(a)) })
	if len(holders) == 0 {
		if mine > 0 {
			say("add nodes: "+oneMore(f.cluster, state.RoleTask), "%s for a slot: the job itself has all %d", waits(waiting), slots)
		}
		return
	}
	var who []string
	for i, o := range holders {
		if i == 3 {
			who = append(who, fmt.Sprintf("%d more jobs", len(holders)-i))
			break
		}
		text := fmt.Sprintf("%d by %s (%s", runs(o), o.Id, o.Name)
		if int(o.Priority) != f.job.Priority {
			text += fmt.Sprintf(", priority %d", o.Priority)
		}
		who = append(who, text+")")
	}
	var ahead int64 // of tasks that come first; those of equal jobs take turns
	for _, o := range f.others {
		if int(o.Priority) > f.job.Priority {
			ahead += o.Maps.GetPending() + o.Reduces.GetPending()
		}
	}
	text := fmt.Sprintf("%s for a slot: of %d, %d are taken by this job, %s", waits(waiting), slots, mine, strings.Join(who, ", "))
	if ahead > 0 {
		text += fmt.Sprintf("; %s of jobs with a higher priority before", waitAhead(ahead))
	}
	say("wait, add nodes, or give it a higher --priority", "%s", text)
}

func waitAhead(n int64) string {
	if n == 1 {
		return "1 task goes"
	}
	return fmt.Sprintf("%d tasks go", n)
}

func waits(n int) string {
	if n == 1 {
		return "1 task waits"
	}
	return fmt.Sprintf("%d tasks wait", n)
}

func runs(o *api.Job) int64 { return o.Maps.GetRunning() + o.Reduces.GetRunning() }

const (
	// stillAfter is how long an attempt may show no progress before that is worth a word.
	stillAfter = 30 * time.Second
	slowNamed  = 3
)

// saySlow names attempts that run much longer than others of their kind, and those that do not get on.
func (f *facts) saySlow(say say) {
	medians := map[string]time.Duration{state.Map: median(f.maps), state.Reduce: median(f.reduces)}
	attempts := slices.Clone(f.live.Attempts)
	slices.SortFunc(attempts, func(a, b tracker.LiveAttempt) int { return a.StartedAt.Compare(b.StartedAt) })
	named := 0
	for _, a := range attempts {
		if !a.Started || named == slowNamed {
			continue
		}
		ran, still := f.now.Sub(a.StartedAt), f.now.Sub(a.MovedAt)
		median := medians[a.Task.Kind]
		text := ""
		if median > 0 && ran >= slowAtLeast && ran > slowFactor*median {
			text = fmt.Sprintf("task %s is slow: on node %s since %s (%s; others took %s), %d bytes so far", taskName(a.Task), a.Node, clock(a.StartedAt), forHow(ran), forHow(median), a.BytesDone)
		}
		if !a.MovedAt.IsZero() && still >= stillAfter {
			if text == "" {
				text = fmt.Sprintf("task %s on node %s, running since %s", taskName(a.Task), a.Node, clock(a.StartedAt))
			}
			text += fmt.Sprintf(", has shown no progress for %s: its program is busy with one record, or it waits for the store or for other nodes", forHow(still))
		}
		if text != "" {
			named++
			say(fmt.Sprintf("millrace job logs %s --attempt %s -f", f.job.ID, a.ID), "%s", text)
		}
	}
}

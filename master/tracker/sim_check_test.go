package tracker

import (
	"fmt"
	"slices"
	"strings"

	"millrace/master/state"
	"millrace/pkg/api"
)

// simCheck holds what must be true of a run at each moment, and counts what happens in it.
type simCheck struct {
	s       *sim
	failing float64 // of the attempts, on their own account
	broken  []string

	wins   map[string]map[state.TaskID]int // of each task, less those that were lost again; by job
	owns   map[string]bool                 // attempts that a new leader has to take over
	open   int                             // jobs
	closed func(*simJob)

	leases, starts, seconds int
	kills                   map[string]int // by reason
}

func newSimCheck(s *sim) *simCheck {
	return &simCheck{s: s, wins: map[string]map[state.TaskID]int{}, owns: map[string]bool{}, kills: map[string]int{}, closed: func(*simJob) {}}
}

func (c *simCheck) breaks(format string, args ...any) {
	if len(c.broken) < 20 {
		c.broken = append(c.broken, fmt.Sprintf("at %s: ", c.s.now)+fmt.Sprintf(format, args...))
	}
}

// opened counts the jobs that share the site.
func (c *simCheck) opened(j *simJob) {
	c.open++
	c.wins[j.id] = map[state.TaskID]int{}
	for _, other := range c.s.jobs {
		if other.ended == 0 {
			other.crowd = max(other.crowd, c.open)
		}
	}
}

// applied looks at what an entry has done: no task is won twice.
func (c *simCheck) applied(cmd state.Command, result any) {
	switch v := cmd.(type) {
	case state.EndTasks:
		for i, r := range result.([]state.EndTaskResult) {
			c.end(v.Items[i], r)
		}
	case state.LoseMaps:
		for _, i := range result.([]int) {
			c.wins[v.Job][state.TaskID{Kind: state.Map, Index: i}]--
		}
	case state.RedoParts:
		c.breaks("%s: parts %v are made again, though the store loses nothing", v.Job, v.Tasks)
	case state.FailJob:
		c.breaks("%s fails: %s", v.Job, v.Reason)
	case state.CompleteJob:
		j := c.s.jobs[v.Job]
		if j.ended == 0 {
			c.open--
			j.ended = c.s.now
			delete(c.wins, j.id)
			c.closed(j)
		}
	}
}

func (c *simCheck) end(e state.EndTask, r state.EndTaskResult) {
	if e.Speculative {
		c.seconds++
	}
	if e.Ended != nil {
		c.s.jobs[e.Job].hurt = true
	}
	switch {
	case e.Win != nil && r.Accepted:
		if c.wins[e.Job][e.Task]++; c.wins[e.Job][e.Task] != 1 {
			c.breaks("%s %v was committed %d times", e.Job, e.Task, c.wins[e.Job][e.Task])
		}
	case r.NotDeterministic:
		c.breaks("%s %v counts as not deterministic", e.Job, e.Task)
	case e.Ended != nil && e.CountsAs == state.CountsLost:
		n := c.s.byID[e.Ended.Node]
		for _, r := range n.running {
			if r.lease.Attempt == e.Ended.Attempt && r.downs == n.downs {
				c.breaks("%s counts as lost, and runs on %s: %s", e.Ended.Attempt, n.id, e.Ended.Failure.Message)
			}
		}
	}
}

// leased looks at a lease as its node gets it: it has room for it, and the task is not done.
func (c *simCheck) leased(n *simNode, l *api.Lease) {
	c.leases++
	c.s.note("leased", n.number, l.Attempt)
	has := len(n.running) + len(n.queue)
	switch {
	case has >= 2*n.slots:
		c.breaks("%s has %d slots, %d attempts, and gets another one", n.id, n.slots, has)
	case has >= n.slots && l.Kind == api.TaskKind_TASK_KIND_REDUCE:
		c.breaks("%s has no free slot, and gets a reduce, which may hold it for long", n.id)
	}
	if slices.ContainsFunc(n.queue, func(o *api.Lease) bool { return o.Attempt == l.Attempt }) {
		c.breaks("%s was leased twice", l.Attempt)
	}
}

// started looks at an attempt that gets a slot.
func (c *simCheck) started(n *simNode, r *simRun) {
	c.starts++
	r.downs = n.downs
	c.s.note("started", n.number, r.lease.Attempt)
	if len(n.running) > n.slots {
		c.breaks("%s runs %d attempts in %d slots", n.id, len(n.running), n.slots)
	}
}

// killed: why attempts were ended. None that could have been taken over is.
func (c *simCheck) killed(n *simNode, k *api.Kill) {
	reason, _, _ := strings.Cut(k.Reason, ":")
	c.kills[reason]++
	c.s.note("killed", n.number, k.Attempt)
	if c.owns[k.Attempt] && reason != "another attempt was faster" && reason != "its slot is needed by a map" {
		for _, r := range n.running {
			if r.lease.Attempt == k.Attempt && !c.over(r.lease) {
				c.breaks("%s was running when the leader changed, and is ended: %s", k.Attempt, k.Reason)
			}
		}
	}
}

// over says whether a task needs no attempt any more.
func (c *simCheck) over(l *api.Lease) bool {
	view := c.s.log.View()
	if rec, ok := view.Job(l.Job); !ok || rec.Ended() || rec.Phase == state.PhaseCommitting {
		return true
	}
	task, ok := view.Task(l.Job, state.TaskID{Kind: stateKind(l.Kind), Index: int(l.Index)})
	return ok && task.Done
}

// remember notes what runs when a leader goes. Of two attempts at one task the next leader takes over either.
func (c *simCheck) remember() {
	type task struct {
		job   string
		kind  api.TaskKind
		index int32
	}
	c.owns = map[string]bool{}
	tries := map[task][]string{}
	for _, n := range c.s.nodes {
		try := func(l *api.Lease, counts bool) {
			k, attempt := task{l.Job, l.Kind, l.Index}, ""
			if counts {
				attempt = l.Attempt
			}
			tries[k] = append(tries[k], attempt)
		}
		for _, l := range n.queue {
			try(l, false)
		}
		for _, r := range n.running {
			try(r.lease, n.linked)
		}
	}
	for _, attempts := range tries {
		if len(attempts) == 1 && attempts[0] != "" {
			c.owns[attempts[0]] = true
		}
	}
}

// finish looks at the site when all jobs should have ended.
func (c *simCheck) finish() {
	view := c.s.log.View()
	for _, rec := range view.Jobs("") {
		j := c.s.jobs[rec.ID]
		if rec.State != state.JobCompleted {
			c.breaks("%s is %s %s: %d of %d maps, %d of %d reduces", rec.ID, rec.State, rec.Phase, rec.MapsDone, rec.Maps, rec.ReducesDone, rec.Reduces)
			continue
		}
		tasks := 0
		for _, kind := range []string{state.Map, state.Reduce} {
			for _, task := range view.Tasks(rec.ID, kind) {
				if task.Done {
					tasks++
				}
			}
		}
		if tasks != j.maps+j.reduces {
			c.breaks("%s is COMPLETED with %d of %d tasks", rec.ID, tasks, j.maps+j.reduces)
		}
		if len(rec.Counters) != 1 || rec.Counters[0].Value != int64(tasks) {
			c.breaks("%s has %d tasks, and counts %v", rec.ID, tasks, rec.Counters)
		}
	}
	for key, times := range c.s.store.put {
		if times != 1 {
			c.breaks("%s was written %d times", key, times)
		}
	}
	if left := len(c.s.store.uploads); left > 0 {
		c.breaks("%d uploads are left in the store", left)
	}
}

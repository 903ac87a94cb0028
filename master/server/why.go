package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
)

// ExplainJob says why a job failed, or what it waits for.
func (s *millraceService) ExplainJob(ctx context.Context, req *connect.Request[api.GetJobRequest]) (*connect.Response[api.JobExplanation], error) {
	v, l, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	e, err := findJob(v, req.Msg.Cluster, req.Msg.Job)
	if err != nil {
		return nil, err
	}
	if !e.Ended() { // it may wait for nodes
		s.awaitNodes(ctx, v, l, e.Brief().Cluster)
		v = s.cfg.View()
	}
	r, err := s.record(ctx, v, req.Msg)
	if err != nil {
		return nil, err
	}
	j := r.Job
	f := facts{now: s.cfg.Now(), job: j, maps: r.Maps, reduces: r.Reduces}
	if c, ok := v.Cluster(j.Cluster); ok {
		f.cluster = c
	}
	if !j.Ended() {
		f.live, _ = l.Tracker.Live(j.ID)
		for _, n := range s.nodes(v, l, j.Cluster) {
			if n.Role != state.RoleMaster {
				f.nodes = append(f.nodes, n)
			}
		}
		f.others = l.views(slices.DeleteFunc(v.OpenJobs(), func(o *state.Job) bool { return o.ID == j.ID || o.Cluster != j.Cluster }))
	}
	why := f.explain()
	why.Job = l.view(j)
	return connect.NewResponse(why), nil
}

// facts are what an explanation is made from.
type facts struct {
	now           time.Time
	job           *state.Job
	cluster       *state.Cluster
	live          tracker.Live
	maps, reduces []*state.Task
	nodes         []*api.Node // the cluster's workers, lost ones too
	others        []*api.Job  // the cluster's other open jobs
}

// explain finds the first cause: of what has ended in what happened first, of what runs in what
// holds up most. Further causes are details.
func (f *facts) explain() *api.JobExplanation {
	j := f.job
	switch {
	case j.State == state.JobCompleted:
		e := &api.JobExplanation{Cause: "it did what was asked"}
		if j.Failed > 0 {
			e.Details = append(e.Details, fmt.Sprintf("attempts that failed on the way and were made again: %d (millrace job tasks %s --failed)", j.Failed, j.ID))
		}
		if j.Lost > 0 {
			e.Details = append(e.Details, fmt.Sprintf("attempts that were lost with their nodes and made again: %d (millrace job tasks %s --failed)", j.Lost, j.ID))
		}
		return e
	case j.State == state.JobFailed || j.Ending == state.JobFailed:
		return f.failed()
	case j.State == state.JobCancelled || j.Ending == state.JobCancelled:
		e := &api.JobExplanation{Cause: orElse(j.Reason, "it was cancelled")}
		f.leaving(e)
		return e
	}
	return f.waiting()
}

// failed explains a failure by the attempt that failed first of the task that failed the job: the later
// ones may have met only what it left behind.
func (f *facts) failed() *api.JobExplanation {
	j := f.job
	e := &api.JobExplanation{Cause: orElse(j.Reason, "no cause was recorded"), Failure: failureView(j.Failure)}
	if attempts := f.failuresOf(j.Failure); slices.ContainsFunc(attempts, func(a state.EndedAttempt) bool { return a.Attempt == j.Failure.Attempt }) {
		first := attempts[0].Failure
		e.Failure = failureView(&first)
		e.Cause = fmt.Sprintf("task %s failed %s", first.Task, times(len(attempts)))
		if first.Message != "" {
			e.Cause += ": " + first.Message
		}
		e.Details = later(attempts)
		e.Next = fmt.Sprintf("millrace job logs %s --attempt %s", j.ID, first.Attempt)
	}
	f.leaving(e)
	return e
}

// failuresOf gives the failed attempts of the task that failed the job, the first one first.
func (f *facts) failuresOf(last *state.Failure) (failed []state.EndedAttempt) {
	if last == nil || last.Task == "" {
		return nil
	}
	for _, t := range slices.Concat(f.maps, f.reduces) {
		if taskName(t.ID) != last.Task {
			continue
		}
		for _, a := range t.Ended {
			if a.State == "FAILED" {
				failed = append(failed, a)
			}
		}
	}
	slices.SortStableFunc(failed, func(a, b state.EndedAttempt) int { return a.EndedAt.Compare(b.EndedAt) })
	return failed
}

// later says of the attempts after the first whether they met the same.
func later(attempts []state.EndedAttempt) []string {
	if len(attempts) == 1 {
		return nil
	}
	var others []string
	nodes := []string{attempts[0].Node}
	for _, a := range attempts[1:] {
		if !slices.Contains(nodes, a.Node) {
			nodes = append(nodes, a.Node)
		}
		if a.Failure.Message != attempts[0].Failure.Message {
			others = append(others, fmt.Sprintf("later, attempt %s on node %s: %s", a.Attempt, a.Node, orElse(a.Failure.Message, "no message")))
		}
	}
	if len(others) == 0 {
		return []string{fmt.Sprintf("the same every time, on %s", countOf(len(nodes), "node"))}
	}
	return others
}

// leaving says that what a job left is still being removed.
func (f *facts) leaving(e *api.JobExplanation) {
	if f.job.Ended() {
		return
	}
	e.Details = append(e.Details, "what it left is being removed")
	if f.live.Trouble != "" {
		e.Details = append(e.Details, f.trouble())
	}
}

func (f *facts) trouble() string {
	s := "tried again and again"
	if !f.live.Since.IsZero() {
		s += fmt.Sprintf(" since %s (for %s)", clock(f.live.Since), forHow(f.now.Sub(f.live.Since)))
	}
	return s + ": " + f.live.Trouble
}

// waiting explains an open job by what holds it up, the most basic thing first.
func (f *facts) waiting() *api.JobExplanation {
	e := &api.JobExplanation{}
	say := func(next string, format string, args ...any) {
		line := fmt.Sprintf(format, args...)
		if e.Cause == "" {
			e.Cause, e.Next = line, next
		} else {
			e.Details = append(e.Details, line)
		}
	}
	if f.live.Trouble != "" {
		say("check the object store; the job goes on by itself when it answers", "a request to the object store is %s", f.trouble())
	}
	switch {
	case f.job.Phase == state.PhaseCommitting:
		parts := f.job.Reduces
		if f.job.MapOnly() {
			parts = f.job.Maps
		}
		say("millrace job wait "+f.job.ID, "it is committing its output: %s put in place, _SUCCESS comes last", isAre(parts, "part"))
		return e
	case f.live.Turn != "":
		say(fmt.Sprintf("wait, or have the cluster run more jobs at once: millrace cluster set %s --step-concurrency %d", f.cluster.Name, f.cluster.StepConcurrency+1), "%s", f.live.Turn)
	case !f.job.Planned() && f.live.Planning:
		say("millrace job wait "+f.job.ID, "its input is being listed and cut into splits")
	case !f.job.Planned():
		say("millrace status", "the leader has not taken it up yet")
	}
	if f.live.NoRoom != "" {
		say("make room on the disks that are named, or add nodes: "+oneMore(f.cluster, state.RoleCore), "%s", f.live.NoRoom)
	}
	f.sayNodes(say)
	f.sayLostMaps(say)
	f.sayFailures(say)
	f.saySlots(say)
	f.saySlow(say)
	f.sayMissing(say)
	if f.job.Planned() {
		say("millrace job wait "+f.job.ID, "%s", f.work())
	}
	if n := f.live.StoreRetries; n > 0 {
		say("millrace job show "+f.job.ID, "requests to the object store that were repeated so far: %d, the last one after: %s", n, f.live.StoreTrouble)
	}
	return e
}

// work says how far the job is.
func (f *facts) work() string {
	j := f.job
	s := fmt.Sprintf("maps: %d of %d done, %d running", j.MapsDone, j.Maps, f.live.Maps.Running)
	if j.Reduces > 0 {
		s += fmt.Sprintf("; reduces: %d of %d done, %d running", j.ReducesDone, j.Reduces, f.live.Reduces.Running)
	}
	if f.live.ETA > 0 {
		s += "; about " + forHow(f.live.ETA) + " to go"
	}
	return s
}

func countOf(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func isAre(n int, what string) string {
	if n == 1 {
		return "1 " + what + " is"
	}
	return fmt.Sprintf("%d %ss are", n, what)
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func orElse(s, other string) string {
	if s = strings.TrimSpace(s); s != "" {
		return s
	}
	return other
}

// clock is a moment for people: UTC, as everywhere.
func clock(t time.Time) string { return t.UTC().Format("15:04:05Z") }

func forHow(d time.Duration) string {
	if d < time.Second {
		return "less than 1s"
	}
	return d.Round(time.Second).String()
}

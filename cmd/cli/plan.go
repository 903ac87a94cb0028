package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"millrace/cmd/cli/view"
	"millrace/jobs/builtin"
	"millrace/jobs/local"
	"millrace/jobs/task"
	"millrace/pkg/api"
)

// planLocal answers --dry-run with --local.
func (c *call) planLocal(ctx context.Context, spec *api.JobSpec) error {
	conf := local.Config{Spec: spec, Program: &task.Program{Name: spec.GetProgram().GetName(), MapOnly: spec.GetMapOnly()}}
	var err error
	if spec.GetProgram().GetKind() != api.ProgramKind_PROGRAM_KIND_GO { // a Go program has said how it maps
		if conf.Program, err = builtin.Program(spec.GetProgram()); err != nil {
			return usagef("millrace job programs", "%s", err)
		}
	}
	toStdout := spec.GetOutput() == "-"
	if toStdout {
		spec.Output = "/nonexistent/standard-output"
	}
	if needsStore(spec) {
		if conf.Store, err = c.openStore(); err != nil {
			return err
		}
	}
	plan, err := local.Plan(ctx, conf)
	if err != nil {
		return localFault(ctx, err)
	}
	job := localJob(spec, time.Now())
	job.State, job.Phase, job.StartedAt = "PENDING", "PLANNING", view.Time{}
	if toStdout {
		job.Output = "-"
	}
	planned := view.OfJob(&api.Job{Plan: plan, BytesTotal: plan.GetBytes()})
	job.Plan, job.Progress = planned.Plan, planned.Progress
	job.Maps = view.Tasks{Total: plan.GetSplits(), Pending: plan.GetSplits()}
	job.Reduces = view.Tasks{Total: plan.GetReduces(), Pending: plan.GetReduces()}
	return c.printPlan(job, "CPU")
}

// printPlan answers --dry-run; a slot is what a task takes.
func (c *call) printPlan(j view.Job, slot string) error {
	p := j.Plan
	if p == nil { // an older master
		p = &view.Plan{Bytes: j.Progress.BytesTotal, Splits: j.Maps.Total, Reduces: j.Reduces.Total}
		j.Plan = p
	}
	p.Limits = limits(p, slot)
	c.sayNotes(j)
	return c.print(j, func(w io.Writer) {
		t := newTable(w)
		t.row("program", j.Program)
		t.row("input", fmt.Sprintf("%s: %s, %s", strings.Join(j.Input, " "), plural(int(p.Objects), "object"), formatSize(p.Bytes)))
		t.row("splits", fmt.Sprintf("%d of at most %s%s", p.Splits, formatSize(p.LargestSplit), inWaves(p.MapWaves, p.Slots, slot)))
		if p.Unsplittable > 0 {
			t.row("unsplittable", fmt.Sprintf("%s, %s", plural(int(p.Unsplittable), "object"), formatSize(p.UnsplittableBytes)))
		}
		if p.Reduces == 0 {
			t.row("reduces", "none: the maps write the output")
		} else {
			t.row("reduces", fmt.Sprintf("%d%s", p.Reduces, inWaves(p.ReduceWaves, p.Slots, slot)))
		}
		t.row("disk", fmt.Sprintf("about %s needed, %s free", formatSize(p.DiskNeeded), formatSize(p.DiskFree)))
		t.row("output", j.Output)
		for i, l := range p.Limits {
			head := "limits"
			if i > 0 {
				head = ""
			}
			t.row(head, l)
		}
		t.flush()
		fmt.Fprintln(c.env.Stderr, "dry run: nothing was started")
	})
}

func inWaves(waves, slots int64, slot string) string {
	if waves == 0 {
		return ""
	}
	return fmt.Sprintf(", %s over %s", plural(int(waves), "wave"), plural(int(slots), slot))
}

// worthCutting is the size from which a split gains by being cut.
const worthCutting = 16 << 20 // bytes

// limits says what keeps a job from being faster, or from running at all; the hardest limit first.
func limits(p *view.Plan, slot string) (lines []string) {
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	switch {
	case p.Splits == 0:
		say("the input has no bytes: no map, and empty output")
	case p.Slots == 0:
		say("no node is up: the job would wait for one (millrace node list)")
	}
	if p.DiskNeeded > p.DiskFree && (p.Nodes > 0 || slot == "CPU") {
		say("disk: it needs about %s, and %s are free: tasks may have to wait for room", formatSize(p.DiskNeeded), formatSize(p.DiskFree))
	}
	if n := len(p.LargestUnsplittable); n > 0 && p.Slots > 0 {
		biggest := p.LargestUnsplittable[0]
		cannot := "cannot be split"
		if p.Unsplittable == 1 {
			say("1 of %s %s (%s, %s): it alone is one map", plural(int(p.Objects), "object"), cannot, biggest.Path, formatSize(biggest.Size))
		} else {
			say("%d of %s %s (the biggest: %s, %s): each alone is one map", p.Unsplittable, plural(int(p.Objects), "object"), cannot, biggest.Path, formatSize(biggest.Size))
		}
	}
	if p.Slots == 0 || p.Splits == 0 {
		return lines
	}
	if p.Splits < p.Slots {
		hint := ""
		if p.LargestSplit >= worthCutting && p.Unsplittable < p.Objects {
			hint = " (a smaller --split-size makes more splits)"
		}
		say("%s on %s: %d would have nothing to map%s", plural(int(p.Splits), "split"), plural(int(p.Slots), slot), p.Slots-p.Splits, hint)
	} else {
		say("%s on %s: %s", plural(int(p.Splits), "split"), plural(int(p.Slots), slot), plural(int(p.MapWaves), "wave"))
	}
	if p.ReduceWaves > 1 {
		say("%s on %s: %s (fewer --reduces would do in one)", plural(int(p.Reduces), "reduce"), plural(int(p.Slots), slot), plural(int(p.ReduceWaves), "wave"))
	}
	if p.SlotsTaken > 0 || p.TasksWaiting > 0 {
		say("other jobs have %d of %s now, and %s", p.SlotsTaken, plural(int(p.Slots), slot), waitingTasks(p.TasksWaiting))
	}
	return lines
}

func waitingTasks(n int64) string {
	if n == 1 {
		return "1 task of theirs waits"
	}
	return fmt.Sprintf("%d tasks of theirs wait", n)
}

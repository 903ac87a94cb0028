package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"millrace/cmd/cli/view"
	"millrace/jobs/builtin"
	"millrace/pkg/api"
)

func (a *app) jobCommand() *cli.Command {
	one := func(name, usage, example string, flags []cli.Flag, do func(*call) error, aliases ...string) *cli.Command {
		return a.leaf(spec{name: name, aliases: aliases, usage: usage, args: "JOB", min: 1, max: 1, example: example, flags: flags, do: do})
	}
	return group("job", "jobs: submit, follow, understand", "millrace job submit wordcount --input s3://input/ --output s3://output/words/ --wait\nmillrace job show last", nil,
		a.submitCommand(),
		a.leaf(spec{name: "list", aliases: []string{"ls"}, usage: "jobs, newest first", example: "millrace job list --state RUNNING", do: jobList,
			flags: []cli.Flag{&cli.StringSliceFlag{Name: "state", Usage: "only those in `STATE` (repeatable)"}, &cli.IntFlag{Name: "limit", Usage: "only the newest `N`; default: all"}}}),
		one("show", "one job, by id, unique prefix, name, or last", "millrace job show last", nil, jobShow, "describe"),
		one("wait", "follow a job until it has ended", "millrace job wait last", []cli.Flag{&cli.DurationFlag{Name: "timeout", Usage: "stop waiting after this `TIME` (the job goes on)"}}, jobWait),
		one("tasks", "its tasks and their attempts", "millrace job tasks last --failed", []cli.Flag{
			&cli.BoolFlag{Name: "failed", Usage: "only tasks with an attempt that failed or was lost"},
			&cli.BoolFlag{Name: "running", Usage: "only running tasks"},
			&cli.BoolFlag{Name: "slow", Usage: "only tasks that run much longer than others of their kind"}}, jobTasks),
		one("logs", "an attempt's standard error; by default of the first that failed", "millrace job logs last\nmillrace job logs last --attempt s-…-m-00003-2-7 -f", []cli.Flag{
			&cli.StringFlag{Name: "attempt", Usage: "`ID` of the attempt: millrace job tasks JOB"},
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on while it runs"}}, jobLogs),
		one("counters", "its counters", "millrace job counters last", nil, jobCounters),
		one("why", "why it failed, or why it is not done yet", "millrace job why last", nil, jobWhy),
		one("cancel", "stop a job; nothing of its output will be seen", "millrace job cancel last", []cli.Flag{&cli.StringFlag{Name: "reason", Usage: "`WORDS` to keep with it"}}, jobCancel),
		a.leaf(spec{name: "programs", usage: "the built-in programs", example: "millrace job programs", do: jobPrograms}),
		a.leaf(spec{name: "formats", usage: "formats of input and output, and codecs", example: "millrace job formats", do: jobFormats}),
		a.resultsCommand(),
	)
}

func (c *call) job(conn *connection) (view.Job, error) {
	resp, err := conn.api().GetJob(c.Context.Context, connect.NewRequest(&api.GetJobRequest{Job: c.args[0], Cluster: conn.cluster}))
	if err != nil {
		return view.Job{}, err
	}
	return view.OfJob(resp.Msg), nil
}

var jobStates = []string{"PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCEL_PENDING", "CANCELLED"}

func jobList(c *call) error {
	var wanted []string
	for _, s := range c.StringSlice("state") {
		for one := range strings.SplitSeq(s, ",") {
			if one = strings.ToUpper(strings.TrimSpace(one)); !slices.Contains(jobStates, one) {
				return usagef("millrace job list --state RUNNING", "--state %s is none of %s", one, strings.Join(jobStates, ", "))
			}
			wanted = append(wanted, one)
		}
	}
	if c.IsSet("limit") && c.Int("limit") < 1 {
		return usagef("millrace job list --limit 20", "--limit %d: at least 1", c.Int("limit"))
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	found, err := c.listJobs(conn, wanted)
	if err != nil {
		return err
	}
	views := []view.Job{}
	for _, j := range found {
		views = append(views, view.OfJob(j))
	}
	return c.print(views, func(w io.Writer) {
		t := newTable(w, "ID", "NAME", "PROGRAM", "STATE", "MAPS", "REDUCES", "AGE", "TOOK", "OUTPUT")
		for _, j := range views {
			state := j.State
			if j.State == "RUNNING" && j.Phase != "" {
				state = j.Phase
			}
			t.row(j.ID, j.Name, j.Program, state, doneOf(j.Maps), doneOf(j.Reduces), formatAge(j.SubmittedAt.Time, time.Now()), took(j), j.Output)
		}
		t.flush()
	})
}

// listPage is how many jobs are asked for at once.
const listPage = 500

// listJobs asks for all jobs, or the newest --limit of them, a page at a time.
func (c *call) listJobs(conn *connection, states []string) (jobs []*api.Job, err error) {
	req := &api.ListJobsRequest{Cluster: conn.cluster, States: states}
	brief := ""
	for limit := c.Int("limit"); ; {
		req.Limit = listPage
		if limit > 0 {
			req.Limit = int32(min(listPage, limit-len(jobs)))
		}
		resp, err := conn.api().ListJobs(c.Context.Context, connect.NewRequest(req))
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, resp.Msg.GetJobs()...)
		if b := resp.Msg.GetBrief(); b != "" {
			brief = b
		}
		if req.Before = resp.Msg.GetMore(); req.Before == 0 || limit > 0 && len(jobs) >= limit {
			break
		}
	}
	if brief != "" {
		fmt.Fprintf(c.env.Stderr, "jobs that have moved to the history are listed by name, state and times alone: %s\n", clean(brief))
	}
	return jobs, nil
}

func doneOf(t view.Tasks) string { return fmt.Sprintf("%d/%d", t.Completed, t.Total) }

func took(j view.Job) string {
	if j.EndedAt.IsZero() || j.SubmittedAt.IsZero() {
		return "-"
	}
	return formatDuration(j.EndedAt.Sub(j.SubmittedAt.Time))
}

func jobShow(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	j, err := c.job(conn)
	if err != nil {
		return err
	}
	return c.print(j, func(w io.Writer) { showJob(w, j) })
}

func showJob(w io.Writer, j view.Job) {
	t := newTable(w)
	t.row("job", j.ID)
	t.row("name", j.Name)
	t.row("program", j.Program)
	state := j.State
	if j.Phase != "" && !ended(j.State) {
		state += ", " + j.Phase
	}
	t.row("state", state+because(j.Reason))
	t.row("input", strings.Join(j.Input, " "))
	t.row("output", j.Output)
	for _, k := range []struct {
		name string
		t    view.Tasks
	}{{"maps", j.Maps}, {"reduces", j.Reduces}} {
		if ended(j.State) { // nothing waits any more
			t.row(k.name, fmt.Sprintf("%d: %d done, %d not", k.t.Total, k.t.Completed, k.t.Total-k.t.Completed))
			continue
		}
		t.row(k.name, fmt.Sprintf("%d: %d queued, %d running, %d done", k.t.Total, k.t.Pending, k.t.Running, k.t.Completed))
	}
	if local, other := j.Counters["millrace"]["localMaps"], j.Counters["millrace"]["otherMaps"]; local+other > 0 {
		t.row("local maps", fmt.Sprintf("%d of %d", local, local+other))
	}
	if a := j.Attempts; a != (view.Attempts{}) {
		t.row("attempts", fmt.Sprintf("%d failed, %d killed, %d lost, %d speculative", a.Failed, a.Killed, a.Lost, a.Speculative))
	}
	if j.StoreRetries > 0 {
		t.row("store", fmt.Sprintf("%s repeated, last: %s", plural(int(j.StoreRetries), "request"), j.StoreTrouble))
	}
	p := fmt.Sprintf("%s of %s", formatSize(j.Progress.BytesDone), formatSize(j.Progress.BytesTotal))
	if j.Progress.BytesPerSecond > 0 {
		p += ", " + formatRate(j.Progress.BytesPerSecond)
	}
	if j.Progress.EtaMs > 0 && !ended(j.State) {
		p += ", about " + formatDuration(time.Duration(j.Progress.EtaMs)*time.Millisecond) + " to go"
	}
	t.row("progress", p)
	t.row("submitted", formatTime(j.SubmittedAt)+" by "+j.User)
	if ended(j.State) {
		t.row("took", took(j)+phases(j))
	}
	if j.State == "COMPLETED" {
		t.row("result", fmt.Sprintf("%s, %s in %s", plural(int(j.OutputRecords), "record"), formatSize(j.OutputBytes), plural(int(j.Parts), "part")))
	}
	for _, n := range j.Notes {
		t.row("note", clean(n))
	}
	for _, l := range failureLines(j.Failure, "") {
		t.row("failure", l)
	}
	t.flush()
}

// phases says how long each phase took.
func phases(j view.Job) string {
	var parts []string
	last := j.SubmittedAt
	for _, p := range []struct {
		name string
		at   view.Time
	}{{"plan", j.PlannedAt}, {"map", j.MapsEndedAt}, {"reduce", j.ReducesEndedAt}, {"commit", j.EndedAt}} {
		if p.at.IsZero() || p.name == "reduce" && j.Reduces.Total == 0 {
			continue
		}
		parts = append(parts, p.name+" "+formatDuration(p.at.Sub(last.Time)))
		last = p.at
	}
	if len(parts) == 0 || j.State != "COMPLETED" {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

func jobWait(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	ctx := c.Context.Context
	limit := c.Duration("timeout")
	waiting := ctx
	if limit > 0 {
		var cancel func()
		waiting, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	last, err := c.follow(waiting, conn, c.args[0])
	// The master is told of the limit, and may say first that it is over.
	over := waiting.Err() != nil || limit > 0 && connect.CodeOf(err) == connect.CodeDeadlineExceeded
	if err != nil && ctx.Err() == nil && over {
		return faultf(exitTimeout, "wait again: millrace job wait "+c.args[0], "job %s has not ended within %s; it goes on", c.args[0], limit)
	}
	if err != nil {
		return c.interrupted(ctx, last.ID, err)
	}
	if err := c.print(last, func(w io.Writer) { summary(w, conn.placed(last)) }); err != nil {
		return err
	}
	return verdict(last)
}

func jobTasks(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	resp, err := conn.api().ListTasks(c.Context.Context, connect.NewRequest(&api.ListTasksRequest{Job: c.args[0], Cluster: conn.cluster,
		Failed: c.Bool("failed"), Running: c.Bool("running"), Slow: c.Bool("slow")}))
	if err != nil {
		return err
	}
	views := []view.Task{}
	for _, t := range resp.Msg.GetTasks() {
		views = append(views, view.OfTask(t))
	}
	return c.print(views, func(w io.Writer) {
		t := newTable(w, "TASK", "STATE", "INPUT", "ATTEMPT", "ATTEMPT'S STATE", "NODE", "TOOK", "CAUSE")
		for _, v := range views {
			input := v.Input
			if input != "" {
				input = fmt.Sprintf("%s @%d +%d", v.Input, v.Offset, v.Length)
			}
			if len(v.Attempts) == 0 {
				t.row(v.ID, v.State, input)
			}
			for i, a := range v.Attempts {
				time := "-"
				if !a.EndedAt.IsZero() && !a.StartedAt.IsZero() {
					time = formatDuration(a.EndedAt.Sub(a.StartedAt.Time))
				}
				id, state, in := v.ID, v.State, input
				if i > 0 {
					id, state, in = "", "", ""
				}
				t.row(id, state, in, a.ID, a.State, a.Node, time, a.Cause)
			}
		}
		t.flush()
	})
}

func jobCounters(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	j, err := c.job(conn)
	if err != nil {
		return err
	}
	return c.print(j.Counters, func(w io.Writer) {
		t := newTable(w, "GROUP", "COUNTER", "VALUE")
		for _, g := range slices.Sorted(maps.Keys(j.Counters)) {
			for _, n := range slices.Sorted(maps.Keys(j.Counters[g])) {
				t.row(g, n, fmt.Sprint(j.Counters[g][n]))
			}
		}
		t.flush()
		if !ended(j.State) {
			fmt.Fprintf(c.env.Stderr, "job %s is %s: the counters are complete when it has ended\n", j.ID, j.State)
		}
	})
}

func jobCancel(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	j, err := c.job(conn) // if the call is repeated, "last" may be another one by then
	if err != nil {
		return err
	}
	resp, err := conn.api().CancelJob(c.Context.Context, connect.NewRequest(&api.CancelJobRequest{Job: j.ID, Cluster: conn.cluster, Reason: c.String("reason")}))
	if err != nil {
		return err
	}
	j = view.OfJob(resp.Msg)
	return c.print(j, func(w io.Writer) { fmt.Fprintf(w, "%s %s\n", j.ID, j.State) })
}

type programView struct {
	Name    string `json:"name"`
	Usage   string `json:"usage"`
	Example string `json:"example"`
	Doc     string `json:"doc"`
}

func jobPrograms(c *call) error {
	views := []programView{}
	for _, p := range builtin.List() {
		views = append(views, programView{p.Name, p.Usage, p.Example, p.Doc})
	}
	return c.print(views, func(w io.Writer) {
		for _, p := range views {
			fmt.Fprintf(w, "%s\n    %s\n    %s\n", p.Usage, p.Doc, p.Example)
		}
	})
}

package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"millrace/cmd/cli/view"
	"millrace/jobs/builtin"
	"millrace/jobs/local"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
	"millrace/pkg/pace"
)

// runLocal runs the whole job in this one process.
func (c *call) runLocal(ctx context.Context, spec *api.JobSpec, ship *shipped) (err error) {
	if len(spec.GetInput()) == 0 || spec.GetOutput() == "" {
		return usagef(c.inv.name()+" --help", "a job needs an input and an output")
	}
	if c.Bool("dry-run") {
		return c.planLocal(ctx, spec)
	}
	if spec.GetTimeoutMs() > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeoutCause(ctx, time.Duration(spec.GetTimeoutMs())*time.Millisecond, errTimedOut)
		defer cancel()
	}
	toStdout := spec.GetOutput() == "-"
	if toStdout {
		dir, err := os.MkdirTemp("", "millrace-output-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		spec.Output = filepath.Join(dir, "out")
	}
	if spec.GetProgram().GetKind() == api.ProgramKind_PROGRAM_KIND_GO {
		if err := c.runOwnBinary(ctx, spec, ship, toStdout); err != nil {
			return err
		}
	} else if err := c.runInProcess(ctx, spec, ship, toStdout); err != nil {
		return localFault(ctx, err)
	}
	if !toStdout {
		return nil
	}
	return quiet(catFolder(spec.GetOutput(), c.env.Stdout))
}

// runInProcess runs a built-in or streaming program.
func (c *call) runInProcess(ctx context.Context, spec *api.JobSpec, ship *shipped, toStdout bool) error {
	conf := local.Config{Spec: spec}
	var err error
	if conf.Program, err = builtin.Program(spec.GetProgram()); err != nil {
		return usagef("millrace job programs", "%s", err)
	}
	if needsStore(spec) {
		if conf.Store, err = c.openStore(); err != nil {
			return err
		}
	}
	for _, f := range spec.GetProgram().GetFiles() {
		conf.Files = append(conf.Files, local.File{Name: f.GetName(), Path: ship.paths[f.GetSha256()]})
	}
	started := time.Now()
	job := localJob(spec, started)
	progress := c.newJobProgress()
	var meter pace.Meter
	conf.Progress = func(p local.Progress) {
		meter.Add(time.Now(), p.BytesDone, p.BytesTotal)
		now := job
		now.Maps = view.Tasks{Total: int64(p.Maps), Completed: int64(p.MapsDone)}
		now.Reduces = view.Tasks{Total: int64(p.Reduces), Completed: int64(p.ReducesDone)}
		now.Progress = view.Progress{BytesDone: p.BytesDone, BytesTotal: p.BytesTotal, BytesPerSecond: int64(meter.Rate()), EtaMs: leftOf(&meter).Milliseconds()}
		progress.update(now)
	}
	result, err := local.Run(ctx, conf)
	progress.close()
	if err != nil {
		return err
	}
	completeLocal(&job, result)
	c.sayNotes(job)
	if toStdout {
		return nil
	}
	return c.print(job, func(w io.Writer) { summary(w, job) })
}

// localJob is a job that starts now, in this process.
func localJob(spec *api.JobSpec, now time.Time) view.Job {
	name := spec.GetName()
	if name == "" {
		name = spec.GetProgram().GetName()
	}
	started := view.Time{Time: now}
	return view.Job{ID: "local", Cluster: "local", Name: name, Program: spec.GetProgram().GetName(), State: "RUNNING", Phase: "MAPPING",
		Input: spec.GetInput(), Output: spec.GetOutput(), SubmittedAt: started, StartedAt: started, Counters: map[string]map[string]int64{}, Notes: []string{}}
}

// completeLocal puts into a job what its run has done.
func completeLocal(job *view.Job, r *local.Result) {
	now := time.Now()
	job.Notes = append(job.Notes, r.Notes...)
	job.ID, job.State, job.Phase, job.EndedAt = r.ID, "COMPLETED", "", view.Time{Time: now}
	job.ReducesEndedAt = view.Time{Time: now.Add(-r.Commit)}
	job.MapsEndedAt = view.Time{Time: now.Add(-r.Commit - r.Reduce)}
	job.PlannedAt = view.Time{Time: now.Add(-r.Commit - r.Reduce - r.Map)}
	job.Maps = view.Tasks{Total: int64(r.Maps), Completed: int64(r.Maps)}
	job.Reduces = view.Tasks{Total: int64(r.Reduces), Completed: int64(r.Reduces)}
	job.OutputRecords, job.OutputBytes, job.Parts = r.OutputRecords, r.OutputBytes, int64(len(r.Parts))
	job.CommitMs = r.Commit.Milliseconds()
	if r.Counters != nil {
		job.Counters = r.Counters
	}
	view.FillCounters(job.Counters)
	job.Progress = view.Progress{BytesDone: r.InputBytes, BytesTotal: r.InputBytes}
}

func needsStore(spec *api.JobSpec) bool {
	for _, place := range append([]string{spec.GetOutput()}, spec.GetInput()...) {
		if scheme, _, ok := strings.Cut(place, "://"); ok && scheme != "file" {
			return true
		}
	}
	return false
}

// outputTakenNext is what to do about an output that has something in it.
const outputTakenNext = "choose another output, or add --overwrite to replace what is there"

// localFault gives errors of a local run their exit codes.
func localFault(ctx context.Context, err error) error {
	var task *local.TaskError
	switch {
	case errors.Is(context.Cause(ctx), errTimedOut):
		return faultf(exitTimeout, "repeat with a longer --timeout", "the job timed out")
	case ctx.Err() != nil:
		return context.Canceled
	case errors.Is(err, objectstore.ErrUnreachable), errors.Is(err, objectstore.ErrDenied):
		return err
	case errors.Is(err, local.ErrRefused):
		next := "millrace run --help"
		if errors.Is(err, objectstore.ErrNoSuchBucket) {
			next = "millrace fs ls shows the buckets, millrace fs mb makes one"
		} else if strings.HasPrefix(err.Error(), "output ") && strings.Contains(err.Error(), "is not empty") {
			next = outputTakenNext
		}
		return &fault{lines: linesOf("", err), next: next, code: exitUsage}
	case errors.As(err, &task):
		return faultf(exitFailed, "mend the program or its input, then run it again", "%s", task)
	}
	return err
}

// catFolder writes the parts of a local output in order.
func catFolder(dir string, w io.Writer) error {
	names, err := filepath.Glob(filepath.Join(dir, "part-*")) // sorted
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := catFile(name, w); err != nil {
			return err
		}
	}
	return nil
}

func catFile(name string, w io.Writer) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() == 0 {
		return err
	}
	r, err := decode(name, f)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(w, r)
	return err
}

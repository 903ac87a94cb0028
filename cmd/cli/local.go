package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"millrace/cmd/cli/s3source"
	"millrace/cmd/cli/view"
	"millrace/jobs/builtin"
	"millrace/jobs/local"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// runLocal runs the whole job in this one process.
func (c *call) runLocal(ctx context.Context, spec *api.JobSpec, ship *shipped) (err error) {
	if len(spec.GetInput()) == 0 || spec.GetOutput() == "" {
		return usagef(c.inv.name()+" --help", "a job needs an input and an output")
	}
	if c.Bool("dry-run") {
		return usagef("leave one of them away", "--dry-run shows a cluster's plan; --local has none")
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
	job := view.Job{ID: "local", Cluster: "local", Name: spec.GetName(), Program: spec.GetProgram().GetName(), State: "RUNNING", Input: spec.GetInput(), Output: spec.GetOutput(), SubmittedAt: view.Time{Time: started}, StartedAt: view.Time{Time: started}}
	progress := c.newJobProgress()
	conf.Progress = func(p local.Progress) {
		now := job
		now.Maps = view.Tasks{Total: int64(p.Maps), Completed: int64(p.MapsDone)}
		now.Reduces = view.Tasks{Total: int64(p.Reduces), Completed: int64(p.ReducesDone)}
		now.Progress = view.Progress{BytesDone: p.BytesDone, BytesTotal: p.BytesTotal, BytesPerSecond: int64(float64(p.BytesDone) / max(time.Since(started).Seconds(), 1e-3))}
		progress.update(now)
	}
	result, err := local.Run(ctx, conf)
	progress.close()
	if err != nil {
		return err
	}
	job.ID, job.State, job.EndedAt = result.ID, "COMPLETED", view.Time{Time: time.Now()}
	job.Maps, job.Reduces = view.Tasks{Total: int64(result.Maps), Completed: int64(result.Maps)}, view.Tasks{Total: int64(result.Reduces), Completed: int64(result.Reduces)}
	job.OutputRecords, job.OutputBytes, job.Parts = result.OutputRecords, result.OutputBytes, int64(len(result.Parts))
	job.CommitMs, job.Counters = result.Commit.Milliseconds(), result.Counters
	if job.Counters == nil {
		job.Counters = map[string]map[string]int64{}
	}
	job.Progress = view.Progress{BytesDone: result.InputBytes, BytesTotal: result.InputBytes}
	if toStdout {
		return nil
	}
	return c.print(job, func(w io.Writer) { summary(w, job) })
}

// runOwnBinary runs a Go program: it has the engine inside and knows --local itself.
func (c *call) runOwnBinary(ctx context.Context, spec *api.JobSpec, ship *shipped, toStdout bool) error {
	args := []string{"--local"}
	if spec.Reduces != nil {
		args = append(args, fmt.Sprintf("--reduces=%d", spec.GetReduces()))
	}
	if spec.GetSplitSize() > 0 {
		args = append(args, fmt.Sprintf("--split-size=%d", spec.GetSplitSize()))
	}
	if spec.GetCompress() != "" {
		args = append(args, "--compress="+spec.GetCompress())
	}
	if spec.GetOverwrite() {
		args = append(args, "--overwrite")
	}
	args = append(append(args, spec.GetInput()...), spec.GetOutput(), "--")
	args = append(args, spec.GetProgram().GetArgs()...)
	binary, err := filepath.Abs(ship.paths[spec.GetProgram().GetExecutable().GetSha256()])
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = os.Environ()
	for k, v := range spec.GetProgram().GetEnv() {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	if needsStore(spec) {
		source, err := c.storage()
		if err != nil {
			return err
		}
		if source.Kind != s3source.None {
			for _, v := range exportLines(source.S3) {
				cmd.Env = append(cmd.Env, v[0]+"="+v[1])
			}
		}
	}
	cmd.Stdout, cmd.Stderr = c.env.Stdout, c.env.Stderr
	if toStdout || c.json {
		cmd.Stdout = c.env.Stderr
	}
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return localFault(ctx, context.Cause(ctx))
	case errors.As(err, &exit):
		return silent{exit.ExitCode()} // it has said why
	case err != nil:
		return err
	}
	if c.json {
		return c.print(map[string]any{"program": spec.GetProgram().GetName(), "state": "COMPLETED", "output": spec.GetOutput()}, nil)
	}
	return nil
}

func needsStore(spec *api.JobSpec) bool {
	for _, place := range append([]string{spec.GetOutput()}, spec.GetInput()...) {
		if scheme, _, ok := strings.Cut(place, "://"); ok && scheme != "file" {
			return true
		}
	}
	return false
}

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
		}
		return &fault{lines: mistakes("", err), next: next, code: exitUsage}
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

package mapreduce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"millrace/jobs/local"
	"millrace/jobs/task"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// describeEnv asks a program to say what it is.
const describeEnv = "MILLRACE_DESCRIBE"

// Description is what a program says of itself, as one line of JSON, when it is started with
// MILLRACE_DESCRIBE=1 and its arguments.
type Description struct {
	SDK     int    `json:"sdk"` // of this description: 1
	Name    string `json:"name"`
	MapOnly bool   `json:"mapOnly"`
	Error   string `json:"error"` // what is wrong with the program or its arguments, "" if nothing
}

// Main is the whole main function of a program: it does what the process was started for,
// and ends the process. Started by a node of a cluster, it runs the job's tasks; with
// --local it runs the whole job in this process; without either it says how to use it.
//
// Call it from main and nowhere else: it calls os.Exit. What has to run before belongs
// into main in front of it; it runs in each of the job's processes, on every node.
func Main(job Job) {
	os.Exit(run(job, os.Args, os.Stdout, os.Stderr))
}

// run is Main without the exit.
func run(job Job, argv []string, stdout, stderr io.Writer) int {
	args := argv[1:]
	switch {
	case task.IsChild():
		return serve(job)
	case os.Getenv(describeEnv) != "":
		return describe(job, args, stdout, stderr)
	case len(args) > 0 && (args[0] == "--local" || args[0] == "-local"):
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return runLocal(ctx, job, argv[0], args[1:], stdout, stderr)
	case len(args) > 0 && (args[0] == "--help" || args[0] == "-help" || args[0] == "-h" || args[0] == "help"):
		usage(job, argv[0], stdout)
		return 0
	}
	usage(job, argv[0], stderr)
	return 2
}

// serve runs attempts for a worker. SIGTERM ends the present one as a cancel
// does, with all that it has started.
func serve(job Job) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return task.Serve(ctx, task.ServeConfig{Resolve: func(p *api.Program) (*task.Program, error) {
		return job.Program(p.GetArgs())
	}})
}

func describe(job Job, args []string, stdout, stderr io.Writer) int {
	d := Description{SDK: 1, Name: job.Name}
	p, err := configured(job, args, stderr)
	if err != nil {
		d.Error = err.Error()
	} else {
		d.Name, d.MapOnly = p.Name, p.MapOnly
	}
	if err := json.NewEncoder(stdout).Encode(d); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

// configured is job.Program, with a panic of Configure as an error: to whoever
// submits, a program that panics is still a program. Its stack goes to stderr.
func configured(job Job, args []string, stderr io.Writer) (p *task.Program, err error) {
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(stderr, "panic: %v\n\n%s", r, debug.Stack())
			p, err = nil, fmt.Errorf("its Configure panicked: %v", r)
		}
	}()
	return job.Program(args)
}

func usage(job Job, argv0 string, w io.Writer) {
	name := filepath.Base(argv0)
	args := ""
	if job.Configure != nil {
		args = " -- ARG..."
		if job.Usage != "" {
			args = " -- " + job.Usage
		}
	}
	fmt.Fprintf(w, `%s is a map-reduce program. To run it

  on a cluster:      millrace run %s INPUT... OUTPUT%s
  in this process:   %s --local [flags] INPUT... OUTPUT%s

INPUT and OUTPUT are s3://bucket/prefix; with --local, local paths will do as well.
Flags of --local:
  --reduces N        number of output parts (default: from the input's size)
  --split-size SIZE  input per map (default 128MiB)
  --parallel N       tasks at once (default: one per CPU)
  --compress CODEC   gzip or zstd
  --overwrite        replace what is in OUTPUT
  --memory SIZE      per task (default: what the engine takes, 64MiB for records)
  -D KEY=VALUE       a property of the job
  --file PATH[#NAME] a file for each task's working directory
  --json             say what was done as one line of JSON
`, name, argv0, args, argv0, args)
}

// runLocal runs the job in this process and returns an exit code as the millrace command does.
func runLocal(ctx context.Context, job Job, argv0 string, args []string, stdout, stderr io.Writer) int {
	c, programArgs, err := parseLocal(args)
	if err != nil {
		fmt.Fprintf(stderr, "millrace: %v\nnext: %s --help\n", err, argv0)
		return 2
	}
	if c.Program, err = configured(job, programArgs, stderr); err == nil {
		c.Spec.Name = c.Program.Name
		c.Spec.Program = &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_GO, Name: c.Program.Name, Args: programArgs, Properties: c.properties}
		c.Store, err = storeFor(c.Spec)
	}
	if err != nil {
		fmt.Fprintf(stderr, "millrace: %v\nnext: %s --help\n", err, argv0)
		return 2
	}
	result, err := local.Run(ctx, c.Config)
	if err != nil {
		fmt.Fprintf(stderr, "millrace: %v\n", err)
		return exitCode(ctx, err)
	}
	if c.json {
		err = writeJSON(stdout, result)
	} else {
		_, err = fmt.Fprintf(stdout, "%s in %s in %s\n", count(result.OutputRecords, "record"), count(int64(len(result.Parts)), "part"), c.Spec.Output)
	}
	if err != nil {
		fmt.Fprintf(stderr, "millrace: %v\n", err)
		return 1
	}
	return 0
}

// count is "1 record", "2 records".
func count(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// writeJSON says what a run has done, as one line.
func writeJSON(w io.Writer, r *local.Result) error {
	return json.NewEncoder(w).Encode(struct {
		ID            string                      `json:"id"`
		Maps          int                         `json:"maps"`
		Reduces       int                         `json:"reduces"`
		Parts         []local.Part                `json:"parts"`
		InputBytes    int64                       `json:"inputBytes"`
		OutputRecords int64                       `json:"outputRecords"`
		OutputBytes   int64                       `json:"outputBytes"`
		Counters      map[string]map[string]int64 `json:"counters"`
		MapMs         int64                       `json:"mapMs"`
		ReduceMs      int64                       `json:"reduceMs"`
		CommitMs      int64                       `json:"commitMs"`
	}{r.ID, r.Maps, r.Reduces, r.Parts, r.InputBytes, r.OutputRecords, r.OutputBytes, r.Counters,
		r.Map.Milliseconds(), r.Reduce.Milliseconds(), r.Commit.Milliseconds()})
}

func exitCode(ctx context.Context, err error) int {
	switch {
	case ctx.Err() != nil:
		return 130
	case errors.Is(err, objectstore.ErrUnreachable), errors.Is(err, objectstore.ErrDenied):
		return 3
	case errors.Is(err, local.ErrRefused):
		return 2
	}
	return 1
}

// Package builtin holds the built-in programs, written with the same SDK that users have.
package builtin

import (
	"context"
	"fmt"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/agnivade/levenshtein"

	"millrace/jobs"
	"millrace/jobs/mapreduce"
	"millrace/jobs/streaming"
	"millrace/jobs/task"
	"millrace/pkg/api"
)

// Info describes a built-in program.
type Info struct {
	Name    string
	Usage   string // "grep [-F] [-i] [-v] [-c] PATTERN"
	Example string // a canonical line
	Doc     string // one line
}

// program is a built-in: what is said of it, and what it does.
type program struct {
	Info
	job func() mapreduce.Job
}

// programs is all of them, by name.
func programs() []program {
	return []program{
		{Info{"cat", "cat", "millrace run cat s3://logs/2024/ s3://out/all/",
			"copy the input's lines, one part per split"}, cat},
		{Info{jobs.Distcp, jobs.Distcp, "millrace run distcp s3://logs/2024/ hdfs:///logs/2024/",
			"copy files from store to store, byte for byte; what is there and the same is skipped"}, distcp},
		{Info{"distinct", "distinct", "millrace run distinct s3://logs/users/ s3://out/users/",
			"each line that is there, once"}, distinct},
		{Info{"grep", "grep [-F] [-i] [-v] [-c] PATTERN", "millrace run grep s3://logs/ s3://out/errors/ -- -i 'error|panic'",
			"the lines that match an RE2 pattern; -F fixed string, -i any case, -v that do not, -c their number"}, grep},
		{Info{"wordcount", "wordcount", "millrace run wordcount s3://books/ s3://out/words/",
			"how often each word occurs, words being what white space separates"}, wordcount},
	}
}

// List is all of them, by name.
func List() []Info {
	var list []Info
	for _, p := range programs() {
		list = append(list, p.Info)
	}
	return list
}

// Lookup gives the job of a built-in program with these arguments. An error says that there is no such
// program, and which name comes nearest, or what is wrong with the arguments.
func Lookup(name string, args []string) (mapreduce.Job, error) {
	all := programs()
	i := slices.IndexFunc(all, func(p program) bool { return p.Name == name })
	if i < 0 {
		return mapreduce.Job{}, unknown(name, all)
	}
	job := all[i].job()
	job.Name = name
	job, err := job.With(args)
	if err != nil {
		return mapreduce.Job{}, fmt.Errorf("%w (usage: %s)", err, all[i].Usage)
	}
	return job, nil
}

func unknown(name string, all []program) error {
	names := make([]string, len(all))
	nearest, distance := "", 1+len(name)/2 // farther is another word
	for i, p := range all {
		names[i] = p.Name
		if d := levenshtein.ComputeDistance(strings.ToLower(name), p.Name); d < distance {
			nearest, distance = p.Name, d
		}
	}
	if nearest != "" {
		return fmt.Errorf("no built-in program %q; did you mean %s?", name, nearest)
	}
	return fmt.Errorf("no built-in program %q; there are %s", name, strings.Join(names, ", "))
}

// Check says whether the program exists (an error suggests the nearest name otherwise), whether
// its args are right, and whether it is map-only with them.
func Check(name string, args []string) (mapOnly bool, err error) {
	job, err := Lookup(name, args)
	if err != nil {
		return false, err
	}
	return job.MapOnly(), nil
}

// Program makes the code of a built-in or streaming program as tasks run it.
func Program(p *api.Program) (*task.Program, error) {
	switch p.GetKind() {
	case api.ProgramKind_PROGRAM_KIND_BUILTIN:
		job, err := Lookup(p.GetName(), p.GetArgs())
		if err != nil {
			return nil, err
		}
		program, err := job.Program(nil)
		if err == nil {
			program.CopiesFiles = p.GetName() == jobs.Distcp
		}
		return program, err
	case api.ProgramKind_PROGRAM_KIND_STREAMING:
		return streaming.New(p)
	}
	return nil, fmt.Errorf("program %q is neither built in nor streaming", p.GetName())
}

// ServeChild is the life of a child process that runs built-in and streaming programs: what
// "millrace attempt" does. It returns the exit code.
func ServeChild() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return task.Serve(ctx, task.ServeConfig{Resolve: Program})
}

// Package mrtest tests map-reduce programs: a whole job in one call, with the engine
// that runs it on a cluster.
//
//	func TestWordCount(t *testing.T) {
//		got := mrtest.Run(t, job, "to be or", "not to be")
//		// got is {"be\t2", "not\t1", "or\t1", "to\t2"}
//	}
package mrtest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"millrace/jobs/local"
	"millrace/jobs/mapreduce"
	"millrace/pkg/api"
)

// Options say how to run a job. The zero value is two splits and two reduces.
type Options struct {
	Args    []string // the program's arguments
	Splits  int      // about how many maps; 0 is 2
	Reduces int      // how many reduces; 0 is 2, -1 is none
	// Memory bounds each task, in bytes, so that a test can make it spill; 0 is the engine's default.
	Memory int64
	// Properties are what ctx.Property gives.
	Properties map[string]string
}

// Result is what a job has done.
type Result struct {
	Lines    []string         // of the output, part after part
	Parts    [][]string       // the same by part
	Counters map[string]int64 // "GROUP.NAME", such as "millrace.mapInputRecords"
}

// Pair is a line of the output, taken apart at its first TAB.
type Pair struct{ Key, Value string }

// Pairs takes the lines apart.
func (r Result) Pairs() []Pair {
	pairs := make([]Pair, len(r.Lines))
	for i, line := range r.Lines {
		pairs[i].Key, pairs[i].Value, _ = strings.Cut(line, "\t")
	}
	return pairs
}

// Run runs job, with one reduce, on lines of input and returns the lines of its output, which
// are in the order of the keys (of the input, if the job is map-only). A job that fails fails the test.
func Run(t testing.TB, job mapreduce.Job, lines ...string) []string {
	t.Helper()
	r, err := Try(t, job, Options{Reduces: 1}, lines...)
	if err != nil {
		t.Fatalf("run %s: %v", job.Name, err)
	}
	return r.Lines
}

// RunWith is Run with options, and with all that the job has done.
func RunWith(t testing.TB, job mapreduce.Job, o Options, lines ...string) Result {
	t.Helper()
	r, err := Try(t, job, o, lines...)
	if err != nil {
		t.Fatalf("run %s: %v", job.Name, err)
	}
	return r
}

// Try is RunWith for jobs that are meant to fail: it returns the job's error.
func Try(t testing.TB, job mapreduce.Job, o Options, lines ...string) (Result, error) {
	t.Helper()
	program, err := job.Program(o.Args)
	if err != nil {
		return Result{}, err
	}
	dir := t.TempDir()
	var text bytes.Buffer
	for _, line := range lines {
		text.WriteString(line)
		text.WriteByte('\n')
	}
	in := filepath.Join(dir, "input.txt")
	if err := os.WriteFile(in, text.Bytes(), 0o600); err != nil {
		return Result{}, err
	}
	splits, reduces := o.Splits, int32(o.Reduces)
	if splits <= 0 {
		splits = 2
	}
	switch {
	case program.MapOnly:
		reduces = 0
	case reduces == 0:
		reduces = 2
	case reduces < 0:
		reduces = 0
	}
	ran, err := local.Run(t.Context(), local.Config{
		Spec: &api.JobSpec{
			Name: job.Name, Input: []string{in}, Output: filepath.Join(dir, "output"), Reduces: &reduces,
			SplitSize: int64(max(1, (text.Len()+splits-1)/splits)), MemoryBytes: o.Memory,
			Program: &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_GO, Name: program.Name, Args: o.Args, Properties: o.Properties},
		},
		Program: program, Parallel: 2, Dir: dir,
	})
	if err != nil {
		return Result{}, err
	}
	return read(ran)
}

func read(ran *local.Result) (Result, error) {
	r := Result{Counters: map[string]int64{}}
	for _, part := range ran.Parts {
		data, err := os.ReadFile(part.Key)
		if err != nil {
			return r, err
		}
		var lines []string
		for line := range strings.Lines(string(data)) {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
		r.Parts = append(r.Parts, lines)
		r.Lines = append(r.Lines, lines...)
	}
	for group, names := range ran.Counters {
		for name, n := range names {
			r.Counters[group+"."+name] = n
		}
	}
	return r, nil
}

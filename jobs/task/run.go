package task

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"

	"millrace/jobs"
	"millrace/jobs/input"
	"millrace/pkg/api"
)

// Store is what a task needs of an object store; objectstore.Store is one.
type Store interface {
	input.Ranger
	Uploader
}

// Config is all that one attempt needs.
type Config struct {
	Lease    *api.ChildLease
	Program  *Program
	Store    Store
	Segments *Segments // reduces; whoever runs the task delivers into it
	Progress *Progress // may be nil
}

// Progress shows how far a task is, at no cost per record: the task looks at one
// flag and publishes when somebody has asked.
type Progress struct {
	due            atomic.Bool
	bytes, records atomic.Int64
	task           atomic.Pointer[Context] // once it runs
}

// Ask makes the task publish at its next record.
func (p *Progress) Ask() { p.due.Store(true) }

// Done is what was published last: bytes of input (map) or of decoded segments
// (reduce), and records of input.
func (p *Progress) Done() (bytes, records int64) { return p.bytes.Load(), p.records.Load() }

// Alive is a number that changes whenever the program says that it gets on.
func (p *Progress) Alive() int64 {
	if t := p.task.Load(); t != nil {
		return t.signs()
	}
	return 0
}

func (p *Progress) publish(bytes, records int64) {
	p.due.Store(false)
	p.bytes.Store(bytes)
	p.records.Store(records)
}

// attempt is one run of one task.
type attempt struct {
	Config
	ctx      context.Context
	task     *Context
	progress *Progress
	result   *api.AttemptResult
	counts   []*api.Counter
	spill    string // directory for temporary files

	url    string // where the record lies that was being mapped when the attempt failed
	offset int64
	key    []byte // that is being reduced
}

// Run runs one attempt to its end. The end by order is a cancelled ctx, with
// context.Cause as its reason. A failure is part of the result; panics of the
// program are caught and are failures. The caller owns what has been uploaded.
func Run(ctx context.Context, c Config) *api.AttemptResult {
	begin := readUsage()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a := &attempt{Config: c, ctx: ctx, progress: c.Progress, result: &api.AttemptResult{}}
	if a.progress == nil {
		a.progress = &Progress{}
	}
	// A cancelled attempt is to notice at its next record.
	stop := context.AfterFunc(ctx, a.progress.Ask)
	defer stop()

	if err := a.run(); err != nil {
		a.result.Failure = failure(ctx, namingStore(err, c.Lease.Store), a.url, a.offset)
	}
	a.result.WallMs, a.result.CpuMs = begin.since()
	a.count("slotMs", a.result.WallMs)
	a.count("cpuMs", a.result.CpuMs)
	a.result.Counters = append(a.counts, a.task.userCounters()...)
	return a.result
}

func (a *attempt) run() error {
	l := a.Lease
	a.task = &Context{ctx: a.ctx, lease: l, program: a.Program, partitions: int(l.Partitions), maxRecord: l.MaxRecordBytes}
	if a.task.maxRecord <= 0 {
		a.task.maxRecord = 64 << 20
	}
	a.progress.task.Store(a.task)
	var err error
	if l.WorkDir != "" {
		a.spill = filepath.Join(l.WorkDir, jobs.SpillDir)
	} else if a.spill, err = os.MkdirTemp("", "millrace-spill-"); err != nil {
		return fmt.Errorf("make a directory for spills: %w", err)
	}
	defer os.RemoveAll(a.spill) // nothing that matters lies there
	switch l.Kind {
	case api.TaskKind_TASK_KIND_MAP:
		return a.runMap()
	case api.TaskKind_TASK_KIND_REDUCE:
		return a.runReduce()
	}
	return fmt.Errorf("lease %s: task kind %v is not known", l.Attempt, l.Kind)
}

// count adds a counter of the engine's own group; zeros are left out.
func (a *attempt) count(name string, n int64) {
	if n != 0 {
		a.counts = append(a.counts, &api.Counter{Group: Group, Name: name, Value: n})
	}
}

// guard runs a task's whole loop and turns a panic of the program into an error,
// with the panic's own frames; the whole stack goes to standard error.
func guard(run func() error) (err error) {
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		stack := string(debug.Stack())
		fmt.Fprintf(os.Stderr, "panic: %v\n\n%s", r, stack)
		e := &ProgramError{Message: fmt.Sprintf("panic: %v", r), StderrTail: panicFrames(stack), panicked: true}
		if cause, ok := r.(runtime.Error); ok {
			e.Message, e.Err = "panic", cause
		}
		err = e
	}()
	return run()
}

// panicFrames cuts a stack down to what was called when it panicked: the frames
// below the call of panic, as many as fit.
func panicFrames(stack string) string {
	if i := strings.Index(stack, "\npanic("); i >= 0 {
		stack = stack[i+1:]
		for range 2 { // the call and its place
			if j := strings.IndexByte(stack, '\n'); j >= 0 {
				stack = stack[j+1:]
			}
		}
	}
	if len(stack) > maxTail {
		stack = stack[:maxTail]
		if j := strings.LastIndexByte(stack, '\n'); j > 0 {
			stack = stack[:j]
		}
	}
	return stack
}

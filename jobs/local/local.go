// Package local runs a whole job in one process, without a cluster: for --local, and for
// tests of programs. It plans, maps, reduces and commits with the same code that
// nodes run, so the results are the same; what it has not is other machines
// and second attempts.
package local

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"millrace/jobs"
	"millrace/jobs/input"
	"millrace/jobs/task"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
	"millrace/pkg/record"
)

// ErrRefused is wrapped by every error of a job that cannot run: nothing was started.
var ErrRefused = errors.New("the job cannot run")

// refused makes err say just what it says, and be ErrRefused.
type refused struct{ err error }

func (r refused) Error() string   { return r.err.Error() }
func (r refused) Unwrap() []error { return []error{ErrRefused, r.err} }

func refuse(format string, args ...any) error { return refused{fmt.Errorf(format, args...)} }

// File is a file shipped with the job.
type File struct {
	Name string // in each task's working directory
	Path string // where it lies now
}

// Config sets up a run.
type Config struct {
	// Spec is the job. Its inputs and output may be local paths (or file:// URLs), or s3:// URLs. What only
	// a cluster knows (priority, attempts, store, request id) is not looked at.
	Spec    *api.JobSpec
	Program *task.Program
	// Store is asked for s3:// URLs only, and may be nil without any.
	Store objectstore.Store
	// Parallel is how many tasks run at once; 0 is one per CPU.
	Parallel int
	// Dir is where the directory for segments and spills is made; "" is the system's.
	Dir string
	// Files are put into each task's working directory.
	Files []File
	// Progress, if set, is called a few times a second, and at the end, from one goroutine at a time.
	Progress func(Progress)
}

// Progress is how far a run has come.
type Progress struct {
	Maps, MapsDone       int
	Reduces, ReducesDone int
	BytesTotal           int64 // of input, compressed where it is
	BytesDone            int64
}

// Part is one object or file of the output.
type Part struct {
	Key     string `json:"key"` // without the bucket; a path, if it is a file
	Size    int64  `json:"size"`
	ETag    string `json:"etag"` // "" if it is a file
	Records int64  `json:"records"`
}

// Result is what a job has done.
type Result struct {
	ID            string
	Maps, Reduces int
	Parts         []Part
	OutputRecords int64
	OutputBytes   int64
	InputBytes    int64                       // of the input's objects
	Counters      map[string]map[string]int64 // by group and name
	Segments      record.Ledger               // what the maps wrote and the reduces read
	Map, Reduce   time.Duration               // how long each phase took
	Commit        time.Duration
	Notes         []string // what people should know of it, a sentence each
}

// TaskError is a failed task. A job's first one fails the job.
type TaskError struct {
	Task    string // m-00003
	Failure *api.Failure
}

func (e *TaskError) Error() string {
	s := fmt.Sprintf("task %s failed: %s", e.Task, e.Failure.Message)
	if e.Failure.Input != "" && !strings.Contains(e.Failure.Message, e.Failure.Input) {
		s += fmt.Sprintf(" (at byte %d of %s)", e.Failure.Offset, e.Failure.Input)
	}
	if e.Failure.StderrTail != "" {
		s += "\n" + e.Failure.StderrTail
	}
	return s
}

// run is one job on its way.
type run struct {
	Config
	id      string
	dir     string // for segments and working directories
	store   *places
	patient *places           // the same for tasks, which sit out a store that is away
	retried objectstore.Tally // by tasks
	target  target
	objects []input.Object
	notes   []string
	splits  []*api.Split
	bytes   int64
	maps    int
	reds    int

	counters map[[2]string]int64 // of tasks that are done

	progress []atomic.Pointer[task.Progress] // of the maps that have started
	mapsDone atomic.Int64
	redsDone atomic.Int64
}

// Run runs a job to its end. An error that wraps ErrRefused means that nothing was started, a
// *TaskError that a task failed. After any error nothing of the output is left.
func Run(ctx context.Context, c Config) (*Result, error) {
	if c.Spec == nil || c.Program == nil {
		return nil, refuse("a job needs a spec and a program")
	}
	c.Spec = proto.Clone(c.Spec).(*api.JobSpec)
	if c.Parallel <= 0 {
		c.Parallel = runtime.GOMAXPROCS(0)
	}
	r := &run{Config: c, id: newID(), store: &places{s3: c.Store}, patient: &places{}, counters: map[[2]string]int64{}}
	if c.Store != nil {
		r.patient.s3 = objectstore.Retrying(c.Store, objectstore.Attempts(nil, &r.retried))
	}
	if err := r.plan(ctx); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(c.Dir, "millrace-local-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for segments: %w", err)
	}
	defer os.RemoveAll(dir) // temporary files
	if r.dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if err := r.target.open(ctx); err != nil {
		return nil, err
	}
	result, err := r.execute(ctx)
	if err != nil {
		return nil, errors.Join(err, r.target.abort(context.WithoutCancel(ctx)))
	}
	return result, nil
}

// Plan says what Run would do, and changes nothing. An error that wraps ErrRefused means that it would refuse.
// The disk is that of Config.Dir.
func Plan(ctx context.Context, c Config) (*api.JobPlan, error) {
	if c.Spec == nil || c.Program == nil {
		return nil, refuse("a job needs a spec and a program")
	}
	c.Spec = proto.Clone(c.Spec).(*api.JobSpec)
	if c.Parallel <= 0 {
		c.Parallel = runtime.GOMAXPROCS(0)
	}
	r := &run{Config: c, store: &places{s3: c.Store}}
	if err := r.plan(ctx); err != nil {
		return nil, err
	}
	dir := c.Dir
	if dir == "" {
		dir = os.TempDir()
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return nil, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	p := &api.JobPlan{Slots: int64(c.Parallel), DiskFree: int64(st.Bavail) * int64(st.Bsize)}
	input.Describe(p, r.objects, r.splits, r.reds)
	for _, o := range p.LargestUnsplittable {
		o.Url = display(o.Url)
	}
	return p, nil
}

// newID makes a job id as the cluster's are.
func newID() string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	id := []byte("s-")
	for range 13 {
		id = append(id, letters[rand.IntN(len(letters))])
	}
	return string(id)
}

// perReduce is how many bytes of input make one more reduce by default.
const perReduce = 64 << 20

// plan refuses what cannot run and cuts the input into splits. It changes nothing.
func (r *run) plan(ctx context.Context) error {
	s := r.Spec
	if len(s.Input) == 0 || s.Output == "" {
		return refuse("a job needs an input and an output")
	}
	if r.Program.CopiesFiles {
		return refuse("%s copies files on a cluster; in this process millrace fs cp -r does", r.Program.Name)
	}
	if s.InputFormat != "" && s.InputFormat != "text" {
		return refuse("input format %q is not known", s.InputFormat)
	}
	inputs, urls := make([]objectstore.URL, len(s.Input)), make([]string, len(s.Input))
	for i, in := range s.Input {
		var err error
		if inputs[i], err = r.store.url(in); err != nil {
			return refuse("input %s: %w", in, err)
		}
		urls[i] = inputs[i].String()
	}
	out, err := r.store.url(s.Output)
	if err != nil {
		return refuse("output %s: %w", s.Output, err)
	}
	if err := overlap(s.Input, inputs, s.Output, out); err != nil {
		return err
	}
	objects, err := input.List(ctx, r.store, urls)
	if err != nil {
		var none *input.NoMatchError
		if errors.As(err, &none) {
			err = &input.NoMatchError{Input: display(none.Input)}
		}
		return refused{err}
	}
	size := s.SplitSize
	if size <= 0 {
		size = jobs.DefaultSplitSize
	}
	r.objects, r.notes = objects, input.Notes(objects)
	r.splits = input.Cut(objects, size, s.InputFormat)
	for _, o := range objects {
		r.bytes += o.Size
	}
	r.maps = len(r.splits)
	switch {
	case r.Program.MapOnly && s.GetReduces() > 0:
		return refuse("reduces %d: the program %s has no reducer, only 0 will do", s.GetReduces(), r.Program.Name)
	case r.Program.MapOnly || s.MapOnly:
		r.reds = 0
	case s.Reduces != nil:
		r.reds = int(*s.Reduces)
	default:
		r.reds = int(min(int64(r.Parallel), 1+r.bytes/perReduce))
	}
	if r.reds < 0 {
		return refuse("reduces: %d is negative", r.reds)
	}
	zero := int32(r.reds)
	s.Reduces = &zero // PartName goes by it
	r.progress = make([]atomic.Pointer[task.Progress], r.maps)
	r.target, err = r.store.target(ctx, out, s.Overwrite)
	return err
}

// execute runs the tasks and commits.
func (r *run) execute(ctx context.Context) (*Result, error) {
	stop := r.watch()
	defer stop()
	result := &Result{ID: r.id, Maps: r.maps, Reduces: r.reds, InputBytes: r.bytes, Notes: r.notes}
	start := time.Now()
	maps, err := r.runMaps(ctx)
	if err != nil {
		return nil, err
	}
	result.Map = time.Since(start)
	outputs := maps
	if r.reds > 0 {
		start = time.Now()
		if outputs, err = r.runReduces(ctx, maps); err != nil {
			return nil, err
		}
		result.Reduce = time.Since(start)
		if result.Segments, err = balance(maps, outputs); err != nil {
			return nil, err
		}
	}
	start = time.Now()
	for _, o := range outputs {
		result.OutputRecords += o.result.OutputRecords
		result.OutputBytes += o.result.OutputBytes
		result.Parts = append(result.Parts, Part{Key: o.name, Size: o.result.OutputBytes, Records: o.result.OutputRecords})
	}
	if err := r.commit(ctx, result); err != nil {
		return nil, err
	}
	result.Commit = time.Since(start)
	if n := r.retried.Count(); n > 0 {
		r.counters[[2]string{task.Group, "storeRetries"}] += n
	}
	result.Counters = r.countersByGroup()
	return result, nil
}

func (r *run) countersByGroup() map[string]map[string]int64 {
	groups := map[string]map[string]int64{task.Group: {}}
	for id, n := range r.counters {
		if groups[id[0]] == nil {
			groups[id[0]] = map[string]int64{}
		}
		groups[id[0]][id[1]] = n
	}
	return groups
}

// watch reports progress until the function it returns is called.
func (r *run) watch() (stop func()) {
	if r.Progress == nil {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				r.Progress(r.now())
			case <-quit:
				r.Progress(r.now())
				return
			}
		}
	}()
	return func() { close(quit); <-done }
}

func (r *run) now() Progress {
	p := Progress{Maps: r.maps, Reduces: r.reds, BytesTotal: r.bytes,
		MapsDone: int(r.mapsDone.Load()), ReducesDone: int(r.redsDone.Load())}
	for i := range r.progress {
		if t := r.progress[i].Load(); t != nil {
			bytes, _ := t.Done()
			t.Ask()
			p.BytesDone += bytes
		}
	}
	return p
}

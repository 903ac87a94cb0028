package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"millrace/pkg/api"
	"millrace/worker/attempt"
	"millrace/worker/programs"
	"millrace/worker/shuffle"
)

const (
	segmentFile = ".segment" // in the attempt's directory, until it is taken over
	spoolDir    = ".shuffle"
	diskReserve = 64 << 20 // bytes that fetches leave free
	maxMessage  = 2 << 10  // of a failure
	pushRounds  = 2        // through the core nodes, before the attempt fails
)

// begin runs a task in a goroutine of its own.
func (w *Worker) begin(t *task) {
	w.tasks.Go(func() {
		log := w.log.With(zap.String("job", t.lease.Job), zap.String("attempt", t.lease.Attempt))
		log.Debug("attempt starts")
		r := &runner{w: w, t: t, l: t.lease, dir: w.dir.path("attempts", t.lease.Attempt), gone: make(chan struct{})}
		report := r.run()
		if f := report.Result.Failure; f != nil {
			log.Info("attempt ended", zap.String("failure", f.Kind.String()), zap.String("message", f.Message))
		} else {
			log.Debug("attempt completed", zap.Int64("wallMs", report.Result.WallMs))
		}
		w.slots.finish(t, report)
		if report.HasLog {
			w.uploads.add(t.lease.Job, t.lease.Attempt)
		}
		r.clean(log)
	})
}

// runner is one attempt in a slot.
type runner struct {
	w    *Worker
	t    *task
	l    *api.Lease
	dir  string
	gone chan struct{} // closed when no process of it is alive
}

func (r *runner) run() *api.AttemptReport {
	report := &api.AttemptReport{Job: r.l.Job, Attempt: r.l.Attempt, Kind: r.l.Kind, Index: r.l.Index,
		StartedUnixMs: r.t.started.UnixMilli()}
	result, err := r.attempt(report)
	if err != nil {
		result = &api.AttemptResult{Failure: r.failure(err)}
	}
	ended := time.Now()
	report.EndedUnixMs = ended.UnixMilli()
	if result.WallMs == 0 {
		result.WallMs = ended.Sub(r.t.started).Milliseconds()
	}
	if f := result.Failure; f != nil {
		f.Message = clip(f.Message)
	}
	report.Result = result
	return report
}

// failure is the node's fault unless the attempt was ended by order.
func (r *runner) failure(err error) *api.Failure {
	if r.t.ctx.Err() != nil {
		return &api.Failure{Kind: api.FailureKind_FAILURE_KIND_KILLED, Message: context.Cause(r.t.ctx).Error()}
	}
	return &api.Failure{Kind: api.FailureKind_FAILURE_KIND_NODE, Message: err.Error()}
}

func clip(s string) string {
	if len(s) > maxMessage {
		s = s[:maxMessage] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// attempt prepares and runs the child, and brings a map's segment to where it belongs.
func (r *runner) attempt(report *api.AttemptReport) (*api.AttemptResult, error) {
	exe, err := r.prepare()
	if err != nil {
		close(r.gone)
		return nil, err
	}
	a := attempt.Attempt{Lease: r.childLease(), Executable: exe, Gone: func() { close(r.gone) },
		Progress: func(p *api.ChildProgress) { r.w.slots.progress(r.t, p.BytesDone, p.RecordsDone) }}
	ctx, stop := context.WithCancelCause(r.t.ctx)
	defer stop(nil)
	fetched := func() error { return nil }
	if r.l.Kind == api.TaskKind_TASK_KIND_REDUCE {
		f, err := r.fetcher()
		if err != nil {
			close(r.gone)
			return nil, err
		}
		a.Segments = f.Segments()
		fetched = r.fetch(ctx, stop, f)
	}
	result, out := r.w.pool.Run(ctx, a)
	report.HasLog = out.Size() > 0
	stop(nil)
	if err := fetched(); err != nil && result.Failure != nil && r.t.ctx.Err() == nil {
		return nil, err // this is what ended it
	}
	if result.Failure == nil && r.l.Kind == api.TaskKind_TASK_KIND_MAP && r.l.Partitions > 0 {
		if report.SegmentNode, err = r.settle(result); err != nil {
			return nil, err
		}
	}
	return result, nil
}

// prepare makes the attempt's directory with the shipped files in it.
func (r *runner) prepare() (exe string, err error) {
	if err := os.MkdirAll(filepath.Join(r.dir, spoolDir), 0o700); err != nil {
		return "", fmt.Errorf("attempt's directory: %w", err)
	}
	p := r.l.Program
	if p.GetExecutable() == nil && len(p.GetFiles()) == 0 {
		return "", nil
	}
	store, prefix, err := r.w.site.get()
	if err != nil {
		return "", err
	}
	g, ctx := errgroup.WithContext(r.t.ctx)
	g.SetLimit(4)
	if p.Executable != nil {
		g.Go(func() (err error) {
			exe, err = r.w.programs.Get(ctx, store, prefix, p.Executable)
			return err
		})
	}
	for _, f := range p.Files {
		g.Go(func() error {
			path, err := r.w.programs.Get(ctx, store, prefix, f)
			if err != nil {
				return err
			}
			return programs.Place(path, r.dir, f)
		})
	}
	return exe, g.Wait()
}

func (r *runner) childLease() *api.ChildLease {
	l := r.l
	c := &api.ChildLease{
		Attempt: l.Attempt, Job: l.Job, Kind: l.Kind, Index: l.Index, Number: l.Number, Program: l.Program,
		WorkDir: r.dir, MemoryBytes: l.MemoryBytes, Store: l.Store, Split: l.Split, Partitions: l.Partitions,
		Maps: l.Maps, Output: l.Output, MaxRecordBytes: l.MaxRecordBytes,
	}
	if c.MemoryBytes == 0 {
		c.MemoryBytes = r.w.cfg.MemoryBytes / int64(r.w.cfg.Slots)
	}
	if l.Kind == api.TaskKind_TASK_KIND_MAP && l.Partitions > 0 {
		c.SegmentPath = filepath.Join(r.dir, segmentFile)
	}
	return c
}

func (r *runner) fetcher() (*shuffle.Fetcher, error) {
	return shuffle.NewFetcher(shuffle.FetcherConfig{
		Job: r.l.Job, Attempt: r.l.Attempt, Partition: int(r.l.Index), Maps: int(r.l.Maps), Dir: filepath.Join(r.dir, spoolDir),
		Node: r.w.id.ID, Store: r.w.segments, Clients: r.w.clients, Limit: r.w.fetches, Problem: r.w.slots.problem, Log: r.w.log,
		Room: func() (int64, error) {
			_, free, err := diskSpace(r.w.dir.root)
			return free - diskReserve, err
		},
	})
}

// fetch fetches beside the child. If that fails it ends the child; the function returned waits, and says why.
func (r *runner) fetch(ctx context.Context, stop context.CancelCauseFunc, f *shuffle.Fetcher) func() error {
	r.w.reduces.add(r.l.Job, r.l.Attempt, f)
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() {
		err := f.Run(ctx)
		if err != nil && ctx.Err() == nil {
			failed = fmt.Errorf("fetch segments: %w", err)
			stop(failed)
		}
	})
	return func() error {
		wg.Wait()
		r.w.reduces.remove(r.l.Attempt)
		return failed
	}
}

// settle takes a map's segment over, here or on a core node, and says on which node it is.
func (r *runner) settle(result *api.AttemptResult) (node string, err error) {
	path := filepath.Join(r.dir, segmentFile)
	if len(r.l.PushTo) > 0 {
		return r.push(path, result.Digest)
	}
	x, err := r.w.segments.Adopt(r.l.Job, r.l.Attempt, path)
	if err != nil {
		return "", err
	}
	if x.Digest() != result.Digest {
		return "", errors.Join(fmt.Errorf("segment of %s on disk has digest %x, its writer says %x", r.l.Attempt, x.Digest(), result.Digest),
			r.w.segments.Drop(r.l.Job, r.l.Attempt))
	}
	return r.w.id.ID, nil
}

// push tries the core nodes in turn: one that refuses or is away is passed over.
func (r *runner) push(path string, digest uint64) (node string, err error) {
	var errs []error
	for range pushRounds {
		for _, to := range r.l.PushTo {
			c, err := r.w.clients.Client(to.Node)
			if err == nil {
				err = shuffle.Push(r.t.ctx, c, to.Address, r.l.Job, r.l.Attempt, path, digest)
			}
			if err == nil {
				r.w.pushed.add(r.l.Attempt, to)
				return to.Node, nil
			}
			if r.t.ctx.Err() != nil {
				return "", r.t.ctx.Err()
			}
			errs = append(errs, err)
		}
	}
	return "", fmt.Errorf("no core node takes the segment: %w", errors.Join(errs...))
}

// clean removes the attempt's directory when nothing writes there any more.
func (r *runner) clean(log *zap.Logger) {
	<-r.gone
	if err := os.RemoveAll(r.dir); err != nil {
		log.Warn("remove the attempt's directory", zap.Error(err))
	}
}

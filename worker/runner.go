package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"millrace/jobs"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
	"millrace/pkg/shortage"
	"millrace/worker/attempt"
	"millrace/worker/shuffle"
)

const (
	noRoom        = 20 * time.Second // that a reduce's fetch waits for room on the disk
	maxMessage    = 2 << 10          // of a failure
	noCore        = 15 * time.Second // that no core node takes a segment, before the attempt fails
	abandonWithin = 5 * time.Second  // for an upload of a failed attempt to be ended
	firstPush     = 250 * time.Millisecond
	lastPush      = 4 * time.Second // the longest pause between two rounds over the core nodes

	// How long after an attempt was ended by somebody's SIGTERM this node may get its own:
	// service managers send one to every process of a unit.
	stopPatience = 500 * time.Millisecond
)

// begin runs a task in a goroutine of its own.
func (w *Worker) begin(t *task) {
	w.tasks.Go(func() {
		log := w.log.With(zap.String("job", t.lease.Job), zap.String("attempt", t.lease.Attempt))
		log.Debug("attempt starts")
		r := &runner{w: w, t: t, l: t.lease, dir: w.dir.Path("attempts", t.lease.Attempt), gone: make(chan struct{})}
		report := r.run()
		if f := report.Result.Failure; f != nil {
			log.Info("attempt ended", zap.String("failure", f.Kind.String()), zap.String("message", f.Message))
		} else {
			log.Debug("attempt completed", zap.Int64("wallMs", report.Result.WallMs))
		}
		if context.Cause(t.ctx) == errJobOver { // what it kept came after the job was forgotten here
			r.dropSegment(log)
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
	made bool          // its directory was
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
		r.judge(f)
		f.Message = clip(f.Message)
		r.locate(f)
		r.abandon()
	}
	report.Result = result
	return report
}

// abandon ends what a failed attempt has begun to write to a cluster's files. What comes of that is the leader's to find
// out; here it only must not stay open.
func (r *runner) abandon() {
	out := r.l.Output
	if r.w.files == nil || !objectstore.IsHDFS(out.GetBucket()) || out.GetFormat() == jobs.FormatFiles || context.Cause(r.t.ctx) == errStopping {
		return
	}
	r.w.tasks.Go(func() { // the leader is to hear of the failure at once
		ctx, cancel := context.WithTimeout(context.Background(), abandonWithin)
		defer cancel()
		if err := r.w.clusterFiles.AbortUpload(ctx, out.Bucket, out.Key, out.UploadId); err != nil && !errors.Is(err, objectstore.ErrNoSuchUpload) {
			r.w.log.Debug("abort an upload", zap.String("attempt", r.l.Attempt), zap.Error(err))
		}
	})
}

// errNoDirectory says that the node's own directory takes no attempt.
var errNoDirectory = errors.New("attempt's directory")

// errNoKeeper says that a task node could bring its segment nowhere: it may be cut off from its peers.
var errNoKeeper = errors.New("no core node takes the segment")

// failure is the node's fault unless the attempt was ended by order.
func (r *runner) failure(err error) *api.Failure {
	switch what := shortage.Of(err); {
	case r.t.ctx.Err() != nil:
		return &api.Failure{Kind: api.FailureKind_FAILURE_KIND_KILLED, Message: context.Cause(r.t.ctx).Error()}
	case what != shortage.None, errors.Is(err, shuffle.ErrNoRoom), errors.Is(err, errNoDirectory), errors.Is(err, errNoKeeper):
		return &api.Failure{Kind: api.FailureKind_FAILURE_KIND_RESOURCE, Message: shortage.Explained(err).Error(),
			Disk: what == shortage.Disk || errors.Is(err, shuffle.ErrNoRoom)}
	}
	return &api.Failure{Kind: api.FailureKind_FAILURE_KIND_NODE, Message: err.Error()}
}

// judge makes a failure the node's, which does not count, if the node had taken away what the attempt needs: its
// directory, or the last room on the disk, which a program notices in ways of its own; but for a program that has
// filled it itself.
func (r *runner) judge(f *api.Failure) {
	switch f.Kind {
	case api.FailureKind_FAILURE_KIND_PROGRAM, api.FailureKind_FAILURE_KIND_NODE, api.FailureKind_FAILURE_KIND_SEGMENT:
	default:
		return
	}
	if !r.made {
		return
	}
	if _, err := os.Stat(r.dir); errors.Is(err, fs.ErrNotExist) {
		f.Kind = api.FailureKind_FAILURE_KIND_RESOURCE
		f.Message = fmt.Sprintf("its directory %s was removed while it ran: %s", r.dir, f.Message)
		return
	}
	if strings.HasPrefix(f.Message, attempt.DiskFilled) {
		return
	}
	if free, err := r.w.room(); err == nil && free <= 0 && f.Kind != api.FailureKind_FAILURE_KIND_SEGMENT {
		f.Kind, f.Disk = api.FailureKind_FAILURE_KIND_RESOURCE, true
		f.Message = fmt.Sprintf("the disk of %s was full when it ended: %s", r.w.dir.Path(), f.Message)
	}
}

// locate names the input that a map was at if the child could not say it: the piece of the
// split, from where it begins.
func (r *runner) locate(f *api.Failure) {
	if f.Input != "" || f.Kind != api.FailureKind_FAILURE_KIND_PROGRAM {
		return
	}
	done := r.w.slots.bytesDone(r.t)
	for _, p := range r.l.GetSplit().GetPieces() {
		f.Input, f.Offset = objectstore.URL{Bucket: p.Bucket, Key: p.Key}.String(), p.Offset
		if done -= p.Length; done < 0 {
			return
		}
	}
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
		Progress: func(p *api.ChildProgress) { r.w.slots.progress(r.t, p) }}
	ctx, stop := context.WithCancelCause(r.t.ctx)
	defer stop(nil)
	if out := r.l.Output; out != nil && r.w.files != nil {
		defer r.allow(out)()
	}
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
	if f := result.Failure; f != nil && r.t.ctx.Err() == nil && terminated(f) && r.w.slots.stopsWithin(stopPatience) {
		f.Kind, f.Message = api.FailureKind_FAILURE_KIND_KILLED, errStopping.Error()
	}
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

// allow lets the attempt write what it is to write to a cluster's files, until that is revoked.
func (r *runner) allow(out *api.Output) (revoke func()) {
	if out.Format == jobs.FormatFiles {
		return r.w.files.AllowBelow(out.Bucket, out.Key)
	}
	return r.w.files.Allow(out.Bucket, out.Key, out.UploadId)
}

// terminated says whether a SIGTERM ended the attempt, in one of the ways to say so.
func terminated(f *api.Failure) bool {
	return f.Signal == unix.SignalName(unix.SIGTERM) || f.Signal == unix.SIGTERM.String()
}

func (r *runner) childLease() *api.ChildLease {
	l := r.l
	c := &api.ChildLease{
		Attempt: l.Attempt, Job: l.Job, Kind: l.Kind, Index: l.Index, Number: l.Number, Program: l.Program,
		WorkDir: r.dir, MemoryBytes: l.MemoryBytes, Store: l.Store, Split: l.Split, Partitions: l.Partitions,
		Maps: l.Maps, Output: l.Output,
	}
	if r.w.files != nil {
		c.FilesSocket = r.w.files.Name()
	}
	c.StoreRetriesPerSecond = r.w.cfg.retriesShare()
	if c.MemoryBytes == 0 {
		c.MemoryBytes = r.w.cfg.MemoryBytes / int64(r.w.cfg.Slots)
	}
	c.MaxRecordBytes = jobs.RecordLimit(l.MaxRecordBytes, c.MemoryBytes)
	if l.Kind == api.TaskKind_TASK_KIND_MAP && l.Partitions > 0 {
		c.SegmentPath = filepath.Join(r.dir, attempt.SegmentFile)
	}
	return c
}

func (r *runner) fetcher() (*shuffle.Fetcher, error) {
	return shuffle.NewFetcher(shuffle.FetcherConfig{
		Job: r.l.Job, Attempt: r.l.Attempt, Partition: int(r.l.Index), Maps: int(r.l.Maps), Dir: filepath.Join(r.dir, attempt.SpoolDir),
		Node: r.w.id.ID, Store: r.w.segments, Lend: r.w.user != nil, Clients: r.w.clients, Limit: r.w.fetches, Problem: r.w.slots.problem, Log: r.w.log,
		Room: r.w.room, NoRoom: r.w.noRoom,
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
	path := filepath.Join(r.dir, attempt.SegmentFile)
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

// push tries the core nodes in turn: one that refuses or is away is passed over, and asked
// again in the next round, when it may have started again or have room.
func (r *runner) push(path string, digest uint64) (node string, err error) {
	pause := firstPush
	for late := time.Now().Add(r.w.noCore); ; {
		var errs []error // of this round
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
		if time.Now().After(late) {
			return "", fmt.Errorf("%w: %w", errNoKeeper, errors.Join(errs...))
		}
		if !sleep(r.t.ctx, pause/2+rand.N(pause/2)) {
			return "", r.t.ctx.Err()
		}
		pause = min(2*pause, lastPush)
	}
}

// dropSegment frees the segment that a map has brought somewhere, if it has.
func (r *runner) dropSegment(log *zap.Logger) {
	err := r.w.segments.Drop(r.l.Job, r.l.Attempt)
	if to, pushed := r.w.pushed.take(r.l.Attempt); pushed {
		err = errors.Join(err, r.w.discard(to, r.l.Job, r.l.Attempt))
	}
	if err != nil {
		log.Debug("drop a segment", zap.Error(err))
	}
}

// clean removes the attempt's directory when nothing writes there any more.
func (r *runner) clean(log *zap.Logger) {
	<-r.gone
	if err := attempt.RemoveAll(r.dir); err != nil {
		log.Warn("remove the attempt's directory", zap.Error(err))
	}
}

package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"millrace/jobs"
	"millrace/jobs/task"
	"millrace/pkg/api"
	"millrace/pkg/record"
)

// ended is a task that has done its work.
type ended struct {
	name    string // of its part, if it made one
	segment string // path of its segment, if it made one
	result  *api.AttemptResult
}

func (r *run) runMaps(ctx context.Context) ([]ended, error) {
	return r.each(ctx, 'm', r.maps, func(ctx context.Context, i int, e *ended) error {
		l := r.lease(api.TaskKind_TASK_KIND_MAP, 'm', i)
		l.Split, l.Partitions = r.splits[i], int32(r.reds)
		if r.reds > 0 {
			e.segment = filepath.Join(r.dir, l.Attempt+".seg")
			l.SegmentPath = e.segment
		}
		p := &task.Progress{}
		r.progress[i].Store(p)
		return r.attempt(ctx, task.Config{Lease: l, Progress: p}, e)
	})
}

// runReduces gives each reduce its partition of every map's segment, in place.
func (r *run) runReduces(ctx context.Context, maps []ended) ([]ended, error) {
	indexes := make([]record.Index, len(maps))
	for i, m := range maps {
		index, err := readIndex(m.segment)
		if err != nil {
			return nil, err
		}
		indexes[i] = index
	}
	return r.each(ctx, 'r', r.reds, func(ctx context.Context, i int, e *ended) error {
		l := r.lease(api.TaskKind_TASK_KIND_REDUCE, 'r', i)
		l.Maps = int32(len(maps))
		list := make([]*api.ChildSegment, len(maps))
		for k, m := range maps {
			p := indexes[k].Partitions[i]
			list[k] = &api.ChildSegment{Map: int32(k), MapAttempt: fmt.Sprintf("%s-m-%05d-1-1", r.id, k), Path: m.segment,
				Offset: p.Offset, Length: p.Length, Digest: m.result.Digest,
				Ledger: &api.Ledger{Records: p.Records, Bytes: p.Bytes, Checksum: p.Checksum}}
		}
		segments := &task.Segments{}
		segments.Deliver(list)
		return r.attempt(ctx, task.Config{Lease: l, Segments: segments}, e)
	})
}

func readIndex(path string) (record.Index, error) {
	f, err := os.Open(path)
	if err != nil {
		return record.Index{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return record.Index{}, err
	}
	index, err := record.ReadIndex(f, info.Size())
	if err != nil {
		return index, fmt.Errorf("read the index of %s: %w", path, err)
	}
	return index, nil
}

// each runs n tasks, Parallel at once, and ends at the first that fails.
func (r *run) each(ctx context.Context, kind byte, n int, do func(ctx context.Context, i int, e *ended) error) ([]ended, error) {
	list := make([]ended, n)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.Parallel)
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if err := do(ctx, i, &list[i]); err != nil {
				return err
			}
			if kind == 'm' {
				r.mapsDone.Add(1)
			} else {
				r.redsDone.Add(1)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := context.Cause(ctx); err != nil && n > 0 && list[n-1].result == nil {
		return nil, err
	}
	for _, e := range list {
		for _, c := range e.result.Counters {
			r.counters[[2]string{c.Group, c.Name}] += c.Value
		}
	}
	return list, nil
}

func (r *run) lease(kind api.TaskKind, letter byte, i int) *api.ChildLease {
	return &api.ChildLease{
		Attempt: fmt.Sprintf("%s-%c-%05d-1-1", r.id, letter, i), Job: r.id, Kind: kind, Index: int32(i), Number: 1,
		Program: r.Spec.Program, MemoryBytes: r.Spec.MemoryBytes,
		MaxRecordBytes: jobs.RecordLimit(r.Spec.MaxRecordBytes, r.Spec.MemoryBytes),
	}
}

// attempt runs one task in a working directory of its own.
func (r *run) attempt(ctx context.Context, c task.Config, e *ended) error {
	l := c.Lease
	kind, letter := "m", byte('m')
	if l.Kind == api.TaskKind_TASK_KIND_REDUCE {
		kind, letter = "r", 'r'
	}
	l.WorkDir = filepath.Join(r.dir, l.Attempt)
	if err := os.Mkdir(l.WorkDir, 0o700); err != nil {
		return fmt.Errorf("make the work directory: %w", err)
	}
	defer os.RemoveAll(l.WorkDir) // temporary files
	for _, f := range r.Files {
		if !filepath.IsLocal(f.Name) {
			return fmt.Errorf("ship %s: %q is no name within the working directory", f.Path, f.Name)
		}
		path, err := filepath.Abs(f.Path)
		if err != nil {
			return err
		}
		if err := os.Symlink(path, filepath.Join(l.WorkDir, f.Name)); err != nil {
			return fmt.Errorf("ship %s: %w", f.Path, err)
		}
	}
	if l.Kind == api.TaskKind_TASK_KIND_REDUCE || l.Partitions == 0 {
		e.name = jobs.PartName(r.Spec, letter, int(l.Index))
		out, err := r.target.create(ctx, e.name)
		if err != nil {
			return err
		}
		out.Format, out.Compress = r.Spec.OutputFormat, r.Spec.Compress
		l.Output = out
	}
	c.Program, c.Store = r.Program, r.patient
	e.result = task.Run(ctx, c)
	if f := e.result.Failure; f != nil {
		if f.Kind == api.FailureKind_FAILURE_KIND_KILLED && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return &TaskError{Task: fmt.Sprintf("%s-%05d", kind, l.Index), Failure: f}
	}
	return nil
}

// balance compares what the maps wrote with what the reduces read.
func balance(maps, reduces []ended) (record.Ledger, error) {
	var wrote, read record.Ledger
	var digest uint64
	for i, m := range maps {
		wrote.Add(ledger(m.result.Segment))
		digest += record.MapDigest(i, m.result.Digest)
	}
	for i, e := range reduces {
		read.Add(ledger(e.result.Segment))
		if e.result.Digest != digest {
			return read, fmt.Errorf("reduce %d consumed other segments than the maps wrote", i)
		}
	}
	if wrote != read {
		return read, fmt.Errorf("the ledger does not balance: maps wrote %+v, reduces read %+v", wrote, read)
	}
	return read, nil
}

func ledger(l *api.Ledger) record.Ledger {
	return record.Ledger{Records: l.GetRecords(), Bytes: l.GetBytes(), Checksum: l.GetChecksum()}
}

package tracker

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"millrace/jobs"
	"millrace/jobs/input"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectcopy"
	"millrace/pkg/objectstore"
)

// copies is the way of jobs that copy whole files, whatever store they copy to: their tasks write each file under its own
// name, whole, and several attempts that write the same one are not in each other's way. So there are no parts to complete
// and no _SUCCESS; what is copied stays, also of a job that fails: the next one goes on from there. The commit is the proof
// that nothing is missing.
type copies struct {
	*Tracker
	j *job
}

// commit compares what the tasks say with the plan, and the plan with what is there. The files that are missing, or
// have another length, are their task's to copy again.
func (t copies) commit(ctx context.Context, w commitWork) (*Success, []int, error) {
	splits, err := t.planned(ctx, w.rec)
	if err != nil {
		return nil, nil, err
	}
	missing, err := t.missing(ctx, splits)
	if err != nil {
		return nil, nil, err
	}
	s := summary(w, nil)
	var redo []int
	for i, split := range splits {
		files, bytes := int64(len(split.Pieces)), int64(0)
		lost := ""
		for _, p := range split.Pieces {
			bytes += p.ObjectSize
			if key := t.j.prefix + p.Name; missing[key] {
				lost = key
			}
		}
		win := w.parts[i].win
		if lost != "" || win.Records != files || win.Bytes != bytes {
			t.j.log.Warn("not all that a task was to copy is there", zap.Int("task", i), zap.String("missing", lost),
				zap.Int64("files", files), zap.Int64("copied", win.Records), zap.Int64("bytes", bytes), zap.Int64("copiedBytes", win.Bytes))
			redo = append(redo, i)
		}
		s.Records += files
		s.copied += bytes
	}
	if len(redo) > 0 {
		return nil, redo, nil
	}
	if w.resumed || w.rec.Failed+w.rec.Killed+w.rec.Lost > 0 {
		if err := w.spared(t.j, t.sweepUnfinished(ctx, splits)); err != nil {
			return nil, nil, err
		}
	}
	return s, nil, nil
}

// planned is what was to be copied.
func (t copies) planned(ctx context.Context, rec *state.Job) (splits []*api.Split, err error) {
	final := func(err error) bool {
		return hopeless(err) || errors.Is(err, objectstore.ErrNotExist) || errors.Is(err, input.ErrPlan)
	}
	err = retry(ctx, t.noting(ctx, t.j), final, func(ctx context.Context) error {
		plan, err := t.readPlan(ctx, rec)
		if err == nil {
			splits = plan.Splits
		}
		return err
	})
	return splits, err
}

// missing are the keys of those planned files that are not there with their length.
func (t copies) missing(ctx context.Context, splits []*api.Split) (map[string]bool, error) {
	size := map[string]int64{}
	for _, s := range splits {
		for _, p := range s.Pieces {
			size[t.j.prefix+p.Name] = p.ObjectSize
		}
	}
	var there []string
	// A listing of millions of names goes on where it broke.
	store := objectstore.Retrying(t.j.store, objectstore.Retry{Budget: t.cfg.Retries, Tally: &t.j.retried})
	err := retry(ctx, t.noting(ctx, t.j), hopeless, func(context.Context) (err error) {
		there, err = objectstore.ListAll(ctx, store, t.j.bucket, t.j.prefix, func(o objectstore.Object) (string, bool) {
			n, wanted := size[o.Key]
			return o.Key, wanted && n == o.Size && !o.Prefix
		})
		if errors.Is(err, objectstore.ErrNotExist) { // the folder itself
			return nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, key := range there {
		delete(size, key)
	}
	missing := make(map[string]bool, len(size))
	for key := range size {
		missing[key] = true
	}
	return missing, nil
}

// sweepUnfinished aborts uploads of attempts that were killed before they could: big files are written in parts.
// Block stores do so by themselves.
func (t copies) sweepUnfinished(ctx context.Context, splits []*api.Split) error {
	if objectstore.IsHDFS(t.j.bucket) {
		return nil
	}
	var keys []string
	for _, s := range splits {
		for _, p := range s.Pieces {
			if p.ObjectSize > objectcopy.Small {
				keys = append(keys, t.j.prefix+p.Name)
			}
		}
	}
	return t.sweep(ctx, t.j, keys, nil)
}

// clean leaves what is copied, and nothing that is not whole.
func (t copies) clean(ctx context.Context, w cleanWork) error {
	if !w.rec.Planned() {
		return nil
	}
	splits, err := t.planned(ctx, w.rec)
	if err == nil {
		err = t.sweepUnfinished(ctx, splits)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// outputOf is what an attempt may write.
func (j *job) outputOf(k *task) *api.Output {
	if jobs.Copies(j.spec) {
		return &api.Output{Bucket: j.bucket, Key: j.prefix, Format: jobs.FormatFiles, Overwrite: j.rec.Overwrite}
	}
	return &api.Output{Bucket: j.bucket, Key: k.spare.key, UploadId: k.spare.id,
		Format: j.spec.OutputFormat, Compress: j.spec.Compress}
}

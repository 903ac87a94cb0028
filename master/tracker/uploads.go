package tracker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"millrace/jobs"
	"millrace/master/state"
	"millrace/pkg/objectstore"
)

// staleUpload is when an upload made ahead is no longer given to an attempt:
// stores drop uploads a day after their start.
const staleUpload = 6 * time.Hour

// User metadata of every upload, and of _SUCCESS: whose it is.
const (
	metaJob  = "millrace-job"
	metaTask = "millrace-task"
)

func metadata(job string, id state.TaskID) map[string]string {
	return map[string]string{metaJob: job, metaTask: taskName(id)}
}

// made is one upload of a batch, or why there is none.
type made struct {
	task *task
	state.Upload
	err error
}

// makeUploads makes uploads ahead, in batches: each is in the log before it is
// given to an attempt, and it is made for that attempt alone.
func (t *Tracker) makeUploads(j *job) {
	if j.creating > 0 || len(j.unmade) == 0 || j.inherited && !t.returned(j.rec.Cluster) {
		return
	}
	enough := (t.cfg.UploadBatch + 1) / 2
	if len(j.waiting[j.rec.OutputKind()].first(enough, (*task).uploaded)) >= enough {
		return
	}
	var batch []*made
	for len(j.unmade) > 0 && len(batch) < t.cfg.UploadBatch {
		k := j.unmade[0]
		j.unmade = j.unmade[1:]
		if k.done || !k.waiting && !k.straggles || k.spare != nil {
			continue
		}
		k.spare = &upload{} // on its way
		batch = append(batch, &made{task: k, Upload: state.Upload{
			Job: j.id, Task: k.id, Key: j.partKey(k.id.Index), Attempt: t.attemptID(j, k),
		}})
	}
	if len(batch) == 0 {
		return
	}
	j.creating++
	ctx, cancel := context.WithCancel(t.ctx)
	j.lastBatch = cancel
	t.spawn(func() func() {
		var g errgroup.Group
		g.SetLimit(t.cfg.Parallel)
		for _, m := range batch {
			g.Go(func() error {
				if jobs.Copies(j.spec) { // the attempt writes whole files: what it gets is the leave to
					m.ID = m.Attempt
					return nil
				}
				m.err = once(ctx, func(ctx context.Context) (err error) {
					m.ID, err = j.store.CreateUpload(ctx, j.bucket, m.Key, metadata(j.id, m.Task))
					return err
				})
				return nil
			})
		}
		_ = g.Wait() // errors are each upload's own
		cancel()
		return func() { t.logUploads(j, batch) }
	})
}

// logUploads logs what a batch made, and has the rest tried again.
func (t *Tracker) logUploads(j *job, batch []*made) {
	j.lastBatch = nil
	var good []*made
	var trouble error
	for _, m := range batch {
		if m.err == nil {
			good = append(good, m)
			continue
		}
		if trouble == nil || impossible(m.err) {
			trouble = m.err
		}
		m.task.spare = nil
		j.unmade = append(j.unmade, m.task)
		if !impossible(m.err) {
			j.uncertain = true // it may have been made all the same
			if !errors.Is(m.err, context.Canceled) {
				j.retried.Add(m.err)
			}
		}
	}
	if trouble != nil && !errors.Is(trouble, context.Canceled) && t.jobs[j.id] == j && j.rec.Ending == "" {
		if !hopeless(trouble) && impossible(trouble) {
			j.invalid++
		}
		if hopeless(trouble) || j.invalid >= maxInvalid {
			t.failJob(j, fmt.Sprintf("start an upload to %s: %v", j.rec.Output, trouble), nil, true)
		} else {
			j.note(t.cfg.Now(), trouble)
		}
	}
	if len(good) == 0 {
		t.batchDone(j, trouble)
		return
	}
	c := state.AddUploads{}
	for _, m := range good {
		c.Uploads = append(c.Uploads, m.Upload)
	}
	t.propose(j.id, c, func(_ any, err error) {
		for _, m := range good {
			u := upload{id: m.ID, key: m.Key, attempt: m.Attempt, made: t.cfg.Now()}
			if err != nil {
				m.task.spare = nil
				j.unlogged = append(j.unlogged, u)
				continue
			}
			m.task.spare = &u
			j.waiting[m.task.id.Kind].ready(m.task)
		}
		if err != nil {
			j.log.Info("uploads refused", zap.Error(err))
		}
		t.batchDone(j, trouble)
	})
}

// maxInvalid is how often in a row a store may call a new upload invalid before the job fails: the answer may be a proxy's.
const maxInvalid = 5

// impossible says that what was asked for was not done, nor will be if the answer is the store's: it refuses the key, or does not know
// uploads.
func impossible(err error) bool { return hopeless(err) || errors.Is(err, objectstore.ErrInvalid) }

// batchDone lets the next batch be made, after a pause if this one had trouble.
func (t *Tracker) batchDone(j *job, trouble error) {
	t.touch(j)
	if trouble == nil {
		j.invalid = 0
		j.note(t.cfg.Now(), nil)
	}
	if trouble == nil || t.jobs[j.id] != j || j.rec.Ending != "" {
		j.creating--
		return
	}
	t.after(time.Second, func() {
		j.creating--
		t.touch(j)
	})
}

// stale says whether the task has no upload for an attempt, and gives up one made ahead that nobody has used for hours.
func (t *Tracker) stale(j *job, k *task) bool {
	if !k.uploaded() {
		return true
	}
	if t.cfg.Now().Sub(k.spare.made) < staleUpload {
		return false
	}
	k.spare, k.straggles = nil, false
	if k.waiting {
		j.unmade = append(j.unmade, k)
		t.touch(j)
	}
	return true
}

// uploaded says whether the task has an upload to give to an attempt.
func (k *task) uploaded() bool { return k.spare != nil && k.spare.id != "" }

// abort ends an upload and makes sure that it is gone, with all its parts: an
// UploadPart that was under way may have brought some back. A key that may not
// look has the store's word for it.
func (t *Tracker) abort(ctx context.Context, j *job, u upload) error {
	final := func(err error) bool { return impossible(err) || errors.Is(err, objectstore.ErrNoSuchUpload) }
	err := retry(ctx, t.noting(ctx, j), final, func(ctx context.Context) error {
		if err := j.store.AbortUpload(ctx, j.bucket, u.key, u.id); err != nil {
			return err
		}
		switch _, err := j.store.ListParts(ctx, j.bucket, u.key, u.id); {
		case errors.Is(err, objectstore.ErrDenied):
			return nil
		case err != nil:
			return err // ErrNoSuchUpload: it is gone
		}
		return fmt.Errorf("upload %s of %s is still there after it was aborted", u.id, u.key)
	})
	if errors.Is(err, objectstore.ErrNoSuchUpload) {
		return nil
	}
	return err
}

// sweep aborts every upload of the given keys that keep does not name: those
// that were made, and whose maker died before they were in the log. What cannot be
// aborted does not keep the others.
func (t *Tracker) sweep(ctx context.Context, j *job, keys []string, keep map[string]bool) error {
	return t.gather(len(keys), func(i int) error {
		var found []objectstore.Upload
		err := retry(ctx, t.noting(ctx, j), impossible, func(ctx context.Context) (err error) {
			found, err = j.store.ListUploads(ctx, j.bucket, keys[i])
			return err
		})
		if err != nil {
			return err
		}
		var all []error
		for _, u := range found {
			if u.Key == keys[i] && !keep[u.ID] {
				all = append(all, t.abort(ctx, j, upload{id: u.ID, key: u.Key}))
			}
		}
		return errors.Join(all...)
	})
}

// each calls f for 0 … n-1, some at once; the first error stops it, unless
// gather collects them all.
func (t *Tracker) each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(t.cfg.Parallel)
	for i := range n {
		g.Go(func() error { return f(ctx, i) })
	}
	return g.Wait()
}

// gather calls f for 0 … n-1, some at once, goes on after errors and joins the first few.
func (t *Tracker) gather(n int, f func(i int) error) error {
	var all few
	var g errgroup.Group
	g.SetLimit(t.cfg.Parallel)
	for i := range n {
		g.Go(func() error {
			all.add(f(i))
			return nil
		})
	}
	_ = g.Wait() // f's errors are in all
	return all.err()
}

// few keeps the first of many errors, and counts the rest.
type few struct {
	mu    sync.Mutex
	first []error
	more  int
}

func (f *few) add(err error) {
	if err == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.first) < 4 {
		f.first = append(f.first, err)
	} else {
		f.more++
	}
}

func (f *few) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.more > 0 {
		return errors.Join(append(slices.Clone(f.first), fmt.Errorf("and %d more", f.more))...)
	}
	return errors.Join(f.first...)
}

// maxDropped is how many attempts of one task may lose their upload before the job fails.
const maxDropped = 8

// afterLostUpload has the task tried again, with another upload, unless the store loses them all.
func (t *Tracker) afterLostUpload(j *job, k *task, e *state.EndedAttempt) {
	j.log.Warn("the store has lost an upload", zap.String("attempt", e.Attempt), zap.String("cause", e.Failure.Message))
	if k.dropped++; k.done || k.dropped < maxDropped {
		return
	}
	t.failJob(j, fmt.Sprintf("task %s lost its unfinished upload %d times (does a lifecycle rule of the bucket remove them?); the last time: %s",
		k, k.dropped, e.Failure.Message), &e.Failure, j.rec.Phase == state.PhaseCommitting)
}

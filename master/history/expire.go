package history

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"millrace/master/state"
	"millrace/pkg/objectstore"
)

// expire deletes one batch of jobs that are too old, with all that the system prefix has of them, then their stubs: as long as
// a stub is there, what it stands for is looked for and deleted again. It says whether there was a batch.
func (k *Keeper) expire(ctx context.Context) (bool, error) {
	if k.cfg.Retention == 0 {
		return false, nil
	}
	before := k.cfg.Now().Add(-k.cfg.Retention)
	var c state.ForgetJobs
	for _, p := range k.cfg.View().PastJobs("") {
		if p.EndedAt.Before(before) && len(c.Jobs) < forgetBatch && !k.stays[p.ID] {
			c.Jobs = append(c.Jobs, p.ID)
		}
	}
	if len(c.Jobs) == 0 {
		return false, nil
	}
	place, err := k.place()
	if err != nil {
		return false, err
	}
	if err := k.trustsItsClock(ctx, place); err != nil {
		return false, err
	}
	errs := make([]error, len(c.Jobs))
	var g errgroup.Group
	g.SetLimit(parallel)
	for i, id := range c.Jobs {
		g.Go(func() error { errs[i] = place.deleteJob(ctx, id); return nil })
	}
	_ = g.Wait() // errors are each job's own
	var gone []string
	for i, id := range c.Jobs {
		if errs[i] == nil {
			gone = append(gone, id)
		} else { // it keeps no other job from being deleted, and is tried again with the next tidying
			k.stays[id] = true
		}
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if k.stuck == nil {
		k.stuck = errors.Join(errs...)
	}
	if c.Jobs = gone; len(gone) == 0 {
		return true, nil
	}
	if _, err := k.cfg.Apply(ctx, c); err != nil {
		return false, err
	}
	k.log.Info("jobs in the history were too old and are deleted", zap.Int("jobs", len(c.Jobs)))
	return true, nil
}

// apart is how far this master's clock and the store's may be apart before nothing is deleted for its age.
const apart = 6 * time.Hour

// trustsItsClock asks the store for the time before anything is deleted for its age: a clock that is months ahead would take
// everything away.
func (k *Keeper) trustsItsClock(ctx context.Context, place Place) error {
	there, err := k.cfg.StoreNow(ctx, place)
	if err != nil {
		return fmt.Errorf("ask the object store for the time: %w", err)
	}
	if d := k.cfg.Now().Sub(there).Abs(); d > apart {
		return fmt.Errorf("the clocks of this master and of the object store are %s apart: nothing is deleted from the history before they agree", d.Round(time.Minute))
	}
	return nil
}

// storeNow is the time at which the store says that it has got an object.
func storeNow(ctx context.Context, place Place) (time.Time, error) {
	const key = folder + "clock"
	if _, err := place.Store.Put(ctx, place.Bucket, place.Prefix+key, strings.NewReader("x"), 1, objectstore.PutOptions{}); err != nil {
		return time.Time{}, err
	}
	x, err := place.Store.Head(ctx, place.Bucket, place.Prefix+key)
	return x.ModifiedAt, err
}

// deleteJob deletes a job's record, its plan and its attempts' logs.
func (p Place) deleteJob(ctx context.Context, job string) error {
	for _, prefix := range []string{"plans/" + job + "-", "logs/" + job + "/"} {
		if err := p.deleteAll(ctx, p.Prefix+prefix, nil); err != nil {
			return err
		}
	}
	if err := p.Store.Delete(ctx, p.Bucket, p.recordKey(job)); err != nil {
		return fmt.Errorf("delete %s: %w", p.url(p.recordKey(job)), err)
	}
	return nil
}

// deleteAll deletes the objects below a prefix, but for those that keep (nil: none) wants to stay.
func (p Place) deleteAll(ctx context.Context, prefix string, keep func(objectstore.Object) bool) error {
	var keys []string
	for o, err := range p.Store.List(ctx, p.Bucket, prefix, objectstore.ListOptions{}) {
		if errors.Is(err, objectstore.ErrNoSuchBucket) { // a new site's is not made yet
			return nil
		}
		if err != nil {
			return fmt.Errorf("list %s: %w", p.url(prefix), err)
		}
		if keep == nil || !keep(o) {
			keys = append(keys, o.Key)
		}
	}
	for len(keys) > 0 {
		n := min(deleteBatch, len(keys))
		if err := p.Store.Delete(ctx, p.Bucket, keys[:n]...); err != nil {
			return fmt.Errorf("delete below %s: %w", p.url(prefix), err)
		}
		keys = keys[n:]
	}
	return nil
}

// sweep deletes pages that no job names: those whose jobs are all too old by now, and those that were written by a leader
// who could not log them any more.
func (k *Keeper) sweep(ctx context.Context) error {
	place, err := k.place()
	if err != nil {
		return err
	}
	named := map[string]bool{}
	for _, p := range k.cfg.View().PastJobs("") {
		named[place.pageKey(p.Page)] = true
	}
	young := k.cfg.Now().Add(-pageGrace)
	return place.deleteAll(ctx, place.Prefix+pages, func(o objectstore.Object) bool {
		return named[o.Key] || o.ModifiedAt.After(young)
	})
}

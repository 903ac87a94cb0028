package tracker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"go.uber.org/zap"

	"millrace/jobs"
	"millrace/jobs/input"
	"millrace/master/state"
	"millrace/pkg/objectstore"
)

// bytesPerReduce is how much input makes one reduce, if the job does not say.
const bytesPerReduce = 64 << 20

// plan lists a PENDING job's input, cuts it, stores the plan, and logs it.
func (t *Tracker) plan(j *job) {
	if j.busy != "" {
		return
	}
	slots, inputs := t.slots(j.rec.Cluster), j.rec.Input
	t.step(j, "plan", func(ctx context.Context) func() {
		turn := &planTurn{planners: t.planners}
		if turn.take(ctx) != nil {
			return nil
		}
		defer turn.give()
		c, plan, err := t.makePlan(ctx, j, inputs, slots, turn)
		var places [][]string
		if err == nil {
			places = t.locate(ctx, j, plan.Splits)
		}
		return func() {
			switch {
			case errors.Is(err, context.Canceled):
			case err != nil:
				t.failJob(j, err.Error(), nil, false)
			default:
				t.logPlan(j, c, plan, places)
			}
		}
	})
}

// logPlan makes the job RUNNING.
func (t *Tracker) logPlan(j *job, c state.PlanJob, plan *input.Plan, places [][]string) {
	if j.rec.Ending != "" {
		return
	}
	j.busy = "plan"
	c.At = t.cfg.Now()
	t.propose(j.id, c, func(_ any, err error) {
		j.busy = ""
		t.touch(j)
		if err != nil {
			j.log.Info("plan refused", zap.Error(err))
			return
		}
		j.rec, _ = t.cfg.View().Job(j.id)
		if !j.tasked { // else it has come by before the answer did, and was seen to be planned
			t.setTasks(j)
		}
		t.setPlan(j, plan, places)
		j.log.Info("job planned", zap.Int("maps", c.Maps), zap.Int("reduces", c.Reduces), zap.Int64("bytes", c.BytesTotal))
	})
}

// planTurn is a job's turn to plan. It is given up while the job's store is in trouble, so
// that jobs with stores of their own that never answer do not keep the others from planning.
type planTurn struct {
	planners chan struct{}
	taken    bool
}

func (p *planTurn) take(ctx context.Context) error {
	if p.taken {
		return nil
	}
	select {
	case p.planners <- struct{}{}:
		p.taken = true
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *planTurn) give() {
	if p.taken {
		p.taken = false
		<-p.planners
	}
}

// try is f as retry wants it: within the turn, which ends with a failure.
func (p *planTurn) try(f func(ctx context.Context) error) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		if err := p.take(ctx); err != nil {
			return fmt.Errorf("wait for other jobs to be planned: %w", err)
		}
		err := f(ctx)
		if err != nil {
			p.give()
		}
		return err
	}
}

// makePlan asks the store; an error is one that fails the job.
func (t *Tracker) makePlan(ctx context.Context, j *job, inputs []string, slots int, turn *planTurn) (state.PlanJob, *input.Plan, error) {
	var objects []input.Object
	final := func(err error) bool {
		var none *input.NoMatchError
		return hopeless(err) || errors.As(err, &none) || errors.Is(err, objectstore.ErrInvalid)
	}
	// A listing of millions of names goes on where it broke, and has all the time it needs
	// as long as something comes: the time-out of one request is not for it.
	store := objectstore.Retrying(j.store, objectstore.Retry{Budget: t.cfg.Retries, Tally: &j.retried})
	err := retry(ctx, t.noting(ctx, j), final, turn.try(func(context.Context) (err error) {
		objects, err = input.ListFor(ctx, store, inputs, j.spec.InputFormat)
		return err
	}))
	if err != nil {
		return state.PlanJob{}, nil, fmt.Errorf("plan: %w", err)
	}
	size := j.spec.SplitSize
	if size <= 0 {
		size = jobs.DefaultSplitSize
	}
	plan := input.NewPlan(input.Cut(objects, size, j.spec.InputFormat))
	data, digest, err := plan.Encode()
	if err != nil {
		return state.PlanJob{}, nil, fmt.Errorf("plan: %w", err)
	}
	key := "plans/" + j.id + "-" + digest + ".plan"
	err = retry(ctx, t.noting(ctx, j), hopeless, turn.try(func(ctx context.Context) error {
		store, bucket, prefix, err := t.cfg.Stores.System()
		if err != nil {
			return err
		}
		_, err = store.Put(ctx, bucket, prefix+key, bytes.NewReader(data), int64(len(data)), objectstore.PutOptions{})
		return err
	}))
	if err != nil {
		return state.PlanJob{}, nil, fmt.Errorf("store the plan: %w", err)
	}
	c := state.PlanJob{Job: j.id, PlanKey: key, PlanDigest: digest, BytesTotal: plan.Bytes, Maps: len(plan.Splits), Notes: input.Notes(objects)}
	switch {
	case j.spec.MapOnly:
	case j.spec.Reduces != nil:
		c.Reduces = int(*j.spec.Reduces)
	default:
		c.Reduces = DefaultReduces(plan.Bytes, slots)
	}
	return c, plan, nil
}

// DefaultReduces is how many reduces a job has that does not say: one for each 64 MiB
// of input, but no more than one wave over the cluster's slots.
func DefaultReduces(bytes int64, slots int) int {
	n := (bytes + bytesPerReduce - 1) / bytesPerReduce
	return int(min(max(n, 1), int64(max(slots, 1))))
}

// slots is how many slots a cluster has now.
func (t *Tracker) slots(cluster string) int {
	n := 0
	for _, w := range t.nodes {
		if w.cluster == cluster {
			n += w.slots
		}
	}
	return n
}

// load reads the plan of a job that an earlier leader planned.
func (t *Tracker) load(j *job) {
	if j.planned || j.busy != "" {
		return
	}
	rec := j.rec
	t.step(j, "load", func(ctx context.Context) func() {
		var plan *input.Plan
		final := func(err error) bool {
			return hopeless(err) || errors.Is(err, objectstore.ErrNotExist) || errors.Is(err, input.ErrPlan)
		}
		err := retry(ctx, t.noting(ctx, j), final, func(ctx context.Context) (err error) {
			plan, err = t.readPlan(ctx, rec)
			return err
		})
		var places [][]string
		if err == nil {
			places = t.locate(ctx, j, plan.Splits)
		}
		return func() {
			switch {
			case errors.Is(err, context.Canceled):
			case err != nil:
				t.failJob(j, fmt.Sprintf("its plan is lost: %v", err), nil, true)
			default:
				t.setPlan(j, plan, places)
			}
		}
	})
}

func (t *Tracker) readPlan(ctx context.Context, rec *state.Job) (*input.Plan, error) {
	store, bucket, prefix, err := t.cfg.Stores.System()
	if err != nil {
		return nil, err
	}
	r, err := store.Get(ctx, bucket, prefix+rec.PlanKey, 0, -1, "")
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	r.Close()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", rec.PlanKey, err)
	}
	plan, err := input.Decode(data, rec.PlanDigest)
	if err != nil {
		return nil, err
	}
	if len(plan.Splits) != rec.Maps {
		return nil, fmt.Errorf("%w: %d splits, %d maps", input.ErrPlan, len(plan.Splits), rec.Maps)
	}
	return plan, nil
}

// setPlan makes the splits known, and where they lie; what has waited for them goes on.
func (t *Tracker) setPlan(j *job, plan *input.Plan, places [][]string) {
	if j.planned {
		return
	}
	j.planned, j.splits = true, plan.Splits
	for i, k := range j.maps {
		for _, p := range plan.Splits[i].Pieces {
			k.bytes += p.Length
		}
		k.disk = input.MapDisk(plan.Splits[i])
		j.disk += k.disk
		if k.done {
			j.learn(k, k.win)
		}
	}
	t.setPlaces(j, places)
	for _, a := range j.live {
		t.reserveAnew(a)
	}
	held := j.held
	j.held = nil
	for _, f := range held {
		f()
	}
	t.touch(j)
}

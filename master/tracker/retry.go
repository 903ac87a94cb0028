package tracker

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"millrace/master/state"
	"millrace/pkg/objectstore"
)

// Backoff between two tries at the object store: doubling, with jitter.
const (
	firstPause     = 100 * time.Millisecond
	longestPause   = 10 * time.Second
	requestTimeout = 2 * time.Minute // a completion of 10,000 parts takes its time
)

// hopeless says whether trying again cannot help.
func hopeless(err error) bool {
	return errors.Is(err, objectstore.ErrDenied) || errors.Is(err, objectstore.ErrNoSuchBucket)
}

// retry calls f until it succeeds, ctx ends, or final says that an error will
// stay. What goes wrong meanwhile goes to note, and nil once it is over.
func retry(ctx context.Context, note func(error), final func(error) bool, f func(ctx context.Context) error) error {
	pause := firstPause
	for tries := 0; ; tries++ {
		err := once(ctx, f)
		if err == nil || final(err) || ctx.Err() != nil {
			if tries > 0 {
				note(nil)
			}
			return err
		}
		note(err)
		wait := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return ctx.Err()
		}
		pause = min(2*pause, longestPause)
	}
}

func once(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return f(ctx)
}

// noting returns a note function for retry that shows the trouble of a job, counts what
// is repeated, and takes it out of the master's budget, for which it may have to wait until ctx ends.
func (t *Tracker) noting(ctx context.Context, j *job) func(error) {
	return func(err error) {
		t.post(func() {
			j.note(t.cfg.Now(), err)
			t.changes.tell(j.id)
		})
		if err != nil {
			j.retried.Add(err)
			_ = t.cfg.Retries.Wait(ctx) // its end is seen by the request itself
		}
	}
}

// ownRetries is what the leader itself had to repeat, for the log.
func (j *job) ownRetries() state.StoreRetries {
	_, last := j.allRetries()
	return state.StoreRetries{Requests: j.retried.Count(), Last: last}
}

// allRetries adds what attempts had to repeat that run or have won, and says what for.
func (j *job) allRetries() (n int64, last string) {
	n, last = j.retried.Count(), j.storeTrouble
	if last == "" {
		last = j.retried.Last()
	}
	for _, a := range j.live {
		if !a.task.done {
			n += a.retried
		}
	}
	for _, kind := range []string{state.Map, state.Reduce} {
		for _, k := range j.tasks(kind) {
			if k.done {
				n += storeRetries(k.win)
			}
		}
	}
	return n, last
}

func storeRetries(win *state.Completion) int64 {
	if win != nil {
		for _, c := range win.Counters {
			if c.Name == state.CounterStoreRetries && c.Group == state.CounterGroup {
				return c.Value
			}
		}
	}
	return 0
}

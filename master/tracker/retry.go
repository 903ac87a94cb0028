package tracker

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

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

// noting returns a note function for retry that shows the trouble of a job.
func (t *Tracker) noting(j *job) func(error) {
	return func(err error) {
		t.post(func() {
			j.note(t.cfg.Now(), err)
			t.changes.tell(j.id)
		})
	}
}

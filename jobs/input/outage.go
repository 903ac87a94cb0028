package input

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"millrace/pkg/objectstore"
)

// How an attempt sits out a store that does not answer. A store that is restarted, or
// a network that is mended, should cost a job a pause and not its attempts.
const (
	outagePatience = 3 * time.Minute // in a row without a success
	firstPause     = 200 * time.Millisecond
	lastPause      = 2 * time.Second
)

// Outage paces the repetition of one request to a store that refuses connections or
// answers 5xx. The zero value is ready. Not for concurrent use.
type Outage struct {
	since time.Time // the first failure in a row; zero: none
	pause time.Duration
}

// Again says whether a request that ended with err is to be made again, after it has
// waited for a while: 100 ms at first, later up to 2 s. It does not wait and says no if err
// is not objectstore.ErrUnreachable, if that has lasted for 3 minutes, or if ctx has ended.
func (o *Outage) Again(ctx context.Context, err error) bool {
	if !errors.Is(err, objectstore.ErrUnreachable) || ctx.Err() != nil {
		return false
	}
	if o.since.IsZero() {
		o.since, o.pause = time.Now(), firstPause
	}
	if time.Since(o.since) >= outagePatience {
		return false
	}
	// Half of it is chance: all attempts lose a store at the same moment.
	wait := time.NewTimer(o.pause/2 + rand.N(o.pause/2))
	defer wait.Stop()
	o.pause = min(2*o.pause, lastPause)
	select {
	case <-wait.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Over notes a success.
func (o *Outage) Over() { *o = Outage{} }

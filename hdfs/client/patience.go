package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"millrace/hdfs"
)

const usualPatience = 30 * time.Second

// patience is how long something is tried again without success. One that has not waited yet is fresh.
type patience struct {
	whole time.Duration
	since time.Time // of the first failure
	pause time.Duration
}

func (f *Files) patience() patience { return patience{whole: f.cfg.Patience} }

// wait pauses before another try; false when it is over, or the context ends first.
func (p *patience) wait(ctx context.Context) bool {
	if p.since.IsZero() {
		p.since, p.pause = time.Now(), firstPause
	}
	d := p.pause/2 + rand.N(p.pause/2)
	if time.Since(p.since)+d > p.whole {
		return false
	}
	p.pause = min(2*p.pause, lastPause)
	return sleep(ctx, d) == nil
}

// retry asks the name space, and again while it is not available. again tells that a request before may have been
// carried out.
func (f *Files) retry(ctx context.Context, ask func(again bool) error) error {
	p := f.patience()
	for again := false; ; again = true {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := ask(again)
		switch {
		case err == nil:
			return nil
		case ctx.Err() == nil && errors.Is(err, hdfs.ErrUnavailable) && p.wait(ctx):
			continue
		case ctx.Err() != nil:
			return ctx.Err()
		}
		return err
	}
}

package history

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"millrace/master/state"
	"millrace/pkg/objectstore"
)

// What a site keeps if nobody says otherwise.
const (
	DefaultKeep      = 1000
	DefaultRetention = 30 * 24 * time.Hour
)

const (
	restPause    = time.Second      // between two looks at jobs that keep changing
	troublePause = 10 * time.Second // after a store that did not answer, a log that did not take an entry
	stuckPause   = 10 * time.Minute // after jobs could not be deleted
	tidyEvery    = time.Hour        // how often it is looked for what is too old
	parallel     = 8                // requests to the store at once
	deleteBatch  = 1000             // keys per request
	forgetBatch  = 100              // jobs per log entry
	pageGrace    = time.Hour        // so old must a page be that nobody names before it is deleted
)

// Config sets up a Keeper.
type Config struct {
	View func() *state.View
	// Apply logs a command and returns what it gave.
	Apply func(context.Context, state.Command) (any, error)
	// System is the site's store and its system prefix (with the slash, or "").
	System func() (store objectstore.Store, bucket, prefix string, err error)
	// Known says whether all masters of the site know the commands of this package: until then nothing moves.
	Known func() bool

	Keep      int           // so many jobs that ended last stay in the state
	Retention time.Duration // how long after its end a job in the history is kept; 0: for good
	Log       *zap.Logger
	Now       func() time.Time // nil = time.Now
	// StoreNow is the store's time; nil: that of an object that is written for it.
	StoreNow func(context.Context, Place) (time.Time, error)
}

// Keeper moves ended jobs to the history and deletes them there when their time is over. It runs on the leader alone. It
// keeps nothing in memory that matters: a new leader's Keeper goes on from the state.
type Keeper struct {
	cfg    Config
	log    *zap.Logger
	tidied time.Time
	stays  map[string]bool // jobs that could not be deleted, in this tidying
	stuck  error           // why the first of them could not
}

// New returns a Keeper. It starts nothing.
func New(c Config) (*Keeper, error) {
	if c.View == nil || c.Apply == nil || c.System == nil || c.Known == nil {
		return nil, errors.New("history: View, Apply, System and Known are needed")
	}
	if c.Keep < 0 || c.Retention < 0 {
		return nil, errors.New("history: how many jobs and how long cannot be less than 0")
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.StoreNow == nil {
		c.StoreNow = storeNow
	}
	return &Keeper{cfg: c, log: c.Log.Named("history")}, nil
}

// Run keeps the history until ctx ends. What goes wrong is tried again, and logged when it changes.
func (k *Keeper) Run(ctx context.Context) {
	said := ""
	for ctx.Err() == nil {
		changed := k.cfg.View().WatchJobs()
		err := k.Round(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			said = ""
			rest(ctx, restPause, nil)
			rest(ctx, k.tidyEvery(), changed)
		default:
			if err.Error() != said {
				said = err.Error()
				k.log.Warn("the history is not in order for now", zap.Error(err))
			}
			rest(ctx, troublePause, nil)
		}
	}
}

// rest returns after d, when news come, or when ctx ends.
func rest(ctx context.Context, d time.Duration, news <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-news:
	case <-ctx.Done():
	}
}

func (k *Keeper) tidyEvery() time.Duration {
	if r := k.cfg.Retention; r > 0 {
		return min(tidyEvery, max(r/10, restPause))
	}
	return tidyEvery
}

var errUnknown = errors.New("not every master reads the entries of the history yet: nothing moves to it before all are upgraded")

// Round moves and deletes what is due now. Run does it again and again.
func (k *Keeper) Round(ctx context.Context) error {
	for {
		more, err := k.move(ctx)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	if k.cfg.Now().Sub(k.tidied) < k.tidyEvery() {
		return nil
	}
	k.stays, k.stuck = map[string]bool{}, nil
	for {
		more, err := k.expire(ctx)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	if err := k.sweep(ctx); err != nil {
		return err
	}
	k.tidied = k.cfg.Now()
	if k.stuck != nil { // the others are deleted; these are tried again after a while
		k.tidied = k.tidied.Add(min(0, stuckPause-k.tidyEvery()))
		return fmt.Errorf("of the jobs in the history that are too old %d cannot be deleted: %w", len(k.stays), k.stuck)
	}
	return nil
}

func (k *Keeper) place() (Place, error) {
	store, bucket, prefix, err := k.cfg.System()
	return Place{store, bucket, prefix}, err
}

// move moves one batch, and says whether there was one.
func (k *Keeper) move(ctx context.Context) (bool, error) {
	v := k.cfg.View()
	batch := due(v.EndedJobs(), k.cfg.Keep)
	if len(batch) == 0 {
		return false, nil
	}
	if !k.cfg.Known() {
		return false, errUnknown
	}
	place, err := k.place()
	if err != nil {
		return false, err
	}
	g, within := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	c := state.RetireJobs{}
	for _, j := range batch {
		c.Jobs = append(c.Jobs, j.ID)
		g.Go(func() error { return place.putRecord(within, RecordOf(v, j)) })
	}
	if err := g.Wait(); err != nil {
		return false, err
	}
	if c.Page, err = place.putPage(ctx, batch); err != nil {
		return false, err
	}
	if _, err := k.cfg.Apply(ctx, c); err != nil {
		return false, err
	}
	k.log.Info("ended jobs moved to the history", zap.Int("jobs", len(batch)), zap.String("page", c.Page))
	return true, nil
}

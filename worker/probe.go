package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// probe finds out whether this node reaches a store, as its attempts will have to, and tells the leader.
func (w *Worker) probe(p *api.StoreProbe) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(p.WithinMs)*time.Millisecond)
	w.tasks.Go(func() { // the node's end is not held up
		select {
		case <-w.slots.stopped:
			cancel()
		case <-ctx.Done():
		}
	})
	w.tasks.Go(func() {
		defer cancel()
		answer := &api.StoreProbed{Id: p.Id, Error: w.unreached(ctx, p)}
		w.slots.say(&api.WorkerMessage{Message: &api.WorkerMessage_Probed{Probed: answer}})
	})
}

// unreached is why the store cannot be used from here, "" if it can. Whether the key may do what
// the job wants is the same everywhere, and the leader has asked; but a clock that is wrong is this node's.
func (w *Worker) unreached(ctx context.Context, p *api.StoreProbe) string {
	store, err := w.site.openFor(p.Store)
	if err != nil {
		return err.Error()
	}
	// With a command's patience, and not an attempt's: the cause is to be told in time.
	store = objectstore.Retrying(objectstore.Once(store), objectstore.Retry{})
	for _, err = range store.List(ctx, p.Bucket, "", objectstore.ListOptions{Max: 1}) {
	}
	var refused *objectstore.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer within %s", time.Duration(p.WithinMs)*time.Millisecond)
	case errors.Is(err, objectstore.ErrUnreachable), errors.As(err, &refused) && refused.Code == "RequestTimeTooSkewed":
		return objectstore.Cause(err)
	}
	return ""
}

package worker

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// leavePatience is how long a node that is to leave for good waits for a leader to take leave of. When a whole
	// site ends, there is none.
	leavePatience = 8 * time.Second
	leaveLook     = 250 * time.Millisecond
)

// leave has the node go for good once term ends: the leader drains it and takes it out of the site, which ends the
// last session. Without a leader the node ends as at any other time: stop.
func (w *Worker) leave(ctx, term context.Context, stop context.CancelFunc) {
	select {
	case <-term.Done():
	case <-ctx.Done():
		return
	}
	w.log.Info("the node leaves its site: it goes on until it is drained")
	w.leaving.Store(true)
	for begun := time.Now(); sleep(ctx, leaveLook); {
		if last := time.Unix(0, w.heard.Load()); time.Since(last) > w.leavePatience && time.Since(begun) > w.leavePatience {
			w.log.Warn("no leader to take leave of: the node ends, and will be back when it is started again")
			stop()
		}
	}
}

// left deletes all that is left of a node that is out of its site, who it was included: the next start joins anew.
func (w *Worker) left() error {
	w.id.Wipe = w.id.Cluster
	err := w.wipeOnce()
	if err == nil {
		err = w.dir.Remove("node.json")
	}
	if err == nil {
		err = errors.Join(empty(w.dir.Path("pki")), w.dir.Remove("term"))
	}
	if err != nil {
		return fmt.Errorf("the node has left its site, but not its folder: %w", err)
	}
	w.log.Info("the node has left its site")
	return nil
}

package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"millrace/hdfs/blockstore"
	"millrace/pkg/shortage"
	"millrace/worker/bootstrap"
)

const (
	coreRole = "CORE"
	poolRole = "POOL" // of a node that waits for a cluster

	firstWipe = 250 * time.Millisecond
	lastWipe  = 15 * time.Second // the longest pause between two tries to delete what another place has left
)

// place is a role in a cluster; in the pool the cluster is "".
type place struct{ cluster, role string }

func (p place) String() string { return p.role + " of " + cmp.Or(p.cluster, "the pool") }

// moved ends a life: the node has another place.
type moved struct{ to place }

func (m *moved) Error() string { return "the node is " + m.to.String() + " from now on" }

// place is the node's present one.
func (w *Worker) place() place { return place{w.id.Cluster, w.id.Role} }

// assigned takes the leader's word on where the node belongs, and says whether that ends its life where it is.
func (w *Worker) assigned(cluster, role string) bool {
	to := place{cluster, role}
	if role == "" || to == w.place() {
		return false
	}
	w.assign(to)
	return true
}

// lives is one life after the other, each in the place that the node then has, until ctx ends.
func (w *Worker) lives(ctx context.Context, p port) error {
	for {
		if err := w.wipe(ctx); err != nil {
			return err
		}
		err := w.life(ctx, p)
		to := (*moved)(nil)
		if !errors.As(err, &to) || ctx.Err() != nil {
			return err
		}
		w.server.gate.close()
		w.uploads.last(ctx)
		if err := w.move(ctx, to.to); err != nil {
			return err
		}
		w.lived++
	}
}

// move writes down the node's new place, and that what it holds of the old one is to be deleted: from here on there is no way back,
// whatever happens meanwhile.
func (w *Worker) move(ctx context.Context, to place) error {
	return w.insist(ctx, "write down the node's new place", func() error {
		return w.changeFile(func(f *nodeFile) { f.Wipe, f.Cluster, f.Role = cmp.Or(f.Wipe, f.Cluster), to.cluster, to.role })
	})
}

// wipe deletes what is left of the cluster that the node was in before, if there is anything. It is no use to anybody until
// that is done: it tries until it can.
func (w *Worker) wipe(ctx context.Context) error {
	left := w.id.Wipe
	if left == "" {
		return nil
	}
	if err := w.insist(ctx, "delete what the node had of cluster "+left, func() error {
		if err := w.disksAreThere(); err != nil {
			return err
		}
		return w.wipeOnce()
	}); err != nil {
		return err
	}
	w.log.Info("the node is wiped", zap.String("cluster", left))
	return w.insist(ctx, "write down that the node is wiped", func() error {
		return w.changeFile(func(f *nodeFile) { f.Wipe = "" })
	})
}

// changeFile changes node.json: first there, then in memory.
func (w *Worker) changeFile(change func(*nodeFile)) error {
	w.idMu.Lock()
	defer w.idMu.Unlock()
	f := w.id.nodeFile
	change(&f)
	if err := w.dir.WriteJSON(f, "node.json"); err != nil {
		return err
	}
	w.id.nodeFile = f
	return nil
}

// insist does something until it works or ctx ends.
func (w *Worker) insist(ctx context.Context, what string, do func() error) error {
	for pause := firstWipe; ; pause = min(2*pause, lastWipe) {
		err := do()
		if err == nil {
			return nil
		}
		w.log.Error("cannot "+what+", trying on", zap.Error(shortage.Explained(err)))
		if !sleep(ctx, pause) {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}

// wipeOnce deletes everything that was the cluster's. The attempts' directories are cleared by whoever opens them next, who also
// ends the processes that might be in them; those of a bootstrap action that was cut short are ended here.
func (w *Worker) wipeOnce() error {
	for _, dir := range w.dataDirs() {
		if err := blockstore.Wipe(dir, w.id.Wipe); err != nil {
			return err
		}
	}
	if err := bootstrap.EndLeftovers(w.dir.Path("bootstrap")); err != nil {
		return err
	}
	for _, name := range []string{"segments", "logs", "programs", "bootstrap"} {
		if err := empty(w.dir.Path(name)); err != nil {
			return err
		}
	}
	return nil
}

// empty deletes all that is in a folder, and leaves the folder, which may be a disk of its own.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// dataDirs is where blocks are, if the node is a core node.
func (w *Worker) dataDirs() []string {
	if len(w.cfg.DataDirs) > 0 {
		return w.cfg.DataDirs
	}
	return []string{w.dir.Path("blocks")}
}

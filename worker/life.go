package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"millrace/pkg/filesocket"
	"millrace/worker/attempt"
	"millrace/worker/programs"
	"millrace/worker/shuffle"
)

// life is what the node does in its present place, until ctx ends or a part of it cannot go on. If it ended because the node has
// another place, that is the error, a *moved.
func (w *Worker) life(ctx context.Context, p port) (err error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	w.assign = func(to place) { end(&moved{to}) }
	if err := w.assemble(); err != nil {
		return err
	}
	if err := w.pool.Open(ctx); err != nil {
		return errors.Join(err, w.pool.Close())
	}
	defer func() { err = errors.Join(err, w.pool.Close()) }()
	defer w.blocks.close()
	if w.clusterFiles == nil {
		files := w.openFiles()
		w.clusterFiles = files
		defer func() { err, w.clusterFiles = errors.Join(err, files.Close()), nil }()
	}
	if w.files, err = filesocket.Listen(w.clusterFiles, w.user.ID()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.files.Close()) }()
	err = w.live(ctx, p)
	w.own.running.close()
	if err != nil {
		return err
	}
	if to := (*moved)(nil); errors.As(context.Cause(ctx), &to) {
		return to
	}
	return nil
}

// assemble makes the parts of a life; it starts nothing.
func (w *Worker) assemble() (err error) {
	w.site = &site{open: w.openStore}
	w.logs = attempt.NewLogs(w.dir.Path("logs"), 0)
	w.uploads = newUploads(w.dir.Path("logs"), w.logs, w.site, w.log)
	if err := w.uploads.find(); err != nil {
		return fmt.Errorf("logs: %w", err)
	}
	w.programs = programs.New(w.dir.Path("programs"))
	if err := w.programs.Open(); err != nil {
		return err
	}
	if err := w.admit(); err != nil {
		return err
	}
	w.segments = shuffle.NewStore(w.dir.Path("segments"))
	if err := w.segments.Open(); err != nil {
		return err
	}
	w.health = newHealth(w)
	w.actions = newBootstraps(w)
	if err := w.actions.runner.Open(); err != nil {
		return err
	}
	w.own = &ownPort{tail: w.cfg.LogTail, actions: w.actions.runner, environ: w.environ, log: w.log}
	w.fetches = shuffle.NewLimit(fetchesAtOnce)
	w.reduces = newReduces()
	w.slots = newSlots(w.cfg.Slots, w.begin)
	w.slots.trust = func() string { return w.credential.Credential().InUse() }
	w.pool, err = attempt.New(attempt.Config{Dir: w.dir.Path("attempts"), Executable: w.cfg.Executable, Args: w.cfg.Arguments, User: w.user, Version: w.cfg.Version, Logs: w.logs, Log: w.log,
		Disk: func() (total, free int64, err error) { return diskSpace(w.dir.Path("attempts")) }})
	if err != nil {
		return err
	}
	if w.blocks, err = w.openBlocks(); err != nil {
		return err
	}
	w.server, err = newServer(w.credential, w.id.Site, w.peers, shuffle.NewServer(w.segments, w.log), w.blocks, w.logs, w.own, w.log)
	return err
}

// admit lets attempts of another user pass to what is theirs: the folders above it.
func (w *Worker) admit() error {
	for _, dir := range []string{w.dir.Path(), w.dir.Path("programs")} {
		if err := w.user.Passage(dir); err != nil {
			return fmt.Errorf("worker: open a way for attempts: %w", err)
		}
	}
	return nil
}

// live runs everything until ctx ends or a part of it cannot go on.
func (w *Worker) live(ctx context.Context, p port) error {
	parts, ctx := errgroup.WithContext(ctx)
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	inSession, endSession := context.WithCancel(context.WithoutCancel(ctx))
	parts.Go(func() error { return w.server.serve(serving, p.lend()) })
	parts.Go(func() error { w.blocks.run(serving); return nil })
	sessionsOver := make(chan struct{})
	parts.Go(func() error {
		defer close(sessionsOver)
		return w.sessions(inSession)
	})
	parts.Go(func() error { w.uploads.run(inSession); return nil })
	parts.Go(func() error { w.actions.run(ctx); return nil })
	parts.Go(func() error { return w.health.watch(ctx) })
	parts.Go(func() error {
		<-ctx.Done()
		w.slots.stop()
		if to := (*moved)(nil); errors.As(context.Cause(ctx), &to) {
			w.log.Info("the node has another place", zap.Stringer("from", w.place()), zap.Stringer("to", to.to))
		} else {
			w.log.Info("worker stops")
			w.settle(w.stopGrace)
		}
		endSession() // first: the leader can hand the rest out again at once
		w.slots.killAll(errStopping)
		<-sessionsOver // which start tasks
		w.tasks.Wait()
		stopServing()
		return nil
	})
	defer stopServing()
	defer endSession()
	return parts.Wait()
}

// errStopping is the cause of kills at the node's end; nobody waits for their reports.
var errStopping = errors.New("the worker stops")

// settle waits until nothing runs and everything is reported, at most for the grace.
func (w *Worker) settle(grace time.Duration) {
	for late := time.Now().Add(grace); !w.slots.settled() && time.Now().Before(late); {
		time.Sleep(stopPoll)
	}
}

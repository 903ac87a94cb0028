package worker

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"millrace/worker/attempt"
	"millrace/worker/programs"
)

// prepare makes the attempt's directory with the shipped files in it.
func (r *runner) prepare() (exe string, err error) {
	if err := r.hasRoom(); err != nil {
		return "", err
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return "", fmt.Errorf("%w: %w", errNoDirectory, err)
	}
	r.made = true
	if exe, err = r.ship(); err != nil {
		return "", err
	}
	spool := filepath.Join(r.dir, attempt.SpoolDir)
	err = r.w.user.Own(r.dir)
	if err == nil {
		err = os.MkdirAll(spool, 0o700)
	}
	if err == nil {
		err = r.w.user.Show(spool)
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNoDirectory, err)
	}
	return exe, nil
}

// ship puts the shipped files into the attempt's directory.
func (r *runner) ship() (exe string, err error) {
	p := r.l.Program
	if p.GetExecutable() == nil && len(p.GetFiles()) == 0 {
		return "", nil
	}
	store, prefix, err := r.w.site.get()
	if err != nil {
		return "", err
	}
	g, ctx := errgroup.WithContext(r.t.ctx)
	g.SetLimit(4)
	if p.Executable != nil {
		g.Go(func() (err error) {
			exe, err = r.w.programs.Get(ctx, store, prefix, p.Executable)
			return err
		})
	}
	for _, f := range p.Files {
		g.Go(func() error {
			path, err := r.w.programs.Get(ctx, store, prefix, f)
			if err != nil {
				return err
			}
			return programs.Place(path, r.dir, f)
		})
	}
	return exe, g.Wait()
}

// hasRoom refuses an attempt while the disk is full: the leader has others start elsewhere.
func (r *runner) hasRoom() error {
	free, err := r.w.room()
	if err != nil {
		return fmt.Errorf("%w: disk space: %w", errNoDirectory, err)
	}
	if free <= 0 {
		return fmt.Errorf("the disk of %s is full: %w", r.w.dir.Path(), unix.ENOSPC)
	}
	return nil
}

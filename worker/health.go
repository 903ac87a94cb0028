package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"millrace/pkg/nodedir"
	"millrace/pkg/shortage"
)

const checkEvery = 500 * time.Millisecond

// health looks after the node's directory: it notices when that is removed, in whole or in part, makes it
// anew from what the process knows, and says what keeps the node from taking tasks.
type health struct {
	w     *Worker
	parts []part // in the directory

	mu      sync.Mutex
	problem string
	renew   context.CancelCauseFunc // ends the present session, so that a new one says what is here
}

// part is one folder of the node's directory.
type part struct {
	name    string
	restore func() error // makes it anew, empty
	was     *os.File     // held open, so that no other folder gets its number; nil: not known
}

var (
	errDirectory = errors.New("the node's directory was removed")
	errRestored  = errors.New("the node's directory was made anew")
)

func newHealth(w *Worker) *health {
	h := &health{w: w}
	for name, restore := range map[string]func() error{
		"segments": w.restoreSegments, "attempts": w.restoreAttempts, "logs": nil, "programs": nil, "pki": w.restoreIdentity,
	} {
		if restore == nil {
			restore = func() error { return os.MkdirAll(w.dir.Path(name), 0o700) }
		}
		h.parts = append(h.parts, part{name: name, restore: restore})
	}
	return h
}

// says is why the node can take no tasks now; "" = it can.
func (h *health) says() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.problem
}

// during sets what ends the present session; nil: there is none.
func (h *health) during(cancel context.CancelCauseFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.renew = cancel
}

// watch checks the directory until ctx ends, or until it belongs to another process.
func (h *health) watch(ctx context.Context) error {
	for i := range h.parts {
		p := &h.parts[i]
		p.was, _ = os.Open(h.w.dir.Path(p.name)) // what is not there is made
		defer func() { p.was.Close() }()         // of a nil file: an error, and no more
	}
	for {
		problem, err := h.check()
		if err != nil {
			return err
		}
		h.mu.Lock()
		was := h.problem
		h.problem = problem
		h.mu.Unlock()
		if was != problem {
			h.w.log.Warn("health", zap.String("problem", problem), zap.String("before", was))
		}
		if !sleep(ctx, checkEvery) {
			return nil
		}
	}
}

// check makes anew what is gone and says what it cannot mend. An error ends the node.
func (h *health) check() (problem string, err error) {
	dir := h.w.dir
	if dir.Lost() {
		err := dir.Restore()
		if errors.Is(err, nodedir.ErrInUse) {
			return "", fmt.Errorf("%w, and %w", errDirectory, err)
		}
		if err != nil {
			return fmt.Sprintf("its directory was removed and cannot be made again: %v", shortage.Explained(err)), nil
		}
		h.w.log.Warn("the node's directory was removed; it is made anew", zap.String("directory", dir.Path()))
	}
	for i := range h.parts {
		if err := h.mend(&h.parts[i]); err != nil {
			return fmt.Sprintf("its folder %s was removed and cannot be made again: %v", dir.Path(h.parts[i].name), shortage.Explained(err)), nil
		}
	}
	if err := h.w.admit(); err != nil {
		return err.Error(), nil
	}
	if problem, err = diskTrouble(dir.Path()); err != nil {
		return fmt.Sprintf("its directory %s does not answer: %v", dir.Path(), shortage.Explained(err)), nil
	}
	if problem == "" {
		if err := h.w.keepTerm(); err != nil {
			h.w.log.Debug("keep the leader's term", zap.Error(err))
		}
	}
	return problem, nil
}

// mend makes a folder anew if it is not the one that it was.
func (h *health) mend(p *part) error {
	path := h.w.dir.Path(p.name)
	now, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && p.was != nil {
		if was, err := p.was.Stat(); err != nil || os.SameFile(now, was) {
			return err
		}
	}
	if err := p.restore(); err != nil {
		return err
	}
	h.w.log.Warn("a folder was removed; it is made anew", zap.String("folder", path))
	p.was.Close() // nothing was written through it
	p.was, err = os.Open(path)
	return err
}

// restoreIdentity writes down again who the node is.
func (w *Worker) restoreIdentity() error {
	if err := os.MkdirAll(w.dir.Path("pki"), 0o700); err != nil {
		return err
	}
	w.idMu.Lock()
	defer w.idMu.Unlock()
	if err := w.dir.Write(w.id.credential.KeyPEM, "pki", "node.key"); err != nil {
		return err
	}
	if err := w.dir.Write([]byte(w.id.ID), "pki", "node.id"); err != nil {
		return err
	}
	w.termKept.Store(0)
	return w.keep(w.id)
}

// restoreSegments forgets the segments that are gone, and has the leader hear of it.
func (w *Worker) restoreSegments() error {
	before := len(w.segments.Held())
	if err := w.segments.Open(); err != nil {
		return err
	}
	if len(w.segments.Held()) < before {
		w.health.resay(errRestored)
	}
	return nil
}

// resay ends the present session: the next one's hello says what is here.
func (h *health) resay(cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.renew != nil {
		h.renew(cause)
	}
}

// restoreAttempts ends the attempts whose directories are gone.
func (w *Worker) restoreAttempts() error {
	w.slots.killAll(errDirectory)
	return w.pool.Restore()
}

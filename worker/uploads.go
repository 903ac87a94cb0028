package worker

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"millrace/pkg/objectstore"
	"millrace/worker/attempt"
	"millrace/worker/shuffle"
)

const (
	uploadersAtOnce = 4
	uploadRetry     = 15 * time.Second
	lastUploads     = 5 * time.Second
)

// uploads brings the logs of ended attempts to the object store, in the background; one
// that is there is removed here. What cannot be stored stays and is tried again.
type uploads struct {
	logs *attempt.Logs
	dir  string
	site *site
	log  *zap.Logger
	kick chan struct{}

	mu      sync.Mutex
	waiting map[logID]struct{}
}

type logID struct{ job, attempt string }

func newUploads(dir string, logs *attempt.Logs, s *site, log *zap.Logger) *uploads {
	return &uploads{dir: dir, logs: logs, site: s, log: log, kick: make(chan struct{}, 1), waiting: map[logID]struct{}{}}
}

func (u *uploads) add(job, attempt string) {
	u.mu.Lock()
	u.waiting[logID{job, attempt}] = struct{}{}
	u.mu.Unlock()
	u.wake()
}

func (u *uploads) wake() {
	select {
	case u.kick <- struct{}{}:
	default:
	}
}

// find lists what a former life has left.
func (u *uploads) find() error {
	if err := os.MkdirAll(u.dir, 0o700); err != nil {
		return err
	}
	return filepath.WalkDir(u.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		job, name := filepath.Base(filepath.Dir(path)), strings.TrimSuffix(d.Name(), ".log")
		if !shuffle.ValidName(job) || !shuffle.ValidName(name) || name == d.Name() {
			return os.Remove(path)
		}
		u.mu.Lock()
		u.waiting[logID{job, name}] = struct{}{}
		u.mu.Unlock()
		return nil
	})
}

func (u *uploads) run(ctx context.Context) {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-u.kick:
		case <-again:
		}
		again = nil
		if store, prefix, err := u.site.get(); err == nil && u.round(ctx, store, prefix) > 0 {
			again = time.After(uploadRetry)
		}
	}
}

// last tries everything that waits once more, before it is deleted with all else.
func (u *uploads) last(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lastUploads)
	defer cancel()
	if store, prefix, err := u.site.get(); err == nil {
		u.round(ctx, store, prefix)
	}
}

// round tries everything that waits and says how many failed.
func (u *uploads) round(ctx context.Context, store objectstore.Store, prefix objectstore.URL) (failed int) {
	u.mu.Lock()
	var list []logID
	for id := range u.waiting {
		list = append(list, id)
	}
	u.mu.Unlock()
	var g errgroup.Group
	g.SetLimit(uploadersAtOnce)
	var mu sync.Mutex
	for _, id := range list {
		g.Go(func() error {
			err := u.upload(ctx, store, prefix, id)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				u.mu.Lock()
				delete(u.waiting, id)
				u.mu.Unlock()
				return nil
			}
			if ctx.Err() == nil {
				u.log.Warn("store a log", zap.String("attempt", id.attempt), zap.Error(err))
			}
			mu.Lock()
			failed++
			mu.Unlock()
			return nil
		})
	}
	_ = g.Wait() // each has been dealt with
	return failed
}

func (u *uploads) upload(ctx context.Context, store objectstore.Store, prefix objectstore.URL, id logID) error {
	path := u.logs.Path(id.job, id.attempt)
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	_, err = store.Put(ctx, prefix.Bucket, prefix.Key+"logs/"+id.job+"/"+id.attempt+".log", f, st.Size(),
		objectstore.PutOptions{ContentType: "text/plain; charset=utf-8"})
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	_ = os.Remove(filepath.Dir(path)) // if it was the job's last
	return nil
}

package worker

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"millrace/pkg/api"
	"millrace/worker/shuffle"
)

const discardWithin = 10 * time.Second

// acknowledged takes the leader's answer to a report, or its word that a segment is not wanted.
func (w *Worker) acknowledged(a *api.ReportAck) {
	r, last := w.slots.acknowledged(a.Attempt)
	if last && r.Kind == api.TaskKind_TASK_KIND_REDUCE {
		w.reduces.forget(r.Job)
	}
	to, pushed := w.pushed.take(a.Attempt)
	if a.Accepted {
		return
	}
	job, _, isMap := strings.Cut(a.Attempt, "-m-")
	if !isMap {
		return
	}
	w.tasks.Go(func() {
		err := w.segments.Drop(job, a.Attempt)
		if pushed {
			err = errors.Join(err, w.discard(to, job, a.Attempt))
		}
		if err != nil { // the job's end frees it, too
			w.log.Debug("drop a segment", zap.String("attempt", a.Attempt), zap.Error(err))
		}
	})
}

func (w *Worker) discard(to *api.NodeAddress, job, attempt string) error {
	ctx, cancel := context.WithTimeout(context.Background(), discardWithin)
	defer cancel()
	c, err := w.clients.Client(to.Node)
	if err != nil {
		return err
	}
	return shuffle.Discard(ctx, c, to.Address, job, attempt)
}

// forget frees what the node holds for a job.
func (w *Worker) forget(job string) {
	w.slots.forget(job)
	w.reduces.forget(job)
	w.pushed.forget(job)
	w.tasks.Go(func() {
		w.pool.ForgetJob(job)
		if err := w.segments.Forget(job); err != nil {
			w.log.Warn("free a job's segments", zap.String("job", job), zap.Error(err))
		}
	})
}

// pushed remembers where segments went until the leader says whether it wants them.
type pushed struct {
	mu sync.Mutex
	to map[string]*api.NodeAddress // by attempt
}

func (p *pushed) add(attempt string, to *api.NodeAddress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.to == nil {
		p.to = map[string]*api.NodeAddress{}
	}
	p.to[attempt] = to
}

func (p *pushed) take(attempt string) (*api.NodeAddress, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	to, ok := p.to[attempt]
	delete(p.to, attempt)
	return to, ok
}

func (p *pushed) forget(job string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a := range p.to {
		if strings.HasPrefix(a, job+"-") {
			delete(p.to, a)
		}
	}
}

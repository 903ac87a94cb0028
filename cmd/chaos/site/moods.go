package site

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"

	"millrace/cmd/chaos/schedule"
	"millrace/pkg/objectstore/faultproxy"
)

func (s *Site) strikeStore(f schedule.Fault) (heal func() error, what string, err error) {
	st := s.store
	nothing := func() error { return nil }
	switch f.Kind {
	case schedule.StoreAway:
		st.tcp.Stop()
		return st.tcp.Start, schedule.Store, nil
	case schedule.StoreKilled:
		st.hold()
		st.signal(syscall.SIGKILL)
		return func() error { st.release(); return nil }, schedule.Store, nil
	case schedule.StoreStopped:
		st.signal(syscall.SIGSTOP)
		return func() error { st.signal(syscall.SIGCONT); return nil }, schedule.Store, nil
	}
	over := make(chan struct{})
	m := moodOf(f, over)
	if m == nil {
		return nothing, "", fmt.Errorf("no such fault: %s", f.Kind)
	}
	st.feel(m)
	return func() error { st.calm(); close(over); return nil }, schedule.Store, nil
}

// mayBeLate are the requests that a commit survives at any later time (docs/design.md, "What may come late").
var mayBeLate = []faultproxy.Op{faultproxy.CompleteUpload, faultproxy.UploadPart, faultproxy.AbortUpload, faultproxy.Put}

// moodOf is what becomes of requests during a fault; over is closed at its end.
func moodOf(f schedule.Fault, over <-chan struct{}) mood {
	d := &dice{r: rand.New(rand.NewPCG(f.Roll, 0))}
	pass := faultproxy.Fault{}
	some := func(part float64, spoilt func() faultproxy.Fault, ops ...faultproxy.Op) mood {
		return func(r faultproxy.Request) faultproxy.Fault {
			if d.chance() < part && (len(ops) == 0 || slices.Contains(ops, r.Op)) {
				return spoilt()
			}
			return pass
		}
	}
	wait := func(ctx context.Context) error {
		select {
		case <-over:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	switch f.Kind {
	case schedule.StoreSlow:
		return some(0.5, func() faultproxy.Fault {
			return faultproxy.Fault{Before: pause(time.Duration(d.chance() * float64(1500*time.Millisecond))), BytesPerSec: 100_000}
		})
	case schedule.StoreErrors:
		return some(0.4, func() faultproxy.Fault {
			return []faultproxy.Fault{{Status: 503, Code: "SlowDown"}, {Status: 500, Code: "InternalError"}, {Status: 502}, {ResetBefore: true}}[int(d.chance()*4)]
		})
	case schedule.StoreLost:
		return some(0.3, func() faultproxy.Fault { return faultproxy.Fault{ResetAfter: true} })
	case schedule.StoreLate:
		return some(0.4, func() faultproxy.Fault {
			later := pause(time.Duration(d.chance() * float64(5*time.Second)))
			return faultproxy.Fault{Late: func() error { return later(context.Background()) }}
		}, mayBeLate...)
	case schedule.StoreTwice:
		return some(0.5, func() faultproxy.Fault { return faultproxy.Fault{Twice: true} }, mayBeLate...)
	case schedule.StoreCuts:
		return some(0.4, func() faultproxy.Fault { return faultproxy.Fault{CutAfter: 1 + int64(d.chance()*60_000)} }, faultproxy.Get)
	case schedule.StoreCommits:
		return some(0.8, func() faultproxy.Fault {
			held := pause(time.Duration(d.chance() * float64(3*time.Second)))
			if d.chance() < 0.5 {
				return faultproxy.Fault{Before: held}
			}
			return faultproxy.Fault{After: held}
		}, faultproxy.CompleteUpload, faultproxy.Put, faultproxy.Delete, faultproxy.DeleteObjects)
	case schedule.StoreHangs:
		return some(0.3, func() faultproxy.Fault { return faultproxy.Fault{Before: wait} })
	}
	return nil
}

// pause waits for a while, or until the request is given up.
func pause(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
}

// dice is chance for many goroutines.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

// chance is a number in [0, 1).
func (d *dice) chance() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.Float64()
}

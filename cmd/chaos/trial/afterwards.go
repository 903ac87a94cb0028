package trial

import (
	"context"
	"errors"
	"time"

	"millrace/cmd/chaos/schedule"
	"millrace/cmd/chaos/site"
	"millrace/cmd/chaos/workload"
)

// answerWithin is for a job that is submitted while one master is down and all else is well.
const answerWithin = 2 * time.Minute

// missEach kills one master after the other, the leader last, and has the two that are left take a job to its end: what went on before
// must not have left a set of three that lives on two.
func (t *Trial) missEach(ctx context.Context) {
	lane := t.work.Lane(lanes+competitors+fileLanes, "")
	var leader string
	for _, master := range t.site.Machines().Masters {
		if led := t.site.Leader(ctx); master == led {
			leader = led
			continue
		}
		t.miss(ctx, master, lane.Next)
	}
	if leader != "" {
		t.miss(ctx, leader, lane.Next)
	}
}

func (t *Trial) miss(ctx context.Context, master string, next func() workload.Order) {
	heal, _, err := t.site.Strike(ctx, schedule.Fault{Kind: schedule.Kill, Target: master})
	if err != nil && !errors.Is(err, site.ErrNothing) {
		t.book.Note("the site", "a master can be killed", "%v", err)
		return
	}
	t.journal.write("one master is missed", map[string]any{"struck": master})
	o := next()
	for o.Cancel { // nobody would cancel it
		o = next()
	}
	limit, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	ended := t.begin(o)
	if t.submit(limit, o) {
		select {
		case <-ended:
		case <-limit.Done():
		}
	}
	if limit.Err() != nil {
		t.book.Note(o.Name, "any one master may be missed", "without %s it was not submitted and done within %v", master, answerWithin)
	}
	if heal != nil {
		if err := heal(); err != nil {
			t.book.Note("the site", "a master starts again", "%v", err)
		}
	}
	back, stop := context.WithTimeout(ctx, answerWithin)
	defer stop()
	for err = t.site.Healthy(back); err != nil; err = t.site.Healthy(back) {
		if !sleep(back, time.Second) {
			t.book.Note("the site", "everything drains", "%s was started again %v ago: %v", master, answerWithin, err)
			return
		}
	}
}

package datanode

import (
	"context"
	"time"
)

const (
	scrubLeast = 1 << 20          // bytes per second, so that little is done soon
	scrubRest  = 10 * time.Minute // between two looks at what is due
	dropEvery  = time.Hour        // unfinished replicas are kept for longer
)

// scrub reads every final replica again within the period.
func (n *Node) scrub(ctx context.Context) {
	for ctx.Err() == nil {
		n.round(ctx)
		rest := time.NewTimer(scrubRest)
		select {
		case <-ctx.Done():
		case <-rest.C:
		}
		rest.Stop()
	}
}

// drop sees to it that unfinished replicas do not stay. It does not wait for the scrubber, whose round may take days.
func (n *Node) drop(ctx context.Context) {
	tick := time.NewTicker(dropEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if n.cfg.Store.DropUnfinished() > 0 {
			n.Relist()
		}
	}
}

// round reads what is due: after half the period, so that the other half is left to read it in.
func (n *Node) round(ctx context.Context) {
	var bytes int64
	for _, d := range n.cfg.Store.Disks() {
		bytes += d.Used
	}
	rate := scrubRateFor(bytes, n.cfg.ScrubPeriod, n.cfg.ScrubRate)
	began, read := time.Now(), int64(0)
	wait := func(ctx context.Context, size int) error {
		err := pace(ctx, began, read, rate)
		read += int64(size)
		return err
	}
	for b := range n.cfg.Store.Scrub(began.Add(-n.cfg.ScrubPeriod / 2)) {
		if n.verify(ctx, b, false, wait) != nil {
			return
		}
	}
}

// scrubRateFor is the rate, in bytes per second, at which so much is read within half the period.
func scrubRateFor(bytes int64, period time.Duration, most int64) int64 {
	return min(max(int64(float64(bytes)/(period.Seconds()/2)), scrubLeast), most)
}

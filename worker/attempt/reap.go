package attempt

import (
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

const reapAfter = time.Second

// reaper reaps orphans: processes whose parent has died and that this process,
// being the nearest sub-reaper, has inherited. Others here wait for their own
// children: it takes only what has been a zombie for reapAfter, which none that
// is waited for ever is.
type reaper struct {
	mine  func(pid int) bool // a child that somebody waits for
	sig   chan os.Signal
	quit  chan struct{}
	ended chan struct{}
}

func startReaper(mine func(pid int) bool) (*reaper, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become the reaper of orphans: %w", err)
	}
	r := &reaper{mine: mine, sig: make(chan os.Signal, 1), quit: make(chan struct{}), ended: make(chan struct{})}
	signal.Notify(r.sig, unix.SIGCHLD)
	go r.run()
	return r, nil
}

func (r *reaper) run() {
	defer close(r.ended)
	seen := map[int]bool{}
	var look <-chan time.Time
	for {
		select {
		case <-r.quit:
			return
		case <-r.sig:
			if look == nil {
				look = time.After(reapAfter)
			}
		case <-look:
			look = nil
			if seen = r.round(seen); len(seen) > 0 {
				look = time.After(reapAfter)
			}
		}
	}
}

// round reaps the zombies that were seen before and gives those that are new.
func (r *reaper) round(before map[int]bool) map[int]bool {
	now, self := map[int]bool{}, os.Getpid()
	for _, p := range processes() {
		if p.state != 'Z' || p.ppid != self || r.mine(p.pid) {
			continue
		}
		if !before[p.pid] {
			now[p.pid] = true
			continue
		}
		// Whatever the answer: it is gone, or somebody else has it.
		_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil)
	}
	return now
}

func (r *reaper) stop() {
	signal.Stop(r.sig)
	close(r.quit)
	<-r.ended
}

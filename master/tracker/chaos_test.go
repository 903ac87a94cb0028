package tracker

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/master/session"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// chaos breaks things at random for a while, and then lets them heal.
type chaos struct {
	w     *world
	mu    sync.Mutex
	r     *rand.Rand
	calm  bool
	since map[string]time.Time // workers that are cut off
}

func (c *chaos) one(in int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.calm && c.r.IntN(in) == 0
}

func (c *chaos) pick(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.r.IntN(n)
}

// act does one thing to the site.
func (c *chaos) act() {
	workers := c.w.sorted()
	k := workers[c.pick(len(workers))]
	_, away := c.since[k.id]
	switch what := c.pick(8); {
	case away && what < 5:
		delete(c.since, k.id)
		k.reconnect()
	case away:
	case what == 0:
		k.die(true)
		c.since[k.id] = time.Now()
	case what == 1:
		k.die(false)
		c.since[k.id] = time.Now()
	case what == 2 || what == 3:
		k.cut()
		c.since[k.id] = time.Now()
	case what == 4:
		c.w.depose()
		c.w.lead()
	}
}

// leases says Down of those that have been away for too long, as a registry would.
func (c *chaos) leases() {
	for id, since := range c.since {
		if time.Since(since) >= session.DefaultLease {
			c.w.leader.Down(id, "nothing heard within the lease")
		}
	}
}

// Workers, leaders, connections and the store fail at random: a job completes
// whole, or fails and leaves nothing.
func TestChaos(t *testing.T) {
	ended := map[string]int{}
	seeds := 150
	if testing.Short() {
		seeds = 50
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.close()
				ended[chaosRun(w, uint64(seed))]++
			})
		})
	}
	t.Log(ended)
	if ended[state.JobCompleted] < seeds/2 {
		t.Errorf("too few jobs complete: %v", ended)
	}
}

func chaosRun(w *world, seed uint64) string {
	c := &chaos{w: w, r: rand.New(rand.NewPCG(seed, 1)), calm: true, since: map[string]time.Time{}}
	for _, k := range []*worker{w.join("i-a", state.RoleCore, 2), w.join("i-b", state.RoleCore, 1), w.join("i-c", state.RoleTask, 2)} {
		k.at(time.Duration(20+c.pick(1500)) * time.Millisecond)
		k.play = func(l *api.Lease) *api.Failure {
			if c.one(25) {
				return program("bad luck")
			}
			return nil
		}
		if seed%5 == 0 { // not quite deterministic
			k.digest = func(l *api.Lease) uint64 {
				if c.one(10) {
					return 7
				}
				return uint64(l.Index)
			}
		}
	}
	trouble := func(op, _, _ string) error {
		if op != "MakeBucket" && c.one(20) {
			return fmt.Errorf("%s: %w", op, objectstore.ErrUnreachable)
		}
		return nil
	}
	w.mem.Fault, w.mem.Lost = trouble, trouble
	w.lead()
	reduces := []int{0, 1, 3}[c.pick(3)]
	w.submit(4+c.pick(8), reduces, func(j *state.Job, _ *api.JobSpec) { j.Overwrite = c.pick(2) == 0 })
	c.mu.Lock()
	c.calm = false
	c.mu.Unlock()
	for range 40 {
		time.Sleep(time.Duration(c.pick(400)) * time.Millisecond)
		synctest.Wait()
		c.act()
		c.leases()
	}
	c.mu.Lock()
	c.calm = true
	c.mu.Unlock()
	for _, k := range w.sorted() {
		if _, away := c.since[k.id]; away {
			k.reconnect()
		}
	}
	j := w.await()
	if j.State == state.JobCompleted {
		w.committed()
	} else {
		w.nothing(state.JobFailed)
	}
	return j.State
}

package tracker

import (
	"sync"
	"time"

	"millrace/master/state"
)

// Live is what the leader knows of an open job beyond the log.
type Live struct {
	Planning bool
	Trouble  string    // what is being tried again; "" = nothing
	Since    time.Time // when that trouble began
	Turn     string    // why it is not planned yet: other jobs of its cluster come first; "" = that is not so
	NoRoom   string    // why nothing of it runs: no node has the disk for it; "" = that is not so
	Again    int       // maps whose output was lost and is not there again
	Maps     LiveTasks
	Reduces  LiveTasks
	// BytesDone is input bytes passed by completed and by running maps.
	BytesDone      int64
	BytesPerSecond int64         // of input that maps pass, and of map output that reduces pass; smoothed
	ETA            time.Duration // until the last reduce is done; 0 = not known
	Attempts       []LiveAttempt
	// StoreRetries is the requests that were repeated by the leader and by attempts that
	// run or have won; StoreTrouble says what one was last repeated for.
	StoreRetries int64
	StoreTrouble string
}

// LiveTasks counts tasks; a task whose lease has not started is pending.
type LiveTasks struct {
	Pending, Prefetched, Running int
}

// LiveAttempt is an attempt that has not ended in the log.
type LiveAttempt struct {
	ID          string
	Task        state.TaskID
	Node        string
	Started     bool // in a slot
	StartedAt   time.Time
	MovedAt     time.Time // when it was last seen to get on
	BytesDone   int64
	RecordsDone int64
}

// Live gives the leader's view of an open job; false if it tracks no such job.
func (t *Tracker) Live(job string) (live Live, ok bool) {
	answered := t.ask(func() {
		if j := t.jobs[job]; j != nil {
			live, ok = j.overlay(t.cfg.Now()), true
		}
	})
	return live, ok && answered
}

// Lives gives the leader's view of those of the jobs that it tracks.
func (t *Tracker) Lives(jobs []string) map[string]Live {
	lives := make(map[string]Live, len(jobs))
	if !t.ask(func() {
		now := t.cfg.Now()
		for _, id := range jobs {
			if j := t.jobs[id]; j != nil {
				lives[id] = j.overlay(now)
			}
		}
	}) {
		return nil
	}
	return lives
}

// Queued is how many tasks of a cluster wait for a slot.
func (t *Tracker) Queued(cluster string) (n int) {
	t.ask(func() { n = t.queued(cluster) })
	return n
}

func (t *Tracker) queued(cluster string) (n int) {
	for _, j := range t.order {
		if j.rec.Cluster != cluster || !j.tasked || j.rec.Ending != "" {
			continue
		}
		n += j.waiting[state.Map].count
		if t.mapsStarted(j) {
			n += j.waiting[state.Reduce].count
		}
		for _, a := range j.live {
			if !a.started && !a.ending {
				n++
			}
		}
	}
	return n
}

// RunningOn is how many attempts are in slots of a node.
func (t *Tracker) RunningOn(id string) (n int) {
	t.ask(func() {
		if w := t.nodes[id]; w != nil {
			for _, a := range w.attempts {
				if a.started && !a.ending {
					n++
				}
			}
		}
	})
	return n
}

// Changed gives a channel that is closed when Live of a job may say something new.
func (t *Tracker) Changed(job string) <-chan struct{} { return t.changes.watch(job) }

func (j *job) overlay(now time.Time) Live {
	l := Live{Planning: !j.rec.Planned() && j.turn == "", Turn: j.turn, Trouble: j.trouble, Since: j.troubleSince}
	l.StoreRetries, l.StoreTrouble = j.allRetries()
	l.NoRoom = j.noRoom
	for kind, sum := range map[string]*LiveTasks{state.Map: &l.Maps, state.Reduce: &l.Reduces} {
		for _, k := range j.tasks(kind) {
			if k.done {
				continue
			}
			if k.prior != nil {
				l.Again++
			}
			switch a := k.current; {
			case a == nil, a.ending: // its slot is free again; the log decides what it was
				sum.Pending++
			case !a.started:
				sum.Pending++
				sum.Prefetched++
			default:
				sum.Running++
			}
		}
	}
	for _, a := range j.live {
		l.Attempts = append(l.Attempts, LiveAttempt{
			ID: a.id, Task: a.task.id, Node: a.node, Started: a.started, StartedAt: a.from, MovedAt: a.moved, BytesDone: a.bytes, RecordsDone: a.records,
		})
	}
	l.BytesDone, _ = j.progress()
	seen := j.pace // as it would be now: looking changes nothing
	seen.Add(now, j.passed(), j.work())
	l.BytesPerSecond = int64(seen.Rate())
	if left, known := seen.Left(); known {
		l.ETA = left
	}
	return l
}

// passed is what a job's pace is measured in: bytes of input that maps have passed, and of segments that reduces have.
func (j *job) passed() int64 {
	mapped, reduced := j.progress()
	return mapped + reduced
}

// work is what passed will be in the end. What the maps will write is taken from what they have written.
func (j *job) work() int64 {
	segments := j.rec.MapLedger.Bytes
	if j.rec.MapOnly() {
		segments = 0
	} else if done := j.rec.BytesDone; done > 0 && done < j.rec.BytesTotal {
		segments = int64(float64(segments) * float64(j.rec.BytesTotal) / float64(done))
	}
	return j.rec.BytesTotal + segments
}

// progress is the bytes passed by maps and by reduces, running ones included.
func (j *job) progress() (mapped, reduced int64) {
	mapped, reduced = j.rec.BytesDone, j.rec.Fetched.Bytes
	for _, a := range j.live {
		switch {
		case a.task.done || a.task.current != a:
		case a.task.id.Kind == state.Map:
			mapped += min(a.bytes, a.task.bytes)
		default:
			reduced += a.bytes
		}
	}
	return mapped, reduced
}

// observeEvery is how often a job's pace is looked at at most: each look goes through all that runs of it.
const observeEvery = 500 * time.Millisecond

// observe takes a sample for the job's pace.
func (j *job) observe(now time.Time) {
	j.observed = now
	j.pace.Add(now, j.passed(), j.work())
}

// changes wakes those who watch a job.
type changes struct {
	mu    sync.Mutex
	chans map[string]chan struct{}
}

func (c *changes) watch(job string) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.chans == nil {
		c.chans = map[string]chan struct{}{}
	}
	ch := c.chans[job]
	if ch == nil {
		ch = make(chan struct{})
		c.chans[job] = ch
	}
	return ch
}

func (c *changes) tell(job string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch := c.chans[job]; ch != nil {
		close(ch)
		delete(c.chans, job)
	}
}

// all wakes everybody: this leader's time is over.
func (c *changes) all() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for job, ch := range c.chans {
		close(ch)
		delete(c.chans, job)
	}
}

package tracker

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"millrace/jobs"
	"millrace/master/state"
)

// Stragglers get a second attempt beside the first, in slots that nothing else wants. Which, follows LATE
// (M. Zaharia and others, "Improving MapReduce Performance in Heterogeneous Environments", OSDI 2008): by the rate of their
// progress, the one with the longest time left first, a bounded number at once, and none that is nearly done.
const (
	speculateEvery = time.Second
	// A task runs so long at least, and so many times longer than its input takes at the median speed of its kind, before
	// it is a straggler; one that has passed all of its input, whose rate tells nothing, longer.
	stragglerAfter = 3 * time.Second
	stragglerTimes = 2
	finishingTimes = 3
	// At most one in so many of a job's tasks has a second attempt at a time, but always one.
	speculatedShare = 10
	speedsKept      = 101 // of each kind, of those that ended last
)

// The properties that turn it off, as Hadoop has them.
var speculative = map[string]string{state.Map: "mapreduce.map.speculative", state.Reduce: "mapreduce.reduce.speculative"}

func (j *job) speculates(kind string) bool {
	if jobs.Copies(j.spec) {
		return false // two attempts would move the same bytes twice
	}
	return j.spec.GetProgram().GetProperties()[speculative[kind]] != "false"
}

// clocked notes how fast a task was: bytes of its input per second, by its worker's clock.
func (j *job) clocked(k *task, win *state.Completion) {
	took := max(win.EndedAt.Sub(win.StartedAt), time.Millisecond)
	speed := float64(max(j.inputOf(k, win), 1)) / took.Seconds()
	list := append(j.speeds[k.id.Kind], speed)
	j.speeds[k.id.Kind] = list[max(0, len(list)-speedsKept):]
}

// inputOf is the bytes that a task reads: of a map's split, of what the reduces that are done have decoded.
func (j *job) inputOf(k *task, win *state.Completion) int64 {
	switch {
	case k.id.Kind == state.Map:
		return k.bytes
	case win != nil:
		return win.Ledger.Bytes
	}
	return j.rec.MapLedger.Bytes / int64(max(j.rec.Reduces, 1)) // no better guess
}

// straggler says whether an attempt is one, and how long it will take yet, as far as that can be told. The
// median is of bytes per second.
func (j *job) straggler(a *attempt, median float64, now time.Time) (left time.Duration, slow bool) {
	k := a.task
	size := float64(max(j.inputOf(k, nil), 1))
	ran := now.Sub(a.began)
	usual := seconds(size / median)
	if ran < stragglerAfter || ran < stragglerTimes*usual {
		return 0, false
	}
	done := float64(a.bytes)
	if done >= size {
		return ran, ran > finishingTimes*usual
	}
	left = ran // nothing at all is known of one that has done nothing
	if done > 0 {
		left = seconds((size - done) / (done / ran.Seconds()))
	}
	left = max(left, now.Sub(a.moved)) // nor of one that stands still
	return left, left > usual          // a second one would be faster
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// speculate gives second attempts to stragglers while slots are free.
func (t *Tracker) speculate() {
	now := t.cfg.Now()
	if now.Sub(t.speculated) < speculateEvery {
		return
	}
	t.speculated = now
	for _, j := range t.order {
		j.wanting = false
		room := t.idle(j.rec.Cluster, 1) > 0
		if !t.leasing(j) || j.rec.Phase == state.PhaseCommitting {
			continue
		}
		for _, kind := range []string{state.Map, state.Reduce} {
			if kind == state.Reduce && j.rec.MapsDone < j.rec.Maps || len(j.speeds[kind]) == 0 || !j.speculates(kind) {
				continue // reduces wait for maps; there is nothing to compare with
			}
			if kind == state.Reduce && !room {
				continue
			}
			for _, a := range t.stragglers(j, kind, now) {
				if !t.second(j, a) && kind == state.Map && !j.wanting {
					j.wanting = t.yield(j, a)
				}
			}
		}
	}
}

// stragglers are the attempts of a kind that are to have a second one beside them now, the slowest first.
func (t *Tracker) stragglers(j *job, kind string, now time.Time) (list []*attempt) {
	speeds := slices.Sorted(slices.Values(j.speeds[kind]))
	median := speeds[len(speeds)/2]
	left := map[*attempt]time.Duration{}
	running := 0
	for _, a := range j.live {
		if a.task.id.Kind != kind {
			continue
		}
		if a.second {
			running++
		}
		if !a.started || a.killing != "" || a.ending || a.task.done || a.task.current != a || len(a.task.live) > 1 {
			continue
		}
		if d, slow := j.straggler(a, median, now); slow {
			left[a] = d
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b *attempt) int {
		if left[a] != left[b] {
			return int(left[b]/time.Millisecond) - int(left[a]/time.Millisecond)
		}
		return a.task.id.Index - b.task.id.Index
	})
	return list[:min(len(list), max(0, max(1, len(j.tasks(kind))/speculatedShare)-running))]
}

// yield has a reduce give its slot to a map's second attempt: it waits for that map, and so would hold up what it waits
// for. While that is so none of the job's reduces gets a slot.
func (t *Tracker) yield(j *job, a *attempt) bool {
	var victim *attempt
	need := t.need(j, a.task)
	for _, b := range j.live {
		n := t.nodes[b.node]
		switch {
		case b.task.id.Kind != state.Reduce || n == nil || !n.takes(t.cfg.Now()):
		case !a.mayRunBeside(n.id) || n.volume.room() < need-b.held(n.volume):
		case b.killing != "" || b.ending:
			return true // one is about to
		case victim == nil || b.began.After(victim.began) || b.began.Equal(victim.began) && b.id > victim.id:
			victim = b
		}
	}
	if victim == nil {
		return t.freeElsewhere(j, a)
	}
	t.kill(victim, "its slot is needed by a map")
	return true
}

// freeElsewhere says whether another node has a slot, which a reduce might take first.
func (t *Tracker) freeElsewhere(j *job, a *attempt) bool {
	return t.good(j.rec.Cluster, roomFree, func(id string) bool { return id != a.node })
}

// second leases a straggler's task once more, on another node that is free; it says whether that is done, or on its way: an output
// task needs an upload of its own first.
func (t *Tracker) second(j *job, a *attempt) bool {
	k := a.task
	for n := range t.roomsOf(j.rec.Cluster).rankings[roomFree].best() {
		if j.writesOutput(k) && !k.uploaded() { // there is none, or it was too old to be used
			t.wantSpare(j, k)
			return true
		}
		if !t.hasDisk(n, t.need(j, k)) || !a.mayRunBeside(n.id) {
			continue
		}
		before := k.number
		t.lease(j, k, n.id)
		if k.number == before {
			continue // it has not left
		}
		k.straggles = false
		for _, b := range k.live {
			if b != a {
				b.second = true
			}
		}
		j.log.Info("a second attempt beside a straggler", zap.String("task", k.String()), zap.String("straggler", a.id), zap.String("node", n.id))
		return true
	}
	return false
}

// wantSpare has an upload made for a straggler's second attempt.
func (t *Tracker) wantSpare(j *job, k *task) {
	if k.spare == nil && !k.straggles {
		k.straggles = true
		j.unmade = append(j.unmade, k)
		t.touch(j)
	}
}

// mayRunBeside says whether a node will do for a second attempt beside this one.
func (a *attempt) mayRunBeside(node string) bool {
	return node != a.node && !slices.Contains(a.task.avoid, node) && !slices.Contains(a.task.shun, node)
}

// outrun ends the attempts of a task that another one has won.
func (t *Tracker) outrun(k *task) {
	for _, a := range k.live {
		t.kill(a, "another attempt was faster")
	}
}

// promote makes another live attempt of a task the one that may win, when its current one is over.
func (t *Tracker) promote(k *task) {
	var best *attempt
	for _, a := range k.live {
		if a.killing == "" && !a.ending && (best == nil || a.id < best.id) {
			best = a
		}
	}
	k.current = best
}

package tracker

import (
	"encoding/json"
	"errors"
	"sync"

	"millrace/master/state"
)

// How much of EndTasks goes into one log entry: an entry delays heartbeats
// when it grows to half a megabyte.
const (
	maxEnds     = 128
	maxEndBytes = 256 << 10
)

// pipeline is the queue of commands for the log. What is at its head and does
// not concern the same job goes at once (a flight); the next flight waits until
// the last one is applied, and its answers are handed out in order. So what the
// loop learns of one job has the log's order.
type pipeline struct {
	queue  []*entry
	flying bool
}

type entry struct {
	cmd  state.Command
	jobs map[string]struct{}
	then func(result any, err error)

	ends  []state.EndTask // of an EndTasks entry, in place of cmd
	thens []func(state.EndTaskResult)
	bytes int
}

// propose queues a command that concerns one job.
func (t *Tracker) propose(job string, c state.Command, then func(result any, err error)) {
	t.entries.queue = append(t.entries.queue, &entry{cmd: c, jobs: map[string]struct{}{job: {}}, then: then})
}

// proposeEnd queues an ended attempt; those that wait share an entry.
func (t *Tracker) proposeEnd(e state.EndTask, then func(state.EndTaskResult)) {
	size := endSize(e)
	var last *entry
	if n := len(t.entries.queue); n > 0 {
		last = t.entries.queue[n-1]
	}
	if last == nil || last.ends == nil || len(last.ends) >= maxEnds || last.bytes+size > maxEndBytes {
		last = &entry{jobs: map[string]struct{}{}}
		t.entries.queue = append(t.entries.queue, last)
	}
	last.ends = append(last.ends, e)
	last.thens = append(last.thens, then)
	last.bytes += size
	last.jobs[e.Job] = struct{}{}
}

// endSize is the size of an EndTask in the log, which is JSON: a program's last words may take six times their bytes there.
func endSize(e state.EndTask) int {
	text, err := json.Marshal(e)
	if err != nil {
		return maxEndBytes // the log will say what is wrong with it, and with no other's end in the same entry
	}
	return len(text) + len(",")
}

// cut takes the next flight off the queue.
func (p *pipeline) cut() []*entry {
	busy := map[string]struct{}{}
	n := 0
	for ; n < len(p.queue); n++ {
		e := p.queue[n]
		for j := range e.jobs {
			if _, taken := busy[j]; taken {
				flight := p.queue[:n:n]
				p.queue = p.queue[n:]
				return flight
			}
		}
		for j := range e.jobs {
			busy[j] = struct{}{}
		}
	}
	flight := p.queue
	p.queue = nil
	return flight
}

type answer struct {
	result any
	err    error
}

// fly sends the next flight, if none is under way.
func (t *Tracker) fly() {
	if t.entries.flying || len(t.entries.queue) == 0 || t.fatal != nil {
		return
	}
	t.entries.flying = true
	flight := t.entries.cut()
	answers := make([]answer, len(flight))
	t.spawn(func() func() {
		var wg sync.WaitGroup
		for i, e := range flight {
			cmd := e.cmd
			if e.ends != nil {
				cmd = state.EndTasks{Items: e.ends}
			}
			apply := func() { answers[i].result, answers[i].err = t.cfg.Apply(t.ctx, cmd) }
			if i == len(flight)-1 {
				apply()
			} else {
				wg.Go(apply)
			}
		}
		wg.Wait()
		return func() { t.landed(flight, answers) }
	})
}

// landed hands out a flight's answers.
func (t *Tracker) landed(flight []*entry, answers []answer) {
	t.entries.flying = false
	for _, a := range answers {
		if a.err != nil && !refused(a.err) {
			t.fatal = a.err
			return
		}
	}
	for i, e := range flight {
		if e.ends == nil {
			e.then(answers[i].result, answers[i].err)
			continue
		}
		results, _ := answers[i].result.([]state.EndTaskResult)
		for k, then := range e.thens {
			var r state.EndTaskResult
			if k < len(results) {
				r = results[k]
			} else if answers[i].err != nil {
				r.Reason = answers[i].err.Error()
			}
			then(r)
		}
	}
}

// refused says whether an error is the state's answer to a command (which is in
// the log and changed nothing), not the log's failure to take it.
func refused(err error) bool {
	for _, answer := range []error{state.ErrNotFound, state.ErrExists, state.ErrToken, state.ErrOutputReserved,
		state.ErrTooLate, state.ErrNotReady, state.ErrLedger, state.ErrInvalid} {
		if errors.Is(err, answer) {
			return true
		}
	}
	return false
}

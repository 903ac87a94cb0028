package tracker

import (
	"time"

	"millrace/pkg/api"
)

// Away is a store that does not answer, as far as jobs wait for it. The zero value: none does.
type Away struct {
	Job     string // the one that has waited longest
	Jobs    int    // how many wait
	Since   time.Time
	Trouble string // what its request is repeated for
}

const (
	// awayAfter is how long requests must have failed in a row before a store counts as away: a single
	// refusal, or a server that is started again, is nothing that anybody has to look at.
	awayAfter = 5 * time.Second
	// awayFor is how long an attempt that says no more of its requests is still believed to repeat one:
	// longer than one request takes to fail at a store that says nothing at all.
	awayFor = time.Minute
)

// StoreAway says whether jobs of a cluster wait for a store that does not answer.
func (t *Tracker) StoreAway(cluster string) (away Away) {
	t.ask(func() {
		now := t.cfg.Now()
		for _, j := range t.order {
			if j.rec.Cluster != cluster {
				continue
			}
			since, trouble := j.away(now)
			if trouble == "" {
				continue
			}
			if away.Jobs++; away.Jobs == 1 || since.Before(away.Since) {
				away.Job, away.Since, away.Trouble = j.id, since, trouble
			}
		}
	})
	return away
}

// away says since when the store has not answered the leader, or one of the job's attempts, and what that is like.
func (j *job) away(now time.Time) (since time.Time, trouble string) {
	if j.trouble != "" && now.Sub(j.troubleSince) >= awayAfter {
		return j.troubleSince, j.trouble
	}
	for _, a := range j.live {
		if a.started && a.store.away(now) && (trouble == "" || a.store.first.Before(since)) {
			since, trouble = a.store.first, a.store.trouble
		}
	}
	return since, trouble
}

// repetitions are the requests that an attempt has repeated since it last got on.
type repetitions struct {
	first, last time.Time // zero: none
	trouble     string
}

// heard takes over what a heartbeat says of an attempt, before its counts are taken over.
func (r *repetitions) heard(now time.Time, a *attempt, p *api.AttemptProgress) {
	if p.BytesDone != a.bytes || p.RecordsDone != a.records {
		*r = repetitions{}
	}
	if p.StoreRetries <= a.retried {
		return
	}
	if r.first.IsZero() {
		r.first = now
	}
	r.last, r.trouble = now, p.StoreTrouble
}

func (r *repetitions) away(now time.Time) bool {
	return r.last.Sub(r.first) >= awayAfter && now.Sub(r.last) < awayFor
}

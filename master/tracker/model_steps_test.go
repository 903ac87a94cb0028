package tracker

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// step is one thing that may happen next.
type step struct {
	name    string
	touches []string // what its order with others matters for; nil = everything
	take    func()
}

// apart says whether the order of two steps does not matter.
func (s step) apart(o step) bool {
	if s.touches == nil || o.touches == nil {
		return false
	}
	return !slices.ContainsFunc(s.touches, func(x string) bool { return slices.Contains(o.touches, x) })
}

const pause = 2 * time.Second // longer than any pause between two tries that a run comes to

// steps lists all that may happen next, first what happens when nothing goes wrong.
func (m *model) steps() (list []step) {
	m.forget()
	pending, late := m.hanging()[0], m.hanging()[1]
	add := func(name string, touches []string, take func()) {
		list = append(list, step{name, touches, take})
	}
	waiting, settled := false, m.left == budget{} && m.cancel == m.cancelled
	for _, r := range pending {
		if waiting && settled && !m.deposed(r) {
			continue // nothing goes wrong any more: one order will do
		}
		waiting = waiting || !m.deposed(r)
		add(r.name, m.touches(r), func() { m.carryOut(r) })
	}
	if !waiting {
		add("time passes", nil, func() { m.ticks++; time.Sleep(pause) })
	}
	if m.cancel && !m.cancelled {
		add("the job is cancelled", nil, m.cancelJob)
	}
	for _, n := range m.nodes {
		if n.away {
			add(n.id+" comes back", nil, func() { m.setAway(n, false); m.hello(n) })
		}
	}
	for _, r := range late {
		add(r.name+" is carried out late", m.touches(r), func() { m.land(r) })
	}
	if m.left.Faults > 0 {
		for _, r := range pending {
			if !m.deposed(r) {
				m.faults(r, add)
			}
		}
		m.misfortunes(add)
	}
	if m.left.Changes > 0 {
		m.changes(pending, add)
	}
	return list
}

// forget drops late requests that can do nothing any more: their upload is gone for
// good, or they store the plan, the same one again.
func (m *model) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	there := map[string]bool{}
	for _, u := range m.watch.uploads() {
		there[u.ID] = true
	}
	m.late = slices.DeleteFunc(m.late, func(r *request) bool {
		return strings.Contains("UploadPart CompleteUpload AbortUpload", r.op) && !there[r.keys[1]] || strings.HasPrefix(r.keys[0], "plans/")
	})
}

// deposed says whether the request is of a leader that is not in office.
func (m *model) deposed(r *request) bool {
	return strings.HasPrefix(r.who, "leader") && r.who != m.office().name
}

// touches: what a request's order with others matters for. Requests on different
// keys go together in any order, as do entries and requests of one leader whose
// answers come together.
func (m *model) touches(r *request) []string {
	switch {
	case r.entry && m.deposed(r):
		return []string{r.who}
	case r.entry:
		return []string{"log", "loop"}
	case r.op == "UploadPart":
		return []string{r.keys[0], "loop"}
	case r.op == "Delete":
		return r.keys
	case r.op == "List" && r.keys[0] == "out/":
		return nil
	}
	return r.keys[:1]
}

// carryOut carries a request out and answers it.
func (m *model) carryOut(r *request) {
	m.take(&m.pending, r)
	do := r.do
	if m.deposed(r) {
		do = func() (string, error) { return m.unknown(r) }
	}
	r.answer(do())
}

// land carries out a request for which nobody waits any more.
func (m *model) land(r *request) {
	m.take(&m.late, r)
	_, _ = m.unknown(r) // nobody hears of it
}

// unknown carries out what the leader in office does not know of: an upload that comes of it is a stray.
func (m *model) unknown(r *request) (string, error) {
	known := map[string]bool{}
	for _, u := range m.watch.uploads() {
		known[u.ID] = true
	}
	said, err := r.do()
	m.watch.landed(known, r.repeated)
	return said, err
}

func (m *model) spend() {
	m.left.Faults--
	m.spent.Faults++
}

// faults are what may go wrong with one request.
func (m *model) faults(r *request, add func(string, []string, func())) {
	if r.entry {
		return
	}
	touches := m.touches(r)
	answer := func(what string, err error) {
		add(r.name+" "+what, touches, func() {
			m.spend()
			m.take(&m.pending, r)
			r.answer("", err)
		})
	}
	unclear := fmt.Errorf("%s: %w", r.op, objectstore.ErrUnreachable)
	if r.write {
		add(r.name+" gets no answer in time", touches, func() {
			m.spend()
			m.giveUp(r)
			r.answer("", unclear)
		})
		add(r.name+" is repeated on the way", touches, func() {
			m.spend()
			m.carryOut(r)
			again := *r
			again.name += ", repeated,"
			again.repeated = true
			m.late = append(m.late, &again)
		})
	} else {
		answer("fails", unclear)
	}
	switch r.op {
	case "UploadPart":
		return
	case "AbortUpload":
		answer("is answered and not done, as a part is under way", nil)
	case "CompleteUpload":
		answer("is refused as invalid", fmt.Errorf("a part cannot be read: %w", objectstore.ErrInvalid))
		answer("is answered and not done", nil)
		add(r.name+" is answered, and nothing comes of it", touches, func() {
			m.spend()
			m.take(&m.pending, r)
			_ = m.mem.AbortUpload(carried, "data", r.keys[0], m.uploads[r.keys[1]])
			r.answer("", nil)
		})
	}
	if m.refusals {
		add(r.name+" is denied", touches, func() {
			m.spend()
			m.denied = true
			m.take(&m.pending, r)
			r.answer("", fmt.Errorf("%s: %w", r.op, objectstore.ErrDenied))
		})
	}
}

// misfortunes are what else may go wrong: with uploads, attempts and nodes.
func (m *model) misfortunes(add func(string, []string, func())) {
	for _, u := range m.watch.uploads() {
		add(fmt.Sprintf("the store drops %s of %s", u.ID, u.Key), []string{u.Key}, func() {
			m.spend()
			_ = m.mem.AbortUpload(carried, "data", u.Key, m.uploads[u.ID])
		})
		parts, _ := m.parts(u.Key, u.ID)
		if len(parts) > 1 && !m.halved[u.ID] {
			add(fmt.Sprintf("the store loses a part of %s of %s", u.ID, u.Key), []string{u.Key}, func() {
				m.spend()
				m.halved[u.ID] = true
			})
		}
	}
	for _, a := range m.attempts {
		if a.over || a.upload == nil {
			continue
		}
		add("attempt "+a.name+" fails", nil, func() {
			m.spend()
			m.stop(a, api.FailureKind_FAILURE_KIND_PROGRAM, "exit status 3")
		})
	}
	for _, n := range m.nodes {
		runs := slices.ContainsFunc(m.attempts, func(a *modelAttempt) bool { return a.node == n && a.upload != nil })
		if runs && !n.away {
			add(n.id+" is cut off, its attempts go on", nil, func() {
				m.spend()
				m.setAway(n, true)
				m.office().Down(n.id, "nothing heard within the lease")
				m.office().heard = append(m.office().heard, n.id+" is down")
			})
		}
	}
}

// changes are how the leader may change: it dies, or it goes on without knowing
// that it is deposed; an entry under way is lost, or in the log without its knowing.
// Until it commits or cleans up, one that goes on can do no more than one that dies, whose
// requests come late: each further step of it needs an entry, but for more uploads.
func (m *model) changes(pending []*request, add func(string, []string, func())) {
	change := func(name string, f func()) {
		add(name, nil, func() { m.left.Changes--; f() })
	}
	change("the leader dies", func() { m.die(nil) })
	goesOn := m.job().Phase == state.PhaseCommitting || m.job().Ending != ""
	if goesOn {
		change("the leader is deposed", func() { m.lead() })
	}
	for _, r := range pending {
		if r.entry && !m.deposed(r) {
			change("the leader dies, "+r.op+" is in the log", func() { m.die(r) })
			if !goesOn {
				continue
			}
			change("the leader is deposed, "+r.op+" is in the log", func() {
				m.take(&m.pending, r)
				_, _ = r.do() // the next leader hears of it, this one does not
				r.answer("", errDied)
				m.lead()
			})
		}
	}
}

// die ends the leader's process. What it has asked the store for may come late.
func (m *model) die(entry *request) {
	if entry != nil {
		_, _ = entry.do()
	}
	l := m.office()
	l.cancel()
	l.over <- <-l.over
	l.dead = true
	m.lead()
}

func (m *model) cancelJob() {
	m.cancelled = true
	if _, err := m.apply(state.CancelJob{Job: testJob, Reason: "test"}); err == nil {
		m.office().Cancelled(testJob)
		m.office().heard = append(m.office().heard, "cancelled")
	}
}

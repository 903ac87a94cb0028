package checker

import (
	"fmt"
	"slices"
	"strings"
)

// Look is one look at the cluster: what was known before it, then what lies in the store, then what the
// cluster says. The order is what makes it sound: a job that is said not to commit yet did not when its
// prefix was listed, and one that had ended before the listing had ended then.
type Look struct {
	b       *Book
	acked   map[string]bool
	ended   map[string]string // by name: the state it had ended in
	holders map[string]*entry // by prefix: whose result lies there
}

// Look begins a look, before anything is listed.
func (b *Book) Look() *Look {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := &Look{b: b, acked: map[string]bool{}, ended: map[string]string{}, holders: map[string]*entry{}}
	for name, e := range b.jobs {
		l.acked[name] = e.acked
		if e.last.Ended() {
			l.ended[name] = e.last.State
		}
	}
	for prefix := range b.at {
		l.holders[prefix] = b.holder(prefix)
	}
	return l
}

// holder is the job whose result lies below a prefix: the last one that completed.
func (b *Book) holder(prefix string) *entry {
	var last *entry
	for _, e := range b.at[prefix] {
		if e.last.State == "COMPLETED" && e.last.EndedAt != nil && (last == nil || e.last.EndedAt.After(*last.last.EndedAt)) {
			last = e
		}
	}
	return last
}

// Judge ends a look. seen was listed after it began, and jobs is a whole list of jobs, asked for when all of that was seen.
// It gives the names of the jobs that were not known before to have ended.
func (l *Look) Judge(seen []Glimpse, jobs []Status) (ended []string) {
	b := l.b
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen += len(seen)
	now := map[string]Status{}
	for _, s := range jobs {
		if other, twice := now[s.Name]; twice {
			b.say(b.entryOf(s), "one job per request id", "both %s and %s", other.ID, s.ID)
		}
		now[s.Name] = s
	}
	for _, g := range seen {
		l.judgeGlimpse(g, now)
	}
	for _, s := range jobs {
		if l.judgeStatus(s) {
			ended = append(ended, s.Name)
		}
	}
	for _, there := range b.at {
		b.judgeReservation(there)
	}
	for name, acked := range l.acked {
		if _, there := now[name]; acked && !there {
			b.say(b.jobs[name], "what was acknowledged survives", "the list of jobs does not have it")
		}
	}
	return ended
}

func (b *Book) entryOf(s Status) *entry {
	if e := b.jobs[s.Name]; e != nil {
		return e
	}
	return &entry{Job: Job{Name: s.Name}, id: s.ID}
}

// judgeStatus takes note of what the cluster says of a job, and says whether it has just ended.
func (l *Look) judgeStatus(s Status) bool {
	b := l.b
	e := b.jobs[s.Name]
	if e == nil {
		b.say(b.entryOf(s), "no job from nowhere", "nobody has submitted it")
		return false
	}
	was := e.last
	if e.id == "" {
		e.id = s.ID
	}
	switch {
	case e.refused:
		b.say(e, "a refused submit starts nothing", "it is %s", s.State)
	case e.id != s.ID:
		b.say(e, "one job per request id", "known as %s, listed as %s", e.id, s.ID)
	case was.Ended() && (was.State != s.State || was.OutputRecords != s.OutputRecords):
		b.say(e, "an end is an end", "it was %s with %d records, and is %s with %d", was.State, was.OutputRecords, s.State, s.OutputRecords)
	case was.committing() && !s.committing():
		b.say(e, "from a commit only forward", "it was %s %s, and is %s %s", was.State, was.Phase, s.State, s.Phase)
	}
	e.last = s
	if was.Ended() || !s.Ended() {
		return false
	}
	switch {
	case e.cancelled && s.State != "CANCELLED":
		b.say(e, "an acknowledged cancel cancels", "it ended %s", s.State)
	case !slices.Contains(e.Ends, s.State) && !(e.cancelled && s.State == "CANCELLED"):
		b.say(e, "a job ends as it must", "it ended %s, not %s: %s", s.State, strings.Join(e.Ends, " or "), s.Reason)
	}
	return true
}

// judgeReservation: an output belongs to one job from its submit to its end.
func (b *Book) judgeReservation(jobs []*entry) {
	for i, e := range jobs {
		for _, o := range jobs[:i] {
			from, other := e.last.SubmittedAt, o.last.SubmittedAt
			if from == nil || other == nil {
				continue
			}
			first, second := o, e
			if from.Before(*other) {
				first, second = e, o
			}
			if end := first.last.EndedAt; end == nil || second.last.SubmittedAt.Before(*end) {
				b.say(second, "an output belongs to one job at a time", "submitted at %s while %s (%s) had it", second.last.SubmittedAt, first.Name, first.last.State)
			}
		}
	}
}

// judgeGlimpse holds what was seen below a prefix against who may have been writing there.
func (l *Look) judgeGlimpse(g Glimpse, now map[string]Status) {
	b := l.b
	holder := l.holders[g.Prefix]
	who := holder
	unsure := false
	for _, e := range b.at[g.Prefix] {
		who = e
		switch state, before := l.ended[e.Name], l.ended[e.Name] != ""; {
		case !before && now[e.Name].committing():
			unsure = true // it may have been putting parts there
		case state == "FAILED" && !slices.Contains(e.Ends, "FAILED") && holder != nil:
			unsure = true // it may have begun to replace what was there
		}
	}
	if who == nil {
		return // not ours
	}
	if g.Manifest != nil && g.Steady {
		for _, wrong := range exact(g) {
			b.say(who, "_SUCCESS names exactly the parts", "%s", wrong)
		}
	}
	switch {
	case unsure:
	case holder == nil && len(g.Objects) > 0:
		b.say(who, "nothing is visible before the commit, or after none", "%s has %s, and the job is %s %s", g.Prefix, names(g), now[who.Name].State, now[who.Name].Phase)
	case holder == nil:
	case g.Manifest == nil:
		b.say(holder, "a result stays", "%s has no _SUCCESS; there is %s", g.Prefix, names(g))
	case !g.Steady || g.Manifest.Job != holder.last.ID:
		b.say(holder, "a result stays until another replaces it", "%s is of job %s, and nobody was committing", g.Prefix+"_SUCCESS", g.Manifest.Job)
	}
}

// names are the keys below the prefix, a few of them.
func names(g Glimpse) string {
	var keys []string
	for _, o := range g.Objects {
		keys = append(keys, strings.TrimPrefix(o.Key, g.Prefix))
	}
	if len(keys) > 8 {
		keys = append(keys[:8], "…")
	}
	return "[" + strings.Join(keys, " ") + "]"
}

// exact says how a listing differs from what its _SUCCESS names.
func exact(g Glimpse) (wrong []string) {
	there := map[string]Object{}
	for _, o := range g.Objects {
		there[o.Key] = o
	}
	named := map[string]bool{g.Prefix + "_SUCCESS": true}
	for _, p := range g.Manifest.Parts {
		switch o, ok := there[p.Key]; {
		case named[p.Key]:
			wrong = append(wrong, p.Key+" is named twice")
		case !ok:
			wrong = append(wrong, p.Key+" is named and not there")
		case o.Size != p.Size:
			wrong = append(wrong, fmt.Sprintf("%s has %d bytes, and is named with %d", p.Key, o.Size, p.Size))
		case o.ETag != p.ETag: // in the block store there is none
			wrong = append(wrong, fmt.Sprintf("%s has ETag %s, and is named with %s", p.Key, o.ETag, p.ETag))
		}
		named[p.Key] = true
	}
	for _, o := range g.Objects {
		if !named[o.Key] {
			wrong = append(wrong, o.Key+" is there and not named")
		}
	}
	return wrong
}

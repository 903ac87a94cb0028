// Package checker holds what a cluster does against the truth. It shares no code with the cluster:
// it makes the inputs, knows by plain Go what must come of them, reads the object store by itself,
// and knows of the cluster only what its command line prints.
//
// A Book is the pure half: it is told what was submitted and acknowledged, what was seen in the
// store, and what the cluster said afterwards, and finds what does not agree. Store is the half that reads.
package checker

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Discrepancy is something that is not as it must be.
type Discrepancy struct {
	At   time.Time `json:"at"`
	Job  string    `json:"job"` // the name, and the id where it is known
	Rule string    `json:"rule"`
	What string    `json:"what"`
}

func (d Discrepancy) String() string { return fmt.Sprintf("%s: %s: %s", d.Rule, d.Job, d.What) }

// Job is what is expected of a job before it is submitted.
type Job struct {
	Name         string   // unique; its request id too
	Prefix       string   // of its output, in the bucket of outputs, with a slash at the end
	Want         Want     // of its result, if it completes
	Ends         []string // the states that it may end in
	InputRecords int64    // over all its inputs
	Parts        []string // keys of every part that it could make: where unfinished uploads are looked for
}

// Status is a job as `job list --json` prints it.
type Status struct {
	ID            string                      `json:"id"`
	Name          string                      `json:"name"`
	State         string                      `json:"state"`
	Phase         string                      `json:"phase"`
	Reason        string                      `json:"reason"`
	SubmittedAt   *time.Time                  `json:"submittedAt"`
	EndedAt       *time.Time                  `json:"endedAt"`
	OutputRecords int64                       `json:"outputRecords"`
	OutputBytes   int64                       `json:"outputBytes"`
	Counters      map[string]map[string]int64 `json:"counters"`
}

// Ended says whether the state is a last one.
func (s Status) Ended() bool {
	return s.State == "COMPLETED" || s.State == "FAILED" || s.State == "CANCELLED"
}

// committing says whether parts of the job may be seen by now.
func (s Status) committing() bool {
	return s.State == "RUNNING" && s.Phase == "COMMITTING" || s.State == "COMPLETED" || s.State == "FAILED"
}

// Object is one object of a listing.
type Object struct {
	Key  string
	Size int64
	ETag string
}

// Glimpse is what lay below an output's prefix at one moment.
type Glimpse struct {
	Prefix   string
	Objects  []Object
	Manifest *Manifest // _SUCCESS; nil: there was none
	Steady   bool      // _SUCCESS was the same before the listing and after it
}

type entry struct {
	Job
	id        string // as acknowledged, or first seen
	acked     bool
	refused   bool
	cancelled bool // a cancel was acknowledged
	last      Status
}

// Book keeps what is known, and what was found. It may be used from many goroutines.
type Book struct {
	now   func() time.Time
	mu    sync.Mutex
	jobs  map[string]*entry   // by name
	at    map[string][]*entry // by prefix, in the order they were meant
	found []Discrepancy
	said  map[string]bool
	seen  int // glimpses
}

// NewBook makes an empty book; now is what discrepancies are dated with.
func NewBook(now func() time.Time) *Book {
	return &Book{now: now, jobs: map[string]*entry{}, at: map[string][]*entry{}, said: map[string]bool{}}
}

// Intend writes a job down, before it is submitted.
func (b *Book) Intend(j Job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := &entry{Job: j}
	b.jobs[j.Name] = e
	b.at[j.Prefix] = append(b.at[j.Prefix], e)
}

// Acknowledged notes that a submit was answered with an id.
func (b *Book) Acknowledged(name, id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.jobs[name]
	if e.id != "" && e.id != id {
		b.say(e, "one job per request id", "acknowledged as %s, known as %s", id, e.id)
	}
	e.id, e.acked = id, true
}

// Refused notes that a submit was refused: there must never be such a job.
func (b *Book) Refused(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.jobs[name].refused = true
}

// Cancelled notes that a cancel was acknowledged.
func (b *Book) Cancelled(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.jobs[name].cancelled = true
}

// Note writes down a discrepancy that something else has found.
func (b *Book) Note(job, rule, format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.jobs[job]
	if e == nil {
		e = &entry{Job: Job{Name: job}}
	}
	b.say(e, rule, format, args...)
}

// say writes a discrepancy down, once.
func (b *Book) say(e *entry, rule, format string, args ...any) {
	d := Discrepancy{At: b.now(), Job: strings.TrimSpace(e.Name + " " + e.id), Rule: rule, What: fmt.Sprintf(format, args...)}
	if key := d.String(); !b.said[key] {
		b.said[key] = true
		b.found = append(b.found, d)
	}
}

// Found is what was found so far, in that order.
func (b *Book) Found() []Discrepancy {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.found)
}

// Glimpses is how many were judged.
func (b *Book) Glimpses() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seen
}

// Status is what the cluster last said of a job; false: nothing.
func (b *Book) Status(name string) (Status, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.jobs[name]
	if e == nil || e.last.ID == "" {
		return Status{}, false
	}
	return e.last, true
}

// Jobs are those that were meant and not refused, by name.
func (b *Book) Jobs() []Job {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []Job
	for _, name := range slices.Sorted(maps.Keys(b.jobs)) {
		if e := b.jobs[name]; !e.refused {
			all = append(all, e.Job)
		}
	}
	return all
}

// Unanswered names the jobs whose submit was neither acknowledged nor refused.
func (b *Book) Unanswered() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var names []string
	for _, name := range slices.Sorted(maps.Keys(b.jobs)) {
		if e := b.jobs[name]; !e.acked && !e.refused {
			names = append(names, name)
		}
	}
	return names
}

// Open names the jobs that were acknowledged and are not known to have ended.
func (b *Book) Open() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var open []string
	for _, name := range slices.Sorted(maps.Keys(b.jobs)) {
		if e := b.jobs[name]; e.acked && !e.last.Ended() {
			open = append(open, strings.TrimSpace(name+" "+e.id+" "+e.last.State+" "+e.last.Phase))
		}
	}
	return open
}

package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"millrace/cmd/cli/screen"
	"millrace/cmd/cli/view"
	"millrace/pkg/pace"
)

// quiet ends a command without a word when the reader of its output has gone away.
func quiet(err error) error {
	if gone(err) {
		return silent{exitOK}
	}
	return err
}

// gone says whether a write failed because nobody reads any more.
func gone(err error) bool { return errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) }

// showBytes shows a bar on a terminal while bytes are copied; in a pipe nothing.
func (a *app) showBytes(what string, total int64, done *atomic.Int64) (stop func()) {
	if !a.isTerminal(a.env.Stderr) || a.json || total < 1<<20 {
		return func() {}
	}
	var meter pace.Meter
	b := screen.Open(a.env.Stderr, func(width int) []string {
		n := done.Load()
		meter.Add(time.Now(), n, total)
		return []string{barLine(width, what, float64(n)/float64(total), fmt.Sprintf("%s / %s%s", formatSize(n), formatSize(total), speed(int64(meter.Rate()), leftOf(&meter))))}
	})
	return b.Close
}

func leftOf(m *pace.Meter) time.Duration {
	left, _ := m.Left()
	return left
}

// barLine is a bar with words on both sides. When there is not room for all, the bar goes first.
func barLine(width int, name string, part float64, detail string) string {
	room := min(30, width-len(name)-len(detail)-2)
	if room < 5 {
		return name + " " + detail
	}
	return name + " " + screen.Bar(room, part) + " " + detail
}

// speed is a rate and the time left, as far as they are known.
func speed(perSecond int64, left time.Duration) string {
	if perSecond <= 0 {
		return ""
	}
	s := "  " + formatRate(perSecond)
	if left > 0 {
		s += "  " + formatLeft(left) + " left"
	}
	return s
}

// jobProgress shows how a job gets on.
type jobProgress interface {
	update(view.Job)
	close()
}

func (a *app) newJobProgress() jobProgress {
	switch {
	case a.json && !a.isTerminal(a.env.Stderr):
		return noProgress{}
	case a.isTerminal(a.env.Stderr):
		return newBars(a.env.Stderr, time.Now)
	}
	return &lines{w: a.env.Stderr}
}

type noProgress struct{}

func (noProgress) update(view.Job) {}
func (noProgress) close()          {}

// lines prints a line when a state, a phase or a tenth of the tasks has changed, and when the first runs: for pipes and log files.
type lines struct {
	w      io.Writer
	last   string
	ran    bool  // something has
	failed int64 // attempts
}

func (l *lines) update(j view.Job) {
	state := j.State
	if j.Phase != "" && j.State == "RUNNING" {
		state = j.Phase
	}
	if n := j.Attempts.Failed; n > l.failed && !ended(j.State) {
		l.failed = n
		fmt.Fprintf(l.w, "%s %s failed so far; millrace job tasks %s --failed\n", j.ID, plural(int(n), "attempt"), j.ID)
	}
	l.ran = l.ran || j.Maps.Running+j.Reduces.Running > 0
	key := fmt.Sprintf("%s %d %d %t", state, tenths(j.Maps), tenths(j.Reduces), l.ran)
	if key == l.last {
		return
	}
	l.last = key
	fmt.Fprintf(l.w, "%s %s%s\n", j.ID, state, counts(j))
}

func (l *lines) close() {}

func tenths(t view.Tasks) int64 {
	if t.Total == 0 {
		return -1
	}
	return 10 * t.Completed / t.Total
}

func counts(j view.Job) string {
	s := ""
	count := func(name string, t view.Tasks) {
		if t.Total == 0 {
			return
		}
		s += fmt.Sprintf("  %s %d of %d done", name, t.Completed, t.Total)
		if !ended(j.State) || t.Completed == t.Total { // else nothing waits any more
			s += fmt.Sprintf(", %d running, %d queued", t.Running, t.Pending)
		}
	}
	count("maps", j.Maps)
	count("reduces", j.Reduces)
	if j.State == "RUNNING" {
		s += speed(j.Progress.BytesPerSecond, time.Duration(j.Progress.EtaMs)*time.Millisecond)
	}
	return s
}

// bars are for a terminal: a line for maps, one for reduces.
type bars struct {
	block *screen.Block
	now   func() time.Time

	mu    sync.Mutex
	last  view.Job
	moved time.Time // when last changed
}

func newBars(w io.Writer, now func() time.Time) *bars {
	b := &bars{now: now, moved: now()}
	b.block = screen.Open(w, b.draw)
	return b
}

// stillAfter is how long nothing may have changed before that is said.
const stillAfter = 10 * time.Second

func (b *bars) draw(width int) []string {
	b.mu.Lock()
	j, still := b.last, b.now().Sub(b.moved)
	b.mu.Unlock()
	line := func(name string, t view.Tasks, more string) string {
		part := 0.0
		if t.Total > 0 {
			part = float64(t.Completed) / float64(t.Total)
		}
		return barLine(width, name, part, fmt.Sprintf("%d/%d  %d running, %d queued%s", t.Completed, t.Total, t.Running, t.Pending, more))
	}
	more := ""
	if j.Attempts.Failed > 0 {
		more = "  " + plural(int(j.Attempts.Failed), "attempt") + " failed"
	}
	if still < stillAfter {
		more += speed(j.Progress.BytesPerSecond, time.Duration(j.Progress.EtaMs)*time.Millisecond)
	} else {
		more += "  nothing new for " + formatLeft(still)
	}
	lines := []string{line("map   ", j.Maps, more)}
	if j.Reduces.Total > 0 || j.Maps.Total == 0 {
		lines = append(lines, line("reduce", j.Reduces, ""))
	}
	if j.Reason != "" && !ended(j.State) { // such as: the object store does not answer
		lines = append(lines, asciiOnly(j.Reason))
	}
	return lines
}

// asciiOnly keeps to characters of one column each.
func asciiOnly(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

func (b *bars) update(j view.Job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last, b.moved = j, b.now()
}

func (b *bars) close() { b.block.Close() }

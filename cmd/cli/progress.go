package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/cwriter"
	"github.com/vbauerster/mpb/v8/decor"

	"millrace/cmd/cli/view"
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
	p := mpb.New(barsOn(a.env.Stderr, 40)...)
	bar := p.AddBar(total, mpb.PrependDecorators(decor.Name(what+" ")),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f"), decor.AverageSpeed(decor.SizeB1000(0), "  % .1f")), mpb.BarRemoveOnComplete())
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				bar.SetCurrent(done.Load())
			case <-quit:
				return
			}
		}
	}()
	return func() {
		close(quit)
		<-ended
		bar.Abort(true)
		p.Wait()
	}
}

// unsizedWidth is what bars and their text have on a terminal that does not know its size.
const unsizedWidth = 79

// barsOn is where bars are written, and how wide one is at most. A terminal that reports 0 by 0 (a serial line,
// some containers) would be shown nothing: hidden behind a plain writer it is taken to have 80 columns.
func barsOn(w io.Writer, width int) []mpb.ContainerOption {
	if f, ok := w.(*os.File); ok {
		if columns, _, err := cwriter.GetSize(int(f.Fd())); err != nil || columns == 0 {
			w, width = struct{ io.Writer }{w}, unsizedWidth
		}
	}
	return []mpb.ContainerOption{mpb.WithOutput(w), mpb.WithWidth(width), mpb.WithAutoRefresh()}
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
		return newBars(a.env.Stderr)
	}
	return &lines{w: a.env.Stderr}
}

type noProgress struct{}

func (noProgress) update(view.Job) {}
func (noProgress) close()          {}

// lines prints a line when a state, a phase or a tenth of the tasks has changed: for pipes and log files.
type lines struct {
	w      io.Writer
	last   string
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
	key := fmt.Sprintf("%s %d %d", state, tenths(j.Maps), tenths(j.Reduces))
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
	if j.Maps.Total > 0 {
		s += fmt.Sprintf("  maps %d of %d done, %d running, %d queued", j.Maps.Completed, j.Maps.Total, j.Maps.Running, j.Maps.Pending)
	}
	if j.Reduces.Total > 0 {
		s += fmt.Sprintf("  reduces %d of %d done, %d running, %d queued", j.Reduces.Completed, j.Reduces.Total, j.Reduces.Running, j.Reduces.Pending)
	}
	if j.Progress.BytesPerSecond > 0 && j.State == "RUNNING" {
		s += "  " + formatRate(j.Progress.BytesPerSecond)
	}
	return s
}

// bars are for a terminal: one for maps, one for reduces.
type bars struct {
	p             *mpb.Progress
	maps, reduces *mpb.Bar
	last          atomic.Pointer[view.Job]
}

func newBars(w io.Writer) *bars {
	b := &bars{p: mpb.New(append(barsOn(w, 30), mpb.WithRefreshRate(100*time.Millisecond))...)}
	b.last.Store(&view.Job{})
	text := func(f func(view.Job) string) decor.Decorator {
		return decor.Any(func(decor.Statistics) string { return f(*b.last.Load()) })
	}
	detail := func(pick func(view.Job) view.Tasks, rate bool) decor.Decorator {
		return text(func(j view.Job) string {
			t := pick(j)
			s := fmt.Sprintf(" %d/%d  %d running, %d queued", t.Completed, t.Total, t.Running, t.Pending)
			if rate && j.Attempts.Failed > 0 {
				s += "  " + plural(int(j.Attempts.Failed), "attempt") + " failed"
			}
			if rate && j.Progress.BytesPerSecond > 0 {
				s += "  " + formatRate(j.Progress.BytesPerSecond)
			}
			return s
		})
	}
	mapsOf := func(j view.Job) view.Tasks { return j.Maps }
	reducesOf := func(j view.Job) view.Tasks { return j.Reduces }
	b.maps = b.p.AddBar(1, mpb.PrependDecorators(decor.Name("map    ")), mpb.AppendDecorators(detail(mapsOf, true)))
	b.reduces = b.p.AddBar(1, mpb.PrependDecorators(decor.Name("reduce ")), mpb.AppendDecorators(detail(reducesOf, false)))
	return b
}

func (b *bars) update(j view.Job) {
	b.last.Store(&j)
	set := func(bar *mpb.Bar, t view.Tasks) {
		if t.Total > 0 {
			bar.SetTotal(t.Total, false)
			bar.SetCurrent(t.Completed)
		}
	}
	set(b.maps, j.Maps)
	set(b.reduces, j.Reduces)
}

func (b *bars) close() {
	b.maps.Abort(true)
	b.reduces.Abort(true)
	b.p.Wait()
}

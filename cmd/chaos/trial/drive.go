package trial

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"millrace/cmd/chaos/workload"
)

const (
	askAgain     = 500 * time.Millisecond
	refusedPause = 2 * time.Second
	codeFailed   = 1
	codeRefused  = 2 // nothing was started
	codeUnknown  = 3 // nobody answered: the same request may be made again
)

// drive submits one order of a series after the other until submitting ends; what was begun is brought to its end while working lasts.
func (t *Trial) drive(submitting, working context.Context, lane *workload.Lane) {
	for submitting.Err() == nil {
		o := lane.Next()
		ended := t.begin(o)
		if !t.submit(working, o) {
			sleep(submitting, refusedPause)
			continue
		}
		if o.Cancel {
			t.cancel(working, o, ended)
		}
		select {
		case <-ended:
			t.results(working, o)
		case <-working.Done():
			return
		}
	}
}

// begin writes an order down; what it gives is closed when the job has ended and its result was read.
func (t *Trial) begin(o workload.Order) <-chan struct{} {
	ended := make(chan struct{})
	t.mu.Lock()
	t.ended[o.Name], t.orders[o.Name] = ended, o
	t.mu.Unlock()
	t.book.Intend(o.Job)
	return ended
}

// results holds what `millrace results` prints against what lies in the store, for some of the jobs with an output of their own.
func (t *Trial) results(ctx context.Context, o workload.Order) {
	s, _ := t.book.Status(o.Name)
	if o.Number%4 != 0 || s.State != "COMPLETED" || o.Prefix == sharedPrefix {
		return
	}
	for ctx.Err() == nil {
		g, err := t.shelf(o.Prefix).Glimpse(ctx, workload.OutputBucket, o.Prefix)
		if err == nil && g.Manifest != nil {
			var parts [][]byte
			if parts, err = t.shelf(o.Prefix).Read(ctx, workload.OutputBucket, *g.Manifest); err == nil {
				r := t.site.Millrace(ctx, "results", s.ID)
				switch {
				case r.Code == 0 && r.Out == string(bytes.Join(parts, nil)):
					t.journal.write("results printed", map[string]any{"name": o.Name, "bytes": len(r.Out)})
					return
				case r.Code == 0:
					t.book.Note(o.Name, "results prints what the parts hold", "%d bytes, the parts have others", len(r.Out))
					return
				case r.Code != codeUnknown && r.Code >= 0 && !outcome(r).Unavailable():
					t.book.Note(o.Name, "results prints what the parts hold", "exit code %d: %s", r.Code, r.Err)
					return
				}
			}
		}
		sleep(ctx, askAgain)
	}
}

// submit submits until there is an answer, as somebody does who needs to know; false: it was refused.
func (t *Trial) submit(ctx context.Context, o workload.Order) bool {
	for n := 1; ctx.Err() == nil; n++ {
		r := t.site.Millrace(ctx, append([]string{"job", "submit", "--json"}, o.Args...)...)
		var answer struct{ ID string }
		switch {
		case ctx.Err() != nil:
			return false
		case r.Code == 0:
			if err := json.Unmarshal([]byte(r.Out), &answer); err != nil || answer.ID == "" {
				t.book.Note(o.Name, "a submit gives an id", "it printed %q", r.Out)
				return false
			}
			t.book.Acknowledged(o.Name, answer.ID)
			t.journal.write("job", map[string]any{"name": o.Name, "id": answer.ID, "kind": o.Kind, "tries": n, "output": o.Prefix})
			return true
		case r.Code == codeUnknown || r.Code < 0:
			sleep(ctx, askAgain)
		default:
			t.refused(o, r.Code, r.Err)
			return false
		}
	}
	return false
}

// refused notes a submit that was refused for good.
func (t *Trial) refused(o workload.Order, code int, said string) {
	t.book.Refused(o.Name)
	t.mu.Lock()
	t.report.Refused++
	t.mu.Unlock()
	t.journal.write("refused", map[string]any{"name": o.Name, "code": code, "said": said})
	if !(o.MayBeRefused && code == codeRefused && strings.Contains(said, "reserved by job")) {
		t.book.Note(o.Name, "a good submit is not refused", "exit code %d: %s", code, strings.TrimSpace(said))
	}
}

// cancel cancels a job once it runs, if it is caught at that.
func (t *Trial) cancel(ctx context.Context, o workload.Order, ended <-chan struct{}) {
	for {
		select {
		case <-ended:
			return
		default:
		}
		if s, _ := t.book.Status(o.Name); s.State == "RUNNING" {
			break
		}
		if !sleep(ctx, 100*time.Millisecond) {
			return
		}
	}
	id := fmt.Sprint(o.Name)
	if s, ok := t.book.Status(o.Name); ok {
		id = s.ID
	}
	for ctx.Err() == nil {
		r := t.site.Millrace(ctx, "job", "cancel", id, "--json")
		switch {
		case r.Code == 0:
			t.book.Cancelled(o.Name)
			t.journal.write("cancelled", map[string]any{"name": o.Name})
			return
		case r.Code == codeUnknown || r.Code < 0:
			sleep(ctx, askAgain)
		case r.Code == codeFailed: // too late
			t.journal.write("not cancelled", map[string]any{"name": o.Name, "said": r.Err})
			return
		default:
			t.book.Note(o.Name, "a cancel is understood", "exit code %d: %s", r.Code, r.Err)
			return
		}
	}
}

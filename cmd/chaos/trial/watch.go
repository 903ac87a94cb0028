package trial

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"

	"millrace/cmd/chaos/checker"
	"millrace/cmd/chaos/workload"
)

// watch looks at the outputs and at the jobs again and again until ctx ends.
func (t *Trial) watch(ctx context.Context) {
	for round := 0; ctx.Err() == nil; round++ {
		t.look(ctx, t.worthALook(round))
		sleep(ctx, sampleEvery)
	}
}

// worthALook are the prefixes of jobs that have not ended, the shared one, and a few of those that have ended, in turn.
func (t *Trial) worthALook(round int) []string {
	seen := map[string]bool{}
	var prefixes, old []string
	for _, j := range t.book.Jobs() {
		if seen[j.Prefix] {
			continue
		}
		seen[j.Prefix] = true
		if s, known := t.book.Status(j.Name); known && s.Ended() && j.Prefix != sharedPrefix {
			old = append(old, j.Prefix)
		} else {
			prefixes = append(prefixes, j.Prefix)
		}
	}
	const few = 3
	for i := range min(few, len(old)) {
		prefixes = append(prefixes, old[(round*few+i)%len(old)])
	}
	return prefixes
}

// look makes one look at these prefixes and at all jobs; it says whether it was whole.
func (t *Trial) look(ctx context.Context, prefixes []string) bool {
	l := t.book.Look()
	var seen []checker.Glimpse
	for _, p := range prefixes {
		g, err := t.shelf(p).Glimpse(ctx, workload.OutputBucket, p)
		if err != nil {
			continue // the store is struck
		}
		seen = append(seen, g)
	}
	r := t.site.Millrace(ctx, "job", "list", "--json")
	if r.Code != 0 {
		return false
	}
	var jobs []checker.Status
	if err := json.Unmarshal([]byte(r.Out), &jobs); err != nil {
		t.book.Note("job list", "a list of jobs is JSON", "%v", err)
		return false
	}
	for _, name := range l.Judge(seen, jobs) {
		t.hasEnded(ctx, name)
	}
	return len(seen) == len(prefixes)
}

// hasEnded reads the result of a job that has just ended, and lets its series go on.
func (t *Trial) hasEnded(ctx context.Context, name string) {
	s, _ := t.book.Status(name)
	t.mu.Lock()
	o := t.orders[name]
	t.mu.Unlock()
	t.journal.write("ended", map[string]any{"name": name, "id": s.ID, "state": s.State, "reason": s.Reason})
	t.verify(ctx, o.Job, s)
	t.mu.Lock()
	close(t.ended[name])
	t.mu.Unlock()
}

// verify holds a result against the truth. A shared output that another job has replaced meanwhile is passed over; a store that
// is struck is asked again.
func (t *Trial) verify(ctx context.Context, j checker.Job, s checker.Status) {
	for s.State == "COMPLETED" && ctx.Err() == nil {
		before, err := t.shelf(j.Prefix).Glimpse(ctx, workload.OutputBucket, j.Prefix)
		if err == nil && before.Manifest != nil && before.Manifest.Job == s.ID {
			var parts [][]byte
			if parts, err = t.shelf(j.Prefix).Read(ctx, workload.OutputBucket, *before.Manifest); err == nil {
				var after checker.Glimpse
				if after, err = t.shelf(j.Prefix).Glimpse(ctx, workload.OutputBucket, j.Prefix); err == nil && after.Manifest != nil && after.Manifest.Job == s.ID {
					t.verified(j, s, *before.Manifest, parts)
					return
				}
			}
		}
		if err == nil {
			if j.Prefix != sharedPrefix {
				t.book.Note(j.Name, "a completed job has its result", "%s_SUCCESS is not there, or not this job's", j.Prefix)
			}
			return
		}
		sleep(ctx, askAgain)
	}
}

func (t *Trial) verified(j checker.Job, s checker.Status, m checker.Manifest, parts [][]byte) {
	wrong := checker.Verify(j, s, m, parts)
	for _, w := range wrong {
		t.book.Note(j.Name, "each record is there exactly once", "%s", w)
	}
	t.mu.Lock()
	t.checked[j.Name] = true
	t.report.Read++
	t.mu.Unlock()
	t.journal.write("result read", map[string]any{"name": j.Name, "parts": len(parts), "records": m.Records, "wrong": wrong})
}

// settleWithin is for each of the last looks to find what it must.
const settleWithin = 2 * time.Minute

// finish looks at everything once more, when all is quiet: every output, every result, what is left of uploads, what the logs say.
func (t *Trial) finish(ctx context.Context) {
	for _, step := range []func(context.Context){t.lookAtAll, t.uploads, t.leftovers, t.readAll} {
		limit, cancel := context.WithTimeout(ctx, settleWithin)
		step(limit)
		cancel()
	}
	for _, j := range t.book.Jobs() {
		if s, _ := t.book.Status(j.Name); s.State == "COMPLETED" {
			t.verify(ctx, j, s)
		}
	}
	t.readLogs()
}

// lookAtAll makes one whole look at every output.
func (t *Trial) lookAtAll(ctx context.Context) {
	seen := map[string]bool{}
	var prefixes []string
	for _, j := range t.book.Jobs() {
		if !seen[j.Prefix] {
			seen[j.Prefix] = true
			prefixes = append(prefixes, j.Prefix)
		}
	}
	for !t.look(ctx, prefixes) {
		if !sleep(ctx, askAgain) {
			t.book.Note("the site", "everything can be seen in the end", "outputs or jobs could not be listed within %v", settleWithin)
			return
		}
	}
}

// fewStrays is how many empty uploads a run may leave that were made while their job, or a later one, was about to end: two faults have
// to meet within a moment for one.
const fewStrays = 3

// uploads waits until no upload of an output is unfinished, but for those that came too late to be anybody's.
func (t *Trial) uploads(ctx context.Context) {
	writers := map[string][]string{} // the jobs that name a part
	for _, j := range t.book.Jobs() {
		for _, key := range j.Parts {
			if strings.HasPrefix(key, workload.FilesOfJobs) {
				break // what was begun there is looked for on the disks
			}
			writers[key] = append(writers[key], j.Name)
		}
	}
	var last map[string]string // what the last whole look has found
	for {
		left, late, err := t.leftUploads(ctx, writers)
		if err == nil {
			last, t.report.LateUploads = left, late
			if len(left) == 0 {
				return
			}
		}
		if !sleep(ctx, time.Second) {
			if last == nil {
				t.book.Note("the site", "no upload is left", "the store could not be looked through within %v: %v", settleWithin, err)
			}
			for key, what := range last {
				t.book.Note(writers[key][0], "no upload is left", "%s", what)
			}
			return
		}
	}
}

// leftUploads looks at each part once: at which of them are unfinished uploads that must not be there, and how many may be.
func (t *Trial) leftUploads(ctx context.Context, writers map[string][]string) (left map[string]string, late int, err error) {
	left = map[string]string{}
	strays := 0
	for key, names := range writers {
		found, err := t.store.Unfinished(ctx, workload.OutputBucket, key)
		if err != nil {
			return nil, 0, err
		}
		var jobs []checker.Status
		for _, name := range names {
			s, _ := t.book.Status(name)
			jobs = append(jobs, s)
		}
		for _, u := range found {
			switch {
			case u.Late(jobs):
				late++
			case u.Stray(jobs) && strays < fewStrays:
				strays++
			default:
				left[key] += u.String() + "; "
			}
		}
	}
	return left, late + strays, nil
}

// leftovers waits until nothing of the jobs is left on the machines.
func (t *Trial) leftovers(ctx context.Context) {
	for {
		left, err := t.site.Leftovers()
		if err == nil && len(left) == 0 {
			return
		}
		if !sleep(ctx, time.Second) {
			t.book.Note("the site", "nothing is left on the nodes", "%d things: %v %v", len(left), left[:min(5, len(left))], words(err))
			return
		}
	}
}

// readLogs looks for a process that broke down by itself.
func (t *Trial) readLogs() {
	logs, _ := filepath.Glob(filepath.Join(t.conf.Dir, "logs", "*.log")) // the pattern is good
	for _, path := range logs {
		data, err := os.ReadFile(path)
		if err != nil {
			t.book.Note("the site", "logs can be read", "%v", err)
			continue
		}
		for _, line := range strings.Split(string(data), "\n") {
			if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") || strings.Contains(line, "DATA RACE") {
				t.book.Note("the site", "nothing breaks down by itself", "%s: %s", filepath.Base(path), line)
			}
		}
	}
}

package trial

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"millrace/cmd/chaos/checker"
	"millrace/cmd/chaos/schedule"
	"millrace/cmd/chaos/workload"
)

// Report is what a run did and found.
type Report struct {
	Seed     uint64
	Dir      string
	Length   time.Duration
	Private  bool
	Faults   map[schedule.Kind]int
	Jobs     map[string]map[string]int // by kind and outcome
	Refused  int                       // submits to an output that another job had
	Read     int                       // results that were held against the truth
	Glimpses int

	LateUploads int // empty ones that a master's last request made when their job was about to end, or had

	// Of the block store.
	Deeds     map[string]int // changes, by what and how they ended
	FilesRead int
	Files     int           // in the end, with those in the trash
	Blocks    int64         // of them
	Replicas  int           // on the disks
	Stored    int64         // bytes of them
	Whole     time.Duration // how long after the last fault all of it was whole
	Drained   time.Duration // how long after the last fault
	Found     []checker.Discrepancy
}

// count counts jobs by kind and outcome.
func (r *Report) count(b *checker.Book, orders map[string]workload.Order) {
	for _, j := range b.Jobs() {
		s, known := b.Status(j.Name)
		if !known {
			s.State = "unknown"
		}
		kind := orders[j.Name].Kind
		if r.Jobs[kind] == nil {
			r.Jobs[kind] = map[string]int{}
		}
		r.Jobs[kind][s.State]++
	}
}

// Print writes the report for people.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "\nseed %d, %v of faults, drained %v later; log: %s\n", r.Seed, r.Length, r.Drained.Round(time.Second), filepath.Join(r.Dir, "events.jsonl"))
	if !r.Private {
		fmt.Fprintln(w, "the machines had neither networks nor disks of their own here: no partitions, no full disks")
	}
	fmt.Fprintf(w, "faults:  %s\n", counts(r.Faults))
	states := map[string]int{}
	for _, kind := range slices.Sorted(maps.Keys(r.Jobs)) {
		for state, n := range r.Jobs[kind] {
			states[state] += n
		}
	}
	fmt.Fprintf(w, "jobs:    %s; %d submits refused, their output being taken\n", counts(states), r.Refused)
	for _, kind := range slices.Sorted(maps.Keys(r.Jobs)) {
		fmt.Fprintf(w, "         %-22s %s\n", kind, counts(r.Jobs[kind]))
	}
	fmt.Fprintf(w, "files:   %s\n", counts(r.Deeds))
	fmt.Fprintf(w, "         %d reads; in the end %d files, %d blocks, %d replicas of %d bytes, whole %v after the last fault\n", r.FilesRead, r.Files, r.Blocks, r.Replicas, r.Stored, r.Whole.Round(time.Second))
	fmt.Fprintf(w, "checked: %d results read whole, %d listings\n", r.Read, r.Glimpses)
	if r.LateUploads > 0 {
		fmt.Fprintf(w, "         %d empty uploads came of requests that were on their way when their job was about to end, or had (docs/design.md, \"What may come late\")\n", r.LateUploads)
	}
	if len(r.Found) == 0 {
		fmt.Fprintln(w, "no discrepancy")
		return
	}
	fmt.Fprintf(w, "%d DISCREPANCIES, the first at %s:\n", len(r.Found), r.Found[0].At.UTC().Format(time.RFC3339Nano))
	for i, d := range r.Found {
		if i == 20 {
			fmt.Fprintf(w, "  … and %d more\n", len(r.Found)-i)
			break
		}
		fmt.Fprintf(w, "  %s\n", d)
	}
	fmt.Fprintf(w, "what the cluster says of these jobs: %s\nreplay the faults: make chaos MINUTES=%g SEED=%d\n", filepath.Join(r.Dir, "discrepancies.txt"), r.Length.Minutes(), r.Seed)
}

// counts is a map as "a 1, b 2".
func counts[K ~string](m map[K]int) string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, fmt.Sprintf("%s %d", k, m[k]))
	}
	return strings.Join(list, ", ")
}

// explain keeps what was found, and what the cluster says of those jobs, while it is there to be asked.
func (t *Trial) explain(ctx context.Context) {
	var text strings.Builder
	asked := map[string]bool{}
	for _, d := range t.book.Found() {
		t.journal.write("discrepancy", map[string]any{"found": d})
		fmt.Fprintf(&text, "%s %s\n", d.At.UTC().Format(time.RFC3339Nano), d)
		_, id, ok := strings.Cut(d.Job, " ")
		if !ok || asked[id] || len(asked) == 10 {
			continue
		}
		asked[id] = true
		for _, question := range []string{"show", "why", "tasks"} {
			r := t.site.Millrace(ctx, "job", question, id)
			fmt.Fprintf(&text, "\n$ millrace job %s %s\n%s%s\n", question, id, r.Out, r.Err)
		}
	}
	if text.Len() > 0 {
		if err := os.WriteFile(filepath.Join(t.conf.Dir, "discrepancies.txt"), []byte(text.String()), 0o644); err != nil {
			t.conf.Say("%v", err)
		}
	}
}

// firstWord is a job's name in a line about it.
func firstWord(line string) string { return strings.Fields(line + " ?")[0] }

// Package trial is one run of chaos: jobs go through a site, and files through its block store, without a pause while a schedule of faults strikes it, everything
// that is seen goes through the checker's book, and in the end all has to heal, drain and be right.
package trial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace/cmd/chaos/checker"
	"millrace/cmd/chaos/schedule"
	"millrace/cmd/chaos/site"
	"millrace/cmd/chaos/workload"
)

// Config says what to run.
type Config struct {
	Seed    uint64
	Length  time.Duration // of the time with faults; starting and draining come on top
	Dir     string        // for everything; logs stay there
	Binary  string
	MinIO   string
	Private bool // see site.Config
	Say     func(format string, args ...any)
}

const (
	lanes       = 3               // series of jobs with outputs of their own
	competitors = 2               // series of jobs that overwrite one output
	fileLanes   = 1               // series of jobs in the block store
	drainWithin = 4 * time.Minute // for all jobs to end and all nodes to run, once the faults are healed
	sampleEvery = 300 * time.Millisecond

	sharedPrefix = "overwritten/" // of the output that several series compete for
)

// Trial is one run. Use New, then Run, once.
type Trial struct {
	conf    Config
	journal *journal
	site    *site.Site
	book    *checker.Book
	files   *checker.Files
	store   *checker.Store
	work    *workload.Workload

	closing sync.Once
	mu      sync.Mutex
	ended   map[string]chan struct{} // by name of a job: closed when it has ended and its result was read
	orders  map[string]workload.Order
	report  Report
	checked map[string]bool // jobs whose result was held against the truth
}

// New checks the configuration and starts nothing.
func New(c Config) (*Trial, error) {
	if c.Length < 5*time.Second {
		return nil, fmt.Errorf("%v is too short a time for faults", c.Length)
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, err
	}
	t := &Trial{conf: c, book: checker.NewBook(time.Now), ended: map[string]chan struct{}{}, orders: map[string]workload.Order{}, checked: map[string]bool{}}
	t.files = checker.NewFiles(t.book)
	t.report = Report{Deeds: map[string]int{}, Seed: c.Seed, Dir: c.Dir, Length: c.Length, Faults: map[schedule.Kind]int{}, Jobs: map[string]map[string]int{}, Private: c.Private}
	return t, nil
}

// Run does it all and gives the report. An error says that the run could not be made, or not to its end: the report, if there is one, has
// what was found until then. What is wrong with the site is in the report alone.
func (t *Trial) Run(ctx context.Context) (r *Report, err error) {
	if t.journal, err = openJournal(filepath.Join(t.conf.Dir, "events.jsonl")); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.journal.close()) }()
	t.site, err = site.New(site.Config{Dir: t.conf.Dir, Binary: t.conf.Binary, MinIO: t.conf.MinIO, Private: t.conf.Private,
		Event: func(what string, fields map[string]any) { t.journal.write(what, fields) }})
	if err != nil {
		return nil, err
	}
	if t.work, err = workload.New(t.conf.Seed, filepath.Join(t.conf.Dir, "programs")); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.closeSite()) }()
	t.conf.Say("starting 3 masters, 3 core nodes, 2 task nodes and a MinIO in %s", t.conf.Dir)
	if err := t.site.Open(ctx); err != nil {
		return nil, fmt.Errorf("start the site (logs in %s): %w", t.conf.Dir, err)
	}
	if err := t.fillStore(ctx); err != nil {
		return nil, err
	}
	if err := t.storm(ctx); err != nil {
		return t.summed(), err
	}
	t.finish(ctx)
	t.explain(ctx)
	if err := t.closeSite(); err != nil {
		t.book.Note("the site", "a node ends when it is told to", "%v", err)
	}
	if len(t.book.Found()) == 0 {
		err = t.site.Tidy()
	}
	return t.summed(), err
}

// summed is the report of what there was until now.
func (t *Trial) summed() *Report {
	t.report.Glimpses, t.report.FilesRead, t.report.Found = t.book.Glimpses(), t.files.Reads(), t.book.Found()
	t.report.count(t.book, t.orders)
	return &t.report
}

// closeSite ends the site, the first time.
func (t *Trial) closeSite() (err error) {
	t.closing.Do(func() { err = t.site.Close() })
	return err
}

// fillStore makes the buckets and the inputs.
func (t *Trial) fillStore(ctx context.Context) error {
	address, key, secret := t.site.StoreAddress()
	var err error
	if t.store, err = checker.OpenStore(address, key, secret); err != nil {
		return err
	}
	for _, bucket := range []string{workload.InputBucket, workload.OutputBucket} {
		if err := t.store.MakeBucket(ctx, bucket); err != nil {
			return err
		}
	}
	for _, in := range t.work.Inputs() {
		if err := t.store.PutInput(ctx, workload.InputBucket, in); err != nil {
			return err
		}
	}
	return t.fillFiles(ctx)
}

// storm runs jobs and faults for the time that was asked for, then waits for what was submitted.
func (t *Trial) storm(ctx context.Context) error {
	faults := schedule.Plan(t.conf.Seed, t.conf.Length, t.site.Machines())
	t.conf.Say("%d faults in %v, seed %d", len(faults), t.conf.Length, t.conf.Seed)
	submitting, stopSubmitting := context.WithTimeout(ctx, t.conf.Length)
	defer stopSubmitting()
	working, stopWorking := context.WithCancel(ctx)
	defer stopWorking()

	var watching sync.WaitGroup
	watching.Go(func() { t.watch(working) })
	var series sync.WaitGroup
	for i := range lanes + competitors + fileLanes {
		lane := t.work.Lane(i, "")
		switch {
		case i >= lanes+competitors:
			lane = t.work.LaneOfFiles(i)
		case i >= lanes:
			lane = t.work.Lane(i, sharedPrefix)
		}
		series.Go(func() { t.drive(submitting, working, lane) })
	}
	var files sync.WaitGroup
	for i := range fileWriters {
		lane := t.work.FileLane(i)
		files.Go(func() { t.write(submitting, lane) })
	}
	for i := range fileReaders {
		files.Go(func() { t.read(submitting, i) })
	}
	files.Go(func() { t.search(submitting) })
	done := make(chan struct{})
	go func() { defer close(done); series.Wait() }()
	err := t.strikeAll(ctx, faults)
	files.Wait()
	if err = errors.Join(err, ctx.Err()); err == nil {
		t.conf.Say("faults are over; %d jobs are open", len(t.book.Open()))
		files.Go(func() { t.wholeFiles(ctx) })
		t.drain(ctx, done)
		files.Wait()
		if t.site.Healthy(ctx) == nil {
			t.missEach(ctx)
		}
	}
	stopWorking()
	watching.Wait()
	<-done
	return errors.Join(err, ctx.Err())
}

// drain waits until every job has ended and every node runs.
func (t *Trial) drain(ctx context.Context, done <-chan struct{}) {
	healed := time.Now()
	limit, cancel := context.WithTimeout(ctx, drainWithin)
	defer cancel()
	select {
	case <-done:
	case <-limit.Done():
		for _, job := range t.book.Open() {
			t.book.Note(firstWord(job), "everything drains", "%v after all faults were healed it has not ended: %s", drainWithin, job)
		}
		for _, name := range t.book.Unanswered() {
			t.book.Note(name, "everything drains", "%v after all faults were healed its submit has no answer", drainWithin)
		}
	}
	var last error
	for last = t.site.Healthy(ctx); last != nil && limit.Err() == nil; last = t.site.Healthy(ctx) {
		sleep(limit, time.Second)
	}
	if last != nil {
		t.book.Note("the site", "everything drains", "%v after all faults were healed: %v", drainWithin, last)
	}
	t.report.Drained = time.Since(healed)
}

// strikeAll does the faults in their time, and has healed all of them when it returns.
func (t *Trial) strikeAll(ctx context.Context, faults []schedule.Fault) error {
	begin := time.Now()
	var group errgroup.Group
	for _, f := range faults {
		group.Go(func() error { return t.strike(ctx, begin, f) })
	}
	err := group.Wait()
	sleep(ctx, time.Until(begin.Add(t.conf.Length)))
	return err
}

func (t *Trial) strike(ctx context.Context, begin time.Time, f schedule.Fault) error {
	if !sleep(ctx, time.Until(begin.Add(f.At))) {
		return nil
	}
	heal, what, err := t.site.Strike(ctx, f)
	if errors.Is(err, site.ErrNothing) {
		t.journal.write("a fault found nothing to strike", map[string]any{"fault": f, "why": err.Error()})
		return nil
	}
	t.journal.write("fault", map[string]any{"fault": f, "struck": what, "error": words(err)})
	if err == nil {
		t.mu.Lock()
		t.report.Faults[f.Kind]++
		t.mu.Unlock()
		sleep(ctx, f.For)
	}
	if heal != nil {
		err = errors.Join(err, heal())
		t.journal.write("healed", map[string]any{"fault": f.N, "kind": f.Kind, "struck": what, "error": words(err)})
	}
	if err != nil {
		return fmt.Errorf("%v: %w", f, err)
	}
	return nil
}

// sleep waits, and says whether it did so to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// words are an error's, for the journal.
func words(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

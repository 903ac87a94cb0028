package task

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"millrace/jobs/engine"
	"millrace/pkg/api"
)

// Group is the counter group that belongs to the engine.
const Group = "millrace"

// maxCounterBytes bounds the names of a task's user counters, as they end up in
// the replicated log with each completed task.
const maxCounterBytes = 1 << 10

// Counter is one named count of a task. It is safe for concurrent use.
type Counter struct{ n atomic.Int64 }

// Add adds n, which may be negative.
func (c *Counter) Add(n int64) { c.n.Add(n) }

// Value is the count so far, in this task.
func (c *Counter) Value() int64 { return c.n.Load() }

// Context is one running task as its program sees it.
type Context struct {
	ctx     context.Context
	lease   *api.ChildLease
	program *Program

	collector  *engine.Collector // maps of a job with reduces
	output     *output           // all others
	partitions int
	maxRecord  int64
	position   func() (string, int64) // of the record being mapped; nil in reduces

	records, bytes            int64 // emitted; the emitting goroutine's alone
	combineInput, combineKept int64 // combined outside of the collector

	alive  atomic.Int64
	failed atomic.Bool // err is set; may be read by any goroutine
	once   sync.Once
	err    error

	mu           sync.Mutex
	counters     map[[2]string]*Counter
	counterBytes int
}

// Context is cancelled when the attempt is to end.
func (t *Context) Context() context.Context { return t.ctx }

// Lease is what the attempt was given; read only.
func (t *Context) Lease() *api.ChildLease { return t.lease }

// IsMap says whether this is a map task.
func (t *Context) IsMap() bool { return t.lease.Kind == api.TaskKind_TASK_KIND_MAP }

// Final says whether what is emitted is the job's output, with no reduce to follow:
// so it is in reduces, and in the maps of a map-only job.
func (t *Context) Final() bool { return t.collector == nil }

// Position is the object and byte offset of the record being mapped, zero in a
// reduce. It is for the goroutine that Map was called on.
func (t *Context) Position() (url string, offset int64) {
	if t.position == nil {
		return "", 0
	}
	return t.position()
}

// Alive says that the program gets on, though no record may show it: an attempt without progress is ended after a while. It is
// safe for concurrent use, as counters are, which say so, too.
func (t *Context) Alive() { t.alive.Add(1) }

// signs changes with each sign of life.
func (t *Context) signs() int64 {
	n := t.alive.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.counters {
		n += c.Value()
	}
	return n
}

// Emit takes one record and keeps neither slice. It may be called from one
// goroutine at a time. The first error ends the task soon after; it is not the
// program's to handle.
func (t *Context) Emit(key, value []byte) {
	t.Collected(key, value)
	t.EmitCombined(key, value)
}

// Collected counts a record of the map's output that the program keeps to combine it itself.
func (t *Context) Collected(key, value []byte) {
	t.records++
	t.bytes += int64(len(key) + len(value))
}

// EmitCombined is Emit for records that a combiner outside of the collector has
// made: they do not count as the map's output.
func (t *Context) EmitCombined(key, value []byte) {
	if t.failed.Load() {
		return
	}
	if int64(len(key)+len(value)) > t.maxRecord {
		t.Fail(&ProgramError{Message: fmt.Sprintf("emitted a record of %d bytes; the limit is %d: --max-record raises it, up to a quarter of --memory", len(key)+len(value), t.maxRecord)})
		return
	}
	if t.collector == nil {
		if err := t.output.write(key, value); err != nil {
			t.Fail(err)
		}
		return
	}
	partition := 0
	if t.partitions > 1 {
		if t.program.Partition == nil {
			partition = engine.HashPartition(key, t.partitions)
		} else if partition = t.program.Partition(key, t.partitions); partition < 0 || partition >= t.partitions {
			t.Fail(&ProgramError{Message: fmt.Sprintf("the partitioner chose %d of %d partitions for key %q", partition, t.partitions, clip(key))})
			return
		}
	}
	if err := t.collector.Collect(partition, key, value); err != nil {
		t.Fail(fmt.Errorf("collect: %w", err))
	}
}

// Combined counts records that a combiner outside of the collector took and gave.
func (t *Context) Combined(input, output int64) {
	t.combineInput += input
	t.combineKept += output
}

// Fail makes the task end with err at the next record. Only the first call counts.
func (t *Context) Fail(err error) {
	t.once.Do(func() {
		t.err = err
		t.failed.Store(true)
	})
}

// Err is what Fail was called with, or nil.
func (t *Context) Err() error {
	if t.failed.Load() {
		return t.err
	}
	return nil
}

// Counter returns the counter of that name, to be kept and used often. The
// names of all of a task's counters may take 1 KiB together; more fail the task.
func (t *Context) Counter(group, name string) *Counter {
	// What is no UTF-8 could not be reported.
	group, name = strings.ToValidUTF8(group, "\uFFFD"), strings.ToValidUTF8(name, "\uFFFD")
	t.mu.Lock()
	defer t.mu.Unlock()
	id := [2]string{group, name}
	if c := t.counters[id]; c != nil {
		return c
	}
	size := len(group) + len(name) + 8
	switch {
	case group == Group:
		t.Fail(&ProgramError{Message: fmt.Sprintf("counter %s.%s: the group %s belongs to the engine", group, name, Group)})
		return &Counter{}
	case t.counterBytes+size > maxCounterBytes:
		t.Fail(&ProgramError{Message: fmt.Sprintf("counter %s.%s: too many counters (%d); their names may take %d bytes together", group, name, len(t.counters)+1, maxCounterBytes)})
		return &Counter{}
	}
	if t.counters == nil {
		t.counters = make(map[[2]string]*Counter)
	}
	c := &Counter{}
	t.counters[id] = c
	t.counterBytes += size
	return c
}

// userCounters lists the user's counters, by group and name.
func (t *Context) userCounters() []*api.Counter {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]*api.Counter, 0, len(t.counters))
	for id, c := range t.counters {
		list = append(list, &api.Counter{Group: id[0], Name: id[1], Value: c.Value()})
	}
	sort.Slice(list, func(i, j int) bool {
		if list[i].Group != list[j].Group {
			return list[i].Group < list[j].Group
		}
		return list[i].Name < list[j].Name
	})
	return list
}

// clip shortens a key for a message.
func clip(key []byte) []byte {
	if len(key) > 64 {
		return key[:64]
	}
	return key
}

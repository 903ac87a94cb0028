package mapreduce

import (
	"context"
	"iter"
	"strconv"

	"millrace/jobs/engine"
	"millrace/jobs/task"
)

// Context is what a job's functions know of the task they run in. It belongs to that
// task and to the goroutine that the function was called on, unless a method says otherwise.
type Context struct {
	t       *task.Context
	combine engine.EmitFunc // in a combiner
	err     error           // of combine
	number  [8]byte         // for EmitInt
	text    []byte          // for emitText
}

// Emit takes one record; it copies both slices. Should it not be possible to keep the
// record (a full disk, say), the task fails when the function returns.
func (c *Context) Emit(key, value []byte) {
	if c.combine == nil {
		c.t.Emit(key, value)
		return
	}
	if c.err == nil {
		c.err = c.combine(key, value)
	}
}

// EmitInt emits a number: on its way to a reduce encoded as AppendInt does, which is what Sum
// and its kin work on; in the job's output, where people read it, as decimal text.
func (c *Context) EmitInt(key []byte, n int64) {
	if c.combine == nil && c.t.Final() {
		c.emitText(key, n)
		return
	}
	putInt(&c.number, n)
	c.Emit(key, c.number[:])
}

// emitText emits a number in decimal.
func (c *Context) emitText(key []byte, n int64) {
	c.text = strconv.AppendInt(c.text[:0], n, 10)
	c.Emit(key, c.text)
}

// Counter is a named count, summed over all tasks that the job's result is made of. It is safe for concurrent use.
type Counter = task.Counter

// Counter returns a counter, to be kept and added to often. Group and name are free to choose,
// but for the group "millrace"; the names of all of a job's counters may take 1 KiB together. Safe for concurrent use.
func (c *Context) Counter(group, name string) *Counter { return c.t.Counter(group, name) }

// Count adds n to a counter; in a hot loop, a Counter kept from before costs less. Safe for concurrent use.
func (c *Context) Count(group, name string, n int64) { c.t.Counter(group, name).Add(n) }

// Context is cancelled when the attempt has to end: for calls that may take long. Safe for concurrent use.
func (c *Context) Context() context.Context { return c.t.Context() }

// Progress says that the program gets on with a record that takes long. An attempt that reads and writes nothing, counts
// nothing and says nothing for ten minutes (property mapreduce.task.timeout, in milliseconds) is ended.
func (c *Context) Progress() { c.t.Alive() }

// Position is the input object, as a URL, and the byte offset in it of the record
// being mapped. It is empty in a reduce.
func (c *Context) Position() (url string, offset int64) { return c.t.Position() }

// Job is the id of the job.
func (c *Context) Job() string { return c.t.Lease().Job }

// Attempt is the id of this attempt at the task.
func (c *Context) Attempt() string { return c.t.Lease().Attempt }

// Task is the task's number among the job's maps or reduces, from 0.
func (c *Context) Task() int { return int(c.t.Lease().Index) }

// IsMap says whether this is a map task (its combiner included).
func (c *Context) IsMap() bool { return c.t.IsMap() }

// Property is a property that the job was submitted with (-D key=value), or "".
func (c *Context) Property(key string) string { return c.t.Lease().Program.GetProperties()[key] }

// WorkDir is the attempt's own directory. Files shipped with the job lie there, and
// what is written there goes away with the attempt.
func (c *Context) WorkDir() string { return c.t.Lease().WorkDir }

// Values streams the values of one key; they need not fit into memory. It is valid until the function returns.
type Values struct{ v *engine.Values }

// Next returns the next value, valid until the next call, and whether there was one. A task whose
// values could not be read fails, whether or not its Reduce looks at Err.
func (v *Values) Next() ([]byte, bool) { return v.v.Next() }

// All ranges over the values that are left: for value := range values.All().
func (v *Values) All() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for {
			value, ok := v.v.Next()
			if !ok || !yield(value) {
				return
			}
		}
	}
}

// Err says why Next ended early, if it did.
func (v *Values) Err() error { return v.v.Err() }

// Key is the key of the value last returned. It differs from the group's key only with a Group or Compare of the job's own.
func (v *Values) Key() []byte { return v.v.Key() }

// Package mapreduce is the SDK for programs that run on Millrace.
//
// A program is an ordinary Go main package that hands a [Job] to [Main]:
//
//	func main() {
//		mapreduce.Main(mapreduce.Job{
//			Name: "wordcount",
//			Map: func(ctx *mapreduce.Context, _, line []byte) error {
//				for word := range bytes.FieldsSeq(line) {
//					ctx.EmitInt(word, 1)
//				}
//				return nil
//			},
//			Fold:   mapreduce.Sum,
//			Reduce: mapreduce.SumText,
//		})
//	}
//
// Build it, then run it on a cluster with "millrace run ./wordcount INPUT OUTPUT", or
// without one with "./wordcount --local INPUT OUTPUT". Package mrtest tests it in one call.
//
// # Records
//
// Keys and values are byte slices. A slice handed to a function of a job is valid until that
// function returns; who wants to keep one copies it. Emit copies, so its arguments may be
// used again at once.
//
// A map reads lines of text: the key is nil, the value the line without its end. A
// reduce gets the keys of its partition in order, each with all of its values, in no
// particular order. What a reduce emits (or a map, in a job without Reduce) is
// written as a line "key TAB value"; with a nil value as the key alone, and with a nil key as
// the value alone. On the way from map to reduce a nil value and an empty one are the same.
//
// # Failures
//
// An error or a panic fails the attempt, and the attempt's record, stack and error are shown with
// the job. The task is tried again, from the start, up to four times. So a program
// should do the same whenever it is given the same input, and have no other effect than what it emits.
package mapreduce

import (
	"errors"
	"fmt"
	"slices"

	"millrace/jobs/engine"
	"millrace/jobs/task"
)

// Job is a map-reduce program. Map or NewMapper is required, all else is optional.
//
// Functions are called by one goroutine at a time within a task, but tasks of one job may run
// side by side in one process (with --local, and in tests): state that a task
// gathers belongs into the values of NewMapper and NewReducer.
type Job struct {
	// Name is what the job is called when nobody gives it another name.
	Name string

	// Map takes one record of the input and emits any number of records.
	Map func(ctx *Context, key, value []byte) error
	// NewMapper, in Map's place, makes a value per task, for maps with state.
	NewMapper func() Mapper

	// Reduce takes one key with all its values. Without Reduce and NewReducer the job is
	// map-only: each map task's output is one part, in the order of the input.
	Reduce func(ctx *Context, key []byte, values *Values) error
	// NewReducer, in Reduce's place, makes a value per task, for reduces with state.
	NewReducer func() Reducer

	// Fold merges value into acc, in place where it fits, and returns the result: the
	// fastest combiner. It has to be associative and commutative, and it may run any number
	// of times, also never. Sum, Min and Max are ready made.
	Fold func(acc, value []byte) []byte
	// Combine, in Fold's place, makes fewer records of some values of one key, before they leave
	// the map's machine. It emits records of that same key only, and it may run any number of
	// times, also never; so what it emits must be fit to be combined again.
	Combine func(ctx *Context, key []byte, values *Values) error

	// Partition picks the reduce for a key: a number from 0 to partitions-1. By default
	// keys are spread by a hash.
	Partition func(key []byte, partitions int) int
	// Compare orders keys, as bytes.Compare does, which is the default. Keys that compare as
	// equal come to one call of Reduce. Give a Partition with it if keys of different bytes can be equal.
	Compare func(a, b []byte) int
	// Group says whether two keys next to each other in the order belong to one call of
	// Reduce: coarser than Compare, it gives Reduce its values sorted by the rest of
	// the key (secondary sort; Values.Key tells each value's own key). Give a Partition with it.
	Group func(a, b []byte) bool

	// Configure makes the job from the program's arguments (those after "--"); all other fields but Name
	// are then ignored. An error says what is wrong with them and is shown to whoever
	// submits the job. It runs in every task again, so it should be quick. A job
	// without Configure takes no arguments.
	Configure func(args []string) (Job, error)
	// Usage describes the arguments in a line, such as "[-i] PATTERN".
	Usage string
}

// Mapper is a map with state. The value of one task sees that task's records only.
//
// If it also has a method Setup(*Context) error, that is called before the first record; if it
// has Cleanup(*Context) error, that is called after the last, and may emit.
type Mapper interface {
	Map(ctx *Context, key, value []byte) error
}

// Reducer is a reduce with state; Setup and Cleanup are as with Mapper.
type Reducer interface {
	Reduce(ctx *Context, key []byte, values *Values) error
}

type setupper interface{ Setup(ctx *Context) error }

type cleaner interface{ Cleanup(ctx *Context) error }

// With applies arguments: the result of Configure, or the job itself if it takes none.
func (j Job) With(args []string) (Job, error) {
	if j.Configure == nil {
		if len(args) > 0 {
			return Job{}, fmt.Errorf("%s takes no arguments; got %q", j.title(), args)
		}
		return j, nil
	}
	c, err := j.Configure(slices.Clone(args))
	if err != nil {
		return Job{}, err
	}
	if c.Name == "" {
		c.Name = j.Name
	}
	if c.Configure != nil {
		return Job{}, fmt.Errorf("%s: Configure made a job that wants to be configured", j.title())
	}
	return c, nil
}

// MapOnly says whether the maps write the output.
func (j Job) MapOnly() bool { return j.Reduce == nil && j.NewReducer == nil }

// Check says everything that is wrong with a job.
func (j Job) Check() error {
	if j.Configure != nil {
		return nil // it is what Configure makes that counts
	}
	var errs []error
	bad := func(wrong bool, what string) {
		if wrong {
			errs = append(errs, fmt.Errorf("%s: %s", j.title(), what))
		}
	}
	bad(j.Map == nil && j.NewMapper == nil, "Map or NewMapper is required")
	bad(j.Map != nil && j.NewMapper != nil, "Map and NewMapper exclude each other")
	bad(j.Reduce != nil && j.NewReducer != nil, "Reduce and NewReducer exclude each other")
	bad(j.Fold != nil && j.Combine != nil, "Fold and Combine exclude each other")
	bad(j.MapOnly() && (j.Fold != nil || j.Combine != nil), "Fold and Combine need a Reduce: a map-only job combines nothing")
	return errors.Join(errs...)
}

func (j Job) title() string {
	if j.Name == "" {
		return "the program"
	}
	return j.Name
}

// Program is the job with these arguments as the engine runs it. Programs need
// not call it; runners do.
func (j Job) Program(args []string) (*task.Program, error) {
	j, err := j.With(args)
	if err != nil {
		return nil, err
	}
	if err := j.Check(); err != nil {
		return nil, err
	}
	p := &task.Program{
		Name: j.Name, MapOnly: j.MapOnly(), Fold: engine.FoldFunc(j.Fold),
		Partition: j.Partition, Compare: j.Compare, Group: j.Group,
		NewMapper: func(t *task.Context) (task.Mapper, error) { return j.mapper(t) },
	}
	if !j.MapOnly() {
		p.NewReducer = func(t *task.Context) (task.Reducer, error) { return j.reducer(t) }
	}
	if j.Combine != nil {
		p.NewCombiner = func(t *task.Context) (engine.CombineFunc, error) { return j.combiner(t), nil }
	}
	return p, nil
}

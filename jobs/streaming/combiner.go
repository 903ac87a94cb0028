package streaming

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"millrace/jobs"
	"millrace/jobs/engine"
	"millrace/jobs/task"
	"millrace/pkg/record"
)

// combineRun is how many bytes of map output are sorted and combined at a time.
const combineRun = 32 << 20

// combiner gathers a map's output lines, and sends them, sorted, a run at a time,
// through a combiner command, whose lines go on into the task. A command cannot
// be asked key by key, as it answers when it likes; so each run is a command of its own.
type combiner struct {
	task  *task.Context
	line  string
	limit int64

	collector     *engine.Collector
	records, size int64 // collected in this run
	err           error
}

func newCombiner(t *task.Context, line string) *combiner {
	c := &combiner{task: t, line: line, limit: combineRun}
	if m := t.Lease().MemoryBytes; m > 0 {
		c.limit = min(max(m/8, 1<<20), combineRun)
	}
	return c
}

func (c *combiner) dir() string { return filepath.Join(c.task.Lease().WorkDir, jobs.CombineDir) }

// add takes a line of the mapper. Errors end the task.
func (c *combiner) add(line []byte) {
	if c.err != nil || c.task.Err() != nil {
		return
	}
	if err := c.collect(line); err != nil {
		c.err = err
		c.task.Fail(err)
	}
}

func (c *combiner) collect(line []byte) error {
	if c.collector == nil {
		var err error
		// Room for the run with its index, so that it seldom spills by itself.
		if c.collector, err = engine.NewCollector(engine.Config{Partitions: 1, Memory: 3 * c.limit, Dir: c.dir()}); err != nil {
			return fmt.Errorf("collect for the combiner: %w", err)
		}
	}
	key, rest := splitLine(line)
	if err := c.collector.Collect(0, key, rest); err != nil {
		return fmt.Errorf("collect for the combiner: %w", err)
	}
	c.task.Collected(key, rest)
	c.records++
	c.size += int64(len(line)) + 32 // so many empty lines end, too
	if c.size < c.limit {
		return nil
	}
	return c.flush()
}

// flush combines what has been gathered. A combiner without input does not run.
func (c *combiner) flush() (err error) {
	if c.records == 0 {
		return nil
	}
	if err := os.MkdirAll(c.dir(), 0o700); err != nil {
		return fmt.Errorf("combine: %w", err)
	}
	f, err := os.CreateTemp(c.dir(), "run-")
	if err != nil {
		return fmt.Errorf("combine: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	index, err := c.collector.Finish(c.task.Context(), f)
	if err != nil {
		return fmt.Errorf("combine: %w", err)
	}
	input, output := c.records, int64(0)
	c.records, c.size = 0, 0
	cmd, err := start(c.task, "combiner", c.line, func(line []byte) {
		output++
		key, rest := splitLine(line)
		c.task.EmitCombined(key, rest)
	})
	if err != nil {
		return err
	}
	part := index.Partitions[0]
	run := record.NewReader(io.NewSectionReader(f, part.Offset, part.Length), 0)
	if err := feed(c.task.Context(), run, cmd); err != nil {
		cmd.abort()
		return errors.Join(err, run.Close())
	}
	if err := errors.Join(cmd.close(), run.Close()); err != nil {
		return err
	}
	if got := run.Ledger(); got != part.Ledger {
		return fmt.Errorf("combine: %w: a run has changed on disk", record.ErrCorrupt)
	}
	c.task.Combined(input, output)
	return nil
}

func feed(ctx context.Context, run engine.Run, cmd *command) error {
	for {
		key, rest, err := run.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("combine: %w", err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := cmd.write(key, rest, newline); err != nil {
			return err
		}
	}
}

// close combines the last run.
func (c *combiner) close() error {
	err := c.err
	if err == nil && c.task.Err() == nil {
		err = c.flush()
	}
	c.abort()
	return err
}

// abort removes what is on disk. Idempotent.
func (c *combiner) abort() {
	if c.collector != nil {
		_ = c.collector.Close() // its files go with the attempt's directory, at the latest
		c.collector = nil
	}
}

package task

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"millrace/jobs/engine"
	"millrace/jobs/input"
	"millrace/pkg/api"
)

// Bounds of the memory for a map's records, in bytes. The upper one takes a split of the
// usual 128 MiB with its index and the sort's; more would be memory that a child clears
// again for each attempt, for nothing.
const (
	minCollector = 16 << 20
	maxCollector = 384 << 20
)

// collectorMemory is a third of what the attempt may use; the rest is for the
// program, read-ahead and the garbage between two collections.
func collectorMemory(lease int64) int64 {
	if lease <= 0 {
		return 0 // the engine's default
	}
	return min(max(lease/3, minCollector), maxCollector)
}

func (a *attempt) runMap() error {
	if a.Program.CopiesFiles {
		return a.copyFiles()
	}
	l, t := a.Lease, a.task
	split := l.Split
	if split == nil {
		split = &api.Split{} // no input at all is an input
	}
	reader, err := input.Open(a.ctx, a.Store, split, input.ReaderConfig{MaxRecord: l.MaxRecordBytes})
	if err != nil {
		return fmt.Errorf("open split %d: %w", l.Index, err)
	}
	defer reader.Close()

	if l.Partitions > 0 {
		if t.collector, err = a.newCollector(); err != nil {
			return err
		}
		defer t.collector.Close()
	} else {
		if t.output, err = newOutput(a.ctx, a.Store, l.Output); err != nil {
			return err
		}
		defer t.output.abort()
	}

	err = guard(func() error { return a.mapRecords(reader) })
	if err != nil {
		a.url, a.offset = t.Position()
		return err
	}
	a.count("mapInputBytes", reader.BytesRead())
	a.progress.publish(reader.InputDone(), a.progress.records.Load())
	a.count("mapOutputRecords", t.records)
	a.count("mapOutputBytes", t.bytes)
	if t.output != nil {
		return a.finishOutput()
	}
	return a.finishSegment()
}

func (a *attempt) newCollector() (*engine.Collector, error) {
	p := a.Program
	c := engine.Config{
		Partitions: int(a.Lease.Partitions),
		Memory:     collectorMemory(a.Lease.MemoryBytes),
		Dir:        a.spill,
		Compare:    p.Compare,
		Fold:       p.Fold,
	}
	if p.Fold == nil && p.NewCombiner != nil {
		combine, err := p.NewCombiner(a.task)
		if err != nil {
			return nil, programError("set up the combiner", err)
		}
		c.Combine = func(key []byte, values *engine.Values, emit engine.EmitFunc) error {
			if err := combine(key, values, emit); err != nil {
				return programError(fmt.Sprintf("combine key %q", clip(key)), err)
			}
			return nil
		}
	}
	collector, err := engine.NewCollector(c)
	if err != nil {
		return nil, fmt.Errorf("make the collector: %w", err)
	}
	return collector, nil
}

// mapRecords is the map side's loop: one flag per record, nothing else.
func (a *attempt) mapRecords(reader *input.Reader) (err error) {
	t := a.task
	mapper, err := a.Program.NewMapper(t)
	if err != nil {
		return programError("set up the mapper", err)
	}
	closed := false
	defer func() {
		if !closed {
			mapper.Abort()
		}
	}()
	t.position = reader.Position
	var records int64
	for {
		key, value, err := reader.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		records++
		if err := mapper.Map(key, value); err != nil {
			return programError("map", err)
		}
		if t.failed.Load() {
			return t.err
		}
		if a.progress.due.Load() {
			a.progress.publish(reader.InputDone(), records)
			if a.ctx.Err() != nil {
				return a.ctx.Err()
			}
		}
	}
	a.progress.records.Store(records)
	closed = true
	if err := mapper.Close(); err != nil {
		var p *ProgramError
		if !errors.As(err, &p) || p.ExitCode == 0 && p.Signal == "" {
			t.position = nil // no record's fault; a command's end may be the last one's
		}
		return programError("finish the mapper", err)
	}
	t.position = nil
	if err := t.Err(); err != nil {
		return err
	}
	a.count("mapInputRecords", records)
	return a.ctx.Err()
}

// finishSegment sorts and writes what was collected.
func (a *attempt) finishSegment() error {
	l, t := a.Lease, a.task
	f, err := os.Create(l.SegmentPath)
	if err != nil {
		return fmt.Errorf("create the segment: %w", err)
	}
	var size int64
	err = guard(func() error { // comparators and combiners run here, too
		w := bufio.NewWriterSize(f, 256<<10)
		index, err := t.collector.Finish(a.ctx, w)
		if err != nil {
			return fmt.Errorf("write the segment: %w", err)
		}
		if err := w.Flush(); err != nil {
			return fmt.Errorf("write the segment: %w", err)
		}
		if size, err = f.Seek(0, io.SeekCurrent); err != nil {
			return fmt.Errorf("write the segment: %w", err)
		}
		total := index.Total()
		a.result.Segment = &api.Ledger{Records: total.Records, Bytes: total.Bytes, Checksum: total.Checksum}
		a.result.Digest = index.Digest()
		return nil
	})
	if e := f.Close(); err == nil && e != nil {
		err = fmt.Errorf("write the segment: %w", e)
	}
	if err == nil {
		err = t.Err() // a combiner's
	}
	if err != nil {
		return errors.Join(err, os.Remove(l.SegmentPath))
	}
	stats := t.collector.Stats()
	a.count("combineInputRecords", stats.CombineInputRecords+t.combineInput)
	a.count("combineOutputRecords", stats.CombineOutputRecords+t.combineKept)
	a.count("spilledRecords", stats.SpilledRecords)
	a.count("segmentRecords", a.result.Segment.Records)
	a.count("segmentBytes", size)
	return nil
}

// finishOutput waits for the last parts and accounts for them.
func (a *attempt) finishOutput() error {
	o := a.task.output
	if err := o.close(); err != nil {
		return err
	}
	a.result.OutputRecords = o.records
	a.result.OutputBytes = o.parts.bytes
	a.result.OutputParts = int32(o.parts.count())
	a.count("outputBytes", o.parts.bytes)
	return nil
}

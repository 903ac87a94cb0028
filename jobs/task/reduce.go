package task

import (
	"errors"
	"fmt"
	"io"

	"millrace/jobs/engine"
	"millrace/pkg/api"
)

func (a *attempt) runReduce() (err error) {
	l, t := a.Lease, a.task
	if a.Segments == nil {
		return fmt.Errorf("lease %s: a reduce without segments", l.Attempt)
	}
	if t.output, err = newOutput(a.ctx, a.Store, l.Output); err != nil {
		return err
	}
	defer t.output.abort()
	segments, err := a.Segments.take(a.ctx, int(l.Maps))
	if err != nil {
		return err
	}

	f := &fetched{partition: int(l.Index)}
	err = guard(func() error { return a.reduceSegments(f, segments) })
	if f.broken != nil {
		return f.broken // whatever the program made of it
	}
	if err != nil {
		var p *ProgramError
		if errors.As(err, &p) && p.panicked && a.key != nil {
			p.Message = fmt.Sprintf("reduce key %q: %s", clip(a.key), p.Message)
		}
		return err
	}
	if f.done != len(segments) {
		return fmt.Errorf("merged %d of %d segments to their end", f.done, len(segments))
	}
	a.result.Segment = &api.Ledger{Records: f.ledger.Records, Bytes: f.ledger.Bytes, Checksum: f.ledger.Checksum}
	a.result.Digest = f.digest
	a.count("fetchedRecords", f.ledger.Records)
	a.count("reduceOutputRecords", t.records)
	return a.finishOutput()
}

func (a *attempt) reduceSegments(f *fetched, segments []*api.ChildSegment) error {
	openers := make([]engine.Opener, len(segments))
	for i, g := range segments {
		openers[i] = f.opener(g)
	}
	merged, err := engine.Merge(a.ctx, openers, engine.MergeConfig{Compare: a.Program.Compare, Dir: a.spill})
	if err != nil {
		return fmt.Errorf("merge: %w", err)
	}
	counted := &countedRun{Run: merged, fetched: f, attempt: a}
	err = a.reduceGroups(engine.NewGroups(counted, a.grouping()), counted)
	if m, ok := merged.(*engine.Merged); ok {
		a.count("spilledRecords", m.Stats().SpilledRecords)
	}
	if e := merged.Close(); err == nil && e != nil {
		err = fmt.Errorf("merge: %w", e)
	}
	return err
}

// grouping says which keys belong together; nil for equal bytes.
func (a *attempt) grouping() func(x, y []byte) bool {
	p := a.Program
	switch {
	case p.Group != nil:
		return p.Group
	case p.Compare != nil:
		return func(x, y []byte) bool { return p.Compare(x, y) == 0 }
	}
	return nil
}

// reduceGroups is the reduce side's loop.
func (a *attempt) reduceGroups(groups *engine.Groups, counted *countedRun) error {
	t := a.task
	var reducer Reducer = identity{t}
	if a.Program.NewReducer != nil {
		r, err := a.Program.NewReducer(t)
		if err != nil {
			return programError("set up the reducer", err)
		}
		reducer = r
	}
	closed := false
	defer func() {
		if !closed {
			reducer.Abort()
		}
	}()
	var count int64
	for {
		key, values, err := groups.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		count++
		a.key = key
		if err := reducer.Reduce(key, values); err != nil {
			return programError(fmt.Sprintf("reduce key %q", clip(key)), err)
		}
		if t.failed.Load() {
			return t.err
		}
		if a.ctx.Err() != nil {
			return a.ctx.Err()
		}
	}
	closed, a.key = true, nil
	if err := reducer.Close(); err != nil {
		return programError("finish the reducer", err)
	}
	if err := t.Err(); err != nil {
		return err
	}
	a.progress.publish(counted.fetched.bytes, counted.records)
	a.count("reduceInputGroups", count)
	a.count("reduceInputRecords", counted.records)
	return a.ctx.Err()
}

// countedRun counts what passes into groups, publishes progress, and ends the
// stream when the attempt is to end, in the middle of a group too.
type countedRun struct {
	engine.Run
	fetched *fetched
	attempt *attempt
	records int64
}

func (r *countedRun) Next() (key, value []byte, err error) {
	if p := r.attempt.progress; p.due.Load() {
		p.publish(r.fetched.bytes, r.records)
		if err := r.attempt.ctx.Err(); err != nil {
			return nil, nil, err
		}
	}
	key, value, err = r.Run.Next()
	if err == nil {
		r.records++
	}
	return key, value, err
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"millrace/pkg/record"
)

// MergeConfig sets up a merge.
type MergeConfig struct {
	Compare func(a, b []byte) int // nil = bytes.Compare
	FanIn   int                   // runs merged at once; default 64, at least 2; more go through disk
	Dir     string
	Codec   record.Codec

	disk disk
}

// plan says how n runs become at most fanIn, or as few as one pass can make, by
// merging neighbours: it yields the place and length of each batch. Batches of
// one stay as they are, so that no more is rewritten than need be.
func plan(n, fanIn int) iter.Seq2[int, int] {
	fanIn = max(fanIn, 2)
	return func(yield func(at, n int) bool) {
		excess := n - fanIn
		for at := 0; at < n; {
			size := 1
			if excess > 0 {
				size = min(fanIn, excess+1, n-at)
				excess -= size - 1
			}
			if !yield(at, size) {
				return
			}
			at += size
		}
	}
}

// Merged is a merge's Run.
type Merged struct {
	ctx     context.Context
	tree    losers
	runs    []Run
	n       int
	spiller *spiller
	spills  []spill // not opened yet
	stats   Stats
	closed  bool
}

// Merge merges sorted runs into one, with a loser tree; equal keys come in the order of the runs.
// It takes the runs over and closes them. The Run is a *Merged.
func Merge(ctx context.Context, runs []Opener, c MergeConfig) (Run, error) {
	if c.FanIn == 0 {
		c.FanIn = defaultFanIn
	}
	if c.disk == nil {
		c.disk = osDisk{}
	}
	c.FanIn = max(c.FanIn, 2)
	m := &Merged{ctx: ctx, spiller: &spiller{disk: c.disk, dir: c.Dir, codec: c.Codec}}
	m.tree.compare = c.Compare
	for len(runs) > c.FanIn {
		var err error
		if runs, err = m.pass(runs, c.FanIn); err != nil {
			return nil, errors.Join(fmt.Errorf("merge: %w", err), m.Close())
		}
	}
	if err := m.open(runs); err != nil {
		return nil, errors.Join(fmt.Errorf("merge: %w", err), m.Close())
	}
	return m, nil
}

// pass merges runs into fewer, through disk.
func (m *Merged) pass(runs []Opener, fanIn int) ([]Opener, error) {
	var next []Opener
	for at, n := range plan(len(runs), fanIn) {
		if n == 1 {
			next = append(next, runs[at])
			continue
		}
		s, err := m.spiller.write(1, func(w *record.Writer) (err error) {
			defer func() { err = errors.Join(err, m.closeRuns()) }()
			if err := m.open(runs[at : at+n]); err != nil {
				return err
			}
			return pour(m.ctx, w, 0, &m.tree)
		})
		if err != nil {
			return nil, err
		}
		m.stats.SpilledRecords += s.index.Total().Records
		m.spills = append(m.spills, s)
		next = append(next, func() (Run, error) { return m.openSpill(s) })
	}
	return next, nil
}

// openSpill opens a spill, whose run then owns the file.
func (m *Merged) openSpill(s spill) (Run, error) {
	r, err := m.spiller.open(s)
	if err != nil {
		return nil, err
	}
	for i := range m.spills {
		if m.spills[i].path == s.path {
			m.spills = append(m.spills[:i], m.spills[i+1:]...)
			break
		}
	}
	return r, nil
}

func (m *Merged) open(runs []Opener) error {
	for _, open := range runs {
		if err := m.ctx.Err(); err != nil {
			return err
		}
		r, err := open()
		if err != nil {
			return err
		}
		m.runs = append(m.runs, r)
	}
	m.tree.reset(m.runs)
	return nil
}

func (m *Merged) closeRuns() error {
	var errs []error
	for _, r := range m.runs {
		errs = append(errs, r.Close())
	}
	m.runs = m.runs[:0]
	return errors.Join(errs...)
}

// Next returns the next record, or io.EOF, or the context's error.
func (m *Merged) Next() (key, value []byte, err error) {
	if m.n++; m.n%checkEvery == 0 || m.closed {
		if m.closed {
			return nil, nil, errors.New("engine: merge is closed")
		}
		if err := m.ctx.Err(); err != nil {
			return nil, nil, err
		}
	}
	return m.tree.Next()
}

// Stats says what went through disk.
func (m *Merged) Stats() Stats { return m.stats }

// Close closes the runs and removes what went through disk. Idempotent.
func (m *Merged) Close() error {
	m.closed = true
	err := errors.Join(m.closeRuns(), m.spiller.removeAll(m.spills))
	m.spills = nil
	return err
}

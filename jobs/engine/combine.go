package engine

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"millrace/pkg/record"
)

// checkEvery is how many records pass between two looks at the context.
const checkEvery = 1 << 12

// combiner writes sorted runs, with equal keys folded or combined. It goes by
// equal bytes, whatever the order: keys that a Compare takes for equal may
// still be two keys.
type combiner struct {
	fold    FoldFunc
	combine CombineFunc
	stats   *Stats
	key     []byte // scratch
	acc     []byte
}

// pour writes run as partition p.
func (c *combiner) pour(ctx context.Context, w *record.Writer, p int, run Run) error {
	switch {
	case c.fold != nil:
		return c.pourFolded(ctx, w, p, run)
	case c.combine != nil:
		return c.pourCombined(ctx, w, p, run)
	}
	return pour(ctx, w, p, run)
}

func pour(ctx context.Context, w *record.Writer, p int, run Run) error {
	for n := 0; ; n++ {
		if n%checkEvery == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		key, value, err := run.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := w.Append(p, key, value); err != nil {
			return err
		}
	}
}

func (c *combiner) pourFolded(ctx context.Context, w *record.Writer, p int, run Run) error {
	pending := false
	for n := 0; ; n++ {
		if n%checkEvery == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		key, value, err := run.Next()
		if err != nil && err != io.EOF {
			return err
		}
		if err == nil {
			c.stats.CombineInputRecords++
			if pending && bytes.Equal(c.key, key) {
				c.acc = keep(c.acc, c.fold(c.acc, value))
				continue
			}
		}
		if pending {
			c.stats.CombineOutputRecords++
			if err := w.Append(p, c.key, c.acc); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		pending = true
		c.key, c.acc = append(c.key[:0], key...), append(c.acc[:0], value...)
	}
}

// keep makes b last: in acc's memory, unless b is a slice of its own that is
// longer. A fold may have returned its value, which is not ours.
func keep(acc, b []byte) []byte {
	if len(b) > cap(acc) {
		if len(b) < cap(b) { // grown by append: room for more
			return b
		}
		return append(make([]byte, 0, 2*len(b)), b...)
	}
	acc = acc[:len(b)]
	copy(acc, b)
	return acc
}

func (c *combiner) pourCombined(ctx context.Context, w *record.Writer, p int, run Run) error {
	groups := NewGroups(run, nil)
	defer func() { c.stats.CombineInputRecords += groups.records }()
	var key []byte
	emit := func(k, v []byte) error {
		if !bytes.Equal(k, key) {
			return fmt.Errorf("combiner emitted key %.64q for key %.64q", k, key)
		}
		c.stats.CombineOutputRecords++
		return w.Append(p, k, v)
	}
	for n := 0; ; n++ {
		if n%checkEvery == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		k, values, err := groups.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		// The combiner gets the group's key to read; what it emits is compared with ours.
		key = append(key[:0], k...)
		if err := c.combine(k, values, emit); err != nil {
			return fmt.Errorf("combine key %.64q: %w", key, err)
		}
	}
}

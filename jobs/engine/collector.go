package engine

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/xxh3"

	"millrace/pkg/record"
)

// Collector takes a map task's output and makes one segment of it. Not for
// concurrent use. After an error it is of no use but for Close.
type Collector struct {
	config   Config
	buffer   buffer
	table    table
	pending  pending
	spiller  spiller
	spills   []spill
	stats    Stats
	ready    bool // memory is allocated, and the stats are of this output
	err      error
	combiner combiner
}

var errClosed = errors.New("engine: collector is closed")

// NewCollector checks c and makes an empty Collector, which takes its memory with the first record.
func NewCollector(c Config) (*Collector, error) {
	if err := c.setDefaults(); err != nil {
		return nil, err
	}
	x := &Collector{config: c, spiller: spiller{disk: c.disk, dir: c.Dir, codec: c.Codec}}
	x.table.buffer = &x.buffer
	x.combiner = combiner{fold: c.Fold, combine: c.Combine, stats: &x.stats}
	return x, nil
}

// begin gets ready for the first record of an output.
func (c *Collector) begin() {
	c.ready, c.stats = true, Stats{}
	c.buffer.allocate(c.config.Memory, c.config.Partitions)
	if c.config.Fold != nil {
		c.table.clear()
	}
}

// Collect adds a record; it keeps neither slice.
func (c *Collector) Collect(partition int, key, value []byte) error {
	if c.config.Fold == nil {
		return c.collect(partition, 0, key, value)
	}
	return c.collect(partition, xxh3.Hash(key), key, value)
}

// CollectHashed is Collect into the key's HashPartition, cheaper than both with
// a Fold: the key is hashed once.
func (c *Collector) CollectHashed(key, value []byte) error {
	h := xxh3.Hash(key)
	return c.collect(partitionOf(h, c.config.Partitions), h, key, value)
}

// collect adds a record, whose key has the given hash; without a Fold it is not used.
func (c *Collector) collect(partition int, hash uint64, key, value []byte) error {
	if !c.ready {
		if c.err != nil {
			return c.err
		}
		c.begin()
	}
	if uint(partition) >= uint(c.config.Partitions) {
		return c.fail(fmt.Errorf("collect: partition %d of %d", partition, c.config.Partitions))
	}
	size := len(key) + len(value)
	if err := record.CheckSize(size); err != nil {
		return c.fail(fmt.Errorf("collect: %w", err))
	}
	if c.config.Fold != nil {
		return c.collectFolded(partition, tableHash(hash, partition), key, value)
	}
	if !c.buffer.fits(headSize+size) && !(c.buffer.grow() && c.buffer.fits(headSize+size)) {
		if err := c.spill(); err != nil {
			return err
		}
		if !c.buffer.fits(headSize + size) {
			return c.spillOne(partition, key, value)
		}
	}
	c.buffer.add(partition, key, value, len(value))
	return nil
}

// collectFolded adds a record to those that are on their way into the hash
// table. An error may be that of an earlier one.
func (c *Collector) collectFolded(partition int, h uint32, key, value []byte) error {
	size := len(key) + len(value)
	if !c.pending.fits(size) {
		if err := c.drain(); err != nil {
			return err
		}
		if !c.pending.fits(size) {
			return c.fold(partition, h, key, value)
		}
	}
	c.pending.add(h, partition, key, value)
	return nil
}

// fold adds a record to the hash table.
func (c *Collector) fold(partition int, h uint32, key, value []byte) error {
	c.stats.CombineInputRecords++
	offset, slot := c.table.find(h, partition, key)
	if offset != 0 {
		if value = c.table.fold(c.config.Fold, offset, slot, key, value); value == nil {
			return nil
		}
		if err := record.CheckSize(len(key) + len(value)); err != nil {
			return c.fail(fmt.Errorf("fold: %w", err))
		}
	} else if c.table.insert(h, slot, partition, key, value) {
		return nil
	}
	if c.table.enlarge() {
		_, slot = c.table.find(h, partition, key)
		if c.table.insert(h, slot, partition, key, value) {
			return nil
		}
	}
	if err := c.spill(); err != nil {
		return err
	}
	_, slot = c.table.find(h, partition, key)
	if c.table.insert(h, slot, partition, key, value) {
		return nil
	}
	c.stats.CombineOutputRecords++
	return c.spillOne(partition, key, value)
}

// spill sorts what is in memory and writes it to disk.
func (c *Collector) spill() error {
	if c.buffer.live > 0 {
		c.buffer.sort(c.config.Compare)
		s, err := c.spiller.write(c.config.Partitions, func(w *record.Writer) error {
			return c.writeBuffer(context.Background(), w)
		})
		if err != nil {
			return c.fail(err)
		}
		c.keep(s)
	}
	c.buffer.reset()
	if c.config.Fold != nil {
		c.table.clear()
	}
	return nil
}

// spillOne makes a spill of a record for which the memory is too small.
func (c *Collector) spillOne(partition int, key, value []byte) error {
	s, err := c.spiller.write(c.config.Partitions, func(w *record.Writer) error {
		return w.Append(partition, key, value)
	})
	if err != nil {
		return c.fail(err)
	}
	c.keep(s)
	return nil
}

func (c *Collector) keep(s spill) {
	c.spills = append(c.spills, s)
	c.stats.SpilledRecords += s.index.Total().Records
}

// writeBuffer writes the sorted buffer, combined.
func (c *Collector) writeBuffer(ctx context.Context, w *record.Writer) error {
	if c.config.Fold != nil {
		c.stats.CombineOutputRecords += int64(c.buffer.live)
	}
	for p := range c.config.Partitions {
		run := c.buffer.partition(p)
		if len(run.index) == 0 {
			continue
		}
		var err error
		if c.config.Fold == nil && c.config.Combine != nil {
			err = c.combiner.pour(ctx, w, p, &run)
		} else {
			err = pour(ctx, w, p, &run)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Finish sorts and merges everything into one segment on w. The Collector is
// empty afterwards and can be used again; Stats are of the finished output
// until then.
func (c *Collector) Finish(ctx context.Context, w io.Writer) (record.Index, error) {
	if c.err != nil {
		return record.Index{}, c.err
	}
	if !c.ready {
		c.begin() // an output of no records
	}
	if err := c.drain(); err != nil {
		return record.Index{}, err
	}
	x, err := c.finish(ctx, record.NewWriter(w, c.config.Partitions, c.config.Codec))
	if err != nil {
		return record.Index{}, c.fail(fmt.Errorf("finish: %w", err))
	}
	c.ready = false
	c.buffer.reset()
	c.table.shrink()
	return x, nil
}

func (c *Collector) finish(ctx context.Context, w *record.Writer) (record.Index, error) {
	if err := ctx.Err(); err != nil {
		return record.Index{}, err
	}
	c.buffer.sort(c.config.Compare)
	if len(c.spills) == 0 {
		if err := c.writeBuffer(ctx, w); err != nil {
			return record.Index{}, err
		}
		return w.Close()
	}
	if c.config.Fold != nil {
		c.stats.CombineOutputRecords += int64(c.buffer.live)
	}
	if err := c.reduceSpills(ctx); err != nil {
		return record.Index{}, err
	}
	if err := c.mergeSpills(ctx, c.spills, true, w); err != nil {
		return record.Index{}, err
	}
	x, err := w.Close()
	if err != nil {
		return record.Index{}, err
	}
	spills := c.spills
	c.spills = nil
	return x, c.spiller.removeAll(spills)
}

// reduceSpills merges spills with each other until all that is left can be merged at once.
func (c *Collector) reduceSpills(ctx context.Context) error {
	fanIn := min(max(int(c.config.Memory/4/readerMemory), 4), defaultFanIn)
	for len(c.spills) >= fanIn {
		var next []spill
		for at, n := range plan(len(c.spills), fanIn-1) {
			batch := c.spills[at : at+n]
			if n == 1 {
				next = append(next, batch[0])
				continue
			}
			s, err := c.spiller.write(c.config.Partitions, func(w *record.Writer) error {
				return c.mergeSpills(ctx, batch, false, w)
			})
			if err != nil {
				c.spills = append(next, c.spills[at:]...)
				return err
			}
			c.stats.SpilledRecords += s.index.Total().Records
			next = append(next, s)
			if err := c.spiller.removeAll(batch); err != nil {
				c.spills = append(next, c.spills[at:]...)
				return err
			}
		}
		c.spills = next
	}
	return nil
}

// mergeSpills merges spills, and the buffer if it is to be, into w, partition by partition.
func (c *Collector) mergeSpills(ctx context.Context, spills []spill, buffer bool, w *record.Writer) (err error) {
	files := make([]file, 0, len(spills))
	readers := make([]spillReader, len(spills))
	defer func() {
		for i, f := range files {
			err = errors.Join(err, readers[i].Close(), f.Close())
		}
	}()
	for i, s := range spills {
		f, err := c.spiller.disk.open(s.path)
		if err != nil {
			return fmt.Errorf("open spill: %w", err)
		}
		files = append(files, f)
		readers[i].path = s.path
	}
	tree := losers{compare: c.config.Compare}
	runs := make([]Run, 0, len(spills)+1)
	for p := range c.config.Partitions {
		runs = runs[:0]
		for i, s := range spills {
			if x := s.index.Partitions[p]; x.Records > 0 {
				readers[i].Reset(files[i], p, x)
				runs = append(runs, &readers[i])
			}
		}
		if memory := c.buffer.partition; buffer {
			if run := memory(p); len(run.index) > 0 {
				runs = append(runs, &run)
			}
		}
		if len(runs) == 0 {
			continue
		}
		tree.reset(runs)
		if err := c.combiner.pour(ctx, w, p, &tree); err != nil {
			return err
		}
	}
	return nil
}

// spillReader reads one spill, partition by partition.
type spillReader struct {
	record.Reader
	path string
}

func (r *spillReader) Next() (key, value []byte, err error) {
	key, value, err = r.Reader.Next()
	if err != nil && err != io.EOF {
		err = fmt.Errorf("spill %s: %w", r.path, err)
	}
	return key, value, err
}

// Stats are of the output being collected, or of the last one until the next begins.
func (c *Collector) Stats() Stats { return c.stats }

// Close removes spills. Idempotent.
func (c *Collector) Close() error {
	spills := c.spills
	c.spills, c.ready, c.err = nil, false, errClosed
	c.buffer, c.table, c.pending = buffer{}, table{}, pending{}
	return c.spiller.removeAll(spills)
}

func (c *Collector) fail(err error) error {
	c.err, c.ready = err, false
	c.pending.reset()
	return err
}

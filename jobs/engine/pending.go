package engine

import "encoding/binary"

// pending holds the latest records on their way into a hash table. A table of
// many keys does not fit into the processor's caches, and waiting for memory at
// each lookup is most of the cost: so a batch of lookups touches its memory
// first, all at once, which the processor overlaps.
type pending struct {
	records [pendingRecords]pendingRecord
	n       int
	bytes   []byte // keys and values, copied
	touched uint64
}

type pendingRecord struct {
	hash       uint32 // tableHash
	partition  uint32
	at         uint32 // in bytes: the key, and the value after it
	key, value uint32 // lengths
}

const (
	pendingRecords = 32
	pendingBytes   = 4 << 10
)

// fits says whether one more record of size bytes may be added.
func (p *pending) fits(size int) bool {
	return p.n < pendingRecords && len(p.bytes)+size <= pendingBytes
}

// add takes a record that fits.
func (p *pending) add(hash uint32, partition int, key, value []byte) {
	if p.bytes == nil {
		p.bytes = make([]byte, 0, pendingBytes)
	}
	p.records[p.n] = pendingRecord{hash, uint32(partition), uint32(len(p.bytes)), uint32(len(key)), uint32(len(value))}
	p.n++
	p.bytes = append(append(p.bytes, key...), value...)
}

func (p *pending) reset() { p.n, p.bytes = 0, p.bytes[:0] }

// touch reads what the lookups of all pending records will: the slots first, then the records that these name.
func (p *pending) touch(t *table) {
	var offsets [pendingRecords]uint32
	mask := uint32(len(t.slots) - 1)
	for i := range p.n {
		offsets[i] = uint32(t.slots[p.records[i].hash&mask])
	}
	for _, at := range offsets[:p.n] {
		p.touched ^= binary.LittleEndian.Uint64(t.mem[at:]) // an empty slot names offset 0, where no record is
	}
}

// drain folds what is pending into the table.
func (c *Collector) drain() error {
	p := &c.pending
	if p.n == 0 {
		return nil
	}
	p.touch(&c.table)
	defer p.reset()
	for i := range p.n {
		r := &p.records[i]
		key := p.bytes[r.at : r.at+r.key : r.at+r.key]
		value := p.bytes[r.at+r.key : r.at+r.key+r.value : r.at+r.key+r.value]
		if err := c.fold(int(r.partition), r.hash, key, value); err != nil {
			return err
		}
	}
	return nil
}

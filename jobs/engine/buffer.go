package engine

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"unsafe"
)

// buffer holds a Collector's records in one allocation, which the garbage
// collector does not look into:
//
//	records, in order of arrival → · free · ← slots of the hash table, if any
//
// To sort, an index of the records is made behind them, and next to it as much
// again for the radix sort; the slots are not needed any more by then. A record
// is only taken while room for both is left.
//
// A record is a head of four 32-bit integers (partition, capacity of the value,
// lengths of key and value), the key, and the value. Only a value of a hash
// table has spare capacity.
type buffer struct {
	words []entry // all of the memory
	mem   []byte  // the same, as bytes
	later int64   // bytes of the second step, 0 when it is done
	used  int     // bytes of records
	live  int     // records, without dead ones
	tail  int     // bytes of slots, at the end of mem
	count []int   // partition p's sorted index is [count[p], count[p+1])
	index []entry // sorted
}

// entry is one record of the index. It has no pointers.
type entry struct {
	prefix    uint64 // 8 bytes of the key, as a number that orders as they do
	partition uint32
	offset    uint32 // in mem; grows with arrival
}

const (
	headSize  = 16
	entrySize = int(unsafe.Sizeof(entry{}))
	dead      = 1<<32 - 1 // partition of a record that has moved elsewhere
)

// Memory is taken in two steps, since most outputs of a small job need little
// and clearing memory takes time. Both together are within the budget, as they
// must be while one is copied to the other.
const (
	firstStep    = 64 // the part of the budget that the first step takes
	leastTwoStep = 1 << 20
)

// allocate takes the memory for an output, unless it has some already.
func (b *buffer) allocate(memory int64, partitions int) {
	if b.words == nil {
		b.count = make([]int, partitions+1)
		if memory >= leastTwoStep {
			b.later = memory - memory/firstStep
			memory /= firstStep
		}
		b.take(memory)
	}
	b.reset()
}

func (b *buffer) take(memory int64) {
	b.words = make([]entry, memory/int64(entrySize))
	b.mem = unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(b.words))), len(b.words)*entrySize)
	preferHugePages(b.mem)
}

// grow takes the second step, if that is not done: offsets stay, slots do not.
func (b *buffer) grow() bool {
	if b.later == 0 {
		return false
	}
	old := b.mem[:b.used]
	b.take(b.later)
	copy(b.mem, old)
	b.later = 0
	return true
}

// reset forgets all records. Offset 0 stays unused: it marks an empty slot.
func (b *buffer) reset() {
	b.used, b.live, b.index = headSize, 0, nil
}

// fits says whether a record of the size (with its head) may be added.
func (b *buffer) fits(size int) bool {
	behind := max((b.live+1)*2*entrySize+entrySize, b.tail)
	return b.used+size+behind <= len(b.mem)
}

// add writes a record that fits, and returns its offset.
func (b *buffer) add(partition int, key, value []byte, capacity int) int {
	at := b.used
	head := b.mem[at : at+headSize]
	le := binary.LittleEndian
	le.PutUint32(head[0:], uint32(partition))
	le.PutUint32(head[4:], uint32(capacity))
	le.PutUint32(head[8:], uint32(len(key)))
	le.PutUint32(head[12:], uint32(len(value)))
	n := copy(b.mem[at+headSize:], key)
	copy(b.mem[at+headSize+n:], value)
	b.used = at + headSize + n + capacity
	b.live++
	return at
}

func (b *buffer) key(offset uint32) []byte {
	n := binary.LittleEndian.Uint32(b.mem[offset+8:])
	return b.mem[offset+headSize:][:n:n]
}

// sort makes the index: by partition, key, arrival.
func (b *buffer) sort(compare func(a, b []byte) int) {
	start := (b.used + entrySize - 1) / entrySize
	index, spare := b.words[start:start+b.live], b.words[start+b.live:start+2*b.live]
	b.fill(index)
	if len(b.count) > 2 {
		b.distribute(spare, index)
		index, spare = spare, index
	}
	s := sorter{buffer: b}
	for p := range len(b.count) - 1 {
		lo, hi := b.count[p], b.count[p+1]
		if compare == nil {
			s.sort(index[lo:hi], spare[lo:hi], 0)
			continue
		}
		slices.SortFunc(index[lo:hi], func(x, y entry) int {
			if c := compare(b.key(x.offset), b.key(y.offset)); c != 0 {
				return c
			}
			return int(int64(x.offset) - int64(y.offset))
		})
	}
	b.index = index
}

// fill makes an index in order of arrival, and counts each partition's records.
func (b *buffer) fill(index []entry) {
	le := binary.LittleEndian
	clear(b.count)
	i := 0
	for at := headSize; at < b.used; {
		head := b.mem[at : at+headSize]
		partition, capacity, k := le.Uint32(head), int(le.Uint32(head[4:])), int(le.Uint32(head[8:]))
		if partition != dead {
			index[i] = entry{prefix(b.mem[at+headSize:][:k]), partition, uint32(at)}
			b.count[partition+1]++
			i++
		}
		at += headSize + k + capacity
	}
	for p := 1; p < len(b.count); p++ {
		b.count[p] += b.count[p-1]
	}
}

// distribute copies the entries of from to to, by partition, stably.
func (b *buffer) distribute(to, from []entry) {
	// count[p] serves as partition p's next place, and ends as p+1's first.
	for i := range from {
		at := &b.count[from[i].partition]
		to[*at] = from[i]
		*at++
	}
	copy(b.count[1:], b.count)
	b.count[0] = 0
}

// partition is the sorted run of one partition.
func (b *buffer) partition(p int) memoryRun {
	return memoryRun{mem: b.mem, index: b.index[b.count[p]:b.count[p+1]]}
}

// memoryRun walks a part of a sorted buffer. Sorted records lie scattered, and
// waiting for memory at each is most of the cost: so it touches a batch of
// them at once, whose loads the processor overlaps.
type memoryRun struct {
	mem     []byte
	index   []entry
	lengths [batch]uint64 // of the coming records: value's in the upper half, key's in the lower
	ahead   int           // how many of lengths are filled, at their end
	touched byte
}

const batch = 32

func (r *memoryRun) Next() (key, value []byte, err error) {
	if r.ahead == 0 {
		if len(r.index) == 0 {
			return nil, nil, io.EOF
		}
		r.touch()
	}
	lengths := r.lengths[batch-r.ahead]
	k, v := lengths&(1<<32-1), lengths>>32
	body := r.mem[r.index[0].offset+headSize:][:k+v]
	r.index = r.index[1:]
	r.ahead--
	return body[:k:k], body[k : k+v : k+v], nil
}

// touch reads the lengths of the next records, and a byte where each may go on in another cache line.
func (r *memoryRun) touch() {
	next := r.index[:min(batch, len(r.index))]
	lengths := r.lengths[batch-len(next):]
	var touched byte
	for i := range next {
		at := int(next[i].offset)
		lengths[i] = binary.LittleEndian.Uint64(r.mem[at+8:])
		touched |= r.mem[min(at+64, len(r.mem)-1)]
	}
	r.ahead, r.touched = len(next), touched
}

func (r *memoryRun) Close() error { return nil }

// prefix is the first 8 bytes of key as a number, as if zeros followed a shorter one.
func prefix(key []byte) uint64 {
	if len(key) >= 8 {
		return binary.BigEndian.Uint64(key)
	}
	var p uint64
	switch {
	case len(key) >= 4: // two overlapping halves
		p = uint64(binary.BigEndian.Uint32(key))<<32 |
			uint64(binary.BigEndian.Uint32(key[len(key)-4:]))<<(8*(8-uint(len(key))))
	case len(key) >= 1:
		p = uint64(key[0])<<56 | uint64(key[len(key)/2])<<(56-8*uint(len(key)/2)) |
			uint64(key[len(key)-1])<<(64-8*uint(len(key)))
	}
	return p
}

func compareFrom(a, b []byte, depth int) int {
	return bytes.Compare(a[min(depth, len(a)):], b[min(depth, len(b)):])
}

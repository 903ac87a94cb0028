package engine

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// table is a hash table over a buffer's records, with open addressing and
// linear probing. Its slots lie at the end of the buffer's memory.
type table struct {
	*buffer
	slots []uint64 // hash in the upper half, offset in the lower; 0 is empty
}

const firstSlots = 1 << 10

// clear empties the table, keeping its size if it has one.
func (t *table) clear() {
	if t.slots == nil {
		n := min(firstSlots, 1<<(bits.Len(uint(len(t.mem)/64))-1))
		t.slots = t.place(n)
	}
	clear(t.slots)
}

// shrink makes the next clear start small again.
func (t *table) shrink() { t.slots, t.tail = nil, 0 }

// place is the last n slots of the memory.
func (t *table) place(n int) []uint64 {
	const perEntry = entrySize / 8
	t.tail = n * 8
	first := &t.words[len(t.words)-n/perEntry]
	return unsafe.Slice((*uint64)(unsafe.Pointer(first)), n)
}

// find returns the offset of the record of partition and key, or 0, and the slot where it is or should be.
func (t *table) find(hash uint32, partition int, key []byte) (offset, slot int) {
	mask := uint32(len(t.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := t.slots[i]
		if s == 0 {
			return 0, int(i)
		}
		if uint32(s>>32) != hash {
			continue
		}
		at := int(uint32(s))
		head := t.mem[at : at+headSize]
		k := int(binary.LittleEndian.Uint32(head[8:]))
		if k == len(key) && binary.LittleEndian.Uint32(head) == uint32(partition) &&
			bytes.Equal(t.mem[at+headSize:][:k], key) {
			return at, int(i)
		}
	}
}

// enlarge takes the buffer's second step of memory, if that is not done.
func (t *table) enlarge() bool {
	slots := t.slots
	if !t.buffer.grow() {
		return false
	}
	t.slots = t.place(len(slots))
	copy(t.slots, slots)
	return true
}

// grow doubles the slots; false if there is no room for that.
func (t *table) grow() bool {
	old := len(t.slots)
	if t.used+(old+2*old)*8 > len(t.mem) {
		return false
	}
	kept := t.place(3 * old)[:old]
	copy(kept, t.slots)
	t.slots = t.place(2 * old)
	clear(t.slots)
	mask := uint32(len(t.slots) - 1)
	for _, s := range kept {
		if s == 0 {
			continue
		}
		i := uint32(s>>32) & mask
		for t.slots[i] != 0 {
			i = (i + 1) & mask
		}
		t.slots[i] = s
	}
	return true
}

// insert adds a record that is not there yet, with room for its value to grow
// a little; false if there is no room.
func (t *table) insert(hash uint32, slot, partition int, key, value []byte) bool {
	if (t.live+1)*4 > len(t.slots)*3 {
		if !t.grow() {
			return false
		}
		_, slot = t.find(hash, partition, key)
	}
	capacity := max(len(value)+7, 8) &^ 7
	if !t.fits(headSize + len(key) + capacity) {
		return false
	}
	at := t.add(partition, key, value, capacity)
	t.slots[slot] = uint64(hash)<<32 | uint64(at)
	return true
}

// fold merges value into the record at the offset. If the result is too long
// for its place, it moves; if there is no room for that either, fold returns
// the result, and the record is dead.
func (t *table) fold(f FoldFunc, offset, slot int, key, value []byte) (left []byte) {
	le := binary.LittleEndian
	head := t.mem[offset : offset+headSize]
	capacity, length := int(le.Uint32(head[4:])), int(le.Uint32(head[12:]))
	at := offset + headSize + len(key)
	acc := f(t.mem[at:at+length:at+capacity], value)
	if len(acc) <= capacity {
		if len(acc) > 0 && &acc[0] != &t.mem[at] {
			copy(t.mem[at:], acc)
		}
		if len(acc) != length {
			le.PutUint32(head[12:], uint32(len(acc)))
		}
		return nil
	}
	partition := le.Uint32(head)
	le.PutUint32(head, dead)
	t.live--
	room := 2 * len(acc)
	if !t.fits(headSize + len(key) + room) {
		if room = len(acc); !t.fits(headSize + len(key) + room) {
			return acc
		}
	}
	moved := t.add(int(partition), key, acc, room)
	t.slots[slot] = t.slots[slot]>>32<<32 | uint64(moved)
	return nil
}

// tableHash mixes a key's hash with the partition. Its half of the hash is not
// the one that makes the partition.
func tableHash(hash uint64, partition int) uint32 {
	return uint32(hash) ^ uint32(partition)*0x9E3779B1
}

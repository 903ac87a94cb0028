package engine

import (
	"encoding/binary"
	"slices"
)

// sorter orders an index by key, bytewise and stably, without comparing keys
// where it can: it sorts by 8 bytes of the key at a time, with a least
// significant digit radix sort, and goes on with the next 8 bytes where keys
// are equal so far.
type sorter struct {
	buffer *buffer
	digits [8][256]uint32
}

const (
	// fewEntries are sorted by insertion.
	fewEntries = 32
	// maxDepth is how far into keys the radix sort goes: long common prefixes
	// are left to comparison, which is cheaper by the byte.
	maxDepth = 64
)

// sort orders a, whose keys are equal before depth and whose prefixes are of
// the bytes from depth on. spare has a's length.
func (s *sorter) sort(a, spare []entry, depth int) {
	if len(a) <= fewEntries {
		s.insert(a, depth)
		return
	}
	s.radix(a, spare)
	for i := 0; i < len(a); {
		j := i + 1
		for j < len(a) && a[j].prefix == a[i].prefix {
			j++
		}
		if j-i > 1 {
			s.equal(a[i:j], spare[i:j], depth)
		}
		i = j
	}
}

// radix sorts a by prefix, passing over the bytes that are the same in all.
func (s *sorter) radix(a, spare []entry) {
	d := &s.digits
	clear(d[:])
	var differ uint64
	first := a[0].prefix
	for i := range a {
		p := a[i].prefix
		differ |= p ^ first
		d[0][byte(p)]++
		d[1][byte(p>>8)]++
		d[2][byte(p>>16)]++
		d[3][byte(p>>24)]++
		d[4][byte(p>>32)]++
		d[5][byte(p>>40)]++
		d[6][byte(p>>48)]++
		d[7][byte(p>>56)]++
	}
	from, to := a, spare
	for k := range d {
		shift := uint(8 * k)
		if byte(differ>>shift) == 0 {
			continue
		}
		next := &d[k]
		var sum uint32
		for i, n := range next {
			next[i] = sum
			sum += n
		}
		for i := range from {
			digit := byte(from[i].prefix >> shift)
			to[next[digit]] = from[i]
			next[digit]++
		}
		from, to = to, from
	}
	if &from[0] != &a[0] {
		copy(a, from)
	}
}

// insert sorts a few entries.
func (s *sorter) insert(a []entry, depth int) {
	for i := 1; i < len(a); i++ {
		x := a[i]
		j := i
		for ; j > 0; j-- {
			y := &a[j-1]
			if y.prefix < x.prefix ||
				y.prefix == x.prefix && compareFrom(s.buffer.key(y.offset), s.buffer.key(x.offset), depth) <= 0 {
				break
			}
			a[j] = *y
		}
		a[j] = x
	}
}

// equal orders entries whose prefixes are equal, in order of arrival until now.
func (s *sorter) equal(a, spare []entry, depth int) {
	var ends [10]int // how many keys end 0 to 8 bytes behind depth; 9: later
	for i := range a {
		ends[min(s.keySize(a[i])-depth, 9)]++
	}
	for n := range 9 {
		if ends[n] == len(a) {
			return // the same key
		}
	}
	switch {
	case len(a) <= fewEntries:
		s.insert(a, depth)
		return
	case depth >= maxDepth:
		slices.SortFunc(a, func(x, y entry) int {
			if c := compareFrom(s.buffer.key(x.offset), s.buffer.key(y.offset), depth); c != 0 {
				return c
			}
			return int(int64(x.offset) - int64(y.offset))
		})
		return
	}
	// Keys that end here differ in nothing but zeros at their end: the shorter first.
	rest := a
	if ends[9] < len(a) {
		sum := 0
		for n, c := range ends {
			ends[n] = sum
			sum += c
		}
		for i := range a {
			at := &ends[min(s.keySize(a[i])-depth, 9)]
			spare[*at] = a[i]
			*at++
		}
		copy(a, spare)
		rest = a[ends[8]:]
	}
	depth += 8
	for i := range rest {
		rest[i].prefix = prefix(s.buffer.key(rest[i].offset)[depth:])
	}
	s.sort(rest, spare[:len(rest)], depth)
}

func (s *sorter) keySize(e entry) int {
	return int(binary.LittleEndian.Uint32(s.buffer.mem[e.offset+8:]))
}

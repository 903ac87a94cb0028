package engine

import (
	"bytes"
	"io"
	"math"
)

// losers is a tree of losers (Knuth, The Art of Computer Programming, vol. 3,
// 5.4.1): a tournament between runs in which each inner node keeps the loser of
// its match, so that a new record of the winner meets one rival per level.
type losers struct {
	compare func(a, b []byte) int // nil = bytes.Compare
	leaves  []leaf
	nodes   []int32 // nodes[0] is the winner, node i's children are 2i and 2i+1, leaf i is node len(leaves)+i
	begun   bool
	err     error
}

// leaf is a run and its next record.
type leaf struct {
	prefix     uint64 // of key; 0 with a compare function; the highest at the end
	done       bool
	key, value []byte
	run        Run
}

// reset starts a merge. It takes no run over.
func (t *losers) reset(runs []Run) {
	t.leaves = t.leaves[:0]
	for _, r := range runs {
		t.leaves = append(t.leaves, leaf{run: r})
	}
	t.begun, t.err = false, nil
}

// Next returns the least record, of the earliest run if there are several, or io.EOF.
func (t *losers) Next() (key, value []byte, err error) {
	if t.err != nil {
		return nil, nil, t.err
	}
	if !t.begun {
		t.err = t.begin()
	} else {
		t.err = t.advance(t.nodes[0])
		if t.err == nil {
			t.replay()
		}
	}
	if t.err != nil {
		return nil, nil, t.err
	}
	l := &t.leaves[t.nodes[0]]
	if l.done {
		t.err = io.EOF
		return nil, nil, io.EOF
	}
	return l.key, l.value, nil
}

// begin reads each run's first record and plays the first tournament.
func (t *losers) begin() error {
	t.begun = true
	n := len(t.leaves)
	if n == 0 {
		return io.EOF
	}
	for i := range t.leaves {
		if err := t.advance(int32(i)); err != nil {
			return err
		}
	}
	if cap(t.nodes) < n {
		t.nodes = make([]int32, n)
	}
	t.nodes = t.nodes[:n]
	winners := make([]int32, 2*n)
	for i := range n {
		winners[n+i] = int32(i)
	}
	for i := n - 1; i > 0; i-- {
		a, b := winners[2*i], winners[2*i+1]
		if t.before(b, a) {
			a, b = b, a
		}
		winners[i], t.nodes[i] = a, b
	}
	t.nodes[0] = winners[1]
	return nil
}

// advance reads the next record of a run.
func (t *losers) advance(i int32) error {
	l := &t.leaves[i]
	if l.done {
		return nil
	}
	key, value, err := l.run.Next()
	if err == io.EOF {
		l.done, l.prefix, l.key, l.value = true, math.MaxUint64, nil, nil
		return nil
	}
	if err != nil {
		return err
	}
	l.key, l.value = key, value
	if t.compare == nil {
		l.prefix = prefix(key)
	}
	return nil
}

// replay lets the winner's new record meet those it once beat.
func (t *losers) replay() {
	w := t.nodes[0]
	for i := (int(w) + len(t.leaves)) / 2; i > 0; i /= 2 {
		if t.before(t.nodes[i], w) {
			w, t.nodes[i] = t.nodes[i], w
		}
	}
	t.nodes[0] = w
}

// before says whether run i's record comes before run j's.
func (t *losers) before(i, j int32) bool {
	a, b := &t.leaves[i], &t.leaves[j]
	if a.prefix != b.prefix {
		return a.prefix < b.prefix
	}
	if a.done || b.done {
		return !a.done || b.done && i < j
	}
	var c int
	if t.compare == nil {
		c = bytes.Compare(a.key, b.key)
	} else {
		c = t.compare(a.key, b.key)
	}
	return c < 0 || c == 0 && i < j
}

// Close does nothing: the runs belong to whoever opened them.
func (t *losers) Close() error { return nil }

package engine

import (
	"bytes"
	"io"
)

// Groups walks a sorted run key by key. It does not close the run.
type Groups struct {
	run                Run
	same               func(a, b []byte) bool
	key                []byte // of the group: a copy
	nextKey, nextValue []byte // the first record of the next group
	values             Values
	records            int64 // read so far
	err                error // io.EOF when the run is at its end
}

// NewGroups groups equal keys (nil = bytes.Equal). A group is what lies
// together and is the same as the group's first key.
func NewGroups(r Run, same func(a, b []byte) bool) *Groups {
	if same == nil {
		same = bytes.Equal
	}
	g := &Groups{run: r, same: same}
	g.values = Values{groups: g}
	g.read()
	return g
}

// read gets the first record.
func (g *Groups) read() {
	if g.nextKey, g.nextValue, g.err = g.run.Next(); g.err == nil {
		g.records++
		g.values.state = ended
	}
}

// Next goes to the next key, passing over values not read, or returns io.EOF. The
// key is valid until the next call.
func (g *Groups) Next() (key []byte, values *Values, err error) {
	for g.values.state != ended && g.err == nil {
		g.values.Next()
	}
	if g.err != nil {
		g.values.state = ended
		return nil, nil, g.err
	}
	g.key = append(g.key[:0], g.nextKey...)
	g.values.state = first
	g.values.key = nil
	return g.key, &g.values, nil
}

// Values streams the values of one key.
type Values struct {
	groups *Groups
	key    []byte
	state  int
}

// States of Values: the group's first record is still to be returned, others
// are to be read, the next group's first record has been read.
const (
	first = iota
	more
	ended
)

// Next returns the next value, valid until the next call; false at the end or
// at an error, which Err then gives (Groups.Next gives it, too).
func (v *Values) Next() ([]byte, bool) {
	g := v.groups
	switch {
	case v.state == ended || g.err != nil:
		return nil, false
	case v.state == first:
		v.state, v.key = more, g.nextKey
		return g.nextValue, true
	}
	key, value, err := g.run.Next()
	if err != nil {
		v.state, g.err = ended, err
		return nil, false
	}
	g.records++
	if !g.same(g.key, key) {
		v.state, g.nextKey, g.nextValue = ended, key, value
		return nil, false
	}
	v.key = key
	return value, true
}

// Err is the error that ended the values early, or nil.
func (v *Values) Err() error {
	if err := v.groups.err; err != io.EOF {
		return err
	}
	return nil
}

// Key is the key of the value last returned (it differs from the group's under a grouping of its own).
func (v *Values) Key() []byte { return v.key }

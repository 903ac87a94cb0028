package placement

import (
	"fmt"
	"time"

	"millrace/pkg/bytesize"
)

// Drain adds up what it takes to empty some nodes: a block keeps as many replicas as it has now, but not more than
// are wanted, and those on the leaving nodes do not count.
type Drain struct {
	leaving map[string]bool
	staying int   // nodes that will be left to hold replicas
	room    int64 // bytes that those may take
	speed   Speed

	blocks int
	all    work
	sole   work // of all: what only leaving nodes have, who must send it themselves
	most   int  // the highest number of replicas that a block must keep
}

// Speed is how fast one node sends, or takes, copies.
type Speed struct {
	Rate   int64 // bytes a second; 0: as fast as it goes
	Copies int   // that begin in a second at the most, however small they are
}

// work is what is to be copied.
type work struct {
	copies  int
	bytes   int64
	largest int64 // bytes of one copy
}

func (w *work) add(copies int, size int64) {
	w.copies += copies
	w.bytes += size * int64(copies)
	w.largest = max(w.largest, size)
}

// NewDrain begins a plan for some of the nodes to leave.
func NewDrain(nodes []Node, leaving []string, speed Speed) *Drain {
	d := &Drain{leaving: map[string]bool{}, speed: speed}
	for _, id := range leaving {
		d.leaving[id] = true
	}
	for _, n := range nodes {
		if n.Draining || d.leaving[n.ID] {
			continue
		}
		d.staying++
		d.room += max(n.Room, 0)
	}
	return d
}

// Add takes a block into account: its size in bytes, how many replicas are wanted, and who has a good one.
func (d *Drain) Add(size int64, wanted int, has []Node) {
	stay, leave := 0, 0
	for _, n := range has {
		switch {
		case d.leaving[n.ID]:
			leave++
		case !n.Draining:
			stay++
		}
	}
	keep := min(wanted, stay+leave)
	if leave == 0 || stay >= keep {
		return
	}
	d.blocks++
	d.all.add(keep-stay, size)
	if leave == len(has) {
		d.sole.add(1, size)
	}
	d.most = max(d.most, keep)
}

// Plan is what it takes to empty some nodes.
type Plan struct {
	Blocks   int
	Bytes    int64         // to be copied
	Estimate time.Duration // if nothing else is copied meanwhile; 0: unknown, as no rate is set
	Problem  string        // why it cannot be, and what would be needed; "" if it can
}

// Plan gives the sum of what was added.
func (d *Drain) Plan() Plan {
	p := Plan{Blocks: d.blocks, Bytes: d.all.bytes, Estimate: d.estimate()}
	switch {
	case d.most > d.staying:
		p.Problem = fmt.Sprintf("replication %d needs %d core nodes; %d would be left", d.most, d.most, d.staying)
	case d.all.bytes > d.room:
		p.Problem = fmt.Sprintf("%s must be copied to the other core nodes, which lack %s of room for it",
			bytesize.Format(d.all.bytes), bytesize.Format(d.all.bytes-d.room))
	}
	return p
}

func (d *Drain) estimate() time.Duration {
	return max(d.speed.estimate(d.all, d.staying), d.speed.estimate(d.sole, len(d.leaving)))
}

// Estimate is how long some nodes take to send or take so many copies, which have so many bytes together, and the largest so many; 0 if
// no rate is set.
func (s Speed) Estimate(copies int, bytes, largest int64, nodes int) time.Duration {
	return s.estimate(work{copies, bytes, largest}, nodes)
}

func (s Speed) estimate(w work, nodes int) time.Duration {
	if s.Rate <= 0 || nodes <= 0 {
		return 0
	}
	seconds := float64(w.bytes) / float64(s.Rate)
	if s.Copies > 0 {
		seconds += float64(w.copies) / float64(s.Copies)
	}
	seconds = max(seconds/float64(nodes), float64(w.largest)/float64(s.Rate))
	return time.Duration(seconds * float64(time.Second))
}

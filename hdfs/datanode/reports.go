package datanode

import (
	"context"
	"slices"
	"sync"
	"time"

	"millrace/hdfs"
	"millrace/hdfs/blockstore"
)

// State is what is to be known of a replica.
type State uint8

// States of a replica.
const (
	Unfinished State = iota
	Final
	Gone
	Bad       // final, and its bytes are not what they were
	Verified  // final, and by order read again and found whole
	NotCopied // final, and a copy of it that was ordered came to nothing
)

// Change is what is new of a replica.
type Change struct {
	Block  hdfs.Block
	State  State
	Reason string // of Bad and NotCopied
	To     string // of NotCopied: the node that gets none
}

// Report is one message to the leader. Later ones override earlier ones.
type Report struct {
	// Full: Changes are a piece of the full list; First and Last are its ends. What the list did not name is not
	// here, unless a change that came between its pieces did. The last piece is empty.
	Full, First, Last bool
	Changes           []Change
	Disks             []blockstore.Disk // nil: nothing new of them
}

// maxPending is how many changes wait for a slow leader; with more, everything is listed again.
const maxPending = 50_000

// feed is what one session has not been told yet; guarded by feeds.mu, but for kick.
type feed struct {
	kick    chan struct{}
	pending []Change
	relist  bool
}

// feeds are those of all sessions; there should be one or none.
type feeds struct {
	mu  sync.Mutex
	all map[*feed]struct{}
	bad bad
}

func (s *feeds) add() *feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*feed]struct{}{}
	}
	f := &feed{kick: make(chan struct{}, 1), relist: true}
	s.all[f] = struct{}{}
	return f
}

func (s *feeds) remove(f *feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, f)
}

// tell keeps a change for all sessions. Without one it is dropped: the next begins with the full list.
func (s *feeds) tell(c Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bad == nil {
		s.bad = bad{}
	}
	s.bad.note(c)
	s.each(func(f *feed) {
		if f.pending = append(f.pending, c); len(f.pending) > maxPending {
			f.pending, f.relist = nil, true
		}
	})
}

// take gives what a feed was not told yet; if all is to be listed again, that ends with all that is bad.
func (s *feeds) take(f *feed) (pending []Change, relist bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pending, relist = f.pending, f.relist
	f.pending, f.relist = nil, false
	if relist {
		isBad := func(c Change) bool { return c.State == Bad }
		pending = append(slices.DeleteFunc(pending, isBad), s.bad.all()...)
	}
	return pending, relist
}

// each goes through the feeds, and wakes them. Called with mu held.
func (s *feeds) each(do func(*feed)) {
	for f := range s.all {
		do(f)
		select {
		case f.kick <- struct{}{}:
		default:
		}
	}
}

// Relist has everything listed again, for when a disk went and nobody knows with what: blockstore's Failed calls it.
func (n *Node) Relist() {
	n.news.mu.Lock()
	defer n.news.mu.Unlock()
	n.news.each(func(f *feed) { f.pending, f.relist = nil, true })
}

// Reports sends the leader of one session what is here, until ctx ends or send fails: the disks and the full list
// in pieces, then changes as they come, and the disks from time to time. Which replicas are damaged comes before the list's last piece:
// with that one the leader counts on what it has heard. Orders of the session before that still wait are dropped: this one's leader, the same
// or not, decides anew from what it hears now.
func (n *Node) Reports(ctx context.Context, send func(Report) error) error {
	n.orders.forget()
	f := n.news.add() // before the list is made, so that nothing falls between
	defer n.news.remove(f)
	tick := time.NewTicker(n.cfg.DisksEvery)
	defer tick.Stop()
	disks := true
	for {
		pending, relist := n.news.take(f)
		if disks || relist { // a disk may have gone: who hears of its blocks is to hear of it first
			if err := send(Report{Disks: n.cfg.Store.Disks()}); err != nil {
				return err
			}
			disks = false
		}
		if relist {
			if err := n.list(ctx, send); err != nil {
				return err
			}
		}
		if err := n.changes(pending, send); err != nil {
			return err
		}
		if relist {
			if err := send(Report{Full: true, Last: true}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.kick:
		case <-tick.C:
			disks = true
		}
	}
}

// changes sends what is new.
func (n *Node) changes(all []Change, send func(Report) error) error {
	for piece := range slices.Chunk(all, n.cfg.Piece) {
		if err := send(Report{Changes: piece}); err != nil {
			return err
		}
	}
	return nil
}

// list sends the full list, but for its end.
func (n *Node) list(ctx context.Context, send func(Report) error) error {
	r := Report{Full: true, First: true}
	for b, unfinished := range n.cfg.Store.Blocks() {
		if len(r.Changes) == n.cfg.Piece {
			if err := send(r); err != nil {
				return err
			}
			r = Report{Full: true}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c := Change{Block: b, State: Final}
		if unfinished {
			c.State = Unfinished
		}
		r.Changes = append(r.Changes, c)
	}
	return send(r)
}

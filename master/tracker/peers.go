package tracker

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"millrace/master/state"
	"millrace/pkg/api"
)

const (
	// apartKept is how long it counts that one node did not reach another.
	apartKept = 2 * time.Minute
	// settledAfter is how long a node must be there before it counts that another does not reach it; longer than a reader's patience.
	settledAfter = 5 * time.Second
	// A node that is cut off from its peers is left alone for so long, each time for twice as long.
	firstApart = 5 * time.Second
	lastApart  = time.Minute
)

// peers knows which nodes have not reached which others of late, though the leader reaches both. One of two such nodes is
// cut off: the one that more of the others miss.
type peers struct {
	missed map[[2]string]time.Time // pairs, the lesser id first: when that was said last
	with   map[string]int          // by node: how many pairs it is in
	tidied time.Time
}

// note takes in that one of two nodes did not reach the other.
func (p *peers) note(a, b string, now time.Time) {
	if p.missed == nil {
		p.missed, p.with = map[[2]string]time.Time{}, map[string]int{}
	}
	if now.Sub(p.tidied) > apartKept/4 {
		p.drop(func(_ [2]string, at time.Time) bool { return now.Sub(at) > apartKept })
		p.tidied = now
	}
	pair := [2]string{min(a, b), max(a, b)}
	if _, known := p.missed[pair]; !known {
		p.with[a]++
		p.with[b]++
	}
	p.missed[pair] = now
}

// gone forgets what was said of a node that is down: it was not cut off from its peers, but lost.
func (p *peers) gone(id string) {
	if p.with[id] > 0 {
		p.drop(func(pair [2]string, _ time.Time) bool { return pair[0] == id || pair[1] == id })
	}
}

func (p *peers) drop(old func(pair [2]string, at time.Time) bool) {
	for pair, at := range p.missed {
		if !old(pair, at) {
			continue
		}
		delete(p.missed, pair)
		for _, id := range pair {
			if p.with[id]--; p.with[id] == 0 {
				delete(p.with, id)
			}
		}
	}
}

// misses is with how many others a node has had that of late.
func (p *peers) misses(id string) int { return p.with[id] }

// cutOff deals with a reduce that does not reach a node where map output is, though the leader reaches both nodes. One of the two is
// cut off from its peers. Which, is found by having the reduce tried elsewhere; of two nodes that are alone it may be
// either. It gets nothing for a while, its reduces go elsewhere, and the maps run again whose output it keeps.
func (t *Tracker) cutOff(j *job, reader string, p *api.SegmentProblem) {
	keeper := p.SegmentNode
	for _, id := range []string{reader, keeper} {
		// One that has just come back, or that this leader has not seen yet, may be reached again by now: who reads is
		// to try again, and says so again.
		if t.nodes[id] == nil || !t.cfg.Workers.Connected(id) || t.cfg.Now().Sub(t.moved[id]) < settledAfter {
			t.tellAgain(j, int(p.Map))
			return
		}
	}
	t.peers.note(reader, keeper, t.cfg.Now())
	reading, keeping := t.peers.misses(reader), t.peers.misses(keeper)
	a := t.reducing(j, reader, p.ReduceAttempt)
	if reading == 1 && keeping == 1 && a != nil && t.hasThird(j.rec.Cluster, reader, keeper) {
		t.moveReduce(j, a, p)
		return
	}
	// Of two that are alone one that has run out of something, and so may not even take a connection, is to blame.
	short := cmp.Compare(t.nodes[reader].pause, t.nodes[keeper].pause)
	if cmp.Or(cmp.Compare(reading, keeping), short, strings.Compare(reader, keeper)) > 0 {
		t.leaveApart(reader, keeper)
		if a != nil {
			t.moveReduce(j, a, p)
		}
		return
	}
	t.leaveApart(keeper, reader)
	if k := j.task(state.TaskID{Kind: state.Map, Index: int(p.Map)}); k != nil {
		k.shunNode(keeper)
		t.beChoosy(j, k)
	}
	t.loseSegment(j, int(p.Map), p.MapAttempt)
}

func (t *Tracker) moveReduce(j *job, a *attempt, p *api.SegmentProblem) {
	a.task.shunNode(a.node)
	t.beChoosy(j, a.task)
	t.kill(a, fmt.Sprintf("its node does not reach node %s, where map output is: %s", p.SegmentNode, p.Reason))
}

// leaveApart gives nothing for a while to a node that is cut off from its peers.
func (t *Tracker) leaveApart(id, from string) {
	n, now := t.nodes[id], t.cfg.Now()
	if n == nil || now.Before(n.apartUntil) {
		return
	}
	if now.Sub(n.apartUntil) > apartKept {
		n.apart = 0 // it was well meanwhile
	}
	n.apart = min(max(2*n.apart, firstApart), lastApart)
	n.apartUntil = now.Add(n.apart)
	t.setAsideFor(n, n.apart, fmt.Sprintf("other nodes do not reach it, or it does not reach them (node %s, last)", from))
}

// hasThird says whether a cluster has a node besides two of it that takes tasks.
func (t *Tracker) hasThird(cluster, one, two string) bool {
	for _, n := range t.nodes {
		if n.cluster == cluster && n.id != one && n.id != two && n.slots > 0 && n.takes(t.cfg.Now()) {
			return true
		}
	}
	return false
}

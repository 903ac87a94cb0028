package fleet

import (
	"fmt"
	"strings"
	"time"

	"millrace/master/state"
)

// The scaling rule, as docs/fleet.md states it.
const (
	growAfter = 2 * time.Second  // so long must tasks have waited
	growEvery = 10 * time.Second // between two steps up
	hold      = time.Minute      // so long must fewer nodes have been enough before a step down
	mostHold  = 16 * time.Minute
)

// Sample is what one look at a group that scales by itself has shown.
type Sample struct {
	Target, Min, Max int
	Waiting          int // tasks of the cluster that wait for a slot
	Running          int // attempts of the cluster in slots
	Elsewhere        int // slots of the cluster's other groups
	PerNode          int // slots of a node of the group; less than 1: not known
}

// wants is how many nodes there would be something to do for: each slot that the other groups do not offer.
func (s Sample) wants() int {
	per := max(s.PerNode, 1)
	n := (max(0, s.Waiting+s.Running-s.Elsewhere) + per - 1) / per
	return s.clamp(n)
}

func (s Sample) clamp(n int) int { return min(max(n, s.Min), max(s.Max, s.Min)) }

// Decision is where a group's target is to be moved, and why.
type Decision struct {
	From, To int
	Why      string
}

// Scaler remembers what a group needed. It grows soon and in steps that at most double it, and shrinks only to what was the most that it needed
// for a while; each time that it has to grow again soon after it shrank, that while is twice as long.
type Scaler struct {
	begun  bool
	target int       // as it was seen last
	moved  time.Time // when it changed last
	grew   time.Time // when the rule last made it larger
	shrank time.Time // when the rule last made it smaller
	hold   time.Duration
	lack   lacking
	needs  []need // within hold, those alone that no later one exceeds: falling
}

// lacking is the time since when the group has been too small throughout, and the least that was needed in it.
type lacking struct {
	since time.Time
	least int
}

type need struct {
	at    time.Time
	nodes int
}

// Look takes a sample and says whether the target is to change. Samples come in order of time, about once a second.
func (s *Scaler) Look(now time.Time, sample Sample) (Decision, bool) {
	if !s.begun {
		s.begun, s.hold, s.target, s.moved = true, hold, sample.Target, now
	}
	if sample.Target != s.target { // by the rule, or by somebody: it is given its time either way
		s.target, s.moved, s.lack = sample.Target, now, lacking{}
	}
	want := sample.wants()
	s.note(now, want)
	if d, ok := s.bounds(sample); ok {
		return d, true
	}
	if want <= sample.Target || sample.Waiting == 0 {
		s.lack = lacking{}
		return s.shrink(now, sample)
	}
	if s.lack.since.IsZero() {
		s.lack = lacking{now, want}
	}
	s.lack.least = min(s.lack.least, want)
	return s.grow(now, sample)
}

// bounds moves a target into its bounds.
func (s *Scaler) bounds(sample Sample) (Decision, bool) {
	to := sample.clamp(sample.Target)
	return Decision{sample.Target, to, fmt.Sprintf("it is to have between %d and %d nodes", sample.Min, sample.Max)}, to != sample.Target
}

func (s *Scaler) note(now time.Time, want int) {
	for len(s.needs) > 0 && s.needs[len(s.needs)-1].nodes <= want {
		s.needs = s.needs[:len(s.needs)-1]
	}
	s.needs = append(s.needs, need{now, want})
	for now.Sub(s.needs[0].at) > s.hold {
		s.needs = s.needs[1:]
	}
}

func (s *Scaler) grow(now time.Time, sample Sample) (Decision, bool) {
	if now.Sub(s.lack.since) < growAfter || !s.grew.IsZero() && now.Sub(s.grew) < growEvery {
		return Decision{}, false
	}
	to := sample.clamp(min(s.lack.least, sample.Target+max(2, sample.Target)))
	if to <= sample.Target {
		return Decision{}, false
	}
	if !s.shrank.IsZero() {
		if now.Sub(s.shrank) < 4*s.hold {
			s.hold = min(2*s.hold, mostHold)
		} else {
			s.hold = hold
		}
	}
	s.grew, s.shrank = now, time.Time{}
	return Decision{sample.Target, to, fmt.Sprintf("%s, %d running: there is work for %s", waiting(sample.Waiting), sample.Running, countOf(s.lack.least, "node"))}, true
}

func waiting(n int) string {
	if n == 1 {
		return "1 task waits"
	}
	return fmt.Sprintf("%d tasks wait", n)
}

func (s *Scaler) shrink(now time.Time, sample Sample) (Decision, bool) {
	most := s.needs[0].nodes
	if most >= sample.Target || now.Sub(s.moved) < s.hold {
		return Decision{}, false
	}
	s.shrank = now
	return Decision{sample.Target, most, fmt.Sprintf("%s had something to do in the last %s", atMost(most), s.hold)}, true
}

func atMost(n int) string {
	if n == 0 {
		return "no node"
	}
	return "at most " + countOf(n, "node")
}

// rescale moves the target of a group that scales by itself, if the rule says so.
func (p *planner) rescale(c *state.Cluster, g *state.Group) bool {
	d, ok := p.Decisions[g.ID]
	if !ok || !g.Scales || g.Suspended != "" || d.From != g.Target || d.To == g.Target {
		return false
	}
	p.step(Step{Command: state.SetTarget{Cluster: c.ID, Group: g.ID, From: d.From, To: d.To, Event: &state.Event{At: p.Now.UTC(), Kind: "SCALING", Subject: g.ID,
		Message: fmt.Sprintf("the %s group is to have %s instead of %d: %s", strings.ToLower(g.Role), countOf(d.To, "node"), d.From, d.Why)}}})
	return true
}

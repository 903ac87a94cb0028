package fleet

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// shop is a cluster in virtual time of which one group scales by itself: tasks come, wait, run in slots, and end; nodes come
// a while after they were asked for and go when they have nothing to do.
type shop struct {
	now       time.Time
	scaler    Scaler
	target    int
	min, max  int
	slots     int // of a node
	elsewhere int
	start     time.Duration // that a node takes
	length    time.Duration // of a task

	coming  []time.Time // nodes that were asked for, by when they are there
	nodes   int
	waiting int
	running []time.Time // by when they end
	done    int
	moves   []move
}

type move struct {
	at       time.Duration
	from, to int
	why      string
}

func newShop(min, max int) *shop {
	return &shop{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), min: min, max: max, target: min, nodes: min, slots: 2, elsewhere: 2, start: 20 * time.Second, length: 5 * time.Second}
}

// run lets so much time pass; load gives the tasks that come in each second.
func (s *shop) run(d time.Duration, load func(second int) int) {
	begun := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for range int(d / time.Second) {
		s.now = s.now.Add(time.Second)
		at := s.now.Sub(begun)
		s.waiting += load(int(at / time.Second))
		s.turn()
		sample := Sample{Target: s.target, Min: s.min, Max: s.max, Waiting: s.waiting, Running: len(s.running), Elsewhere: s.elsewhere, PerNode: s.slots}
		if d, ok := s.scaler.Look(s.now, sample); ok {
			s.moves = append(s.moves, move{at, d.From, d.To, d.Why})
			s.resize(d.To)
		}
	}
}

func (s *shop) turn() {
	var on []time.Time
	for _, end := range s.running {
		if end.After(s.now) {
			on = append(on, end)
		} else {
			s.done++
		}
	}
	s.running = on
	var coming []time.Time
	for _, c := range s.coming {
		if c.After(s.now) {
			coming = append(coming, c)
		} else {
			s.nodes++
		}
	}
	s.coming = coming
	for s.waiting > 0 && len(s.running) < s.nodes*s.slots+s.elsewhere {
		s.waiting--
		s.running = append(s.running, s.now.Add(s.length))
	}
}

func (s *shop) resize(to int) {
	for s.target < to {
		s.target++
		s.coming = append(s.coming, s.now.Add(s.start))
	}
	for s.target > to {
		s.target--
		if n := len(s.coming); n > 0 {
			s.coming = s.coming[:n-1]
		} else {
			s.nodes--
		}
	}
}

// turns counts the times that the group went the other way than before.
func (s *shop) turns() (n int) {
	for i := 1; i < len(s.moves); i++ {
		a, b := s.moves[i-1], s.moves[i]
		if (a.to > a.from) != (b.to > b.from) {
			n++
		}
	}
	return n
}

func (s *shop) String() (text string) {
	for _, m := range s.moves {
		text += fmt.Sprintf("%8s  %d -> %d  %s\n", m.at, m.from, m.to, m.why)
	}
	return text
}

func idle(int) int { return 0 }

func TestAGroupGrowsWhileTasksWaitAndShrinksWhenItsSlotsAreIdle(t *testing.T) {
	s := newShop(0, 20)
	s.run(time.Second, func(int) int { return 100 })
	s.run(10*time.Minute, idle)
	require.Zero(t, s.target, s)
	require.Equal(t, 100, s.done)
	require.Equal(t, 1, s.turns(), s)
	require.LessOrEqual(t, s.moves[0].at, 5*time.Second, "a task that waits is heard within seconds")
	require.Contains(t, s.moves[0].why, "tasks wait, 2 running: there is work for")
	require.Contains(t, s.moves[len(s.moves)-1].why, "had something to do in the last 1m0s")
}

func TestASteadyLoadSettlesOnOneSize(t *testing.T) {
	for _, perSecond := range []int{1, 2, 3, 7} {
		s := newShop(0, 40)
		s.run(5*time.Minute, func(int) int { return perSecond })
		settled := len(s.moves)
		s.run(2*time.Hour, func(int) int { return perSecond })
		require.LessOrEqual(t, len(s.moves)-settled, 2, "%d a second:\n%s", perSecond, s)
		need := (perSecond*5 - s.elsewhere + s.slots - 1) / s.slots
		require.InDelta(t, need, s.target, 1, "%d a second:\n%s", perSecond, s)
		require.Less(t, s.waiting, 10*perSecond)
	}
}

func TestBurstsShorterApartThanTheHoldKeepTheGroup(t *testing.T) {
	s := newShop(0, 20)
	s.run(2*time.Hour, func(second int) int {
		if second%45 == 0 {
			return 60
		}
		return 0
	})
	require.Zero(t, s.turns(), "%s", s)
}

func TestBurstsFurtherApartAreFollowedMoreAndMoreSlowly(t *testing.T) {
	s := newShop(0, 20)
	s.run(12*time.Hour, func(second int) int {
		if second%240 == 0 {
			return 60
		}
		return 0
	})
	// 180 bursts: one that scaled with each would turn 360 times.
	require.Less(t, s.turns(), 10, "%s", s)
}

func TestASawtoothIsNotFollowedDown(t *testing.T) {
	s := newShop(1, 30)
	s.run(6*time.Hour, func(second int) int { return second % 60 / 6 })
	require.LessOrEqual(t, s.turns(), 1, "%s", s)
	slow := newShop(1, 30)
	slow.run(12*time.Hour, func(second int) int {
		return int(4 + 4*math.Sin(2*math.Pi*float64(second)/3600))
	})
	require.LessOrEqual(t, slow.turns(), 3*12, "an hour's tide is followed about once up and once down:\n%s", slow)
}

func TestTheBoundsHoldAtOnce(t *testing.T) {
	var s Scaler
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	d, ok := s.Look(now, Sample{Target: 1, Min: 3, Max: 5})
	require.True(t, ok)
	require.Equal(t, Decision{1, 3, "it is to have between 3 and 5 nodes"}, d)
	d, ok = s.Look(now.Add(time.Second), Sample{Target: 9, Min: 3, Max: 5, Waiting: 100})
	require.True(t, ok)
	require.Equal(t, 5, d.To)
}

// Whatever the load, a target stays within its bounds, and no step down comes sooner than the hold after any other step.
func TestNothingIsTakenBackSoon(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		least := rapid.IntRange(0, 3).Draw(t, "min")
		s := newShop(least, least+rapid.IntRange(0, 20).Draw(t, "range"))
		s.slots = rapid.IntRange(1, 8).Draw(t, "slots")
		s.elsewhere = rapid.IntRange(0, 8).Draw(t, "elsewhere")
		s.start = time.Duration(rapid.IntRange(0, 90).Draw(t, "start")) * time.Second
		for range rapid.IntRange(1, 8).Draw(t, "phases") {
			rate := rapid.IntRange(0, 30).Draw(t, "rate")
			every := rapid.IntRange(1, 200).Draw(t, "every")
			s.run(time.Duration(rapid.IntRange(1, 400).Draw(t, "seconds"))*time.Second, func(second int) int {
				if second%every == 0 {
					return rate
				}
				return 0
			})
		}
		for i, m := range s.moves {
			if m.to < s.min || m.to > s.max || m.to == m.from {
				t.Fatalf("%s", s)
			}
			if i > 0 && m.to < m.from && m.at-s.moves[i-1].at < hold {
				t.Fatalf("shrank %s after it moved:\n%s", m.at-s.moves[i-1].at, s)
			}
			if i > 0 && m.to > m.from && s.moves[i-1].to > s.moves[i-1].from && m.at-s.moves[i-1].at < growEvery {
				t.Fatalf("grew %s after it grew:\n%s", m.at-s.moves[i-1].at, s)
			}
		}
		for s.waiting+len(s.running) > 0 && (s.max > 0 || s.elsewhere > 0) {
			s.run(time.Minute, idle)
		}
		if s.waiting == 0 {
			s.run(4*mostHold, idle)
		}
		if s.waiting == 0 && s.target != s.min {
			t.Fatalf("with nothing to do it has %d nodes:\n%s", s.target, s)
		}
	})
}

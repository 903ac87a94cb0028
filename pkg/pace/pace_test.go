package pace

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const step = 500 * time.Millisecond // as workers report

// watch feeds a meter and calls see after each step.
func watch(done func(t time.Duration) int64, total int64, steps int, see func(t time.Duration, m *Meter)) {
	var m Meter
	for i := range steps {
		t := time.Duration(i) * step
		m.Add(start.Add(t), done(t), total)
		see(t, &m)
	}
}

func TestSteadyWorkIsForetoldFromTheFirstSeconds(t *testing.T) {
	const total = 100_000
	last := time.Duration(math.MaxInt64)
	watch(func(t time.Duration) int64 { return int64(1000 * t.Seconds()) }, total, 200, func(at time.Duration, m *Meter) {
		left, known := m.Left()
		require.Equal(t, at >= warmUp, known)
		if !known {
			require.Zero(t, m.Rate())
			return
		}
		require.InDelta(t, 1000, m.Rate(), 1)
		require.InDelta(t, (100*time.Second - at).Seconds(), left.Seconds(), 0.2)
		require.Less(t, left, last, "it only falls")
		last = left
	})
}

// Whole splits that end every four seconds are steps of the work, not of what is shown.
func TestBurstsAreSmoothed(t *testing.T) {
	low, high := math.Inf(1), 0.0
	watch(func(t time.Duration) int64 { return int64(t/(4*time.Second)) * 4000 }, 400_000, 300, func(at time.Duration, m *Meter) {
		if at < 20*time.Second {
			return
		}
		left, _ := m.Left()
		truth := (400*time.Second - at).Seconds()
		low, high = min(low, left.Seconds()/truth), max(high, left.Seconds()/truth)
	})
	require.Greater(t, low, 0.65)
	require.Less(t, high, 1.5)
}

func TestAStallShowsBitByBitAndIsForgottenAgain(t *testing.T) {
	done := func(t time.Duration) int64 {
		switch s := t.Seconds(); {
		case s < 20:
			return int64(1000 * s)
		case s < 60:
			return 20_000 // nothing moves
		default:
			return 20_000 + int64(1000*(s-60))
		}
	}
	var before, stalled, after time.Duration
	rate := math.Inf(1)
	watch(done, 100_000, 200, func(at time.Duration, m *Meter) {
		left, _ := m.Left()
		switch {
		case at == 20*time.Second:
			before = left
		case at > 20*time.Second && at < 60*time.Second:
			require.Positive(t, left, "a stall is no end")
			require.Less(t, m.Rate(), rate, "the rate falls")
			rate, stalled = m.Rate(), left
		case at == 90*time.Second:
			after = left
		}
	})
	require.InDelta(t, 80, before.Seconds(), 1)
	require.Greater(t, stalled, 2*before, "after 40 s of nothing there is more to wait for")
	require.Less(t, rate, 50.0)
	require.InDelta(t, 50, after.Seconds(), 15, "30 s later it is as if nothing had been")
}

func TestWorkThatIsUndoneIsNoWork(t *testing.T) {
	var m Meter
	m.Add(start, 0, 100)
	m.Add(start.Add(time.Second), 50, 100)
	m.Add(start.Add(2*time.Second), 20, 100) // lost with a node
	require.Positive(t, m.Rate())
	left, known := m.Left()
	require.True(t, known)
	require.Positive(t, left)
	m.Add(start.Add(3*time.Second), 100, 100)
	left, _ = m.Left()
	require.Zero(t, left, "done is done")
	m.Add(start.Add(2*time.Second), 7, 100) // a clock that goes back
	require.Positive(t, m.Rate())
}

// Whatever comes: no jump. Beside the passing of time, the time left changes by a fifth per second at most.
func TestNothingJumps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m Meter
		total := rapid.Int64Range(1, 1<<40).Draw(t, "total")
		now, done := start, int64(0)
		m.Add(now, 0, total)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			passed := time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(3*time.Second)).Draw(t, "passed"))
			now = now.Add(passed)
			done = min(total, done+rapid.Int64Range(-total/10, total/3).Draw(t, "more"))
			was, known := m.Left()
			m.Add(now, max(0, done), total)
			is, still := m.Left()
			if m.Rate() < 0 || math.IsNaN(m.Rate()) || is < 0 || known && !still {
				t.Fatalf("rate %v, left %v", m.Rate(), is)
			}
			if !known || done >= total || was == 0 {
				continue
			}
			expected := max(0, was-passed)
			most := time.Duration(bend*passed.Seconds()*float64(max(expected, shortest))) + 1
			if d := is - expected; d > most || d < -most {
				t.Fatalf("from %v to %v within %v", was, is, passed)
			}
		}
	})
}

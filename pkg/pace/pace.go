// Package pace says how fast work gets on and how long it will take, in numbers that people can look at: both
// follow what happens without jumping. It has no clock of its own.
package pace

import (
	"math"
	"time"
)

const (
	// memory is how far back a rate looks: what happened before counts e times less.
	memory = 8 * time.Second
	// warmUp is how long work must have been watched before its rate means anything.
	warmUp = time.Second
	// bend is by how much of itself, per second, a time left may change beside the passing of time.
	bend = 0.2
	// shortest is what bend is taken of at least, so that the end is not crept up to.
	shortest = time.Second
)

// Meter watches one piece of work. The zero value has seen nothing. It is a value: a copy may be asked what it
// would say later, and changes nothing.
type Meter struct {
	begun, last time.Time
	done        int64 // at last

	amount, weight float64 // of the rate: units, and seconds, both fading
	left           time.Duration
	known          bool // left is an estimate
}

// Add says that so much of the work is done, out of total, both in any unit. It may be called at any time; work
// that is undone (a lost map) counts as no work done.
func (m *Meter) Add(now time.Time, done, total int64) {
	if m.begun.IsZero() {
		m.begun, m.last, m.done = now, now, done
		return
	}
	passed := now.Sub(m.last)
	if passed < 0 || passed == 0 && done == m.done {
		return
	}
	fade, spread := math.Exp(-passed.Seconds()/memory.Seconds()), 1.0
	if passed > 0 { // what was done was done all along
		spread = memory.Seconds() * (1 - fade) / passed.Seconds()
	}
	m.amount = m.amount*fade + float64(max(0, done-m.done))*spread
	m.weight = m.weight*fade + memory.Seconds()*(1-fade)
	m.last, m.done = now, done
	m.estimate(passed, total-done)
}

func (m *Meter) estimate(passed time.Duration, left int64) {
	rate := m.Rate()
	switch {
	case left <= 0:
		m.left, m.known = 0, true
		return
	case rate <= 0:
		return
	}
	target := time.Duration(min(float64(left)/rate, (100*24*time.Hour).Seconds()) * float64(time.Second))
	if !m.known {
		m.left, m.known = target, true
		return
	}
	expected := max(0, m.left-passed)
	most := time.Duration(bend * passed.Seconds() * float64(max(expected, shortest)))
	m.left = expected + min(most, max(-most, target-expected))
}

// Rate is in units per second, 0 while it is not known.
func (m *Meter) Rate() float64 {
	if m.weight == 0 || m.last.Sub(m.begun) < warmUp {
		return 0
	}
	return m.amount / m.weight
}

// Left is how long the rest will take, as of the last Add; false while that is not known.
func (m *Meter) Left() (time.Duration, bool) { return m.left, m.known }

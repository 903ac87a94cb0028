package tracker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// search runs a scenario again and again, each time with other choices, until
// every run that there is was made. Runs that differ only in the order of steps
// that do not concern each other are one run, and a state that was reached before is
// not gone on from again (sleep sets with state matching: P. Godefroid, "Partial-Order
// Methods for the Verification of Concurrent Systems", 1996, chapter 5).
type search struct {
	sc     *scenario
	budget budget
	path   []*fork
	seen   map[[32]byte][]string // states, and what slept there

	runs, cut, steps, deepest int
}

// fork is a moment of a run with what may happen then.
type fork struct {
	steps  []step
	chosen int
	asleep []step   // explored from an earlier moment
	known  bool     // the state was reached before:
	todo   []string // only these are left
}

const maxSteps = 300

// next moves to the next run; false if there is none.
func (s *search) next() bool {
	for len(s.path) > 0 {
		f := s.path[len(s.path)-1]
		if f.choose(f.chosen + 1) {
			return true
		}
		s.path = s.path[:len(s.path)-1]
	}
	return false
}

// choose takes the first step from i on that is to be taken.
func (f *fork) choose(i int) bool {
	for ; i < len(f.steps); i++ {
		name := f.steps[i].name
		asleep := slices.ContainsFunc(f.asleep, func(s step) bool { return s.name == name })
		if !asleep && (!f.known || slices.Contains(f.todo, name)) {
			f.chosen = i
			return true
		}
	}
	return false
}

// inherit gives the steps that sleep after the chosen one.
func (f *fork) inherit() (asleep []step) {
	for i, s := range append(slices.Clone(f.steps[:f.chosen]), f.asleep...) {
		taken := i < f.chosen && (!f.known || slices.Contains(f.todo, s.name))
		if (taken || i >= f.chosen) && s.apart(f.steps[f.chosen]) {
			asleep = append(asleep, s)
		}
	}
	return asleep
}

// run makes one run along the path and beyond; it says what went wrong.
func (s *search) run(t *testing.T) (broken string) {
	synctest.Test(t, func(*testing.T) {
		m := newModel(s.sc, s.budget)
		defer m.end()
		s.runs++
		for depth := 0; ; depth++ {
			m.settle()
			m.watch.look()
			if m.job().Ended() {
				s.path = s.path[:depth]
				m.aftermath()
			} else if depth >= maxSteps {
				m.watch.fault("the job does not end")
			}
			if broken = m.watch.broken; broken != "" || m.job().Ended() {
				return
			}
			f, ok := s.at(depth, m)
			if !ok {
				s.cut++
				return
			}
			s.steps++
			s.deepest = max(s.deepest, depth+1)
			f.steps[f.chosen].take()
		}
	})
	return broken
}

// at is the fork at a depth: on the path, or a new one. False: there is nothing new from there.
func (s *search) at(depth int, m *model) (*fork, bool) {
	steps := m.steps()
	if depth < len(s.path) {
		f := s.path[depth]
		if now, then := names(steps), names(f.steps); f.steps != nil && !slices.Equal(now, then) {
			panic(fmt.Sprintf("a run cannot be repeated: after %d steps it could go on with\n%s\nand now with\n%s\nafter\n%s",
				depth, strings.Join(then, "\n"), strings.Join(now, "\n"), s.story()))
		}
		f.steps = steps
		return f, true
	}
	f := &fork{steps: steps}
	if depth > 0 {
		f.asleep = s.path[depth-1].inherit()
	}
	state := m.watch.digest()
	slept, known := s.seen[state]
	if known { // what slept then and does not now is left to do
		f.known = true
		now := names(f.asleep)
		f.todo = slices.DeleteFunc(slices.Clone(slept), func(name string) bool { return slices.Contains(now, name) })
		f.asleep = slices.DeleteFunc(f.asleep, func(s step) bool { return !slices.Contains(slept, s.name) })
	}
	s.seen[state] = names(f.asleep)
	if !f.choose(0) {
		return nil, false
	}
	s.path = append(s.path, f)
	return f, true
}

func names(steps []step) (list []string) {
	for _, s := range steps {
		list = append(list, s.name)
	}
	return list
}

// story tells the run in words.
func (s *search) story() string {
	var b strings.Builder
	for i, f := range s.path {
		fmt.Fprintf(&b, "  %3d  %s\n", i+1, f.steps[f.chosen].name)
	}
	return b.String()
}

// replay is what repeats the run.
func (s *search) replay() string {
	var b []string
	for _, f := range s.path {
		b = append(b, fmt.Sprint(f.chosen))
	}
	return fmt.Sprintf("%s/%d,%d/%s", s.sc.name, s.budget.Faults, s.budget.Changes, strings.Join(b, "."))
}

// aftermath is what comes after the job's end: nothing does, or what is late
// arrives and a leader that was deposed goes on; then another job has the same output.
func (m *model) aftermath() {
	m.watch.over()
	var late []*request
	for range maxSteps {
		m.settle()
		switch lists := m.hanging(); {
		case len(lists[1]) > 0:
			late = append(late, lists[1][0])
			m.land(lists[1][0])
		case len(lists[0]) > 0:
			m.carryOut(lists[0][0])
		default:
			m.watch.over()
			m.watch.later(late)
			return
		}
		m.watch.look()
	}
}

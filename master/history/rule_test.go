package history

import (
	"fmt"
	"strings"
	"testing"

	"millrace/master/state"
)

// TestDue reads a list of ended jobs as their numbers of tasks, the first that ended first, and says which move.
func TestDue(t *testing.T) {
	ones := func(n int) string { return strings.TrimSpace(strings.Repeat("1 ", n)) }
	for _, c := range []struct {
		why   string
		ended string
		keep  int
		want  string // indexes
	}{
		{"nothing has ended", "", 5, ""},
		{"the last ones stay", "1 1 1", 3, ""},
		{"the first that ended moves", "1 1 1 1", 3, "0"},
		{"all those beyond", "1 1 1 1 1", 3, "0 1"},
		{"none is kept", "1 1", 0, "0 1"},
		{"a page is not begun for less than a tenth", ones(29), 20, "0 1 2 3 4 5 6 7 8"},
		{"of a tenth", ones(21), 20, ""},
		{"a page holds a hundred", ones(1100 + 50), 1000, seq(0, 100)},
		{"ninety-nine wait", ones(1000 + 99), 1000, ""},
		{"the last one stays whatever its size", "1 90000", 5, ""},
		{"and takes no room from others", "1 400 90000", 5, ""},
		{"a big one moves once another has ended, and the small ones before it stay", "1 1 90000 1", 5, "2"},
		{"tasks are counted together", "200 200 200 1", 5, "0"},
		{"one with too many tasks moves alone", "1 1 900 1200 1", 10, "3"},
		{"an entry has not too many tasks", "40000 20000 9 1 1", 2, "0"},
		{"but one job at least", "90000 20000 9 1 1", 2, "0"},
	} {
		var ended []*state.Job
		for i, tasks := range strings.Fields(c.ended) {
			j := &state.Job{ID: fmt.Sprint(i)}
			fmt.Sscan(tasks, &j.Maps)
			ended = append(ended, j)
		}
		var got []string
		for _, j := range due(ended, c.keep) {
			got = append(got, j.ID)
		}
		if have := strings.Join(got, " "); have != c.want {
			t.Errorf("%s: of %s, keeping %d: %q moves, not %q", c.why, c.ended, c.keep, have, c.want)
		}
	}
}

func seq(from, to int) string {
	var s []string
	for i := from; i < to; i++ {
		s = append(s, fmt.Sprint(i))
	}
	return strings.Join(s, " ")
}

// TestWhatStaysIsBounded: however many jobs end, however large, what does not move is bounded.
func TestWhatStaysIsBounded(t *testing.T) {
	const keep = 50
	var ended []*state.Job
	for i := range 2000 {
		ended = append(ended, &state.Job{ID: fmt.Sprint(i), Maps: i * 7919 % 400})
		for {
			moving := due(ended, keep)
			if len(moving) == 0 {
				break
			}
			moved := map[string]bool{}
			for _, j := range moving {
				moved[j.ID] = true
			}
			var left []*state.Job
			for _, j := range ended {
				if !moved[j.ID] {
					left = append(left, j)
				}
			}
			ended = left
		}
		tasks := 0
		for _, j := range ended {
			tasks += size(j)
		}
		if step := keep / 10; len(ended) > keep+step || tasks > (keep+step)*tasksPerJob+400 {
			t.Fatalf("after %d jobs: %d stay, with %d tasks", i+1, len(ended), tasks)
		}
	}
}

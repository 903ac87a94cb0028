package state

import (
	"bytes"
	"encoding/json"
	"reflect"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// replay plays the log anew, each command as the log's JSON gives it: as it is; from a snapshot in its midst; from there with
// each entry twice; with an entry to each attempt that ended. The state is the same, to the byte.
func (m *machine) replay() {
	m.Helper()
	want := string(snapshotOf(m, m.b.View()))
	cut := rapid.IntRange(0, len(m.log)).Draw(m.T, "snapshot after")
	for _, how := range []struct {
		name  string
		cut   int
		apply func(s *Store, index uint64, c Command)
	}{
		{"in one go", 0, applied},
		{"from a snapshot", cut, applied},
		{"from a snapshot, each entry twice", cut, twice},
		{"an attempt to an entry", cut, func(s *Store, index uint64, c Command) {
			ends, _ := c.(EndTasks)
			if len(ends.Items) == 0 {
				applied(s, index, c)
			}
			for _, e := range ends.Items {
				applied(s, index, EndTasks{Items: []EndTask{e}})
			}
		}},
	} {
		s := New()
		for i, c := range m.log {
			if i == how.cut {
				restored := New()
				if err := restored.Restore(bytes.NewReader(snapshotOf(m, s.View())), readable); err != nil {
					m.Fatalf("restore: %v", err)
				}
				s = restored
			}
			apply := applied
			if i >= how.cut {
				apply = how.apply
			}
			apply(s, uint64(i+1), m.logged(c))
		}
		if d := cmp.Diff(want, string(snapshotOf(m, s.View()))); d != "" {
			m.Fatalf("replayed %s (cut after %d) it is not the same (- then, + replayed):\n%s", how.name, how.cut, d)
		}
	}
}

// twice applies a command, and again what of it was not refused: that changes nothing. (What was refused may be taken after
// what came behind it in the same entry.) Events only grow, and of an attempt that is remembered no more nobody can tell that it was counted.
func twice(s *Store, index uint64, c Command) {
	result, _ := s.Apply(index, c)
	switch c := c.(type) {
	case AddEvents:
		return
	case EndTasks:
		var taken EndTasks
		results, _ := result.([]EndTaskResult)
		for i, r := range results {
			if r.Accepted {
				taken.Items = append(taken.Items, c.Items[i])
			}
		}
		if !forgotten(s, taken) {
			applied(s, index, taken)
		}
		return
	}
	applied(s, index, c)
}

// forgotten says whether a task of one of the jobs has as many ended attempts as are remembered.
func forgotten(s *Store, ends EndTasks) bool {
	for _, e := range ends.Items {
		for _, kind := range []string{Map, Reduce} {
			for _, t := range s.View().Tasks(e.Job, kind) {
				if len(t.Ended) >= maxEnded {
					return true
				}
			}
		}
	}
	return false
}

// applied applies a command, refused or not, as before.
func applied(s *Store, index uint64, c Command) { _, _ = s.Apply(index, c) }

// logged is a command as it comes out of the log.
func (m *machine) logged(c Command) Command {
	m.Helper()
	data, err := json.Marshal(c)
	if err != nil {
		m.Fatalf("%+v: %v", c, err)
	}
	logged := reflect.New(reflect.TypeOf(c))
	if err := json.Unmarshal(data, logged.Interface()); err != nil {
		m.Fatalf("%s: %v", data, err)
	}
	return logged.Elem().Interface().(Command)
}

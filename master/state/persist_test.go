package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// newSnapshot is a snapshot of a store with a bit of everything.
func newSnapshot(t failer) *bytes.Reader {
	b := newBench(t)
	b.do(CreateToken{Token{ID: "core", SecretHash: []byte{1, 2}, Role: RoleCore, Cluster: testCluster, ExpiresAt: at(60), UsesLeft: 3}})
	b.do(AdmitNode{Token: "core", Node: coreNode("i-1"), Now: t0})
	b.reducing("s-A")
	b.do(AddUploads{Uploads: []Upload{{Job: "s-A", Task: TaskID{Reduce, 0}, ID: "u", Key: "k"}}})
	b.lose("s-A", 0, "m0")
	b.end(ended("s-A", TaskID{Reduce, 1}, "r1", CountsFailed))
	b.committing("s-B")
	return bytes.NewReader(snapshotOf(b, b.View()))
}

// readable is a binary that reads what this one writes.
func readable(protocol int) error {
	if protocol > 4 {
		return fmt.Errorf("protocol %d", protocol)
	}
	return nil
}

func TestRestoreIsWhatWasPersisted(t *testing.T) {
	s := New()
	if err := s.Restore(newSnapshot(t), readable); err != nil {
		t.Fatal(err)
	}
	want, _ := io.ReadAll(newSnapshot(t))
	if got := snapshotOf(t, s.View()); !bytes.Equal(got, want) {
		t.Errorf("%s\nis not\n%s", got, want)
	}
	// It goes on from there: every index is in place.
	b := &bench{failer: t, Store: s, index: s.View().Index()}
	b.win(mapWin("s-A", 0, "m0b", 1))
	b.do(CompleteJob{Job: "s-B", At: at(9)})
	if got := jobIDs(b.View().OpenJobs()); got != "s-A " {
		t.Errorf("open jobs: %s", got)
	}
}

func TestRestoreReplacesEverythingAndWakesWatchers(t *testing.T) {
	b := newBench(t)
	b.submit("s-OLD")
	watch := b.View().Watch("s-OLD")
	if err := b.Restore(newSnapshot(t), readable); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.View().Job("s-OLD"); ok {
		t.Error("the old job is still there")
	}
	if !closed(watch) {
		t.Error("its watcher still waits")
	}
	if len(b.View().OpenJobs()) != 2 {
		t.Error("the snapshot's jobs are not there")
	}
}

func TestRestoreRefuses(t *testing.T) {
	all, _ := io.ReadAll(newSnapshot(t))
	whole := string(all)
	lines := strings.SplitAfter(whole, "\n")
	for _, c := range []struct{ name, in, says string }{
		{"nothing", "", "header"},
		{"another file", `{"hello":1}`, "not a snapshot"},
		{"a newer version", strings.Replace(whole, `"version":1`, `"version":99`, 1), "read snapshot: protocol 99"},
		{"one that is cut at a line", strings.Join(lines[:4], ""), "unexpected EOF"},
		{"one that is cut in a line", whole[:len(whole)/2], "unexpected EOF"},
		{"one that lacks a line", strings.Join(append(append([]string{}, lines[:3]...), lines[4:]...), ""), "records of"},
		{"an unknown table", strings.Replace(whole, `"table":"job"`, `"table":"jib"`, 1), `unknown table "jib"`},
		{"a record without id", strings.Replace(whole, `"id":"s-A"`, `"id":""`, 1), "primary index"},
		{"a record that is none", strings.Replace(whole, `"maps":2`, `"maps":"two"`, 1), "job"},
		{"a done task without winner", strings.Replace(whole, `"done":false`, `"done":true`, 1), "without a winner"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			before := snapshotOf(b, b.View())
			err := b.Restore(strings.NewReader(c.in), readable)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error: %v", err)
			}
			if !bytes.Equal(snapshotOf(b, b.View()), before) {
				t.Error("it changed the store")
			}
		})
	}
}

func TestPersistReportsWriteErrors(t *testing.T) {
	b := newBench(t)
	broken := errors.New("disk full")
	if err := b.View().Persist(writerFunc(func([]byte) (int, error) { return 0, broken })); !errors.Is(err, broken) {
		t.Errorf("error: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// FuzzRestore: whatever the bytes, no panic; what is taken can be persisted, and is the same again.
func FuzzRestore(f *testing.F) {
	seed := &bench{failer: f, Store: New()}
	f.Add(snapshotOf(seed, seed.View()))
	all, _ := io.ReadAll(newSnapshot(f))
	f.Add(all)
	f.Add(snapshotOf(f, withFiles(f, 3).View()))
	f.Add(all[:len(all)/2])
	f.Add([]byte(`{"millrace":"snapshot","version":1,"index":3}` + "\n" + `{"table":"task","record":null}` + "\n" + `{"end":true}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := New()
		if s.Restore(bytes.NewReader(data), readable) != nil {
			return
		}
		once := snapshotOf(t, s.View())
		again := New()
		if err := again.Restore(bytes.NewReader(once), readable); err != nil {
			t.Fatalf("restore of %s: %v", once, err)
		}
		if twice := snapshotOf(t, again.View()); !bytes.Equal(once, twice) {
			t.Fatalf("%s\nbecame\n%s", once, twice)
		}
	})
}

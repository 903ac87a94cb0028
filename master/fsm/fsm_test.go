package fsm

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"millrace/master/state"
)

func entry(t *testing.T, index uint64, c state.Command) *raft.Log {
	t.Helper()
	data, err := Encode(c)
	if err != nil {
		t.Fatal(err)
	}
	return &raft.Log{Index: index, Data: data}
}

// What goes on from a backup doubts where its pool's nodes are, once all masters know what that is.
func TestWhatGoesOnAloneDoubtsWhereNodesAre(t *testing.T) {
	for uses := needFiles; uses <= needFleet; uses++ {
		store := state.New()
		for i, c := range []state.Command{
			state.CreateSite{Site: state.Site{ID: "s", Protocol: uses}, Cluster: state.Cluster{ID: "j-1", Name: "default"}},
			state.PutNode{Node: state.Node{ID: "i-1", Role: state.RolePool, Pooled: true}},
		} {
			if _, err := store.Apply(uint64(i+1), c); err != nil {
				t.Fatal(err)
			}
		}
		if err := GoOnAlone(store); err != nil {
			t.Fatal(err)
		}
		if n, _ := store.View().Node("i-1"); n.Unsure != (uses >= needFleet) {
			t.Errorf("at protocol %d a node is unsure: %t", uses, n.Unsure)
		}
	}
}

func TestApply(t *testing.T) {
	store := state.New()
	f := New(store, zap.NewNop(), func(err error) { t.Error(err) })
	r := f.Apply(entry(t, 5, commands()[0])).(Result)
	if site, ok := r.Value.(*state.Site); r.Err != nil || !ok || site.ID != "site" {
		t.Errorf("%+v", r)
	}
	if store.View().Index() != 5 {
		t.Errorf("index %d", store.View().Index())
	}
	if r := f.Apply(entry(t, 6, commands()[0])).(Result); !errors.Is(r.Err, state.ErrExists) || r.Value != nil {
		t.Errorf("%+v", r)
	}
}

// Who observes hears what came of each entry that was carried out, and of no other.
func TestObserve(t *testing.T) {
	f := New(state.New(), zap.NewNop(), func(err error) { t.Error(err) })
	var seen []any
	f.Observe(func(value any) { seen = append(seen, value) })
	f.Apply(entry(t, 5, commands()[0]))
	f.Apply(entry(t, 6, commands()[0])) // there is a site
	if len(seen) != 1 {
		t.Fatalf("%v", seen)
	}
	if site, ok := seen[0].(*state.Site); !ok || site.ID != "site" {
		t.Errorf("%+v", seen[0])
	}
}

func TestAnEntryThatCannotBeReadIsReported(t *testing.T) {
	core, logged := observer.New(zap.ErrorLevel)
	told := 0
	f := New(state.New(), zap.New(core), func(error) { told++ })
	r := f.Apply(&raft.Log{Index: 9, Data: []byte(`{"v":1,"type":"FlyToTheMoon"}`)}).(Result)
	if !errors.Is(r.Err, ErrUnknownEntry) || !strings.Contains(r.Err.Error(), "log index 9") || !strings.Contains(r.Err.Error(), "FlyToTheMoon") {
		t.Errorf("%v", r.Err)
	}
	if logged.Len() != 1 || told != 1 {
		t.Errorf("%d log lines, told %d times", logged.Len(), told)
	}
}

// sink is a snapshot sink in memory.
type sink struct {
	bytes.Buffer
	full              error
	closed, cancelled bool
}

func (s *sink) ID() string    { return "test" }
func (s *sink) Close() error  { s.closed = true; return nil }
func (s *sink) Cancel() error { s.cancelled = true; return nil }
func (s *sink) Write(p []byte) (int, error) {
	if s.full != nil {
		return 0, s.full
	}
	return s.Buffer.Write(p)
}

func TestSnapshotHoldsTheStateOfItsMoment(t *testing.T) {
	store := state.New()
	f := New(store, zap.NewNop(), func(err error) { t.Error(err) })
	f.Apply(entry(t, 1, commands()[0]))
	snap, err := f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	f.Apply(entry(t, 2, state.SubmitJob{Job: state.Job{ID: "s-LATER", Cluster: "j-1"}}))
	var s sink
	if err := snap.Persist(&s); err != nil || !s.closed || s.cancelled {
		t.Fatalf("%v, %+v", err, s)
	}
	snap.Release()
	if err := f.Restore(io.NopCloser(&s.Buffer)); err != nil {
		t.Fatal(err)
	}
	view := store.View()
	if _, ok := view.Job("s-LATER"); ok || view.Index() != 1 {
		t.Errorf("restored to index %d, with the later job: %v", view.Index(), ok)
	}
}

func TestASnapshotThatCannotBeWrittenIsCancelled(t *testing.T) {
	f := New(state.New(), zap.NewNop(), func(err error) { t.Error(err) })
	snap, _ := f.Snapshot()
	s := sink{full: errors.New("disk full")}
	if err := snap.Persist(&s); !errors.Is(err, s.full) || !s.cancelled || s.closed {
		t.Errorf("%v, %+v", err, s)
	}
}

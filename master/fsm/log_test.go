package fsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"millrace/master/state"
	"millrace/pkg/protocol"
)

// node is a one-master site on Raft, in memory.
type node struct {
	raft  *raft.Raft
	store *state.Store
	log   *Log
}

// disk is what survives a master's restart.
type disk struct {
	logs      *raft.InmemStore
	snapshots *raft.InmemSnapshotStore
}

func start(t *testing.T, d disk, bootstrap bool) *node {
	t.Helper()
	c := raft.DefaultConfig()
	c.LocalID = "m1"
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 20*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond
	c.CommitTimeout = time.Millisecond
	c.LogOutput = io.Discard
	c.TrailingLogs = 0
	leads := make(chan bool, 1)
	c.NotifyCh = leads
	store := state.New()
	address, transport := raft.NewInmemTransport("")
	r, err := raft.NewRaft(c, New(store, zap.NewNop(), func(err error) { t.Error(err) }), d.logs, d.logs, d.snapshots, transport)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{r, store, NewLog(r, LogConfig{Uses: func() int { return store.View().Protocol() }})}
	t.Cleanup(func() { n.stop(t) })
	if bootstrap {
		servers := raft.Configuration{Servers: []raft.Server{{ID: "m1", Address: address}}}
		if err := r.BootstrapCluster(servers).Error(); err != nil {
			t.Fatal(err)
		}
	}
	if !<-leads {
		t.Fatal("it does not lead")
	}
	return n
}

func (n *node) stop(t *testing.T) {
	t.Helper()
	if err := n.raft.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
	if err := n.log.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLogOverRaft(t *testing.T) {
	ctx := t.Context()
	d := disk{raft.NewInmemStore(), raft.NewInmemSnapshotStore()}
	n := start(t, d, true)
	if _, err := n.log.Apply(ctx, commands()[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := n.log.Apply(ctx, commands()[0]); !errors.Is(err, state.ErrExists) {
		t.Errorf("state's error came as %v", err)
	}
	submit := func(id string) error {
		job, err := n.log.Apply(ctx, state.SubmitJob{Job: state.Job{ID: id, Cluster: "j-1", Output: "s3://out/"}})
		if err == nil && job.(*state.Job).ID != id {
			t.Errorf("submitting %s gave %+v", id, job)
		}
		return err
	}
	if err := submit("s-A"); err != nil {
		t.Fatal(err)
	}
	var reserved *state.OutputReservedError
	if err := submit("s-B"); !errors.As(err, &reserved) || reserved.Job != "s-A" {
		t.Errorf("state's error came as %v", err)
	}
	if err := errors.Join(n.log.Barrier(ctx), n.log.VerifyLeader(ctx)); err != nil {
		t.Error(err)
	}

	// A master that starts again has what was acknowledged: from a snapshot and the log after it.
	if err := n.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.log.Apply(ctx, state.CancelJob{Job: "s-A"}); err != nil {
		t.Fatal(err)
	}
	n.stop(t)
	if _, err := n.log.Apply(ctx, state.CancelJob{Job: "s-A"}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	n = start(t, d, false)
	if err := n.log.Barrier(ctx); err != nil {
		t.Fatal(err)
	}
	if job, ok := n.store.View().Job("s-A"); !ok || job.State != state.JobCancelPending {
		t.Errorf("after the restart: %+v", job)
	}
}

// fake is a Raft whose futures end when the test says so.
type fake struct {
	err    error
	result any
	asked  chan struct{} // closed when an entry has come, if there is one
	gate   chan struct{} // the futures end when it is closed; nil: at once

	entries int // that came
}

// always is a site whose masters all read what this one writes.
func always() LogConfig { return LogConfig{Uses: func() int { return protocol.Version }} }

func (f *fake) Apply([]byte, time.Duration) raft.ApplyFuture {
	f.entries++
	if f.asked != nil {
		close(f.asked)
	}
	return future{f}
}
func (f *fake) Barrier(time.Duration) raft.Future { return future{f} }
func (f *fake) VerifyLeader() raft.Future         { return future{f} }

type future struct{ *fake }

func (f future) Error() error {
	if f.gate != nil {
		<-f.gate
	}
	return f.err
}
func (f future) Response() any { return f.result }
func (f future) Index() uint64 { return 1 }

func TestRaftsErrors(t *testing.T) {
	for _, c := range []struct {
		raft      error
		want      error
		notLeader bool
		unclear   bool
	}{
		{raft: raft.ErrNotLeader, want: ErrNotLeader, notLeader: true},
		{raft: raft.ErrLeadershipTransferInProgress, want: ErrNotLeader, notLeader: true},
		{raft: raft.ErrLeadershipLost, want: raft.ErrLeadershipLost, notLeader: true, unclear: true},
		{raft: raft.ErrRaftShutdown, want: raft.ErrRaftShutdown, notLeader: true, unclear: true},
		{raft: fmt.Errorf("%w: full", ErrDisk), want: ErrDisk, notLeader: true, unclear: true}, // it steps down
		{raft: raft.ErrEnqueueTimeout, want: ErrBusy},
		{raft: raft.ErrAbortedByRestore, want: raft.ErrAbortedByRestore, unclear: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := NewLog(&fake{err: c.raft}, always())
			_, applied := l.Apply(t.Context(), state.EndJob{})
			for _, err := range []error{applied, l.Barrier(t.Context()), l.VerifyLeader(t.Context())} {
				if !errors.Is(err, c.want) || errors.Is(err, ErrNotLeader) != c.notLeader || errors.Is(err, ErrUnclear) != c.unclear {
					t.Errorf("%v came as %v", c.raft, err)
				}
			}
		})
	}
}

// refusing refuses so many entries: as Raft does while it hands over the leadership, or has no room in its queue.
type refusing struct {
	fake
	refusals int
	with     error
}

func (h *refusing) Apply(entry []byte, timeout time.Duration) raft.ApplyFuture {
	if h.refusals--; h.refusals >= 0 {
		return future{&fake{err: h.with}}
	}
	return h.fake.Apply(entry, timeout)
}

// A leader's own work waits for a log that takes nothing for a while, until its term ends; others are told.
func TestABusyLog(t *testing.T) {
	r := &refusing{fake{result: Result{Value: 7}}, 3, raft.ErrEnqueueTimeout}
	l := NewLog(r, always())
	if _, err := l.Apply(t.Context(), state.EndJob{}); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
	if v, err := l.Insist(t.Context(), state.EndJob{}); err != nil || v != 7 {
		t.Error(v, err)
	}
	r.refusals, r.with = 1, raft.ErrNotLeader
	if _, err := l.Insist(t.Context(), state.EndJob{}); !errors.Is(err, ErrNotLeader) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.refusals, r.with = 1<<40, raft.ErrEnqueueTimeout
	if _, err := l.Insist(ctx, state.EndJob{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A leader that could not hand over leads on: nothing that waits for the log hears of it.
func TestAHandOverThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if _, err := NewLog(&refusing{fake{result: Result{}}, 30, raft.ErrLeadershipTransferInProgress}, always()).Apply(t.Context(), state.EndJob{}); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second+handOverPoll/2) // between two tries
		defer cancel()
		if _, err := NewLog(&refusing{fake{}, 1 << 30, raft.ErrLeadershipTransferInProgress}, always()).Apply(ctx, state.EndJob{}); !errors.Is(err, ErrNotLeader) || errors.Is(err, ErrUnclear) {
			t.Errorf("when the caller waits no longer: %v", err)
		}
	})
}

func TestAnswersThatAreNone(t *testing.T) {
	l := NewLog(&fake{result: "what?"}, always())
	if _, err := l.Apply(t.Context(), state.EndJob{}); err == nil {
		t.Error("it took an answer that is no Result")
	}
}

func TestContextEndsTheWaitAndCloseWaitsForTheRest(t *testing.T) {
	f := &fake{asked: make(chan struct{}), gate: make(chan struct{}), result: Result{}}
	l := NewLog(f, always())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := l.Apply(ctx, state.EndJob{})
		done <- err
	}()
	<-f.asked
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUnclear) {
		t.Errorf("%v", err)
	}
	closed := make(chan struct{})
	go func() { _ = l.Close(); close(closed) }()
	close(f.gate)
	<-closed
	if _, err := l.Apply(ctx, state.EndJob{}); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnclear) {
		t.Errorf("with a context that has ended: %v", err)
	}
	if _, err := l.Apply(t.Context(), state.EndJob{}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestTimeouts(t *testing.T) {
	for _, c := range []struct{ left, atLeast, atMost time.Duration }{
		{time.Hour, enqueueTimeout, enqueueTimeout},
		{time.Second, time.Millisecond, time.Second},
		{-time.Second, time.Millisecond, time.Millisecond},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), c.left)
		if got := timeout(ctx); got < c.atLeast || got > c.atMost {
			t.Errorf("%v left: %v", c.left, got)
		}
		cancel()
	}
}

// Nobody waits for a Raft that waits for its disk.
func TestAStalledRaftHoldsNobody(t *testing.T) {
	f := &fake{asked: make(chan struct{}), gate: make(chan struct{}), result: Result{}}
	c, stalled := always(), make(chan struct{})
	c.Stalled = func() <-chan struct{} { return stalled }
	l := NewLog(f, c)
	done := make(chan error)
	go func() {
		_, err := l.Apply(t.Context(), state.EndJob{})
		done <- err
	}()
	<-f.asked
	close(stalled)
	if err := <-done; !errors.Is(err, ErrNotLeader) || !errors.Is(err, ErrUnclear) || !errors.Is(err, ErrDisk) {
		t.Errorf("%v", err)
	}
	if err := l.VerifyLeader(t.Context()); !errors.Is(err, ErrNotLeader) || errors.Is(err, ErrUnclear) {
		t.Errorf("what comes then is not even asked: %v", err)
	}
	close(f.gate)
	_ = l.Close()
}

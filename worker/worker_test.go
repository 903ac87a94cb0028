package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
	"millrace/pkg/client"
	"millrace/pkg/filesocket"
	"millrace/pkg/joining"
	"millrace/pkg/objectstore"
	"millrace/pkg/record"
	"millrace/pkg/security"
)

func TestMapsAndReducesOnCoreAndTaskNodes(t *testing.T) {
	m := newMaster(t)
	core, task := m.worker("core", "CORE"), m.worker("task", "TASK")
	var places []*api.SegmentLocation
	var want uint64
	place := func(r *api.AttemptReport, n *fakeNode) {
		require.Nil(t, r.Result.Failure, "%v", r.Result.Failure)
		require.Equal(t, core.id, r.SegmentNode)
		want += record.MapDigest(int(r.Index), r.Result.Digest)
		places = append(places, &api.SegmentLocation{Map: r.Index, Attempt: r.Attempt, Node: core.id, Address: core.address(), Digest: r.Result.Digest})
		n.ack(r.Attempt, true)
	}
	core.lease(mapLease(0))
	away := mapLease(1)
	away.PushTo = []*api.NodeAddress{{Node: "i-00000000000000bad", Address: "https://127.0.0.1:1"}, {Node: core.id, Address: core.address()}}
	task.lease(away)
	place(core.report("s-J-m-00000-1-1"), core)

	// The reduces start before the last map's segment is known.
	core.lease(reduceLease(0, 2))
	task.lease(reduceLease(1, 2))
	core.places(places...)
	task.places(places...)
	place(task.report("s-J-m-00001-1-2"), task)
	core.places(places[1:]...)
	task.places(places[1:]...)
	for n, attempt := range map[*fakeNode]string{core: "s-J-r-00000-1-100", task: "s-J-r-00001-1-101"} {
		r := n.report(attempt)
		require.Nil(t, r.Result.Failure, "%v", r.Result.Failure)
		require.EqualValues(t, 200, r.Result.OutputRecords)
		require.Equal(t, want, r.Result.Digest)
		require.GreaterOrEqual(t, r.EndedUnixMs, r.StartedUnixMs)
		n.ack(attempt, true)
	}
	require.Len(t, core.w.segments.Held(), 2)
	require.Empty(t, task.w.segments.Held())
	for _, n := range []*fakeNode{core, task} {
		require.Eventually(t, func() bool {
			left, err := filepath.Glob(filepath.Join(n.dir, "attempts", "s-*"))
			return err == nil && len(left) == 0
		}, time.Minute, time.Millisecond, "attempts' directories are removed")
		n.send(&api.MasterMessage{Message: &api.MasterMessage_Forget{Forget: &api.ForgetJob{Job: "s-J"}}})
		require.Eventually(t, func() bool { return len(n.w.segments.Held()) == 0 }, time.Minute, time.Millisecond)
	}
}

// An attempt reaches clusters' files through its worker: any to read, to write its own output, while it runs.
func TestAttemptsReachFiles(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", "CORE")
	m.files.Write("hdfs://j-1/in/a", "some text")
	id, err := m.files.CreateUpload(t.Context(), "hdfs://j-1", "out/part-m-00000", map[string]string{"millrace-job": "s-J"})
	require.NoError(t, err)
	l := mapLease(0)
	l.Partitions = 0
	l.Split = &api.Split{Pieces: []*api.Piece{{Bucket: "hdfs://j-1", Key: "in/a", Length: 9, ObjectSize: 9}}}
	l.Output = &api.Output{Bucket: "hdfs://j-1", Key: "out/part-m-00000", UploadId: id}
	n.lease(l)
	r := n.report(l.Attempt)
	require.Nil(t, r.Result.Failure, "%v", r.Result.Failure)
	h := m.files.Hidden("s-J")[0]
	require.True(t, h.Sealed)
	require.Equal(t, "some text", string(h.Data))
	require.EqualValues(t, 9, r.Result.OutputBytes)
	late := filesocket.NewClient(n.w.files.Name())
	defer late.Close()
	require.ErrorIs(t, late.SealUpload(t.Context(), "hdfs://j-1", "out/part-m-00000", id), objectstore.ErrDenied, "it runs no more")

	// One that fails leaves nothing open.
	id, err = m.files.CreateUpload(t.Context(), "hdfs://j-1", "out/part-m-00001", map[string]string{"millrace-job": "s-J"})
	require.NoError(t, err)
	l = mapLease(1)
	l.Partitions = 0
	l.Split = &api.Split{Pieces: []*api.Piece{{Bucket: "hdfs://j-1", Key: "in/none", Length: 9, ObjectSize: 9}}}
	l.Output = &api.Output{Bucket: "hdfs://j-1", Key: "out/part-m-00001", UploadId: id}
	n.lease(l)
	r = n.report(l.Attempt)
	require.Equal(t, "get hdfs://j-1/in/none: no such object", r.Result.Failure.GetMessage())
	require.Eventually(t, func() bool { return len(m.files.Hidden("s-J")) == 1 }, time.Minute, time.Millisecond)
}

func TestALosersSegmentIsDropped(t *testing.T) {
	m := newMaster(t)
	core, task := m.worker("core", "CORE"), m.worker("task", "TASK")
	core.lease(mapLease(0))
	pushed := mapLease(1)
	pushed.PushTo = []*api.NodeAddress{{Node: core.id, Address: core.address()}}
	task.lease(pushed)
	core.report("s-J-m-00000-1-1")
	task.report("s-J-m-00001-1-2")
	require.Len(t, core.w.segments.Held(), 2)
	core.ack("s-J-m-00000-1-1", false)
	task.ack("s-J-m-00001-1-2", false)
	require.Eventually(t, func() bool { return len(core.w.segments.Held()) == 0 }, time.Minute, time.Millisecond)
}

func TestALostSegmentIsReportedAndItsNewPlaceTaken(t *testing.T) {
	m := newMaster(t)
	core := m.worker("core", "CORE")
	core.lease(mapLease(0))
	r := core.report("s-J-m-00000-1-1")
	core.ack(r.Attempt, true)
	require.NoError(t, os.Truncate(filepath.Join(core.dir, "segments", "s-J", r.Attempt+".seg"), 100))
	at := &api.SegmentLocation{Map: 0, Attempt: r.Attempt, Node: core.id, Address: core.address(), Digest: r.Result.Digest}
	core.places(at)
	core.lease(reduceLease(0, 1))
	problem := func(g *api.WorkerMessage) bool {
		return g.GetProblem().GetMapAttempt() == r.Attempt && strings.HasPrefix(g.GetProblem().Reason, "damaged: ")
	}
	core.await("a problem", problem)

	// A new leader, who has not heard of it, is told again.
	m.mu.Lock()
	old := m.sessions[core.id]
	m.mu.Unlock()
	old.cancel()
	m.wait("a new session", func() bool { return m.sessions[core.id] != old })
	core.await("the problem again", problem)

	again := mapLease(0)
	again.Attempt = "s-J-m-00000-1-77"
	core.lease(again)
	r = core.report(again.Attempt)
	core.places(&api.SegmentLocation{Map: 0, Attempt: r.Attempt, Node: core.id, Address: core.address(), Digest: r.Result.Digest})
	require.Nil(t, core.report("s-J-r-00000-1-100").Result.Failure)
}

func TestLeasesBeyondTheSlotsWaitAndCanBeTakenBack(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", "CORE")
	gate := filepath.Join(t.TempDir(), "gate")
	for i := range 4 {
		n.lease(mapLease(i, "wait="+gate))
	}
	started := func(attempt string) func(*api.WorkerMessage) bool {
		return func(g *api.WorkerMessage) bool { return g.GetStarted().GetAttempt() == attempt }
	}
	n.await("the first start", started("s-J-m-00000-1-1"))
	n.await("the second start", started("s-J-m-00001-1-2"))
	n.await("progress", func(g *api.WorkerMessage) bool {
		for _, p := range g.GetHeartbeat().GetProgress() {
			if p.Attempt == "s-J-m-00000-1-1" && p.BytesDone == 7 {
				return true
			}
		}
		return false
	})
	n.send(&api.MasterMessage{Message: &api.MasterMessage_Revoke{Revoke: &api.Revoke{Attempt: "s-J-m-00000-1-1"}}}) // runs: nothing
	n.send(&api.MasterMessage{Message: &api.MasterMessage_Revoke{Revoke: &api.Revoke{Attempt: "s-J-m-00002-1-3"}}})
	n.await("the lease back", func(g *api.WorkerMessage) bool { return g.GetReturned().GetAttempt() == "s-J-m-00002-1-3" })
	n.send(&api.MasterMessage{Message: &api.MasterMessage_Kill{Kill: &api.Kill{Attempt: "s-J-m-00003-1-4", Reason: "cancelled"}}})
	r := n.report("s-J-m-00003-1-4")
	require.Equal(t, api.FailureKind_FAILURE_KIND_KILLED, r.Result.Failure.Kind)
	require.Equal(t, "cancelled", r.Result.Failure.Message)
	m.mu.Lock()
	require.False(t, n.saw(started("s-J-m-00002-1-3")) || n.saw(started("s-J-m-00003-1-4")))
	m.mu.Unlock()
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	require.Nil(t, n.report("s-J-m-00000-1-1").Result.Failure)
	require.Nil(t, n.report("s-J-m-00001-1-2").Result.Failure)
}

func TestARunningAttemptIsKilledInTime(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", "CORE")
	n.lease(mapLease(0, "hang"))
	n.await("progress", func(g *api.WorkerMessage) bool { return len(g.GetHeartbeat().GetProgress()) > 0 })
	begun := time.Now()
	n.send(&api.MasterMessage{Message: &api.MasterMessage_Kill{Kill: &api.Kill{Attempt: "s-J-m-00000-1-1", Reason: "too slow"}}})
	r := n.report("s-J-m-00000-1-1")
	require.Less(t, time.Since(begun), time.Minute)
	require.Equal(t, "too slow", r.Result.Failure.Message)
}

func TestSomebodyElsesSIGTERMCountsUnlessTheNodeStops(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", "CORE")
	n.w.stopGrace = 5 * time.Second // all of it, as nobody takes the reports
	l := mapLease(0, "term")
	l.Split = &api.Split{Pieces: []*api.Piece{{Bucket: "b", Key: "small", Length: 5}, {Bucket: "b", Key: "large", Offset: 100, Length: 50}}}
	n.lease(l)
	f := n.report(l.Attempt).Result.Failure
	require.Equal(t, api.FailureKind_FAILURE_KIND_PROGRAM, f.GetKind(), "else it would be tried for ever")
	require.Equal(t, "SIGTERM", f.Signal)
	require.Equal(t, "s3://b/large", f.Input, "7 bytes were done")
	require.EqualValues(t, 100, f.Offset)

	gate := filepath.Join(t.TempDir(), "gate")
	l = mapLease(1, "wait="+gate, "term")
	n.lease(l)
	n.await("the start", func(g *api.WorkerMessage) bool { return g.GetStarted().GetAttempt() == l.Attempt })
	require.NoError(t, os.WriteFile(gate, nil, 0o600)) // a service manager's goes to all of a unit's processes
	n.stop()
	require.Equal(t, api.FailureKind_FAILURE_KIND_KILLED, n.report(l.Attempt).Result.Failure.GetKind())
	require.NoError(t, <-n.done)
}

func TestAFullDiskIsNoFailure(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", "CORE")
	var free atomic.Int64
	n.w.room = func() (int64, error) { return free.Load(), nil }
	l := mapLease(0)
	n.lease(l)
	f := n.report(l.Attempt).Result.Failure
	require.Equal(t, api.FailureKind_FAILURE_KIND_RESOURCE, f.GetKind())
	require.True(t, f.Disk)
	require.Contains(t, f.Message, "the disk of "+n.dir+" is full: no space left on device; make room")
	free.Store(1 << 30)
	l = mapLease(1)
	n.lease(l)
	require.Nil(t, n.report(l.Attempt).Result.Failure)
}

// A program notices a full disk in its own way; that it was full is what counts.
func TestAProgramThatFailsOnAFullDisk(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", "CORE")
	var asked atomic.Int64
	n.w.room = func() (int64, error) { return 2 - asked.Add(1), nil } // none the second time
	l := mapLease(0, "exit")
	n.lease(l)
	f := n.report(l.Attempt).Result.Failure
	require.Equal(t, api.FailureKind_FAILURE_KIND_RESOURCE, f.GetKind(), f.GetMessage())
	require.True(t, f.Disk)
	require.Contains(t, f.Message, "was full when it ended")
}

func TestASegmentThatComesAfterTheJobsEndIsNotKept(t *testing.T) {
	m := newMaster(t)
	core, other := m.worker("core", "CORE"), m.worker("task", "TASK")
	for i, n := range []*fakeNode{core, other} {
		l := mapLease(i)
		if n == other {
			l.PushTo = []*api.NodeAddress{{Node: core.id, Address: core.address()}}
		}
		n.lease(l)
		n.report(l.Attempt)
	}
	require.Len(t, core.w.segments.Held(), 2)
	// As when the job is forgotten between the attempt's result and its segment's arrival.
	for i, n := range []*fakeNode{core, other} {
		(&runner{w: n.w, l: mapLease(i)}).dropSegment(n.w.log)
	}
	require.Empty(t, core.w.segments.Held())
}

func TestAttemptsOutliveTheSessionAndTheMaster(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", "CORE")
	gate := filepath.Join(t.TempDir(), "gate")
	n.lease(mapLease(0, "wait="+gate))
	n.lease(mapLease(1))
	n.report("s-J-m-00001-1-2") // and no acknowledgement
	m.stop()
	m.mu.Lock()
	m.term = 7
	m.mu.Unlock()
	require.NoError(t, os.WriteFile(gate, nil, 0o600)) // it ends while there is no master
	require.Eventually(t, func() bool {
		n.w.slots.mu.Lock()
		defer n.w.slots.mu.Unlock()
		return len(n.w.slots.reports) == 2
	}, time.Minute, time.Millisecond)
	m.start()
	m.wait("a new session", func() bool { return m.sessions[n.id].hello.HighestTerm == 1 && !m.sessions[n.id].over })
	for _, a := range []string{"s-J-m-00000-1-1", "s-J-m-00001-1-2"} {
		require.Nil(t, n.report(a).Result.Failure)
		n.ack(a, true)
	}
	require.Eventually(t, n.w.slots.settled, time.Minute, time.Millisecond)
	require.EqualValues(t, 7, n.w.term.Load())

	t.Run("a lower term is refused, after a restart too", func(t *testing.T) {
		n.end()
		m.wait("the goodbye", func() bool { return m.sessions[n.id].over })
		require.ErrorIs(t, m.sessions[n.id].err, io.EOF, "an orderly end")
		old := n.w.incarnation
		n.run(func(c *Config) { c.Token = ""; c.Join = nil })
		require.NotEqual(t, old, n.w.incarnation)
		m.mu.Lock()
		require.EqualValues(t, 7, m.sessions[n.id].hello.HighestTerm)
		require.Len(t, m.sessions[n.id].hello.Segments, 2, "its segments are still there")
		m.term = 3
		m.mu.Unlock()
		require.ErrorIs(t, n.w.welcome(&api.SessionWelcome{Term: 3}), errOldTerm)
	})
}

// The client hears why a session is given up: its next one goes to another master.
func TestASessionEndsForSilence(t *testing.T) {
	run, cancel := context.WithCancelCause(t.Context())
	(&Worker{}).watch(run, cancel, &atomic.Int64{}, &atomic.Int64{})
	require.ErrorIs(t, context.Cause(run), client.ErrSilent)
}

func TestASilentMasterIsLeftAndCameBackTo(t *testing.T) {
	m := newMaster(t)
	m.welcome = func(w *api.SessionWelcome, _ *api.WorkerHello) { w.LeaseMs = 1000 }
	n := m.worker("core", "CORE")
	m.change(func() { m.silent = true })
	m.wait("the end of the session", func() bool { return m.sessions[n.id].over })
	m.change(func() { m.silent = false })
	m.wait("a new one", func() bool { return !m.sessions[n.id].over })
}

func TestShippedFilesAndLogs(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", "CORE")
	text := "shipped text"
	sum := sha256.Sum256([]byte(text))
	ctx := context.Background()
	_, err := m.store.Put(ctx, "sys", "p/programs/"+hex.EncodeToString(sum[:]), strings.NewReader(text), int64(len(text)), objectstore.PutOptions{})
	require.NoError(t, err)
	gate := filepath.Join(t.TempDir(), "gate")
	l := mapLease(0, "say=begin\n", "wait="+gate, "cat=sub/words.txt")
	l.Program.Files = []*api.ShippedFile{{Name: "sub/words.txt", Sha256: hex.EncodeToString(sum[:]), Size: int64(len(text))}}
	n.lease(l)
	n.await("progress", progressOf(l.Attempt)) // it has begun: its files are there, and its log

	get := func(role security.Role, id, path string) *http.Response {
		resp, err := m.tlsClient(role, id, security.NodeName(n.id)).Get(n.address() + path)
		require.NoError(t, err)
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	path := "/v1/logs/s-J/" + l.Attempt
	resp := get(security.RoleMaster, masterID, path+"?follow=1")
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	all, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "begin\nshipped text <nil>\n", string(all))
	require.True(t, n.report(l.Attempt).HasLog)
	require.Eventually(t, func() bool {
		o, err := m.store.Head(ctx, "sys", "p/logs/s-J/"+l.Attempt+".log")
		return err == nil && o.Size == int64(len(all))
	}, time.Minute, time.Millisecond)
	require.Eventually(t, func() bool {
		return get(security.RoleMaster, masterID, path).StatusCode == http.StatusNotFound
	}, time.Minute, time.Millisecond, "one that is stored is removed here")

	require.Equal(t, http.StatusForbidden, get(security.RoleWorker, "i-00000000000000001", path).StatusCode, "logs are for masters")
	require.Equal(t, http.StatusForbidden, get(security.RoleUser, "somebody", "/v1/segments/s-J/x").StatusCode)
	plain, err := net.Dial("tcp", strings.TrimPrefix(n.address(), "https://"))
	require.NoError(t, err)
	plain.Close()
	stranger := newMaster(t)
	_, err = stranger.tlsClient(security.RoleMaster, masterID, security.NodeName(n.id)).Get(n.address() + path)
	require.Error(t, err, "another site's master is a stranger")

	missing := mapLease(1)
	missing.Program.Files = []*api.ShippedFile{{Name: "x", Sha256: strings.Repeat("0", 64), Size: 1}}
	n.lease(missing)
	f := n.report(missing.Attempt).Result.Failure
	require.Equal(t, api.FailureKind_FAILURE_KIND_NODE, f.GetKind())
	require.ErrorContains(t, errorOf(f), "no such object")
}

func errorOf(f *api.Failure) error { return &failureError{f} }

type failureError struct{ f *api.Failure }

func (e *failureError) Error() string { return e.f.Message }

func TestStoppingIsQuickAndKeepsTheData(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", "CORE")
	n.lease(mapLease(0))
	n.report("s-J-m-00000-1-1")
	n.ack("s-J-m-00000-1-1", true)
	n.lease(mapLease(1, "hang"))
	n.await("progress", func(g *api.WorkerMessage) bool { return len(g.GetHeartbeat().GetProgress()) > 0 })
	begun := time.Now()
	n.end()
	require.Less(t, time.Since(begun), time.Minute)
	m.mu.Lock()
	require.False(t, n.saw(func(g *api.WorkerMessage) bool { return g.GetReport().GetAttempt() == "s-J-m-00001-1-2" }))
	m.mu.Unlock()
	require.FileExists(t, filepath.Join(n.dir, "segments", "s-J", "s-J-m-00000-1-1.seg"))
}

func TestTheDirectoryIsOneProcesss(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", "CORE")
	w, err := New(Config{Dir: n.dir, Join: []string{m.url()}})
	require.NoError(t, err)
	require.ErrorContains(t, w.Run(context.Background()), "in use by another process")
	for _, name := range []string{"node.json", "pki/node.key", "pki/gossip.key"} {
		st, err := os.Stat(filepath.Join(n.dir, name))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), st.Mode().Perm(), name)
	}
}

func TestAJoinThatIsRefusedIsSaid(t *testing.T) {
	m := newMaster(t)
	other, err := security.NewToken(m.ca.CertPEM())
	require.NoError(t, err)
	for name, c := range map[string]struct{ token, want string }{
		"no token":     {"", "missing: a token"},
		"wrong token":  {other.String(), "token refused"},
		"not a token":  {"hello", "token"},
		"another site": {newMaster(t).token.String(), "not a master of the token's site: its CA is another one: the token or code was mistyped or cut, or the address is of another site"},
	} {
		w, err := New(Config{Dir: t.TempDir(), Join: []string{m.url()}, Token: c.token})
		require.NoError(t, err)
		require.ErrorContains(t, w.Run(context.Background()), c.want, name)
	}
}

func TestADirectoryOfAnotherSiteIsRefused(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", "CORE")
	n.end()
	n.run() // with its own site's token: start scripts have it in them
	n.end()
	w, err := New(Config{Dir: n.dir, Join: []string{m.url()}, Token: newMaster(t).token.String()})
	require.NoError(t, err)
	err = w.Run(context.Background())
	require.ErrorIs(t, err, joining.ErrOtherNode)
	require.ErrorContains(t, err, n.id+" of site site-test ("+m.url()+")")

	w, err = New(Config{Dir: t.TempDir()})
	require.NoError(t, err)
	err = w.Run(context.Background())
	require.ErrorIs(t, err, joining.ErrNotJoined)
	require.ErrorContains(t, err, "missing: a token, a master to join")
}

func TestAWorkerWaitsForItsMaster(t *testing.T) {
	m := newMaster(t)
	m.stop()
	started := make(chan struct{})
	go func() { defer close(started); m.start() }()
	n := m.worker("early", "TASK")
	<-started
	require.Equal(t, "TASK", n.w.id.Role)
}

func TestConfigIsChecked(t *testing.T) {
	for name, c := range map[string]Config{
		"dir": {}, "listen": {Dir: "x", Listen: "y"}, "gossip": {Dir: "x", GossipListen: "y"}, "slots": {Dir: "x", Slots: -1},
	} {
		_, err := New(c)
		require.Error(t, err, name)
	}
	w, err := New(Config{Dir: "x"})
	require.NoError(t, err)
	require.Positive(t, w.cfg.MemoryBytes)
	total, ok := memTotal("MemFree: 1 kB\nMemTotal:   2048 kB\n")
	require.True(t, ok)
	require.EqualValues(t, 2<<20, total)
	_, ok = memTotal("nothing")
	require.False(t, ok)
}

func TestLeasesWithOddIdsAreRefused(t *testing.T) {
	s := newSlots(1, func(*task) { t.Fatal("it ran") })
	for _, l := range []*api.Lease{{}, {Job: "../x", Attempt: "../x-m"}, {Job: "s-A", Attempt: "s-B-m-00000-1-1"}, {Job: "s-A", Attempt: "s-A-/"}} {
		require.Error(t, s.lease(l))
	}
}

// A node that was removed from its site ends, and what it ran with it: it will never be taken again.
func TestARemovedNodeEnds(t *testing.T) {
	m := newMaster(t)
	n := m.worker("core", "CORE")
	n.lease(mapLease(0, "hang"))
	n.await("it runs", func(g *api.WorkerMessage) bool { return g.GetStarted() != nil })
	m.mu.Lock()
	m.removed = true
	m.sessions[n.id].cancel()
	m.mu.Unlock()
	require.ErrorIs(t, <-n.done, ErrRemoved)
}

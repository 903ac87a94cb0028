package tracker

import (
	"errors"
	"fmt"
	"slices"
	"testing/synctest"
	"time"

	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

// The workers of a model: what they do follows at once from what they hear, but
// for the requests of attempts to the store, and for what goes wrong.

func (m *model) tell(n *modelNode, msg *api.WorkerMessage) {
	if n.away {
		return
	}
	l := m.office()
	l.Message(n.id, msg)
	synctest.Wait() // so that it is one event
	if r := msg.GetReport(); r != nil {
		l.heard = append(l.heard, "report of "+m.attempt(r.Attempt).name+" "+r.Result.GetFailure().GetMessage())
	}
}

// hello opens a node's session with the leader in office.
func (m *model) hello(n *modelNode) {
	h := &api.WorkerHello{NodeId: n.id, Address: "https://" + n.id, Slots: int32(n.slots), Incarnation: "1", Segments: n.segments}
	for _, a := range m.attempts {
		if a.node == n && !a.over {
			h.Running = append(h.Running, &api.RunningAttempt{Job: testJob, Attempt: a.lease.Attempt, Kind: a.lease.Kind, Index: a.lease.Index, Started: true, StartedUnixMs: 1})
		}
	}
	m.office().Up(n.id, h)
	synctest.Wait()
	m.office().heard = append(m.office().heard, n.id+" is up")
	for _, a := range m.attempts {
		if a.node == n && a.report != nil {
			m.tell(n, &api.WorkerMessage{Message: &api.WorkerMessage_Report{Report: a.report}})
		}
	}
	m.tell(n, &api.WorkerMessage{Message: &api.WorkerMessage_Heartbeat{Heartbeat: &api.WorkerHeartbeat{}}})
}

func (m *model) hear(n *modelNode, msg *api.MasterMessage) {
	switch v := msg.Message.(type) {
	case *api.MasterMessage_Lease:
		a := &modelAttempt{lease: v.Lease, node: n, name: fmt.Sprintf("%s-%05d", stateKind(v.Lease.Kind), v.Lease.Index)}
		a.name += fmt.Sprintf(".%d", m.tries(a)+1)
		m.attempts = append(m.attempts, a)
		m.tell(n, &api.WorkerMessage{Message: &api.WorkerMessage_Started{Started: &api.AttemptStarted{Attempt: v.Lease.Attempt, UnixMs: 1}}})
		if v.Lease.Output == nil {
			m.mapped(a)
		}
	case *api.MasterMessage_Kill:
		if a := m.attempt(v.Kill.Attempt); a != nil && !a.over {
			m.stop(a, api.FailureKind_FAILURE_KIND_KILLED, "killed")
		}
	case *api.MasterMessage_Ack:
		if a := m.attempt(v.Ack.Attempt); a != nil {
			a.report = nil
		}
	case *api.MasterMessage_Forget:
		for _, a := range m.attempts {
			if a.node == n {
				a.report = nil
				m.drop(a)
			}
		}
	}
}

func (m *model) attempt(id string) *modelAttempt {
	i := slices.IndexFunc(m.attempts, func(a *modelAttempt) bool { return a.lease.Attempt == id })
	if i < 0 {
		return nil
	}
	return m.attempts[i]
}

// mapped is a map's end: its segment goes to the core node.
func (m *model) mapped(a *modelAttempt) {
	a.over = true
	core := m.nodes[0]
	core.segments = append(core.segments, &api.HeldSegment{Job: testJob, Map: a.lease.Index, Attempt: a.lease.Attempt})
	m.finish(a, &api.AttemptResult{Digest: uint64(a.lease.Index) + 1000, Segment: &api.Ledger{Records: 1, Bytes: 10}})
	a.report.SegmentNode = core.id
	m.tell(a.node, &api.WorkerMessage{Message: &api.WorkerMessage_Report{Report: a.report}})
}

// work has attempts write that have what they need: a reduce, the maps' output.
func (m *model) work() {
	j := m.job()
	for _, a := range m.attempts {
		if !a.over && a.upload == nil && a.lease.Output != nil && (j.MapOnly() || j.MapsDone == j.Maps) {
			m.write(a)
		}
	}
}

// write has an attempt upload its output; it tries again until it knows.
func (m *model) write(a *modelAttempt) {
	out := a.lease.Output
	text := modelText(a.name)
	half := len(text) / 2
	r := &request{who: "attempt " + a.name, op: "UploadPart", keys: []string{out.Key, out.UploadId}, write: true}
	r.do = func() (string, error) {
		for i, data := range []string{text[:half], text[half:]} {
			if _, err := m.mem.UploadPart(carried, out.Bucket, out.Key, m.uploads[out.UploadId], i+1, []byte(data)); err != nil {
				return "", err
			}
		}
		return "", nil
	}
	r.answer = func(_ string, err error) {
		a.upload = nil
		switch {
		case a.over:
		case errors.Is(err, objectstore.ErrNoSuchUpload):
			m.stop(a, api.FailureKind_FAILURE_KIND_NODE, err.Error())
		case err != nil: // it tries again
		case m.failing[a.lease.Index]:
			m.stop(a, api.FailureKind_FAILURE_KIND_PROGRAM, "exit status 3")
		default:
			m.written(a, int64(len(text)))
		}
	}
	a.upload = r
	m.hang(r)
}

// written is an output attempt's success.
func (m *model) written(a *modelAttempt, size int64) {
	a.over = true
	res := &api.AttemptResult{OutputParts: 2, OutputBytes: size, OutputRecords: 1}
	if a.lease.Kind == api.TaskKind_TASK_KIND_REDUCE {
		res.Digest, res.Segment = m.job().MapDigest, &api.Ledger{}
		if a.lease.Index == 0 { // it decodes everything
			res.Segment.Records, res.Segment.Bytes = int64(a.lease.Maps), 10*int64(a.lease.Maps)
			if m.short && m.tries(a) > 1 {
				res.Segment.Records--
			}
		}
	}
	m.finish(a, res)
	m.tell(a.node, &api.WorkerMessage{Message: &api.WorkerMessage_Report{Report: a.report}})
}

// tries is how many attempts of the task there were.
func (m *model) tries(a *modelAttempt) (n int) {
	for _, b := range m.attempts {
		if b.lease.Kind == a.lease.Kind && b.lease.Index == a.lease.Index {
			n++
		}
	}
	return n
}

// stop ends an attempt with a failure.
func (m *model) stop(a *modelAttempt, kind api.FailureKind, message string) {
	m.drop(a)
	m.finish(a, &api.AttemptResult{Failure: &api.Failure{Kind: kind, Message: message}})
	m.tell(a.node, &api.WorkerMessage{Message: &api.WorkerMessage_Report{Report: a.report}})
}

// drop ends an attempt's process; the request that it has sent may still be carried out.
func (m *model) drop(a *modelAttempt) {
	a.over = true
	if a.upload != nil {
		m.giveUp(a.upload)
		a.upload = nil
	}
}

func (m *model) finish(a *modelAttempt, res *api.AttemptResult) {
	a.report = &api.AttemptReport{Job: testJob, Attempt: a.lease.Attempt, Kind: a.lease.Kind, Index: a.lease.Index, Result: res,
		StartedUnixMs: 1, EndedUnixMs: time.Now().UnixMilli()}
}

// modelText is what an attempt writes: its name is in it, so that a mixture is seen.
func modelText(attempt string) string { return "by " + attempt + "; by " + attempt + "\n" }

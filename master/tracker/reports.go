package tracker

import (
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"millrace/jobs"
	"millrace/master/state"
	"millrace/pkg/api"
	"millrace/pkg/record"
)

// maxCounters bounds what one attempt's completion brings into the log.
const maxCounters = 256

// onReport takes an attempt's end. It is answered when the log has it.
func (t *Tracker) onReport(node string, r *api.AttemptReport) {
	a := t.attempts[r.Attempt]
	if a == nil {
		if a = t.reported(node, r); a == nil {
			return
		}
	}
	if a.node != node || a.job.id != r.Job || a.task.id != (state.TaskID{Kind: stateKind(r.Kind), Index: int(r.Index)}) {
		t.log.Warn("report does not fit the lease", zap.String("attempt", r.Attempt), zap.String("node", node))
		t.sendAck(node, r.Attempt, false)
		return
	}
	if a.ending { // lost, or reported before: the answer comes with that
		a.reporter = node
		return
	}
	a.reporter, a.heard = node, true
	t.setStarted(a, true)
	if r.StartedUnixMs > 0 {
		a.from = time.UnixMilli(r.StartedUnixMs)
	}
	switch {
	case r.Result == nil:
		t.fail(a, r, &api.Failure{Kind: api.FailureKind_FAILURE_KIND_NODE, Message: "the report has no result"})
	case r.Result.Failure != nil:
		t.fail(a, r, r.Result.Failure)
	default:
		t.succeed(a, r)
	}
}

// reported deals with a report of an attempt that is not listed: it may be
// repeated, or its leader died before it was logged.
func (t *Tracker) reported(node string, r *api.AttemptReport) *attempt {
	id := state.TaskID{Kind: stateKind(r.Kind), Index: int(r.Index)}
	if logged, ok := t.cfg.View().Task(r.Job, id); ok {
		won := logged.Done && logged.Win.Attempt == r.Attempt
		over := slices.ContainsFunc(logged.Ended, func(e state.EndedAttempt) bool { return e.Attempt == r.Attempt })
		if won || over {
			t.sendAck(node, r.Attempt, won)
			return nil
		}
	}
	a := t.adopt(node, r.Job, r.Attempt, r.Kind, int(r.Index))
	if a == nil {
		t.sendAck(node, r.Attempt, false)
		t.forgetOn(node, r.Job)
		return nil
	}
	if a.task.current != a {
		a.killing = "not needed any more"
	}
	return a
}

// succeed proposes a win. The log decides whether it is one.
func (t *Tracker) succeed(a *attempt, r *api.AttemptReport) {
	j, k := a.job, a.task
	switch {
	case j.rec.Ending != "":
		t.killed(a, r, "the job was ended")
		return
	case a.upload == nil && j.writesOutput(k):
		t.killed(a, r, "its upload is not known")
		return
	case k.id.Kind == state.Map && !j.planned && !k.done:
		j.held = append(j.held, func() {
			if t.attempts[a.id] == a && !a.ending {
				t.succeed(a, r)
			}
		})
		return
	}
	win := completion(a, r)
	prior := k.prior
	t.end(a, state.EndTask{Job: j.id, Task: k.id, Win: win}, func(res state.EndTaskResult) {
		switch {
		case res.NotDeterministic && !res.ReducesReset:
			t.failJob(j, fmt.Sprintf("map %05d gave different output when it ran again: the program is not deterministic", k.id.Index),
				&state.Failure{Task: k.String(), Attempt: a.id, Node: a.node, Message: state.RefusedNotDeterministic}, true)
			return
		case !res.Accepted:
			t.refusedWin(j, a, res.Reason)
			return
		}
		if n := t.nodes[a.node]; n != nil {
			n.pause = 0
			clear(n.rows)
		}
		k.wonAt = t.cfg.Now()
		j.clocked(k, win)
		t.outrun(k)
		if k.id.Kind == state.Reduce {
			t.afterReduce(j)
			return
		}
		j.learn(k, win)
		j.news[k.id.Index] = true
		if !j.rec.MapOnly() && t.nodes[win.SegmentNode] == nil {
			j.checkSegments = true
		}
		if res.ReducesReset || prior != nil && prior.Digest != win.Digest {
			t.restartReduces(j)
		}
	})
}

// maxRefusals is how often a task's completions are refused, for what they
// have read, before its job fails: an honest one is, once or twice.
const maxRefusals = 8

func (t *Tracker) refusedWin(j *job, a *attempt, reason string) {
	j.log.Info("completion refused", zap.String("attempt", a.id), zap.String("reason", reason))
	k := a.task
	if j.rec.Ending == "" && reason != state.RefusedJobEnded { // it had its slot and its time: people ask what became of it
		t.proposeEnd(state.EndTask{Job: j.id, Task: k.id, CountsAs: state.CountsKilled, Ended: t.unreported(a, reason), Speculative: a.second},
			func(state.EndTaskResult) { t.reread(j, k); t.touch(j) })
	}
	if k.done || j.rec.Ending != "" {
		return
	}
	if k.refusals++; k.refusals >= maxRefusals {
		t.failJob(j, fmt.Sprintf("task %s: its completion was refused %d times: %s", k, k.refusals, reason),
			&state.Failure{Task: k.String(), Attempt: a.id, Node: a.node, Message: reason}, true)
	}
}

// completion is what the log keeps of a success.
func completion(a *attempt, r *api.AttemptReport) *state.Completion {
	k, res := a.task, r.Result
	if res.StoreTrouble != "" {
		a.job.storeTrouble = res.StoreTrouble
	}
	win := &state.Completion{
		Attempt: a.id, Node: a.node, Digest: res.Digest,
		Counters: counters(append(a.locality(), res.Counters...)),
		Records:  res.OutputRecords, Bytes: res.OutputBytes, Parts: int(res.OutputParts),
		InputBytes: k.bytes, StartedAt: a.from, EndedAt: time.UnixMilli(r.EndedUnixMs),
	}
	if s := res.Segment; s != nil {
		win.Ledger = state.Ledger{Records: s.Records, Bytes: s.Bytes, Checksum: s.Checksum}
	}
	if a.upload != nil {
		win.UploadID = a.upload.id
	}
	if k.id.Kind == state.Map && !a.job.rec.MapOnly() {
		win.SetTerm = record.MapDigest(k.id.Index, res.Digest)
		if win.SegmentNode = r.SegmentNode; win.SegmentNode == "" {
			win.SegmentNode = a.node
		}
	}
	return win
}

func counters(list []*api.Counter) []state.Counter {
	out := make([]state.Counter, 0, min(len(list), maxCounters))
	for _, c := range list {
		if len(out) == maxCounters {
			break
		}
		out = append(out, state.Counter{Group: c.Group, Name: c.Name, Value: c.Value})
	}
	return out
}

// afterReduce: with the last reduce, lost maps need not run again.
func (t *Tracker) afterReduce(j *job) {
	rec, ok := t.cfg.View().Job(j.id)
	if !ok || rec.ReducesDone < rec.Reduces {
		return
	}
	for _, k := range j.maps {
		if !k.done {
			t.reread(j, k)
		}
	}
	for _, a := range j.live {
		if a.task.done {
			t.kill(a, "not needed any more")
		}
	}
}

// restartReduces ends the running reduces, as some may have consumed what a map
// does not give any more, and queues those the log has reset.
func (t *Tracker) restartReduces(j *job) {
	j.log.Warn("a map gave other output when it ran again: its reduces start over")
	for _, a := range j.live {
		if a.task.id.Kind == state.Reduce {
			t.kill(a, "it may have read a map output that is no more")
		}
	}
	for _, k := range j.reduces {
		if k.done {
			t.reread(j, k)
			t.await(j, k)
		}
	}
}

// fail logs an attempt that did not succeed, by the kind of its failure.
func (t *Tracker) fail(a *attempt, r *api.AttemptReport, f *api.Failure) {
	j, k := a.job, a.task
	kind := f.Kind
	switch {
	case j.rec.Ending == "" && a.fault != nil:
		f, kind = a.fault, a.fault.Kind
	case j.rec.Ending != "" || a.killing != "":
		kind = api.FailureKind_FAILURE_KIND_KILLED
	}
	e := &state.EndedAttempt{
		Attempt: a.id, Node: a.node, StartedAt: a.from, EndedAt: time.UnixMilli(r.EndedUnixMs),
		Failure: state.Failure{
			Task: k.String(), Attempt: a.id, Node: a.node, Message: f.Message, ExitCode: int(f.ExitCode), Signal: f.Signal,
			Input: f.Input, Offset: f.Offset, StderrTail: f.StderrTail,
		},
	}
	switch kind {
	case api.FailureKind_FAILURE_KIND_KILLED:
		t.ended(a, e, state.CountsKilled, nil)
	case api.FailureKind_FAILURE_KIND_SEGMENT:
		k.shunNode(a.node)
		t.beChoosy(j, k)
		if fault := t.unreadable(j, int(f.SegmentMap), f.SegmentAttempt, a.node, f.Message); fault != "" {
			e.Failure.Message = fault
			t.ended(a, e, state.CountsFailed, func() { t.blame(j, e, k.id.Kind); t.afterFailure(j, k, e) })
			break
		}
		t.ended(a, e, state.CountsKilled, nil)
	case api.FailureKind_FAILURE_KIND_RESOURCE, api.FailureKind_FAILURE_KIND_NODE:
		switch {
		case !f.Disk && t.keeperMoved(a):
			k.shunNode(a.node)
			t.beChoosy(j, k)
			t.ended(a, e, state.CountsLost, nil)
		case kind == api.FailureKind_FAILURE_KIND_RESOURCE:
			t.setAside(a, f)
			t.ended(a, e, state.CountsKilled, func() { t.afterShortage(j, k, e) })
		default:
			t.ended(a, e, state.CountsFailed, func() { t.blame(j, e, k.id.Kind); t.afterFailure(j, k, e) })
		}
	case api.FailureKind_FAILURE_KIND_STORE:
		t.ended(a, e, state.CountsKilled, func() { t.afterLostUpload(j, k, e) })
	case api.FailureKind_FAILURE_KIND_INPUT:
		k.unreadable++
		t.ended(a, e, state.CountsFailed, func() { t.afterFailure(j, k, e) })
	default:
		t.ended(a, e, state.CountsFailed, func() { t.blame(j, e, k.id.Kind); t.afterFailure(j, k, e) })
	}
}

// maxUnreadable is how often a task's input is tried that is damaged, changed, gone, or has too long a
// record: the same bytes fail again, but for a node whose memory or network had spoilt them.
const maxUnreadable = 2

// keeperMoved says whether a map on a task node may have failed because a core node, where
// its segment was to go, went away meanwhile or is away now: that is not its own fault.
func (t *Tracker) keeperMoved(a *attempt) bool {
	n := t.nodes[a.node]
	if a.task.id.Kind != state.Map || a.job.rec.MapOnly() || n == nil || n.role == state.RoleCore {
		return false
	}
	for _, core := range t.cfg.View().Nodes(n.cluster) {
		if core.Role == state.RoleCore && (!t.moved[core.ID].Before(a.listed) || t.away(core.ID)) {
			return true
		}
	}
	return false
}

// afterFailure fails the job when a task has had its attempts.
func (t *Tracker) afterFailure(j *job, k *task, e *state.EndedAttempt) {
	j.log.Warn("attempt failed", zap.String("task", k.String()), zap.String("attempt", e.Attempt), zap.String("node", e.Node),
		zap.String("cause", e.Failure.Message), zap.Int("failures", k.failures))
	most := int(j.spec.MaxAttempts)
	if most <= 0 {
		most = jobs.DefaultMaxAttempts
	}
	if k.unreadable >= maxUnreadable {
		most = min(most, maxUnreadable)
	}
	if k.done || k.failures < most {
		t.beChoosy(j, k)
		return
	}
	times := "once"
	if k.failures > 1 {
		times = fmt.Sprintf("%d times", k.failures)
	}
	t.failJob(j, fmt.Sprintf("task %s failed %s: %s", k, times, e.Failure.Message), &e.Failure, j.rec.Phase == state.PhaseCommitting)
}

// killed logs a success that is of no use.
func (t *Tracker) killed(a *attempt, r *api.AttemptReport, why string) {
	t.fail(a, r, &api.Failure{Kind: api.FailureKind_FAILURE_KIND_KILLED, Message: why})
}

// lose logs an attempt that is gone without a report.
func (t *Tracker) lose(a *attempt, why string) {
	t.ended(a, t.unreported(a, why), state.CountsLost, nil)
}

// unreported is the end of an attempt, as the leader alone can tell it.
func (t *Tracker) unreported(a *attempt, why string) *state.EndedAttempt {
	return &state.EndedAttempt{
		Attempt: a.id, Node: a.node, StartedAt: a.from, EndedAt: t.cfg.Now(),
		Failure: state.Failure{Task: a.task.String(), Attempt: a.id, Node: a.node, Message: why},
	}
}

// ended proposes the end of an attempt that did not win.
func (t *Tracker) ended(a *attempt, e *state.EndedAttempt, as string, then func()) {
	t.end(a, state.EndTask{Job: a.job.id, Task: a.task.id, Ended: e, CountsAs: as}, func(state.EndTaskResult) {
		if then != nil {
			then()
		}
	})
}

// end proposes an attempt's end; the attempt is listed until the log has it.
func (t *Tracker) end(a *attempt, e state.EndTask, then func(state.EndTaskResult)) {
	a.ending = true
	e.Speculative = a.second
	j := a.job
	t.proposeEnd(e, func(res state.EndTaskResult) {
		t.unlist(a)
		t.reread(j, a.task)
		if a.reporter != "" {
			t.sendAck(a.reporter, a.id, a.task.done && a.task.win.Attempt == a.id)
		}
		if t.jobs[j.id] != j {
			return
		}
		then(res)
		t.await(j, a.task)
		t.touch(j)
	})
}

func (t *Tracker) sendAck(node, attempt string, accepted bool) {
	t.send(node, &api.MasterMessage{Message: &api.MasterMessage_Ack{Ack: &api.ReportAck{Attempt: attempt, Accepted: accepted}}})
}

// kill ends a running attempt; its report, or its node's end, is the end of it.
func (t *Tracker) kill(a *attempt, why string) {
	if a.killing != "" || a.ending {
		return
	}
	a.killing = why
	t.sendKill(a.node, a.id, why)
	t.after(t.cfg.KillPatience, func() {
		if t.attempts[a.id] == a && !a.ending {
			t.lose(a, "it did not answer when it was ended: "+why)
		}
	})
}

func (t *Tracker) sendKill(node, attempt, why string) {
	t.send(node, &api.MasterMessage{Message: &api.MasterMessage_Kill{Kill: &api.Kill{Attempt: attempt, Reason: why}}})
}

// onProgress takes over what a heartbeat says of running attempts.
func (t *Tracker) onProgress(node string, h *api.WorkerHeartbeat) {
	t.toldAll(t.nodes[node])
	if n := t.nodes[node]; n != nil {
		n.problem = h.Problem
		n.volume.heard(h.DiskFreeBytes)
	}
	for _, p := range h.Progress {
		if a := t.attempts[p.Attempt]; a != nil && a.node == node {
			a.store.heard(t.cfg.Now(), a, p)
			if p.BytesDone != a.bytes || p.RecordsDone != a.records {
				a.moved = t.cfg.Now()
			}
			a.bytes, a.records, a.heard = p.BytesDone, p.RecordsDone, true
			if p.StoreRetries > a.retried {
				a.retried, a.job.storeTrouble = p.StoreRetries, p.StoreTrouble
			}
			if now := t.cfg.Now(); now.Sub(a.job.observed) >= observeEvery {
				a.job.observe(now)
			}
			t.changes.tell(a.job.id)
		}
	}
}

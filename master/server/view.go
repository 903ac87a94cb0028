package server

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
)

// jobView is a job as people see it: its record, and over it what the leader knows beyond the log.
func jobView(j *state.Job, live tracker.Live) *api.Job {
	v := &api.Job{
		Id: j.ID, Cluster: j.Cluster, Name: j.Name, Program: j.Program,
		State: j.State, Phase: j.Phase, Reason: j.Reason, User: j.User,
		Priority:    int32(j.Priority),
		SubmittedAt: stamp(j.SubmittedAt), PlannedAt: stamp(j.PlannedAt), StartedAt: stamp(j.PlannedAt),
		MapsEndedAt: stamp(j.MapsEndedAt), ReducesEndedAt: stamp(j.ReducesEndedAt), EndedAt: stamp(j.EndedAt),
		CommitMs:            j.CommitMs,
		Maps:                counts(j.Maps, j.MapsDone, live.Maps.Running),
		Reduces:             counts(j.Reduces, j.ReducesDone, live.Reduces.Running),
		AttemptsFailed:      int64(j.Failed),
		AttemptsKilled:      int64(j.Killed),
		AttemptsLost:        int64(j.Lost),
		AttemptsSpeculative: int64(j.Speculative),
		BytesDone:           j.BytesDone, BytesTotal: j.BytesTotal, Notes: j.Notes,
		Failure:       failureView(j.Failure),
		Counters:      countersView(j.Counters),
		OutputRecords: j.OutputRecords, OutputBytes: j.OutputBytes, Parts: int64(j.Parts),
	}
	v.Input, v.Output = typed(j)
	v.StoreRetries, v.StoreTrouble = live.StoreRetries, live.StoreTrouble
	if j.Ended() {
		v.StoreTrouble = j.StoreTrouble
		for _, c := range j.Counters {
			if c.Group == state.CounterGroup && c.Name == state.CounterStoreRetries {
				v.StoreRetries = c.Value
			}
		}
		v.Phase = ""
		v.Maps.Pending, v.Maps.Running = v.Maps.Total-v.Maps.Completed, 0
		v.Reduces.Pending, v.Reduces.Running = v.Reduces.Total-v.Reduces.Completed, 0
		return v
	}
	if j.State == state.JobPending && live.Planning {
		v.State, v.Phase = state.JobRunning, state.PhasePlanning
	}
	v.BytesDone = max(j.BytesDone, min(live.BytesDone, j.BytesTotal))
	v.BytesPerSecond, v.EtaMs = live.BytesPerSecond, live.ETA.Milliseconds()
	if v.Reason == "" {
		v.Reason = cmp.Or(live.Trouble, live.Turn, live.NoRoom)
	}
	return v
}

// typed is a job's places as they were typed. The record has others only for block stores, by their clusters' ids.
func typed(j *state.Job) (input []string, output string) {
	spec := &api.JobSpec{}
	if !onFiles(j.Output) && !slices.ContainsFunc(j.Input, onFiles) || proto.Unmarshal(j.Spec, spec) != nil {
		return j.Input, j.Output
	}
	return spec.Input, spec.Output
}

// counts keeps the three kinds at their sum, though record and leader are read one after the other.
func counts(total, done, running int) *api.TaskCounts {
	c := &api.TaskCounts{Total: int64(total), Completed: min(int64(done), int64(total))}
	c.Running = max(0, min(int64(running), c.Total-c.Completed))
	c.Pending = c.Total - c.Completed - c.Running
	return c
}

func failureView(f *state.Failure) *api.JobFailure {
	if f == nil {
		return nil
	}
	return &api.JobFailure{
		Task: f.Task, Attempt: f.Attempt, Node: f.Node, ExitCode: int32(f.ExitCode), Signal: f.Signal,
		Input: f.Input, Offset: f.Offset, StderrTail: f.StderrTail, Message: f.Message,
	}
}

func countersView(cs []state.Counter) []*api.Counter {
	out := make([]*api.Counter, 0, len(cs))
	for _, c := range cs {
		out = append(out, &api.Counter{Group: c.Group, Name: c.Name, Value: c.Value})
	}
	return out
}

// stamp leaves a time that has not come unset.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
)

// watchEvery is the shortest time between two messages of a WatchJob that only
// say how far the job is.
const watchEvery = 100 * time.Millisecond

// read gives the present state, as of a moment after the call began.
func (s *Server) read(ctx context.Context) (*state.View, *Leader, error) {
	l := callOf(ctx).leader
	if l == nil {
		return nil, nil, errNoLeader
	}
	if err := l.Verify(ctx); err != nil {
		return nil, nil, err
	}
	return s.cfg.View(), l, nil
}

// cluster finds a cluster by name or id; "" is the default one.
func cluster(v *state.View, ref string) (*state.Cluster, error) {
	c, ok := v.Cluster(ref)
	if !ok {
		return nil, notFound("millrace cluster list names them", "no such cluster: %s", ref)
	}
	return c, nil
}

// findJob finds the one job that a reference means.
func findJob(v *state.View, clusterRef, ref string) (*state.Job, error) {
	id := ""
	if clusterRef != "" {
		c, err := cluster(v, clusterRef)
		if err != nil {
			return nil, err
		}
		id = c.ID
	}
	found, err := v.FindJob(id, ref)
	if err != nil || len(found) == 0 {
		if ref == "last" {
			return nil, notFound("submit one: millrace run wordcount s3://BUCKET/INPUT/ s3://BUCKET/OUTPUT/", "there is no job yet")
		}
		var names []string
		for _, j := range v.Jobs(id) {
			names = append(names, j.Name)
		}
		if near := nearestName(ref, names); near != "" {
			return nil, notFound("millrace job list names them", "no such job: %s: did you mean %s?", ref, near)
		}
		return nil, notFound("millrace job list names them", "no such job: %s", ref)
	}
	if len(found) > 1 {
		ids := make([]string, 0, 4)
		for _, j := range found[:min(4, len(found))] {
			ids = append(ids, j.ID)
		}
		return nil, usage("type more of the id", fmt.Sprintf("%q means %d jobs: %s", ref, len(found), strings.Join(ids, ", ")))
	}
	return found[0], nil
}

func (l *Leader) view(j *state.Job) *api.Job {
	var live tracker.Live
	if !j.Ended() {
		live, _ = l.Tracker.Live(j.ID)
	}
	return jobView(j, live)
}

func (s *millraceService) GetJob(ctx context.Context, req *connect.Request[api.GetJobRequest]) (*connect.Response[api.Job], error) {
	v, l, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	j, err := findJob(v, req.Msg.Cluster, req.Msg.Job)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(l.view(j)), nil
}

func (s *millraceService) ListJobs(ctx context.Context, req *connect.Request[api.ListJobsRequest]) (*connect.Response[api.ListJobsResponse], error) {
	v, l, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	c, err := cluster(v, req.Msg.Cluster)
	if err != nil {
		return nil, err
	}
	for _, st := range req.Msg.States {
		if !slices.Contains(jobStates, strings.ToUpper(st)) {
			return nil, usage("states are "+strings.Join(jobStates, ", "), "no such job state: "+st)
		}
	}
	resp := &api.ListJobsResponse{}
	for _, j := range v.Jobs(c.ID) {
		job := l.view(j)
		if len(req.Msg.States) > 0 && !slices.ContainsFunc(req.Msg.States, func(st string) bool { return strings.EqualFold(st, job.State) }) {
			continue
		}
		resp.Jobs = append(resp.Jobs, job)
	}
	return connect.NewResponse(resp), nil
}

var jobStates = []string{
	state.JobPending, state.JobRunning, state.JobCompleted, state.JobFailed, state.JobCancelPending, state.JobCancelled,
}

func (s *millraceService) CancelJob(ctx context.Context, req *connect.Request[api.CancelJobRequest]) (*connect.Response[api.Job], error) {
	v, l, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	j, err := findJob(v, req.Msg.Cluster, req.Msg.Job)
	if err != nil {
		return nil, err
	}
	if j.State != state.JobCancelled && j.State != state.JobCancelPending { // repeating it is no error
		if err := cancellable(j); err != nil {
			return nil, err
		}
		reason := req.Msg.Reason
		if reason == "" {
			reason = "cancelled by " + callOf(ctx).caller.ID
		}
		if _, err := s.cfg.Log.Apply(ctx, state.CancelJob{Job: j.ID, Reason: reason}); err != nil {
			if now, ok := s.cfg.View().Job(j.ID); ok {
				if late := cancellable(now); late != nil { // it ended meanwhile
					return nil, late
				}
			}
			return nil, fmt.Errorf("cancel %s: %w", j.ID, err)
		}
		l.Tracker.Cancelled(j.ID)
	}
	now, ok := s.cfg.View().Job(j.ID)
	if !ok {
		return nil, notFound("", "no such job: %s", j.ID)
	}
	return connect.NewResponse(l.view(now)), nil
}

func cancellable(j *state.Job) error {
	switch {
	case j.Ended():
		return failure("", "job %s has ended: %s", j.ID, j.State)
	case j.Phase == state.PhaseCommitting:
		return failure("millrace job wait "+j.ID, "job %s is committing its output and can no longer be cancelled", j.ID)
	}
	return nil
}

// WatchJob sends the job now and after each change. Changes of state or phase go out at
// once; those in between are gathered over watchEvery. It waits on channels alone.
func (s *millraceService) WatchJob(ctx context.Context, req *connect.Request[api.GetJobRequest], stream *connect.ServerStream[api.Job]) error {
	v, l, err := s.read(ctx)
	if err != nil {
		return err
	}
	first, err := findJob(v, req.Msg.Cluster, req.Msg.Job)
	if err != nil {
		return err
	}
	w := &jobWatch{server: s.Server, leader: l, id: first.ID, quiet: time.NewTimer(0)}
	defer w.quiet.Stop()
	for {
		job, changed, live := w.look()
		if job == nil {
			return notFound("", "no such job: %s", first.ID)
		}
		if w.due(job) {
			if err := stream.Send(job); err != nil {
				return err
			}
			w.sent(job)
		}
		if ended(job.State) {
			return nil
		}
		if err := w.wait(ctx, changed, live); err != nil {
			return err
		}
	}
}

func ended(st string) bool {
	return st == state.JobCompleted || st == state.JobFailed || st == state.JobCancelled
}

// jobWatch is one caller's view of one job.
type jobWatch struct {
	server *Server
	leader *Leader
	id     string
	last   *api.Job
	loud   bool        // a message may go out now
	held   bool        // something changed that has not been sent
	quiet  *time.Timer // fires when the next message may go out
	sends  int
}

// look takes the channels before the job: a change after it closes one of them.
func (w *jobWatch) look() (job *api.Job, changed, live <-chan struct{}) {
	if j, ok := w.server.cfg.View().Job(w.id); ok && j.Ended() { // the tracker has no more to say of it
		return w.leader.view(j), nil, nil
	}
	live = w.leader.Tracker.Changed(w.id)
	v := w.server.cfg.View()
	changed = v.Watch(w.id)
	j, ok := v.Job(w.id)
	if !ok {
		return nil, nil, nil
	}
	return w.leader.view(j), changed, live
}

// due says whether to send now: what people wait for at once, progress at its rate.
func (w *jobWatch) due(job *api.Job) bool {
	if w.last != nil && proto.Equal(w.last, job) {
		w.held = false
		return false
	}
	w.held = true
	return w.loud || w.sends < 2 || job.State != w.last.GetState() || job.Phase != w.last.GetPhase()
}

func (w *jobWatch) sent(job *api.Job) {
	w.last, w.held, w.loud = job, false, false
	w.sends++
	w.quiet.Reset(w.server.watchEvery)
}

// wait returns when there may be something to send. The record's channel is always
// heard: it may bring the end. The tracker's is not while progress is held back.
func (w *jobWatch) wait(ctx context.Context, changed, live <-chan struct{}) error {
	if w.held && !w.loud {
		live = nil
	}
	select {
	case <-changed:
	case <-live:
	case <-w.quiet.C:
		w.loud = true
		if !w.held { // nothing to send: wait on
			return w.wait(ctx, changed, live)
		}
	case <-ctx.Done():
		return ctx.Err()
	case <-w.leader.Done:
		return errNoLeader
	case <-w.server.closed:
		return errNoLeader
	}
	return nil
}

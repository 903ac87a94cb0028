package server

import (
	"context"
	"errors"
	"fmt"
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
func findJob(v *state.View, clusterRef, ref string) (state.Entry, error) {
	id := ""
	if clusterRef != "" {
		c, err := cluster(v, clusterRef)
		if err != nil {
			return state.Entry{}, err
		}
		id = c.ID
	}
	found, err := jobsMeant(v, id, ref)
	if err != nil || len(found) == 0 {
		if ref == "last" {
			return state.Entry{}, notFound("submit one: millrace run wordcount s3://BUCKET/INPUT/ s3://BUCKET/OUTPUT/", "there is no job yet")
		}
		var names []string
		for _, e := range v.List(id) {
			if e.Name() == ref { // the default cluster has none of that name, another one does
				of := e.Brief().Cluster
				if c, ok := v.Cluster(of); ok {
					if now, _ := v.Cluster(c.Name); now.ID == of {
						of = c.Name
					}
				}
				return state.Entry{}, notFound("add --cluster "+of, "no such job: %s: the one of that name is of cluster %s", ref, of)
			}
			names = append(names, e.Name())
		}
		if near := nearestName(ref, names); near != "" {
			return state.Entry{}, notFound("millrace job list names them", "no such job: %s: did you mean %s?", ref, near)
		}
		return state.Entry{}, notFound("millrace job list names them", "no such job: %s", ref)
	}
	if len(found) > 1 {
		ids := make([]string, 0, 4)
		for _, e := range found[:min(4, len(found))] {
			ids = append(ids, e.Brief().ID)
		}
		return state.Entry{}, usage("type more of the id", fmt.Sprintf("%q means %d jobs: %s", ref, len(found), strings.Join(ids, ", ")))
	}
	return found[0], nil
}

// jobsMeant finds what a reference means in a cluster. Without one an id is good for all clusters, but the last job, and the
// newest of a name, are the default one's, as in a list.
func jobsMeant(v *state.View, cluster, ref string) ([]state.Entry, error) {
	if cluster != "" {
		return v.FindJob(cluster, ref)
	}
	found, err := v.FindJob("", ref)
	if c, ok := v.Cluster(""); ok && err == nil && !strings.HasPrefix(found[0].Brief().ID, ref) {
		return v.FindJob(c.ID, ref)
	}
	return found, err
}

func (l *Leader) view(j *state.Job) *api.Job { return l.views([]*state.Job{j})[0] }

// views asks the tracker once, however many jobs there are.
func (l *Leader) views(jobs []*state.Job) []*api.Job {
	var open []string
	for _, j := range jobs {
		if !j.Ended() {
			open = append(open, j.ID)
		}
	}
	var live map[string]tracker.Live
	if len(open) > 0 {
		live = l.Tracker.Lives(open)
	}
	views := make([]*api.Job, len(jobs))
	for i, j := range jobs {
		views[i] = jobView(j, live[j.ID])
	}
	return views
}

func (s *millraceService) GetJob(ctx context.Context, req *connect.Request[api.GetJobRequest]) (*connect.Response[api.Job], error) {
	v, l, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	j, err := s.job(ctx, v, req.Msg)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(l.view(j)), nil
}

func (s *millraceService) CancelJob(ctx context.Context, req *connect.Request[api.CancelJobRequest]) (*connect.Response[api.Job], error) {
	v, l, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	e, err := findJob(v, req.Msg.Cluster, req.Msg.Job)
	if err != nil {
		return nil, err
	}
	j := e.Brief()
	if j.State != state.JobCancelled && j.State != state.JobCancelPending { // repeating it is no error
		if err := cancellable(j); err != nil {
			return nil, err
		}
		reason := req.Msg.Reason
		if reason == "" {
			reason = "cancelled by " + callOf(ctx).caller.ID
		}
		if _, err := s.cfg.Log.Apply(ctx, state.CancelJob{Job: j.ID, Reason: reason}); err != nil {
			if now, ok := s.cfg.View().Entry(j.ID); ok && !errors.Is(err, ErrNotLeader) { // else it may be this very call that ended it
				if late := cancellable(now.Brief()); late != nil { // it ended meanwhile
					return nil, late
				}
			}
			return nil, fmt.Errorf("cancel %s: %w", j.ID, err)
		}
		l.Tracker.Cancelled(j.ID)
	}
	now, err := s.jobByID(ctx, s.cfg.View(), j.ID)
	if err != nil {
		return nil, err
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
	w := &jobWatch{server: s.Server, leader: l, id: first.Brief().ID, quiet: time.NewTimer(0)}
	defer w.quiet.Stop()
	for {
		job, changed, live, err := w.look(ctx)
		if err != nil {
			return err
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
func (w *jobWatch) look(ctx context.Context) (job *api.Job, changed, live <-chan struct{}, err error) {
	v := w.server.cfg.View()
	if e, ok := v.Entry(w.id); ok && e.Ended() { // the tracker has no more to say of it
		j, err := w.server.jobOf(ctx, v, e)
		if err != nil {
			return nil, nil, nil, err
		}
		return w.leader.view(j), nil, nil, nil
	}
	live = w.leader.Tracker.Changed(w.id)
	v = w.server.cfg.View()
	changed = v.Watch(w.id)
	j, err := w.server.jobByID(ctx, v, w.id)
	if err != nil {
		return nil, nil, nil, err
	}
	return w.leader.view(j), changed, live, nil
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

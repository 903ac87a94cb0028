package server

import (
	"context"
	"errors"

	"millrace/master/history"
	"millrace/master/state"
)

// jobRequest is a request that names a job.
type jobRequest interface {
	GetCluster() string
	GetJob() string
}

// job finds the one job that a request names, wherever it is kept.
func (s *Server) job(ctx context.Context, v *state.View, req jobRequest) (*state.Job, error) {
	e, err := findJob(v, req.GetCluster(), req.GetJob())
	if err != nil {
		return nil, err
	}
	return s.jobOf(ctx, v, e)
}

func (s *Server) jobByID(ctx context.Context, v *state.View, id string) (*state.Job, error) {
	e, ok := v.Entry(id)
	if !ok {
		return nil, notFound("", "no such job: %s", id)
	}
	return s.jobOf(ctx, v, e)
}

func (s *Server) jobOf(ctx context.Context, v *state.View, e state.Entry) (*state.Job, error) {
	if e.Job != nil {
		return e.Job, nil
	}
	place, err := s.history(v)
	if err != nil {
		return nil, err
	}
	j, err := place.Job(ctx, e.Past.ID)
	return j, gone(err)
}

// record finds the one job that a request names, with what is logged of its tasks, wherever it is kept.
func (s *Server) record(ctx context.Context, v *state.View, req jobRequest) (*history.Record, error) {
	e, err := findJob(v, req.GetCluster(), req.GetJob())
	if err != nil {
		return nil, err
	}
	if e.Job != nil {
		return history.RecordOf(v, e.Job), nil
	}
	place, err := s.history(v)
	if err != nil {
		return nil, err
	}
	r, err := place.Record(ctx, e.Past.ID)
	return r, gone(err)
}

// gone says of a record that is not there what may have become of it.
func gone(err error) error {
	if errors.Is(err, history.ErrGone) {
		return notFound("see whether the object was deleted, or the site's system prefix is another now: millrace master run --system", "%s", err)
	}
	return err
}

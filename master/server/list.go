package server

import (
	"context"
	"errors"
	"slices"
	"sort"
	"strings"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"millrace/master/history"
	"millrace/master/state"
	"millrace/pkg/api"
)

const (
	// So many jobs are looked at together, and their pages of the history are read.
	listLeast, listMost = 100, 501 // a page of the command line, and whether there is more
	// pagesWithin bounds how long a list waits for the history: then it tells what it knows without.
	pagesWithin   = 10 * time.Second
	pagesTogether = 16
)

var jobStates = []string{
	state.JobPending, state.JobRunning, state.JobCompleted, state.JobFailed, state.JobCancelPending, state.JobCancelled,
}

// ListJobs lists a cluster's jobs, the newest first, a page at a time if the caller wants that.
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
	list := v.List(c.ID)
	if before := req.Msg.Before; before > 0 {
		list = list[sort.Search(len(list), func(i int) bool { return list[i].Sequence() < before }):]
	}
	resp, err := s.list(ctx, v, l, list, req.Msg)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(resp), nil
}

// list views entries, a chunk after the other, until there are as many as were asked for.
func (s *Server) list(ctx context.Context, v *state.View, l *Leader, list []state.Entry, m *api.ListJobsRequest) (*api.ListJobsResponse, error) {
	wanted := func(st string) bool {
		return len(m.States) == 0 || slices.ContainsFunc(m.States, func(w string) bool { return strings.EqualFold(w, st) })
	}
	resp := &api.ListJobsResponse{}
	size := listMost
	if m.Limit > 0 {
		size = min(listMost, int(m.Limit)+1)
		if len(m.States) > 0 { // many are passed over
			size = max(listLeast, size)
		}
	}
	for chunk := range slices.Chunk(list, size) {
		chunk = slices.DeleteFunc(slices.Clone(chunk), func(e state.Entry) bool { // what an open job is called, the tracker says
			return e.Ended() && !wanted(e.State())
		})
		jobs, brief, err := s.jobsOf(ctx, v, chunk)
		if err != nil {
			return nil, err
		}
		if brief != "" {
			resp.Brief = brief
		}
		for i, job := range l.views(jobs) {
			if !wanted(job.State) {
				continue
			}
			if m.Limit > 0 && len(resp.Jobs) == int(m.Limit) {
				resp.More = jobs[i].Sequence + 1
				return resp, nil
			}
			resp.Jobs = append(resp.Jobs, job)
		}
	}
	return resp, nil
}

// jobsOf gives the jobs of entries: those of the history from its pages. If some of these cannot be read, those
// jobs are given as briefly as they are known, and why.
func (s *Server) jobsOf(ctx context.Context, v *state.View, list []state.Entry) (jobs []*state.Job, brief string, err error) {
	pages, listed := map[string]map[string]*state.Job{}, map[string][]string{}
	for _, e := range list {
		if e.Past != nil {
			listed[e.Past.Page] = append(listed[e.Past.Page], e.Past.ID)
		}
	}
	if len(listed) > 0 {
		if pages, err = s.pages(ctx, v, listed); err != nil {
			if ctx.Err() != nil {
				return nil, "", ctx.Err()
			}
			s.log.Warn("the history cannot be read: its jobs are listed briefly", zap.Error(err))
			brief = err.Error()
		}
	}
	for _, e := range list {
		j := e.Brief()
		if e.Past != nil {
			if whole := pages[e.Past.Page][e.Past.ID]; whole != nil {
				j = whole
			}
		}
		jobs = append(jobs, j)
	}
	return jobs, brief, nil
}

// pages reads pages of the history, of which the jobs given are wanted; with an error, as many as could be read.
func (s *Server) pages(ctx context.Context, v *state.View, wanted map[string][]string) (map[string]map[string]*state.Job, error) {
	place, err := s.history(v)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, pagesWithin)
	defer cancel()
	type read struct {
		name string
		jobs map[string]*state.Job
	}
	answers := make(chan read, len(wanted))
	var g errgroup.Group
	g.SetLimit(pagesTogether)
	for name, ids := range wanted {
		g.Go(func() error {
			jobs, err := place.Page(ctx, name)
			if errors.Is(err, history.ErrGone) { // somebody has deleted it; what it told, the jobs' own records tell
				jobs, err = jobsOfRecords(ctx, place, ids)
			}
			answers <- read{name, jobs}
			return err
		})
	}
	err = g.Wait()
	close(answers)
	pages := map[string]map[string]*state.Job{}
	for a := range answers {
		pages[a.name] = a.jobs
	}
	return pages, err
}

// jobsOfRecords reads jobs one by one; with an error, those before the first that could not be read.
func jobsOfRecords(ctx context.Context, place history.Place, ids []string) (map[string]*state.Job, error) {
	jobs := map[string]*state.Job{}
	for _, id := range ids {
		j, err := place.Job(ctx, id)
		if err != nil {
			return jobs, err
		}
		jobs[id] = j
	}
	return jobs, nil
}

// history is where the site keeps the jobs that have ended.
func (s *Server) history(v *state.View) (history.Place, error) {
	store, _, err := s.siteStore(v)
	if err != nil {
		return history.Place{}, err
	}
	place, err := systemPlace(v)
	return history.Place{Store: store, Bucket: place.Bucket, Prefix: place.Key}, err
}

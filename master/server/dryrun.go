package server

import (
	"context"

	"millrace/jobs/input"
	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
)

// dryRun answers what the job would be if it were started now.
func (s *Server) dryRun(ctx context.Context, v *state.View, l *Leader, c *state.Cluster, spec *api.JobSpec) (*api.Job, error) {
	store, _, err := s.jobStore(v, c, spec)
	if err != nil {
		return nil, err
	}
	objects, err := input.ListFor(ctx, store, spec.Input, spec.InputFormat)
	if err != nil {
		return nil, err
	}
	plan := &api.JobPlan{}
	s.awaitNodes(ctx, v, l, c.ID)
	room(plan, s.nodes(v, l, c.ID))
	plan.TasksWaiting = int64(l.Tracker.Queued(c.ID))
	splits := input.Cut(objects, spec.SplitSize, spec.InputFormat)
	reduces := int(spec.GetReduces())
	if spec.Reduces == nil && !spec.MapOnly {
		reduces = tracker.DefaultReduces(input.NewPlan(splits).Bytes, int(plan.Slots))
	}
	input.Describe(plan, objects, splits, reduces)
	return &api.Job{
		Name: spec.Name, Program: programName(spec.Program), State: state.JobPending, Phase: state.PhasePlanning, Cluster: c.ID,
		Input: spec.Input, Output: spec.Output, Priority: spec.Priority, BytesTotal: plan.Bytes,
		Maps:    &api.TaskCounts{Total: plan.Splits, Pending: plan.Splits},
		Reduces: &api.TaskCounts{Total: plan.Reduces, Pending: plan.Reduces},
		Plan:    plan, Notes: input.Notes(objects),
	}, nil
}

// room fills in what a cluster's nodes have. Nodes of one machine that see the same disk share it.
func room(plan *api.JobPlan, nodes []*api.Node) {
	type disk struct {
		machine string
		size    int64
	}
	free := map[disk]int64{}
	for _, n := range nodes {
		if n.State != nodeRunning || n.Role == state.RoleMaster {
			continue
		}
		plan.Nodes++
		plan.Slots += n.Slots
		plan.SlotsTaken += n.Running
		d := disk{n.Name, n.DiskBytes}
		free[d] = max(free[d], n.DiskFreeBytes)
	}
	for _, bytes := range free {
		plan.DiskFree += bytes
	}
}

package server

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"millrace/jobs/input"
	"millrace/master/state"
	"millrace/master/tracker"
	"millrace/pkg/api"
	"millrace/pkg/objectstore"
)

const (
	kindMap    = "MAP"
	kindReduce = "REDUCE"
	taskDone   = "COMPLETED"

	// An attempt is slow when it has run slowFactor times its kind's median, and slowAtLeast.
	slowFactor  = 2
	slowAtLeast = 2 * time.Second
)

func (s *millraceService) ListTasks(ctx context.Context, req *connect.Request[api.ListTasksRequest]) (*connect.Response[api.ListTasksResponse], error) {
	v, l, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	r, err := s.record(ctx, v, req.Msg)
	if err != nil {
		return nil, err
	}
	j := r.Job
	live, _ := l.Tracker.Live(j.ID)
	var splits []*api.Split
	if plan, err := s.plan(ctx, v, j); err == nil {
		splits = plan.Splits
	} else { // the tasks are worth showing without
		s.log.Warn("plan cannot be read: tasks are shown without input", zap.String("job", j.ID), zap.Error(err))
	}
	list := &taskList{job: j, now: s.cfg.Now(), splits: splits, running: map[state.TaskID][]tracker.LiveAttempt{}}
	for _, a := range live.Attempts {
		list.running[a.Task] = append(list.running[a.Task], a)
	}
	list.add(state.Map, j.Maps, r.Maps)
	list.add(state.Reduce, j.Reduces, r.Reduces)
	resp := &api.ListTasksResponse{Tasks: list.tasks}
	m := req.Msg
	if m.Failed || m.Running || m.Slow {
		median := map[string]time.Duration{kindMap: median(r.Maps), kindReduce: median(r.Reduces)}
		resp.Tasks = slices.DeleteFunc(resp.Tasks, func(t *api.Task) bool {
			return !(m.Failed && (hasAttempt(t, "FAILED") || hasAttempt(t, "LOST"))) && !(m.Running && hasAttempt(t, "RUNNING")) &&
				!(m.Slow && slow(t, median[t.Kind], list.now))
		})
	}
	return connect.NewResponse(resp), nil
}

// taskList builds the view of a job's tasks: what is logged, and over it what runs.
type taskList struct {
	job     *state.Job
	now     time.Time
	splits  []*api.Split
	running map[state.TaskID][]tracker.LiveAttempt
	tasks   []*api.Task
}

func (l *taskList) add(kind string, total int, logged []*state.Task) {
	records := map[int]*state.Task{}
	for _, t := range logged {
		records[t.ID.Index] = t
	}
	for i := range total {
		l.tasks = append(l.tasks, l.task(state.TaskID{Kind: kind, Index: i}, records[i]))
	}
}

func (l *taskList) task(id state.TaskID, record *state.Task) *api.Task {
	t := &api.Task{Id: taskName(id), Kind: kindReduce, Index: int32(id.Index), State: state.JobPending}
	if id.Kind == state.Map {
		t.Kind = kindMap
		if id.Index < len(l.splits) {
			describeSplit(t, l.splits[id.Index])
		}
	}
	if record != nil {
		for _, e := range record.Ended {
			t.Attempts = append(t.Attempts, &api.Attempt{
				Id: e.Attempt, State: e.State, Node: e.Node, StartedAt: stamp(e.StartedAt), EndedAt: stamp(e.EndedAt),
				Cause: e.Failure.Message, ExitCode: int32(e.Failure.ExitCode), Signal: e.Failure.Signal,
			})
		}
		if w := record.Win; record.Done && w != nil {
			t.State = taskDone
			t.Attempts = append(t.Attempts, &api.Attempt{
				Id: w.Attempt, State: taskDone, Node: w.Node, StartedAt: stamp(w.StartedAt), EndedAt: stamp(w.EndedAt), BytesDone: w.InputBytes,
			})
		}
	}
	for _, a := range l.running[id] {
		if !a.Started { // it waits in a worker's queue: still pending
			continue
		}
		if t.State != taskDone {
			t.State = state.JobRunning
		}
		t.Attempts = append(t.Attempts, &api.Attempt{
			Id: a.ID, State: "RUNNING", Node: a.Node, StartedAt: stamp(a.StartedAt), BytesDone: a.BytesDone,
		})
	}
	if f := l.job.Failure; f != nil && f.Task == t.Id && t.State != taskDone {
		t.State = state.JobFailed
	}
	return t
}

func describeSplit(t *api.Task, s *api.Split) {
	for i, p := range s.GetPieces() {
		if i == 0 {
			t.Input, t.Offset = objectstore.URL{Bucket: p.Bucket, Key: p.Key}.String(), p.Offset
		}
		t.Length += p.Length
	}
}

// taskName is a task's id for people: m-00003.
func taskName(id state.TaskID) string { return fmt.Sprintf("%s-%05d", id.Kind, id.Index) }

func hasAttempt(t *api.Task, st string) bool {
	return slices.ContainsFunc(t.Attempts, func(a *api.Attempt) bool { return a.State == st })
}

// median is how long completed tasks took; 0 if none has.
func median(tasks []*state.Task) time.Duration {
	var took []time.Duration
	for _, t := range tasks {
		if t.Done && t.Win != nil {
			took = append(took, t.Win.EndedAt.Sub(t.Win.StartedAt))
		}
	}
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[len(took)/2]
}

func slow(t *api.Task, median time.Duration, now time.Time) bool {
	return median > 0 && slices.ContainsFunc(t.Attempts, func(a *api.Attempt) bool {
		ran := now.Sub(a.StartedAt.AsTime())
		return a.State == "RUNNING" && ran >= slowAtLeast && ran > slowFactor*median
	})
}

// plan reads a job's plan from the system prefix; an empty one before it is made.
func (s *Server) plan(ctx context.Context, v *state.View, j *state.Job) (*input.Plan, error) {
	if j.PlanKey == "" {
		return &input.Plan{}, nil
	}
	if p := s.plans.get(j.PlanDigest); p != nil {
		return p, nil
	}
	store, _, err := s.siteStore(v)
	if err != nil {
		return nil, err
	}
	place, err := systemPlace(v)
	if err != nil {
		return nil, err
	}
	body, err := store.Get(ctx, place.Bucket, place.Key+j.PlanKey, 0, -1, "")
	if err != nil {
		return nil, fmt.Errorf("read plan of %s: %w", j.ID, err)
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, fmt.Errorf("read plan of %s: %w", j.ID, err)
	}
	p, err := input.Decode(data, j.PlanDigest)
	if err != nil {
		return nil, fmt.Errorf("read plan of %s: %w", j.ID, err)
	}
	s.plans.put(j.PlanDigest, p)
	return p, nil
}

// planCache keeps the plans last asked for: whoever looks at tasks looks again.
type planCache struct {
	mu    sync.Mutex
	plans map[string]*input.Plan
	order []string
}

const plansKept = 4

func newPlanCache() *planCache { return &planCache{plans: map[string]*input.Plan{}} }

func (c *planCache) get(digest string) *input.Plan {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.plans[digest]
}

func (c *planCache) put(digest string, p *input.Plan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.plans[digest] != nil {
		return
	}
	c.plans[digest] = p
	c.order = append(c.order, digest)
	if len(c.order) > plansKept {
		delete(c.plans, c.order[0])
		c.order = c.order[1:]
	}
}

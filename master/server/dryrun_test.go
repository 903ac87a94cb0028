package server

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"millrace/master/state"
	"millrace/pkg/api"
)

func TestThePlanCountsMachinesAndTheirDisksOnce(t *testing.T) {
	plan := &api.JobPlan{}
	room(plan, []*api.Node{
		{Name: "m", Role: state.RoleMaster, State: nodeRunning, Slots: 9, DiskFreeBytes: 9},
		{Name: "a", Role: state.RoleCore, State: nodeRunning, Slots: 2, Running: 1, DiskBytes: 100, DiskFreeBytes: 40},
		{Name: "a", Role: state.RoleTask, State: nodeRunning, Slots: 2, DiskBytes: 100, DiskFreeBytes: 41},
		{Name: "b", Role: state.RoleCore, State: nodeRunning, Slots: 3, DiskBytes: 100, DiskFreeBytes: 5},
		{Name: "c", Role: state.RoleCore, State: nodeLost, Slots: 3, DiskBytes: 100, DiskFreeBytes: 50},
	})
	require.True(t, proto.Equal(&api.JobPlan{Nodes: 3, Slots: 7, SlotsTaken: 1, DiskFree: 46}, plan), "%v", plan)
}

func TestThePlanNamesWhatCannotBeCut(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.put("input", "d/1", strings.Repeat("x", 250))
	w.put("input", "d/2.gz", strings.Repeat("x", 30))
	w.put("input", "d/3.gz", strings.Repeat("x", 40))
	w.put("input", "d/empty", "")
	spec := wordcount()
	spec.Input, spec.SplitSize, spec.Reduces = []string{"s3://input/d/"}, 100, proto.Int32(3)
	resp, err := w.user("alice").SubmitJob(t.Context(), connect.NewRequest(&api.SubmitJobRequest{Spec: spec, DryRun: true}))
	require.NoError(t, err)
	need := int64(250 + 4*70)
	require.True(t, proto.Equal(&api.JobPlan{
		Objects: 4, Bytes: 320, Splits: 5, LargestSplit: 100, Reduces: 3, Unsplittable: 2, UnsplittableBytes: 70, TasksWaiting: 7,
		LargestUnsplittable: []*api.PlanObject{{Url: "s3://input/d/3.gz", Bytes: 40}, {Url: "s3://input/d/2.gz", Bytes: 30}},
		DiskNeeded:          need + need/3,
	}, resp.Msg.Plan), "%v", resp.Msg.Plan)
	require.Empty(t, w.state.View().Jobs(""), "nothing was started")
}

func TestARequestIdMakesOneJobHoweverOftenItComesAtOnce(t *testing.T) {
	w := newWorld(t)
	w.ready()
	user := w.user("alice")
	const callers = 20
	ids, errs := make([]string, callers), make([]error, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			spec := wordcount()
			spec.RequestId = "once"
			var resp *connect.Response[api.Job]
			if resp, errs[i] = user.SubmitJob(t.Context(), connect.NewRequest(&api.SubmitJobRequest{Spec: spec})); errs[i] == nil {
				ids[i] = resp.Msg.Id
			}
		})
	}
	wg.Wait()
	for i := range callers {
		require.NoError(t, errs[i])
		require.Equal(t, ids[0], ids[i])
	}
	require.Len(t, w.state.View().Jobs(""), 1)
	require.Len(t, w.tracker.submitted, 1, "the leader is told once")
}

// While a request is being checked against the store, another of the same id is faster and has written its output.
func TestARequestIdWhoseJobEndsWhileItIsLookedAtAgain(t *testing.T) {
	w := newWorld(t)
	w.ready()
	spec := wordcount()
	spec.RequestId = "once"
	other := w.user("alice")
	var looked atomic.Bool
	var first string
	w.store.Fault = func(op, bucket, _ string) error {
		if op == "List" && bucket == "out" && looked.CompareAndSwap(false, true) {
			resp, err := other.SubmitJob(t.Context(), connect.NewRequest(&api.SubmitJobRequest{Spec: spec}))
			require.NoError(t, err)
			first = resp.Msg.Id
			w.put("out", "x/part-r-00000", "its output")
		}
		return nil
	}
	require.Equal(t, first, w.submit(spec).Id)
}

func TestARequestIdOfAnotherJobIsRefused(t *testing.T) {
	w := newWorld(t)
	w.ready()
	spec := wordcount()
	spec.RequestId = "once"
	spec.Store = &api.ObjectStore{Endpoint: "http://other.test", AccessKey: "k", SecretKey: "s"}
	first := w.submit(spec)
	require.Equal(t, first.Id, w.submit(spec).Id, "the store's keys are no difference: they are not kept with it")
	spec.Reduces, spec.Output = proto.Int32(3), "s3://out/y/"
	_, err := w.user("alice").SubmitJob(t.Context(), connect.NewRequest(&api.SubmitJobRequest{Spec: spec}))
	requireProblems(t, err, 2, "has made job "+first.Id+", with another output, reduces", "--request-id")
	require.Len(t, w.state.View().Jobs(""), 1)
}

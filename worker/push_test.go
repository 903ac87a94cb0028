package worker

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
	"millrace/worker/attempt"
)

// away is a core node that nobody can reach.
var away = &api.NodeAddress{Node: "i-00000000000000bad", Address: "https://127.0.0.1:1"}

func TestASegmentWaitsForACoreNode(t *testing.T) {
	m := newMaster(t)
	core, task := m.worker("core", "CORE"), m.worker("task", "TASK")
	address := core.address()
	core.end() // it starts again below, on the same port
	l := mapLease(0)
	l.PushTo = []*api.NodeAddress{away, {Node: core.id, Address: address}}
	task.lease(l)
	require.Eventually(t, func() bool {
		done, err := filepath.Glob(filepath.Join(task.dir, "attempts", l.Attempt, attempt.SegmentFile))
		return err == nil && len(done) == 1
	}, time.Minute, time.Millisecond, "there is a segment and nobody to take it")
	core.run(func(c *Config) { c.Listen = address[len("https://"):] })
	r := task.report(l.Attempt)
	require.Nil(t, r.Result.Failure, "%v", r.Result.Failure)
	require.Equal(t, core.id, r.SegmentNode)
}

func TestASegmentThatNobodyTakesDoesNotCount(t *testing.T) {
	m := newMaster(t)
	task := m.worker("task", "TASK")
	task.w.noCore = time.Second
	l := mapLease(0)
	l.PushTo = []*api.NodeAddress{away}
	start := time.Now()
	task.lease(l)
	f := task.report(l.Attempt).Result.Failure
	require.Equal(t, api.FailureKind_FAILURE_KIND_RESOURCE, f.GetKind())
	require.Contains(t, f.Message, "no core node takes the segment")
	require.Greater(t, time.Since(start), time.Second)
}

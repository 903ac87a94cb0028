package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

func (f *fakeMaster) nextDrain() *api.NodeDrain {
	d := f.drains[0]
	if len(f.drains) > 1 {
		f.drains = f.drains[1:]
	}
	return d
}

func (f *fakeMaster) DrainNode(_ context.Context, r *connect.Request[api.DrainNodeRequest]) (*connect.Response[api.NodeDrain], error) {
	f.drained = r.Msg
	if f.refuse != nil {
		return nil, f.refuse
	}
	return connect.NewResponse(f.nextDrain()), nil
}

func (f *fakeMaster) GetDrain(context.Context, *connect.Request[api.GetDrainRequest]) (*connect.Response[api.NodeDrain], error) {
	if len(f.drainErr) > 0 {
		err := f.drainErr[0]
		f.drainErr = f.drainErr[1:]
		return nil, err
	}
	return connect.NewResponse(f.nextDrain()), nil
}

func (f *fakeMaster) ResumeNode(_ context.Context, r *connect.Request[api.ResumeNodeRequest]) (*connect.Response[api.Node], error) {
	return connect.NewResponse(&api.Node{Id: "i-2", Name: r.Msg.Node, State: "RUNNING"}), nil
}

func (f *fakeMaster) RemoveNode(_ context.Context, r *connect.Request[api.RemoveNodeRequest]) (*connect.Response[api.Node], error) {
	f.removed = r.Msg
	return connect.NewResponse(&api.Node{Id: "i-2", Name: r.Msg.Node, State: "TERMINATED"}), nil
}

func draining(reason string) *api.NodeDrain {
	return &api.NodeDrain{Node: &api.Node{Id: "i-2", Name: "core-2", State: "DRAINING", Reason: reason}, Blocks: 3, Bytes: 3 << 20}
}

func drained() *api.NodeDrain {
	d := draining("drained: nothing is left on it")
	d.Drained, d.Blocks, d.Bytes = true, 0, 0
	return d
}

func TestNodeDrain(t *testing.T) {
	f := &fakeMaster{drains: []*api.NodeDrain{draining("3 blocks (3.0 MiB) still to be copied, about 40s")}}
	s := newSession(t).serve(f)
	o := s.run("node", "drain", "core-2", "--grace", "90s")
	require.Equal(t, output{out: "core-2 DRAINING: 3 blocks (3.0 MiB) still to be copied, about 40s\nnext: millrace node drain core-2 --wait follows it, millrace node resume core-2 stops it\n"}, o)
	require.Equal(t, "core-2", f.drained.Node)
	require.Equal(t, int64(90_000), f.drained.GetGraceMs())
	o = s.run("node", "drain", "core-2")
	require.Zero(t, o.code, o.err)
	require.Nil(t, f.drained.GraceMs, "the master says how long, or it stays as it was")

	f.drains = []*api.NodeDrain{{Node: &api.Node{Id: "i-2", Name: "core-2", State: "RUNNING"}, Blocks: 3, Bytes: 3 << 20, EstimateMs: 40_000}}
	require.Equal(t, output{out: "core-2: 3 blocks (3.0 MiB) would be copied to other nodes, in about 40s\nnext: millrace node drain core-2 --wait\n"}, s.run("node", "drain", "core-2", "--dry-run"))
	require.True(t, f.drained.DryRun)
	f.drains[0].Blocks = 0
	require.Contains(t, s.run("node", "drain", "core-2", "--dry-run").out, "core-2: nothing is to be copied to other nodes\n")

	f.refuse = problem(connect.CodeFailedPrecondition, "replication 3 needs 3 core nodes; 2 would be left", "let more core nodes join", 1)
	o = s.run("node", "drain", "core-2", "--wait")
	require.Equal(t, output{err: "millrace: replication 3 needs 3 core nodes; 2 would be left\nnext: let more core nodes join\n", code: exitFailed}, o)
}

func TestNodeDrainMistakes(t *testing.T) {
	f := &fakeMaster{}
	s := newSession(t).serve(f)
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"core-2", "--grace", "-1s"}, "is negative"},
		{[]string{"core-2", "--wait", "--dry-run"}, "exclude each other"},
		{nil, "NODE"},
	} {
		o := s.run(append([]string{"node", "drain"}, c.args...)...)
		require.Equal(t, exitUsage, o.code, c.args)
		require.Contains(t, o.err, c.says)
	}
	require.Nil(t, f.drained)
}

// A drain is followed until nothing is left, also when no master answers for a while and the node's session breaks.
func TestADrainIsFollowed(t *testing.T) {
	lost := draining("it has no session with the leader; it was being drained")
	lost.Node.State = "LOST"
	f := &fakeMaster{drains: []*api.NodeDrain{draining("3 blocks"), lost, draining("1 block"), drained()},
		drainErr: []error{problem(connect.CodeFailedPrecondition, "no leader", "", exitUnreachable)}}
	s := newSession(t).serve(f)
	o := s.run("node", "drain", "core-2", "--wait")
	require.Equal(t, output{out: "core-2 DRAINING: drained: nothing is left on it\n", err: "core-2 DRAINING: 3 blocks\n"}, o)

	f.drains = []*api.NodeDrain{draining("3 blocks"), drained()}
	o = s.run("node", "drain", "core-2", "--wait", "--json")
	require.Equal(t, exitOK, o.code)
	require.Empty(t, o.err)
	require.Equal(t, true, o.json(t).(map[string]any)["drained"])
}

func TestADrainThatIsFollowedInVain(t *testing.T) {
	f := &fakeMaster{drains: []*api.NodeDrain{draining("3 blocks"), {Node: &api.Node{Id: "i-2", Name: "core-2", State: "RUNNING"}}}}
	s := newSession(t).serve(f)
	o := s.run("node", "drain", "core-2", "--wait")
	require.Equal(t, exitFailed, o.code)
	require.Contains(t, o.err, "drains no more: somebody has had it resume")

	f.drains = []*api.NodeDrain{draining("3 blocks")}
	ctx, cancel := context.WithCancel(t.Context())
	f.drainErr = []error{problem(connect.CodeNotFound, "no such node", "", exitNotFound)}
	o = s.run("node", "drain", "core-2", "--wait")
	require.Equal(t, exitNotFound, o.code)
	require.Contains(t, o.err, "node core-2 goes on draining")
	cancel()
	o = s.runContext(ctx, "node", "drain", "core-2", "--wait")
	require.Equal(t, exitInterrupted, o.code)
}

func TestNodeResumeAndRemove(t *testing.T) {
	f := &fakeMaster{}
	s := newSession(t).serve(f)
	require.Equal(t, output{out: "node core-2 does not drain any more\n"}, s.run("node", "resume", "core-2"))
	o := s.run("node", "remove", "core-2", "--force")
	require.Zero(t, o.code)
	require.Contains(t, o.out, "node core-2 (i-2) is out of the site")
	require.True(t, f.removed.Force)
	require.Equal(t, "TERMINATED", s.run("node", "rm", "core-2", "--json").json(t).(map[string]any)["state"])
}

// The document of a drain is a contract, as those of TestJSONDocuments.
func TestTheDocumentOfADrain(t *testing.T) {
	d := draining("3 blocks")
	d.Waiting, d.WaitingTotal = []*api.BlockWaiting{{Path: "hdfs:///a", Block: 7, Size: 9, Reason: "no other core node can take it"}}, 1
	d.EstimateMs, d.Writing, d.Attempts, d.KillAt, d.Jobs = 40_000, 1, 2, at("2026-01-02T03:04:05Z"), []string{"s-ABCDEFGHIJKLM"}
	o := newSession(t).serve(&fakeMaster{drains: []*api.NodeDrain{d}}).run("node", "drain", "core-2", "--json")
	require.Zero(t, o.code, o.err)
	file := filepath.Join("testdata", "node-drain.json")
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(o.out), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), o.out, fmt.Sprintf("%s holds the contract", file))
}

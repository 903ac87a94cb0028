package cli

import (
	"context"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"millrace/pkg/api"
)

// talkingNode is a site whose nodes answer for themselves.
type talkingNode struct {
	fakeMaster
	logs *api.NodeLogsRequest
	exec *api.ExecNodeRequest
	says []*api.ExecNodeResponse
}

func (f *talkingNode) NodeLogs(_ context.Context, r *connect.Request[api.NodeLogsRequest], s *connect.ServerStream[api.NodeLogsResponse]) error {
	f.logs = r.Msg
	for _, piece := range []string{"one\ntw", "o\n"} {
		if err := s.Send(&api.NodeLogsResponse{Data: []byte(piece)}); err != nil {
			return err
		}
	}
	return f.refuse
}

func (f *talkingNode) ExecNode(_ context.Context, r *connect.Request[api.ExecNodeRequest], s *connect.ServerStream[api.ExecNodeResponse]) error {
	f.exec = r.Msg
	for _, m := range f.says {
		if err := s.Send(m); err != nil {
			return err
		}
	}
	return f.refuse
}

func execPieces(end *api.ExecEnd) []*api.ExecNodeResponse {
	return []*api.ExecNodeResponse{
		{Piece: &api.ExecNodeResponse_Stdout{Stdout: []byte("out\n")}}, {Piece: &api.ExecNodeResponse_Stderr{Stderr: []byte("err\n")}},
		{Piece: &api.ExecNodeResponse_End{End: end}},
	}
}

func TestNodeLogs(t *testing.T) {
	f := &talkingNode{}
	s := newSession(t).serve(f)
	require.Equal(t, output{out: "one\ntwo\n"}, s.run("node", "logs", "core-1"))
	require.Equal(t, "core-1", f.logs.Node)
	require.False(t, f.logs.Bootstrap)
	require.Equal(t, output{out: "one\ntwo\n"}, s.run("node", "logs", "core-1", "bootstrap", "-f"))
	require.True(t, f.logs.Bootstrap && f.logs.Follow)
	require.Equal(t, map[string]any{"node": "core-1", "log": "one\ntwo\n"}, s.run("node", "logs", "core-1", "--json").json(t))
	o := s.run("node", "logs", "core-1", "kernel")
	require.Equal(t, exitUsage, o.code)
	require.Contains(t, o.err, `"kernel"`)
	f.refuse = problem(connect.CodeFailedPrecondition, "node core-1 is lost", "look on its machine", exitFailed)
	o = s.run("node", "logs", "core-1")
	require.Equal(t, output{out: "one\ntwo\n", err: "millrace: node core-1 is lost\nnext: look on its machine\n", code: exitFailed}, o)
}

// The program's exit code is the command's, and what it wrote goes where it went.
func TestNodeExec(t *testing.T) {
	f := &talkingNode{}
	s := newSession(t).serve(f)
	for _, c := range []struct {
		end  *api.ExecEnd
		want output
	}{
		{&api.ExecEnd{}, output{out: "out\n", err: "err\n"}},
		{&api.ExecEnd{ExitCode: 3}, output{out: "out\n", err: "err\n", code: 3}},
		{&api.ExecEnd{ExitCode: -1, Signal: "SIGTERM"}, output{out: "out\n", err: "err\n", code: 143}},
		{&api.ExecEnd{ExitCode: -1, Signal: "SIGKILL", Error: "it took longer than it may: 1s"},
			output{out: "out\n", err: "err\nmillrace: df on node core-1: it took longer than it may: 1s\nnext: millrace node exec --help\n", code: exitTimeout}},
		{&api.ExecEnd{ExitCode: -1, Error: "fork/exec /etc/passwd: permission denied"},
			output{out: "out\n", err: "err\nmillrace: df on node core-1: fork/exec /etc/passwd: permission denied\nnext: millrace node exec --help\n", code: 126}},
		{&api.ExecEnd{ExitCode: -1, Error: "not found"}, output{out: "out\n", err: "err\nmillrace: df on node core-1: not found\nnext: millrace node exec --help\n", code: 127}},
	} {
		f.says = execPieces(c.end)
		require.Equal(t, c.want, s.run("node", "exec", "core-1", "--", "df", "--json"))
		require.Equal(t, []string{"df", "--json"}, f.exec.Command)
	}
	require.Empty(t, f.exec.Stdin, "standard input is taken along when that is wanted only")
	f.says, s.in = execPieces(&api.ExecEnd{ExitCode: 3}), "given"
	o := s.run("node", "exec", "core-1", "--stdin", "--timeout", "2s", "--json", "--", "cat")
	require.Equal(t, 3, o.code)
	require.Equal(t, map[string]any{"node": "core-1", "exitCode": 3.0, "stdout": "out\n", "stderr": "err\n"}, o.json(t))
	require.Equal(t, "given", string(f.exec.Stdin))
	require.EqualValues(t, 2000, f.exec.TimeoutMs)

	for _, args := range [][]string{{"core-1"}, {"core-1", "df"}, {"core-1", "--timeout", "-1s", "--", "df"}} {
		require.Equal(t, exitUsage, s.run(append([]string{"node", "exec"}, args...)...).code, args)
	}
	f.says, f.refuse = nil, problem(connect.CodeFailedPrecondition, "node exec is switched off for this site", "millrace site set --exec on", exitFailed)
	require.Equal(t, output{err: "millrace: node exec is switched off for this site\nnext: millrace site set --exec on\n", code: exitFailed}, s.run("node", "exec", "core-1", "--", "df"))
}

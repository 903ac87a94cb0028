package cli

import (
	"io"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
)

// execInput is how much standard input node exec takes along.
const execInput = 1 << 20

// executed is how a program on a node ended, as JSON has it.
type executed struct {
	Node     string `json:"node"`
	ExitCode int    `json:"exitCode"`
	Signal   string `json:"signal,omitempty"`
	Error    string `json:"error,omitempty"`
	Stdout   string `json:"stdout"`
	Stderr   string `json:"stderr"`
}

// nodeExec runs a program on a node; its exit code is this command's.
func nodeExec(c *call) error {
	q := &api.ExecNodeRequest{Node: c.args[0], Command: c.after, TimeoutMs: c.Duration("timeout").Milliseconds()}
	switch {
	case len(q.Command) == 0:
		return usagef("millrace node exec "+q.Node+" -- df -h", "no program is given: it comes after --")
	case c.IsSet("timeout") && c.Duration("timeout") < time.Millisecond:
		return usagef("--timeout 10m", "--timeout %s: at least a millisecond", c.Duration("timeout"))
	}
	if c.Bool("stdin") {
		var err error
		if q.Stdin, err = io.ReadAll(io.LimitReader(c.env.Stdin, execInput+1)); err != nil {
			return usagef("leave --stdin away", "--stdin: %s", err)
		}
		if len(q.Stdin) > execInput {
			return usagef("bring it to the node by way of a bucket: millrace fs put", "--stdin: at most %s", formatSize(execInput))
		}
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	var stdout, stderr strings.Builder
	outTo, errTo := c.env.Stdout, c.env.Stderr
	if c.json {
		outTo, errTo = &stdout, &stderr
	}
	var end *api.ExecEnd
	// It is repeated only if the program was surely not started.
	err = conn.Repeat(c.Context.Context, apiconnect.MillraceServiceExecNodeProcedure, func() (came bool, err error) {
		end, came, err = c.execOnce(conn, q, outTo, errTo)
		return came, err
	})
	if err != nil {
		return err
	}
	if end == nil {
		return faultf(exitFailed, "millrace node list", "node %s did not say how the program ended", q.Node)
	}
	r := executed{Node: q.Node, ExitCode: exitCodeOf(end), Signal: end.GetSignal(), Error: end.GetError(), Stdout: stdout.String(), Stderr: stderr.String()}
	switch {
	case c.json:
		if err := c.print(r, nil); err != nil {
			return err
		}
	case r.Error != "":
		return faultf(r.ExitCode, "millrace node exec --help", "%s on node %s: %s", q.Command[0], q.Node, r.Error)
	}
	if r.ExitCode != exitOK {
		return silent{r.ExitCode}
	}
	return nil
}

// execOnce sends what a program writes where it goes; end is nil if nothing was heard of it.
func (c *call) execOnce(conn *connection, q *api.ExecNodeRequest, outTo, errTo io.Writer) (end *api.ExecEnd, came bool, err error) {
	stream, err := conn.api().ExecNode(c.Context.Context, connect.NewRequest(q))
	if err != nil {
		return nil, false, err
	}
	defer stream.Close()
	for ; stream.Receive(); came = true {
		m := stream.Msg()
		if _, err := errTo.Write(m.GetStderr()); err != nil {
			return nil, true, quiet(err)
		}
		if _, err := outTo.Write(m.GetStdout()); err != nil {
			return nil, true, quiet(err)
		}
		end = m.GetEnd()
	}
	return end, came, stream.Err()
}

// exitCodeOf is the exit code of a program as shells have it: 128 and the signal's number, 124 at the end of its time, 126 if it
// cannot be executed, 127 if it could not be started otherwise.
func exitCodeOf(end *api.ExecEnd) int {
	switch {
	case end.GetError() != "" && end.GetSignal() != "":
		return exitTimeout
	case strings.Contains(end.GetError(), syscall.EACCES.Error()), strings.Contains(end.GetError(), syscall.ENOEXEC.Error()):
		return 126
	case end.GetError() != "":
		return 127
	case end.GetSignal() != "":
		return 128 + int(unix.SignalNum(end.GetSignal()))
	}
	return int(end.GetExitCode())
}

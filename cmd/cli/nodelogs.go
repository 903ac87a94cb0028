package cli

import (
	"strings"

	"connectrpc.com/connect"

	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
)

const bootstrapWord = "bootstrap"

// nodeLogs prints the last of what a node says of itself, or the output of its bootstrap actions.
func nodeLogs(c *call) error {
	q := &api.NodeLogsRequest{Node: c.args[0], Follow: c.Bool("follow")}
	if len(c.args) == 2 {
		if q.Bootstrap = c.args[1] == bootstrapWord; !q.Bootstrap {
			return usagef("millrace node logs "+c.args[0]+" "+bootstrapWord, "%q: there are the node's own log, and that of its %s actions", c.args[1], bootstrapWord)
		}
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	var text strings.Builder
	out := c.env.Stdout
	if c.json {
		out = &text
	}
	err = conn.untilBegun(c.Context.Context, apiconnect.MillraceServiceNodeLogsProcedure, func() (begun bool, err error) {
		stream, err := conn.api().NodeLogs(c.Context.Context, connect.NewRequest(q))
		if err != nil {
			return false, err
		}
		defer stream.Close()
		for stream.Receive() {
			if _, err := out.Write(stream.Msg().GetData()); err != nil {
				return true, quiet(err)
			}
			begun = true
		}
		return begun, stream.Err()
	})
	if err != nil || !c.json {
		return err
	}
	return c.print(map[string]string{"node": q.Node, "log": text.String()}, nil)
}

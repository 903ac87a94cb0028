package cli

import (
	"errors"
	"io"
	"strings"

	"connectrpc.com/connect"

	"millrace/pkg/api"
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
	stream, err := conn.api().NodeLogs(c.Context.Context, connect.NewRequest(q))
	if err != nil {
		return err
	}
	defer stream.Close()
	var text strings.Builder
	for stream.Receive() {
		if data := stream.Msg().GetData(); c.json {
			text.Write(data)
		} else if _, err := c.env.Stdout.Write(data); err != nil {
			return quiet(err)
		}
	}
	if err := stream.Err(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !c.json {
		return nil
	}
	return c.print(map[string]string{"node": q.Node, "log": text.String()}, nil)
}

package cli

import (
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect"

	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
)

func jobLogs(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	j, err := c.job(conn) // "last" may be another one when the log is asked for again
	if err != nil {
		return err
	}
	l := &attemptLog{out: c.env.Stdout, req: &api.JobLogsRequest{Job: j.ID, Cluster: conn.cluster, Attempt: c.String("attempt"), Follow: c.Bool("follow")}}
	var text strings.Builder
	if c.json {
		l.out = &text
	}
	err = conn.Repeat(c.Context.Context, apiconnect.MillraceServiceJobLogsProcedure, func() (bool, error) { return l.read(c, conn) })
	if err != nil {
		return err
	}
	if !c.json {
		if l.printed == 0 {
			fmt.Fprintf(c.env.Stderr, "it wrote nothing to standard error; millrace job why %s says how it ended\n", c.args[0])
		}
		return nil
	}
	return c.print(map[string]string{"attempt": l.attempt, "log": text.String()}, nil)
}

// attemptLog is an attempt's log while it is printed: from one leader, and on from the next.
type attemptLog struct {
	req     *api.JobLogsRequest
	out     io.Writer
	attempt string
	printed int // bytes
}

// read prints what has not been printed yet, and says whether there was anything: a log begins at its beginning whoever sends it, and
// only grows.
func (l *attemptLog) read(c *call, conn *connection) (came bool, err error) {
	stream, err := conn.api().JobLogs(c.Context.Context, connect.NewRequest(l.req))
	if err != nil {
		return false, err
	}
	defer stream.Close()
	for known := l.printed; stream.Receive(); {
		m := stream.Msg()
		if l.attempt == "" && m.GetAttempt() != "" {
			l.attempt, l.req.Attempt = m.GetAttempt(), m.GetAttempt()
			if !c.json {
				fmt.Fprintf(c.env.Stderr, "attempt %s\n", l.attempt)
			}
		}
		data := m.GetData()
		skip := min(known, len(data))
		known -= skip
		n, err := l.out.Write(data[skip:])
		l.printed += n
		came = came || n > 0
		if err != nil {
			return came, quiet(err)
		}
	}
	return came, stream.Err()
}

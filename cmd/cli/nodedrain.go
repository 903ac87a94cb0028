package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"

	"millrace/cmd/cli/screen"
	"millrace/cmd/cli/view"
	"millrace/pkg/api"
)

const (
	drainLookEvery = 500 * time.Millisecond
	// A drain that is followed in a pipe says so often at most how far it is.
	drainSayEvery = 2 * time.Second
	// drainPatience is how long whoever follows a drain waits for a node that is lost, and for a master.
	drainPatience = time.Minute
)

func nodeDrain(c *call) error {
	name := c.args[0]
	q := &api.DrainNodeRequest{Node: name, DryRun: c.Bool("dry-run")}
	switch grace := c.Duration("grace"); {
	case grace < 0:
		return usagef("millrace node drain "+name+" --grace 5m", "--grace %s is negative", grace)
	case c.Bool("wait") && q.DryRun:
		return usagef("leave out one of them", "--wait and --dry-run exclude each other: a dry run starts nothing")
	case c.IsSet("grace"):
		ms := grace.Milliseconds()
		q.GraceMs = &ms
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	resp, err := conn.api().DrainNode(c.Context.Context, connect.NewRequest(q))
	if err != nil {
		return err
	}
	d := view.OfDrain(resp.Msg)
	if c.Bool("wait") {
		if d, err = c.followDrain(c.Context.Context, conn, d); err != nil {
			return err
		}
	}
	return c.print(d, func(w io.Writer) {
		fmt.Fprintln(w, drainLine(d))
		switch {
		case q.DryRun && d.Node.State != "DRAINING":
			fmt.Fprintf(w, "next: millrace node drain %s --wait\n", nameOf(d.Node))
		case !d.Drained && !q.DryRun:
			fmt.Fprintf(w, "next: millrace node drain %s --wait follows it, millrace node resume %[1]s stops it\n", nameOf(d.Node))
		}
	})
}

// drainLine is the one line people get of a drain.
func drainLine(d view.Drain) string {
	switch {
	case d.Node.State == "DRAINING" || d.Node.State == "LOST" || d.Node.State == "TERMINATED":
		return fmt.Sprintf("%s %s: %s", nameOf(d.Node), d.Node.State, clean(d.Node.Reason))
	case d.Blocks == 0:
		return fmt.Sprintf("%s: nothing is to be copied to other nodes", nameOf(d.Node))
	}
	about := ""
	if d.EstimateMs > 0 {
		about = ", in about " + formatLeft(time.Duration(d.EstimateMs)*time.Millisecond)
	}
	return fmt.Sprintf("%s: %s (%s) would be copied to other nodes%s", nameOf(d.Node), plural(int(d.Blocks), "block"), formatSize(d.Bytes), about)
}

func nameOf(n view.Node) string { return clean(cmp.Or(n.Name, n.ID)) }

// followDrain shows how a drain gets on until nothing is left on the node.
func (c *call) followDrain(ctx context.Context, conn *connection, d view.Drain) (view.Drain, error) {
	show, stop := c.drainProgress()
	defer stop()
	look := time.NewTicker(drainLookEvery)
	defer look.Stop()
	name := nameOf(d.Node)
	goesOn := fmt.Sprintf("millrace node drain %s --wait follows it, millrace node resume %[1]s stops it", name)
	well := time.Now() // when a master last said that the node is up
	for {
		if d.Drained || d.Node.State == "TERMINATED" { // or it was removed as soon as it was drained
			return d, nil
		}
		show(drainLine(d))
		switch {
		case d.Node.State == "RUNNING":
			return d, faultf(exitFailed, "millrace node drain "+name+" --wait", "node %s drains no more: somebody has had it resume", name)
		case d.Node.State != "LOST":
			well = time.Now()
		case time.Since(well) > drainPatience:
			return d, faultf(exitFailed, "start its worker again, or take it out as it is: millrace node remove "+name, "node %s is lost: %s", name, clean(d.Node.Reason))
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return d, faultf(exitInterrupted, goesOn, "interrupted; node %s goes on draining", name)
		}
		resp, err := conn.api().GetDrain(ctx, connect.NewRequest(&api.GetDrainRequest{Node: d.Node.ID}))
		switch {
		case err == nil:
			d = view.OfDrain(resp.Msg)
		case ctx.Err() != nil:
		case explain(ctx, err).code != exitUnreachable || time.Since(well) > drainPatience:
			f := explain(ctx, err)
			f.lines = append(f.lines, "node "+name+" goes on draining")
			f.next = goesOn
			return d, f
		}
	}
}

// drainProgress shows a line that changes on a terminal, in its place; else the line anew when it has changed.
func (c *call) drainProgress() (show func(line string), stop func()) {
	if c.isTerminal(c.env.Stderr) {
		lines := make(chan string, 1)
		last := ""
		b := screen.Open(c.env.Stderr, func(int) []string {
			select {
			case last = <-lines:
			default:
			}
			return []string{last}
		})
		return func(line string) {
			select {
			case <-lines: // nobody has seen it
			default:
			}
			lines <- line
		}, b.Close
	}
	if c.json {
		return func(string) {}, func() {}
	}
	said, at := "", time.Time{}
	return func(line string) {
		if line != said && time.Since(at) >= drainSayEvery {
			said, at = line, time.Now()
			fmt.Fprintln(c.env.Stderr, line)
		}
	}, func() {}
}

func nodeResume(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	resp, err := conn.api().ResumeNode(c.Context.Context, connect.NewRequest(&api.ResumeNodeRequest{Node: c.args[0]}))
	if err != nil {
		return err
	}
	n := view.OfNode(resp.Msg)
	return c.print(n, func(w io.Writer) { fmt.Fprintf(w, "node %s does not drain any more\n", nameOf(n)) })
}

func nodeRemove(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	resp, err := conn.api().RemoveNode(c.Context.Context, connect.NewRequest(&api.RemoveNodeRequest{Node: c.args[0], Force: c.Bool("force")}))
	if err != nil {
		return err
	}
	n := view.OfNode(resp.Msg)
	return c.print(n, func(w io.Writer) {
		fmt.Fprintf(w, "node %s (%s) is out of the site, and its group does not count it\nits worker ends by itself; the machine may join again, with an empty folder and a token (millrace join-token create)\n", nameOf(n), n.ID)
	})
}

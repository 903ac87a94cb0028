package cli

import (
	"fmt"
	"io"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"millrace/cmd/cli/view"
	"millrace/pkg/api"
)

func (a *app) clusterSetCommand() *cli.Command {
	return a.leaf(spec{name: "set", usage: "change what is not about nodes", args: clusterArg, max: 1, gathers: true,
		example: "millrace cluster set nightly --step-concurrency 2 --tag team=data\nmillrace cluster set nightly --termination-protected=false\nmillrace cluster set etl --bootstrap-action ./setup.sh,pandas     (for nodes to come)",
		flags: append(bootstrapFlags(),
			&cli.BoolFlag{Name: "termination-protected", Usage: "terminate refuses; =false: no more"},
			&cli.IntFlag{Name: "step-concurrency", Usage: "`N` jobs at once, the others wait; 0: no limit"},
			&cli.DurationFlag{Name: "auto-terminate", Usage: "end after `TIME` without a job; 0: never"},
			&cli.BoolFlag{Name: "terminate-after-steps", Usage: "end when the jobs that it has got have ended; =false: no more"},
			&cli.StringSliceFlag{Name: "tag", Usage: "`KEY=VALUE` (repeatable)"},
			&cli.StringSliceFlag{Name: "untag", Usage: "`KEY` of a tag to take away (repeatable)"},
		), do: clusterSet})
}

func clusterSet(c *call) error {
	var m mistakes
	for _, f := range c.inv.wrong {
		m.take(f)
	}
	req := &api.SetClusterRequest{PutTags: c.tags("tag", &m), RemoveTags: c.StringSlice("untag")}
	if c.IsSet("termination-protected") {
		on := c.Bool("termination-protected")
		req.TerminationProtected = &on
	}
	if c.IsSet("terminate-after-steps") {
		on := c.Bool("terminate-after-steps")
		req.TerminateAfterSteps = &on
	}
	if c.IsSet("step-concurrency") {
		n := int32(c.Int("step-concurrency"))
		req.StepConcurrency = &n
	}
	if c.IsSet("auto-terminate") {
		ms := c.Duration("auto-terminate").Milliseconds()
		req.AutoTerminateMs = &ms
	}
	var scripts *shipped
	var err error
	if req.BootstrapActions, scripts, err = c.bootstrapActions(&m); err != nil {
		return err
	}
	switch {
	case c.IsSet("bootstrap-timeout") && !c.IsSet("bootstrap-action"):
		m.wrong("millrace cluster set NAME --bootstrap-action SCRIPT --bootstrap-timeout 30m", "--bootstrap-timeout goes with --bootstrap-action: it is of new actions")
	case c.NumFlags() == 0 && !m.any():
		m.wrong("millrace cluster set --help", "nothing to change")
	}
	if err := m.fault(); err != nil {
		return err
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	req.Cluster = c.clusterNamed(conn)
	if err := shipScripts(c.Context.Context, conn, req.BootstrapActions, scripts); err != nil {
		return err
	}
	resp, err := conn.api().SetCluster(c.Context.Context, connect.NewRequest(req))
	if err != nil {
		return err
	}
	v := view.OfCluster(resp.Msg)
	return c.print(v, func(w io.Writer) { showCluster(w, v) })
}

func (a *app) clusterTerminateCommand() *cli.Command {
	return a.leaf(spec{name: "terminate", usage: "end a cluster: its jobs are cancelled, its nodes let go, its files deleted", args: clusterArg, max: 1,
		example: "millrace cluster terminate nightly --wait",
		flags:   []cli.Flag{&cli.BoolFlag{Name: "wait", Usage: "follow it, until it has ended"}}, do: clusterTerminate})
}

func clusterTerminate(c *call) error {
	// What the context or the environment happens to say will not do: there is no way back.
	name := c.String("cluster")
	if len(c.args) > 0 {
		name = c.args[0]
	}
	if name == "" {
		return usagef("millrace cluster terminate NAME; millrace cluster list names them", "say which cluster is to end: its jobs and files go with it")
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	ctx := c.Context.Context
	resp, err := conn.api().TerminateCluster(ctx, connect.NewRequest(&api.TerminateClusterRequest{Cluster: name}))
	if err != nil {
		return err
	}
	v := view.OfCluster(resp.Msg)
	if c.Bool("wait") {
		if v, err = c.followCluster(ctx, conn, v, isOver); err != nil {
			return err
		}
	}
	return c.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "cluster %s (%s) is %s%s\n", clean(v.Name), v.ID, v.State, because(v.Reason))
		if !over(v.State) {
			fmt.Fprintf(w, "next: millrace cluster show %s says how far it is\n", v.ID)
		}
	})
}

package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"millrace/cmd/cli/view"
	"millrace/pkg/api"
)

func (a *app) clusterResizeCommand() *cli.Command {
	return a.leaf(spec{name: "resize", usage: "change how many nodes a cluster has, while its jobs run", args: clusterArg, max: 1, gathers: true,
		example: "millrace cluster resize --core 5 --task 0 --dry-run\nmillrace cluster resize nightly --task 8 --wait\nmillrace cluster resize --task-min 0 --task-max 20\nmillrace cluster resize nightly --retry",
		flags: append(groupFlags(),
			&cli.DurationFlag{Name: "grace", Usage: "`TIME` after which what still runs on nodes that leave is killed, which counts against no task (default: 5m)", DefaultText: "5m"},
			&cli.BoolFlag{Name: "retry", Usage: "let nodes go on which bootstrap actions have failed, and have others in their place, also where a group grew no more"},
			&cli.BoolFlag{Name: "wait", Usage: "follow it, until all nodes are there, and those that leave are gone"},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what it would take, and change nothing"},
		), do: clusterResize})
}

func clusterResize(c *call) error {
	var m mistakes
	for _, f := range c.inv.wrong {
		m.take(f)
	}
	req := &api.ResizeClusterRequest{Groups: c.groupTargets(&m), DryRun: c.Bool("dry-run")}
	if c.Bool("retry") {
		req.Groups = untouched(req.Groups)
	}
	if len(req.Groups) == 0 && !m.any() {
		m.wrong("--task 5", "nothing to change: give --core, --task, --task-min or --task-max, or --retry")
	}
	if c.IsSet("grace") {
		ms := c.Duration("grace").Milliseconds()
		if ms < 0 {
			m.wrong("--grace 5m", "--grace %s is negative", c.Duration("grace"))
		}
		req.GraceMs = &ms
	}
	if c.Bool("wait") && req.DryRun {
		m.wrong("leave out one of them", "--wait and --dry-run exclude each other: a dry run starts nothing")
	}
	if err := m.fault(); err != nil {
		return err
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	req.Cluster = c.clusterNamed(conn)
	ctx := c.Context.Context
	resp, err := conn.api().ResizeCluster(ctx, connect.NewRequest(req))
	if err != nil {
		return err
	}
	v := view.OfResize(resp.Msg, req.DryRun)
	if c.Bool("wait") {
		if v.Cluster, err = c.followCluster(ctx, conn, v.Cluster, isSettled); err != nil {
			return err
		}
	}
	names := map[string]string{}
	if slices.ContainsFunc(v.Groups, func(g view.GroupPlan) bool { return len(g.Drain) > 0 }) && !c.json {
		names = nodeNames(ctx, conn, v.Cluster.ID)
	}
	return c.print(v, func(w io.Writer) {
		if c.Bool("wait") {
			fmt.Fprintln(w, clusterLine(v.Cluster))
			return
		}
		for _, g := range v.Groups {
			fmt.Fprintln(w, planLine(g, v.DryRun, names))
		}
		if c.IsSet("task-max") && c.Int("task-max") == 0 {
			fmt.Fprintln(w, "task: it scales by itself no more")
		}
		if v.DryRun {
			fmt.Fprintln(w, "nothing was changed: it is a dry run")
		} else {
			fmt.Fprintf(w, "next: millrace cluster show %s says how far it is\n", clean(v.Cluster.Name))
		}
	})
}

// untouched adds the groups of which nothing else is asked: they keep their targets, and what has failed in them is forgotten.
func untouched(asked []*api.GroupTarget) []*api.GroupTarget {
	for _, role := range []string{"core", "task"} {
		if !slices.ContainsFunc(asked, func(t *api.GroupTarget) bool { return t.Role == role }) {
			asked = append(asked, &api.GroupTarget{Role: role})
		}
	}
	return asked
}

// nodeNames are what people call a cluster's nodes, by id; none if no master says so.
func nodeNames(ctx context.Context, conn *connection, cluster string) map[string]string {
	names := map[string]string{}
	if resp, err := conn.api().ListNodes(ctx, connect.NewRequest(&api.ListNodesRequest{Cluster: cluster})); err == nil {
		for _, n := range resp.Msg.Nodes {
			names[n.Id] = n.Name
		}
	}
	return names
}

// planLine says what it takes to bring a group to its target.
func planLine(g view.GroupPlan, dry bool, names map[string]string) string {
	var parts []string
	would := "are"
	if dry {
		would = "would be"
	}
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if g.Add > 0 {
		add("%s to add", plural(int(g.Add), "node"))
	}
	if g.Missing > 0 {
		add("%d of them %s missing: the provider has no more now, and is asked again and again", g.Missing, would)
	}
	if n := len(g.Drain); n > 0 {
		var who []string
		for _, id := range g.Drain {
			who = append(who, cmp.Or(names[id], id))
		}
		add("%s to drain (%s)", plural(n, "node"), strings.Join(who, ", "))
	}
	if g.Attempts > 0 {
		add("%s running there", plural(int(g.Attempts), "attempt"))
	}
	if g.Blocks > 0 {
		add("%s (%s) to move", plural(int(g.Blocks), "block"), formatSize(g.Bytes))
	}
	if g.EstimateMs > 0 {
		add("about %s", formatLeft(msDuration(g.EstimateMs)))
	}
	if len(parts) == 0 {
		add("nothing to do")
	}
	return fmt.Sprintf("%s: %d to %s: %s", strings.ToLower(g.Role), g.From, plural(int(g.To), "node"), clean(strings.Join(parts, "; ")))
}

package cli

import (
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

// clusterArg is the argument of commands that are about one cluster.
const clusterArg = "[CLUSTER]"

func (a *app) clusterCommand() *cli.Command {
	return group("cluster", "clusters: their nodes, slots and queue", "millrace cluster show", nil,
		a.leaf(spec{name: "list", aliases: []string{"ls"}, usage: "the site's clusters that have not ended", example: "millrace cluster list\nmillrace cluster list --all",
			flags: []cli.Flag{
				&cli.BoolFlag{Name: "all", Usage: "those that have ended, too"},
				&cli.StringSliceFlag{Name: "state", Usage: "only those in `STATE` (repeatable)"},
			}, do: clusterList}),
		a.leaf(spec{name: "show", aliases: []string{"describe", "status"}, usage: "one cluster", args: clusterArg, max: 1, example: "millrace cluster show\nmillrace cluster show nightly --json", do: clusterShow}),
		a.clusterCreateCommand(), a.clusterResizeCommand(), a.clusterSetCommand(), a.clusterTerminateCommand(), a.clusterEventsCommand(),
		a.userDataCommand(),
	)
}

func (a *app) statusCommand() *cli.Command {
	return a.leaf(spec{name: "status", usage: "the same as cluster show", args: clusterArg, max: 1, example: "millrace status", do: clusterShow})
}

var clusterStates = []string{"STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING", "TERMINATING", "TERMINATED", "TERMINATED_WITH_ERRORS"}

// over says whether a cluster has ended.
func over(state string) bool { return strings.HasPrefix(state, "TERMINATED") }

func clusterList(c *call) error {
	states := c.StringSlice("state")
	for i, s := range states {
		if states[i] = strings.ToUpper(s); !slices.Contains(clusterStates, states[i]) {
			return usagef("millrace cluster list --state WAITING", "--state %s is none of %s", s, strings.Join(clusterStates, ", "))
		}
	}
	conn, err := c.connect()
	if err != nil {
		return err
	}
	resp, err := conn.api().ListClusters(c.Context.Context, connect.NewRequest(&api.ListClustersRequest{}))
	if err != nil {
		return err
	}
	views := []view.Cluster{}
	for _, cl := range resp.Msg.GetClusters() {
		wanted := c.Bool("all") || !over(cl.GetState())
		if len(states) > 0 {
			wanted = slices.Contains(states, cl.GetState())
		}
		if wanted {
			views = append(views, view.OfCluster(cl))
		}
	}
	return c.print(views, func(w io.Writer) {
		t := newTable(w, "ID", "STATE", "NODES", "SLOTS", "QUEUED", "CREATED", "NAME") // last, as it may be longer than all the rest
		for _, v := range views {
			var nodes int64
			for _, g := range v.Groups {
				nodes += g.Running
			}
			t.row(v.ID, v.State, fmt.Sprint(nodes), fmt.Sprintf("%d/%d", v.Slots.Running, v.Slots.Total), fmt.Sprint(v.QueuedTasks), formatTime(v.CreatedAt), v.Name)
		}
		t.flush()
	})
}

// clusterNamed is the cluster that a command is about: its argument, or what --cluster, the environment or the context say.
func (c *call) clusterNamed(conn *connection) string {
	if len(c.args) > 0 {
		return c.args[0]
	}
	return conn.cluster
}

// clustersByID are the clusters' names.
func (c *call) clustersByID() (map[string]string, error) {
	conn, err := c.connect()
	if err != nil {
		return nil, err
	}
	resp, err := conn.api().ListClusters(c.Context.Context, connect.NewRequest(&api.ListClustersRequest{}))
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, cl := range resp.Msg.GetClusters() {
		names[cl.GetId()] = cl.GetName()
	}
	return names, nil
}

func getCluster(ctx context.Context, conn *connection, name string) (view.Cluster, error) {
	resp, err := conn.api().GetCluster(ctx, connect.NewRequest(&api.GetClusterRequest{Cluster: name}))
	if err != nil {
		return view.Cluster{}, err
	}
	return view.OfCluster(resp.Msg), nil
}

func clusterShow(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	v, err := getCluster(c.Context.Context, conn, c.clusterNamed(conn))
	if err != nil {
		return err
	}
	return c.print(v, func(w io.Writer) { showCluster(w, v) })
}

func showCluster(w io.Writer, v view.Cluster) {
	state := v.State + because(v.Reason)
	if v.State == "WAITING" {
		state += " (idle: no job runs)"
	}
	fmt.Fprintf(w, "cluster %s (%s) is %s\n", clean(v.Name), v.ID, state)
	for _, p := range v.Problems {
		fmt.Fprintf(w, "problem: %s\n", clean(p))
	}
	t := newTable(w)
	for _, m := range v.Masters {
		what := m.State
		if m.Leader {
			what += ", leader"
		}
		t.row("  master", m.Name, what, m.Address)
	}
	for _, g := range v.Groups {
		t.row("  "+g.Role, g.ID, groupState(g), groupTarget(g))
	}
	t.flush()
	if !over(v.State) {
		fmt.Fprintf(w, "  slots: %d of %d in use, %s queued\n", v.Slots.Running, v.Slots.Total, plural(int(v.QueuedTasks), "task"))
	}
	for _, line := range clusterSettings(v) {
		fmt.Fprintf(w, "  %s\n", clean(line))
	}
}

// groupState says for people where a group's nodes are on their way.
func groupState(g view.Group) string {
	text := fmt.Sprintf("%d running", g.Running)
	for _, part := range []struct {
		n    int64
		what string
	}{{g.Launching, "launching"}, {g.Bootstrapping, "bootstrapping"}, {g.Draining, "draining"}, {g.Missing, "missing"}} {
		if part.n > 0 {
			text += fmt.Sprintf(", %d %s", part.n, part.what)
		}
	}
	return text
}

func groupTarget(g view.Group) string {
	text := fmt.Sprintf("target %d", g.Target)
	if g.Min != nil && g.Max != nil {
		text += fmt.Sprintf(" (scales from %d to %d)", *g.Min, *g.Max)
	}
	return text
}

// actionName is what people call a bootstrap action's script: its URL, or the file that it was uploaded from.
func actionName(b view.BootstrapAction) string {
	if strings.HasSuffix(b.URL, "/programs/"+b.SHA256) {
		return b.Name
	}
	return b.URL
}

// tagsLine is how long a line with all of a cluster's tags may be, in bytes; else each has its own.
const tagsLine = 76

// clusterSettings are lines for what was set of a cluster.
func clusterSettings(v view.Cluster) (lines []string) {
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for i, b := range v.BootstrapActions {
		add("bootstrap action %d: %s", i+1, strings.Join(append([]string{actionName(b)}, b.Args...), " "))
	}
	if v.StepConcurrency > 0 {
		add("runs %s at once", plural(int(v.StepConcurrency), "job"))
	}
	if v.AutoTerminateMs > 0 {
		add("ends after %s without a job", formatLeft(msDuration(v.AutoTerminateMs)))
	}
	if v.TerminateAfterSteps {
		add("ends when its jobs have ended")
	}
	if v.TerminationProtected {
		add("protected from termination")
	}
	if len(v.Tags) > 0 {
		var tags []string
		for k, value := range v.Tags {
			tags = append(tags, k+"="+value)
		}
		slices.Sort(tags)
		if line := "tags: " + strings.Join(tags, ", "); len(line) <= tagsLine {
			return append(lines, line)
		}
		add("tags:")
		for _, tag := range tags {
			add("  %s", tag)
		}
	}
	return lines
}

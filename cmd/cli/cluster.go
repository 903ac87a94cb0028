package cli

import (
	"fmt"
	"io"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"millrace/cmd/cli/view"
	"millrace/pkg/api"
)

func (a *app) clusterCommand() *cli.Command {
	return group("cluster", "clusters: their nodes, slots and queue", "millrace cluster show", nil,
		a.leaf(spec{name: "list", aliases: []string{"ls"}, usage: "all clusters of the site", example: "millrace cluster list", do: clusterList}),
		a.leaf(spec{name: "show", aliases: []string{"describe", "status"}, usage: "one cluster", args: "[CLUSTER]", max: 1, example: "millrace cluster show\nmillrace cluster show nightly --json", do: clusterShow}),
	)
}

func (a *app) statusCommand() *cli.Command {
	return a.leaf(spec{name: "status", usage: "the same as cluster show", args: "[CLUSTER]", max: 1, example: "millrace status", do: clusterShow})
}

func clusterList(c *call) error {
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
		views = append(views, view.OfCluster(cl))
	}
	return c.print(views, func(w io.Writer) {
		t := newTable(w, "ID", "NAME", "STATE", "NODES", "SLOTS", "QUEUED")
		for _, v := range views {
			var nodes int64
			for _, g := range v.Groups {
				nodes += g.Running
			}
			t.row(v.ID, v.Name, v.State, fmt.Sprint(nodes), fmt.Sprintf("%d/%d", v.Slots.Running, v.Slots.Total), fmt.Sprint(v.QueuedTasks))
		}
		t.flush()
	})
}

func clusterShow(c *call) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	name := conn.cluster
	if len(c.args) > 0 {
		name = c.args[0]
	}
	resp, err := conn.api().GetCluster(c.Context.Context, connect.NewRequest(&api.GetClusterRequest{Cluster: name}))
	if err != nil {
		return err
	}
	v := view.OfCluster(resp.Msg)
	return c.print(v, func(w io.Writer) {
		state := v.State
		if state == "WAITING" {
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
			t.row("  "+g.Role, g.ID, fmt.Sprintf("%d running", g.Running), fmt.Sprintf("target %d", g.Target))
		}
		t.flush()
		fmt.Fprintf(w, "  slots: %d of %d in use, %s queued\n", v.Slots.Running, v.Slots.Total, plural(int(v.QueuedTasks), "task"))
	})
}

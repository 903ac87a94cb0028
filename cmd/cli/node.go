package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"

	"millrace/cmd/cli/view"
	"millrace/pkg/api"
)

func (a *app) nodeCommand() *cli.Command {
	return group("node", "the machines", "millrace node list", nil,
		a.leaf(spec{name: "list", aliases: []string{"ls"}, usage: "all nodes, masters too", example: "millrace node list\nmillrace node list --json", do: nodeList}),
		a.leaf(spec{name: "show", aliases: []string{"describe"}, usage: "one node", args: "NODE", min: 1, max: 1, example: "millrace node show core-1", do: nodeShow}),
	)
}

// nodes asks for all nodes, of one cluster if --cluster or the environment names one.
func (c *call) nodes() ([]view.Node, error) {
	conn, err := c.connect()
	if err != nil {
		return nil, err
	}
	resp, err := conn.api().ListNodes(c.Context.Context, connect.NewRequest(&api.ListNodesRequest{Cluster: c.clusterName(nil)}))
	if err != nil {
		return nil, err
	}
	return view.Nodes(resp.Msg.GetNodes()), nil
}

func nodeList(c *call) error {
	nodes, err := c.nodes()
	if err != nil {
		return err
	}
	return c.print(nodes, func(w io.Writer) {
		t := newTable(w, "ID", "NAME", "ROLE", "STATE", "SLOTS", "MEMORY", "DISK FREE", "SEEN", "ADDRESS")
		for _, n := range nodes {
			role, slots := n.Role, fmt.Sprintf("%d/%d", n.Running, n.Slots)
			if n.Leader {
				role += " (leader)"
			}
			if n.Role == "MASTER" {
				slots = "-"
			}
			t.row(n.ID, n.Name, role, n.State, slots, sizeOrDash(n.MemoryBytes), sizeOrDash(n.DiskFreeBytes), formatAge(n.LastSeenAt.Time, time.Now()), n.Address)
		}
		t.flush()
	})
}

func sizeOrDash(n int64) string {
	if n == 0 {
		return "-"
	}
	return formatSize(n)
}

// nodeShow finds a node by id, name or unique prefix of its id.
func nodeShow(c *call) error {
	nodes, err := c.nodes()
	if err != nil {
		return err
	}
	var found []view.Node
	for _, n := range nodes {
		if n.ID == c.args[0] || n.Name == c.args[0] {
			found = []view.Node{n}
			break
		}
		if strings.HasPrefix(n.ID, c.args[0]) {
			found = append(found, n)
		}
	}
	switch {
	case len(found) == 0:
		return faultf(exitNotFound, "millrace node list", "no node %q", c.args[0])
	case len(found) > 1:
		return usagef("give more of the id: millrace node list", "%q is the beginning of %d nodes' ids", c.args[0], len(found))
	}
	n := found[0]
	return c.print(n, func(w io.Writer) {
		t := newTable(w)
		for _, r := range [][2]string{
			{"id", n.ID}, {"name", n.Name}, {"role", n.Role}, {"state", strings.TrimSpace(n.State + " " + n.Reason)}, {"cluster", n.Cluster}, {"group", n.Group},
			{"address", n.Address}, {"slots", fmt.Sprintf("%d, %d running", n.Slots, n.Running)}, {"memory", sizeOrDash(n.MemoryBytes)},
			{"disk", fmt.Sprintf("%s, %s free", sizeOrDash(n.DiskBytes), sizeOrDash(n.DiskFreeBytes))}, {"version", n.Version}, {"pid", fmt.Sprint(n.PID)},
			{"joined", formatTime(n.JoinedAt)}, {"last seen", formatTime(n.LastSeenAt)},
		} {
			t.row(r[0], r[1])
		}
		t.flush()
	})
}

func formatTime(t view.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

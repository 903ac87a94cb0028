package cli

import (
	"cmp"
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
		a.nodeAddCommand(),
		a.leaf(spec{name: "drain", usage: "have a worker finish what it runs, and its blocks copied to others", args: "NODE", min: 1, max: 1,
			example: "millrace node drain core-2 --dry-run\nmillrace node drain core-2 --wait", flags: []cli.Flag{
				&cli.DurationFlag{Name: "grace", Usage: "`TIME` after which what still runs there is killed, which counts against no task (default: 5m)", DefaultText: "5m"},
				&cli.BoolFlag{Name: "wait", Usage: "follow it, until nothing is left there"},
				&cli.BoolFlag{Name: "dry-run", Usage: "say what it would take, and change nothing"},
			}, do: nodeDrain}),
		a.leaf(spec{name: "resume", usage: "let a node that drains have tasks and blocks again", args: "NODE", min: 1, max: 1, example: "millrace node resume core-2", do: nodeResume}),
		a.leaf(spec{name: "remove", aliases: []string{"rm"}, usage: "take a worker out of the site for good, that is drained or lost", args: "NODE", min: 1, max: 1,
			example: "millrace node remove core-2", flags: []cli.Flag{
				&cli.BoolFlag{Name: "force", Usage: "also if blocks go with it that no other node has"},
			}, do: nodeRemove}),
		a.leaf(spec{name: "logs", aliases: []string{"log"}, usage: "the last of what a node says of itself; with bootstrap, what its bootstrap actions have said", args: "NODE [bootstrap]", min: 1, max: 2,
			example: "millrace node logs core-2 -f\nmillrace node logs core-2 bootstrap", flags: []cli.Flag{
				&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what comes; with bootstrap until the actions have ended"},
			}, do: nodeLogs}),
		a.leaf(spec{name: "exec", usage: "run a program on a worker, without a shell; its exit code is this command's. For administrators, audited, and off if the site says so", args: "NODE -- PROGRAM [ARG…]", min: 1, max: 1, handsOn: true,
			example: "millrace node exec core-2 -- df -h\nmillrace node exec core-2 -- sh -c 'ls /var/log | wc -l'", flags: []cli.Flag{
				&cli.DurationFlag{Name: "timeout", Usage: "`TIME` after which it is ended (default: 10m)", DefaultText: "10m"},
				&cli.BoolFlag{Name: "stdin", Usage: "give it standard input, at most 1 MiB"},
			}, do: nodeExec}),
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
	var clusters map[string]string
	if !c.json {
		if clusters, err = c.clustersByID(); err != nil {
			return err
		}
	}
	return c.print(nodes, func(w io.Writer) {
		t := newTable(w, "ID", "NAME", "CLUSTER", "ROLE", "STATE", "SLOTS", "MEMORY", "DISK FREE", "SEEN", "ADDRESS")
		for _, n := range nodes {
			role, slots := n.Role, fmt.Sprintf("%d/%d", n.Running, n.Slots)
			if n.Leader {
				role += " (leader)"
			}
			if n.Role == "MASTER" {
				slots = "-"
			}
			t.row(n.ID, n.Name, cmp.Or(clusters[n.Cluster], n.Cluster, "-"), role, n.State, slots, sizeOrDash(n.MemoryBytes), sizeOrDash(n.DiskFreeBytes), formatAge(n.LastSeenAt.Time, time.Now()), n.Address)
		}
		t.flush()
		for _, n := range nodes {
			if n.Reason != "" {
				fmt.Fprintf(w, "%s: %s\n", clean(cmp.Or(n.Name, n.ID)), clean(n.Reason))
			}
		}
	})
}

func sizeOrDash(n int64) string {
	if n == 0 {
		return "-"
	}
	return formatSize(n)
}

// nodesMeant are those of the id, else those of the name, else those whose ids begin so.
func nodesMeant(nodes []view.Node, ref string) (found []view.Node) {
	for _, is := range []func(view.Node) bool{
		func(n view.Node) bool { return n.ID == ref },
		func(n view.Node) bool { return n.Name == ref },
		func(n view.Node) bool { return strings.HasPrefix(n.ID, ref) },
	} {
		for _, n := range nodes {
			if is(n) {
				found = append(found, n)
			}
		}
		if len(found) > 0 {
			break
		}
	}
	return found
}

// nodeShow finds a node by id, name or unique prefix of its id.
func nodeShow(c *call) error {
	nodes, err := c.nodes()
	if err != nil {
		return err
	}
	found := nodesMeant(nodes, c.args[0])
	switch {
	case len(found) == 0:
		return faultf(exitNotFound, "millrace node list", "no node %q", c.args[0])
	case len(found) > 1:
		return usagef("give an id: millrace node list", "%q means %d nodes", c.args[0], len(found))
	}
	n := found[0]
	return c.print(n, func(w io.Writer) {
		t := newTable(w)
		for _, r := range [][2]string{
			{"id", n.ID}, {"name", n.Name}, {"role", n.Role}, {"state", strings.TrimSpace(n.State + " " + n.Reason)}, {"cluster", n.Cluster}, {"group", n.Group},
			{"address", n.Address}, {"slots", fmt.Sprintf("%d, %d running", n.Slots, n.Running)}, {"memory", sizeOrDash(n.MemoryBytes)},
			{"disk", fmt.Sprintf("%s, %s free", sizeOrDash(n.DiskBytes), sizeOrDash(n.DiskFreeBytes))}, {"version", fmt.Sprintf("%s (protocol %d)", n.Version, n.Protocol)}, {"pid", fmt.Sprint(n.PID)},
			{"joined", formatTime(n.JoinedAt)}, {"last seen", formatTime(n.LastSeenAt)},
		} {
			t.row(r[0], r[1])
		}
		for _, d := range n.Disks {
			room := fmt.Sprintf("%s, %s free beside the %s for tasks", formatSize(d.CapacityBytes), formatSize(d.FreeBytes), formatSize(d.ReserveBytes))
			t.row("blocks", d.Dir+": "+cmp.Or(d.Reason, room))
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
